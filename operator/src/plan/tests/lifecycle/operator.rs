//! One process of the operator: what its watches have told it, what it has heard, and what is left of its plan. All that is gone when it ends.

use super::*;

pub(super) struct Operator {
    pub view: Objects,
    /// When each pod was first asked, and when and what it answered last.
    heard: BTreeMap<u64, (u64, Option<(u64, Description)>)>,
    /// The pods that it has made, and when: it knows of them before its watch does.
    pub made: Vec<(u64, Pod)>,
    /// What is left of its plan, and what it was made from.
    pub plan: VecDeque<Action>,
    pub seen: Fleet,
    /// What it will say of the job then, and which version of that this is about.
    pub report: Option<(u64, IngestionJobStatus)>,
    began: Instant,
    lags: Lags,
}

impl Operator {
    /// It lists all there is before it begins.
    pub fn new(cluster: &Cluster) -> Self {
        let began = Instant::now();
        Self {
            view: cluster.objects.clone(),
            heard: BTreeMap::new(),
            made: Vec::new(),
            plan: VecDeque::new(),
            seen: fleet(0, Vec::new()),
            report: None,
            began,
            lags: Lags::since(began),
        }
    }

    /// The pods that its watch has told of, and those that it has made since.
    pub fn pods(&mut self, now: u64) -> Vec<Pod> {
        self.made.retain(|(at, made)| now < at + 60 && self.view.pods.iter().all(|pod| pod.uid != made.uid));
        self.view.pods.iter().chain(self.made.iter().map(|(_, pod)| pod)).cloned().collect()
    }

    /// It knows of a pod that does one thing, too, once the API server has taken it.
    pub fn note_made(&mut self, action: &Action, truth: &Objects) {
        match action {
            Action::Rewind => self.view.rewinders.clone_from(&truth.rewinders),
            Action::PutBack { .. } => self.view.postmen.clone_from(&truth.postmen),
            _ => {}
        }
    }

    pub fn look(&mut self, cluster: &Cluster) -> Fleet {
        let now = cluster.now;
        let pods = self.pods(now);
        let seen = |pod: &Pod, answer| pod.seen(now, cluster.quality_of(pod), answer, self.view.secrets(pod));
        let answers: Vec<Answer> = pods.iter().map(|pod| ask(&mut self.heard, cluster, pod.uid)).collect();
        let workers = pods.iter().zip(answers).map(|(pod, answer)| seen(pod, answer)).collect();
        let view = &self.view;
        let with_results =
            |(template, config): (&String, &Config)| (template.clone(), Config { results: Some(template.clone()), ..config.clone() });
        let [has_service, has_budget, has_policy] = view.has_all;
        let all = &view.savepoints;
        let before_change = |(name, kept): (&String, &Kept)| Some((kept.template.clone()?, kept.saved(name)));
        let mut fleet = Fleet {
            template: view.template.clone(),
            configs: view.configs.iter().map(with_results).collect(),
            savepoints: all.iter().filter_map(before_change).collect(),
            calendar: Calendar {
                schedule: view.schedule.clone(),
                now: time(now),
                made: time(1000),
                taken: all.iter().filter_map(|(name, kept)| kept.taken(name)).collect(),
            },
            rewind: Sight {
                asked: view.rewind.as_ref().map(|rewind| Asked::of(rewind, &view.job, time(now))),
                pods: view.rewinders.iter().map(|pod| pod.told.clone()).collect(),
            },
            postmen: view.postmen.iter().map(|(postman, _)| postman.clone()).collect(),
            stops_for: report::stops_for(&view.job, time(now)),
            has_service,
            has_budget,
            has_policy,
            ..fleet(view.replicas, workers)
        };
        if fleet.is_rewinding() {
            fleet.replicas = 0;
        }
        self.lags.follow(&mut fleet, self.began + Duration::from_secs(now));
        fleet
    }

    /// What it would say of the job.
    pub fn status(&self, fleet: &Fleet, now: u64) -> IngestionJobStatus {
        let seen = Seen { fleet: fleet.clone(), selector: "job=job".into(), revisions: BTreeMap::new() };
        report::status(&self.view.job, &Verdict::of(&seen), Some(&seen), time(now))
    }

    /// Watches tell what has happened, each in its own time.
    pub fn watch(&mut self, truth: &Objects, mut comes: impl FnMut() -> bool) {
        let view = &mut self.view;
        if comes() {
            (view.template, view.replicas) = (truth.template.clone(), truth.replicas);
            view.end.deleted = truth.end.deleted;
            if view.version != truth.version {
                (view.job, view.version) = (truth.job.clone(), truth.version);
                (view.rewind, view.schedule) = (truth.rewind.clone(), truth.schedule.clone());
            }
        }
        if comes() {
            view.pods.clone_from(&truth.pods);
            (view.rewinders, view.copiers) = (truth.rewinders.clone(), truth.copiers.clone());
            (view.postmen, view.end.cleaner) = (truth.postmen.clone(), truth.end.cleaner.clone());
        }
        if comes() {
            view.configs.clone_from(&truth.configs);
        }
        if comes() {
            view.savepoints.clone_from(&truth.savepoints);
        }
        if comes() {
            (view.secret, view.has_secret) = (truth.secret, truth.has_secret);
        }
        if comes() {
            view.has_all = truth.has_all;
        }
    }
}

fn ask(heard: &mut BTreeMap<u64, (u64, Option<(u64, Description)>)>, cluster: &Cluster, uid: u64) -> Answer {
    let (since, last) = heard.entry(uid).or_insert((cluster.now, None));
    if let Some(said) = cluster.answer(uid) {
        *last = Some((cluster.now, said.clone()));
        return Answer::Heard(said);
    }
    match last {
        Some((at, said)) => Answer::Silent(Duration::from_secs(cluster.now - *at), said.clone()),
        None => Answer::Unheard(Duration::from_secs(cluster.now - *since)),
    }
}
