//! Method: the whole life of a job in a cluster of which the operator sees a part, late: watches lag, requests and replies get lost, one that was sent arrives after
//! its operator has ended, workers do not answer, containers end, nodes are lost; and the manifest changes whenever it likes, to revisions that work and that do
//! not. What must hold at every moment is checked at every second. Then nothing goes wrong any more, and the job must come to where its manifest wants it.

use std::collections::VecDeque;
use std::time::Instant;

use forebay_crds::job::{IngestionJobStatus, Phase, RewindPhase};
use forebay_crds::validate::{Rewind, RewindTarget, Schedule};

use super::*;
use crate::observe::Seen;
use crate::observe::lags::Lags;
use crate::plan::rewind::{Asked, Progress, Rewinder, Sight};
use crate::plan::schedule::Taken;
use crate::report::{self, Verdict};
use cluster::{Cluster, Objects, Sender};
use history::Fate;
use met::{Met, becomes, check_seeds, job_is, name_of};
use operator::Operator;
use pod::{Pod, Quality};
use requests::Requests;
use savepoints::Kept;

mod checks;
mod cluster;
mod deletion;
mod history;
mod met;
mod operator;
mod pod;
mod requests;
mod savepoints;

/// `LIFECYCLE_SEED=17` replays one and prints what was done; `LIFECYCLE_SEEDS=5000` lives so many.
const SEEDS: u64 = 800;
/// Seconds in which things go wrong, and seconds by whose end all must be well: a change has ten minutes, and each worker that follows as many.
const TROUBLED: u64 = 900;
const CALM: u64 = 6_000;
/// A pod that cannot be ended has no shards any more so long after it was asked to: as it does not answer for 40 seconds, and requests are lost.
const OVERDUE: u64 = 120;
/// By then a watch has told of what was made, all but certainly.
const UNSURE: u64 = 20;
/// So long an operator acts at most that has lost the lease: by design none does, but what it has sent may arrive.
const ACTS_ON: u64 = 15;
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

struct Life {
    rng: Rng,
    cluster: Cluster,
    operator: Operator,
    /// Requests that were sent by an operator that has ended since.
    late: Vec<(Action, Fleet)>,
    /// Revisions that refuse everything, and were proven beside one that does so too: they are no worse.
    no_worse: BTreeSet<String>,
    /// Operators that have lost the lease, do not know, and act on until then.
    deposed: Vec<(u64, Operator)>,
    /// Whether one of them acts.
    is_deposed: bool,
    requests: Requests,
    /// Every three minutes.
    schedule: Option<Schedule>,
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
            deposed: Vec::new(),
            is_deposed: false,
            requests: Requests::default(),
            schedule: schedule(),
            revisions: 0,
            met: Met::default(),
        };
        life.change_manifest_to(Quality::Good);
        life.cluster.objects.replicas = 1 + life.rng.below(3) as u32;
        life
    }

    fn meet(&mut self, what: impl Into<String>) {
        *self.met.0.entry(what.into()).or_default() += 1;
    }

    /// A new revision, or one that was there before.
    fn change_manifest(&mut self) {
        if self.revisions > 0 && self.rng.once_in(4) {
            self.cluster.objects.template = format!("t{}", 1 + self.rng.below(self.revisions));
            self.cluster.objects.version = self.cluster.number();
            return;
        }
        let qualities = [Quality::Good, Quality::Good, Quality::Crashes, Quality::Stalls, Quality::Refuses];
        let quality = qualities[self.rng.below(5) as usize];
        self.change_manifest_to(quality);
    }

    fn change_manifest_to(&mut self, quality: Quality) {
        self.revisions += 1;
        let template = format!("t{}", self.revisions);
        self.cluster.objects.version = self.cluster.number();
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
                let mut old = std::mem::replace(&mut self.operator, Operator::new(&self.cluster));
                if self.rng.once_in(3) {
                    self.meet("two operators act");
                    self.deposed.push((self.cluster.now + self.rng.below(ACTS_ON), old));
                } else if let Some(action) = old.plan.pop_front().filter(|_| self.rng.once_in(2)) {
                    self.late.push((action, old.seen));
                }
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
            (5, _) => {
                self.cluster.objects.replicas = self.rng.below(4) as u32;
                self.cluster.objects.version = self.cluster.number();
            }
            _ => {}
        }
    }

    /// A pod that does one thing is lost.
    fn lose_task(&mut self) {
        match self.rng.below(5) {
            0 => self.cluster.lose_copier(),
            1 => {
                let working = self.cluster.objects.postmen.iter_mut().filter(|(postman, _)| matches!(postman.task, Task::Working(..)));
                working.for_each(|(postman, _)| postman.task = Task::Lost);
            }
            _ => {
                let (how, pause) = (self.rng.below(3), self.rng.below(300));
                if self.cluster.lose_rewinder(how, pause) {
                    self.meet("a pod that rewinds is lost");
                }
            }
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
            let status = self.operator.status(&self.operator.seen, self.cluster.now);
            self.operator.report = Some((self.operator.view.version, status));
            self.check_plan();
            if !self.operator.plan.is_empty() {
                return;
            }
        }
        while let Some(action) = self.operator.plan.pop_front() {
            if !is_calm && self.rng.once_in(12) {
                self.meet("a request is lost");
                continue;
            }
            let seen = self.operator.seen.clone();
            let before = self.cluster.objects.pods.len();
            self.carry_out(&action, &seen, false);
            if !is_calm && self.rng.once_in(12) {
                self.meet("a reply is lost");
                self.cluster.unsure_until = self.cluster.now + UNSURE;
            } else {
                let new = self.cluster.objects.pods.iter().skip(before).cloned();
                self.operator.made.extend(new.map(|pod| (self.cluster.now, pod)));
                self.operator.note_made(&action, &self.cluster.objects);
            }
            if self.may_end(is_calm, name_of(&action)) || (!is_calm && self.rng.once_in(3)) {
                // Something else happens before the next one.
                return;
            }
        }
        self.say(is_calm);
    }

    /// An operator ends right after it has done something, and the next one finds only what that left.
    fn may_end(&mut self, is_calm: bool, after: &str) -> bool {
        let ends = !is_calm && !self.is_deposed && self.rng.once_in(30);
        if ends {
            self.meet(format!("an operator ends: {after}"));
            self.operator = Operator::new(&self.cluster);
        }
        ends
    }

    /// Those who do not know that others lead by now. Their watches tell them nothing any more, or late.
    fn act_deposed(&mut self) {
        for (until, old) in std::mem::take(&mut self.deposed) {
            if until <= self.cluster.now {
                continue;
            }
            let leader = std::mem::replace(&mut self.operator, old);
            let before = self.cluster.objects.pods.len();
            self.is_deposed = true;
            self.cluster.unsure_until = self.cluster.now + UNSURE;
            self.watch(20);
            self.act(false);
            self.is_deposed = false;
            self.late_pods.extend(self.cluster.objects.pods.iter().skip(before).map(|pod| pod.uid));
            self.deposed.push((until, std::mem::replace(&mut self.operator, leader)));
        }
    }

    fn watch(&mut self, lag: u64) {
        self.operator.watch(&self.cluster.objects, || self.rng.once_in(lag));
    }

    fn carry_out(&mut self, action: &Action, seen: &Fleet, is_late: bool) {
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("{} {action:?}", self.cluster.now);
        }
        let before = self.cluster.objects.pods.len();
        let secret = self.operator.view.secret;
        let is_late = is_late || self.is_deposed;
        let newest = self.cluster.objects.version;
        let is_informed = !is_late && self.operator.report.as_ref().is_some_and(|(version, _)| *version == newest);
        self.check_request(action, is_late);
        self.cluster.carry_out(action, seen, &Sender { secret, is_late, is_informed });
        if self.cluster.objects.pods.len() > before {
            self.check_new_pod(action);
        }
        if let Action::Mark { standing: Standing::Proven, template, .. } = action
            && self.cluster.quality(Rollout::of(seen).in_force()) == Quality::Refuses
        {
            self.no_worse.insert(template.clone());
        }
        self.meet(name_of(action));
    }

    fn second(&mut self, is_calm: bool) {
        self.cluster.tick();
        if !is_calm && self.rng.once_in(25) {
            self.go_wrong();
        }
        if !is_calm && self.rng.once_in(30) {
            self.ask_for_something();
        }
        if !is_calm && self.rng.once_in(40) {
            self.lose_task();
        }
        if !self.late.is_empty() && (is_calm || self.rng.once_in(4)) {
            self.meet("a request arrives late");
            let (action, seen) = self.late.remove(0);
            let before = self.cluster.objects.pods.len();
            self.cluster.unsure_until = self.cluster.now + UNSURE;
            self.carry_out(&action, &seen, true);
            self.late_pods.extend(self.cluster.objects.pods.iter().skip(before).map(|pod| pod.uid));
        }
        self.act_deposed();
        self.watch(if is_calm { 1 } else { 3 });
        self.save(is_calm);
        self.act(is_calm);
        self.check();
    }
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_second(seconds as i64).expect("it is of this age")
}

/// Every three minutes; two are kept.
fn schedule() -> Option<Schedule> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
    let manifest = std::fs::read_to_string(path).unwrap() + "  savepoints: {schedule: \"*/3 * * * *\", retain: 2}\n";
    forebay_crds::Manifest::parse(&manifest, "job.yaml").unwrap().validate().unwrap().savepoints
}

fn live(seed: u64) -> Met {
    let mut life = Life::new(seed);
    (0..TROUBLED).for_each(|_| life.second(false));
    life.cluster.remove_lost();
    life.correct_secret();
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

#[test]
fn a_job_comes_to_where_its_manifest_wants_it_whatever_gets_lost_on_the_way() {
    check_seeds("a_job_comes_to_where", SEEDS, live, &met::all());
}

/// Method: what a seed meets is counted twice. One that goes another way the second time cannot be seen again.
#[test]
fn a_seed_lives_the_same_life_each_time() {
    for seed in 0..3 {
        assert_eq!(live(seed), live(seed));
    }
}
