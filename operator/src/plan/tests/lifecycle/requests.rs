//! What users ask for, in any phase: rewinds, savepoints, a schedule, other secrets; and that a status is deleted. What the operator says of it is written as the real
//! one does it, under the version that it has seen, and what was said to be over must stay over.

use super::*;

/// Of a rewind: longer than a lost node is waited for.
const DEADLINE: u64 = 150;
const RETRIES: u32 = 3;
/// After so long a rewind is over that the operator has begun with: its deadline, the end of its pod on a lost node, and what lagging watches and lost requests take.
const OVER_AFTER: u64 = DEADLINE + 400;

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: Vec<Rewind>,
    /// When the last one was asked for, or no longer.
    pub asked: u64,
    /// Since when the one that is asked for is under way.
    begun: Option<(String, u64)>,
}

impl Life {
    pub fn ask_for_something(&mut self) {
        let nth = self.rng.below(1000);
        match self.rng.below(10) {
            0 | 1 => {
                let name = format!("job-by-user-{}", self.cluster.number());
                self.cluster.ask_for_savepoint(&name, None, None);
            }
            2..=4 => self.ask_for_rewind(nth),
            5 if self.rng.once_in(2) => self.change_rewind(None),
            5 => self.change_job(|objects| objects.schedule = None),
            6 => {
                let every_three_minutes = self.schedule.clone();
                self.change_job(|objects| objects.schedule = every_three_minutes);
            }
            7 => self.change_secret(),
            8 => {
                self.meet("a status is deleted");
                self.requests.begun = None;
                self.change_job(|objects| objects.job.status = None);
            }
            _ => self.cluster.forget_savepoint(nth),
        }
    }

    fn change_job(&mut self, change: impl FnOnce(&mut Objects)) {
        self.cluster.objects.version = self.cluster.number();
        change(&mut self.cluster.objects);
    }

    fn ask_for_rewind(&mut self, nth: u64) {
        let (now, count) = (self.cluster.now, self.requests.all.len());
        let again = self.rng.once_in(8).then(|| self.requests.all.get(nth as usize % count.max(1)).cloned()).flatten();
        let asked = again.unwrap_or_else(|| {
            let to_savepoint = self.cluster.some_copy(nth).filter(|_| !nth.is_multiple_of(3));
            let target = to_savepoint.map_or(RewindTarget::Time(time(now - 20)), RewindTarget::Savepoint);
            Rewind { id: format!("r{count}"), target, deadline: Duration::from_secs(DEADLINE), retries: RETRIES }
        });
        let fate = match self.rng.below(8) {
            0..=3 => Fate::Works,
            4 => Fate::RefusedUntil(now + 100),
            5 => Fate::Fails(self.rng.below(6) as u32),
            6 => Fate::NoRoomUntil(now + 300),
            _ => Fate::Slow,
        };
        self.cluster.bucket.fates.entry(asked.id.clone()).or_insert(fate);
        if self.requests.all.iter().all(|other| other.id != asked.id) {
            self.requests.all.push(asked.clone());
        }
        self.meet(match asked.target {
            RewindTarget::Savepoint(_) => "a rewind to a savepoint is asked for",
            RewindTarget::Time(_) => "a rewind to a time is asked for",
        });
        self.change_rewind(Some(asked));
    }

    fn change_rewind(&mut self, asked: Option<Rewind>) {
        (self.requests.asked, self.requests.begun) = (self.cluster.now, None);
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("{} asks {asked:?} {:?}", self.cluster.now, self.cluster.bucket.fates);
        }
        self.change_job(|objects| objects.rewind = asked);
    }

    /// To another one, which may be wrong; or it is deleted.
    fn change_secret(&mut self) {
        self.meet("a secret changes");
        let secret = self.cluster.number();
        let objects = &mut self.cluster.objects;
        (objects.secret, objects.has_secret) = (secret, !self.rng.once_in(4));
        if self.rng.once_in(3) {
            self.cluster.wrong_secrets.insert(secret);
        }
    }

    pub fn correct_secret(&mut self) {
        if !self.cluster.objects.has_secret || self.cluster.wrong_secrets.contains(&self.cluster.objects.secret) {
            (self.cluster.objects.secret, self.cluster.objects.has_secret) = (self.cluster.number(), true);
        }
    }

    /// The operator has done what it planned, and says how the job is.
    pub fn say(&mut self, is_calm: bool) {
        let Some((seen, status)) = self.operator.report.take() else { return };
        if self.operator.view.job.status.as_ref().is_some_and(|old| !report::is_news(Some(old), &status)) {
            return;
        }
        if !is_calm && self.rng.once_in(12) {
            return self.meet("a request is lost");
        }
        if seen != self.cluster.objects.version {
            return self.meet("a status meets a newer one");
        }
        if self.cluster.objects.job.status.is_none() {
            self.meet("a status comes back");
        }
        self.note_phase(&status);
        if std::env::var("LIFECYCLE_SEED").is_ok() {
            println!("{} says {:?} {:?}", self.cluster.now, status.phase, status.rewind);
        }
        self.change_job(|objects| objects.job.status = Some(status));
    }

    fn note_phase(&mut self, status: &IngestionJobStatus) {
        self.meet(job_is(status.phase));
        let Some(said) = &status.rewind else { return };
        let old = self.cluster.objects.job.status.as_ref().and_then(|status| status.rewind.as_ref()).filter(|old| old.id == said.id);
        let (was, is) = (old.map(|old| old.phase), said.phase);
        let stays = match was {
            Some(RewindPhase::Completed) => is == RewindPhase::Completed,
            Some(RewindPhase::Failed) => matches!(is, RewindPhase::Failed | RewindPhase::Completed),
            Some(RewindPhase::Rewinding) => is != RewindPhase::Pending,
            Some(RewindPhase::Pending) | None => true,
        };
        assert!(stays, "rewind {} was {was:?}, and is {is:?}", said.id);
        match is {
            RewindPhase::Completed => assert!(self.cluster.bucket.begun(&said.id), "rewind {} is said to be done", said.id),
            RewindPhase::Failed => drop(self.cluster.bucket.failed.entry(said.id.clone()).or_insert(self.cluster.now)),
            RewindPhase::Pending | RewindPhase::Rewinding => {}
        }
        if was != Some(is) {
            self.meet(becomes("a rewind", was, &is));
            self.note_failure(is, &said.message);
        }
        let begun = self.requests.begun.take().filter(|(id, _)| *id == said.id);
        self.requests.begun = (is == RewindPhase::Rewinding).then(|| begun.unwrap_or((said.id.clone(), self.cluster.now)));
    }

    /// Why one has failed: it is never for a reason that does not hold.
    fn note_failure(&mut self, is: RewindPhase, message: &str) {
        if is != RewindPhase::Failed {
            return;
        }
        let tries = message.strip_prefix("it was tried ").and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        assert!(tries.is_none_or(|tries| tries > RETRIES + 1), "it is given up too early: {message}");
        self.meet(match message {
            _ if tries.is_some() => "a rewind fails: it was tried too often",
            _ if message.starts_with(&format!("it is not done after {DEADLINE} s")) => "a rewind fails: it takes too long",
            "there is none" => "a rewind fails: what it names is not there",
            "it was given up" | "it had failed, and the job has gone on since" => "a rewind fails: it had failed before",
            other => panic!("nobody knows why: {other}"),
        });
    }

    pub fn check_requests(&self) {
        if let Some((id, since)) = &self.requests.begun {
            let is_asked = self.cluster.objects.rewind.as_ref().is_some_and(|rewind| rewind.id == *id);
            let goes_on = self.cluster.now - since;
            assert!(!is_asked || goes_on < OVER_AFTER, "rewind {id} is under way for {goes_on} s: {:#?}", self.operator.seen);
        }
        for (timeline, id) in &self.cluster.worked {
            let others = self.cluster.worked.iter().filter(|(other, of)| other != timeline && of == id).count();
            assert!(id.is_empty() || others == 0, "the job has gone on from rewind {id} twice: {:?}", self.cluster.worked);
        }
    }
}
