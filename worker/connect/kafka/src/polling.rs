//! The thread that polls a producer while it commits, and rests in between.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forebay_engine::log::LogError;
use rdkafka::producer::{BaseProducer, Producer, PurgeConfig};

use crate::delivery::ProducerEvents;

/// How long one poll of the polling thread lasts, whatever it brings: rdkafka's `poll` serves events for the whole time. Dropping a producer
/// waits for its end.
const POLL: Duration = Duration::from_millis(100);

/// How long the polling thread rests between commits. Nothing comes then but errors that the next commit meets anyway; and a token that is
/// renewed is to be passed on.
const REST: Duration = Duration::from_secs(1);

/// What the committing and the polling thread share.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Default)]
struct WatchState {
    stop: bool,
    /// When the commit that is under way must be over.
    deadline: Option<Instant>,
}

impl Watch {
    pub(crate) fn expect_by(&self, deadline: Option<Instant>) {
        self.state().deadline = deadline;
        self.changed.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.changed.notify_one();
    }

    /// Waits for a commit to begin, for [`REST`] at most. False: there will be none any more.
    fn rest(&self) -> bool {
        let idle = |state: &mut WatchState| state.deadline.is_none() && !state.stop;
        let waited = self.changed.wait_timeout_while(self.state(), REST, idle);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Whether a commit is late; says so once.
    fn is_overdue(&self) -> bool {
        self.state().deadline.take_if(|deadline| *deadline <= Instant::now()).is_some()
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn poll_in_background(producer: Arc<BaseProducer<ProducerEvents>>, watch: Arc<Watch>) -> Result<JoinHandle<()>, LogError> {
    let poll = move || {
        while watch.rest() {
            producer.poll(POLL);
            producer.context().events.log_in(producer.client());
            if watch.is_overdue() {
                tracing::warn!("a commit is past its deadline; what its producer still holds is thrown away");
                producer.purge(PurgeConfig::default().queue().inflight());
            }
        }
    };
    let spawned = thread::Builder::new().name("kafka-producer".into()).spawn(poll);
    spawned.map_err(|e| LogError::Unavailable { action: "start a producer's thread".into(), reason: e.to_string() })
}
