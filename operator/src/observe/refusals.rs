//! What the API server does not take, and since when, as far as this operator has tried. It is seen by trying only, so it is remembered here; an operator that
//! starts anew tries anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::{Refusal, Refused};

/// What is tried is tried every few seconds: what was refused so long ago is no longer tried.
const OLD: Duration = Duration::from_secs(60);

/// The last refusals, by the uid of the job or the savepoint that pods are to be made for, and the template.
#[derive(Default)]
pub struct Refusals(Mutex<BTreeMap<Key, Kept>>);

type Key = (String, String);

struct Kept {
    refusal: Refusal,
    first: Instant,
    last: Instant,
}

impl Refusals {
    /// What came of trying to make a pod of this template. `None`: it was taken, or the API server was not asked.
    pub fn note(&self, of: &str, template: &str, refusal: Option<Refusal>, now: Instant) {
        let mut kept = self.kept();
        let before = kept.remove(&key(of, template));
        if let Some(refusal) = refusal {
            let first = before.map_or(now, |before| before.first);
            kept.insert(key(of, template), Kept { refusal, first, last: now });
        }
    }

    /// What is refused.
    pub fn of(&self, of: &str, template: &str, now: Instant) -> Option<Refused> {
        let kept = self.kept();
        let kept = kept.get(&key(of, template))?;
        Some(Refused { refusal: kept.refusal.clone(), since: now - kept.first })
    }

    /// What was judged is tried anew, if it is tried again.
    pub fn forget(&self, of: &str, template: &str) {
        self.kept().remove(&key(of, template));
    }

    pub(super) fn forget_old(&self, now: Instant) {
        self.kept().retain(|_, kept| now - kept.last < OLD);
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Key, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(of: &str, template: &str) -> Key {
    (of.to_owned(), template.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_count_from_the_first_one_of_a_template_until_one_is_taken() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let full = || Some(Refusal { message: "quota".into(), may_pass: true });
        let since = |template, seconds| refusals.of("job", template, at(seconds)).map(|refused| refused.since.as_secs());
        refusals.note("job", "t1", full(), at(0));
        refusals.note("job", "t1", full(), at(4));
        refusals.note("job", "t2", full(), at(6));
        assert_eq!((since("t1", 8), since("t2", 8)), (Some(8), Some(2)));
        refusals.note("job", "t2", None, at(9));
        assert_eq!((since("t1", 9), since("t2", 9)), (Some(9), None));
        refusals.forget("job", "t1");
        assert_eq!(since("t1", 9), None);
        refusals.note("job", "t2", full(), at(10));
        refusals.forget_old(at(69));
        assert_eq!(since("t2", 69), Some(59));
        refusals.forget_old(at(70));
        assert_eq!(since("t2", 70), None);
    }
}
