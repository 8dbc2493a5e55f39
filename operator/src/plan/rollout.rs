//! How a change of a job goes into force, and when it is taken back: a state machine. Where it stands is written on the config maps of the
//! revisions, one word each; all else is seen anew at each look, so an operator may end between any two actions.
//!
//! First a savepoint, then a canary: one worker more, which gets one shard. When that has processed for a while and nothing speaks against it, the change is proven
//! and the other workers follow, one by one. A change that crashes, stalls, makes dead letters or takes too long is bad for good: what ran before
//! goes on at the next epoch, with the state as it is.

use std::time::Duration;

use forebay_api::v1::Shard;
use forebay_crds::savepoint::SavepointPhase;

use super::trend::{Course, Taken, Trend, WINDOWS};
use super::{Action, Fleet, Saved, Trouble, Worker};

/// A container that was started again so often, and is down once more, will not come up by itself.
const RESTARTS_MAX: u32 = 2;
/// Of fewer records neither the share of dead letters nor the lag says anything.
const RECORDS_MIN: u64 = 20;
/// In percent more than before: so much of what comes in is seldom bad all at once.
const BEYOND_DOUBT_PERCENT: u64 = 50;
/// Of the time of observation: before so much of it nothing is said of dead letters at all.
const DOUBTFUL_PART: u32 = 3;

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
    let news: Vec<&Worker> = fleet.workers.iter().filter(|worker| worker.is_live() && worker.template == to).collect();
    let workers = || news.iter().copied();
    let shards: Vec<&Shard> = workers().filter_map(Worker::heard).flat_map(|said| &said.owned).collect();
    let crashed = workers().find_map(|worker| {
        let is_down = |trouble: &&Trouble| worker.restarts >= RESTARTS_MAX && !trouble.may_pass();
        worker.trouble.as_ref().filter(is_down).map(|trouble| (worker, trouble))
    });
    // When a worker says that a server is away, or those of the revision before fail too, the change may not be to blame. That has time until the deadline:
    // what it changes may be where that server is.
    let others_fail = fleet.workers.iter().any(|worker| worker.is_live() && worker.template != to && (worker.fails() || worker.crashes()));
    if let Some((worker, trouble)) = crashed.filter(|_| !others_fail) {
        return Judgement::Bad(format!("pod {} was started {} times: {}", worker.pod, worker.restarts + 1, trouble.words()));
    }
    if let Some(stalled) = shards.iter().find(|shard| shard.stalled) {
        return Judgement::Bad(format!("shard {} cannot go on: {}", stalled.shard, stalled.failure));
    }
    if let Some(reason) = too_many_dead_letters(fleet) {
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
    let waits = match (trouble, not_observed(&news, fleet.gate.observe), lag) {
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
    // Of one whose status was lost nothing is known yet.
    let is_over = |saved: &Saved| matches!(saved.phase, Some(SavepointPhase::Completed | SavepointPhase::Failed));
    earlier.retain(|saved| is_over(saved) && Some(saved.path.as_str()) != fleet.goes_back_to());
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

/// The shards of these workers, as they have just said.
fn owned<'a>(workers: &[&'a Worker]) -> impl Iterator<Item = (&'a Worker, &'a Shard)> {
    workers.iter().flat_map(|worker| worker.heard().into_iter().flat_map(|said| &said.owned).map(|shard| (*worker, shard)))
}

/// A shard under the change.
struct Tried<'a> {
    /// Since when it is followed, by the clock of the looks, and what it had taken in until then: since it began to process, if there was a look soon after that.
    since: (Duration, Taken),
    /// What it had taken in before the change.
    before: Taken,
    trend: &'a Trend,
    processes_for: Duration,
}

impl<'a> Tried<'a> {
    /// `None` before it processes.
    fn of(worker: &'a Worker, shard: &Shard, observe: Duration) -> Option<Self> {
        let trend = worker.trends.get(&shard.shard)?;
        let (first, last) = trend.span()?;
        let processes_for = Duration::from_millis(shard.running_millis?);
        let before = shard.books_at_start.as_ref().map(|books| Taken { records: books.records_in, rejected: books.rejected })?;
        let began = last.saturating_sub(processes_for);
        let is_followed_from_start = first.saturating_sub(began) <= observe / DOUBTFUL_PART;
        let since = if is_followed_from_start { (began, before) } else { (first, trend.taken_at(first, None)) };
        Some(Self { since, before, trend, processes_for })
    }
}

/// Once it has been observed for long enough, by the gate's own limit. Before that, or with nothing left to compare with, only what is bad beyond doubt counts: a moment
/// of bad input is no more than that.
fn too_many_dead_letters(fleet: &Fleet) -> Option<String> {
    let (news, others): (Vec<&Worker>, Vec<&Worker>) =
        fleet.workers.iter().filter(|worker| worker.is_live()).partition(|worker| worker.template == fleet.template);
    let others: Vec<&Trend> = others.iter().flat_map(|worker| worker.trends.values()).collect();
    let mut tried: Vec<Tried<'_>> = owned(&news).filter_map(|(worker, shard)| Tried::of(worker, shard, fleet.gate.observe)).collect();
    tried.retain(|shard| shard.processes_for >= fleet.gate.observe / DOUBTFUL_PART);
    let percent_max = fleet.gate.dead_letter_percent_max.into();
    let percent_beyond_doubt = BEYOND_DOUBT_PERCENT.max(percent_max);
    worse_than_others(&tried, &others, [percent_beyond_doubt; 2]).or_else(|| {
        tried.retain(|shard| shard.processes_for >= fleet.gate.observe);
        let is_proven = fleet.configs.get(&fleet.template).is_some_and(|config| config.standing == Standing::Proven);
        worse_than_others(&tried, &others, [percent_max, if is_proven { percent_beyond_doubt } else { percent_max }])
    })
}

/// Over the time for which all of them are followed: compared with all that was before, because some records may have always been bad, and with what the revision before
/// makes of what comes in meanwhile, because they may be bad since a moment ago: so many times as many as before, as they are there. `percents_max`: with
/// such a revision to compare with, and without.
fn worse_than_others(tried: &[Tried<'_>], others: &[&Trend], percents_max: [u64; 2]) -> Option<String> {
    let from = tried.iter().map(|shard| shard.since.0).max()?;
    let (mut before, mut now) = (Taken::default(), Taken::default());
    for shard in tried {
        let taken_at = |at| shard.trend.taken_at(at, Some(shard.since));
        before = before.and(shard.before);
        now = now.and(taken_at(shard.trend.span()?.1).since(taken_at(from)));
    }
    let (mut before_elsewhere, mut elsewhere) = (Taken::default(), Taken::default());
    // Those that are not followed for as long say nothing.
    for trend in others.iter().filter(|trend| trend.span().is_some_and(|(first, _)| first <= from)) {
        before_elsewhere = before_elsewhere.and(trend.taken_at(from, None));
        elsewhere = elsewhere.and(trend.taken_at(trend.span()?.1, None).since(trend.taken_at(from, None)));
    }
    let is_compared = elsewhere.records >= RECORDS_MIN;
    let (was, is, was_there) = (before.permille(), now.permille(), before_elsewhere.permille());
    let is_there = if is_compared { elsewhere.permille() } else { 0 };
    let at_least = was.max(is_there);
    let as_there = (was * is_there).checked_div(was_there).unwrap_or(0);
    let expected = at_least.max(as_there.min(at_least + BEYOND_DOUBT_PERCENT * 10));
    let [compared_max, alone_max] = percents_max;
    let percent_max = if is_compared { compared_max } else { alone_max };
    (now.records >= RECORDS_MIN && is / 10 > expected / 10 + percent_max).then(|| {
        let there =
            if is_compared { format!(", and elsewhere {} % where it was {} %", is_there / 10, was_there / 10) } else { String::new() };
        let Taken { records, rejected } = now;
        let (is, was) = (is / 10, was / 10);
        format!("of {records} records that it has processed {rejected} became dead letters, {is} % where it was {was} % before{there}")
    })
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

/// What is still missing before its shards have been seen to process for long enough: by this operator, which may have begun a moment ago.
fn not_observed(workers: &[&Worker], observe: Duration) -> Option<String> {
    let mut shards = owned(workers).peekable();
    if shards.peek().is_none() {
        return Some("its worker has no shard yet".to_owned());
    }
    let is_short = |time: Duration| time < observe;
    for (worker, shard) in shards {
        let number = shard.shard;
        let followed = worker.trends.get(&number).and_then(Trend::span).map_or(Duration::ZERO, |(first, last)| last - first);
        match shard.running_millis.map(Duration::from_millis) {
            None if shard.failure.is_empty() => return Some(format!("shard {number} does not process under it yet")),
            None => return Some(format!("shard {number} failed and is tried again: {}", shard.failure)),
            Some(time) if is_short(time.min(followed)) => return Some(format!("shard {number} is observed for {} s", observe.as_secs())),
            Some(_) if shard.lag_records > 0 && shard.books == shard.books_at_start => {
                return Some(format!("shard {number} has not committed any of its records under it"));
            }
            Some(_) => {}
        }
    }
    None
}
