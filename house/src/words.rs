//! Words that must not stand in any file: paths that exist on one developer's machine only.

use crate::repository::TextFile;

/// Beginnings of such paths. Put together here, so that this file does not hold them.
const FORBIDDEN: [&str; 4] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/ho", "me/")];

/// A line for each forbidden word, with its place.
pub fn check(file: &TextFile) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        for word in FORBIDDEN {
            let stands_alone = |(at, _): (usize, &str)| !line[..at].ends_with(is_path_character);
            if line.match_indices(word).any(stands_alone) {
                findings.push(format!(
                    "{}:{number}: {word} is a path of one machine; name it from the repository's root, or by a variable",
                    file.path
                ));
            }
        }
    }
    findings
}

/// `network/roots/root/x` is no absolute path.
fn is_path_character(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str, expected: usize) {
        let file = TextFile { path: "a.md".into(), text: format!("fine\n{line}\n") };
        let findings = check(&file);
        assert_eq!(findings.len(), expected, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.starts_with("a.md:2: ")), "{findings:?}");
    }

    #[test]
    fn a_path_of_one_machine_is_found_and_a_part_of_another_path_is_not() {
        for word in FORBIDDEN {
            check_line(&format!("see {word}x"), 1);
            check_line(&format!("cd {word}x && ls {word}y"), 1);
            check_line(&format!("\"{word}x\""), 1);
            check_line(&format!("a{word}x and ${{HOME}}{word}"), 0);
        }
        check_line("~/.cache and /tmp/x and $HOME/x", 0);
    }
}
