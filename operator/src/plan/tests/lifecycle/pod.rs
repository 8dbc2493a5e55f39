//! Pods of workers, and the processes in them.

use forebay_api::v1::Books;

use super::cluster::{Cluster, Sender};
use super::history::Truth;
use super::*;

/// Seconds until a pod is up, and until one that ends is gone.
const COMES_UP: u64 = 4;
pub(super) const GOES: u64 = 3;
/// Seconds from a claim until the shard runs, and until one is released.
const CLAIMS: u64 = 2;
/// Between the checkpoints of a worker that nobody asks for any, and until one is taken.
const CHECKPOINTS: u64 = 40;
const TAKES: u64 = 2;
/// Between the looks for another history of a worker whose own one a rewind has ended.
const LOOKS: u64 = 5;

/// What a revision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quality {
    Good,
    /// Its process ends as soon as it has begun.
    Crashes,
    /// Its shards cannot go on.
    Stalls,
    /// All records become dead letters.
    Refuses,
}

impl Quality {
    pub fn with(self, wrong_secrets: &BTreeSet<u64>, secret: u64) -> Self {
        if wrong_secrets.contains(&secret) { Self::Crashes } else { self }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub uid: u64,
    pub slot: u32,
    pub template: String,
    pub born: u64,
    /// When it was asked to end.
    pub ends: Option<u64>,
    /// Its node is not heard of, and nothing that is asked of it happens.
    pub is_lost: bool,
    /// Its kubelet is not at work: it cannot be ended, and works on.
    pub is_frozen: bool,
    /// It answers nobody until then.
    pub deaf_until: u64,
    /// The version of the secret that was there when it was made, as far as was seen; and the rewind of which it was told that it has failed.
    pub secret: u64,
    given_up: Option<String>,
    /// The rewind of which the status said then that it has failed, and whoever made it knew that.
    knows: Option<String>,
    pub process: Process,
}

/// A worker. Its assignment lies on its volume, and all else is gone when it is started again.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub began: u64,
    pub restarts: u32,
    /// In which it started, and the rewind that began it; and those that were given up by then.
    pub timeline: Option<(u32, String)>,
    pub given_up_rewinds: Vec<String>,
    /// Whether a rewind has ended its history: from then on it looks for another one.
    pub has_met_a_rewind: bool,
    /// When its next checkpoints are taken.
    pub checkpoints: u64,
    pub assignment: Option<Assignment>,
    /// Since when it claims, runs or releases a shard.
    pub owned: BTreeMap<u32, (Doing, u64)>,
    pub given_up: BTreeMap<u32, u64>,
    pub prefetched: BTreeMap<u32, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Claims,
    Runs,
    Releases,
}

impl Cluster {
    /// A second in a pod's life.
    pub fn live(&mut self, number: usize) {
        let now = self.now;
        let pod = &mut self.objects.pods[number];
        let (uid, quality) = (pod.uid, self.qualities[&pod.template].with(&self.wrong_secrets, pod.secret));
        if quality == Quality::Crashes && pod.ends.is_none() && !pod.is_frozen && now >= pod.process.began + 10 {
            (pod.process.began, pod.process.restarts) = (now, pod.process.restarts + 1);
        }
        if !pod.is_up(now, quality) {
            return;
        }
        let (current, _) = self.bucket.current();
        if pod.was_rewound(current) && now.is_multiple_of(LOOKS) {
            return self.restart(number);
        }
        let process = &mut pod.process;
        if process.timeline.is_none() {
            self.bucket.gone_on.extend(pod.knows.clone());
            self.bucket.stay(pod.given_up.as_ref(), now);
            let (timeline, rewind) = self.bucket.current();
            (process.timeline, process.given_up_rewinds) = (Some((timeline, rewind.to_owned())), self.bucket.given_up());
        }
        let timeline = process.timeline.as_ref().map_or(0, |(timeline, _)| *timeline);
        let shards = self.bucket.journals.get_mut(&timeline).expect("each timeline has journals");
        let takes = now >= process.checkpoints;
        process.checkpoints = if takes { now + CHECKPOINTS } else { process.checkpoints };
        let assigned = |shard: u32| process.assignment.as_ref().is_some_and(|assignment| assignment.shards.contains(&shard));
        let (is_ending, version) =
            (pod.ends.is_some() && !pod.is_frozen, process.assignment.as_ref().map_or(0, |assignment| assignment.version));
        let mut claimed = Vec::new();
        for shard in 0..SHARDS {
            let wants = assigned(shard) && !is_ending && !process.given_up.contains_key(&shard);
            match process.owned.get(&shard).copied() {
                None if wants => drop(process.owned.insert(shard, (Doing::Claims, now))),
                Some((Doing::Claims, since)) if wants && now >= since + CLAIMS => claimed.push(shard),
                Some((Doing::Runs | Doing::Claims, _)) if !wants => drop(process.owned.insert(shard, (Doing::Releases, now))),
                Some((Doing::Releases, since)) if now > since => drop(process.owned.remove(&shard)),
                Some((Doing::Runs, _)) if quality != Quality::Stalls => {
                    let truth = &mut shards[shard as usize];
                    truth.checkpoint = if takes { (truth.records, now) } else { truth.checkpoint };
                    truth.records += 100;
                    truth.rejected += if quality == Quality::Refuses { 100 } else { 0 };
                }
                _ => {}
            }
        }
        claimed.into_iter().for_each(|shard| self.claim(number, (timeline, uid), shard, version));
    }

    /// The protocol in one step: the higher version wins, of equal ones neither.
    fn claim(&mut self, number: usize, (timeline, uid): (u32, u64), shard: u32, version: u64) {
        let truth = self.bucket.journals.get_mut(&timeline).map(|shards| &mut shards[shard as usize]).expect("each timeline has journals");
        let process = &mut self.objects.pods[number].process;
        if truth.owner != uid && truth.version >= version {
            process.owned.remove(&shard);
            process.has_met_a_rewind |= truth.owner == 0;
            process.given_up.insert(shard, truth.version);
            return;
        }
        process.owned.insert(shard, (Doing::Runs, self.now));
        *truth = Truth { version, owner: uid, at_start: (truth.records, truth.rejected), ..*truth };
        self.worked.extend(process.timeline.clone());
        let others = self.objects.pods.iter_mut().filter(|pod| pod.uid != uid && pod.is_of(timeline));
        others.for_each(|pod| pod.lose(shard, version));
    }

    /// A container ends, and is started again.
    pub fn restart(&mut self, number: usize) {
        let now = self.now;
        let process = &mut self.objects.pods[number].process;
        *process = Process { began: now, restarts: process.restarts + 1, assignment: process.assignment.take(), ..Process::default() };
    }

    /// What a worker answers that is asked now.
    pub fn answer(&self, uid: u64) -> Option<Description> {
        let pod = self.objects.pods.iter().find(|pod| pod.uid == uid && !pod.is_lost && self.now >= pod.deaf_until)?;
        let quality = self.quality_of(pod);
        let process = pod.is_up(self.now, quality).then_some(&pod.process)?;
        let owned = process.owned.iter().map(|(shard, (doing, since))| self.described(pod, *shard, *doing, *since, quality)).collect();
        let given_up = process.given_up.iter().map(|(shard, version)| GivenUp { shard: *shard, version: *version, ..GivenUp::default() });
        let prefetched = process.prefetched.iter().map(|(shard, since)| prefetched(*shard, self.now > since + 1, "")).collect();
        let (assignment, given_up) = (process.assignment.clone(), given_up.collect());
        Some(Description {
            job: "job".into(),
            shards: SHARDS,
            assignment,
            owned,
            given_up,
            can_prefetch: true,
            prefetched,
            rewinds_given_up: process.given_up_rewinds.clone(),
            timeline: process.timeline.as_ref().map_or(0, |(timeline, _)| *timeline),
            rewind: process.timeline.as_ref().map_or(String::new(), |(_, rewind)| rewind.clone()),
            ..Description::default()
        })
    }

    fn described(&self, pod: &Pod, shard: u32, doing: Doing, since: u64, quality: Quality) -> Shard {
        let timeline = pod.process.timeline.as_ref().map_or(0, |(timeline, _)| *timeline);
        let truth = self.bucket.journals[&timeline][shard as usize];
        let books = |(records_in, rejected)| Some(Books { records_in, rejected, ..Books::default() });
        let all = Shard { shard, books: books((truth.records, truth.rejected)), ..Shard::default() };
        match doing {
            Doing::Claims => Shard { phase: "claiming".into(), ..all },
            Doing::Releases => Shard { phase: "releasing".into(), ..all },
            Doing::Runs if quality == Quality::Stalls => Shard { phase: "stalled".into(), stalled: true, failure: "a gap".into(), ..all },
            Doing::Runs => {
                let running_millis = Some((self.now - since) * 1000);
                let (epoch, (saved, taken)) = (truth.records / 100, truth.checkpoint);
                let (checkpoint_epoch, checkpoint_taken_millis) = (saved / 100, Some((self.now - taken) * 1000));
                let books_at_start = books(truth.at_start);
                Shard { phase: "running".into(), running_millis, books_at_start, epoch, checkpoint_epoch, checkpoint_taken_millis, ..all }
            }
        }
    }

    /// They are taken soon.
    pub fn take_checkpoints(&mut self, seen: &Fleet, pod: &str) {
        let then = self.now + TAKES;
        self.tell(seen, pod, |process| process.checkpoints = process.checkpoints.min(then));
    }

    pub fn make(&mut self, uid: u64, slot: u32, template: &str, (seen, by): (&Fleet, &Sender)) {
        let given_up = seen.failed_rewind().map(str::to_owned);
        let status = self.objects.job.status.as_ref().and_then(|status| status.rewind.as_ref());
        let asked = self.objects.rewind.as_ref().map(|rewind| &rewind.id);
        let failed = status.filter(|said| by.is_informed && said.phase == RewindPhase::Failed && Some(&said.id) == asked);
        let knows = failed.map(|said| said.id.clone());
        let process = Process { began: self.now, ..Process::default() };
        let (born, template) = (self.now, template.to_owned());
        self.objects.pods.push(Pod {
            uid,
            slot,
            template,
            born,
            ends: None,
            is_lost: false,
            is_frozen: false,
            deaf_until: 0,
            secret: by.secret,
            given_up,
            knows,
            process,
        });
    }

    /// By the uid of the pod that was seen under this name, and only if it hears.
    pub fn tell(&mut self, seen: &Fleet, pod: &str, change: impl FnOnce(&mut Process)) {
        let uid = seen.workers.iter().find(|worker| worker.pod == pod).map(|worker| worker.uid.clone());
        let (now, qualities, wrong) = (self.now, &self.qualities, &self.wrong_secrets);
        let hears =
            |pod: &&mut Pod| !pod.is_lost && now >= pod.deaf_until && pod.is_up(now, qualities[&pod.template].with(wrong, pod.secret));
        let told = self.objects.pods.iter_mut().find(|pod| Some(pod.uid.to_string()) == uid).filter(hears);
        if let Some(pod) = told {
            change(&mut pod.process);
        }
    }
}

impl Pod {
    fn is_up(&self, now: u64, quality: Quality) -> bool {
        quality != Quality::Crashes && now >= self.process.began + COMES_UP
    }

    /// As Kubernetes has it and the worker answers.
    pub fn seen(&self, now: u64, quality: Quality, answer: Answer, secrets: Secrets) -> Worker {
        let is_up = self.is_up(now, quality);
        let state = match (self.ends, is_up && !self.is_lost) {
            (Some(ends), _) if now > ends + GOES + 5 => PodState::Stuck,
            (Some(_), _) => PodState::Ending,
            (None, true) => PodState::Ready,
            (None, false) => PodState::Starting,
        };
        let trouble = (quality == Quality::Crashes && self.process.restarts > 0)
            .then(|| Trouble { reason: "Error".into(), message: "it ended with exit code 1".into() });
        Worker {
            uid: self.uid.to_string(),
            age: Duration::from_secs(now - self.born),
            was_ready: is_up,
            restarts: self.process.restarts,
            trouble,
            secrets,
            ..of(&self.template, worker(self.slot, state, answer))
        }
    }

    pub fn runs_something(&self) -> bool {
        self.process.owned.values().any(|(doing, _)| *doing == Doing::Runs)
    }

    /// Of those who work on a timeline.
    pub fn is_of(&self, timeline: u32) -> bool {
        self.process.timeline.as_ref().is_some_and(|(its, _)| *its == timeline)
    }

    /// Whether it has lost a shard to a rewind, and the job is elsewhere now.
    fn was_rewound(&self, current: u32) -> bool {
        let is_elsewhere = self.process.timeline.as_ref().is_some_and(|(its, _)| *its != current);
        is_elsewhere && self.process.has_met_a_rewind
    }

    /// Somebody has barred it, with this version.
    pub fn lose(&mut self, shard: u32, version: u64) {
        if self.process.owned.get(&shard).is_some_and(|(doing, _)| *doing != Doing::Claims) {
            self.process.owned.remove(&shard);
            self.process.given_up.insert(shard, version);
        }
    }

    /// Somebody has barred it, and ended the history that it works on.
    pub fn lose_all(&mut self, version: u64) {
        self.process.has_met_a_rewind |= self.runs_something();
        (0..SHARDS).for_each(|shard| self.lose(shard, version));
    }

    pub fn is_live(&self) -> bool {
        self.ends.is_none() && !self.is_lost
    }
}
