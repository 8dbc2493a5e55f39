//! Calls of the log that may never come back are made on threads of their own, and watched from outside. A call that hangs is given up: its
//! answer is never heard, its thread is left alone, and whatever it holds is of no use to anybody any more (a producer's incarnation is barred
//! by the claim that follows).
//!
//! Bounded: while [`HANGING_MAX`] threads hang no new one is started. They end by themselves when their call comes back after all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, bounded};

use crate::helpers::panic_text;
use crate::status::{Counters, Status};

/// How long a call may be late: a thread of a machine that is busy does not get its turn at once.
const GRACE: Duration = Duration::from_secs(5);

/// More threads than this hang only if something is wrong that no further thread will mend. Each holds a client of the log and its memory.
const HANGING_MAX: usize = 16;

/// Starts threads and watches them.
pub(crate) struct Watchdog {
    status: Arc<Status>,
    grace: Duration,
    loose: Mutex<Vec<Loose>>,
}

/// A thread that makes calls.
pub(crate) struct Leash {
    what: String,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
}

/// A thread that nobody waits for any more.
struct Loose {
    leash: Leash,
    /// When it must have ended; `None` once it has been given up.
    due: Option<Instant>,
}

/// A call did not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Hung {
    #[error("{what}: {}", self.reason())]
    Silent { what: String, waited_seconds: u64 },
    #[error("{what}: {}", self.reason())]
    Panicked { what: String },
    #[error("{what}: {}", self.reason())]
    TooMany { what: String, count: usize },
    #[error("{what}: {}", self.reason())]
    NoThread { what: String, reason: String },
}

impl Hung {
    /// What came of it, without what was attempted.
    pub(crate) fn reason(&self) -> String {
        match self {
            Hung::Silent { waited_seconds, .. } => {
                format!("no answer in {waited_seconds} s, and the call has a deadline of its own; it is given up")
            }
            Hung::Panicked { .. } => "its thread panicked".into(),
            Hung::TooMany { count, .. } => {
                format!("not tried, {count} earlier calls hang; they end when the brokers answer again, else restart this process")
            }
            Hung::NoThread { reason, .. } => format!("start a thread: {reason}"),
        }
    }
}

impl Watchdog {
    pub(crate) fn new(status: Arc<Status>) -> Self {
        Self::with_grace(status, GRACE)
    }

    fn with_grace(status: Arc<Status>, grace: Duration) -> Self {
        Self { status, grace, loose: Mutex::default() }
    }

    /// Makes one call; `Err` when it has not come back some seconds after its deadline.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Duration,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hung> {
        let (answer, answers) = bounded(1);
        let leash = self.start(what, move || drop(answer.send(act())))?;
        self.await_answer(leash, &answers, deadline).map(|(answer, leash)| {
            self.release(leash);
            answer
        })
    }

    /// Starts a thread. It is to give its answers by a channel whose other end is dropped together with the leash.
    pub(crate) fn start(&self, what: &str, work: impl FnOnce() + Send + 'static) -> Result<Leash, Hung> {
        let hanging = self.look();
        let what = what.to_owned();
        if hanging >= HANGING_MAX {
            return Err(Hung::TooMany { what, count: hanging });
        }
        let (end, ended) = bounded::<()>(0);
        let body = move || {
            let _end = end;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                tracing::error!(reason = panic_text(&*panic), "a call of the log panicked");
            }
        };
        match std::thread::Builder::new().name("log-call".into()).spawn(body) {
            Ok(_detached) => Ok(Leash { what, ended }),
            Err(error) => Err(Hung::NoThread { what, reason: error.to_string() }),
        }
    }

    /// Waits for a thread's next answer. On `Err` it has been given up, or is no more.
    pub(crate) fn await_answer<T>(&self, leash: Leash, answers: &Receiver<T>, deadline: Duration) -> Result<(T, Leash), Hung> {
        let limit = deadline.saturating_add(self.grace);
        match answers.recv_timeout(limit) {
            Ok(answer) => Ok((answer, leash)),
            Err(RecvTimeoutError::Disconnected) => Err(Hung::Panicked { what: leash.what }),
            Err(RecvTimeoutError::Timeout) => {
                let what = leash.what.clone();
                self.give_up(&leash);
                self.loose().push(Loose { leash, due: None });
                Err(Hung::Silent { what, waited_seconds: limit.as_secs() })
            }
        }
    }

    /// Nobody waits for this thread any more. It should end soon; whether it did is looked at later.
    pub(crate) fn release(&self, leash: Leash) {
        let due = Instant::now().checked_add(self.grace);
        self.loose().push(Loose { leash, due });
        self.look();
    }

    /// Waits, a little, until all threads have ended that were released and not given up.
    pub(crate) fn settle(&self) {
        let loose = std::mem::take(&mut *self.loose());
        for thread in loose.into_iter().filter(|thread| thread.due.is_some()) {
            if let Err(RecvTimeoutError::Timeout) = thread.leash.ended.recv_timeout(self.grace) {
                self.give_up(&thread.leash);
            }
        }
    }

    /// Forgets what has ended, gives up what is overdue. Returns how many hang.
    fn look(&self) -> usize {
        let now = Instant::now();
        let mut loose = self.loose();
        loose.retain_mut(|thread| {
            if thread.leash.ended.try_recv() == Err(TryRecvError::Disconnected) {
                if thread.due.is_none() {
                    tracing::warn!(call = thread.leash.what, "a call that had been given up came back; nobody listened");
                }
                return false;
            }
            if thread.due.is_some_and(|due| due < now) {
                thread.due = None;
                self.give_up(&thread.leash);
            }
            true
        });
        loose.iter().filter(|thread| thread.due.is_none()).count()
    }

    fn give_up(&self, leash: &Leash) {
        Counters::add(&self.status.counters.calls_given_up, 1);
        tracing::error!(call = leash.what, "a call of the log hangs past its deadline; its thread is given up");
    }

    fn loose(&self) -> std::sync::MutexGuard<'_, Vec<Loose>> {
        self.loose.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    /// Gives calls up as soon as their deadline is over.
    pub(crate) fn impatient(status: &Arc<Status>) -> Watchdog {
        Watchdog::with_grace(status.clone(), Duration::ZERO)
    }

    fn given_up(status: &Status) -> u64 {
        status.counters.calls_given_up.load(Ordering::Relaxed)
    }

    #[test]
    fn a_call_that_hangs_is_given_up_counted_and_never_heard() {
        let status = Arc::<Status>::default();
        let watchdog = impatient(&status);
        let (release, hold) = bounded::<()>(0);
        let hung = watchdog.call("bar w0.1", Duration::ZERO, move || _ = hold.recv());
        assert_eq!(hung.unwrap_err().to_string(), "bar w0.1: no answer in 0 s, and the call has a deadline of its own; it is given up");
        assert_eq!((given_up(&status), watchdog.look()), (1, 1));
        let ended = watchdog.loose()[0].leash.ended.clone();
        drop(release);
        assert!(ended.recv().is_err(), "the thread ends by itself");
        assert_eq!((given_up(&status), watchdog.look()), (1, 0));
    }

    #[test]
    fn an_answer_in_time_and_a_panic_are_told_apart() {
        let watchdog = impatient(&Arc::default());
        assert_eq!(watchdog.call("add", Duration::MAX, || 3 + 4).unwrap(), 7);
        let panicked = watchdog.call("divide", Duration::MAX, || panic!("by zero"));
        assert_eq!(panicked.map(|()| 0).unwrap_err().to_string(), "divide: its thread panicked");
    }

    #[test]
    fn no_more_threads_are_started_than_may_hang() {
        let status = Arc::<Status>::default();
        let watchdog = impatient(&status);
        let (_release, hold) = bounded::<()>(0);
        let hang = |_: usize| {
            let hold = hold.clone();
            watchdog.call("commit", Duration::ZERO, move || _ = hold.recv()).unwrap_err()
        };
        assert!((0..HANGING_MAX).map(hang).all(|hung| matches!(hung, Hung::Silent { .. })));
        assert!(matches!(hang(0), Hung::TooMany { count: HANGING_MAX, .. }));
        assert_eq!(given_up(&status), HANGING_MAX as u64);
    }

    #[test]
    fn a_thread_that_does_not_end_after_its_work_is_counted_too() {
        // Such as a producer that is dropped and waits for a broker.
        let status = Arc::<Status>::default();
        let watchdog = impatient(&status);
        let (_release, hold) = bounded::<()>(0);
        let leash = watchdog.start("close the producer", move || _ = hold.recv()).unwrap();
        watchdog.release(leash);
        while watchdog.look() == 0 {}
        assert_eq!(given_up(&status), 1);
    }
}
