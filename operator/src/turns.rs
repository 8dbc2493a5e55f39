//! First looks at jobs take turns: each of them opens connections, and an operator that is started sees all of its jobs at the same moment. Later looks are as far
//! apart as the first ones were.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Enough to keep the one thread at work, whatever workers take to answer.
const PLACES: usize = 16;
/// For how long a look keeps others from their turn: one that waits for a silent worker must not put off that others' are noticed. So 160 of them begin in a second
/// even if all wait in vain.
const TURN_MAX: Duration = Duration::from_millis(100);

/// Who may begin.
pub struct Turns {
    places: Semaphore,
    turn_max: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Semaphore::new(PLACES), turn_max: TURN_MAX }
    }
}

impl Turns {
    /// Does the work when its turn has come.
    pub async fn take<T>(&self, work: impl Future<Output = T>) -> T {
        let place = self.places.acquire().await.expect("it is never closed");
        let mut work = pin!(work);
        match timeout(self.turn_max, work.as_mut()).await {
            Ok(done) => done,
            Err(_) => {
                drop(place);
                work.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::future::{join_all, pending, ready};
    use futures::poll;
    use tokio::sync::oneshot;

    use super::*;

    /// Method: more works than there are places, each of which is over when it is told so; those that have begun are counted.
    #[tokio::test]
    async fn no_more_than_there_are_places_for_work_at_once_and_all_have_their_turn() {
        let (turns, begun, count) = (Turns { turn_max: Duration::MAX, ..Turns::default() }, RefCell::new(0), 3 * PLACES);
        let (ends, works): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (end, ended) = oneshot::channel::<()>();
                let work = async {
                    *begun.borrow_mut() += 1;
                    ended.await.unwrap();
                };
                (end, turns.take(work))
            })
            .unzip();
        let mut all = pin!(join_all(works));
        for (number, end) in ends.into_iter().enumerate() {
            assert!(poll!(all.as_mut()).is_pending());
            assert_eq!(*begun.borrow(), (PLACES + number).min(count));
            end.send(()).unwrap();
        }
        all.await;
    }

    /// Method: all places are taken by works that never end, and turns that are over at once.
    #[tokio::test]
    async fn one_that_waits_in_vain_does_not_keep_others_from_their_turn() {
        let turns = Turns { turn_max: Duration::ZERO, ..Turns::default() };
        let stuck = join_all((0..PLACES).map(|_| turns.take(pending::<()>())));
        tokio::select! {
            biased;
            _ = stuck => unreachable!("they never end"),
            seven = turns.take(ready(7)) => assert_eq!(seven, 7),
        }
    }
}
