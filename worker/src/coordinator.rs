//! The thread that runs the engine's state machine: takes events, does what it says by handing it on, waits.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use forebay_engine::claim::Scan;
use forebay_engine::failure::Failure;
use forebay_engine::ids::{Incarnation, JournalOffset, ShardId, Timestamp};
use forebay_engine::log::{Log, LogError, View};
use forebay_engine::pipeline::Pipeline;
use forebay_engine::state::StateStore;
use forebay_engine::worker::{Action, Attempt, Event, Look, Report, Sight, Worker};

use crate::clock::Clock;
use crate::committer::Order;
use crate::executor::Command;
use crate::helpers::Task;
use crate::prefetch::Prefetcher;
use crate::status::{Counters, Status};
use crate::turns::Turns;
use crate::watched::{ScanError, Watched};

/// Brings a shard up on a helper thread: the part of a restore that the runtime knows how to do.
pub(crate) type Restorer<P, S> = Arc<dyn Fn(ShardId, Attempt, forebay_engine::claim::Claimed) -> Restoration<P, S> + Send + Sync>;

/// What came of it.
pub(crate) enum Restoration<P: Pipeline, S: StateStore> {
    Done(Box<forebay_engine::shard::Shard<P, S>>, Scan),
    Outrun,
    Failed(Failure),
}

/// Reads the newest manifest of a shard.
pub(crate) type ManifestReader = Arc<dyn Fn(ShardId) -> Result<Option<forebay_engine::claim::ManifestMark>, Failure> + Send + Sync>;
/// Deletes objects that a committed epoch named as garbage.
pub(crate) type Deleter = Arc<dyn Fn(&[String]) -> Result<(), String> + Send + Sync>;

pub(crate) struct Coordinator<L: Log, P: Pipeline, S: StateStore> {
    pub worker: Worker,
    pub log: Watched<L>,
    pub clock: Arc<Clock>,
    pub status: Arc<Status>,
    pub events: Sender<Event>,
    pub inbox: Receiver<Event>,
    pub orders: Sender<Order>,
    pub executors: Vec<Sender<Command<P, S>>>,
    pub helpers: Sender<Task>,
    pub restorer: Restorer<P, S>,
    pub turns: Arc<Turns>,
    pub prefetcher: Arc<Prefetcher>,
    pub manifests: ManifestReader,
    pub deleter: Deleter,
}

impl<L: Log, P: Pipeline + 'static, S: StateStore + 'static> Coordinator<L, P, S> {
    /// Runs until all shards are released after an [`Event::Stop`].
    pub(crate) fn run(mut self) {
        loop {
            let wait = self.worker.wake_at().map_or(Duration::from_secs(60), |at| until(self.clock.steady(), at));
            let event = match self.inbox.recv_timeout(wait) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => Event::Tick,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for action in self.worker.step(self.clock.steady(), event) {
                if matches!(action, Action::Stopped) {
                    self.status.stopped.store(true, std::sync::atomic::Ordering::Release);
                    return;
                }
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::OpenProducer(incarnation) => self.order(Order::Open(incarnation)),
            Action::Commit(incarnation, contribution) => self.order(Order::Commit(incarnation, contribution)),
            Action::ReadManifest(shard, attempt) => {
                self.show(shard, "claiming");
                tracing::debug!(%shard, "claim begins");
                let manifests = self.manifests.clone();
                self.help(shard, attempt, move || Ok(Event::ManifestRead(shard, attempt, manifests(shard)?)));
            }
            Action::Scan(shard, attempt, from, view) => {
                tracing::debug!(%shard, phase = self.worker.phase(shard), "scan begins");
                let log = self.log.clone();
                self.help(shard, attempt, move || match log.scan(shard, from, view) {
                    Ok((scan, range)) => Ok(Event::Scanned(shard, attempt, scan, range)),
                    Err(ScanError::Log(LogError::Cut { start, .. })) => Ok(Event::Cut(shard, attempt, JournalOffset::new(start))),
                    Err(error) => Err(error.into()),
                });
            }
            Action::Bar(incarnation) => self.bar(incarnation),
            Action::Restore(shard, attempt, claimed) => self.restore(shard, attempt, claimed),
            Action::Start(shard, attempt) => self.command(shard, Command::Start(shard, attempt)),
            Action::Seal(shard, attempt, owner, annotations) => self.command(shard, Command::Seal(shard, attempt, owner, annotations)),
            Action::Confirm(shard, epoch, journal) => self.command(shard, Command::Confirm(shard, epoch, journal)),
            Action::Drop(shard) => {
                self.turns.want(shard, None);
                self.command(shard, Command::Drop(shard));
            }
            Action::Close(shard) => {
                self.turns.want(shard, None);
                self.prefetcher.cancel_download(shard);
                self.command(shard, Command::Close(shard));
            }
            Action::Discard { shard, before, objects } => self.discard(shard, before, objects),
            Action::Look(looks) => self.look(looks),
            Action::Report(report) => self.report(report),
            Action::Stopped => unreachable!("the loop ends on it"),
        }
    }

    fn bar(&self, incarnation: Incarnation) {
        tracing::debug!(%incarnation, "bar begins");
        self.prefetcher.download(self.worker.claiming());
        let (log, whom) = (self.log.clone(), incarnation.clone());
        let act = move || {
            log.bar(&whom)?;
            tracing::debug!(incarnation = %whom, "bar ends");
            Ok(Event::Barred(whom))
        };
        self.ask(act, move |failure| Event::BarFailed(incarnation, failure));
    }

    fn restore(&self, shard: ShardId, attempt: Attempt, claimed: forebay_engine::claim::Claimed) {
        self.show(shard, "restoring");
        tracing::debug!(%shard, "restore begins");
        Counters::add(&self.status.counters.restores, 1);
        let (restorer, executor, turns) = (self.restorer.clone(), self.executor(shard).clone(), self.turns.clone());
        let prefetcher = self.prefetcher.clone();
        turns.want(shard, Some(attempt));
        self.help(shard, attempt, move || {
            let unwanted = || Failure::Passing("nobody waits for this restore any more".into());
            if !turns.is_wanted(shard, attempt) {
                return Err(unwanted());
            }
            // Before it enters: a preparation goes on in the folder for as long as it is wanted.
            prefetcher.leave(shard);
            let _place = turns.enter(shard, attempt).ok_or_else(unwanted)?;
            match restorer(shard, attempt, claimed) {
                Restoration::Done(state, scan) => {
                    let head = state.head().clone();
                    tracing::debug!(%shard, epoch = %head.epoch, "restore ends");
                    if !turns.hand_over(shard, attempt, || drop(executor.send(Command::Adopt(shard, attempt, state)))) {
                        return Err(unwanted());
                    }
                    Ok(Event::Restored(shard, attempt, Box::new(head), scan))
                }
                Restoration::Outrun => Ok(Event::RestoreOutrun(shard, attempt)),
                Restoration::Failed(failure) => Err(failure),
            }
        });
    }

    fn discard(&self, shard: ShardId, before: Option<JournalOffset>, objects: Vec<String>) {
        let (log, deleter) = (self.log.clone(), self.deleter.clone());
        let task = move || {
            if let Some(before) = before {
                tracing::debug!(%shard, "cut begins");
                if let Err(error) = log.ask(&format!("cut the journal of shard {shard}"), move |log| log.cut_journal(shard, before)) {
                    tracing::warn!(%shard, %error, "the journal was not cut; the next checkpoint tries again");
                }
                tracing::debug!(%shard, "cut ends");
            }
            if !objects.is_empty() {
                tracing::debug!(%shard, objects = objects.len(), "deletion begins");
                if let Err(error) = deleter(&objects) {
                    tracing::warn!(%shard, %error, "objects were not deleted; they are found again");
                }
                tracing::debug!(%shard, "deletion ends");
            }
        };
        let _ = self.helpers.send(Box::new(task));
    }

    /// Every look is answered, whatever happens: the worker looks again only then.
    fn look(&self, looks: Vec<Look>) {
        let (log, events) = (self.log.clone(), self.events.clone());
        let task = move || {
            let sights = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sights(&log, &looks)));
            let sights = sights.unwrap_or_else(|panic| {
                tracing::error!(reason = crate::helpers::panic_text(&*panic), "looking at journals panicked");
                Vec::new()
            });
            let sights = sights.into_iter().chain(std::iter::repeat_with(|| Sight::Nothing));
            for (look, sight) in looks.iter().zip(sights) {
                let _ = events.send(Event::Looked(look.shard, look.attempt, sight));
            }
        };
        let _ = self.helpers.send(Box::new(task));
    }

    fn report(&self, report: Report) {
        match &report {
            Report::Owned(shard, epoch) => tracing::info!(%shard, %epoch, "shard is owned"),
            Report::GaveUp(shard, gave_up) => {
                tracing::warn!(%shard, version = %gave_up.version, winner = %gave_up.winner, "shard is given up to a worker with a better right");
            }
            Report::Failed(shard, reason) => {
                tracing::error!(%shard, reason, "shard failed");
                self.failed(*shard, "failed", reason);
            }
            Report::Stalled(shard, reason) => {
                tracing::error!(%shard, reason, "shard is stalled: it needs help");
                self.failed(*shard, "stalled", reason);
            }
            // Logged where it was found.
            Report::FellBack(..) => {}
            Report::IncarnationOver(incarnation, reason) => {
                Counters::add(&self.status.counters.incarnations_over, 1);
                tracing::warn!(%incarnation, reason, "incarnation is over; all shards are claimed again");
            }
        }
        self.status.report(report);
    }

    fn help(&self, shard: ShardId, attempt: Attempt, act: impl FnOnce() -> Result<Event, Failure> + Send + 'static) {
        self.ask(act, move |failure| Event::ClaimFailed(shard, attempt, failure));
    }

    /// Does something on a helper thread. An event comes of it in any case.
    fn ask(&self, act: impl FnOnce() -> Result<Event, Failure> + Send + 'static, failed: impl FnOnce(Failure) -> Event + Send + 'static) {
        let events = self.events.clone();
        let task = move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            let panicked = |text: String| Err(Failure::Passing(format!("a helper panicked: {text}")));
            let outcome = outcome.unwrap_or_else(|panic| panicked(crate::helpers::panic_text(&*panic)));
            let _ = events.send(outcome.unwrap_or_else(failed));
        };
        let _ = self.helpers.send(Box::new(task));
    }

    fn failed(&self, shard: ShardId, phase: &'static str, reason: &str) {
        self.status.update(shard, |status| {
            (status.phase, status.stalled, status.failure) = (phase, phase == "stalled", Some(reason.to_owned()));
            (status.began, status.load) = (None, None);
        });
    }

    /// What a shard is at. One that is stalled stays so for everybody until it runs, however often it is tried again.
    fn show(&self, shard: ShardId, phase: &'static str) {
        self.status.update(shard, |status| {
            status.phase = if status.stalled { "stalled" } else { phase };
            (status.began, status.load) = (None, None);
        });
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the committer lives as long as the coordinator");
    }

    fn command(&self, shard: ShardId, command: Command<P, S>) {
        self.executor(shard).send(command).expect("executors live as long as the coordinator");
    }

    fn executor(&self, shard: ShardId) -> &Sender<Command<P, S>> {
        &self.executors[shard.get() as usize % self.executors.len()]
    }
}

/// What idle owners' journals show behind what is known of them. All ends are asked for at once; most journals end where they did.
fn sights<L: Log>(log: &Watched<L>, looks: &[Look]) -> Vec<Sight> {
    let shards: Vec<ShardId> = looks.iter().map(|look| look.shard).collect();
    let ends = log.ask("ask for the ends of journals", move |log| log.journal_ends(&shards)).unwrap_or_else(|error| {
        tracing::debug!(%error, "an idle owner could not look at its journals");
        Vec::new()
    });
    let sight = |(look, end): (&Look, &JournalOffset)| match *end > look.from {
        false => Sight::Nothing,
        true => match log.scan(look.shard, look.from, View::Uncommitted) {
            Ok((scan, range)) => Sight::Records(scan, range.end),
            Err(ScanError::Log(LogError::Cut { .. })) => Sight::Cut,
            Err(error) => {
                tracing::debug!(shard = %look.shard, %error, "an idle owner could not look at its journal");
                Sight::Nothing
            }
        },
    };
    looks.iter().zip(&ends).map(sight).collect()
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(at.as_millis() - now.as_millis()).unwrap_or(0))
}
