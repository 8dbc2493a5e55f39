//! Section 3, "What is gone is said", and waits that nothing ends: the reason is said, nothing is skipped, and it is tried again.

use crate::*;

const FIRST: Partition = Partition::new(0);
const SECOND: ShardId = ShardId::new(1);

/// Two shards of one partition each, both worker 0's, worked off. Then worker 0 dies, and there is more input.
fn left_with_input() -> (World, usize) {
    let mut world = World::new(Setup { shards: 2, partitions: 2, ..Setup::quiet() }, 7);
    (0..2).for_each(|seat| world.start(seat));
    let version = world.next_version();
    world.assign(0, version);
    world.until("both shards run", |world| world.runs(0, SHARD) && world.runs(0, ShardId::new(1)));
    world.work_off(20);
    quiet(&mut world);
    world.crash(0, false);
    let committed = world.log.group[&FIRST].get() as usize;
    world.produce(20);
    assert!(world.log.inputs[0].iter().skip(committed).flatten().count() > 2, "the first partition has more to read");
    (world, committed)
}

/// Worker 1 gets both shards: the first must stall with these words and commit nothing, the second must go on.
fn stalls_alone(world: &mut World, said: &[&str]) {
    let before = world.oracle.head(SHARD).expect("it has epochs").clone();
    let version = world.next_version();
    world.assign(1, version);
    for again in 1..=2 {
        world.until("the first shard stalls", |world| world.coverage.met("a shard stalls") >= again);
    }
    world.until("the second shard is worked off", |world| world.is_partition_worked_off(Partition::new(1)));
    assert!(said.iter().all(|words| world.said(SHARD).contains(words)), "{} does not say {said:?}", world.said(SHARD));
    assert_eq!(
        world.oracle.head(SHARD).map(|head| (head.epoch, &head.positions)),
        Some((before.epoch, &before.positions)),
        "nothing is skipped"
    );
    assert_eq!(world.coverage.met("a shard fails"), 0, "it is not said to heal by itself");
}

/// "Input deleted before it was used."
#[test]
fn an_input_that_was_deleted_before_it_was_used_stalls_its_shard_and_no_other() {
    let (mut world, committed) = left_with_input();
    world.cut_input(FIRST, committed as u64 + 2);
    let (wanted, start) = (format!("offset {committed} is gone"), format!("starts at {}", committed + 2));
    stalls_alone(&mut world, &["input-0", &wanted, &start]);
    world.cut_input(FIRST, committed as u64);
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// The same under an owner that reads on.
#[test]
fn an_input_that_is_deleted_under_its_reader_stalls_the_shard() {
    let mut world = owned(Setup::quiet());
    world.produce(3);
    world.until("worker 0 commits", |world| world.is_at(0, "commit-end"));
    world.delay_commits(0, true);
    // More than an epoch may hold: reading stops in the middle.
    world.produce(80);
    quiet(&mut world);
    let end = world.log.inputs[0].len();
    world.cut_input(FIRST, end as u64 - 1);
    world.delay_commits(0, false);
    world.until("it stalls", |world| world.is_at(0, "stalled"));
    assert!(world.said(SHARD).contains("is gone"), "{}", world.said(SHARD));
    world.cut_input(FIRST, 0);
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// "Offsets behind or beyond the topic": the committed offset lies behind the end.
#[test]
fn an_input_that_ends_before_the_committed_offset_stalls_its_shard_and_no_other() {
    let (mut world, committed) = left_with_input();
    let lost = world.lose_input(FIRST, committed - 2);
    let (wanted, end) = (format!("offset {committed} "), format!("behind the end {} of input-0", committed - 2));
    stalls_alone(&mut world, &[&wanted, &end]);
    world.bring_input_back(FIRST, lost);
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// "A topic made anew under its name stalls the job": it has other records where the old one's would be read on.
///
/// Method: worker 0 comes back to its own disk, or worker 1 takes over from the store.
#[test]
fn an_input_that_was_made_anew_stalls_all_shards_and_they_go_on_once_the_old_one_is_back() {
    for seat in [0, 1] {
        let (mut world, _) = left_with_input();
        let heads = |world: &World| [SHARD, SECOND].map(|shard| world.oracle.head(shard).cloned());
        let before = heads(&world);
        let old = world.make_input_anew();
        world.produce(100);
        let has_more = |partition: u32| !world.is_partition_worked_off(Partition::new(partition));
        assert!(has_more(0) && has_more(1), "the new topic has records behind the committed offsets");
        if seat == 0 {
            world.start(0);
        }
        let version = world.next_version();
        world.assign(seat, version);
        let both_stand = |world: &World| world.phases(seat).iter().filter(|phase| **phase == "stalled").count() == 2;
        for again in 1..=2 {
            world.until("both shards stall", |world| world.coverage.met("a shard stalls") >= 2 * again && both_stand(world));
        }
        for said in [SHARD, SECOND].map(|shard| world.said(shard)) {
            assert!(said.contains("input topic input was deleted and made anew (id input-1, now input-1-anew)"), "{said}");
        }
        assert_eq!(heads(&world), before, "nothing of the new topic is committed");
        let held: usize = world.seats.iter().flat_map(|seat| &seat.process).map(|process| process.shards().count()).sum();
        assert_eq!((held, world.coverage.met("a shard fails")), (0, 0), "nobody processes it, and it is not said to heal by itself");
        world.bring_old_input_back(old);
        world.until("all is worked off", World::is_worked_off);
        world.end();
    }
}

/// The same with the bug that it guards against.
#[test]
fn an_input_that_was_made_anew_and_is_read_all_the_same_is_found() {
    fails_with(
        Bug::InputIdIgnored,
        an_input_that_was_made_anew_stalls_all_shards_and_they_go_on_once_the_old_one_is_back,
        "I4Owners: shard",
    );
}

/// Stalls again and again with these words; nobody processes anything meanwhile.
fn first_shard_stalls(world: &mut World, words: &str) {
    let before = world.coverage.met("a shard stalls");
    for again in 1..=2 {
        world.until("the shard stalls", |world| world.coverage.met("a shard stalls") >= before + again);
    }
    assert!(world.said(SHARD).contains(words), "{} does not say {words:?}", world.said(SHARD));
    assert_eq!(world.coverage.met("a shard fails"), 0, "it is not said to heal by itself");
}

/// "A topic made anew under its name stalls the job": a journal that holds nothing is not that of a job that has done nothing.
///
/// Method: worker 0 comes back to its own disk; to an empty one, with the group's offsets as all that is left; or worker 1 takes over from a checkpoint.
#[test]
fn a_journal_that_was_made_anew_stalls_its_shard_which_goes_on_once_the_old_one_is_back() {
    let made_anew = "its journal topic was deleted and made anew (id journal-1, now journal-1-anew)";
    let cases = [
        (1000, false, made_anew),
        (1000, true, "its journal and its checkpoints are gone, and yet it has committed offsets"),
        (1, true, "the topic was made anew or lost records"),
    ];
    for (checkpoint_epochs, wiped, words) in cases {
        let mut world = owned(Setup { checkpoint_epochs, ..Setup::quiet() });
        // So many epochs that the database has some of them on the disk.
        (0..5).for_each(|_| world.work_off(3));
        quiet(&mut world);
        world.crash(0, wiped);
        let (old, head) = (world.make_journal_anew(), world.oracle.head(SHARD).cloned());
        world.produce(5);
        world.start(0);
        let version = world.next_version();
        world.assign(0, version);
        first_shard_stalls(&mut world, words);
        assert_eq!(world.oracle.head(SHARD), head.as_ref(), "nothing is committed");
        quiet_but_for_retries(&mut world);
        world.bring_old_journal_back(old);
        world.until("all is worked off", World::is_worked_off);
        world.end();
    }
}

/// The markers of its last claim are written, and nothing is on its way.
fn quiet_but_for_retries(world: &mut World) {
    world.until("the shard stands still", |world| world.is_at(0, "stalled") && world.actors().is_empty());
}

/// Its owner notices nothing, and goes on in the new one. What is behind the first epoch there, or behind the checkpoint, is not all that there was.
///
/// Method: the new journal holds an epoch; or heartbeats alone, so many that it reaches behind the newest checkpoint.
#[test]
fn a_journal_that_was_made_anew_under_its_owner_stalls_the_next_one() {
    for (records, whose) in [(5, "the journal's last epoch"), (0, "the checkpoint")] {
        let mut world = owned(Setup { heartbeat: Duration::from_secs(10), ..Setup::quiet() });
        while retained(&world) == 0 {
            world.work_off(3);
        }
        quiet(&mut world);
        let end = world.log.journal_range(SHARD).end;
        let _gone = world.make_journal_anew();
        while world.log.journal_range(SHARD).end < end {
            world.pass(Duration::from_secs(11));
            quiet(&mut world);
        }
        world.work_off(records);
        quiet(&mut world);
        world.crash(0, true);
        let version = world.next_version();
        world.assign(1, version);
        first_shard_stalls(&mut world, &format!("since {whose} at epoch"));
        assert!(world.said(SHARD).contains("(id journal-1, now journal-1-anew)"), "{}", world.said(SHARD));
    }
}

/// The same with the bug that it guards against.
#[test]
fn a_journal_that_was_made_anew_and_is_read_all_the_same_is_found() {
    fails_with(Bug::JournalIdIgnored, a_journal_that_was_made_anew_under_its_owner_stalls_the_next_one, "I4Owners: shard");
}

/// "Partitions added to an input are seen before they are skipped": after a restart, by the shard that one falls to. It stays so, for partitions do not
/// go away.
#[test]
fn a_partition_that_was_added_to_an_input_stalls_its_shard_and_no_other() {
    let (mut world, _) = left_with_input();
    let added = world.add_partition();
    world.produce(20);
    assert!(!world.is_partition_worked_off(added), "it has records");
    let not_there = format!("partition {added} was not there when the state began");
    stalls_alone(&mut world, &["topic input has 3 partitions", &not_there]);
    assert!(!world.log.group.contains_key(&added), "nobody has read it");
}

/// Retention that deletes what is committed is nobody's business.
#[test]
fn an_input_that_is_deleted_up_to_the_committed_offset_is_not_missed() {
    let (mut world, committed) = left_with_input();
    world.cut_input(FIRST, committed as u64);
    let version = world.next_version();
    world.assign(1, version);
    world.until("all is worked off", World::is_worked_off);
    assert_eq!(world.coverage.met("a shard stalls"), 0);
    world.end();
}

/// "Each wait has a deadline and ends with what blocks it (... an offline partition), and is tried again." It holds up nobody else.
#[test]
fn a_partition_that_is_offline_is_named_when_the_wait_for_it_is_over_and_the_claim_is_tried_again() {
    let (mut world, _) = left_with_input();
    let before = world.oracle.head(SHARD).cloned();
    world.take_offline(Some(SHARD));
    let version = world.next_version();
    world.assign(1, version);
    for again in 1..=3 {
        world.until("the wait is over", |world| world.coverage.met("a wait for a partition that is offline ends") >= again);
        world.until("the claim fails", |world| world.is_at(1, "failed"));
        assert!(world.said(SHARD).ends_with("partition journal-0 is offline"), "{}", world.said(SHARD));
    }
    world.until("the second shard is worked off", |world| world.is_partition_worked_off(Partition::new(1)));
    assert_eq!((world.oracle.head(SHARD), world.coverage.met("a shard stalls")), (before.as_ref(), 0), "it may heal by itself");
    world.take_offline(None);
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// The same under an owner, which finds out when it commits.
#[test]
fn an_owner_whose_journal_goes_offline_commits_nothing_and_goes_on_once_it_is_back() {
    let mut world = owned(Setup::quiet());
    quiet(&mut world);
    let epochs = world.oracle.epochs();
    world.take_offline(Some(SHARD));
    world.produce(5);
    world.until("its claims wait in vain", |world| world.coverage.met("a wait for a partition that is offline ends") >= 2);
    assert_eq!((world.coverage.met("an incarnation is over"), world.oracle.epochs()), (1, epochs));
    world.take_offline(None);
    world.until("all is worked off", World::is_worked_off);
    world.end();
}

/// "Each wait has a deadline and ends with what blocks it (a hanging transaction ...), and is tried again." The dead owner's transaction was lost track of:
/// barring does not end it.
#[test]
fn a_hanging_transaction_is_named_when_the_wait_for_its_end_is_over_and_the_claim_is_tried_again() {
    let mut world = owned(Setup { checkpoint_epochs: 1000, ..Setup::quiet() });
    quiet(&mut world);
    world.produce(5);
    world.until("worker 0's transaction is open", |world| world.is_at(0, "commit-end"));
    let epochs = world.oracle.epochs();
    world.leave_hanging();
    world.crash(0, false);
    let version = world.next_version();
    world.assign(1, version);
    for again in 1..=3 {
        world.until("the wait is over", |world| world.coverage.met("a wait for markers ends with what blocks it") >= again);
        world.until("the claim fails", |world| world.is_at(1, "failed"));
        assert!(world.said(SHARD).contains("a transaction of w0") && world.said(SHARD).ends_with("is open"), "{}", world.said(SHARD));
    }
    assert_eq!(
        (world.oracle.epochs(), world.coverage.met("a shard stalls")),
        (epochs, 0),
        "it may heal by itself, and nobody goes on before"
    );
    world.end_hanging();
    world.until("worker 1 owns the shard", |world| world.runs(1, SHARD));
    world.until("all is worked off", World::is_worked_off);
    world.end();
}
