//! Savepoints: those that users ask for, those that are due, and those before changes; the pods that copy, and the part of the operator that looks after them. One that is
//! complete must hold all that the job held when it was asked for, each must be over in time, and what is over must stay so.

use super::*;
use crate::savepoint::{Sight, Step, step};

/// Seconds that a copy takes, that an object takes to go with what it holds, and after which a savepoint is over that is neither complete nor has failed: its deadline,
/// a last look for the copy, a pod on a lost node, and what lagging watches and lost requests take.
const COPIES: u64 = 5;
const GOES: u64 = 6;
const OVER_AFTER: u64 = 400;
/// Of those that users ask for, and of those that are due.
const DEADLINE: u64 = 150;
/// Between those that are due, and until one is taken.
const EVERY: u64 = 180;
const SOON: u64 = 20;

/// A savepoint, as the API server has it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub template: Option<String>,
    due: Option<Timestamp>,
    made: u64,
    pub phase: Option<SavepointPhase>,
    pub takes_all: bool,
    ends: Option<u64>,
    version: u64,
    /// The timeline and the records that the job had when it was made.
    held: (u32, [u64; SHARDS as usize]),
    /// When its status was last deleted.
    forgotten: u64,
}

/// A pod that copies.
#[derive(Clone, Debug)]
pub(super) struct Copier {
    of: String,
    task: Task,
    born: u64,
    copies: (u32, [u64; SHARDS as usize]),
    /// It looks for a copy only.
    finds: bool,
    fails: bool,
    is_lost: bool,
}

pub(super) fn path(name: &str) -> String {
    format!("default/job/{name}")
}

impl Kept {
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Some(SavepointPhase::Completed | SavepointPhase::Failed))
    }

    fn path(&self, name: &str) -> Option<String> {
        (self.phase == Some(SavepointPhase::Completed)).then(|| path(name))
    }

    pub fn saved(&self, name: &str) -> Saved {
        let (path, made) = (path(name), time(self.made));
        Saved { name: name.to_owned(), phase: self.phase, path, made, takes_all: self.takes_all }
    }

    pub fn taken(&self, name: &str) -> Option<Taken> {
        let (path, due) = (path(name), self.due?);
        Some(Taken { name: name.to_owned(), due, phase: self.phase, path, takes_all: self.takes_all, ends: self.ends.is_some() })
    }

    fn deadline(&self) -> u64 {
        if self.template.is_some() { GATE.deadline.as_secs() / 2 } else { DEADLINE }
    }
}

impl Copier {
    pub fn is_at_work(&self) -> bool {
        matches!(self.task, Task::Working(..))
    }
}

impl Cluster {
    fn holds(&mut self) -> (u32, [u64; SHARDS as usize]) {
        (self.bucket.current().0, self.bucket.shards().map(|truth| truth.records))
    }

    pub fn ask_for_savepoint(&mut self, name: &str, template: Option<&String>, due: Option<Timestamp>) {
        let (made, version, held) = (self.now, self.number(), self.holds());
        let (template, phase, takes_all, ends) = (template.cloned(), None, false, None);
        let new = Kept { template, due, made, phase, takes_all, ends, version, held, forgotten: 0 };
        self.objects.savepoints.entry(name.to_owned()).or_insert(new);
    }

    pub fn delete_savepoint(&mut self, name: &str) {
        let now = self.now;
        let kept = self.objects.savepoints.get_mut(name);
        kept.into_iter().for_each(|kept| kept.ends = kept.ends.or(Some(now)));
    }

    /// The path of a complete one.
    pub fn some_copy(&self, nth: u64) -> Option<String> {
        let complete = self.objects.savepoints.iter().filter_map(|(name, kept)| kept.path(name).filter(|_| kept.ends.is_none()));
        let all: Vec<String> = complete.collect();
        all.get(nth as usize % all.len().max(1)).cloned()
    }

    pub fn forget_savepoint(&mut self, nth: u64) {
        let (now, version, count) = (self.now, self.number(), self.objects.savepoints.len().max(1));
        if let Some(kept) = self.objects.savepoints.values_mut().nth(nth as usize % count) {
            (kept.phase, kept.version, kept.forgotten) = (None, version, now);
        }
    }

    pub fn lose_copier(&mut self) {
        self.objects.copiers.iter_mut().filter(|copier| copier.is_at_work()).for_each(|copier| copier.is_lost = true);
    }

    fn copy(&mut self, of: &str, step: &Step) {
        let (now, shards, timeline) = (self.now, *self.bucket.shards(), self.bucket.current().0);
        let copies = match step {
            Step::Copy(_) => (timeline, shards.map(|truth| truth.checkpoint.0)),
            _ => (timeline, shards.map(|truth| truth.records)),
        };
        if self.objects.copiers.iter().all(|copier| copier.of != of) && self.objects.savepoints.contains_key(of) {
            let (fails, finds) = (self.number().is_multiple_of(7), *step == Step::Find);
            let task = Task::Working(0, None);
            self.objects.copiers.push(Copier { of: of.to_owned(), task, born: now, copies, finds, fails, is_lost: false });
        }
    }

    /// A second in the lives of those who copy, and of savepoints.
    pub fn copy_on(&mut self) {
        let now = self.now;
        for copier in &mut self.objects.copiers {
            let path = path(&copier.of);
            match copier.task {
                Task::Working(..) if copier.is_lost => {
                    copier.task = if now > copier.born + 30 { Task::Lost } else { Task::Working(0, None) }
                }
                Task::Working(..) if now < copier.born + COPIES => {}
                Task::Working(..) if copier.fails && !copier.finds => copier.task = Task::Refused("a checkpoint is gone".into()),
                Task::Working(..) if copier.finds && !self.bucket.copies.contains_key(&path) => {
                    copier.task = Task::Refused("there is none".into());
                }
                Task::Working(..) => {
                    self.bucket.copies.entry(path).or_insert(copier.copies);
                    copier.task = Task::Done;
                }
                Task::Refused(_) | Task::Lost | Task::Done => {}
            }
        }
        let gone = |kept: &Kept| kept.ends.is_some_and(|ends| now > ends + GOES);
        for (name, _) in self.objects.savepoints.extract_if(.., |_, kept| gone(kept)) {
            self.bucket.copies.remove(&path(&name));
            self.objects.copiers.retain(|copier| copier.of != name);
        }
    }

    /// Of those that are due by schedule two are kept, and the one that the job is to go back to; and a job that works has a new one.
    pub fn off_schedule(&self) -> Option<String> {
        let spared = self.objects.rewind.as_ref().map(|rewind| &rewind.target);
        let due = || self.objects.savepoints.iter().filter(|(_, kept)| kept.due.is_some());
        let counts = |(name, kept): &(&String, &Kept)| kept.path(name).is_some_and(|path| spared != Some(&RewindTarget::Savepoint(path)));
        let kept = due().filter(counts).count();
        let newest = due().filter_map(|(_, kept)| kept.due).max();
        let is_old = newest.is_none_or(|newest| newest < time(self.now - EVERY - SOON));
        let is_off = kept > 2 || (self.objects.replicas > 0 && is_old);
        is_off.then(|| format!("{kept} savepoints by schedule are kept, the newest of {newest:?}"))
    }

    /// Every one that is due is due at another time, and none is begun while another one is under way.
    pub fn check_due(&self, due: Timestamp) -> Option<&str> {
        let others = || self.objects.savepoints.iter().filter(move |(_, kept)| kept.due.is_some_and(|other| other != due));
        let apart = |(_, kept): &(&String, &Kept)| kept.due.is_some_and(|other| other.as_second().abs_diff(due.as_second()) < EVERY);
        let settled = |kept: &Kept| self.now > kept.made.max(kept.forgotten) + UNSURE;
        let under_way = |(_, kept): &(&String, &Kept)| !kept.is_over() && kept.ends.is_none() && settled(kept);
        others().find(apart).or_else(|| others().find(under_way)).map(|(name, _)| name.as_str())
    }

    /// None goes on for longer than it may.
    pub fn check_savepoints(&self) {
        for (name, kept) in &self.objects.savepoints {
            let since = self.now - kept.made.max(kept.forgotten);
            let is_late = !kept.is_over() && kept.ends.is_none() && since > kept.deadline() + OVER_AFTER;
            assert!(!is_late, "savepoint {name} is not over after {since} s: {kept:?}, {:#?}", self.objects.copiers);
        }
    }
}

impl Life {
    /// A savepoint is made once for each time that it is due.
    pub fn check_due(&self, due: Timestamp, is_late: bool) {
        let other = self.cluster.check_due(due).filter(|_| !is_late);
        assert_eq!(other, None, "the one of {due} is asked for beside it: {:#?}", self.cluster.objects.savepoints);
    }

    /// What the job is to go back to is not deleted, unless that was asked for a moment ago; nor what is not over yet, unless its status was lost a moment ago.
    pub fn check_spared(&self, name: &str, is_late: bool) {
        let wanted = self.cluster.objects.rewind.as_ref().map(|rewind| &rewind.target);
        let is_wanted = wanted == Some(&RewindTarget::Savepoint(path(name)));
        let knows = !is_late && self.cluster.now > self.requests.asked + UNSURE;
        assert!(!is_wanted || !knows, "savepoint {name} is deleted, and the job is to go back to it");
        let kept = self.cluster.objects.savepoints.get(name).filter(|kept| !is_late && self.cluster.now > kept.forgotten + UNSURE);
        assert!(kept.is_none_or(Kept::is_over), "savepoint {name} is deleted before it is over: {kept:?}");
    }

    /// The operator looks at the savepoints.
    pub fn save(&mut self, is_calm: bool) {
        let view = &self.operator.view;
        let is_busy = |name: &String, kept: &Kept| !kept.is_over() || view.copiers.iter().any(|copier| copier.of == *name);
        let busy: Vec<(String, Kept)> =
            view.savepoints.iter().filter(|(_, kept)| kept.ends.is_none()).map(|(name, kept)| (name.clone(), kept.clone())).collect();
        let busy: Vec<_> = busy.into_iter().filter(|(name, kept)| is_busy(name, kept)).collect();
        for (name, kept) in busy {
            if is_calm || self.rng.once_in(2) {
                self.look_at_savepoint(&name, &kept, is_calm);
            }
        }
    }

    fn look_at_savepoint(&mut self, name: &str, kept: &Kept, is_calm: bool) {
        let now = self.cluster.now;
        let fleet = self.operator.look(&self.cluster);
        let copier = self.operator.view.copiers.iter().find(|copier| copier.of == name);
        let sight = Sight {
            phase: kept.phase,
            age: Duration::from_secs(now - kept.made),
            deadline: Duration::from_secs(kept.deadline()),
            is_waited_for: kept.template.is_some(),
            job: Some(fleet.clone()),
            pod: copier.map(|copier| copier.task.clone()),
            pod_age: copier.map_or(Duration::ZERO, |copier| Duration::from_secs(now - copier.born)),
            refused: None,
        };
        let (progress, next) = step(&sight);
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("{now} {name} {:?} {next:?} {progress:?} age {:?}", kept.phase, sight.age);
        }
        if !is_calm && self.rng.once_in(12) {
            return self.meet("a request is lost");
        }
        match &next {
            Step::Wait => {}
            Step::Checkpoint(pods) => pods.iter().for_each(|pod| self.cluster.take_checkpoints(&fleet, pod)),
            Step::Copy(_) | Step::CopyAtRest | Step::Find => {
                self.cluster.copy(name, &next);
                self.operator.view.copiers.clone_from(&self.cluster.objects.copiers);
            }
            Step::CleanUp | Step::DropLost => self.cluster.objects.copiers.retain(|copier| copier.of != name),
        }
        let after = match next {
            Step::Wait => "a savepoint is waited for",
            Step::Checkpoint(_) => "checkpoints are taken for a savepoint",
            Step::Copy(_) => "checkpoints are copied",
            Step::CopyAtRest => "a job at rest is copied",
            Step::Find => "a copy is looked for",
            Step::CleanUp => "a copier is deleted",
            Step::DropLost => "a copier is lost",
        };
        self.meet(after);
        if self.may_end(is_calm, after) {
            return;
        }
        let phase = progress.map(|progress| progress.phase).filter(|phase| kept.phase != Some(*phase));
        let is_written = is_calm || !self.rng.once_in(12);
        if let Some(phase) = phase.filter(|_| is_written) {
            self.write_savepoint(name, kept.version, phase);
        }
    }

    fn write_savepoint(&mut self, name: &str, seen: u64, phase: SavepointPhase) {
        let version = self.cluster.number();
        let copy = self.cluster.bucket.copies.get(&path(name)).copied();
        let Some(kept) = self.cluster.objects.savepoints.get_mut(name) else { return };
        if kept.version != seen {
            return self.meet("a status meets a newer one");
        }
        assert!(!kept.is_over(), "savepoint {name} was over, and is {phase:?}");
        let was = kept.phase;
        (kept.phase, kept.version) = (Some(phase), version);
        if phase == SavepointPhase::Completed {
            let (timeline, copied) = copy.unwrap_or_else(|| panic!("savepoint {name} is complete, and nothing is there"));
            let (of, held) = kept.held;
            let is_whole = timeline != of || copied.iter().zip(held).all(|(copied, held)| *copied >= held);
            assert!(is_whole, "savepoint {name} lacks what the job held: {copied:?} of {held:?}");
        }
        self.meet(becomes("a savepoint", was, &phase));
    }
}
