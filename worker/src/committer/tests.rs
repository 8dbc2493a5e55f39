//! The committer against a log whose producers hang, fail and panic when told to.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::bounded;
use forebay_engine::ids::{AssignmentVersion, Epoch, InputId, JournalOffset, ShardId, Timeline, Timestamp, WorkerName};
use forebay_engine::journal::Owner;
use forebay_engine::log::{
    Deadlines, Each, InputPosition, InputProgress, InputReader, JournalEntry, JournalRange, StartFrom, TopicInfo, View,
};
use forebay_engine::shard::SealedEpoch;

use super::*;
use crate::watchdog::tests::impatient;

/// A log whose producers are told what to do by their incarnation's name, and which notes what happens to them.
#[derive(Clone)]
pub(crate) struct Fake {
    /// A call that hangs comes back when the other end is dropped.
    hold: Receiver<()>,
    happened: Sender<String>,
    given_up_at_once: Arc<Mutex<BTreeSet<String>>>,
}

pub(crate) struct FakeProducer {
    fake: Fake,
    name: String,
}

impl Fake {
    fn act(&self, call: &str, name: &str) -> Result<(), LogError> {
        if name.contains(&format!("{call}-hangs")) {
            let _ = self.hold.recv();
        }
        assert!(!name.contains(&format!("{call}-panics")), "told to");
        let _ = self.happened.send(format!("{call} {name}"));
        if name.contains(&format!("{call}-fails")) {
            return Err(LogError::Unavailable { action: call.into(), reason: "told to".into() });
        }
        Ok(())
    }
}

impl Producer for FakeProducer {
    fn commit(&mut self, _transaction: &Transaction) -> Result<Receipt, LogError> {
        let appended = self.name.strip_prefix("appended-at-").and_then(|millis| millis.parse().ok()).map(Timestamp::from_millis);
        self.fake.act("commit", &self.name).map(|()| Receipt { appended, ..Receipt::default() })
    }
}

impl Drop for FakeProducer {
    fn drop(&mut self) {
        let _ = self.fake.act("drop", &self.name);
    }
}

impl Log for Fake {
    type Producer = FakeProducer;
    type Input = NoInput;

    fn deadlines(&self) -> Deadlines {
        // What hangs is given up at once; all else may take its time.
        let patience = |call: &str| if self.given_up_at_once.lock().unwrap().contains(call) { Duration::ZERO } else { Duration::MAX };
        Deadlines { open: patience("open"), commit: patience("commit"), read: patience("read") }
    }

    fn open_producer(&self, incarnation: &Incarnation) -> Result<FakeProducer, LogError> {
        self.act("open", &incarnation.to_string())?;
        Ok(FakeProducer { fake: self.clone(), name: incarnation.to_string() })
    }

    fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.act("describe", "describe-hangs").map(|()| Vec::new())
    }
    fn ensure_journal(&self) -> Result<(), LogError> {
        unreachable!("no committer does this")
    }
    fn start_positions(&self, _: InputId, _: StartFrom) -> Result<Vec<InputPosition>, LogError> {
        unreachable!("no committer does this")
    }
    fn bar(&self, _: &Incarnation) -> Result<(), LogError> {
        unreachable!("no committer does this")
    }
    /// A hundred records; of shard 1 it hangs, of 2 it fails, of 3 it panics after the first.
    fn read_journal(
        &self,
        shard: ShardId,
        _: JournalOffset,
        _: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        each(JournalEntry { offset: JournalOffset::default(), bytes: Vec::new() });
        self.act("read", ["read", "read-hangs", "read-fails", "read-panics"][shard.get() as usize])?;
        (1..100).for_each(|offset| each(JournalEntry { offset: JournalOffset::new(offset), bytes: Vec::new() }));
        Ok(JournalRange { start: JournalOffset::default(), end: JournalOffset::new(100) })
    }
    fn journal_range(&self, _: ShardId) -> Result<JournalRange, LogError> {
        unreachable!("no committer does this")
    }
    fn journal_ends(&self, _: &[ShardId]) -> Result<Vec<JournalOffset>, LogError> {
        unreachable!("no committer does this")
    }
    fn cut_journal(&self, _: ShardId, _: JournalOffset) -> Result<(), LogError> {
        unreachable!("no committer does this")
    }
    /// That of shard 1 hangs.
    fn open_input(&self, shard: ShardId, _: &[InputPosition]) -> Result<NoInput, LogError> {
        self.act("input", ["input", "input-hangs"][shard.get() as usize]).map(|()| NoInput)
    }
}

/// An input without partitions.
pub(crate) struct NoInput;

impl InputReader for NoInput {
    fn poll_while(&mut self, _: Duration, _: usize, _: Each<'_>) -> Result<usize, LogError> {
        Ok(0)
    }
    fn progress(&mut self) -> Vec<InputProgress> {
        Vec::new()
    }
}

struct Scene {
    committer: Committer<Fake>,
    status: Arc<Status>,
    release: Option<Sender<()>>,
    happened: Receiver<String>,
}

/// A log whose calls of these names are given up at once, what ends its hanging calls when dropped, and what happens to it.
pub(crate) fn fake(impatient_with: &[&str]) -> (Fake, Sender<()>, Receiver<String>) {
    let (release, hold) = bounded(0);
    let (note, happened) = unbounded();
    let given_up_at_once = Arc::new(Mutex::new(impatient_with.iter().map(|call| (*call).to_owned()).collect()));
    (Fake { hold, happened: note, given_up_at_once }, release, happened)
}

/// A committer whose calls of these names are given up at once.
fn scene(impatient_with: &[&str]) -> Scene {
    let (log, release, happened) = fake(impatient_with);
    let status = Arc::<Status>::default();
    let watchdog = Arc::new(impatient(&status));
    Scene {
        committer: Committer { log: Arc::new(log), clock: Arc::default(), watchdog, status: status.clone(), hand: None },
        status,
        release: Some(release),
        happened,
    }
}

impl Scene {
    fn open(&mut self, name: &str) -> String {
        shown(self.committer.open(Incarnation::new(name)))
    }

    fn commit(&mut self, name: &str) -> String {
        shown(self.committer.commit(Incarnation::new(name), Contribution::default()))
    }

    fn counters(&self) -> (u64, u64) {
        let value = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        (value(&self.status.counters.transactions), value(&self.status.counters.calls_given_up))
    }
}

fn shown(event: Event) -> String {
    match event {
        Event::ProducerOpened(incarnation) => format!("opened {incarnation}"),
        Event::Committed(incarnation, _) => format!("committed {incarnation}"),
        Event::ProducerFailed(incarnation, reason) => format!("failed {incarnation}: {reason}"),
        other => panic!("a committer does not say {other:?}"),
    }
}

#[test]
fn a_commit_that_never_returns_costs_its_incarnation_and_not_the_worker() {
    // Method: the first producer's commit hangs until the end of the test; the next incarnation opens and commits meanwhile.
    let mut scene = scene(&["commit"]);
    assert_eq!(scene.open("commit-hangs.1"), "opened commit-hangs.1");
    let failed = scene.commit("commit-hangs.1");
    assert!(failed.starts_with("failed commit-hangs.1: the producer of incarnation commit-hangs.1: no answer"), "{failed}");
    assert_eq!(scene.commit("commit-hangs.1"), "failed commit-hangs.1: its producer is closed");
    scene.committer.log.given_up_at_once.lock().unwrap().clear();
    assert_eq!(scene.open("w.2"), "opened w.2");
    assert_eq!(scene.commit("w.2"), "committed w.2");
    assert_eq!(scene.counters(), (1, 1));

    // The call comes back after all, with a success: its thread throws the producer away, and nobody hears or counts it.
    scene.release = None;
    let (_, seen): (Vec<_>, Vec<_>) = (0..5).map(|_| scene.happened.recv().unwrap()).partition(|what| what.ends_with("w.2"));
    assert_eq!(seen, ["open commit-hangs.1", "commit commit-hangs.1", "drop commit-hangs.1"].map(String::from));
    assert_eq!(scene.counters(), (1, 1));
}

#[test]
fn an_opening_that_never_returns_is_given_up() {
    let mut scene = scene(&["open"]);
    assert!(scene.open("open-hangs.1").starts_with("failed open-hangs.1: the producer of incarnation open-hangs.1: no answer"));
    scene.committer.log.given_up_at_once.lock().unwrap().clear();
    assert_eq!(scene.open("w.2"), "opened w.2");
    assert_eq!(scene.counters(), (0, 1));
}

#[test]
fn a_drop_that_never_returns_holds_up_nobody() {
    let mut scene = scene(&[]);
    scene.open("drop-hangs.1");
    assert_eq!(scene.commit("drop-hangs.1"), "committed drop-hangs.1");
    assert_eq!(scene.open("w.2"), "opened w.2");
    assert_eq!(scene.commit("w.2"), "committed w.2");
}

#[test]
fn a_producer_is_never_used_after_an_error_or_a_panic() {
    let mut scene = scene(&[]);
    assert_eq!(scene.open("open-fails.1"), "failed open-fails.1: open: told to");
    assert_eq!(scene.commit("open-fails.1"), "failed open-fails.1: its producer is closed");
    scene.open("commit-fails.2");
    assert_eq!(scene.commit("commit-fails.2"), "failed commit-fails.2: commit: told to");
    assert_eq!(scene.commit("commit-fails.2"), "failed commit-fails.2: its producer is closed");
    scene.open("commit-panics.3");
    assert_eq!(scene.commit("commit-panics.3"), "failed commit-panics.3: the producer of incarnation commit-panics.3: its thread panicked");
    assert_eq!(scene.counters().0, 0, "nothing was committed");
}

#[test]
fn a_commit_tells_how_far_the_clock_runs_ahead() {
    let mut scene = scene(&[]);
    scene.committer.clock = Arc::new(Clock::new(|| Timestamp::from_millis(3_600_500)));
    scene.open("appended-at-600");
    assert_eq!(scene.commit("appended-at-600"), "committed appended-at-600");
    assert_eq!(scene.committer.clock.now(), Timestamp::from_millis(600));
}

/// The mark says that nothing of its writer comes behind it, and receipts name the first record.
#[test]
fn a_release_mark_goes_behind_its_shards_epoch() {
    let owner = |shard| Owner {
        timeline: Timeline::new(0),
        shard: ShardId::new(shard),
        worker: WorkerName::new("w"),
        incarnation: Incarnation::new("w.1"),
        assignment: AssignmentVersion::default(),
    };
    let epoch = SealedEpoch {
        shard: ShardId::new(1),
        epoch: Epoch::default(),
        journal: vec![b"epoch".to_vec()],
        outputs: Arc::default(),
        positions: Vec::new(),
        records: 1,
    };
    let contribution = Contribution { epochs: vec![epoch], claims: vec![owner(0)], releases: vec![owner(1)] };
    let (transaction, _) = transaction_of(contribution);
    let of_shard: Vec<_> =
        transaction.journal.iter().filter(|(shard, _)| *shard == ShardId::new(1)).map(|(_, chunks)| chunks.clone()).collect();
    assert_eq!(of_shard, [vec![b"epoch".to_vec()], journal::encode_release(&owner(1))]);
}
