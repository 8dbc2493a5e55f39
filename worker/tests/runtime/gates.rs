//! The embedded log with gates: what must not go on yet waits before them.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use forebay_engine::ids::{Incarnation, InputId, JournalOffset, ShardId};
use forebay_engine::log::{
    Deadlines, InputPosition, JournalEntry, JournalRange, Log, LogError, Producer, Receipt, StartFrom, TopicInfo, Transaction, View,
};
use forebay_local::{LocalInput, LocalLog, LocalProducer};

use crate::support::PATIENCE;

/// Whoever comes waits here while it is closed.
#[derive(Default)]
pub struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    pub fn wait_until_somebody_waits(&self) {
        let waited = self.changed.wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |state| state.1 == 0).unwrap();
        assert!(!waited.1.timed_out(), "nobody came");
    }
}

/// The log, with a gate before each commit and one before each barring.
pub struct Gated {
    pub log: LocalLog,
    pub commits: Arc<Gate>,
    pub bars: Arc<Gate>,
}

pub struct GatedProducer {
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
        Ok(GatedProducer { producer: self.log.open_producer(incarnation)?, gate: self.commits.clone() })
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
        self.bars.pass();
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
