//! Promise: while an epoch is committed the next one is processed; nothing of it is committed out of turn.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use forebay_engine::ids::{Epoch, Incarnation, InputId, JournalOffset, ShardId};
use forebay_engine::log::{
    Deadlines, InputPosition, JournalEntry, JournalRange, Log, LogError, Producer, Receipt, StartFrom, TopicInfo, Transaction, View,
};
use forebay_local::{LocalInput, LocalLog, LocalProducer, LogFolder};

use crate::support::{PATIENCE, log, options, produce, start, until_shard};

/// Commits wait here while it is closed.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn wait_until_somebody_waits(&self) {
        let waited = self.changed.wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |state| state.1 == 0).unwrap();
        assert!(!waited.1.timed_out(), "no commit came");
    }
}

/// The embedded log with a gate before each commit.
struct Gated {
    log: LocalLog,
    gate: Arc<Gate>,
}

struct GatedProducer {
    producer: LocalProducer,
    gate: Arc<Gate>,
}

impl Producer for GatedProducer {
    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, LogError> {
        self.gate.pass();
        self.producer.commit(transaction)
    }
}

impl Log for Gated {
    type Producer = GatedProducer;
    type Input = LocalInput;

    fn deadlines(&self) -> Deadlines {
        Deadlines { open: Duration::MAX, commit: Duration::MAX, read: Duration::MAX }
    }
    fn open_producer(&self, incarnation: &Incarnation) -> Result<GatedProducer, LogError> {
        Ok(GatedProducer { producer: self.log.open_producer(incarnation)?, gate: self.gate.clone() })
    }
    fn describe(&self) -> Result<Vec<TopicInfo>, LogError> {
        self.log.describe()
    }
    fn ensure_journal(&self) -> Result<(), LogError> {
        self.log.ensure_journal()
    }
    fn start_positions(&self, input: InputId, from: StartFrom) -> Result<Vec<InputPosition>, LogError> {
        self.log.start_positions(input, from)
    }
    fn bar(&self, incarnation: &Incarnation) -> Result<(), LogError> {
        self.log.bar(incarnation)
    }
    fn read_journal(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        self.log.read_journal(shard, from, view, each)
    }
    fn journal_range(&self, shard: ShardId) -> Result<JournalRange, LogError> {
        self.log.journal_range(shard)
    }
    fn journal_ends(&self, shards: &[ShardId]) -> Result<Vec<JournalOffset>, LogError> {
        self.log.journal_ends(shards)
    }
    fn cut_journal(&self, shard: ShardId, before: JournalOffset) -> Result<(), LogError> {
        self.log.cut_journal(shard, before)
    }
    fn open_input(&self, shard: ShardId, positions: &[InputPosition]) -> Result<LocalInput, LogError> {
        self.log.open_input(shard, positions)
    }
}

/// Method: a commit is held up on its way to the log. What comes in meanwhile must be processed, and wait; then the commit goes through.
#[test]
fn while_an_epoch_is_committed_the_next_one_is_processed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(&dir.path().join("log")).unwrap();
    produce(&folder, 10);
    let gate = Arc::<Gate>::default();
    let gated = Gated { log: log(dir.path()), gate: gate.clone() };
    let runtime = start(dir.path(), gated, options(dir.path(), "p"));
    let status = runtime.status().clone();

    let before =
        until_shard(&status, "the first records are committed", |shard| shard.books.records_in == 10 && shard.uncommitted_records == 0);
    gate.set_closed(true);
    produce(&folder, 10);
    gate.wait_until_somebody_waits();
    produce(&folder, 20);
    let meanwhile = until_shard(&status, "all that has come meanwhile is processed", |shard| shard.uncommitted_records == 30);
    assert_eq!((meanwhile.epoch, meanwhile.books.records_in), (before.epoch, 10), "something was committed through a closed gate");

    gate.set_closed(false);
    let after = until_shard(&status, "all is committed", |shard| shard.books.records_in == 40 && shard.uncommitted_records == 0);
    assert!(after.epoch > Epoch::new(before.epoch.get() + 1), "the commit that was held up took what had come later with it");
    runtime.stop();
    runtime.join().unwrap();
}
