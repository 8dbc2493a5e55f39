//! A thread that owns shards: reads their inputs, processes records, seals, applies. It blocks on nothing but its own state stores.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, Sender, bounded, select_biased, unbounded};
use forebay_engine::failure::Failure;
use forebay_engine::ids::{Epoch, JournalOffset, ShardId};
use forebay_engine::journal::Owner;
use forebay_engine::log::{InputReader, Log};
use forebay_engine::pipeline::Pipeline;
use forebay_engine::shard::{Annotations, Shard};
use forebay_engine::state::StateStore;
use forebay_engine::worker::{Attempt, Event};

use crate::clock::Clock;
use crate::freshness::{Batch, Freshness};
use crate::helpers::{Task, panic_text};
use crate::load::Load;
use crate::pressure::Pressure;
use crate::snapshots::Snapshots;
use crate::status::Status;
use crate::watched::Watched;

/// Records of one shard that are processed before messages are looked at again: a few milliseconds' worth.
const BATCH_RECORDS: usize = 1024;
/// A shard with more records before it than these is behind: some tens of milliseconds' worth.
const BEHIND_RECORDS: u64 = 4 * BATCH_RECORDS as u64;
/// An idle executor looks for records after this long, then ever more slowly.
const IDLE_WAIT_MIN: Duration = Duration::from_millis(1);
/// The slowest that it looks where the reader does not ring: what an idle shard costs against what a first record waits.
const IDLE_WAIT_MAX: Duration = Duration::from_millis(8);
/// The slowest that it looks where readers ring: within half a second with what the reader itself learns of ends, as lag must be right. And what a
/// ring costs that was lost.
const RUNG_WAIT_MAX: Duration = Duration::from_millis(250);

pub(crate) enum Command<P: Pipeline, S: StateStore> {
    Adopt(ShardId, Attempt, Box<Shard<P, S>>),
    Start(ShardId, Attempt),
    Seal(ShardId, Attempt, Owner, Annotations),
    Confirm(ShardId, Epoch, JournalOffset),
    Drop(ShardId),
    Close(ShardId),
    /// Take a checkpoint of each of these shards that runs here, unless the newest one that counts is of this epoch or later.
    Checkpoint(Arc<BTreeMap<ShardId, Epoch>>),
}

/// What all executors of a worker share.
pub(crate) struct Shared<L: Log, S: StateStore> {
    pub log: Watched<L>,
    /// For what waits for brokers, or long for the disk.
    pub helpers: Sender<Task>,
    pub clock: Arc<Clock>,
    pub status: Arc<Status>,
    pub events: Sender<Event>,
    pub snapshots: Snapshots<S>,
    /// How much an open epoch may hold.
    pub pressure: Arc<Pressure>,
}

struct Slot<P: Pipeline, S: StateStore, I> {
    attempt: Attempt,
    shard: Box<Shard<P, S>>,
    input: Option<I>,
    /// The input rings when records have come.
    rings: bool,
    dirty: bool,
    full: bool,
    behind: bool,
    freshness: Freshness,
    /// Of the journal record that is sealed and not confirmed.
    sealed_bytes: u64,
}

struct Executor<L: Log, P: Pipeline, S: StateStore> {
    shared: Arc<Shared<L, S>>,
    slots: BTreeMap<ShardId, Slot<P, S, L::Input>>,
    /// What inputs ring, and where that is heard: one ring is as good as many.
    bell: (Sender<()>, Receiver<()>),
    /// Where inputs come that a helper has opened.
    opened: (Sender<Opened<L::Input>>, Receiver<Opened<L::Input>>),
    /// The shards whose inputs are being opened, each with the attempt that waits until that is over: two readers of a partition at once would be in each other's way.
    opening: BTreeMap<ShardId, Option<Attempt>>,
}

/// For which attempt an input was opened, and what came of it.
type Opened<I> = (ShardId, Attempt, Result<I, Failure>);

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn start<L, P, S>(number: usize, shared: Arc<Shared<L, S>>) -> (Sender<Command<P, S>>, JoinHandle<()>)
where
    L: Log,
    P: Pipeline + 'static,
    S: StateStore + 'static,
{
    let (commands, inbox) = unbounded();
    let builder = std::thread::Builder::new().name(format!("executor-{number}"));
    let opened = unbounded();
    let thread =
        builder.spawn(move || Executor { shared, slots: BTreeMap::new(), bell: bounded(1), opened, opening: BTreeMap::new() }.run(&inbox));
    (commands, thread.expect("the system refuses a thread at the start"))
}

impl<L: Log, P: Pipeline + 'static, S: StateStore + 'static> Executor<L, P, S> {
    fn run(&mut self, inbox: &Receiver<Command<P, S>>) {
        let mut idle = IDLE_WAIT_MIN;
        loop {
            while let Ok(command) = inbox.try_recv() {
                self.obey(command);
            }
            while let Ok(opened) = self.opened.1.try_recv() {
                self.begin(opened);
            }
            let mut records = 0;
            let shards: Vec<ShardId> = self.slots.keys().copied().collect();
            for shard in shards {
                records += self.guarded(shard, Self::work).unwrap_or(0);
            }
            if records > 0 {
                idle = IDLE_WAIT_MIN;
                continue;
            }
            self.save_idle();
            let mut reading = self.slots.values().filter(|slot| slot.input.is_some() && !slot.full).peekable();
            let wait = if reading.peek().is_some() { idle } else { Duration::from_secs(3600) };
            idle = (idle * 2).min(if reading.all(|slot| slot.rings) { RUNG_WAIT_MAX } else { IDLE_WAIT_MAX });
            select_biased! {
                recv(inbox) -> command => match command {
                    Ok(command) => self.obey(command),
                    Err(RecvError) => return,
                },
                recv(self.opened.1) -> opened => if let Ok(opened) = opened {
                    self.begin(opened);
                },
                recv(self.bell.1) -> _ring => {}
                default(wait) => {}
            }
        }
    }

    /// Shards that wait for records, with nothing uncommitted, may be saved meanwhile.
    fn save_idle(&self) {
        for (shard, slot) in self.slots.iter().filter(|(_, slot)| slot.input.is_some() && uncommitted(&slot.shard) == 0) {
            self.shared.snapshots.idle(*shard, slot.attempt, &slot.shard);
        }
    }

    fn obey(&mut self, command: Command<P, S>) {
        match command {
            Command::Adopt(shard, attempt, state) => {
                let (input, freshness, sealed_bytes) = (None, Freshness::default(), 0);
                let [rings, dirty, full, behind] = [false; 4];
                let slot = Slot { attempt, shard: state, input, rings, dirty, full, behind, freshness, sealed_bytes };
                self.slots.insert(shard, slot);
            }
            Command::Start(shard, attempt) => self.open_input(shard, attempt),
            Command::Seal(shard, attempt, owner, annotations) => {
                let _ = self.guarded(shard, |executor, shard| executor.seal(shard, attempt, &owner, annotations));
            }
            Command::Confirm(shard, epoch, journal) => {
                let _ = self.guarded(shard, |executor, shard| executor.confirm(shard, epoch, journal));
            }
            Command::Checkpoint(wanted) => {
                for (shard, slot) in self.slots.iter().filter(|(_, slot)| slot.input.is_some()) {
                    if let Some(epoch) = wanted.get(shard) {
                        self.shared.snapshots.asked(*shard, slot.attempt, &slot.shard, *epoch);
                    }
                }
            }
            Command::Drop(shard) => {
                self.slots.remove(&shard);
            }
            Command::Close(shard) => {
                if let Some(Slot { shard: state, input, .. }) = self.slots.remove(&shard) {
                    drop(input);
                    // A database is flushed when it closes. On a busy disk that takes a while, which is not the other shards' matter.
                    let _ = self.shared.helpers.send(Box::new(move || drop(state)));
                }
                self.shared.status.forget(shard);
            }
        }
    }

    /// Does something with one shard; whatever goes wrong, a panic included, ends this shard's attempt and nothing else.
    fn guarded<T>(&mut self, shard: ShardId, act: impl FnOnce(&mut Self, ShardId) -> Result<T, Failure>) -> Option<T> {
        let attempt = self.slots.get(&shard)?.attempt;
        let outcome = catch_unwind(AssertUnwindSafe(|| act(self, shard)));
        let failure = match outcome {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(failure)) => failure,
            Err(panic) => Failure::Passing(format!("shard {shard} panicked: {}", panic_text(&*panic))),
        };
        self.slots.remove(&shard);
        let _ = self.shared.events.send(Event::ShardFailed(shard, attempt, failure));
        None
    }

    /// Has the shard's input opened. Brokers may take their time with it, which is no other shard's matter.
    fn open_input(&mut self, shard: ShardId, attempt: Attempt) {
        let Some(slot) = self.slots.get(&shard).filter(|slot| slot.attempt == attempt) else { return };
        if let Some(waiting) = self.opening.get_mut(&shard) {
            *waiting = Some(attempt);
            return;
        }
        self.opening.insert(shard, None);
        let (log, opened, positions) = (self.shared.log.clone(), self.opened.0.clone(), slot.shard.positions().to_vec());
        let task = move || {
            let action = format!("open the input of shard {shard}");
            let open = AssertUnwindSafe(|| log.ask(&action, move |log| log.open_input(shard, &positions)).map_err(Failure::from));
            let input = catch_unwind(open).unwrap_or_else(|panic| Err(Failure::Passing(format!("{action}: {}", panic_text(&*panic)))));
            let _ = opened.send((shard, attempt, input));
        };
        let _ = self.shared.helpers.send(Box::new(task));
    }

    fn begin(&mut self, (shard, attempt, input): Opened<L::Input>) {
        let waiting = self.opening.remove(&shard).flatten();
        if self.slots.get(&shard).is_some_and(|slot| slot.attempt == attempt) {
            let _ = self.guarded(shard, |executor, shard| executor.read_from(shard, input?));
        } else {
            drop(input);
        }
        if let Some(attempt) = waiting {
            self.open_input(shard, attempt);
        }
    }

    fn read_from(&mut self, shard: ShardId, mut input: L::Input) -> Result<(), Failure> {
        let slot = self.slots.get_mut(&shard).expect("the caller just looked it up");
        let bell = self.bell.0.clone();
        slot.rings = input.ring(Arc::new(move || {
            // Full: it has been rung already.
            let _ = bell.try_send(());
        }));
        slot.input = Some(input);
        let head = slot.shard.head();
        self.shared.status.update(shard, |status| {
            (status.phase, status.stalled, status.failure) = ("running", false, None);
            status.committed(head, 0);
            status.began = Some((Instant::now(), head.books));
            status.load = Some(Load::since(Instant::now()));
        });
        Ok(())
    }

    /// Reads and processes one batch of a shard. Returns the number of records.
    fn work(&mut self, shard: ShardId) -> Result<usize, Failure> {
        let slot = self.slots.get_mut(&shard).expect("the caller just listed it");
        let Some(input) = &mut slot.input else { return Ok(0) };
        if slot.full {
            return Ok(0);
        }
        let now = self.shared.clock.now();
        let (state, bytes_max, begin) = (&mut slot.shard, self.shared.pressure.epoch_bytes(), Instant::now());
        let (mut failure, mut batch) = (None, Batch::default());
        let read = input.poll_while(Duration::ZERO, BATCH_RECORDS, &mut |record| {
            batch.read(record.input, record.partition, record.timestamp);
            match state.process(record, now) {
                // I9: one batch could bring a thousand times what an epoch may hold.
                Ok(_) if state.open_bytes() < bytes_max => ControlFlow::Continue(()),
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(error) = failure {
            return Err(Failure::Passing(error.to_string()));
        }
        let records = read?;
        let end = Instant::now();
        // To look for records in vain is no work.
        let busy = if records > 0 { end - begin } else { Duration::ZERO };
        if records > 0 && !slot.dirty {
            tracing::debug!(%shard, "epoch begins");
            slot.dirty = true;
            let _ = self.shared.events.send(Event::Dirty(shard));
        }
        if state.open_bytes() >= bytes_max {
            slot.full = true;
            let _ = self.shared.events.send(Event::Full(shard));
        }
        let (uncommitted, cache_bytes) = (uncommitted(state), state.cache_bytes());
        let progress = input.progress();
        let lag: u64 = progress.iter().map(|progress| progress.end.get().saturating_sub(progress.position.next.get())).sum();
        if (lag > BEHIND_RECORDS) != slot.behind {
            slot.behind = !slot.behind;
            let _ = self.shared.events.send(Event::Behind(shard, slot.attempt, slot.behind));
        }
        let waits = slot.freshness.after(&batch, &progress, self.shared.clock.now());
        self.shared.status.update(shard, |status| {
            (status.progress, status.uncommitted_records, status.cache_bytes) = (progress, uncommitted, cache_bytes);
            status.waits = waits.map(|millis| (end, millis));
            status.load.iter_mut().for_each(|load| load.add(busy, end));
        });
        Ok(records)
    }

    fn seal(&mut self, shard: ShardId, attempt: Attempt, owner: &Owner, annotations: Annotations) -> Result<(), Failure> {
        let Some(slot) = self.slots.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return Ok(()) };
        if let Some(input) = &mut slot.input {
            for progress in input.progress() {
                slot.shard.reached(&progress.position);
            }
        }
        tracing::debug!(%shard, "seal begins");
        let begin = Instant::now();
        let sealed = slot.shard.seal(owner, self.shared.clock.now(), annotations);
        tracing::debug!(%shard, "seal ends");
        slot.sealed_bytes = sealed.as_ref().map_or(0, |sealed| sealed.journal.iter().map(|chunk| chunk.len() as u64).sum());
        let uncommitted = uncommitted(&slot.shard);
        let end = Instant::now();
        self.shared.status.update(shard, |status| {
            status.uncommitted_records = uncommitted;
            status.load.iter_mut().for_each(|load| load.add(end - begin, end));
        });
        (slot.dirty, slot.full) = (false, false);
        let _ = self.shared.events.send(Event::Sealed(shard, attempt, sealed));
        Ok(())
    }

    fn confirm(&mut self, shard: ShardId, epoch: Epoch, journal: JournalOffset) -> Result<(), Failure> {
        let slot = self.slots.get_mut(&shard).expect("the caller just looked it up");
        tracing::debug!(%shard, "apply begins");
        let begin = Instant::now();
        slot.shard.committed(epoch, journal)?;
        tracing::debug!(%shard, "apply ends");
        let (head, uncommitted, end) = (slot.shard.head(), uncommitted(&slot.shard), Instant::now());
        self.shared.status.update(shard, |status| {
            status.uncommitted_records = uncommitted;
            status.load.iter_mut().for_each(|load| load.add(end - begin, end));
            status.committed(head, std::mem::take(&mut slot.sealed_bytes));
        });
        self.shared.snapshots.committed(shard, slot.attempt, &slot.shard);
        Ok(())
    }
}

fn uncommitted<P: Pipeline, S: StateStore>(shard: &Shard<P, S>) -> usize {
    shard.open_records() + shard.unconfirmed_records()
}

#[cfg(test)]
mod tests;
