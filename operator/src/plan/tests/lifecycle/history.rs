//! What lies in the job's bucket and in its journals, timeline by timeline, and the pods that begin new ones. As the real ones do, an attempt at a rewind takes a
//! number, bars whoever runs, and begins last of all, create-only; a worker that starts puts a void in the place of every attempt that is open, and of the rewind
//! that its pod was told has failed.

use super::*;

/// Seconds until a pod that rewinds has started, until the new state is ready, and until it is if the pod is slow.
const STARTS: u64 = 4;
const SOWS: u64 = 7;
const SOWS_SLOWLY: u64 = 200;
/// Kubernetes tells a pod on a lost node to end so long after.
const EVICTED: u64 = 100;
/// Nobody who answers goes on where a rewind has ended the history for longer: they do not answer for 40 seconds, and requests are lost.
const OLD_UNTIL: u64 = 120;
/// A pod that was to be gone so long ago is taken for lost.
const LOST: u64 = 60;

/// What comes of a request, as nobody knows before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    /// What it names is not there until then.
    RefusedUntil(u64),
    /// So many attempts fail.
    Fails(u32),
    /// There is no node for its pod until then.
    NoRoomUntil(u64),
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Begun,
    Void,
}

/// What a shard holds, and who has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Truth {
    pub version: u64,
    pub owner: u64,
    pub records: u64,
    pub rejected: u64,
    /// The two when its owner began.
    pub at_start: (u64, u64),
    /// What its newest checkpoint holds, and when that was taken.
    pub checkpoint: (u64, u64),
}

pub(super) type Shards = [Truth; SHARDS as usize];

/// What outlives pods and operators.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// By number.
    attempts: BTreeMap<u32, (String, End)>,
    pub journals: BTreeMap<u32, Shards>,
    /// The savepoints, by path, with their timeline.
    pub copies: BTreeMap<String, (u32, [u64; SHARDS as usize])>,
    pub fates: BTreeMap<String, Fate>,
    /// When the last one began.
    begun_at: u64,
    /// When a status first said so of a rewind.
    pub failed: BTreeMap<String, u64>,
    /// The rewinds that had failed, as the status said, when a worker was made that has started since.
    pub gone_on: BTreeSet<String>,
}

/// A pod that does a rewind.
#[derive(Clone, Debug)]
pub(super) struct Attempting {
    pub told: Rewinder,
    asked: Rewind,
    began: u64,
    number: Option<u32>,
    pub ends: Option<u64>,
    /// Since when its node is not heard of; it may be at work there.
    lost: Option<u64>,
    is_dead: bool,
    /// Whether it has nothing more to do, whoever knows of that.
    is_over: bool,
    /// What an operator asked for that was of the past.
    is_late: bool,
}

impl Bucket {
    pub fn new(shards: Shards) -> Self {
        let (attempts, journals) = (BTreeMap::new(), BTreeMap::from([(0, shards)]));
        Self {
            attempts,
            journals,
            copies: BTreeMap::new(),
            fates: BTreeMap::new(),
            begun_at: 0,
            failed: BTreeMap::new(),
            gone_on: BTreeSet::new(),
        }
    }

    /// The timeline that the job is in, and the rewind that began it.
    pub fn current(&self) -> (u32, &str) {
        let begun = self.attempts.iter().rev().find(|(_, (_, end))| *end == End::Begun);
        begun.map_or((0, ""), |(number, (id, _))| (*number, id))
    }

    pub fn shards(&mut self) -> &mut Shards {
        let (timeline, _) = self.current();
        self.journals.get_mut(&timeline).expect("each timeline has journals")
    }

    pub fn begun(&self, id: &str) -> bool {
        self.attempts.values().any(|(of, end)| of == id && *end == End::Begun)
    }

    pub fn given_up(&self) -> Vec<String> {
        let voids = self.attempts.values().filter(|(id, end)| *end == End::Void && !self.begun(id));
        voids.map(|(id, _)| id.clone()).collect()
    }

    /// A worker starts.
    pub fn stay(&mut self, given_up: Option<&String>, now: u64) {
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("{now} stays, told {given_up:?}, {:?}", self.attempts);
        }
        let open = self.attempts.values_mut().filter(|(_, end)| *end == End::Open);
        open.for_each(|(_, end)| *end = End::Void);
        if let Some(id) = given_up.filter(|id| self.attempts.values().all(|(of, _)| of != *id)) {
            self.attempts.insert(self.next(), (id.clone(), End::Void));
        }
    }

    fn next(&self) -> u32 {
        self.attempts.keys().max().map_or(1, |number| number + 1)
    }

    /// `None`: it was given up before.
    fn reserve(&mut self, id: &str) -> Option<u32> {
        let number = self.next();
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("reserves {number}, {:?}", self.attempts);
        }
        self.attempts.insert(number, (id.to_owned(), End::Open));
        self.attempts.values().all(|(of, end)| of != id || *end != End::Void).then_some(number)
    }

    fn begin(&mut self, number: u32, target: &RewindTarget, (is_first, now): (bool, u64)) -> bool {
        let is_void = self.attempts[&number].1 == End::Void;
        if !is_void {
            let id = self.attempts[&number].0.clone();
            assert!(!self.gone_on.contains(&id), "rewind {id} had failed, and the job has gone on since");
            assert!(is_first, "rewind {id} is done a second time");
            let before = *self.shards();
            let mut shards = Shards::default();
            for (shard, truth) in shards.iter_mut().enumerate() {
                let then = match target {
                    RewindTarget::Savepoint(path) => self.copies.get(path).map_or(before[shard].records, |(_, records)| records[shard]),
                    RewindTarget::Time(_) => before[shard].records.saturating_sub(3000),
                };
                *truth = Truth { records: then, checkpoint: (then, 0), ..Truth::default() };
            }
            self.begun_at = now;
            self.journals.insert(number, shards);
            self.attempts.entry(number).and_modify(|(_, end)| *end = End::Begun);
        }
        !is_void
    }
}

impl Attempting {
    fn end(&mut self, task: Task) {
        (self.told.task, self.is_over) = (task, true);
    }
}

impl Cluster {
    /// A request arrives. Nothing is made beside another one: both have one name.
    pub fn rewind(&mut self, seen: &Fleet, is_late: bool) {
        let Some(asked) = seen.rewind.asked.as_ref().map(|asked| asked.rewind.clone()) else { return };
        if self.objects.rewinders.is_empty() {
            let told = Rewinder { pod: "job-rewind".into(), id: asked.id.clone(), task: Task::Working(0, None) };
            let (began, number, ends, lost, is_dead, is_over) = (self.now, None, None, None, false, false);
            self.objects.rewinders.push(Attempting { told, asked, began, number, ends, lost, is_dead, is_over, is_late });
        }
    }

    /// Whether anybody who was asked for in time is at work.
    pub fn rewinds(&self) -> bool {
        self.objects.rewinders.iter().any(|pod| !pod.is_late && pod.lost.is_none() && matches!(pod.told.task, Task::Working(..)))
    }

    pub fn delete_rewinder(&mut self, now: u64) {
        self.objects.rewinders.iter_mut().for_each(|pod| pod.ends = pod.ends.or(Some(now)));
    }

    /// Its object is gone; what runs on the lost node runs on.
    pub fn drop_rewinder(&mut self) {
        let dropped = std::mem::take(&mut self.objects.rewinders);
        let alive = dropped.into_iter().filter(|pod| !pod.is_dead && pod.lost.is_some());
        self.ghosts.extend(alive.map(|pod| Attempting { told: Rewinder { task: Task::Working(0, None), ..pod.told }, ..pod }));
    }

    /// A pod that rewinds is evicted, or its node is lost, where it is at work again after a pause. `true`: there is one.
    pub fn lose_rewinder(&mut self, how: u64, pause: u64) -> bool {
        let (now, fates) = (self.now, &self.bucket.fates);
        let has_room = |id: &str| !matches!(fates[id], Fate::NoRoomUntil(then) if now < then);
        let is_at_work = |pod: &&mut Attempting| matches!(pod.told.task, Task::Working(..)) && has_room(&pod.told.id);
        let pod = self.objects.rewinders.iter_mut().find(is_at_work);
        let Some(pod) = pod else { return false };
        match how {
            0 => (pod.is_dead, pod.told.task) = (true, Task::Lost),
            1 => (pod.lost, pod.is_dead) = (Some(now), true),
            _ => (pod.lost, pod.began) = (Some(now), now + pause),
        }
        true
    }

    /// A second in the lives of those who rewind.
    pub fn rewind_on(&mut self) {
        let now = self.now;
        self.objects.rewinders.retain(|pod| pod.lost.is_some() || pod.ends.is_none_or(|ends| now < ends + 3));
        for mut pod in std::mem::take(&mut self.ghosts) {
            self.attempt(&mut pod);
            self.ghosts.extend((!pod.is_over).then_some(pod));
        }
        for mut pod in std::mem::take(&mut self.objects.rewinders) {
            let was = pod.told.task.clone();
            self.attempt(&mut pod);
            if let Some(lost) = pod.lost {
                // What becomes of it there nobody is told.
                pod.told.task = was;
                pod.ends = pod.ends.or((now > lost + EVICTED).then_some(now));
                if pod.ends.is_some_and(|ends| now > ends + LOST) {
                    pod.told.task = Task::Lost;
                }
            }
            self.objects.rewinders.push(pod);
        }
    }

    fn attempt(&mut self, pod: &mut Attempting) {
        let Task::Working(restarts, _) = pod.told.task else { return };
        if pod.is_dead || pod.is_over {
            return;
        }
        let trouble = |message: &str| Some(Trouble { reason: "Error".into(), message: message.into() });
        let (fate, age, id) = (self.bucket.fates[&pod.told.id], self.now.saturating_sub(pod.began), pod.told.id.clone());
        let fail = |pod: &mut Attempting, why: &str, now| {
            (pod.began, pod.number) = (now, None);
            pod.told.task = Task::Working(restarts + 1, trouble(why));
        };
        match fate {
            Fate::NoRoomUntil(then) if self.now < then => {
                (pod.began, pod.told.task) = (self.now, Task::Working(0, trouble("0/2 nodes")));
                return;
            }
            Fate::RefusedUntil(then) if age >= STARTS && self.now < then => {
                return pod.end(Task::Refused("there is none".into()));
            }
            Fate::Works | Fate::RefusedUntil(_) | Fate::Fails(_) | Fate::NoRoomUntil(_) | Fate::Slow => {}
        }
        let sows = if fate == Fate::Slow { SOWS_SLOWLY } else { SOWS };
        match pod.number {
            None if age >= STARTS => {
                if self.bucket.begun(&id) {
                    return pod.end(Task::Done);
                }
                pod.number = self.bucket.reserve(&id);
                match pod.number {
                    Some(_) => pod.told.task = Task::Working(restarts, None),
                    None => pod.end(Task::Refused("it was given up".into())),
                }
            }
            Some(_) if age >= sows && matches!(fate, Fate::Fails(times) if restarts < times) => fail(pod, "S3 is down", self.now),
            Some(number) if age >= sows => {
                let others = self.bar(pod);
                if others && self.number().is_multiple_of(2) {
                    return fail(pod, "somebody has a better right", self.now);
                }
                // One that nobody reaches any more may come to its end, too: the higher number counts, and nobody has worked in the other one.
                let is_first = !self.bucket.begun(&id) || self.worked.iter().all(|(_, of)| *of != id);
                let is_begun = self.bucket.begin(number, &pod.asked.target, (is_first, self.now));
                pod.end(if is_begun { Task::Done } else { Task::Refused("it was given up".into()) });
            }
            None | Some(_) => {}
        }
    }

    /// Whoever can be reached works on no timeline that is over, but for a while.
    pub fn check_timelines(&self) {
        let (current, by) = self.bucket.current();
        let is_old = |pod: &&Pod| !pod.is_lost && pod.runs_something() && !pod.is_of(current);
        let old = self.objects.pods.iter().find(is_old).filter(|_| self.now > self.bucket.begun_at + OLD_UNTIL);
        assert!(
            old.is_none() || self.objects.end.deleted.is_some(),
            "rewind {by} began timeline {current}, and it goes on elsewhere: {old:#?}"
        );
    }

    /// All that run lose their shards. `true`: somebody ran, who should not have.
    fn bar(&mut self, by: &Attempting) -> bool {
        let (timeline, _) = self.bucket.current();
        let version = self.bucket.shards().iter().map(|truth| truth.version).max().unwrap_or(0) + 1;
        self.bucket.shards().iter_mut().for_each(|truth| (truth.version, truth.owner) = (version, 0));
        let knows_all = self.unsure_until < self.now && !by.is_late && by.lost.is_none();
        let mut others = false;
        for pod in self.objects.pods.iter_mut().filter(|pod| pod.is_of(timeline)) {
            let is_expected = pod.is_lost || pod.is_frozen;
            if pod.runs_something() {
                assert!(is_expected || !knows_all, "a rewind ends its history under {pod:#?}: {by:#?}");
                others |= !pod.is_lost;
            }
            pod.lose_all(version);
        }
        others
    }
}
