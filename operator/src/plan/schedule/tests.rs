//! Method: what may be seen is written down, and what is done compared; then a toy, in which operators come and go and clocks jump.

use std::time::Duration;

use super::*;

fn at(text: &str) -> Timestamp {
    format!("2026-11-{text}:00Z").parse().unwrap()
}

fn schedule(cron: &str, retain: u32) -> Option<Schedule> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
    let added = format!("  savepoints: {{schedule: \"{cron}\", retain: {retain}}}\n");
    let manifest = std::fs::read_to_string(path).unwrap() + &added;
    forebay_crds::Manifest::parse(&manifest, "job.yaml").unwrap().validate().unwrap().savepoints
}

/// Every night at three, of a job that is old; two complete ones are kept.
fn nightly(now: &str, taken: Vec<Taken>) -> Calendar {
    Calendar { schedule: schedule("0 3 * * *", 2), now: at(now), made: at("01T00:00"), taken }
}

fn taken(due: &str, phase: SavepointPhase) -> Taken {
    let (name, path) = (format!("s-{due}"), format!("default/job/s-{due}"));
    Taken { name, due: at(due), phase: Some(phase), path, takes_all: false, ends: false }
}

fn check(calendar: &Calendar, expected: &[Action]) {
    assert_eq!(plan(calendar, false, None), expected, "{calendar:#?}");
}

fn take(due: &str) -> Vec<Action> {
    vec![Action::TakeSavepoint(at(due))]
}

use SavepointPhase::{Completed, Copying, Failed, Pending};

#[test]
fn one_is_taken_when_it_is_due_and_no_second_one() {
    check(&nightly("26T03:00", vec![taken("25T03:00", Completed)]), &take("26T03:00"));
    check(&nightly("26T02:59", vec![taken("25T03:00", Completed)]), &[]);
    for phase in [Pending, Copying, Completed, Failed] {
        check(&nightly("26T03:01", vec![taken("26T03:00", phase)]), &[]);
    }
    let unseen = Taken { phase: None, ..taken("26T03:00", Pending) };
    check(&nightly("26T03:00", vec![unseen]), &[]);
    // It may be deleted by hand: then it is taken again, once it is gone.
    let ends = Taken { ends: true, ..taken("26T03:00", Failed) };
    check(&nightly("26T05:00", vec![ends]), &[]);
    check(&nightly("26T05:00", vec![taken("25T03:00", Completed)]), &take("26T03:00"));
}

#[test]
fn who_was_away_takes_one_and_a_job_none_of_before_its_time() {
    check(&nightly("26T12:00", vec![taken("05T03:00", Completed)]), &take("26T03:00"));
    check(&nightly("26T12:00", vec![]), &take("26T03:00"));
    let young = Calendar { made: at("26T03:01"), ..nightly("26T12:00", vec![]) };
    check(&young, &[]);
    // One that takes longer than a day is waited for.
    check(&nightly("26T12:00", vec![taken("25T03:00", Copying)]), &[]);
    let without = Calendar { schedule: None, ..nightly("26T12:00", vec![taken("05T03:00", Completed); 9]) };
    check(&without, &[]);
    assert_eq!(plan(&nightly("26T12:00", vec![]), true, None), []);
}

#[test]
fn a_clock_that_was_wrong_is_forgotten() {
    // It went ahead by three days, and a savepoint was taken; then it was set right.
    check(&nightly("26T03:00", vec![taken("29T03:00", Completed), taken("25T03:00", Completed)]), &take("26T03:00"));
    check(&nightly("25T12:00", vec![taken("29T03:00", Completed), taken("25T03:00", Completed)]), &[]);
    let doomed = || vec![taken("29T03:00", Completed), taken("26T03:00", Completed), taken("25T03:00", Completed)];
    check(&nightly("26T12:00", doomed()), &[Action::DoomSavepoint("s-29T03:00".into())]);
    // It went back, and what it says was due is there.
    check(&nightly("24T12:00", vec![taken("25T03:00", Completed), taken("24T03:00", Completed)]), &[]);
}

#[test]
fn the_oldest_complete_ones_go_and_some_of_those_that_failed_one_after_another() {
    let full = |more: Vec<Taken>| {
        let all = [taken("26T03:00", Completed), taken("25T03:00", Completed), taken("22T03:00", Failed)];
        nightly("26T12:00", all.into_iter().chain(more).collect())
    };
    let (doom, delete) = (|name: &str| Action::DoomSavepoint(name.into()), |name: &str| Action::DeleteSavepoint(name.into()));
    check(&full(vec![]), &[]);
    let four = full(vec![taken("24T03:00", Completed), taken("23T03:00", Completed)]);
    check(&four, &[doom("s-23T03:00")]);
    // The one that the job is to go back to stays, and does not count.
    assert_eq!(plan(&four, false, Some("default/job/s-23T03:00")), [doom("s-24T03:00")]);
    let doomed = || Taken { takes_all: true, ..taken("23T03:00", Completed) };
    check(&full(vec![taken("24T03:00", Completed), doomed()]), &[delete("s-23T03:00")]);
    check(&full(vec![taken("24T03:00", Completed), Taken { ends: true, ..doomed() }]), &[]);
    check(&full(vec![taken("21T03:00", Failed), taken("20T03:00", Failed)]), &[]);
    check(&full(vec![taken("21T03:00", Failed), taken("20T03:00", Failed), taken("19T03:00", Failed)]), &[doom("s-19T03:00")]);
    // Those that failed push out no complete one.
    let failing = vec![taken("26T03:00", Failed), taken("25T03:00", Failed), taken("24T03:00", Completed), taken("23T03:00", Completed)];
    check(&nightly("26T12:00", failing), &[]);
}

/// Method: a fortnight, minute by minute, with a savepoint due each hour. The operator is away now and then, and the clock jumps ahead and back. What is planned is
/// done at once, by two operators; a savepoint takes some minutes, and some fail. None may be taken twice, nor two at a time; whenever the operator has been there for
/// a while with a clock that is right, the one of the last hour must be there; and few may be left.
#[test]
fn whoever_comes_and_goes_and_however_clocks_jump() {
    let (start, minute) = (at("01T00:00"), Duration::from_secs(60));
    let mut calendar = Calendar { schedule: schedule("0 * * * *", 3), now: start, made: start, taken: Vec::new() };
    let (mut begun, mut made): (Vec<(String, u32)>, u32) = (Vec::new(), 0);
    for step in 0..14 * 24 * 60_u32 {
        // Away for half a day each third day; a day ahead for two hours of the tenth day; ten minutes back for some of each.
        let (day, of_day) = (step / 1440, step % 1440);
        let is_away = day % 3 == 2 && of_day < 720;
        let wrong = (day == 9 && of_day < 120, of_day % 600 < 30);
        let truth = start + minute * step;
        calendar.now = match wrong {
            (true, _) => truth + minute * 1440,
            (false, true) => truth - minute * 10,
            (false, false) => truth,
        };
        for taken in &mut calendar.taken {
            let over = begun.iter().any(|(name, since)| *name == taken.name && step >= since + 7);
            taken.phase = if over { Some(if taken.due.as_second() / 3600 % 5 == 0 { Failed } else { Completed }) } else { Some(Copying) };
        }
        for _ in 0..if is_away { 0 } else { 2 } {
            for action in plan(&calendar, false, None) {
                match action {
                    Action::TakeSavepoint(due) => {
                        let name = due.to_string();
                        assert!(calendar.taken.iter().all(|taken| taken.name != name), "{name} is taken twice");
                        begun.push((name.clone(), step));
                        made += 1;
                        calendar.taken.push(Taken { name, due, phase: None, path: String::new(), takes_all: false, ends: false });
                    }
                    Action::DoomSavepoint(name) => {
                        calendar.taken.iter_mut().filter(|taken| taken.name == name).for_each(|taken| taken.takes_all = true)
                    }
                    Action::DeleteSavepoint(name) => calendar.taken.retain(|taken| taken.name != name),
                    other => panic!("{other:?} was not called for"),
                }
            }
        }
        let under_way = calendar.taken.iter().filter(|taken| !matches!(taken.phase, Some(Completed | Failed))).count();
        assert!(under_way <= 1, "{calendar:#?}");
        let is_settled = day % 3 != 2 && wrong == (false, false) && of_day > 60 && of_day % 60 > 10 && of_day % 600 > 100;
        let hour = Timestamp::from_second(truth.as_second() / 3600 * 3600).unwrap();
        assert!(!is_settled || calendar.taken.iter().any(|taken| taken.due == hour), "{truth}: {calendar:#?}");
        assert!(calendar.taken.len() <= 3 + FAILED_MAX + 2, "{calendar:#?}");
    }
    // An hour each, less those of the half days.
    assert!((250..=14 * 24).contains(&made), "{made}");
}
