//! Many short runs of the claim protocol alone: the engine's [`Claim`] in a world harsher than Forebay's own. The journal is cut up to the newest
//! manifest at once, anybody may release and come back, an owner may take a release back by an abort of its own choice. Such runs are cheap, so
//! that bugs show that one schedule in ten thousand meets.
//!
//! The check: whoever commits an epoch knows exactly the committed epochs before it (I4).

use std::collections::{BTreeMap, BTreeSet};

use forebay_engine::claim::{Claim, ClaimAction, ClaimEvent, ManifestMark, Scan, VersionRule};
use forebay_engine::ids::{AssignmentVersion, Incarnation, JournalOffset, ShardId, Timeline, WorkerName};
use forebay_engine::journal::{ChunkHead, Kind, Owner};
use forebay_engine::log::{JournalRange, View};

use crate::mutant::{Mutant, is};
use crate::rng::Rng;

/// Owners that a run may have.
const OWNERS_MAX: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Record {
    by: usize,
    kind: Kind,
    state: State,
    version: AssignmentVersion,
}

#[derive(Debug, Default)]
struct Shared {
    journal: Vec<Record>,
    start: usize,
    manifest: Option<(usize, usize, AssignmentVersion)>,
    barred: BTreeSet<usize>,
    /// Cuts on their way.
    cuts: Vec<usize>,
    version: AssignmentVersion,
}

impl Shared {
    fn append(&mut self, by: usize, kind: Kind, version: AssignmentVersion) -> usize {
        self.journal.push(Record { by, kind, state: State::Open, version });
        self.journal.len() - 1
    }

    fn end(&mut self, by: usize, state: State) {
        self.journal.iter_mut().filter(|record| record.by == by && record.state == State::Open).for_each(|record| record.state = state);
    }

    fn bar(&mut self, whom: usize) {
        self.barred.insert(whom);
        self.end(whom, State::Aborted);
    }

    fn history(&self) -> Vec<usize> {
        let is_epoch = |record: &Record| record.kind == Kind::Epoch && record.state == State::Committed;
        (0..self.journal.len()).filter(|at| is_epoch(&self.journal[*at])).collect()
    }

    /// What a reader folds; `Err` is where the journal starts.
    fn scan(&self, from: usize, view: View) -> Result<(Scan, JournalRange), JournalOffset> {
        let from = match self.start {
            start if start > from && is(Mutant::NoGap) => start,
            start if start > from => return Err(offset(start)),
            _ => from,
        };
        let open = (from..self.journal.len()).find(|at| self.journal[*at].state == State::Open);
        let view = if is(Mutant::ReleaseUncommitted) { View::Uncommitted } else { view };
        let end = if view == View::Uncommitted { self.journal.len() } else { open.unwrap_or(self.journal.len()) };
        let mut scan = Scan::default();
        for at in from..end {
            let record = &self.journal[at];
            if view == View::Uncommitted || record.state == State::Committed {
                scan.add(offset(at), &ChunkHead { kind: record.kind, chunk: 0, chunks: 1, owner: owner(record.by, record.version) });
            }
        }
        Ok((scan, JournalRange { start: offset(self.start), end: offset(end) }))
    }

    fn next_version(&mut self) -> AssignmentVersion {
        self.version = self.version.next();
        self.version
    }
}

fn offset(at: usize) -> JournalOffset {
    JournalOffset::new(at as u64)
}

fn at(offset: JournalOffset) -> usize {
    offset.get() as usize
}

fn owner(by: usize, assignment: AssignmentVersion) -> Owner {
    let (worker, incarnation) = NAMES.with(|names| names[by].clone());
    Owner { timeline: Timeline::new(0), shard: ShardId::new(0), worker, incarnation, assignment }
}

thread_local! {
    static NAMES: Vec<(WorkerName, Incarnation)> = (0..OWNERS_MAX).map(|n| (WorkerName::new(format!("w{n}")), Incarnation::new(format!("w{n}.1")))).collect();
}

fn number(incarnation: &Incarnation) -> usize {
    NAMES.with(|names| names.iter().position(|(_, name)| name == incarnation)).expect("only these are there")
}

/// What an incarnation does next.
#[derive(Debug)]
enum Next {
    Do(ClaimAction),
    ClaimSent(usize),
    Verify(JournalOffset),
    Own,
    EpochSent,
    Upload(usize),
    ReleaseSent { chosen_abort: bool, over: bool },
    Away(usize),
    Over,
}

struct Claimant {
    me: usize,
    version: AssignmentVersion,
    claim: Option<Claim>,
    next: Next,
    known: Vec<usize>,
    /// Behind its last epoch.
    last: Option<usize>,
}

impl Claimant {
    fn new(me: usize, version: AssignmentVersion) -> Self {
        let mut claimant = Self { me, version, claim: None, next: Next::Over, known: Vec::new(), last: None };
        claimant.begin();
        claimant
    }

    fn begin(&mut self) {
        let (claim, actions) = Claim::start(owner(self.me, self.version), VersionRule::Exactly(self.version));
        self.claim = Some(claim);
        self.go_on(actions);
    }

    fn go_on(&mut self, actions: Vec<ClaimAction>) {
        self.next = actions.into_iter().next().map_or(Next::Over, Next::Do);
    }

    fn event(&mut self, event: ClaimEvent) {
        let actions = self.claim.as_mut().expect("it claims").step(event);
        self.go_on(actions);
    }

    /// One small step. `Err`: it committed an epoch without knowing what was committed before.
    fn step(&mut self, world: &mut Shared, rng: &mut Rng) -> Result<(), String> {
        let barred = world.barred.contains(&self.me);
        match std::mem::replace(&mut self.next, Next::Over) {
            Next::Over => {}
            Next::Do(action) => self.perform(action, world, barred),
            Next::ClaimSent(_) | Next::EpochSent | Next::ReleaseSent { .. } if barred => {}
            Next::ClaimSent(place) => {
                world.end(self.me, State::Committed);
                self.event(ClaimEvent::Claimed(offset(place)));
            }
            Next::Verify(claimed) => match world.scan(at(claimed), View::Uncommitted) {
                Err(_) => {
                    let actions = self.claim.as_mut().expect("it claims").again();
                    self.go_on(actions);
                }
                Ok((scan, _)) => match self.claim.as_mut().expect("it claims").verify(&scan) {
                    Err(actions) if ![Mutant::NoVerify, Mutant::NoBackUnverified, Mutant::BehindUnverified].into_iter().any(is) => {
                        self.go_on(actions)
                    }
                    _ => self.next = Next::Own,
                },
            },
            Next::Own => self.own(world, rng, barred),
            Next::EpochSent => {
                self.next = Next::Own;
                if rng.chance(0.1) {
                    world.end(self.me, State::Aborted);
                    return Ok(());
                }
                let truth = world.history();
                world.end(self.me, State::Committed);
                if truth != self.known {
                    return Err(format!("owner {} commits on {:?}, but {truth:?} was committed: {:?}", self.me, self.known, world.journal));
                }
                self.known = world.history();
                self.last = self.known.last().map(|last| last + 1);
            }
            Next::Upload(position) => {
                if world.manifest.is_none_or(|(newest, ..)| position > newest) {
                    world.manifest = Some((position, self.me, self.version));
                }
                self.next = Next::Own;
            }
            Next::ReleaseSent { chosen_abort: true, .. } => {
                world.end(self.me, State::Aborted);
                self.next = Next::Own;
            }
            Next::ReleaseSent { over, .. } => {
                world.end(self.me, State::Committed);
                self.next = if over { Next::Over } else { Next::Away(rng.below(6)) };
            }
            Next::Away(0) => {
                if rng.chance(0.7) {
                    self.version = world.next_version();
                }
                self.begin();
            }
            Next::Away(steps) => self.next = Next::Away(steps - 1),
        }
        Ok(())
    }

    fn perform(&mut self, action: ClaimAction, world: &mut Shared, barred: bool) {
        match action {
            ClaimAction::ReadManifest => {
                let mark = world.manifest.map(|(position, by, assignment)| {
                    let owner = owner(by, assignment);
                    ManifestMark { journal: offset(position), incarnations: [owner.incarnation].into(), worker: owner.worker, assignment }
                });
                self.event(ClaimEvent::Manifest(mark));
            }
            ClaimAction::Scan { from, view } => match world.scan(at(from), view) {
                Ok((scan, range)) => self.event(ClaimEvent::Scanned(scan, range)),
                Err(start) => self.event(ClaimEvent::Cut(start)),
            },
            ClaimAction::Bar(whom) => {
                if !is(Mutant::NoBar) {
                    world.bar(number(&whom));
                }
                self.event(ClaimEvent::Barred(whom));
            }
            ClaimAction::CommitClaim(_) if barred => {}
            ClaimAction::CommitClaim(_) => self.next = Next::ClaimSent(world.append(self.me, Kind::Claim, self.version)),
            ClaimAction::Restore(claimed) => {
                if world.journal[world.start..].iter().any(|record| record.state == State::Open) {
                    self.next = Next::Do(ClaimAction::Restore(claimed));
                    return;
                }
                self.known = world.history();
                self.next = Next::Verify(claimed.offset());
            }
            ClaimAction::GiveUp(gave_up) if gave_up.claimed && !barred => {
                world.append(self.me, Kind::Release, self.version);
                self.next = Next::ReleaseSent { chosen_abort: false, over: true };
            }
            ClaimAction::GiveUp(_) | ClaimAction::Stall { .. } => {}
        }
    }

    fn own(&mut self, world: &mut Shared, rng: &mut Rng, barred: bool) {
        let what = rng.unit();
        self.next = Next::Own;
        match self.last {
            _ if what < 0.55 || (0.9..0.95).contains(&what) => {
                if barred {
                    self.next = Next::Over;
                } else if what < 0.55 {
                    world.append(self.me, Kind::Epoch, self.version);
                    self.next = Next::EpochSent;
                } else {
                    world.append(self.me, Kind::Release, self.version);
                    self.next = Next::ReleaseSent { chosen_abort: rng.chance(0.2), over: rng.chance(0.5) };
                }
            }
            Some(position) if what < 0.75 => self.next = Next::Upload(position),
            Some(_) if what < 0.9 => world.cuts.extend(world.manifest.map(|(position, ..)| position)),
            _ => {}
        }
    }
}

/// One run. Returns the number of committed epochs, or what went wrong.
pub fn run(seed: u64) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let mut world = Shared::default();
    let mut claimants: Vec<Claimant> = Vec::new();
    let (spawn, cut) = (*rng.pick(&[0.04, 0.08, 0.15]), *rng.pick(&[0.05, 0.1, 0.3]));
    let change = *rng.pick(&[0.05, 0.12, 0.3]);
    let mut priorities: BTreeMap<usize, f64> = BTreeMap::new();
    for step in 0..60 + rng.below(340) {
        if claimants.len() < OWNERS_MAX && (claimants.is_empty() || rng.chance(spawn)) {
            // Sometimes two are told the same version, or one a stale one.
            let version = if rng.chance(0.7) { world.next_version() } else { world.version };
            claimants.push(Claimant::new(claimants.len(), version));
        }
        if !world.cuts.is_empty() && rng.chance(cut) {
            let before = world.cuts.swap_remove(rng.below(world.cuts.len()));
            world.start = world.start.max(before);
        }
        let live: Vec<usize> = (0..claimants.len()).filter(|c| !matches!(claimants[*c].next, Next::Over)).collect();
        if live.is_empty() {
            continue;
        }
        let who = if seed.is_multiple_of(2) {
            if rng.chance(0.4) { *rng.pick(&live) } else { live[(step / 9 + seed as usize) % live.len()] }
        } else {
            if rng.chance(change) {
                let whom = *rng.pick(&live);
                let priority = rng.unit();
                priorities.insert(whom, priority);
            }
            for claimant in &live {
                let priority = rng.unit();
                priorities.entry(*claimant).or_insert(priority);
            }
            live.into_iter().max_by(|a, b| priorities[a].total_cmp(&priorities[b])).expect("not empty")
        };
        claimants[who].step(&mut world, &mut rng)?;
    }
    Ok(world.history().len())
}
