//! Which pod has which shards. Pure.

use std::collections::BTreeSet;

use forebay_api::look::{GivenUp, Look, Worker};
use serde::Serialize;

use crate::table::table;

/// What one pod has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment<'a> {
    pod: &'a str,
    revision: &'a str,
    /// 0: it has no assignment.
    version: u64,
    /// What it was given.
    shards: &'a [u32],
    /// What it works on: more, while it releases some.
    works_on: Vec<u32>,
    /// What it was given, and somebody else had the better right to.
    given_up: &'a [GivenUp],
}

/// What each pod has.
pub fn of(look: &Look) -> Vec<Assignment<'_>> {
    look.workers.iter().map(of_worker).collect()
}

fn of_worker(worker: &Worker) -> Assignment<'_> {
    let Worker { pod, revision, version, assigned, given_up, shards, .. } = worker;
    let works_on = shards.iter().map(|shard| shard.shard).collect();
    Assignment { pod, revision, version: *version, shards: assigned, works_on, given_up }
}

/// A table, and below it what does not fit in.
pub fn text(look: &Look) -> String {
    let all = of(look);
    let version = |version: u64| if version == 0 { "-".to_owned() } else { version.to_string() };
    let rows: Vec<[String; 5]> = all
        .iter()
        .map(|one| [one.pod.to_owned(), one.revision.to_owned(), version(one.version), ranges(one.shards), ranges(&one.works_on)])
        .collect();
    let mut text = table(["POD", "REVISION", "VERSION", "SHARDS", "WORKS ON"], &rows);
    for one in &all {
        for lost in one.given_up {
            text.push_str(&format!(
                "{} gave up shard {}: {} has the better right, by version {}\n",
                one.pod, lost.shard, lost.winner, lost.version
            ));
        }
    }
    let given: BTreeSet<u32> = all.iter().flat_map(|one| one.shards).copied().collect();
    let nobodys: Vec<u32> = (0..look.shards.unwrap_or(0)).filter(|shard| !given.contains(shard)).collect();
    match look.shards {
        Some(_) if nobodys.is_empty() => {}
        Some(_) => text.push_str(&format!("given to nobody: {}\n", ranges(&nobodys))),
        None => text.push_str("no worker has said yet how many shards there are\n"),
    }
    text
}

/// `0-3,7`.
fn ranges(shards: &[u32]) -> String {
    let sorted: BTreeSet<u32> = shards.iter().copied().collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for shard in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == shard => *last = shard,
            _ => runs.push((shard, shard)),
        }
    }
    if runs.is_empty() {
        return "-".to_owned();
    }
    let run = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_written_as_ranges() {
        for (shards, expected) in [(&[][..], "-"), (&[3], "3"), (&[2, 0, 1, 5], "0-2,5"), (&[0, 2, 3], "0,2-3")] {
            assert_eq!(ranges(shards), expected);
        }
    }

    #[test]
    fn who_has_what_is_told_and_what_nobody_has() {
        let look = crate::show::status::tests::look();
        assert_eq!(
            text(&look),
            "POD         REVISION   VERSION   SHARDS   WORKS ON\n\
             flights-0   aaa        7         0-1      0-1\n\
             flights-1   aaa        6         2        -\n\
             flights-1 gave up shard 2: another.uid has the better right, by version 9\n\
             given to nobody: 3\n"
        );
    }
}
