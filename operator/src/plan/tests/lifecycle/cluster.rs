//! What there really is: objects in the API server, and processes in pods. It obeys like the real one: an object that is there already is not made again,
//! a pod that is asked to end takes its time, and a claim of a shard under a higher version bars whoever had it.

use forebay_api::v1::Books;

use super::*;

/// Seconds until a pod is up, and until one that ends is gone.
const COMES_UP: u64 = 4;
const GOES: u64 = 3;
/// Seconds from a claim until the shard runs, and until one is released.
const CLAIMS: u64 = 2;

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

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub uid: u64,
    pub slot: u32,
    pub template: String,
    born: u64,
    /// When it was asked to end.
    pub ends: Option<u64>,
    /// Its node is not heard of, and nothing that is asked of it happens.
    pub is_lost: bool,
    /// Its kubelet is not at work: it cannot be ended, and works on.
    pub is_frozen: bool,
    /// It answers nobody until then.
    pub deaf_until: u64,
    process: Process,
}

/// A worker. Its assignment lies on its volume, and all else is gone when it is started again.
#[derive(Clone, Debug, Default)]
struct Process {
    began: u64,
    restarts: u32,
    assignment: Option<Assignment>,
    /// Since when it claims, runs or releases a shard.
    owned: BTreeMap<u32, (Doing, u64)>,
    given_up: BTreeMap<u32, u64>,
    prefetched: BTreeMap<u32, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Claims,
    Runs,
    Releases,
}

/// Who has a shard, and what has become of its records.
#[derive(Clone, Copy, Debug, Default)]
struct Truth {
    version: u64,
    owner: u64,
    records: u64,
    rejected: u64,
    /// The two when its owner began.
    at_start: (u64, u64),
}

/// What lies in the API server, as anybody may see it who asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    pub template: String,
    pub replicas: u32,
    pub pods: Vec<Pod>,
    pub configs: BTreeMap<String, Config>,
    /// With the time at which it is done, and whether it fails.
    pub savepoints: BTreeMap<String, (Saved, u64, bool)>,
    pub postmen: Vec<(Postman, u64)>,
    pub has_all: [bool; 3],
    pub end: deletion::End,
}

/// All that there is.
pub(super) struct Cluster {
    pub now: u64,
    pub objects: Objects,
    pub qualities: BTreeMap<String, Quality>,
    shards: [Truth; SHARDS as usize],
    next: u64,
    /// The most replicas that were wanted lately.
    pub replicas_lately: VecDeque<u32>,
    /// Since when a revision is known to be bad.
    pub bad_since: BTreeMap<String, u64>,
}

impl Cluster {
    pub fn new() -> Self {
        let replicas_lately = VecDeque::from([0; 60]);
        // A job with a past: dead letters of a minute are no large part of it.
        let shards = [Truth { records: 1_000_000, ..Truth::default() }; SHARDS as usize];
        let (objects, qualities) = (Objects::default(), BTreeMap::new());
        Self { now: 1000, objects, qualities, shards, next: 1, replicas_lately, bad_since: BTreeMap::new() }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn quality(&self, template: &str) -> Quality {
        self.qualities[template]
    }

    /// A second passes.
    pub fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        self.replicas_lately.pop_front();
        self.replicas_lately.push_back(self.objects.replicas);
        self.objects.pods.retain(|pod| pod.is_lost || pod.is_frozen || pod.ends.is_none_or(|ends| now < ends + GOES));
        for number in 0..self.objects.pods.len() {
            if !self.objects.pods[number].is_lost {
                self.live(number);
            }
        }
        for (saved, done, fails) in self.objects.savepoints.values_mut().filter(|(saved, ..)| saved.phase.is_none()) {
            if now >= *done {
                saved.phase = Some(if *fails { SavepointPhase::Failed } else { SavepointPhase::Completed });
            }
        }
        for (postman, _) in self.objects.postmen.iter_mut().filter(|(_, done)| now >= *done) {
            postman.task = Task::Done;
        }
    }

    /// A second in a pod's life.
    fn live(&mut self, number: usize) {
        let now = self.now;
        let pod = &mut self.objects.pods[number];
        let (uid, quality) = (pod.uid, self.qualities[&pod.template]);
        if quality == Quality::Crashes && pod.ends.is_none() && !pod.is_frozen && now >= pod.process.began + 10 {
            (pod.process.began, pod.process.restarts) = (now, pod.process.restarts + 1);
        }
        if !pod.is_up(now, quality) {
            return;
        }
        let process = &mut pod.process;
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
                    let truth = &mut self.shards[shard as usize];
                    truth.records += 100;
                    truth.rejected += if quality == Quality::Refuses { 100 } else { 0 };
                }
                _ => {}
            }
        }
        claimed.into_iter().for_each(|shard| self.claim(number, uid, shard, version));
    }

    /// The protocol in one step: the higher version wins, of equal ones neither.
    fn claim(&mut self, number: usize, uid: u64, shard: u32, version: u64) {
        let truth = self.shards[shard as usize];
        let process = &mut self.objects.pods[number].process;
        if truth.owner != uid && truth.version >= version {
            process.owned.remove(&shard);
            process.given_up.insert(shard, truth.version);
            return;
        }
        process.owned.insert(shard, (Doing::Runs, self.now));
        self.shards[shard as usize] = Truth { version, owner: uid, at_start: (truth.records, truth.rejected), ..truth };
        for pod in self.objects.pods.iter_mut().filter(|pod| pod.uid != uid) {
            if pod.process.owned.get(&shard).is_some_and(|(doing, _)| *doing != Doing::Claims) {
                pod.process.owned.remove(&shard);
                pod.process.given_up.insert(shard, version);
            }
        }
    }

    /// A container ends, and is started again.
    pub fn restart(&mut self, number: usize) {
        let now = self.now;
        let process = &mut self.objects.pods[number].process;
        *process = Process { began: now, restarts: process.restarts + 1, assignment: process.assignment.take(), ..Process::default() };
    }

    /// The lost nodes are given up by Kubernetes, and all that was on them is gone. Kubelets are at work again.
    pub fn remove_lost(&mut self) {
        self.objects.pods.retain(|pod| !pod.is_lost);
        self.objects.pods.iter_mut().for_each(|pod| pod.is_frozen = false);
    }

    /// What a worker answers that is asked now.
    pub fn answer(&self, uid: u64) -> Option<Description> {
        let pod = self.objects.pods.iter().find(|pod| pod.uid == uid && !pod.is_lost && self.now >= pod.deaf_until)?;
        let quality = self.quality(&pod.template);
        let process = pod.is_up(self.now, quality).then_some(&pod.process)?;
        let owned = process.owned.iter().map(|(shard, (doing, since))| self.described(*shard, *doing, *since, quality)).collect();
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
            ..Description::default()
        })
    }

    fn described(&self, shard: u32, doing: Doing, since: u64, quality: Quality) -> Shard {
        let truth = self.shards[shard as usize];
        let books = |(records_in, rejected)| Some(Books { records_in, rejected, ..Books::default() });
        let all = Shard { shard, books: books((truth.records, truth.rejected)), ..Shard::default() };
        match doing {
            Doing::Claims => Shard { phase: "claiming".into(), ..all },
            Doing::Releases => Shard { phase: "releasing".into(), ..all },
            Doing::Runs if quality == Quality::Stalls => Shard { phase: "stalled".into(), stalled: true, failure: "a gap".into(), ..all },
            Doing::Runs => {
                let running_millis = Some((self.now - since) * 1000);
                Shard { phase: "running".into(), running_millis, books_at_start: books(truth.at_start), ..all }
            }
        }
    }

    /// The shards that run, and by how many.
    pub fn running(&self) -> BTreeMap<u32, usize> {
        let mut running = BTreeMap::new();
        let pods = self.objects.pods.iter().filter(|pod| !pod.is_lost);
        for (shard, (doing, _)) in pods.flat_map(|pod| &pod.process.owned) {
            *running.entry(*shard).or_default() += usize::from(*doing == Doing::Runs);
        }
        running
    }

    /// A request arrives, from an operator that had seen `seen`. What is not as it was then is refused, as by the API server.
    pub fn carry_out(&mut self, action: &Action, seen: &Fleet, fails: bool) {
        let (now, number) = (self.now, self.number());
        let version_of = |template: &str| seen.configs.get(template).and_then(|config| config.version.clone());
        match action {
            Action::ApplyService => self.objects.has_all[0] = true,
            Action::ApplyBudget => self.objects.has_all[1] = true,
            Action::ApplyPolicy => self.objects.has_all[2] = true,
            Action::ApplyConfig => {
                let new = Config { version: Some(number.to_string()), ..config(&Standing::Untried) };
                self.objects.configs.entry(seen.template.clone()).or_insert(new);
            }
            Action::ApplyPod { slot, template } => {
                let has_revision = *template == seen.template || seen.configs.contains_key(template);
                if has_revision && self.objects.pods.iter().all(|pod| pod.slot != *slot) {
                    self.make(number, *slot, template);
                }
            }
            Action::DeletePod { uid, .. } => {
                let pod = self.objects.pods.iter_mut().find(|pod| pod.uid.to_string() == *uid);
                pod.into_iter().for_each(|pod| pod.ends = pod.ends.or(Some(now)));
            }
            Action::DeleteConfig(template) => {
                // One that comes again is a new one.
                self.objects.configs.remove(template);
                self.bad_since.remove(template);
            }
            Action::Mark { template, standing, has_letters } => self.change(template, version_of(template), |config| {
                if *standing != Standing::Proven {
                    config.letters = if *has_letters { Letters::Due } else { Letters::None };
                }
                config.standing = standing.clone();
            }),
            Action::MarkLetters { template, letters } => {
                self.change(template, version_of(template), |config| config.letters = *letters);
            }
            Action::ApplySavepoint => {
                let saved = Saved { phase: None, ..saved(&seen.template, SavepointPhase::Completed) };
                self.objects.savepoints.entry(seen.template.clone()).or_insert((saved, now + 5, fails));
            }
            Action::DoomSavepoint(name) => {
                let doomed = self.objects.savepoints.values_mut().find(|(saved, ..)| saved.name == *name);
                doomed.into_iter().for_each(|(saved, ..)| saved.takes_all = true);
            }
            Action::DeleteSavepoint(name) => self.objects.savepoints.retain(|_, (saved, ..)| saved.name != *name),
            Action::PutBack { template, .. } => self.put_back(template),
            Action::DeletePostman(pod) => self.objects.postmen.retain(|(postman, _)| postman.pod != *pod),
            Action::Prefetch { pod, shards } => self.tell(seen, pod, |process| {
                process.prefetched.retain(|shard, _| shards.contains(shard));
                for shard in shards {
                    process.prefetched.entry(*shard).or_insert(now);
                }
            }),
            Action::Assign { pod, version, shards } => self.tell(seen, pod, |process| {
                if process.assignment.as_ref().is_none_or(|assignment| assignment.version < *version) {
                    let shards = shards.iter().copied().collect();
                    process.assignment = Some(Assignment { job: "job".into(), version: *version, shards });
                    process.given_up.clear();
                    process.prefetched.clear();
                }
            }),
            Action::Checkpoint(_) => {}
            Action::TakeSavepoint(_) | Action::Rewind | Action::DropLost(_) | Action::DeleteRewinder(_) => {
                panic!("{action:?} was not called for")
            }
        }
    }

    fn make(&mut self, uid: u64, slot: u32, template: &str) {
        let process = Process { began: self.now, ..Process::default() };
        let (born, template) = (self.now, template.to_owned());
        self.objects.pods.push(Pod { uid, slot, template, born, ends: None, is_lost: false, is_frozen: false, deaf_until: 0, process });
    }

    fn put_back(&mut self, template: &str) {
        if self.objects.postmen.iter().all(|(postman, _)| postman.template != template) {
            let (pod, template) = (format!("letters-{template}"), template.to_owned());
            self.objects.postmen.push((Postman { pod, template, task: Task::Working(0, None) }, self.now + 5));
        }
    }

    fn change(&mut self, template: &str, version: Option<String>, change: impl FnOnce(&mut Config)) {
        let number = self.number();
        if let Some(config) = self.objects.configs.get_mut(template).filter(|config| config.version == version) {
            change(config);
            config.version = Some(number.to_string());
            if matches!(config.standing, Standing::Bad(_)) {
                self.bad_since.entry(template.to_owned()).or_insert(self.now);
            }
        }
    }

    /// By the uid of the pod that was seen under this name, and only if it hears.
    fn tell(&mut self, seen: &Fleet, pod: &str, change: impl FnOnce(&mut Process)) {
        let uid = seen.workers.iter().find(|worker| worker.pod == pod).map(|worker| worker.uid.clone());
        let (now, qualities) = (self.now, &self.qualities);
        let hears = |pod: &&mut Pod| !pod.is_lost && now >= pod.deaf_until && pod.is_up(now, qualities[&pod.template]);
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
    pub fn seen(&self, now: u64, quality: Quality, answer: Answer) -> Worker {
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
            ..of(&self.template, worker(self.slot, state, answer))
        }
    }

    pub fn runs_something(&self) -> bool {
        self.process.owned.values().any(|(doing, _)| *doing == Doing::Runs)
    }

    pub fn is_live(&self) -> bool {
        self.ends.is_none() && !self.is_lost
    }
}

/// What is newly written down of a revision.
pub(super) fn config(standing: &Standing) -> Config {
    configs(&[("", standing.clone())]).remove("").expect("it was just made")
}
