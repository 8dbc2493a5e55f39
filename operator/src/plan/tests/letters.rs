//! Method: a revision was taken back, and what is known of its dead letters, its workers and the pod is written down; what is done is compared.

use super::*;

/// `t2` was taken back; `t1` runs.
fn taken_back(letters: Letters, results: [&str; 2]) -> Fleet {
    let mut configs = configs(&[("t1", Standing::Good(1)), ("t2", Standing::Bad("it was bad".into()))]);
    for (config, results) in configs.values_mut().zip(results) {
        config.results = Some(results.to_owned());
    }
    configs.get_mut("t2").unwrap().letters = letters;
    Fleet { template: "t2".into(), configs, ..fleet(1, vec![worker(0, PodState::Ready, runs(1, &[0, 1, 2, 3]))]) }
}

fn due() -> Fleet {
    taken_back(Letters::Due, ["r1", "r2"])
}

fn with_pod(fleet: Fleet, task: Task) -> Fleet {
    Fleet { postmen: vec![Postman { pod: "letters".into(), template: "t2".into(), task }], ..fleet }
}

fn put_back() -> Action {
    Action::PutBack { template: "t2".into(), told_by: ToldBy::Results("r2".into()) }
}

fn mark_letters(letters: Letters) -> Action {
    Action::MarkLetters { template: "t2".into(), letters }
}

#[test]
fn letters_are_put_back_once_when_none_of_the_bad_workers_is_left() {
    check(&due(), &[put_back()]);
    let bad = |answer| of("t2", worker(1, PodState::Ending, answer));
    let mut ends = due();
    ends.workers[0].answer = runs(1, &[0, 1, 2]);
    ends.workers.push(bad(runs(2, &[3])));
    check(&ends, &[]);
    // A lost node's pod stays for long; its shards run elsewhere, so it is barred.
    let mut lost = due();
    lost.workers.push(bad(silent(10, runs(2, &[3]))));
    check(&lost, &[put_back()]);
    let mut starts = due();
    starts.workers[0].answer = runs(1, &[0, 1]);
    check(&starts, &[assign(0, 2, &[0, 1, 2, 3])]);

    check(&with_pod(due(), Task::Working(0, None)), &[]);
    check(&with_pod(due(), Task::Lost), &[Action::DropLost("letters".into())]);
    check(&with_pod(due(), Task::Done), &[mark_letters(Letters::PutBack)]);
    check(&with_pod(taken_back(Letters::PutBack, ["r1", "r2"]), Task::Done), &[Action::DeletePostman("letters".into())]);
    let trouble = || Some(Trouble { reason: "Error".into(), message: "no broker answers".into() });
    check(&with_pod(due(), Task::Working(4, trouble())), &[]);
    check(&with_pod(due(), Task::Working(5, trouble())), &[mark_letters(Letters::Left)]);
    check(&with_pod(due(), Task::Refused("no permission".into())), &[mark_letters(Letters::Left)]);
}

/// Method: the image was changed alone, so results are decided by the same, and both revisions write the same hash on their letters.
#[test]
fn letters_of_an_image_alone_are_told_from_others_by_its_template() {
    let same = taken_back(Letters::Due, ["r1", "r1"]);
    check(&same, &[Action::PutBack { template: "t2".into(), told_by: ToldBy::Template }]);
    check(&with_pod(same, Task::Done), &[mark_letters(Letters::PutBack)]);
}

#[test]
fn letters_that_cannot_be_told_from_others_are_left_and_so_are_those_of_a_revision_that_never_processed() {
    let mut damaged = due();
    damaged.configs.get_mut("t2").unwrap().results = None;
    check(&damaged, &[mark_letters(Letters::Left)]);
    check(&taken_back(Letters::None, ["r1", "r2"]), &[]);
    check(&taken_back(Letters::PutBack, ["r1", "r2"]), &[]);
}

/// Method: the manifest is repaired before the letters are put back: the bad revision's config map stays until they are.
#[test]
fn letters_are_put_back_whatever_comes_after() {
    let mut repaired = Fleet { template: "t3".into(), ..due() };
    repaired.configs.extend(configs(&[("t3", Standing::Untried)]));
    repaired.savepoints = [("t3".to_owned(), saved("t3", SavepointPhase::Copying))].into();
    check(&repaired, &[put_back()]);
    repaired.configs.get_mut("t2").unwrap().letters = Letters::PutBack;
    check(&repaired, &[Action::DeleteConfig("t2".into())]);
}
