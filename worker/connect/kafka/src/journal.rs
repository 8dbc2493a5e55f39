//! Reads journals. A read has its end fixed before it begins: the high watermark as an uncommitted reader sees it. Reading goes by position,
//! which moves over transaction markers and aborted records; no read ends early because the last thing in a journal is no record.
//!
//! Consumers are kept between reads, a few per view: a new one costs connections and threads, an assignment costs milliseconds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::ids::{JournalOffset, ShardId};
use forebay_engine::journal;
use forebay_engine::log::{JournalEntry, JournalRange, LogError, View};
use rdkafka::Message;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::context::{ClientEvents, Heard};
use crate::errors::{code_of, creation, log_error};
use crate::offsets;
use crate::options::KafkaOptions;
use crate::retire::retire;

/// Readers kept per view. More shards than this claim at once only at a start, and then the extra ones are made and dropped.
const IDLE_MAX: usize = 2;

/// How long one poll waits. A position that has moved over a marker is noticed after it, so it is short.
const POLL: Duration = Duration::from_millis(5);

/// Which records a reader is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// All of them.
    Uncommitted,
    /// Those of committed transactions, up to the last stable offset.
    Committed,
}

/// Consumers for short reads and questions.
pub(crate) struct Readers {
    options: Arc<KafkaOptions>,
    heard: Arc<Heard>,
    uncommitted: Mutex<Vec<Reader>>,
    committed: Mutex<Vec<Reader>>,
}

type Reader = BaseConsumer<ClientEvents>;

impl Readers {
    pub(crate) fn new(options: Arc<KafkaOptions>, heard: Arc<Heard>) -> Self {
        Self { options, heard, uncommitted: Mutex::default(), committed: Mutex::default() }
    }

    /// Lends a reader. One that has failed is not used again; nor, if a broker may be to blame, are those that rest: they know what leads what from the
    /// same time.
    pub(crate) fn with<T>(&self, isolation: Isolation, call: impl FnOnce(&Reader) -> Result<T, LogError>) -> Result<T, LogError> {
        let idle = match isolation {
            Isolation::Uncommitted => &self.uncommitted,
            Isolation::Committed => &self.committed,
        };
        let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = kept.map_or_else(|| self.open(isolation), Ok)?;
        reader.client().context().log_in(reader.client());
        let result = call(&reader);
        if matches!(result, Err(LogError::Unavailable { .. })) {
            for idle in [&self.uncommitted, &self.committed] {
                idle.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(retire);
            }
        }
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.is_ok() && idle.len() < IDLE_MAX {
            idle.push(reader);
        } else {
            retire(reader);
        }
        result
    }

    /// The oldest offset and the end of a partition: the high watermark, or the last stable offset for a committed reader.
    pub(crate) fn watermarks(&self, isolation: Isolation, action: &str, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let (place, limit) = ((topic, signed(partition)), self.options.request_timeout);
        self.with(isolation, |reader| {
            let found = reader.fetch_watermarks(topic, place.1, limit);
            let (low, high) = found.map_err(|e| offsets::partition_error(reader, &self.heard, action, place, &e, limit))?;
            Ok((u64::try_from(low).unwrap_or_default(), u64::try_from(high).unwrap_or_default()))
        })
    }

    /// See [`forebay_engine::log::Log::read_journal`].
    pub(crate) fn read(
        &self,
        shard: ShardId,
        from: JournalOffset,
        view: View,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<JournalRange, LogError> {
        let action = format!("read the journal of shard {shard} from offset {from}");
        let topic = &self.options.topics.journal;
        let (low, high) = self.watermarks(Isolation::Uncommitted, &action, topic, shard.get())?;
        check_range(&action, topic, shard.get(), from.get(), (low, high), JOURNAL_WAY_OUT)?;
        let (isolation, end) = match view {
            View::Uncommitted => (Isolation::Uncommitted, high),
            View::CommittedToEnd => (Isolation::Committed, high),
            View::CommittedSoFar => {
                let (_, stable) = self.watermarks(Isolation::Committed, &action, topic, shard.get())?;
                (Isolation::Committed, stable.min(high).max(from.get()))
            }
        };
        let range = JournalRange { start: JournalOffset::new(low), end: JournalOffset::new(end) };
        if from.get() < end {
            self.with(isolation, |reader| self.run(reader, &action, shard, from.get()..end, each))?;
        } else if view == View::CommittedToEnd {
            // Nothing lies behind `from`, but a transaction that began before it may still be open.
            self.wait_until_stable(&action, shard, end)?;
        }
        Ok(range)
    }

    fn run(
        &self,
        reader: &Reader,
        action: &str,
        shard: ShardId,
        range: std::ops::Range<u64>,
        each: &mut dyn FnMut(JournalEntry),
    ) -> Result<(), LogError> {
        let topic = &self.options.topics.journal;
        let place = format!("{topic}-{shard}");
        let fail = |error: KafkaError| log_error(action, &place, &error, &self.heard);
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(topic, signed(shard.get()), Offset::Offset(offset(range.start))).map_err(fail)?;
        reader.assign(&start).map_err(fail)?;
        let mut at = range.start;
        // The consumer's position may be that of an earlier read until this one's first event has arrived.
        let mut begun = false;
        let mut moved = Instant::now();
        while at < range.end {
            let before = at;
            match reader.poll(POLL) {
                Some(Ok(message)) => {
                    begun = true;
                    let here = u64::try_from(message.offset()).unwrap_or_default();
                    if here >= at && here < range.end {
                        each(JournalEntry { offset: JournalOffset::new(here), bytes: message.payload().unwrap_or_default().to_vec() });
                    }
                    at = at.max(here + 1);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    begun = true;
                    at = at.max(self.position(reader, shard).unwrap_or(at));
                }
                None if begun => at = at.max(self.position(reader, shard).unwrap_or(at)),
                None => {}
                Some(Err(error)) => self.judge(action, shard, at, &error)?,
            }
            if at > before {
                moved = Instant::now();
            } else if moved.elapsed() > self.options.stable_timeout {
                return Err(self.stuck(action, shard, range.end));
            }
        }
        reader.unassign().map_err(fail)
    }

    /// Whether an error ends the read. Most do not: librdkafka goes on trying, and the deadline ends it.
    fn judge(&self, action: &str, shard: ShardId, at: u64, error: &KafkaError) -> Result<(), LogError> {
        let topic = &self.options.topics.journal;
        match code_of(error) {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::LogTruncation) => {
                let range = self.watermarks(Isolation::Uncommitted, action, topic, shard.get())?;
                check_range(action, topic, shard.get(), at, range, JOURNAL_WAY_OUT)
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition) => {
                Err(log_error(action, &format!("{topic}-{shard}"), error, &self.heard))
            }
            _ => {
                tracing::debug!(%shard, %error, "reading a journal goes on after an error");
                Ok(())
            }
        }
    }

    fn position(&self, reader: &Reader, shard: ShardId) -> Option<u64> {
        let positions = reader.position().ok()?;
        match positions.find_partition(&self.options.topics.journal, signed(shard.get()))?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }
    }

    fn wait_until_stable(&self, action: &str, shard: ShardId, end: u64) -> Result<(), LogError> {
        let deadline = Instant::now() + self.options.stable_timeout;
        loop {
            let (_, stable) = self.watermarks(Isolation::Committed, action, &self.options.topics.journal, shard.get())?;
            if stable >= end {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.stuck(action, shard, end));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The error of a read that got no further: names the transaction in the way if that is what it is.
    fn stuck(&self, action: &str, shard: ShardId, end: u64) -> LogError {
        let (topic, waited) = (&self.options.topics.journal, self.options.stable_timeout.as_secs());
        let stable = match self.watermarks(Isolation::Committed, action, topic, shard.get()) {
            Ok((_, stable)) => stable,
            Err(error) => return error,
        };
        let action = action.to_owned();
        if stable >= end {
            let reason =
                format!("no record of {topic}-{shard} arrived for {waited} s; is a broker overloaded or offline{}", self.heard.explain());
            return LogError::Unavailable { action, reason };
        }
        let writer = self.writer_at(&action, shard, stable).unwrap_or_else(|| "an unknown producer".into());
        let reason = format!(
            "{topic}-{shard} is stable only up to offset {stable}, its end is {end}: a transaction of {writer} has been open for more than {waited} s. \
             Kafka aborts it after its producer's transaction time-out; `kafka-transactions.sh find-hanging` and `abort` end one that hangs"
        );
        LogError::Unavailable { action, reason }
    }

    /// Who wrote the record at an offset, as the record itself says.
    fn writer_at(&self, action: &str, shard: ShardId, at: u64) -> Option<String> {
        let mut writer = None;
        let mut each = |entry: JournalEntry| {
            writer =
                journal::head(&entry).ok().map(|head| format!("worker {} (incarnation {})", head.owner.worker, head.owner.incarnation));
        };
        self.with(Isolation::Uncommitted, |reader| self.run(reader, action, shard, at..at + 1, &mut each)).ok()?;
        writer
    }

    fn open(&self, isolation: Isolation) -> Result<Reader, LogError> {
        let role = match isolation {
            Isolation::Uncommitted => "reader of all",
            Isolation::Committed => "reader of committed",
        };
        let events = ClientEvents::new(role, &self.heard);
        let config = self.options.reader(isolation == Isolation::Committed);
        config.create_with_context(events).map_err(|e| creation("open a reader", &e))
    }
}

const JOURNAL_WAY_OUT: &str = "start again from the newest manifest; without one that reaches this far, rewind to a savepoint";

/// Whether a position lies in what a partition still has.
pub(crate) fn check_range(
    action: &str,
    topic: &str,
    partition: u32,
    wanted: u64,
    range: (u64, u64),
    way_out: &str,
) -> Result<(), LogError> {
    let (start, end) = range;
    let (action, topic) = (action.to_owned(), topic.to_owned());
    if wanted < start {
        return Err(LogError::Cut { action, topic, partition, wanted, start, way_out: way_out.into() });
    }
    if wanted > end {
        return Err(LogError::Beyond { action, topic, partition, wanted, end });
    }
    Ok(())
}

/// A partition's number as librdkafka has it.
pub(crate) fn signed(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// An offset as librdkafka has it.
pub(crate) fn offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
