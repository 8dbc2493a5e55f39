//! The claim protocol alone: the engine's [`Claim`] in a world harsher than Forebay's own. The journal is cut up to the newest manifest at once,
//! anybody may release and come back, an owner may take a release back by an abort of its own choice. Runs are cheap, so that bugs show that one
//! schedule in ten thousand meets ([`random`]), and small ones can be run in all orders there are ([`explore`]).
//!
//! The check: whoever commits an epoch knows exactly the committed epochs before it (I4).

pub mod explore;
pub mod random;
mod shared;

use std::collections::VecDeque;

use forebay_engine::claim::{Claim, ClaimAction, ClaimEvent, ManifestMark, VersionRule};
use forebay_engine::ids::{AssignmentVersion, JournalOffset};
use forebay_engine::journal::{Kind, Owner};
use forebay_engine::log::View;

use crate::mutant::{Mutant, is};
pub(crate) use shared::Shared;
use shared::{Mark, State, at, number, offset, owner};

/// Workers that a run may have.
const WORKERS_MAX: usize = 7;
/// Incarnations that each of them may have: one that is barred again and again is a finding.
const INCARNATIONS_MAX: usize = 8;

/// Whoever decides what the protocol leaves open: chance, or a search that wants to see all of it.
pub(crate) trait Decide {
    /// The index of one of the weights; one of weight 0 is out of the question.
    fn choose(&mut self, weights: &[f64]) -> usize;

    /// Whether something happens.
    fn happens(&mut self, probability: f64) -> bool {
        self.choose(&[1.0 - probability, probability]) == 1
    }
}

/// Peace: exactly one has the shard.
fn one_owner(world: &Shared, claimants: &[Claimant]) -> Result<(), String> {
    let owners: Vec<usize> = claimants.iter().filter(|claimant| claimant.owns(world)).map(|claimant| claimant.me).collect();
    if owners.len() == 1 { Ok(()) } else { Err(format!("in the end these own the shard: {owners:?}; {:?}", world.journal)) }
}

/// What an owner may still do; each thing so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Epochs, committed or aborted.
    pub epochs: u8,
    /// Manifests.
    pub uploads: u8,
    /// Cuts of the journal up to the newest manifest.
    pub cuts: u8,
    /// Releases.
    pub releases: u8,
    /// Whether it may come back from a release.
    pub returns: bool,
    /// Whether it aborts transactions by choice.
    pub aborts: bool,
}

impl Budget {
    /// As often as it likes.
    pub const ENDLESS: Self = Self { epochs: u8::MAX, uploads: u8::MAX, cuts: u8::MAX, releases: u8::MAX, returns: true, aborts: true };

    fn weight(left: u8, weight: f64) -> f64 {
        if left == 0 { 0.0 } else { weight }
    }

    fn spend(left: &mut u8) {
        if *left < u8::MAX {
            *left -= 1;
        }
    }
}

/// What an incarnation does next.
#[derive(Clone, Debug, Hash)]
enum Next {
    /// The first of what its claim wants done.
    Claim,
    ClaimSent(usize),
    Verify(JournalOffset),
    Own,
    EpochSent,
    Upload(usize),
    ReleaseSent {
        chosen_abort: bool,
        over: bool,
    },
    Away(usize),
    Over,
}

/// A worker: claims, owns, and perhaps starts anew when it is barred.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Claimant {
    me: usize,
    rule: VersionRule,
    /// Takes a new incarnation when it is barred, as a worker does; otherwise that is its end.
    comes_back: bool,
    budget: Budget,
    claim: Option<Claim>,
    todo: VecDeque<ClaimAction>,
    next: Next,
    known: Vec<usize>,
    /// Behind its last epoch.
    last: Option<usize>,
}

impl Claimant {
    pub(crate) fn new(worker: usize, rule: VersionRule, budget: Budget, comes_back: bool) -> Self {
        let mut claimant = Self {
            me: worker * INCARNATIONS_MAX,
            rule,
            comes_back,
            budget,
            claim: None,
            todo: VecDeque::new(),
            next: Next::Over,
            known: Vec::new(),
            last: None,
        };
        claimant.begin();
        claimant
    }

    /// Whether it has the shard, and can commit.
    pub(crate) fn owns(&self, world: &Shared) -> bool {
        matches!(self.next, Next::Own | Next::EpochSent | Next::Upload(_)) && !world.barred.contains(&self.me)
    }

    /// Whether there is anything that it would do.
    pub(crate) fn is_live(&self, world: &Shared) -> bool {
        match self.next {
            Next::Over => false,
            Next::Own => self.choices(world).iter().any(|weight| *weight > 0.0),
            _ => true,
        }
    }

    /// How many it has had so far.
    pub(crate) fn incarnations(&self) -> usize {
        self.me % INCARNATIONS_MAX + 1
    }

    /// Whether it may commit another epoch, now or later: only that can break anything.
    pub(crate) fn may_commit(&self, world: &Shared) -> bool {
        let is_out = matches!(self.next, Next::Over) || world.barred.contains(&self.me) && !self.comes_back;
        !is_out && (self.budget.epochs > 0 || matches!(self.next, Next::EpochSent))
    }

    fn begin(&mut self) {
        let (claim, actions) = Claim::start(owner(self.me, AssignmentVersion::default()), self.rule);
        self.claim = Some(claim);
        self.go_on(actions);
    }

    fn go_on(&mut self, actions: Vec<ClaimAction>) {
        self.todo.extend(actions);
        self.next = if self.todo.is_empty() { Next::Over } else { Next::Claim };
    }

    fn event(&mut self, event: ClaimEvent) {
        let claim = self.claim.as_mut().expect("it claims");
        let actions = claim.step(event);
        self.rule = claim.rule();
        self.go_on(actions);
    }

    fn version(&self) -> AssignmentVersion {
        self.claim.as_ref().map_or(AssignmentVersion::default(), |claim| claim.owner().assignment)
    }

    /// Its producer was refused.
    fn fenced(&mut self) -> Result<(), String> {
        self.next = Next::Over;
        if self.comes_back {
            self.me += 1;
            if self.me.is_multiple_of(INCARNATIONS_MAX) {
                return Err(format!("worker {} was barred {INCARNATIONS_MAX} times", self.me / INCARNATIONS_MAX - 1));
            }
            (self.todo, self.known, self.last) = (VecDeque::new(), Vec::new(), None);
            self.begin();
        }
        Ok(())
    }

    /// One small step. `Err`: it committed an epoch without knowing what was committed before.
    pub(crate) fn step(&mut self, world: &mut Shared, decide: &mut impl Decide) -> Result<(), String> {
        let barred = world.barred.contains(&self.me);
        match std::mem::replace(&mut self.next, Next::Over) {
            Next::Over => {}
            Next::Claim => return self.perform(world, barred),
            Next::ClaimSent(_) | Next::EpochSent | Next::ReleaseSent { .. } if barred => return self.fenced(),
            Next::ClaimSent(place) => {
                world.end(self.me, State::Committed);
                self.event(ClaimEvent::Claimed(offset(place)));
            }
            Next::Verify(claimed) => self.verify(world, claimed),
            Next::Own => return self.own(world, decide, barred),
            Next::EpochSent => {
                self.next = Next::Own;
                if self.budget.aborts && decide.happens(0.1) {
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
                if world.manifest.is_none_or(|newest| position > newest.position) {
                    world.manifest = Some(Mark { position, by: self.me, version: self.version() });
                }
                self.next = Next::Own;
            }
            Next::ReleaseSent { chosen_abort: true, .. } => {
                world.end(self.me, State::Aborted);
                self.next = Next::Own;
            }
            Next::ReleaseSent { over, .. } => {
                world.end(self.me, State::Committed);
                let steps = if self.budget == Budget::ENDLESS { decide.choose(&[1.0; 6]) } else { 0 };
                self.next = if over { Next::Over } else { Next::Away(steps) };
            }
            Next::Away(0) => {
                if decide.happens(0.7) {
                    self.rule = VersionRule::Exactly(world.next_version());
                }
                self.begin();
            }
            Next::Away(steps) => self.next = Next::Away(steps - 1),
        }
        Ok(())
    }

    /// Step 5's last look.
    fn verify(&mut self, world: &Shared, claimed: JournalOffset) {
        let claim = self.claim.as_mut().expect("it claims");
        let blind = [Mutant::NoVerify, Mutant::NoBackUnverified, Mutant::BehindUnverified].into_iter().any(is);
        let again = match world.scan(at(claimed), View::Uncommitted) {
            Err(_) => Some(claim.again()),
            Ok((scan, _)) => claim.verify(&scan).err().filter(|_| !blind),
        };
        match again {
            Some(actions) => self.go_on(actions),
            None => self.next = Next::Own,
        }
    }

    fn perform(&mut self, world: &mut Shared, barred: bool) -> Result<(), String> {
        let Some(action) = self.todo.pop_front() else { return Ok(()) };
        match action {
            ClaimAction::ReadManifest => {
                let mark = world.manifest.map(|Mark { position, by, version }| {
                    let Owner { incarnation, worker, assignment, .. } = owner(by, version);
                    let incarnations = [incarnation.clone()].into();
                    ManifestMark { journal: offset(position), incarnations, owner: incarnation, worker, assignment }
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
            ClaimAction::CommitClaim(_) if barred => return self.fenced(),
            ClaimAction::CommitClaim(owner) => self.next = Next::ClaimSent(world.append(self.me, Kind::Claim, owner.assignment)),
            ClaimAction::Restore(claimed) => {
                if world.journal[world.start..].iter().any(|record| record.state == State::Open) {
                    self.go_on(vec![ClaimAction::Restore(claimed)]);
                    return Ok(());
                }
                self.known = world.history();
                self.next = Next::Verify(claimed.offset());
            }
            ClaimAction::GiveUp(gave_up) if gave_up.claimed && !barred => {
                world.append(self.me, Kind::Release, self.version());
                self.next = Next::ReleaseSent { chosen_abort: false, over: true };
            }
            ClaimAction::GiveUp(_) | ClaimAction::Stall { .. } => {}
        }
        Ok(())
    }

    /// What an owner may do: commit an epoch, put a manifest, cut, release, nothing.
    fn choices(&self, world: &Shared) -> [f64; 5] {
        let Budget { epochs, uploads, cuts, releases, .. } = self.budget;
        if world.barred.contains(&self.me) && self.comes_back {
            return [1.0, 0.0, 0.0, 0.0, 0.0];
        }
        let has_epoch = f64::from(u8::from(self.last.is_some()));
        let has_manifest = f64::from(u8::from(world.manifest.is_some()));
        [
            Budget::weight(epochs, 0.55),
            Budget::weight(uploads, 0.2) * has_epoch,
            Budget::weight(cuts, 0.15) * has_manifest,
            Budget::weight(releases, 0.05),
            if self.budget == Budget::ENDLESS { 0.05 } else { 0.0 },
        ]
    }

    fn own(&mut self, world: &mut Shared, decide: &mut impl Decide, barred: bool) -> Result<(), String> {
        self.next = Next::Own;
        match decide.choose(&self.choices(world)) {
            0 | 3 if barred => return self.fenced(),
            0 => {
                Budget::spend(&mut self.budget.epochs);
                world.append(self.me, Kind::Epoch, self.version());
                self.next = Next::EpochSent;
            }
            1 => {
                Budget::spend(&mut self.budget.uploads);
                self.next = Next::Upload(self.last.expect("it may upload only then"));
            }
            2 => {
                Budget::spend(&mut self.budget.cuts);
                world.cuts.extend(world.manifest.map(|mark| mark.position));
            }
            3 => {
                Budget::spend(&mut self.budget.releases);
                world.append(self.me, Kind::Release, self.version());
                let chosen_abort = self.budget.aborts && decide.happens(0.2);
                self.next = Next::ReleaseSent { chosen_abort, over: !self.budget.returns || decide.happens(0.5) };
            }
            _ => {}
        }
        Ok(())
    }
}
