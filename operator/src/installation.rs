//! Which of several installations looks after a job. Pure, but for who has been told of it.
//!
//! An installation is all operators that share a lease; its name is the namespace of that. A job's status names the one that looks after the job, and all others
//! leave the job alone. It is named before anything else is done for the job, by a write that names the version of the job that was seen: of two that do so at
//! once one is refused, and sees the other's name before it does anything.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use forebay_crds::IngestionJob;

/// As many jobs as one operator is made for. With more of others' jobs they are named in the log once more now and then.
const NOTED_MAX: usize = 1000;

/// The installation that this operator belongs to.
#[derive(Debug)]
pub struct Installation {
    namespace: String,
    /// Who looks after others' jobs, as it stands in the log, by their uids.
    noted: Mutex<BTreeMap<String, String>>,
}

/// Who looks after a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// This installation.
    Ours,
    /// None so far.
    Nobodys,
    /// Another one, by its name.
    Anothers(&'a str),
}

impl Installation {
    /// By the namespace of its lease.
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), noted: Mutex::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.namespace
    }

    /// Who looks after a job, as its status says.
    pub fn whose<'a>(&self, job: &'a IngestionJob) -> Whose<'a> {
        match job.status.as_ref().and_then(|status| status.operator.as_deref()) {
            None | Some("") => Whose::Nobodys,
            Some(name) if name == self.namespace => Whose::Ours,
            Some(name) => Whose::Anothers(name),
        }
    }

    /// Notes who looks after a job, `None` for this installation. Whether that is news of a job that is another's, or was until now.
    pub fn note(&self, uid: &str, other: Option<&str>) -> bool {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(other) = other else { return noted.remove(uid).is_some() };
        if noted.get(uid).is_some_and(|before| before == other) {
            return false;
        }
        if noted.len() >= NOTED_MAX {
            noted.clear();
        }
        noted.insert(uid.to_owned(), other.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(operator: Option<&str>) -> IngestionJob {
        let spec = serde_json::json!({"inputs": [{"name": "i", "topic": "t"}], "deadLetter": {"topic": "d"}, "pipeline": []});
        let status = serde_json::json!({ "phase": "Running", "operator": operator });
        serde_json::from_value(serde_json::json!({"metadata": {"name": "j", "namespace": "n"}, "spec": spec, "status": status})).unwrap()
    }

    /// Method: of one job, whoever its status names, two installations and a job without any status are asked.
    #[test]
    fn a_job_is_whose_its_status_says_and_nobody_elses() {
        let (one, two) = (Installation::new("one"), Installation::new("two"));
        let check = |operator, expected: (Whose<'_>, Whose<'_>)| {
            let job = job(operator);
            assert_eq!((one.whose(&job), two.whose(&job)), expected, "{operator:?}");
        };
        check(Some("one"), (Whose::Ours, Whose::Anothers("one")));
        check(Some("two"), (Whose::Anothers("two"), Whose::Ours));
        check(Some("three"), (Whose::Anothers("three"), Whose::Anothers("three")));
        check(Some(""), (Whose::Nobodys, Whose::Nobodys));
        check(None, (Whose::Nobodys, Whose::Nobodys));
        let new = IngestionJob { status: None, ..job(None) };
        assert_eq!(one.whose(&new), Whose::Nobodys);
    }

    #[test]
    fn who_looks_after_a_job_is_news_when_it_has_changed() {
        let one = Installation::new("one");
        let said = [Some("two"), Some("two"), Some("three"), None, None, Some("two")].map(|other| one.note("uid", other));
        assert_eq!(said, [true, false, true, true, false, true]);
        assert!(!one.note("another", None));
        for number in 0..NOTED_MAX {
            assert!(one.note(&number.to_string(), Some("two")));
        }
        assert!(one.noted.lock().unwrap().len() <= NOTED_MAX);
    }
}
