//! Taking a shard: bar every earlier owner, then put a claim record into its journal, until one's claim lies behind everything that any
//! other owner ever wrote, or could (I4). The steps are those of design.md section 3, "Claim"; the numbers in here are its numbers.
//!
//! A claim is one attempt by one incarnation. It decides; whoever drives it reads, bars and commits, and hands back what came of it.

mod scan;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::ids::{AssignmentVersion, Incarnation, JournalOffset, WorkerName};
use crate::journal::Owner;
use crate::log::{JournalRange, View};
use crate::manifest::Manifest;
use crate::mutants::{self, Bug};
pub use scan::Scan;

/// Under which assignment version to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VersionRule {
    /// The operator's. It gives a version to one worker: two that have the same one both give up.
    Exactly(AssignmentVersion),
    /// The highest that is seen, plus one: the later start wins (`forebay run`).
    AboveAll,
    /// What [`VersionRule::AboveAll`] came to, for the life of the process: one that loses must not outbid the winner. Starts that did not see
    /// each other may come to the same; of those the process with the greater name wins, which both see the same way.
    Settled(AssignmentVersion),
}

/// What the claim wants done next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimAction {
    /// Read the newest manifest of the shard; answer with [`ClaimEvent::Manifest`].
    ReadManifest,
    /// Read the journal's heads from there to the end; answer with [`ClaimEvent::Scanned`] or [`ClaimEvent::Cut`].
    Scan {
        /// The first offset.
        from: JournalOffset,
        /// Never [`View::CommittedToEnd`].
        view: View,
    },
    /// Bar an incarnation; answer with [`ClaimEvent::Barred`]. There may be several at once, to be barred in any order.
    Bar(Incarnation),
    /// Commit a claim record in the worker's own transaction; answer with [`ClaimEvent::Claimed`].
    CommitClaim(Owner),
    /// The claim stands: restore, then check with [`Claim::verify`] before processing.
    Restore(Claimed),
    /// Somebody with a better right was met.
    GiveUp(GaveUp),
    /// The journal was cut and no manifest reaches behind the cut: nothing can be restored.
    Stall {
        /// Where the journal starts.
        start: JournalOffset,
        /// Where it would have to start.
        wanted: JournalOffset,
    },
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimEvent {
    /// The newest manifest, if there is one.
    Manifest(Option<ManifestMark>),
    /// The journal from the wanted offset to its end.
    Scanned(Scan, JournalRange),
    /// The wanted offset is gone; the journal starts here.
    Cut(JournalOffset),
    /// That incarnation can never commit again, and what it left open is aborted.
    Barred(Incarnation),
    /// The claim record is committed and lies here.
    Claimed(JournalOffset),
}

/// The right to write a shard's journal as its owner; made by [`Claim`] only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claimed {
    owner: Owner,
    offset: JournalOffset,
}

impl Claimed {
    /// Whose right it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Where the claim record lies.
    pub fn offset(&self) -> JournalOffset {
        self.offset
    }
}

/// Why a claim was given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GaveUp {
    /// The version that was met.
    pub version: AssignmentVersion,
    /// Whose it is.
    pub winner: WorkerName,
    /// Whether a claim record of ours is committed: then a release mark must follow.
    pub claimed: bool,
}

/// What a claim needs to know of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManifestMark {
    /// Behind the journal record of its epoch.
    pub journal: JournalOffset,
    /// Who took it, and who committed its epoch.
    pub incarnations: BTreeSet<Incarnation>,
    /// The owner that committed its epoch.
    pub owner: Incarnation,
    /// Whose incarnation that was.
    pub worker: WorkerName,
    /// Under which version.
    pub assignment: AssignmentVersion,
}

impl From<&Manifest> for ManifestMark {
    fn from(manifest: &Manifest) -> Self {
        let owner = &manifest.stamp.owner;
        Self {
            journal: manifest.stamp.journal,
            incarnations: [owner.incarnation.clone(), manifest.taken_by.clone()].into(),
            owner: owner.incarnation.clone(),
            worker: owner.worker.clone(),
            assignment: owner.assignment,
        }
    }
}

#[derive(Clone, Debug, Hash)]
enum Phase {
    /// Step 1.
    ReadingManifest,
    /// Step 1: all records, then the committed ones if a release was among them.
    Scanning { uncommitted: Option<(Scan, JournalRange)> },
    /// Step 2, and step 4's barring.
    Barring { todo: BTreeSet<Incarnation>, behind: Option<JournalOffset> },
    /// Step 3.
    Claiming,
    /// Step 4.
    ReadingOn { claim: JournalOffset, uncommitted: Option<(Scan, JournalRange)> },
    /// Step 5: restoring, then verified.
    Standing { claim: JournalOffset },
    /// Gave up or stalled.
    Over,
}

/// One attempt of one incarnation to take one shard.
#[derive(Clone, Debug, Hash)]
pub struct Claim {
    owner: Owner,
    rule: VersionRule,
    phase: Phase,
    manifest: Option<ManifestMark>,
    /// Set when the journal turned out to be cut: only a manifest behind it helps.
    cut_at: Option<(JournalOffset, JournalOffset)>,
    barred: BTreeSet<Incarnation>,
    /// How far the journal was read before the claim record was put.
    read_to: JournalOffset,
    /// Where our last committed claim record lies.
    last_claim: Option<JournalOffset>,
}

impl Claim {
    /// Starts; the version is the rule's, whatever `owner` says.
    pub fn start(mut owner: Owner, rule: VersionRule) -> (Self, Vec<ClaimAction>) {
        owner.assignment = match rule {
            VersionRule::Exactly(version) | VersionRule::Settled(version) => version,
            VersionRule::AboveAll => AssignmentVersion::default(),
        };
        let claim = Self {
            owner,
            rule,
            phase: Phase::ReadingManifest,
            manifest: None,
            cut_at: None,
            barred: BTreeSet::new(),
            read_to: JournalOffset::default(),
            last_claim: None,
        };
        (claim, vec![ClaimAction::ReadManifest])
    }

    /// Who claims; the version is settled once the journal has been scanned.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What the next attempt of this process must claim under.
    pub fn rule(&self) -> VersionRule {
        self.rule
    }

    /// Whether a claim record of ours lies in the journal, or may come to lie there: then a release mark is owed.
    pub fn may_have_record(&self) -> bool {
        self.last_claim.is_some() || matches!(self.phase, Phase::Claiming)
    }

    /// Where our last committed claim record lies.
    pub fn last_claim(&self) -> Option<JournalOffset> {
        self.last_claim
    }

    /// A word for the phase, for logs and coverage.
    pub fn phase(&self) -> &'static str {
        match &self.phase {
            Phase::ReadingManifest => "reading-manifest",
            Phase::Scanning { .. } => "scanning",
            Phase::Barring { .. } => "barring",
            Phase::Claiming => "claiming",
            Phase::ReadingOn { .. } => "reading-on",
            Phase::Standing { .. } => "standing",
            Phase::Over => "over",
        }
    }

    /// Takes what came of the last action and says what to do next.
    pub fn step(&mut self, event: ClaimEvent) -> Vec<ClaimAction> {
        match (std::mem::replace(&mut self.phase, Phase::Over), event) {
            (Phase::ReadingManifest, ClaimEvent::Manifest(manifest)) => self.manifest_read(manifest),
            (Phase::Scanning { uncommitted: None }, ClaimEvent::Scanned(scan, range)) => {
                if scan.has_release() {
                    self.phase = Phase::Scanning { uncommitted: Some((scan, range)) };
                    return vec![ClaimAction::Scan { from: self.scan_from(), view: View::CommittedSoFar }];
                }
                self.scanned(&scan, &BTreeSet::new(), range)
            }
            (Phase::Scanning { uncommitted: Some((scan, range)) }, ClaimEvent::Scanned(committed, _)) => {
                let released = scan.released(&committed);
                self.scanned(&scan, &released, range)
            }
            (Phase::Scanning { .. }, ClaimEvent::Cut(start)) => self.start_again(start, self.scan_from()),
            (Phase::Barring { mut todo, behind }, ClaimEvent::Barred(incarnation)) => {
                todo.remove(&incarnation);
                self.barred.insert(incarnation);
                if todo.is_empty() {
                    return self.put_claim(behind);
                }
                self.phase = Phase::Barring { todo, behind };
                Vec::new()
            }
            (Phase::Claiming, ClaimEvent::Claimed(offset)) => {
                self.last_claim = Some(offset);
                self.phase = Phase::ReadingOn { claim: offset, uncommitted: None };
                vec![ClaimAction::Scan { from: self.read_to.min(offset), view: View::Uncommitted }]
            }
            (Phase::ReadingOn { claim, .. }, ClaimEvent::Cut(start)) => self.start_again(start, self.read_to.min(claim)),
            (Phase::ReadingOn { claim, uncommitted: None }, ClaimEvent::Scanned(scan, range)) => {
                if scan.has_release() {
                    self.phase = Phase::ReadingOn { claim, uncommitted: Some((scan, range)) };
                    return vec![ClaimAction::Scan { from: self.read_to.min(claim), view: View::CommittedSoFar }];
                }
                self.read_on(claim, &scan, &BTreeSet::new())
            }
            (Phase::ReadingOn { claim, uncommitted: Some((scan, _)) }, ClaimEvent::Scanned(committed, _)) => {
                let released = scan.released(&committed);
                self.read_on(claim, &scan, &released)
            }
            (phase, event) => panic!("claim of shard {}: {event:?} does not belong to phase {phase:?}", self.owner.shard),
        }
    }

    /// After the restore: the uncommitted journal behind the claim, read once more (step 5). Anything foreign there: start again.
    pub fn verify(&mut self, scan: &Scan) -> Result<(), Vec<ClaimAction>> {
        let Phase::Standing { claim } = self.phase else { panic!("claim of shard {}: verify in phase {}", self.owner.shard, self.phase()) };
        if scan.foreign_behind(&self.owner.incarnation, claim) { Err(self.again()) } else { Ok(()) }
    }

    /// The restore found the journal cut under it: start again at step 1.
    pub fn again(&mut self) -> Vec<ClaimAction> {
        self.phase = Phase::ReadingManifest;
        vec![ClaimAction::ReadManifest]
    }

    fn manifest_read(&mut self, manifest: Option<ManifestMark>) -> Vec<ClaimAction> {
        self.manifest = manifest;
        if let Some((start, wanted)) = self.cut_at.take()
            && self.scan_from() < start
        {
            return vec![ClaimAction::Stall { start, wanted }];
        }
        self.phase = Phase::Scanning { uncommitted: None };
        vec![ClaimAction::Scan { from: self.scan_from(), view: View::Uncommitted }]
    }

    fn scan_from(&self) -> JournalOffset {
        self.manifest.as_ref().map_or(JournalOffset::default(), |manifest| manifest.journal)
    }

    /// End of step 1.
    fn scanned(&mut self, scan: &Scan, released: &BTreeSet<Incarnation>, range: JournalRange) -> Vec<ClaimAction> {
        self.read_to = range.end;
        if self.rule == VersionRule::AboveAll {
            let highest = scan.seen.values().map(|seen| seen.assignment).chain(self.manifest.as_ref().map(|m| m.assignment)).max();
            self.owner.assignment = highest.unwrap_or_default().next();
            self.rule = VersionRule::Settled(self.owner.assignment);
        }
        if let Some(gave_up) = self.better_right(scan) {
            return vec![ClaimAction::GiveUp(gave_up)];
        }
        let mut todo = self.unknown(scan, released);
        for incarnation in self.manifest.iter().flat_map(|manifest| &manifest.incarnations) {
            if *incarnation != self.owner.incarnation && !released.contains(incarnation) && !self.barred.contains(incarnation) {
                todo.insert(incarnation.clone());
            }
        }
        self.bar(todo, None)
    }

    /// Step 2, and step 4's barring, where `behind` is the claim that turned out not to be the last word. Then on to step 3.
    fn bar(&mut self, todo: BTreeSet<Incarnation>, behind: Option<JournalOffset>) -> Vec<ClaimAction> {
        if todo.is_empty() {
            return self.put_claim(behind);
        }
        let actions = todo.iter().cloned().map(ClaimAction::Bar).collect();
        self.phase = Phase::Barring { todo, behind };
        actions
    }

    /// Step 3.
    fn put_claim(&mut self, behind: Option<JournalOffset>) -> Vec<ClaimAction> {
        match behind {
            Some(claim) if mutants::is(Bug::NoBack) => self.stand(claim),
            Some(_) | None => {
                self.phase = Phase::Claiming;
                vec![ClaimAction::CommitClaim(self.owner.clone())]
            }
        }
    }

    /// Step 4.
    fn read_on(&mut self, claim: JournalOffset, scan: &Scan, released: &BTreeSet<Incarnation>) -> Vec<ClaimAction> {
        if let Some(gave_up) = self.better_right(scan) {
            return vec![ClaimAction::GiveUp(gave_up)];
        }
        let unknown = self.unknown(scan, released);
        let behind = scan.foreign_behind(&self.owner.incarnation, claim) && !mutants::is(Bug::Behind);
        if !unknown.is_empty() || behind {
            return self.bar(unknown, Some(claim));
        }
        self.stand(claim)
    }

    /// Step 5.
    fn stand(&mut self, claim: JournalOffset) -> Vec<ClaimAction> {
        self.phase = Phase::Standing { claim };
        vec![ClaimAction::Restore(Claimed { owner: self.owner.clone(), offset: claim })]
    }

    /// Whoever has a better right, if anybody was met who has one; of several the best.
    fn better_right(&self, scan: &Scan) -> Option<GaveUp> {
        let others = scan.seen.iter().filter(|(incarnation, _)| **incarnation != self.owner.incarnation);
        let met = others.map(|(incarnation, seen)| (seen.assignment, incarnation, &seen.worker));
        let named = self.manifest.iter().map(|manifest| (manifest.assignment, &manifest.owner, &manifest.worker));
        let better = met.chain(named).filter(|(version, incarnation, worker)| self.yields_to(*version, incarnation, worker));
        let (version, _, winner) = better.max_by_key(|(version, incarnation, _)| (*version, incarnation.process()))?;
        Some(GaveUp { version, winner: winner.clone(), claimed: self.last_claim.is_some() })
    }

    /// Who yields to whom is a matter of peace, not of safety: one that goes on has barred all others before it processes (I4).
    fn yields_to(&self, version: AssignmentVersion, incarnation: &Incarnation, worker: &WorkerName) -> bool {
        match (version.cmp(&self.owner.assignment), self.rule) {
            (Ordering::Less, _) => false,
            (Ordering::Greater, _) => true,
            (Ordering::Equal, VersionRule::Settled(_)) if mutants::is(Bug::BothYield) => *worker != self.owner.worker,
            (Ordering::Equal, VersionRule::Settled(_)) if mutants::is(Bug::NeitherYields) => false,
            (Ordering::Equal, VersionRule::Settled(_)) => incarnation.process() > self.owner.incarnation.process(),
            (Ordering::Equal, VersionRule::Exactly(_) | VersionRule::AboveAll) => *worker != self.owner.worker,
        }
    }

    /// Incarnations that are neither barred nor released.
    fn unknown(&self, scan: &Scan, released: &BTreeSet<Incarnation>) -> BTreeSet<Incarnation> {
        let known = |i: &Incarnation| *i == self.owner.incarnation || released.contains(i) || self.barred.contains(i);
        scan.seen.keys().filter(|incarnation| !known(incarnation)).cloned().collect()
    }

    fn start_again(&mut self, start: JournalOffset, wanted: JournalOffset) -> Vec<ClaimAction> {
        self.cut_at = Some((start, wanted));
        self.again()
    }
}
