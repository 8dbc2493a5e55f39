//! What must hold at every moment, whatever goes wrong; and where the job must have come to, once nothing does any more.

use super::*;

impl Life {
    /// No job stops for a rewind that was given up. Nobody is given a shard that another one still has, whatever becomes of that one; and of those who answer and are to stay, no two are given the same.
    pub fn check_plan(&self) {
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
        if let Some(asked) = seen.rewind.asked.as_ref().filter(|asked| asked.said.is_none()) {
            let id = &asked.rewind.id;
            let is_given_up = heard().any(|(_, said)| said.rewinds_given_up.contains(id)) && !self.cluster.bucket.begun(id);
            let stops = matches!(seen.rewind(), Some(Progress::Rewinding { .. }));
            assert!(!is_given_up || !stops, "the job stops for rewind {id}, which a worker says was given up: {seen:#?}");
        }
        let goes = |worker: &Worker| actions.iter().any(|action| matches!(action, Action::DeletePod { uid, .. } if *uid == worker.uid));
        let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
        for worker in seen.workers.iter().filter(|worker| worker.is_live() && !goes(worker)) {
            let Some(said) = worker.heard().filter(|said| said.timeline == seen.timeline()) else { continue };
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

    /// Of what is asked for: none of it takes what is still needed, or does twice what is to be done once.
    pub fn check_request(&self, action: &Action, is_late: bool) {
        match action {
            Action::DoomSavepoint(name) | Action::DeleteSavepoint(name) => self.check_spared(name, is_late),
            Action::TakeSavepoint(due) => self.check_due(*due, is_late),
            Action::PutBack { template, .. } => {
                let knows_all = !is_late && self.cluster.unsure_until < self.cluster.now;
                let refuses =
                    self.cluster.objects.pods.iter().find(|pod| pod.template == *template && !pod.is_lost && pod.runs_something());
                assert!(!knows_all || refuses.is_none(), "letters of {template} are put back, and this one makes more: {refuses:#?}");
            }
            _ => {}
        }
    }

    /// What was just made is within what was wanted lately and what a change takes, is no second one that tries a change, and is of no revision that is known to be bad.
    pub fn check_new_pod(&self, action: &Action) {
        let objects = &self.cluster.objects;
        let new = objects.pods.last().expect("it was just made");
        let live = objects.pods.iter().filter(|pod| pod.is_live()).count() as u32;
        let wanted = self.cluster.replicas_lately.iter().max().copied().unwrap_or(0);
        // One that tries a change, and one that tried the change before and is on its way out.
        // One of which the operator does not know that it was made may get a second beside it.
        let unknown = u32::from(self.cluster.unsure_until >= self.cluster.now);
        assert!(live <= wanted + 2 + unknown, "{action:?}: {live} pods of {wanted}: {objects:#?} seen {:#?}", self.operator.seen);
        let standing = |template: &str| objects.configs.get(template).map(|config| &config.standing);
        let has_good = objects.configs.values().any(|config| matches!(config.standing, Standing::Good(_)));
        let alike = objects.pods.iter().filter(|pod| pod.is_live() && pod.template == new.template).count();
        // One of which the operator does not know yet that it was made may get a second beside it, which goes at once.
        let knows_all = self.cluster.unsure_until < self.cluster.now;
        if has_good && knows_all && standing(&new.template) == Some(&Standing::Untried) {
            assert!(alike <= 1, "{action:?}: {alike} pods try a change");
        }
        let bad_for = self.cluster.bad_since.get(&new.template).map_or(0, |since| self.cluster.now - since);
        assert!(bad_for < 60, "{action:?}: it is known to be bad for {bad_for} s");
    }

    pub fn is_no_worse(&self, template: &str) -> bool {
        self.cluster.quality(template) == Quality::Refuses && self.no_worse.contains(template)
    }

    pub fn check(&self) {
        if self.cluster.objects.end.deleted.is_none() {
            self.check_requests();
        }
        self.cluster.check_savepoints();
        let is_deleted = self.cluster.objects.end.deleted.is_some();
        let is_overdue =
            |pod: &&Pod| !is_deleted && pod.is_frozen && !pod.is_lost && pod.ends.is_some_and(|ends| ends + OVERDUE < self.cluster.now);
        for pod in self.cluster.objects.pods.iter().filter(is_overdue) {
            assert!(!pod.runs_something(), "it was to be gone, and goes on: {pod:?}");
        }
        self.cluster.check_timelines();
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
    pub fn amiss(&mut self) -> Option<String> {
        let seen = self.operator.look(&self.cluster);
        let (wanted, rollout) = (self.cluster.objects.replicas as usize, Rollout::of(&seen));
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
        if let Some(unfinished) = self.unfinished(&seen) {
            return Some(unfinished);
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

impl Life {
    /// What users have asked for, and is not over; or not as it should be after that.
    fn unfinished(&self, seen: &Fleet) -> Option<String> {
        let objects = &self.cluster.objects;
        let is_over = match seen.rewind() {
            None | Some(Progress::Completed | Progress::Failed(_)) => true,
            // Of a job that rests a change waits, and a rewind for it.
            Some(Progress::Pending(_)) => objects.replicas == 0,
            Some(Progress::Rewinding { .. }) => false,
        };
        if !is_over || !objects.rewinders.is_empty() {
            return Some(format!("a rewind is not over: {:?}, {:?}", seen.rewind(), objects.rewinders));
        }
        let timeline = self.cluster.bucket.current();
        let elsewhere = seen.workers.iter().filter_map(Worker::heard).find(|said| said.timeline != timeline.0);
        if elsewhere.is_some() {
            return Some(format!("the job is in {timeline:?}, and this one works elsewhere: {elsewhere:?}"));
        }
        if objects.savepoints.values().any(|kept| !kept.is_over()) || !objects.copiers.is_empty() {
            return Some(format!("savepoints are not over: {:?}, {:?}", objects.savepoints, objects.copiers));
        }
        if let Some(wrong) = objects.schedule.as_ref().and_then(|_| self.cluster.off_schedule()) {
            return Some(wrong);
        }
        if seen.workers.iter().any(Worker::is_stale) {
            return Some("a worker has the secret of before".to_owned());
        }
        let status = self.operator.status(seen, self.cluster.now);
        report::is_news(objects.job.status.as_ref(), &status).then(|| format!("{:?} is said, and not {status:?}", objects.job.status))
    }
}
