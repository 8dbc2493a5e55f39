//! Method: the whole life of a job in a cluster of which the operator sees a part, late: watches lag, requests and replies get lost, one that was sent arrives after
//! its operator has ended, workers do not answer, containers end, nodes are lost; and the manifest changes whenever it likes, to revisions that work and that do
//! not. What must hold at every moment is checked at every second. Then nothing goes wrong any more, and the job must come to where its manifest wants it.

use std::collections::VecDeque;
use std::time::Instant;

use super::*;
use crate::observe::lags::Lags;
use cluster::{Cluster, Objects, Pod, Quality};

mod cluster;
mod deletion;

/// `LIFECYCLE_SEED=17` replays one and prints what was done.
const SEEDS: u64 = 200;
/// Seconds in which things go wrong, and seconds by whose end all must be well: a change has ten minutes, and each worker that follows as many.
const TROUBLED: u64 = 900;
const CALM: u64 = 6_000;
/// A pod that cannot be ended has no shards any more so long after it was asked to: as it does not answer for 40 seconds, and requests are lost.
const OVERDUE: u64 = 120;
/// By then a watch has told of what was made, all but certainly.
const UNSURE: u64 = 20;
/// So long a job must be left alone at the end.
const REST: u64 = 90;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A process of the operator. What it knows is gone when it ends.
struct Operator {
    view: Objects,
    /// When each pod was first asked, and when and what it answered last.
    heard: BTreeMap<u64, (u64, Option<(u64, Description)>)>,
    /// The pods that it has made, and when: it knows of them before its watch does.
    made: Vec<(u64, Pod)>,
    /// What is left of its plan, and what it was made from.
    plan: VecDeque<Action>,
    seen: Fleet,
    began: Instant,
    lags: Lags,
}

impl Operator {
    /// It lists all there is before it begins.
    fn new(cluster: &Cluster) -> Self {
        let began = Instant::now();
        Self {
            view: cluster.objects.clone(),
            heard: BTreeMap::new(),
            made: Vec::new(),
            plan: VecDeque::new(),
            seen: fleet(0, Vec::new()),
            began,
            lags: Lags::since(began),
        }
    }

    /// The pods that its watch has told of, and those that it has made since.
    fn pods(&mut self, now: u64) -> Vec<Pod> {
        self.made.retain(|(at, made)| now < at + 60 && self.view.pods.iter().all(|pod| pod.uid != made.uid));
        self.view.pods.iter().chain(self.made.iter().map(|(_, pod)| pod)).cloned().collect()
    }

    fn look(&mut self, cluster: &Cluster) -> Fleet {
        let now = cluster.now;
        let pods = self.pods(now);
        let workers = pods.iter().map(|pod| pod.seen(now, cluster.quality(&pod.template), self.ask(cluster, pod.uid))).collect();
        let view = &self.view;
        let with_results =
            |(template, config): (&String, &Config)| (template.clone(), Config { results: Some(template.clone()), ..config.clone() });
        let [has_service, has_budget, has_policy] = view.has_all;
        let configs = view.configs.iter().map(with_results).collect();
        let savepoints = view.savepoints.iter().map(|(template, (saved, ..))| (template.clone(), saved.clone())).collect();
        let postmen = view.postmen.iter().map(|(postman, _)| postman.clone()).collect();
        let template = view.template.clone();
        let mut fleet =
            Fleet { template, configs, savepoints, postmen, has_service, has_budget, has_policy, ..fleet(view.replicas, workers) };
        self.lags.follow(&mut fleet, self.began + Duration::from_secs(now));
        fleet
    }

    fn ask(&mut self, cluster: &Cluster, uid: u64) -> Answer {
        let (since, last) = self.heard.entry(uid).or_insert((cluster.now, None));
        if let Some(said) = cluster.answer(uid) {
            *last = Some((cluster.now, said.clone()));
            return Answer::Heard(said);
        }
        match last {
            Some((at, said)) => Answer::Silent(Duration::from_secs(cluster.now - *at), said.clone()),
            None => Answer::Unheard(Duration::from_secs(cluster.now - *since)),
        }
    }
}

/// What the runs met: one that meets nothing proves nothing.
#[derive(Debug, Default)]
struct Met(BTreeMap<&'static str, u64>);

struct Life {
    rng: Rng,
    cluster: Cluster,
    operator: Operator,
    /// Requests that were sent by an operator that has ended since.
    late: Vec<(Action, Fleet)>,
    /// Revisions that refuse everything, and were proven beside one that does so too: they are no worse.
    no_worse: BTreeSet<String>,
    /// Until then a pod may have been made of which the operator does not know.
    unsure_until: u64,
    /// The pods that were made by such requests.
    late_pods: BTreeSet<u64>,
    revisions: u64,
    met: Met,
}

impl Life {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::new();
        let operator = Operator::new(&cluster);
        let mut life = Self {
            rng: Rng(seed),
            cluster,
            operator,
            late: Vec::new(),
            late_pods: BTreeSet::new(),
            no_worse: BTreeSet::new(),
            unsure_until: 0,
            revisions: 0,
            met: Met::default(),
        };
        life.change_manifest_to(Quality::Good);
        life.cluster.objects.replicas = 1 + life.rng.below(3) as u32;
        life
    }

    fn meet(&mut self, what: &'static str) {
        *self.met.0.entry(what).or_default() += 1;
    }

    /// A new revision, or one that was there before.
    fn change_manifest(&mut self) {
        if self.revisions > 0 && self.rng.once_in(4) {
            self.cluster.objects.template = format!("t{}", 1 + self.rng.below(self.revisions));
            return;
        }
        let qualities = [Quality::Good, Quality::Good, Quality::Crashes, Quality::Stalls, Quality::Refuses];
        let quality = qualities[self.rng.below(5) as usize];
        self.change_manifest_to(quality);
    }

    fn change_manifest_to(&mut self, quality: Quality) {
        self.revisions += 1;
        let template = format!("t{}", self.revisions);
        self.cluster.qualities.insert(template.clone(), quality);
        self.cluster.objects.template = template;
    }

    /// A job that has only ever had revisions that do not work gets one that does: where it should come to otherwise nobody can say.
    fn leave_something_that_works(&mut self) {
        let seen = Operator::new(&self.cluster).look(&self.cluster);
        if self.cluster.quality(Rollout::of(&seen).in_force()) != Quality::Good {
            self.change_manifest_to(Quality::Good);
        }
    }

    fn go_wrong(&mut self) {
        let pods = self.cluster.objects.pods.len() as u64;
        let some = (pods > 0).then(|| self.rng.below(pods) as usize);
        match (self.rng.below(6), some) {
            (0, _) => {
                self.meet("an operator ends");
                if let Some(action) = self.operator.plan.pop_front().filter(|_| self.rng.once_in(2)) {
                    self.late.push((action, self.operator.seen.clone()));
                }
                self.operator = Operator::new(&self.cluster);
            }
            (1, Some(pod)) => self.cluster.objects.pods[pod].deaf_until = self.cluster.now + self.rng.below(40),
            (2, Some(pod)) if !self.cluster.objects.pods[pod].is_frozen => self.cluster.restart(pod),
            (3, Some(pod)) if self.rng.once_in(2) => {
                self.meet("a node is lost");
                self.cluster.objects.pods[pod].is_lost = true;
            }
            (3, Some(pod)) => {
                self.meet("a kubelet stops");
                self.cluster.objects.pods[pod].is_frozen = true;
            }
            (4, _) => self.change_manifest(),
            (5, _) => self.cluster.objects.replicas = self.rng.below(4) as u32,
            _ => {}
        }
    }

    /// Watches tell what has happened, each in its own time.
    fn watch(&mut self, lag: u64) {
        let (view, truth) = (&mut self.operator.view, &self.cluster.objects);
        let mut comes = || self.rng.once_in(lag);
        if comes() {
            (view.template, view.replicas) = (truth.template.clone(), truth.replicas);
        }
        if comes() {
            view.pods.clone_from(&truth.pods);
        }
        if comes() {
            view.configs.clone_from(&truth.configs);
        }
        if comes() {
            view.savepoints.clone_from(&truth.savepoints);
        }
        if comes() {
            view.end = truth.end.clone();
        }
        if comes() {
            (view.postmen, view.has_all) = (truth.postmen.clone(), truth.has_all);
        }
    }

    /// The operator looks, or does the next thing of its plan.
    fn act(&mut self, is_calm: bool) {
        if self.operator.plan.is_empty() {
            if let Some(since) = self.operator.view.end.deleted {
                return self.tear_down(since, is_calm);
            }
            self.operator.seen = self.operator.look(&self.cluster);
            self.operator.plan = plan(&self.operator.seen).into();
            return self.check_plan();
        }
        while let Some(action) = self.operator.plan.pop_front() {
            if !is_calm && self.rng.once_in(12) {
                self.meet("a request is lost");
                continue;
            }
            let seen = self.operator.seen.clone();
            let before = self.cluster.objects.pods.len();
            self.carry_out(&action, &seen, !is_calm && self.rng.0.is_multiple_of(5));
            if !is_calm && self.rng.once_in(12) {
                self.meet("a reply is lost");
                self.unsure_until = self.cluster.now + UNSURE;
            } else {
                let new = self.cluster.objects.pods.iter().skip(before).cloned();
                self.operator.made.extend(new.map(|pod| (self.cluster.now, pod)));
            }
            if !is_calm && self.rng.once_in(3) {
                // Something else happens before the next one.
                return;
            }
        }
    }

    /// Nobody is given a shard that another one still has, whatever becomes of that one; and of those who answer and are to stay, no two are given the same.
    fn check_plan(&self) {
        let (seen, actions) = (&self.operator.seen, &self.operator.plan);
        let heard = || seen.workers.iter().filter_map(|worker| Some((worker, worker.heard()?)));
        for action in actions {
            let Action::Assign { pod, shards, .. } = action else { continue };
            let has = heard().find(|(worker, _)| worker.pod == *pod).map(|(_, said)| crate::plan::assignment::given(said));
            let new: BTreeSet<u32> = shards - &has.unwrap_or_default();
            let others = heard().filter(|(worker, said)| worker.pod != *pod && said.timeline == seen.timeline());
            let owner = others.flat_map(|(_, said)| &said.owned).find(|owned| new.contains(&owned.shard));
            assert_eq!(owner, None, "it is given to {pod}: {actions:#?} by {seen:#?}");
        }
        let goes = |worker: &Worker| actions.iter().any(|action| matches!(action, Action::DeletePod { uid, .. } if *uid == worker.uid));
        let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
        for worker in seen.workers.iter().filter(|worker| worker.is_live() && !goes(worker)) {
            let Some(said) = worker.heard() else { continue };
            let told = actions.iter().find_map(|action| match action {
                Action::Assign { pod, shards, .. } if *pod == worker.pod => Some(shards.clone()),
                _ => None,
            });
            for shard in told.unwrap_or_else(|| crate::plan::assignment::given(said)) {
                let other = owners.insert(shard, &worker.pod);
                assert_eq!(other, None, "shard {shard} is also given to {}: {actions:#?} by {seen:#?}", worker.pod);
            }
        }
    }

    fn carry_out(&mut self, action: &Action, seen: &Fleet, fails: bool) {
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("{} {action:?}", self.cluster.now);
        }
        let before = self.cluster.objects.pods.len();
        self.cluster.carry_out(action, seen, fails);
        if self.cluster.objects.pods.len() > before {
            self.check_new_pod(action);
        }
        match action {
            Action::Mark { standing: Standing::Proven, template, .. } => {
                self.meet("a change is proven");
                if self.cluster.quality(Rollout::of(seen).in_force()) == Quality::Refuses {
                    self.no_worse.insert(template.clone());
                }
            }
            Action::Mark { standing: Standing::Good(2..), .. } => self.meet("a change is in force"),
            Action::Mark { standing: Standing::Bad(_), .. } => self.meet("a change is taken back"),
            Action::PutBack { .. } => self.meet("dead letters are put back"),
            Action::Prefetch { shards, .. } if !shards.is_empty() => self.meet("a move is prepared"),
            _ => {}
        }
    }

    fn second(&mut self, is_calm: bool) {
        self.cluster.tick();
        if !is_calm && self.rng.once_in(25) {
            self.go_wrong();
        }
        if !self.late.is_empty() && (is_calm || self.rng.once_in(4)) {
            self.meet("a request arrives late");
            let (action, seen) = self.late.remove(0);
            let before = self.cluster.objects.pods.len();
            self.unsure_until = self.cluster.now + UNSURE;
            self.carry_out(&action, &seen, false);
            self.late_pods.extend(self.cluster.objects.pods.iter().skip(before).map(|pod| pod.uid));
        }
        self.watch(if is_calm { 1 } else { 3 });
        self.act(is_calm);
        self.check();
    }

    /// What was just made is within what was wanted lately and what a change takes, is no second one that tries a change, and is of no revision that is known to be bad.
    fn check_new_pod(&self, action: &Action) {
        let objects = &self.cluster.objects;
        let new = objects.pods.last().expect("it was just made");
        let live = objects.pods.iter().filter(|pod| pod.is_live()).count() as u32;
        let wanted = self.cluster.replicas_lately.iter().max().copied().unwrap_or(0);
        // One that tries a change, and one that tried the change before and is on its way out.
        assert!(live <= wanted + 2, "{action:?}: {live} pods of {wanted}: {objects:#?} seen {:#?}", self.operator.seen);
        let standing = |template: &str| objects.configs.get(template).map(|config| &config.standing);
        let has_good = objects.configs.values().any(|config| matches!(config.standing, Standing::Good(_)));
        let alike = objects.pods.iter().filter(|pod| pod.is_live() && pod.template == new.template).count();
        // One of which the operator does not know yet that it was made may get a second beside it, which goes at once.
        let knows_all = self.unsure_until < self.cluster.now;
        if has_good && knows_all && standing(&new.template) == Some(&Standing::Untried) {
            assert!(alike <= 1, "{action:?}: {alike} pods try a change");
        }
        let bad_for = self.cluster.bad_since.get(&new.template).map_or(0, |since| self.cluster.now - since);
        assert!(bad_for < 60, "{action:?}: it is known to be bad for {bad_for} s");
    }

    fn is_no_worse(&self, template: &str) -> bool {
        self.cluster.quality(template) == Quality::Refuses && self.no_worse.contains(template)
    }

    fn check(&self) {
        let is_deleted = self.cluster.objects.end.deleted.is_some();
        let is_overdue =
            |pod: &&Pod| !is_deleted && pod.is_frozen && !pod.is_lost && pod.ends.is_some_and(|ends| ends + OVERDUE < self.cluster.now);
        for pod in self.cluster.objects.pods.iter().filter(is_overdue) {
            assert!(!pod.runs_something(), "it was to be gone, and goes on: {pod:?}");
        }
        for (template, config) in &self.cluster.objects.configs {
            let is_taken_for_good = matches!(config.standing, Standing::Proven | Standing::Good(2..));
            assert!(
                !is_taken_for_good || self.cluster.quality(template) == Quality::Good || self.is_no_worse(template),
                "{template}, which {:?}, is {:?}",
                self.cluster.quality(template),
                config.standing
            );
        }
    }

    /// Where the job should be, and is not.
    fn amiss(&mut self) -> Option<String> {
        let seen = self.operator.look(&self.cluster);
        let (wanted, rollout) = (seen.replicas as usize, Rollout::of(&seen));
        let in_force = rollout.in_force().to_owned();
        if !plan(&seen).is_empty() {
            return Some(format!("there is more to do: {:?}", plan(&seen)));
        }
        if seen.workers.len() != wanted || seen.workers.iter().any(|worker| worker.template != in_force) {
            return Some(format!("not {wanted} workers of {in_force}"));
        }
        if wanted > 0 && self.cluster.running().len() < SHARDS as usize {
            return Some(format!("only these run: {:?}", self.cluster.running()));
        }
        let counts: Vec<usize> = seen.workers.iter().filter_map(Worker::heard).map(|said| said.owned.len()).collect();
        if counts.iter().max() > counts.iter().min().map(|least| least + 1).as_ref() {
            return Some(format!("unbalanced: {counts:?}"));
        }
        let is_bad = seen.configs.get(&seen.template).is_some_and(|config| matches!(config.standing, Standing::Bad(_)));
        let kept: BTreeSet<&String> = seen.configs.keys().collect();
        let needed: BTreeSet<&String> = [&in_force, &seen.template].into_iter().collect();
        if wanted > 0 && (kept != needed || (in_force != seen.template) != is_bad || !seen.postmen.is_empty()) {
            return Some(format!("in force is {in_force}, kept are {kept:?}"));
        }
        None
    }
}

fn live(seed: u64) -> Met {
    let mut life = Life::new(seed);
    (0..TROUBLED).for_each(|_| life.second(false));
    life.cluster.remove_lost();
    life.leave_something_that_works();
    let (mut rests, mut left) = (0, CALM);
    while rests < REST {
        left -= 1;
        life.second(true);
        let amiss = life.amiss();
        rests = if amiss.is_none() { rests + 1 } else { 0 };
        assert!(left > 0, "{}\n{:#?}", amiss.unwrap_or_default(), life.operator.seen);
    }
    let quality = life.cluster.quality(Rollout::of(&life.operator.seen).in_force());
    assert!(life.cluster.objects.replicas == 0 || quality == Quality::Good, "a revision is in force that does not work");
    life.met
}

/// Lives them all, or the one that is asked for, and checks that they met what they are for.
fn check_seeds(test: &str, seeds: u64, live: fn(u64) -> Met, all: &[&'static str]) {
    let one = std::env::var("LIFECYCLE_SEED").ok().map(|seed| seed.parse::<u64>().expect("LIFECYCLE_SEED is a number"));
    let mut met = Met::default();
    for seed in one.map_or(0..seeds, |seed| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| live(seed));
        let lived = outcome.unwrap_or_else(|_| panic!("seed {seed}; to see it again: LIFECYCLE_SEED={seed} make unit TEST={test}"));
        lived.0.into_iter().for_each(|(what, times)| *met.0.entry(what).or_default() += times);
    }
    let unmet: Vec<&&str> = all.iter().filter(|what| !met.0.contains_key(*what)).collect();
    assert!(one.is_some() || unmet.is_empty(), "no run met {unmet:?}: {met:?}");
}

#[test]
fn a_job_comes_to_where_its_manifest_wants_it_whatever_gets_lost_on_the_way() {
    let all = [
        "an operator ends",
        "a node is lost",
        "a kubelet stops",
        "a request is lost",
        "a request arrives late",
        "a reply is lost",
        "a change is proven",
        "a change is in force",
        "a change is taken back",
        "dead letters are put back",
        "a move is prepared",
    ];
    check_seeds("a_job_comes_to_where", SEEDS, live, &all);
}
