//! How a change of a job goes into force, and when it is taken back: a state machine. Where it stands is written on the config maps of the
//! revisions, one word each; all else is seen anew at each look, so an operator may end between any two actions.
//!
//! First a savepoint, then a canary: one worker more, which gets one shard. When that has processed for a while and nothing speaks against it, the change is proven
//! and the other workers follow, one by one. A change that crashes, stalls, makes dead letters or takes too long is bad for good: what ran before
//! goes on at the next epoch, with the state as it is.

use std::time::Duration;

use forebay_api::v1::{Books, Shard};
use forebay_crds::savepoint::SavepointPhase;

use super::trend::{Course, WINDOWS};
use super::{Action, Fleet, Saved, Worker};

/// A container that was started again so often, and is down once more, will not come up by itself.
const RESTARTS_MAX: u32 = 2;
/// Of fewer records neither the share of dead letters nor the lag says anything.
const RECORDS_MIN: u64 = 20;
/// In percent more than before: so much of what comes in is seldom bad all at once.
const BEYOND_DOUBT_PERCENT: u64 = 50;

/// What is known of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet.
    Untried,
    /// Its canary did well.
    Proven,
    /// It was in force on all workers. The one with the highest number is what runs, or is gone back to.
    Good(u64),
    /// It was taken back, and why. It is not tried again.
    Bad(String),
}

/// Where the job stands between the revision that was good and the one that its manifest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout<'a> {
    /// No revision of this job has ever run on all workers: there is nothing to go back to.
    First {
        /// What the manifest asks for.
        template: &'a str,
    },
    /// What the manifest asks for is in force.
    Steady {
        /// What that is.
        template: &'a str,
    },
    /// The state is copied before anything changes.
    Save {
        /// What runs.
        from: &'a str,
        /// What the manifest asks for.
        to: &'a str,
    },
    /// One worker more tries the change on one shard.
    Canary {
        /// What all others are made from.
        from: &'a str,
        /// What it is made from.
        to: &'a str,
    },
    /// The others follow.
    Switch {
        /// What they are made from.
        from: &'a str,
        /// What they will be made from.
        to: &'a str,
    },
    /// The change is bad.
    RolledBack {
        /// What runs instead.
        template: &'a str,
        /// Why.
        reason: &'a str,
    },
}

/// What is thought of a change that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is bad, and why.
    Bad(String),
    /// Nothing can be said yet, and what is waited for.
    Waiting(String),
    /// All shards that it has got process well.
    Healthy,
}

impl<'a> Rollout<'a> {
    /// Read off what is seen.
    pub fn of(fleet: &'a Fleet) -> Self {
        let template = fleet.template.as_str();
        let Some((from, _)) = good(fleet) else { return Self::First { template } };
        match fleet.configs.get(template).map(|config| &config.standing) {
            _ if from == template => Self::Steady { template },
            Some(Standing::Bad(reason)) => Self::RolledBack { template: from, reason },
            Some(Standing::Proven) => Self::Switch { from, to: template },
            Some(Standing::Untried | Standing::Good(_)) | None if is_saved(fleet) => Self::Canary { from, to: template },
            Some(Standing::Untried | Standing::Good(_)) | None => Self::Save { from, to: template },
        }
    }

    /// What the manifest's revision is known to be from now on, if that is news.
    pub fn next(&self, fleet: &Fleet) -> Option<Standing> {
        if fleet.replicas == 0 || !fleet.configs.contains_key(&fleet.template) {
            return None;
        }
        let is_everywhere = || {
            let mut live = fleet.workers.iter().filter(|worker| worker.is_live());
            live.clone().count() == fleet.replicas as usize && live.all(|worker| worker.template == fleet.template) && fleet.all_run()
        };
        match self {
            Self::First { .. } => is_everywhere().then_some(Standing::Good(1)),
            Self::Steady { .. } | Self::Save { .. } | Self::RolledBack { .. } => None,
            Self::Canary { .. } | Self::Switch { .. } => match (self, judge(fleet)) {
                (_, Judgement::Bad(reason)) => Some(Standing::Bad(reason)),
                (Self::Canary { .. }, Judgement::Healthy) => Some(Standing::Proven),
                (_, Judgement::Healthy) => is_everywhere().then(|| Standing::Good(good(fleet).map_or(0, |(_, number)| number) + 1)),
                (_, Judgement::Waiting(_)) => None,
            },
        }
    }

    /// The template of the worker that gets one shard only.
    pub fn canary(&self) -> Option<&'a str> {
        match self {
            Self::Canary { to, .. } => Some(to),
            Self::First { .. } | Self::Steady { .. } | Self::Save { .. } | Self::Switch { .. } | Self::RolledBack { .. } => None,
        }
    }

    /// The revision that the job is of, or would be of if nothing were under way.
    pub fn in_force(&self) -> &'a str {
        match self {
            Self::First { template } | Self::Steady { template } | Self::RolledBack { template, .. } => template,
            Self::Save { from, .. } | Self::Canary { from, .. } | Self::Switch { from, .. } => from,
        }
    }

    /// Whether pods may be made from it, or what is known of it is still to be known. What was begun in vain when a job is suspended is begun anew.
    pub fn needs(&self, template: &str, fleet: &Fleet) -> bool {
        let is_bad = |config: &super::Config| matches!(config.standing, Standing::Bad(_));
        let is_wanted = template == fleet.template && (fleet.replicas > 0 || fleet.configs.get(template).is_some_and(is_bad));
        is_wanted || good(fleet).is_some_and(|(good, _)| good == template)
    }
}

/// What is thought of the change, by all that its workers have done so far.
pub fn judge(fleet: &Fleet) -> Judgement {
    let to = fleet.template.as_str();
    let workers = || fleet.workers.iter().filter(|worker| worker.is_live() && worker.template == to);
    let shards: Vec<&Shard> = workers().filter_map(Worker::heard).flat_map(|said| &said.owned).collect();
    let crashed = workers().find_map(|worker| Some((worker, worker.trouble.as_ref().filter(|_| worker.restarts >= RESTARTS_MAX)?)));
    // When those of the revision before fail too, it may be something else that is amiss: the object store is away, say. That has time until the deadline.
    let others_fail =
        fleet.workers.iter().any(|worker| worker.is_live() && worker.template != to && (worker.fails() || worker.trouble.is_some()));
    if let Some((worker, trouble)) = crashed.filter(|_| !others_fail) {
        return Judgement::Bad(format!("pod {} was started {} times: {}", worker.pod, worker.restarts + 1, trouble.words()));
    }
    if let Some(stalled) = shards.iter().find(|shard| shard.stalled) {
        return Judgement::Bad(format!("shard {} cannot go on: {}", stalled.shard, stalled.failure));
    }
    if let Some(reason) = too_many_dead_letters(fleet, &shards) {
        return Judgement::Bad(reason);
    }
    let lag = lag(fleet);
    if let Some(Lag::GrowsOn(reason)) = lag {
        return Judgement::Bad(reason);
    }
    if let Some(refused) = fleet.refused.as_ref().filter(|refused| refused.is_final()) {
        return Judgement::Bad(format!("the API server refuses its pods: {}", refused.refusal.message));
    }
    let trouble = workers().find_map(|worker| Some(format!("pod {}: {}", worker.pod, worker.trouble.as_ref()?.words())));
    let waits = match (trouble, not_observed(&shards, fleet.gate.observe), lag) {
        (Some(waits), ..) | (None, Some(waits), _) | (None, None, Some(Lag::Grows(waits) | Lag::GrowsOn(waits))) => waits,
        (None, None, None) => return Judgement::Healthy,
    };
    // The one that came first. Nothing is held against a change that has not been tried, whoever was away meanwhile; nor that nobody gives its worker a shard.
    let is_tried = !shards.is_empty() || workers().any(|worker| worker.heard().is_none());
    let age = workers().map(|worker| worker.age).max().filter(|_| is_tried);
    let config = fleet.configs.get(to);
    // The canary has one share of time, and each worker that follows another one.
    let shares = if config.is_some_and(|config| config.standing == Standing::Proven) { 1 + fleet.replicas } else { 1 };
    let deadline = fleet.gate.deadline * shares;
    match age {
        Some(age) if age > deadline => Judgement::Bad(format!("it is not in force after {} s: {waits}", deadline.as_secs())),
        Some(_) | None => Judgement::Waiting(waits),
    }
}

/// Of the savepoints before earlier changes all but the newest, once the manifest's revision is in force and has one of its own: whoever repairs a change
/// wants the state from before it.
pub(super) fn outlived_savepoints(fleet: &Fleet, rollout: &Rollout<'_>) -> Vec<Action> {
    let is_complete = |saved: &Saved| saved.phase == Some(SavepointPhase::Completed);
    if !matches!(rollout, Rollout::Steady { .. }) || !fleet.savepoints.get(&fleet.template).is_some_and(is_complete) {
        return Vec::new();
    }
    let mut earlier: Vec<&Saved> = fleet.savepoints.iter().filter(|(of, _)| **of != fleet.template).map(|(_, saved)| saved).collect();
    earlier.sort_by_key(|saved| (is_complete(saved), saved.made));
    earlier.pop_if(|newest| is_complete(newest));
    earlier.retain(|saved| saved.path.is_none() || saved.path.as_deref() != fleet.goes_back_to());
    let end = |saved: &Saved| match saved.takes_all {
        true => Action::DeleteSavepoint(saved.name.clone()),
        false => Action::DoomSavepoint(saved.name.clone()),
    };
    earlier.into_iter().map(end).collect()
}

fn good(fleet: &Fleet) -> Option<(&str, u64)> {
    let number = |(template, config): (&'_ String, &super::Config)| match &config.standing {
        Standing::Good(number) => Some((*number, template.clone())),
        Standing::Untried | Standing::Proven | Standing::Bad(_) => None,
    };
    let (number, template) = fleet.configs.iter().filter_map(number).max()?;
    fleet.configs.get_key_value(&template).map(|(template, _)| (template.as_str(), number))
}

/// One that failed is said to have, and holds up no change: it may be what repairs the object store's settings.
fn is_saved(fleet: &Fleet) -> bool {
    let phase = fleet.savepoints.get(&fleet.template).and_then(|saved| saved.phase);
    matches!(phase, Some(SavepointPhase::Completed | SavepointPhase::Failed))
}

/// Of a whole window of observation, the gate's own limit; before that, or with nothing left to compare with, only what is bad beyond doubt: a moment of bad input
/// is no more than that.
fn too_many_dead_letters(fleet: &Fleet, shards: &[&Shard]) -> Option<String> {
    let counted = shards.iter().filter(|shard| shard.books_at_start.is_some());
    let observe_millis = fleet.gate.observe.as_millis() as u64;
    let observed = counted.clone().filter(|shard| shard.running_millis.is_some_and(|millis| millis >= observe_millis));
    let others = Others::of(fleet);
    let is_proven = fleet.configs.get(&fleet.template).is_some_and(|config| config.standing == Standing::Proven);
    let percent_max = fleet.gate.dead_letter_percent_max.into();
    let percent_beyond_doubt = BEYOND_DOUBT_PERCENT.max(percent_max);
    let is_alone = is_proven && others.now.is_none();
    worse_than_others(observed, &others, if is_alone { percent_beyond_doubt } else { percent_max })
        .or_else(|| worse_than_others(counted, &others, percent_beyond_doubt))
}

/// Compared with all that was before, because some records may have always been bad, and with what the revision before makes of what comes in now, because they may
/// be bad since a moment ago: as much more often than before as they are there.
fn worse_than_others<'a>(shards: impl Iterator<Item = &'a &'a Shard>, others: &Others, percent_max: u64) -> Option<String> {
    let (mut before, mut all) = (Taken::default(), Taken::default());
    for shard in shards {
        before.add(shard.books_at_start.as_ref().map(taken_in).unwrap_or_default());
        all.add(shard.books.as_ref().map(taken_in).unwrap_or_default());
    }
    let now = Taken { records: all.records.saturating_sub(before.records), rejected: all.rejected.saturating_sub(before.rejected) };
    let (was, is) = (before.permille(), now.permille());
    let elsewhere = others.now.unwrap_or(0);
    let as_elsewhere = (was * elsewhere).checked_div(others.before).unwrap_or(0);
    let expected = was.max(elsewhere).max(as_elsewhere);
    (now.records >= RECORDS_MIN && is / 10 > expected / 10 + percent_max).then(|| {
        let of_others =
            others.now.map(|_| format!(", and elsewhere {} % where it was {} %", elsewhere / 10, others.before / 10)).unwrap_or_default();
        let Taken { records, rejected } = now;
        format!(
            "of {records} records that it has processed {rejected} became dead letters, {} % where it was {} % before{of_others}",
            is / 10,
            was / 10
        )
    })
}

/// Records, and those of them that became dead letters.
#[derive(Clone, Copy, Default)]
struct Taken {
    records: u64,
    rejected: u64,
}

impl Taken {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.rejected += other.rejected;
    }

    fn permille(self) -> u64 {
        (self.rejected * 1000).checked_div(self.records).unwrap_or(0)
    }
}

fn taken_in(books: &Books) -> Taken {
    Taken { records: books.records_in, rejected: books.rejected }
}

/// The share of dead letters under the revision before, in permille: in all that its shards did before they were followed, and since then, if that says anything.
struct Others {
    before: u64,
    now: Option<u64>,
}

impl Others {
    fn of(fleet: &Fleet) -> Self {
        let others = fleet.workers.iter().filter(|worker| worker.is_live() && worker.template != fleet.template);
        let (mut before, mut now) = (Taken::default(), Taken::default());
        for trend in others.flat_map(|worker| worker.trends.values()) {
            let (until, since) = trend.taken();
            before.add(Taken { records: until.0, rejected: until.1 });
            now.add(Taken { records: since.0, rejected: since.1 });
        }
        Self { before: before.permille(), now: (now.records >= RECORDS_MIN).then(|| now.permille()) }
    }
}

/// What speaks against a change in the lags of its shards.
enum Lag {
    /// They grow, or have not been followed for long enough; what is waited for.
    Grows(String),
    /// They grow without end.
    GrowsOn(String),
}

/// Compared with the shards of the revision before: when those fall behind too, there is more to do than before, and the change is not to blame.
fn lag(fleet: &Fleet) -> Option<Lag> {
    let window = fleet.gate.observe;
    let (mut news, mut others) = (Vec::new(), Vec::new());
    for worker in fleet.workers.iter().filter(|worker| worker.is_live()) {
        let courses = if worker.template == fleet.template { &mut news } else { &mut others };
        let owned = worker.heard().into_iter().flat_map(|said| &said.owned);
        courses.extend(owned.map(|shard| (shard.shard, course(worker, shard, window))));
    }
    let behind = others.iter().filter(|(_, course)| matches!(course, Course::FallsBehind(..))).count();
    if behind > 0 && behind * 2 >= others.len() {
        return None;
    }
    let worst = news.into_iter().max_by_key(|(_, course)| match course {
        Course::FallsBehind(windows, ..) => windows + 1,
        Course::Unknown => 1,
        Course::KeepsUp => 0,
    });
    let seconds = |windows| (window * windows).as_secs();
    match worst? {
        (_, Course::KeepsUp) => None,
        (shard, Course::Unknown) => Some(Lag::Grows(format!("the lag of shard {shard} is observed for {} s", seconds(1)))),
        (shard, Course::FallsBehind(windows, was, is)) => {
            let grows = format!("shard {shard} falls behind under it: {is} records wait, and {was} did {} s before", seconds(windows));
            Some(if windows >= WINDOWS { Lag::GrowsOn(grows) } else { Lag::Grows(grows) })
        }
    }
}

fn course(worker: &Worker, shard: &Shard, window: Duration) -> Course {
    // A few records are always on their way.
    if shard.lag_records < RECORDS_MIN {
        return Course::KeepsUp;
    }
    worker.trends.get(&shard.shard).map_or(Course::Unknown, |trend| trend.course(window))
}

/// What is still missing before its shards have been seen to process for long enough.
fn not_observed(shards: &[&Shard], observe: Duration) -> Option<String> {
    if shards.is_empty() {
        return Some("its worker has no shard yet".to_owned());
    }
    let observe_millis = observe.as_millis() as u64;
    for shard in shards {
        let number = shard.shard;
        match shard.running_millis {
            None if shard.failure.is_empty() => return Some(format!("shard {number} does not process under it yet")),
            None => return Some(format!("shard {number} failed and is tried again: {}", shard.failure)),
            Some(millis) if millis < observe_millis => return Some(format!("shard {number} is observed for {} s", observe.as_secs())),
            Some(_) if shard.lag_records > 0 && shard.books == shard.books_at_start => {
                return Some(format!("shard {number} has not committed any of its records under it"));
            }
            Some(_) => {}
        }
    }
    None
}
