//! What became of the records of one transaction: how many are on their way, where the journal's lie, what failed first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::ids::{ShardId, Timestamp};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use crate::context::ClientEvents;

/// What a record is to the transaction that sends it. It travels through librdkafka as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// The output with this number, counted over all shards.
    Output(usize),
    /// A chunk of a shard's journal record.
    Journal(ShardId),
}

impl Errand {
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Output(number) => number << 1,
            Self::Journal(shard) => (shard.get() as usize) << 1 | 1,
        }
    }

    fn of(number: usize) -> Self {
        match number & 1 {
            0 => Self::Output(number >> 1),
            _ => Self::Journal(ShardId::new(u32::try_from(number >> 1).expect("made of a shard's number"))),
        }
    }
}

/// The first record that was not taken.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub errand: Errand,
    pub code: RDKafkaErrorCode,
    /// Topic and size, to find the record.
    pub record: String,
}

/// Filled by the thread that polls the producer, read by the one that commits.
#[derive(Default)]
pub(crate) struct Deliveries {
    under_way: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    journal: Vec<(ShardId, u64)>,
    appended_millis: Option<i64>,
    failure: Option<Failure>,
}

impl Deliveries {
    /// Forgets the last transaction.
    pub(crate) fn clear(&self) {
        self.under_way.store(0, Ordering::SeqCst);
        *self.state() = State::default();
    }

    /// One more record is handed to librdkafka.
    pub(crate) fn sent(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
    }

    /// It was not taken after all.
    pub(crate) fn taken_back(&self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }

    /// The first failure so far.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// Waits until every record has arrived or one has failed. False when time is up.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        loop {
            if state.failure.is_some() || self.under_way.load(Ordering::SeqCst) == 0 {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left.min(Duration::from_millis(50))).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Where the journal's chunks lie, in no order, and when the first was appended by the brokers' clock.
    pub(crate) fn take_journal(&self) -> (Vec<(ShardId, u64)>, Option<Timestamp>) {
        let mut state = self.state();
        (std::mem::take(&mut state.journal), state.appended_millis.take().map(Timestamp::from_millis))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callbacks of a producer.
pub(crate) struct ProducerEvents {
    pub events: ClientEvents,
    pub deliveries: Arc<Deliveries>,
}

impl ClientContext for ProducerEvents {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.events.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.events.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.error(error, reason);
    }
}

impl ProducerContext for ProducerEvents {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let errand = Errand::of(number);
        match result {
            Ok(message) => {
                if let Errand::Journal(shard) = errand {
                    let mut state = self.deliveries.state();
                    state.journal.push((shard, u64::try_from(message.offset()).unwrap_or_default()));
                    // Any other time stamp is this machine's own.
                    if let rdkafka::Timestamp::LogAppendTime(millis) = message.timestamp() {
                        state.appended_millis = Some(state.appended_millis.map_or(millis, |first| first.min(millis)));
                    }
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                let record = format!("{} ({} bytes)", message.topic(), message.payload_len() + message.key_len());
                let mut state = self.deliveries.state();
                // Once one record has failed librdkafka throws the others away; those say nothing.
                let consequence = matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight);
                if state.failure.is_none() && !consequence {
                    state.failure = Some(Failure { errand, code, record });
                    self.deliveries.changed.notify_all();
                }
            }
        }
        if self.deliveries.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Taking the lock keeps this from falling between the other's look and its wait.
            drop(self.deliveries.state());
            self.deliveries.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_survives_its_trip_as_a_number() {
        for errand in
            [Errand::Output(0), Errand::Output(9_999_999), Errand::Journal(ShardId::new(0)), Errand::Journal(ShardId::new(u32::MAX))]
        {
            assert_eq!(Errand::of(errand.number()), errand);
        }
    }

    #[test]
    fn waiting_ends_with_the_last_record_or_at_the_deadline() {
        let deliveries = Deliveries::default();
        assert!(deliveries.wait(Instant::now()));
        deliveries.sent();
        assert!(!deliveries.wait(Instant::now()));
        deliveries.taken_back();
        assert!(deliveries.wait(Instant::now()));
    }
}
