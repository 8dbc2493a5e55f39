//! Reads one shard's input partitions, each from a queue of its own, on the thread that runs the shard.
//!
//! Queues are polled without waiting; when all are empty the thread sleeps until librdkafka rings, and looks again after [`NAP`] even if it
//! does not: a wake-up that gets lost costs milliseconds, never a stall.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::ids::{InputId, Offset, Partition, ShardId, Timestamp};
use forebay_engine::log::{Bell, Each, InputPosition, InputProgress, InputReader, LogError};
use forebay_engine::record::{Header, InputRecord};
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers};
use rdkafka::topic_partition_list as list;

use crate::context::ClientEvents;
use crate::errors::{code_of, log_error};
use crate::feed::{Feed, Slot, Trouble};
use crate::journal::signed;
use crate::offsets::Place;

/// The longest sleep between two looks at the queues.
const NAP: Duration = Duration::from_millis(10);

/// How often the consumer is asked for positions behind the last record: it costs a trip to librdkafka's main thread.
const POSITIONS_EVERY: Duration = Duration::from_millis(50);

/// The fewest records taken from one partition before the next has its turn: fairness without visiting queues for single records.
const TURN_MIN: usize = 64;

/// What stands in for a header's name that is no UTF-8, which the protocol demands and not every producer keeps to.
const UNREADABLE_NAME: &str = "\u{fffd}";

/// Reads committed records of one shard's input partitions.
pub struct KafkaInput {
    feed: Arc<Feed>,
    action: String,
    lanes: Vec<Lane>,
    /// Whose turn comes first in the next poll.
    first: usize,
    bell: Arc<QueueBell>,
    scratch: Vec<Header<'static>>,
    positions_asked: Option<Instant>,
}

/// One partition.
struct Lane {
    place: Place,
    input: InputId,
    partition: Partition,
    /// Every record before it was handed out.
    next: u64,
    queue: PartitionQueue<ClientEvents>,
    slot: Arc<Slot>,
    /// Reading has come to an end since the consumer was last asked for its position: markers may lie behind the last record.
    at_end: bool,
}

/// Rung by librdkafka when a queue of the shard is no longer empty.
#[derive(Default)]
struct QueueBell {
    rung: Mutex<bool>,
    changed: Condvar,
    /// Who polls, if they sleep elsewhere.
    poller: OnceLock<Bell>,
}

impl QueueBell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
        if let Some(poller) = self.poller.get() {
            poller();
        }
    }

    fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, limit, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl KafkaInput {
    pub(crate) fn open(feed: Arc<Feed>, shard: ShardId, positions: &[InputPosition]) -> Result<Self, LogError> {
        let action = format!("read the inputs of shard {shard}");
        let topics = &feed.options.topics.inputs;
        let place = |position: &InputPosition| (topics[usize::from(position.input.get())].clone(), signed(position.partition.get()));
        let starts: Vec<(Place, u64)> = positions.iter().map(|position| (place(position), position.next.get())).collect();
        let bell = Arc::new(QueueBell::default());
        let acquired = feed.acquire(&action, &starts)?;
        let lanes = acquired.into_iter().zip(starts).zip(positions).map(|(((mut queue, slot), (place, next)), position)| {
            let rope = bell.clone();
            queue.set_nonempty_callback(move || rope.ring());
            Lane { place, input: position.input, partition: position.partition, next, queue, slot, at_end: false }
        });
        let lanes = lanes.collect();
        Ok(Self { feed, action, lanes, first: 0, bell, scratch: Vec::new(), positions_asked: None })
    }

    /// Takes what is there, in turns, until `limit` is reached, `each` asks for a break, or all queues are empty.
    fn sweep(&mut self, limit: usize, each: Each<'_>) -> Result<usize, LogError> {
        let count = self.lanes.len();
        if count == 0 {
            return Ok(0);
        }
        let turn = (limit / count).max(TURN_MIN);
        let (mut handed, mut more, mut stop) = (0, true, false);
        while more && !stop && handed < limit {
            more = false;
            for index in 0..count {
                let lane = &mut self.lanes[(self.first + index) % count];
                let most = if stop { 0 } else { turn.min(limit - handed) };
                let (taken, error) = lane.take(most, &mut self.scratch, &mut |record| {
                    let flow = each(record);
                    stop |= flow.is_break();
                    flow
                });
                if let Some(error) = error {
                    let place = lane.place.clone();
                    self.judge(&error, &place)?;
                }
                handed += taken;
                more |= taken == most;
            }
        }
        self.first = (self.first + 1) % count;
        Ok(handed)
    }

    fn check_trouble(&self) -> Result<(), LogError> {
        let Some((place, trouble)) = self.lanes.iter().find_map(|lane| Some((&lane.place, lane.slot.trouble()?))) else { return Ok(()) };
        Err(match trouble {
            Trouble::Stray => LogError::Unavailable {
                action: self.action.clone(),
                reason: format!("a record of {}-{} went astray inside the client; open the input again", place.0, place.1),
            },
            Trouble::Changed(changed) => changed.error(&self.action),
        })
    }

    /// Whether an error of a partition ends the reading. Most do not: librdkafka goes on trying. Nothing is asked of the brokers here: the other
    /// shards of the thread would wait with this one.
    fn judge(&self, error: &KafkaError, place: &Place) -> Result<(), LogError> {
        let name = format!("{}-{}", place.0, place.1);
        let fail = || Err(log_error(&self.action, &name, error, &self.feed.heard));
        match code_of(error) {
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::LogTruncation
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => {
                let reason = format!("{name}: {error}; the input is opened again, which finds out whether its records are still there");
                Err(LogError::Unavailable { action: self.action.clone(), reason })
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => fail(),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => fail(),
            _ => {
                tracing::debug!(partition = name, %error, "reading goes on after an error");
                Ok(())
            }
        }
    }

    /// Moves positions over what lies behind the last records and is none.
    fn ask_positions(&mut self) {
        let due = self.positions_asked.is_none_or(|asked| asked.elapsed() >= POSITIONS_EVERY);
        if !due || !self.lanes.iter().any(|lane| lane.at_end) {
            return;
        }
        self.positions_asked = Some(Instant::now());
        let Ok(positions) = self.feed.consumer.position() else { return };
        for lane in self.lanes.iter_mut().filter(|lane| lane.at_end) {
            let found = positions.find_partition(&lane.place.0, lane.place.1).map(|element| element.offset());
            if let Some(list::Offset::Offset(at)) = found {
                lane.next = lane.next.max(u64::try_from(at).unwrap_or_default());
            }
            // Having come to the end, it stands at it: the end can only be what it was then, or later.
            lane.slot.raise_end(lane.next);
            lane.at_end = false;
        }
    }
}

impl Lane {
    /// Hands out at most `limit` records; fewer when the queue is empty, `each` asks for a break, or an error comes up. Says how many.
    fn take(&mut self, limit: usize, scratch: &mut Vec<Header<'static>>, each: Each<'_>) -> (usize, Option<KafkaError>) {
        let mut handed = 0;
        while handed < limit {
            match self.queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let here = u64::try_from(message.offset()).unwrap_or_default();
                    // I1: what was handed out once does not come again, whatever an earlier assignment left behind.
                    if here >= self.next {
                        let flow = hand(&message, self.input, self.partition, here, scratch, each);
                        self.next = here + 1;
                        handed += 1;
                        if flow.is_break() {
                            break;
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.at_end = true,
                Some(Err(error)) => return (handed, Some(error)),
                None => break,
            }
        }
        (handed, None)
    }
}

impl InputReader for KafkaInput {
    fn poll_while(&mut self, wait: Duration, limit: usize, each: Each<'_>) -> Result<usize, LogError> {
        self.check_trouble()?;
        let deadline = Instant::now() + wait;
        loop {
            let handed = self.sweep(limit, each)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if handed > 0 || left.is_zero() || limit == 0 {
                return Ok(handed);
            }
            self.bell.wait(left.min(NAP));
        }
    }

    fn ring(&mut self, bell: Bell) -> bool {
        let is_first = self.bell.poller.set(bell).is_ok();
        // What came before it was hung up has rung for nobody.
        if is_first {
            self.bell.ring();
        }
        is_first
    }

    fn progress(&mut self) -> Vec<InputProgress> {
        self.ask_positions();
        let progress = self.lanes.iter().map(|lane| InputProgress {
            position: InputPosition { input: lane.input, partition: lane.partition, next: Offset::new(lane.next) },
            end: Offset::new(lane.slot.end().max(lane.next)),
        });
        progress.collect()
    }
}

impl Drop for KafkaInput {
    fn drop(&mut self) {
        let places: Vec<Place> = self.lanes.iter().map(|lane| lane.place.clone()).collect();
        if !places.is_empty() {
            self.feed.release(&places);
        }
        // What is left in the queues is outdated now; looking at it frees it.
        for lane in &self.lanes {
            while lane.queue.poll(Duration::ZERO).is_some() {}
        }
    }
}

fn hand(
    message: &BorrowedMessage<'_>,
    input: InputId,
    partition: Partition,
    here: u64,
    scratch: &mut Vec<Header<'static>>,
    each: Each<'_>,
) -> ControlFlow<()> {
    let mut headers = recycle(std::mem::take(scratch));
    if let Some(found) = message.headers() {
        headers.extend((0..found.count()).map(|index| header(found, index)));
    }
    let flow = each(&InputRecord {
        input,
        partition,
        offset: Offset::new(here),
        timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(-1)),
        key: message.key(),
        value: message.payload(),
        headers: &headers,
    });
    *scratch = recycle(headers);
    flow
}

/// One header. rdkafka panics over a name that is no UTF-8; one such record must not stop a shard.
fn header(headers: &BorrowedHeaders, index: usize) -> Header<'_> {
    match catch_unwind(AssertUnwindSafe(|| headers.get(index))) {
        Ok(found) => Header { name: found.key, value: found.value },
        Err(_) => Header { name: UNREADABLE_NAME, value: None },
    }
}

/// The same memory for borrows of another lifetime; the vector is emptied. (The standard library collects in place.)
fn recycle<'to>(mut headers: Vec<Header<'_>>) -> Vec<Header<'to>> {
    headers.clear();
    headers.into_iter().map(|_| unreachable!("the vector was emptied")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_vector_is_empty_and_keeps_its_memory() {
        let name = String::from("n");
        let mut headers = Vec::with_capacity(16);
        headers.push(Header { name: &name, value: None });
        let again: Vec<Header<'static>> = recycle(headers);
        assert!(again.is_empty() && again.capacity() >= 16, "capacity {}", again.capacity());
    }

    #[test]
    fn a_bell_that_rang_before_the_wait_is_heard_once() {
        let bell = QueueBell::default();
        bell.ring();
        // Would hang for an hour if the ring were lost.
        bell.wait(Duration::from_secs(3600));
        assert!(!*bell.rung.lock().unwrap());
    }
}
