//! Which attempt to restore a shard is the one that is waited for. A restore that nobody waits for any more ends soon, and while it goes on in the shard's folder no
//! other begins there, and no preparation.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use forebay_engine::ids::ShardId;
use forebay_engine::worker::Attempt;

/// The restores of a worker.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    shards: Mutex<BTreeMap<ShardId, Turn>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    wanted: Option<Attempt>,
    is_busy: bool,
}

/// What becomes of who wants to enter.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Unwanted,
    Busy,
    Entered,
}

impl Turn {
    fn try_enter(&mut self, attempt: Attempt) -> Entry {
        if self.wanted != Some(attempt) {
            return Entry::Unwanted;
        }
        if self.is_busy {
            return Entry::Busy;
        }
        self.is_busy = true;
        Entry::Entered
    }
}

/// A shard's folder, in the hands of one restore or preparation until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Turns>,
    shard: ShardId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.shards().entry(self.shard).or_default().is_busy = false;
        self.turns.changed.notify_all();
    }
}

impl Turns {
    /// From now on this attempt is waited for; none with `None`.
    pub(crate) fn want(&self, shard: ShardId, attempt: Option<Attempt>) {
        self.shards().entry(shard).or_default().wanted = attempt;
        self.changed.notify_all();
    }

    /// Whether it is waited for.
    pub(crate) fn is_wanted(&self, shard: ShardId, attempt: Attempt) -> bool {
        self.shards().get(&shard).is_some_and(|turn| turn.wanted == Some(attempt))
    }

    /// Waits for the shard's folder. `None` once the attempt is not waited for any more.
    pub(crate) fn enter(self: &Arc<Self>, shard: ShardId, attempt: Attempt) -> Option<Place> {
        let mut shards = self.shards();
        loop {
            match shards.entry(shard).or_default().try_enter(attempt) {
                Entry::Unwanted => return None,
                Entry::Entered => return Some(Place { turns: self.clone(), shard }),
                Entry::Busy => shards = self.changed.wait(shards).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The shard's folder, for somebody who can do without it. `None` while a restore goes on there.
    pub(crate) fn enter_if_free(self: &Arc<Self>, shard: ShardId) -> Option<Place> {
        let mut shards = self.shards();
        let turn = shards.entry(shard).or_default();
        let is_free = !std::mem::replace(&mut turn.is_busy, true);
        is_free.then(|| Place { turns: self.clone(), shard })
    }

    /// Does something if the attempt is waited for, and says whether it did: what follows [`Turns::want`] follows it.
    pub(crate) fn hand_over(&self, shard: ShardId, attempt: Attempt, act: impl FnOnce()) -> bool {
        let shards = self.shards();
        let is_wanted = shards.get(&shard).is_some_and(|turn| turn.wanted == Some(attempt));
        if is_wanted {
            act();
        }
        is_wanted
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<ShardId, Turn>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    const SHARD: ShardId = ShardId::new(3);

    fn attempts() -> [Attempt; 3] {
        std::array::from_fn(|number| Attempt(number as u64))
    }

    #[test]
    fn only_the_attempt_that_is_waited_for_is_handed_over() {
        let (turns, [first, second, _]) = (Arc::new(Turns::default()), attempts());
        turns.want(SHARD, Some(first));
        let place = turns.enter(SHARD, first).unwrap();
        assert!(turns.is_wanted(SHARD, first));
        turns.want(SHARD, Some(second));
        assert!(!turns.is_wanted(SHARD, first));
        assert!(!turns.hand_over(SHARD, first, || panic!("nobody waits for it")));
        assert!(turns.enter(SHARD, first).is_none());
        assert!(turns.enter_if_free(SHARD).is_none());
        drop(place);
        drop(turns.enter_if_free(SHARD).unwrap());
        let _place = turns.enter(SHARD, second).unwrap();
        let mut is_done = false;
        assert!(turns.hand_over(SHARD, second, || is_done = true) && is_done);
        turns.want(SHARD, None);
        assert!(!turns.is_wanted(SHARD, second));
    }

    /// Method: two attempts wait for the folder that the first one has; one of them is given up meanwhile. Whoever is let in says so.
    #[test]
    fn two_are_never_in_one_folder_and_who_is_given_up_stops_waiting() {
        let (turns, [first, second, third]) = (Arc::new(Turns::default()), attempts());
        turns.want(SHARD, Some(first));
        let place = turns.enter(SHARD, first).unwrap();
        let (say, said) = bounded(2);
        let wait_for = |attempt: Attempt| {
            let (turns, say) = (turns.clone(), say.clone());
            std::thread::spawn(move || {
                let place = turns.enter(SHARD, attempt);
                say.send((attempt, place.is_some())).unwrap();
            })
        };
        turns.want(SHARD, Some(second));
        let waits = wait_for(second);
        turns.want(SHARD, Some(third));
        assert_eq!(said.recv().unwrap(), (second, false));
        waits.join().unwrap();
        assert_eq!(turns.shards().entry(SHARD).or_default().try_enter(third), Entry::Busy);
        let waits = wait_for(third);
        drop(place);
        assert_eq!(said.recv().unwrap(), (third, true));
        waits.join().unwrap();
    }
}
