//! Levers for scenarios: a world in which nothing goes wrong but what the scenario asks for.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay_engine::claim::VersionRule;
use forebay_engine::ids::{AssignmentVersion, JournalOffset, Partition, ShardId, Timeline, Timestamp};
use forebay_engine::journal::CHUNK_BYTES;

use super::{Letter, Setup, World};
use crate::coverage::Fault;
use crate::log::{InputBody, InputTopic, JournalTopic, SimLog};
use crate::oracle::{Oracle, Violation};
use crate::store::{Content, SimStore};

/// Steps after which something that a scenario waits for will not come any more.
const PATIENCE: usize = 20_000;

impl Setup {
    /// Two workers, one shard, a steady input, a checkpoint at every other epoch; no faults.
    pub fn quiet() -> Self {
        Self {
            workers: 2,
            shards: 1,
            partitions: 1,
            records: 10,
            records_later: 0,
            padding_max: 0,
            skew: 0.0,
            steps: 0,
            checkpoints_retained: 2,
            checkpoint_epochs: 2,
            grace: Duration::from_millis(100),
            heartbeat: Duration::from_secs(3600),
            watch: Duration::from_secs(3600),
            epoch_bytes_max: 900,
            journal_chunk_bytes: CHUNK_BYTES,
            cache_bytes_max: 400,
            call_faults: 0.0,
            faults: 0.0,
            above_all: false,
            directed: None,
        }
    }
}

impl World {
    /// Steps on until something holds. Panics when it never does, or when an invariant breaks.
    pub fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..PATIENCE {
            if holds(self) {
                return;
            }
            self.step().unwrap_or_else(|violation| panic!("while waiting until {what}: {violation}"));
        }
        panic!("never: {what}; {:?}", (0..self.seats.len()).map(|seat| self.phases(seat)).collect::<Vec<_>>());
    }

    /// More input, then steps until all of it is committed.
    pub fn work_off(&mut self, records: usize) {
        for _ in 0..records {
            self.produce_record();
        }
        self.until("the input is worked off", World::is_worked_off);
    }

    /// More input.
    pub fn produce(&mut self, records: usize) {
        (0..records).for_each(|_| self.produce_record());
    }

    /// All shards are one worker's, and only it is told.
    pub fn assign(&mut self, seat: usize, version: AssignmentVersion) {
        let shards = self.shards();
        self.send(seat, Letter { rule: VersionRule::Exactly(version), shards });
    }

    /// No shard is this worker's any more.
    pub fn unassign(&mut self, seat: usize, version: AssignmentVersion) {
        self.send(seat, Letter { rule: VersionRule::Exactly(version), shards: BTreeSet::new() });
    }

    /// A worker stands still until it is woken.
    pub fn hold(&mut self, seat: usize) {
        self.seats[seat].stalled = usize::MAX;
    }

    /// It goes on.
    pub fn wake(&mut self, seat: usize) {
        self.seats[seat].stalled = 0;
    }

    /// The next request of this kind goes wrong in this way.
    pub fn force(&mut self, label: &'static str, fault: Fault) {
        self.forced = Some((label, fault));
    }

    /// Whether the forced fault has not happened yet.
    pub fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// Requests of this kind are not carried out, by whomever, until another kind is held or none.
    pub fn hold_calls(&mut self, label: Option<&'static str>) {
        self.held = label;
    }

    /// No marker is written, or they are again: transactions are decided, and committed readers do not see it.
    pub fn hold_markers(&mut self, hold: bool) {
        self.markers_held = hold;
    }

    /// The broker loses track of the transactions that are open: they hang, and no barring ends them.
    pub fn leave_hanging(&mut self) {
        let open: Vec<_> = self.log.open().map(|(txn, _)| txn).collect();
        self.hanging.extend(open);
        self.log.forget_producers();
    }

    /// Somebody aborts the transactions that hang.
    pub fn end_hanging(&mut self) {
        self.hanging.clear();
    }

    /// What the last failure of a shard was said to be.
    pub fn said(&self, shard: ShardId) -> &str {
        self.said.get(&shard).map_or("", String::as_str)
    }

    /// Somebody deletes what lies before an offset of an input; an offset before those that are gone brings them back.
    pub fn cut_input(&mut self, partition: Partition, before: u64) {
        self.log.input_starts[partition.get() as usize] = before;
    }

    /// An input loses its records from an offset on. Returns them.
    pub fn lose_input(&mut self, partition: Partition, from: usize) -> Vec<Option<InputBody>> {
        self.log.inputs[partition.get() as usize].split_off(from)
    }

    /// They are there again.
    pub fn bring_input_back(&mut self, partition: Partition, records: Vec<Option<InputBody>>) {
        self.log.inputs[partition.get() as usize].extend(records);
    }

    /// The input is deleted and made anew under its name: with another id, as many partitions and no records. Returns the one that it was.
    pub fn make_input_anew(&mut self) -> InputTopic {
        let was = self.log.describe_input();
        self.log.replace_input(InputTopic::new(format!("{}-anew", was.id), was.partitions))
    }

    /// It is there again, in place of the other.
    pub fn bring_old_input_back(&mut self, old: InputTopic) {
        self.log.replace_input(old);
    }

    /// The journal is deleted and made anew under its name: with another id and no records. Returns the one that it was.
    pub fn make_journal_anew(&mut self) -> JournalTopic {
        let was = self.log.describe_journal();
        self.log.replace_journal(JournalTopic::new(format!("{}-anew", was.id), was.partitions))
    }

    /// It is there again, in place of the other.
    pub fn bring_old_journal_back(&mut self, old: JournalTopic) {
        self.log.replace_journal(old);
    }

    /// The job is rewound to its beginning: a new timeline, whose journal, checkpoints and offsets are its own. So are its outputs here, where the old
    /// one's would stay out. Nobody may be alive.
    pub fn rewind(&mut self) {
        assert!(self.seats.iter().all(|seat| seat.process.is_none()) && self.actors().is_empty(), "the old timeline is over");
        self.timeline = Timeline::new(self.timeline.get() + 1);
        let mut log = SimLog::new(self.setup.partitions, 2, self.setup.shards);
        log.replace_journal(JournalTopic::new(format!("journal-of-{}", self.timeline), self.setup.shards));
        (log.inputs, log.input_starts) = (std::mem::take(&mut self.log.inputs), std::mem::take(&mut self.log.input_starts));
        (self.log, self.store) = (log, SimStore::default());
        self.oracle = Oracle::new(self.setup.shards, self.setup.checkpoints_retained);
    }

    /// A shard's journal is offline, or none is any more: nobody can read or write it.
    pub fn take_offline(&mut self, shard: Option<ShardId>) {
        self.offline = shard;
    }

    /// By so much a worker's clock is ahead of the log's from now on.
    pub fn set_clock_ahead(&mut self, seat: usize, by: Duration) {
        if let Some(process) = &mut self.seats[seat].process {
            process.skew = by.as_millis() as i64;
        }
    }

    /// The log's clock.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Somebody adds a partition to the input. Returns it.
    pub fn add_partition(&mut self) -> Partition {
        self.log.add_partition()
    }

    /// A savepoint of a shard is taken on a worker's machine.
    pub fn take_savepoint(&mut self, seat: usize, shard: ShardId) {
        let name = format!("s{}", self.id());
        self.help(seat, shard, "savepoint", move |job| job.savepoint(&name));
    }

    /// The broker forgets the transactional ids of everybody, as after `transactional.id.expiration.ms`, and that they were barred.
    pub fn forget_producers(&mut self) {
        self.log.forget_producers();
    }

    /// Some shards are one worker's, and only it is told.
    pub fn assign_some_to(&mut self, seat: usize, version: AssignmentVersion, shards: &[ShardId]) {
        self.send(seat, Letter { rule: VersionRule::Exactly(version), shards: shards.iter().copied().collect() });
    }

    /// All shards are one worker's, which claims above all that it sees.
    pub fn assign_above_all(&mut self, seat: usize) {
        let shards = self.shards();
        self.send(seat, Letter { rule: VersionRule::AboveAll, shards });
    }

    /// All files of checkpoints are lost; their manifests stay.
    pub fn lose_files(&mut self) -> Vec<(String, Content)> {
        let keys: Vec<String> = self.store.keys().filter(|key| key.starts_with("files/")).cloned().collect();
        let lost = keys.iter().filter_map(|key| Some((key.clone(), self.store.get(key)?.clone()))).collect();
        keys.iter().for_each(|key| self.store.delete(key));
        lost
    }

    /// Somebody found them again.
    pub fn bring_back(&mut self, files: Vec<(String, Content)>) {
        for (key, content) in files {
            self.store.put(&key, content, Timestamp::from_millis(self.now));
        }
    }

    /// The object store goes down, or comes back.
    pub fn set_store_down(&mut self, down: bool) {
        self.store_down = down;
    }

    /// The newest checkpoint of a shard is damaged.
    pub fn damage_newest(&mut self, shard: ShardId) {
        self.damage_of(shard);
    }

    /// Somebody else cuts a journal.
    pub fn cut_by_hand(&mut self, shard: ShardId, before: JournalOffset) {
        self.log.journals[shard.get() as usize].cut(before.get());
    }

    /// Whether a seat runs a shard.
    pub fn runs(&self, seat: usize, shard: ShardId) -> bool {
        self.seats[seat].process.as_ref().is_some_and(|process| process.worker.phase(shard) == Some("running"))
    }

    /// Whether a seat is in a phase.
    pub fn is_at(&self, seat: usize, phase: &str) -> bool {
        self.phases(seat).contains(&phase)
    }

    /// A panicking step: the next record that a shard of this worker reads.
    pub fn poison_shard(&mut self, seat: usize, shard: ShardId) {
        if let Some(process) = &mut self.seats[seat].process {
            process.executor(shard).poison = Some(shard);
        }
    }

    /// A worker's committer hangs in its request, or goes on.
    pub fn delay_commits(&mut self, seat: usize, delay: bool) {
        if let Some(process) = &mut self.seats[seat].process {
            process.committer.hangs = delay;
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.now += time.as_millis() as i64;
    }

    /// Open transactions time out.
    pub fn time_out(&mut self) {
        self.time_out_transactions(1.1);
    }

    /// Heals and checks everything.
    pub fn end(&mut self) {
        self.finish().unwrap_or_else(|violation: Violation| panic!("{violation}"));
    }
}
