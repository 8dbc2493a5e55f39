//! Tables and ages as kubectl prints them.

use std::time::Duration;

/// Columns with three spaces between them, none behind the last one.
pub fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(rows) {
        let padded: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// `3s`, `12m`, `5h`, `9d`: as kubectl has it, in one unit.
pub fn age(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The same of milliseconds.
pub fn age_millis(millis: u64) -> String {
    age(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [["pod-0".to_owned(), "12".to_owned()], ["p".to_owned(), String::new()]];
        assert_eq!(table(["POD", "SHARDS"], &rows), "POD     SHARDS\npod-0   12\np\n");
        assert_eq!(table(["POD", "SHARDS"], &[]), "POD   SHARDS\n");
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, expected) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
    }
}
