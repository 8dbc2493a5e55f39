//! What the operator saw and did, and what it waits for. Pure.

use forebay_api::look::{Change, Look};

use crate::advice::advice;
use crate::table::age_millis;

/// The look in words. `generation`: of the job as it is now.
pub fn text(look: &Look, job: &str, generation: Option<i64>) -> String {
    let mut text = format!("{} ({}): {}\n", look.phase, look.reason, look.message);
    text.push_str(&format!("looked at {} ago\n", age_millis(look.age_millis)));
    if look.generation != generation {
        text.push_str("the job was changed after that; the next look comes at once\n");
    }
    if let Some(stage) = look.change.as_ref().and_then(stage) {
        text.push_str(&format!("\nChange: {stage}\n"));
    }
    list(&mut text, "Done at this look", &look.actions, Some("nothing was left to be done that could be"));
    if let Some(decided) = look.decided.as_ref().filter(|_| look.actions.is_empty()) {
        list(&mut text, &format!("Done last, {} ago", age_millis(decided.age_millis)), &decided.actions, None);
    }
    let error = look.error.iter().map(|error| format!("the last action failed, and is tried again: {error}"));
    let waits: Vec<String> = look.waits.iter().cloned().chain(error).collect();
    list(&mut text, "Waits for", &waits, Some("nothing"));
    if let Some(advice) = advice(&look.reason, job) {
        text.push_str(&format!("\nWhat to do: {advice}\n"));
    }
    text
}

/// Where a change of revision stands; `None` when there is none.
pub fn stage(change: &Change) -> Option<String> {
    let Change { stage, from, to } = change;
    Some(match stage.as_str() {
        "steady" => return None,
        "first" => format!("revision {to} is the first one: there is none to go back to, and it is tried until it runs"),
        "savepoint" => format!("from revision {from} to {to}, step 1 of 3: a savepoint is taken before anything changes"),
        "canary" => format!("from revision {from} to {to}, step 2 of 3: one worker more tries it on one shard"),
        "switch" => format!("from revision {from} to {to}, step 3 of 3: it did well on one shard, and the other workers follow"),
        "rolledBack" => format!("revision {to} was taken back, and is not tried again; {from} is in force"),
        other => format!("from revision {from} to {to}: {other}"),
    })
}

/// A heading with lines below it. Without any lines: what stands there instead, or nothing at all.
pub fn list(text: &mut String, heading: &str, lines: &[String], instead: Option<&str>) {
    if lines.is_empty() && instead.is_none() {
        return;
    }
    text.push_str(&format!("\n{heading}:\n"));
    let instead = instead.filter(|_| lines.is_empty());
    for line in lines.iter().map(String::as_str).chain(instead) {
        text.push_str(&format!("  {line}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_told_with_what_it_waits_for() {
        let look = crate::show::status::tests::look();
        assert_eq!(
            text(&look, "flights", Some(4)),
            "Upgrading (CanaryObserved): revision bbb: shard 1 is observed for 30 s\n\
             looked at 1s ago\n\
             the job was changed after that; the next look comes at once\n\
             \n\
             Change: from revision aaa to bbb, step 2 of 3: one worker more tries it on one shard\n\
             \n\
             Done at this look:\n  nothing was left to be done that could be\n\
             \n\
             Done last, 12s ago:\n  flights-0 has the shards {0, 1} under version 7\n\
             \n\
             Waits for:\n  shard 2 is on no worker that answers\n  the last action failed, and is tried again: the API server is away\n"
        );
    }

    #[test]
    fn a_job_that_is_as_it_should_be_waits_for_nothing() {
        let change = Some(Change { stage: "steady".into(), from: "aaa".into(), to: "aaa".into() });
        let (phase, reason, message) = ("Running".into(), "AllShardsRun".into(), "all 4 shards process".into());
        let look = Look { phase, reason, message, change, ..Look::default() };
        assert_eq!(
            text(&look, "flights", None),
            "Running (AllShardsRun): all 4 shards process\nlooked at 0s ago\n\nDone at this look:\n  nothing was left to be done that could be\n\n\
             Waits for:\n  nothing\n"
        );
    }

    #[test]
    fn every_stage_names_the_revisions() {
        for name in ["first", "savepoint", "canary", "switch", "rolledBack", "one that comes later"] {
            let said = stage(&Change { stage: name.into(), from: "aaa".into(), to: "bbb".into() }).unwrap();
            assert!(said.contains("bbb"), "{said}");
        }
    }
}
