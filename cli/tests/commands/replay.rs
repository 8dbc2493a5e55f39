//! Promise: every dead letter is put back once, whatever was asked for, in which order, and however often a replay is killed.

use std::collections::BTreeMap;

use crate::support::{Watched, World, orders};

/// Bytes of a large letter: some forty make a transaction of a replay.
const LARGE: usize = 100 << 10;

/// How many letters of each step are put back, or would be.
fn replayed(world: &World, arguments: &[&str]) -> BTreeMap<String, u64> {
    let rows = world.ask_json(&[&["dlq", "replay"], arguments].concat());
    let steps = rows.iter().filter_map(|row| Some((row["step"].as_str()?.to_owned(), row["letters"].as_u64()?)));
    steps.collect()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(step, count)| (step.to_owned(), count)).collect()
}

/// How often each value lies in the input.
fn occurrences(world: &World) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for record in world.records("orders") {
        *found.entry(record["value"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    found
}

/// Method: letters of two steps, mixed. A dry run, one step, the other, all, and all again.
#[test]
fn a_step_leaves_the_letters_of_others_for_later() {
    let world = World::new();
    let malformed = (0..3).map(|number| ("c".to_owned(), format!("no JSON {number}")));
    world.produce("orders", malformed.zip(orders("c", [-1, -2, -3])).flat_map(|(one, other)| [one, other]));
    world.produce("orders", orders("c", [5]));
    world.ask(&["run", "--until-end"]);

    let all = counts([("parse", 3), ("validate", 3)]);
    assert_eq!(replayed(&world, &["--dry-run"]), all);
    assert_eq!(world.records("orders").len(), 7, "a dry run put something back");
    assert_eq!(replayed(&world, &["--step", "validate"]), counts([("validate", 3)]));
    assert_eq!(replayed(&world, &["--step", "validate"]), counts([]));
    assert_eq!(replayed(&world, &["--dry-run"]), counts([("parse", 3)]));
    assert_eq!(replayed(&world, &[]), counts([("parse", 3)]));
    assert_eq!(replayed(&world, &[]), counts([]));
    let found = occurrences(&world);
    assert!(found.iter().all(|(value, count)| *count == if value.contains('5') { 1 } else { 2 }), "{found:?}");

    // What is put back and refused again is a new letter.
    world.ask(&["run", "--until-end"]);
    assert_eq!(replayed(&world, &["--step", "parse"]), counts([("parse", 3)]));
}

/// Method: many transactions' worth of letters of two steps; replays are killed right after their first, second, third... transaction, the
/// last one runs through. Each letter must be in the input twice then: as it came, and put back.
#[test]
fn each_letter_is_back_once_however_often_the_replay_was_killed() {
    let world = World::new();
    let filler = "x".repeat(LARGE);
    let malformed = (0..160).map(|number| ("c".to_owned(), format!("no JSON {number} {filler}")));
    let invalid = (0..160).map(|number| ("c".to_owned(), format!("{{\"amount\": -{number}, \"filler\": \"{filler}\"}}")));
    world.produce("orders", malformed.zip(invalid).flat_map(|(one, other)| [one, other]));
    world.ask(&["run", "--until-end"]);
    assert_eq!(world.records("orders.dead").len(), 320);

    let (mut before, mut in_the_middle) = (160, 0);
    for (transactions, which) in [(1, &["--step", "validate"][..]), (1, &[]), (2, &[])] {
        let arguments = [&["dlq", "replay"], which].concat();
        let mut replay = Watched::start(world.command(&arguments).env("RUST_LOG", "forebay=debug"));
        let _ = (0..transactions).all(|_| replay.until("dead letters are put back"));
        drop(replay);
        let left: u64 = replayed(&world, &[which, &["--dry-run"]].concat()).values().sum();
        in_the_middle += u64::from((1..before).contains(&left));
        before = if which.is_empty() { left } else { 160 + left };
    }
    // On a busy machine one may be over before it is killed.
    assert!(in_the_middle > 0, "no replay was killed in the middle");
    assert_eq!(replayed(&world, &[]).values().sum::<u64>(), before);
    let found = occurrences(&world);
    assert_eq!(found.len(), 320);
    assert!(found.values().all(|count| *count == 2), "{:?}", found.values().collect::<Vec<_>>());
}

/// Method: a record in the dead-letter topic that Forebay did not put there.
#[test]
fn a_stranger_among_the_letters_stays_where_it_is_and_is_said() {
    let world = World::new();
    world.produce("orders", orders("c", [-1]));
    world.ask(&["run", "--until-end"]);
    world.produce("orders.dead", [("k".to_owned(), "a stranger".to_owned())]);
    let said = world.call(&["dlq", "replay"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("1 records have no header forebay.step"), "{said:?}");
    assert_eq!(said.stdout, "validate: 1 dead letters are put back\n1 dead letters are put back\n");
}

/// Method: letters of two revisions of a job, some put back by their step before and some by their revision, then all by their steps. And the other way round.
#[test]
fn a_letter_that_its_revision_has_put_back_is_not_put_back_by_its_step() {
    let world = World::new();
    world.produce("orders", orders("c", [-1, -2]));
    world.ask(&["run", "--until-end"]);
    world.change_job("min: 1}", "min: 100}");
    world.produce("orders", orders("c", [3, 4, 5]));
    world.ask(&["run", "--until-end"]);
    let revisions: Vec<String> =
        world.records("orders.dead").iter().map(|letter| letter["headers"]["forebay.revision"].as_str().unwrap().to_owned()).collect();
    let (good, bad) = (&revisions[0], &revisions[4]);
    assert_ne!(good, bad);
    let of = |revision: &str, arguments: &[&str]| -> Vec<u64> {
        let rows = world.ask_json(&[&["dlq", "replay", "--revision", revision], arguments].concat());
        rows.iter().filter(|row| row["revision"] == revision).filter_map(|row| row["letters"].as_u64()).collect()
    };
    assert_eq!(of(bad, &["--dry-run"]), [3]);
    assert_eq!(of(bad, &[]), [3]);
    assert_eq!(of(bad, &[]), [0_u64; 0]);
    assert_eq!(replayed(&world, &[]), counts([("validate", 2)]));
    assert_eq!(of(good, &[]), [0_u64; 0]);
    let found = occurrences(&world);
    assert!(found.values().all(|count| *count == 2) && found.len() == 5, "{found:?}");
    let both = world.call(&["dlq", "replay", "--revision", bad, "--step", "validate"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

/// Method: one revision of a job, run by what goes by two names, and by what has none. The letters of one name are put back, then all by their step.
#[test]
fn letters_of_one_revision_are_told_apart_by_what_their_process_was_made_from() {
    let world = World::new();
    for (template, amounts) in [("one", [-1, -2].as_slice()), ("other", &[-3, -4, -5]), ("", &[-6])] {
        world.produce("orders", amounts.iter().flat_map(|amount| orders("c", [*amount])));
        let named = ["run", "--until-end", "--template", template];
        world.ask(if template.is_empty() { &named[..2] } else { &named });
    }
    let of = |template: &str, arguments: &[&str]| -> Vec<u64> {
        let rows = world.ask_json(&[&["dlq", "replay", "--template", template], arguments].concat());
        rows.iter().filter(|row| row["template"] == template).filter_map(|row| row["letters"].as_u64()).collect()
    };
    assert_eq!(of("other", &["--dry-run"]), [3]);
    assert_eq!(of("other", &[]), [3]);
    assert_eq!(of("other", &[]), [0_u64; 0]);
    assert_eq!(replayed(&world, &[]), counts([("validate", 3)]));
    assert_eq!(of("one", &[]), [0_u64; 0]);
    let found = occurrences(&world);
    assert!(found.values().all(|count| *count == 2) && found.len() == 6, "{found:?}");
    let both = world.call(&["dlq", "replay", "--template", "one", "--step", "validate"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

/// Method: a revision that no letter is of and that is not the manifest's, then one that is.
#[test]
fn a_revision_that_nobody_knows_is_refused_and_the_manifests_own_is_not() {
    let world = World::new();
    world.produce("orders", orders("c", [-1]));
    world.ask(&["run", "--until-end"]);
    let of = |revision: &str| world.call(&["dlq", "replay", "--dry-run", "--revision", revision]);
    let letters = world.records("orders.dead")[0]["headers"]["forebay.revision"].as_str().unwrap().to_owned();
    let unknown = of("no-such");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    for needed in ["no dead letter is of a revision \"no-such\"", "those of the letters are", &letters] {
        assert!(unknown.stderr.contains(needed), "{needed:?} is not in {unknown:?}");
    }
    world.change_job("min: 1}", "min: 100}");
    let own = world.ask_json(&["validate"])[0]["revision"].as_str().unwrap().to_owned();
    assert_eq!((of(&own).code, of(&letters).code), (Some(0), Some(0)));
}
