//! What there really is: objects in the API server, and processes in pods. It obeys like the real one: an object that is there already is not made again,
//! a pod that is asked to end takes its time, and a claim of a shard under a higher version bars whoever had it.

use forebay_crds::IngestionJob;

use super::history::{Attempting, Bucket, Shards, Truth};
use super::pod::{Doing, GOES};
use super::savepoints::{Copier, Kept};
use super::*;

/// What lies in the API server, as anybody may see it who asks.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub template: String,
    pub replicas: u32,
    pub pods: Vec<Pod>,
    pub configs: BTreeMap<String, Config>,
    /// By name.
    pub savepoints: BTreeMap<String, Kept>,
    pub copiers: Vec<Copier>,
    pub rewinders: Vec<Attempting>,
    /// With its status, and the version that each change of it has anew.
    pub job: IngestionJob,
    pub version: u64,
    pub rewind: Option<Rewind>,
    pub schedule: Option<Schedule>,
    /// The secret that pods start with, and whether it is there.
    pub secret: u64,
    pub has_secret: bool,
    pub postmen: Vec<(Postman, u64)>,
    pub has_all: [bool; 3],
    pub end: deletion::End,
}

/// Who sends a request, and what it knows.
pub(super) struct Sender {
    /// The version of the secret, as far as was seen.
    pub secret: u64,
    /// Whether it leads no more.
    pub is_late: bool,
    /// Whether it has seen the newest status.
    pub is_informed: bool,
}

/// All that there is.
pub(super) struct Cluster {
    pub now: u64,
    pub objects: Objects,
    pub qualities: BTreeMap<String, Quality>,
    pub bucket: Bucket,
    /// Those who rewind on nodes that nobody reaches, and have no object any more.
    pub ghosts: Vec<Attempting>,
    /// The timelines in which shards have run, and the rewinds that began them.
    pub worked: BTreeSet<(u32, String)>,
    /// Versions of the secret that nobody can start with.
    pub wrong_secrets: BTreeSet<u64>,
    next: u64,
    /// Until then a pod may have been made of which the operator does not know.
    pub unsure_until: u64,
    /// The most replicas that were wanted lately.
    pub replicas_lately: VecDeque<u32>,
    /// Since when a revision is known to be bad.
    pub bad_since: BTreeMap<String, u64>,
}

impl Cluster {
    pub fn new() -> Self {
        let replicas_lately = VecDeque::from([0; 60]);
        // A job with a past: dead letters of a minute are no large part of it.
        let shards: Shards = [Truth { records: 1_000_000, checkpoint: (1_000_000, 0), ..Truth::default() }; SHARDS as usize];
        Self {
            now: 1000,
            objects: Objects::new(),
            qualities: BTreeMap::new(),
            bucket: Bucket::new(shards),
            ghosts: Vec::new(),
            worked: BTreeSet::new(),
            wrong_secrets: BTreeSet::new(),
            next: 1,
            unsure_until: 0,
            replicas_lately,
            bad_since: BTreeMap::new(),
        }
    }

    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn quality(&self, template: &str) -> Quality {
        self.qualities[template]
    }

    /// Of a pod: with a wrong secret none works.
    pub fn quality_of(&self, pod: &Pod) -> Quality {
        self.quality(&pod.template).with(&self.wrong_secrets, pod.secret)
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
        self.rewind_on();
        self.copy_on();
        for (postman, _) in self.objects.postmen.iter_mut().filter(|(postman, done)| now >= *done && postman.task != Task::Lost) {
            postman.task = Task::Done;
        }
    }

    /// The lost nodes are given up by Kubernetes, and all that was on them is gone. Kubelets are at work again.
    pub fn remove_lost(&mut self) {
        self.objects.pods.retain(|pod| !pod.is_lost);
        self.objects.pods.iter_mut().for_each(|pod| pod.is_frozen = false);
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
    pub fn carry_out(&mut self, action: &Action, seen: &Fleet, by: &Sender) {
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
                    self.make(number, *slot, template, (seen, by));
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
            Action::ApplySavepoint => self.ask_for_savepoint(&format!("job-{}", seen.template), Some(&seen.template), None),
            Action::TakeSavepoint(due) => self.ask_for_savepoint(&format!("job-{}", due.as_second()), None, Some(*due)),
            Action::DoomSavepoint(name) => {
                let doomed = self.objects.savepoints.get_mut(name);
                doomed.into_iter().for_each(|kept| kept.takes_all = true);
            }
            Action::DeleteSavepoint(name) => self.delete_savepoint(name),
            Action::Rewind => self.rewind(seen, by.is_late),
            Action::DeleteRewinder(_) => self.delete_rewinder(now),
            Action::DropLost(pod) if pod == "job-rewind" => self.drop_rewinder(),
            Action::DropLost(pod) => self.objects.postmen.retain(|(postman, _)| postman.pod != *pod),
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
            Action::Checkpoint(pods) => pods.iter().for_each(|pod| self.take_checkpoints(seen, pod)),
        }
    }

    fn put_back(&mut self, template: &str) {
        if self.objects.postmen.iter().all(|(postman, _)| postman.template != template) {
            let (pod, template) = (format!("letters-{template}"), template.to_owned());
            self.objects.postmen.push((Postman { pod, template, task: Task::Working(0, None) }, self.now + 5));
        }
    }

    fn change(&mut self, template: &str, version: Option<String>, change: impl FnOnce(&mut Config)) {
        let number = self.number();
        let best = self.objects.configs.values().filter_map(|config| number_of(&config.standing)).max();
        if let Some(config) = self.objects.configs.get_mut(template).filter(|config| config.version == version) {
            let was = config.standing.clone();
            change(config);
            assert!(!matches!(was, Standing::Bad(_)) || config.standing == was, "{template} was {was:?}, and is {:?}", config.standing);
            let is_newest = config.standing == was || number_of(&config.standing).is_none_or(|number| Some(number) > best);
            assert!(is_newest, "{template} is {:?}, and another one is {best:?}", config.standing);
            config.version = Some(number.to_string());
            if matches!(config.standing, Standing::Bad(_)) {
                self.bad_since.entry(template.to_owned()).or_insert(self.now);
            }
        }
    }
}

impl Objects {
    fn new() -> Self {
        Self {
            template: String::new(),
            replicas: 0,
            pods: Vec::new(),
            configs: BTreeMap::new(),
            savepoints: BTreeMap::new(),
            copiers: Vec::new(),
            rewinders: Vec::new(),
            job: job(),
            version: 1,
            rewind: None,
            schedule: None,
            secret: 1,
            has_secret: true,
            postmen: Vec::new(),
            has_all: [false; 3],
            end: deletion::End::default(),
        }
    }

    /// What has become of the secret since a pod was made.
    pub fn secrets(&self, pod: &Pod) -> Secrets {
        let named = |is_so: bool| is_so.then(|| "kafka".to_owned()).into_iter().collect();
        Secrets { changed: named(!self.has_secret || pod.secret != self.secret), missing: named(!self.has_secret) }
    }
}

/// Its manifest says little: what plans are made from of it stands in [`Objects`].
fn job() -> IngestionJob {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
    forebay_crds::Manifest::parse(&std::fs::read_to_string(path).unwrap(), "job.yaml").unwrap().job
}

fn number_of(standing: &Standing) -> Option<u64> {
    if let Standing::Good(number) = standing { Some(*number) } else { None }
}

/// What is newly written down of a revision.
pub(super) fn config(standing: &Standing) -> Config {
    configs(&[("", standing.clone())]).remove("").expect("it was just made")
}
