//! The transactional producer of one incarnation. After any error it refuses everything: its owner drops it, takes a new incarnation and
//! learns from the journals what was committed (I4). It never aborts and never retries a transaction.
//!
//! A thread polls the producer ([`crate::polling`]), so that delivery reports come in while the committing thread sends or waits. It watches the
//! deadline, too: librdkafka's `send_offsets_to_transaction` can hang for ever (its search for the group's coordinator has a time-out that nothing
//! checks, and ends when the broker has answered three times that the coordinator is not available, as one does that has just started). Past the
//! deadline whatever is queued is thrown away, and a call that comes back then is not followed by another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forebay_engine::ids::{Incarnation, JournalOffset, ShardId};
use forebay_engine::log::{JobTopics, LogError, Producer as ProducerPort, Receipt, Transaction};
use forebay_engine::record::OutputRecord;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::topic_partition_list::Offset;

use crate::context::{ClientEvents, Heard};
use crate::delivery::{Deliveries, Errand, Failure, ProducerEvents};
use crate::errors::{code_of, creation, describe, from_code, log_error};
use crate::journal::{offset, signed};
use crate::options::{KafkaOptions, offsets_mark, transactional_id};
use crate::polling::{Watch, poll_in_background};
use crate::retire::retire;

/// The one transactional producer of an incarnation.
pub struct KafkaProducer {
    producer: Arc<BaseProducer<ProducerEvents>>,
    deliveries: Arc<Deliveries>,
    heard: Arc<Heard>,
    group: ConsumerGroupMetadata,
    topics: JobTopics,
    offsets_mark: String,
    incarnation: Incarnation,
    transaction_timeout: Duration,
    watch: Arc<Watch>,
    poller: Option<JoinHandle<()>>,
    spent: Option<Spent>,
}

/// Why a producer refuses everything.
#[derive(Clone)]
enum Spent {
    Fenced,
    Failed(String),
}

impl KafkaProducer {
    /// Opens the producer of an incarnation, `init_transactions` included.
    pub(crate) fn open(
        options: &KafkaOptions,
        heard: &Arc<Heard>,
        group: ConsumerGroupMetadata,
        incarnation: &Incarnation,
    ) -> Result<Self, LogError> {
        let deliveries = Arc::new(Deliveries::default());
        let producer = Arc::new(connect(options, heard, deliveries.clone(), incarnation)?);
        initialise(options, heard, &producer, &format!("open the producer of incarnation {incarnation}"), incarnation)?;
        let watch = Arc::<Watch>::default();
        let poller = poll_in_background(producer.clone(), watch.clone())?;
        Ok(Self {
            producer,
            deliveries,
            heard: heard.clone(),
            group,
            topics: options.topics.clone(),
            offsets_mark: offsets_mark(&options.topics.uid),
            incarnation: incarnation.clone(),
            transaction_timeout: options.transaction_timeout,
            watch,
            poller: Some(poller),
            spent: None,
        })
    }

    fn try_commit(&self, transaction: &Transaction, deadline: Instant) -> Result<Receipt, LogError> {
        self.deliveries.clear();
        self.producer.begin_transaction().map_err(|e| self.call_error("begin a transaction", &e))?;
        self.send_outputs(transaction, deadline)?;
        self.send_journal(transaction, deadline)?;
        // The brokers take in the records while this waits for two round trips.
        self.send_offsets(transaction, deadline)?;
        if !self.deliveries.wait(deadline) {
            return Err(self.unavailable("send a transaction's records", "the brokers did not acknowledge them in time"));
        }
        self.check_deliveries(transaction)?;
        self.settle();
        if Instant::now() >= deadline {
            return Err(self.unavailable("commit a transaction", "its deadline is over; it is not tried any more"));
        }
        self.producer.commit_transaction(left(deadline)).map_err(|e| self.call_error("commit a transaction", &e))?;
        self.check_deliveries(transaction)?;
        self.receipt(transaction)
    }

    fn send_outputs(&self, transaction: &Transaction, deadline: Instant) -> Result<(), LogError> {
        let mut number = 0;
        for outputs in &transaction.outputs {
            for output in outputs.iter() {
                self.send_output(&output, number, deadline)?;
                number += 1;
            }
        }
        Ok(())
    }

    fn send_output(&self, output: &OutputRecord<'_>, number: usize, deadline: Instant) -> Result<(), LogError> {
        let topic = &self.topics.outputs[usize::from(output.output.get())];
        let mut record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(topic, Errand::Output(number).number());
        record.key = output.key;
        record.payload = output.value;
        record.partition = output.partition.map(|partition| signed(partition.get()));
        // librdkafka takes a time stamp of 0 for "now"; a record without one has -1.
        record.timestamp = Some(output.timestamp.as_millis()).filter(|millis| *millis > 0);
        if !output.headers.is_empty() {
            let empty = OwnedHeaders::new_with_capacity(output.headers.len());
            let add = |headers: OwnedHeaders, header: &forebay_engine::record::Header<'_>| {
                headers.insert(Header { key: header.name, value: header.value })
            };
            record.headers = Some(output.headers.iter().fold(empty, add));
        }
        let bytes = output.key.map_or(0, <[u8]>::len) + output.value.map_or(0, <[u8]>::len);
        self.send(record, &format_args!("output {number} for {topic} ({bytes} bytes)"), deadline)
    }

    fn send_journal(&self, transaction: &Transaction, deadline: Instant) -> Result<(), LogError> {
        for (shard, chunks) in &transaction.journal {
            for chunk in chunks {
                let mut record: BaseRecord<'_, [u8], [u8], usize> =
                    BaseRecord::with_opaque_to(&self.topics.journal, Errand::Journal(*shard).number());
                record.payload = Some(chunk);
                record.partition = Some(signed(shard.get()));
                self.send(record, &format_args!("a journal record of shard {shard} ({} bytes)", chunk.len()), deadline)?;
            }
        }
        Ok(())
    }

    /// Hands one record to librdkafka; waits while its memory is full.
    fn send(&self, mut record: BaseRecord<'_, [u8], [u8], usize>, what: &dyn std::fmt::Display, deadline: Instant) -> Result<(), LogError> {
        self.deliveries.sent();
        loop {
            let (error, refused) = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let full = code_of(&error) == Some(RDKafkaErrorCode::QueueFull);
            if !full || self.deliveries.failure().is_some() {
                self.deliveries.taken_back();
                return Err(self.error("send a record", &what.to_string(), &error));
            }
            if Instant::now() >= deadline {
                return Err(self.unavailable("send a transaction's records", "the brokers did not take them in time"));
            }
            record = refused;
            // The polling thread makes room as acknowledgements come in.
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send_offsets(&self, transaction: &Transaction, deadline: Instant) -> Result<(), LogError> {
        if transaction.offsets.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(transaction.offsets.len());
        for position in &transaction.offsets {
            let topic = &self.topics.inputs[usize::from(position.input.get())];
            let mut element = offsets.add_partition(topic, signed(position.partition.get()));
            let next = Offset::Offset(offset(position.next.get()));
            element.set_offset(next).map_err(|e| self.error("add offsets to a transaction", topic, &e))?;
            element.set_metadata(&self.offsets_mark);
        }
        let sent = self.producer.send_offsets_to_transaction(&offsets, &self.group, left(deadline));
        sent.map_err(|e| self.call_error("add offsets to a transaction", &e))
    }

    /// Waits for librdkafka to forget the delivered records. Its own count falls a moment after the last report, and rdkafka's commit would
    /// otherwise wait a whole polling interval (100 ms) for it.
    fn settle(&self) {
        let patience = Instant::now() + Duration::from_millis(20);
        while self.producer.in_flight_count() > 0 && Instant::now() < patience {
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn check_deliveries(&self, transaction: &Transaction) -> Result<(), LogError> {
        let Some(Failure { errand, code, record }) = self.deliveries.failure() else { return Ok(()) };
        let what = match errand {
            Errand::Journal(shard) => format!("a journal record of shard {shard} for {record}"),
            Errand::Output(number) => format!("{} for {record}", output_place(transaction, number)),
        };
        let (code, text) = self.fatal_or(code, code.to_string());
        Err(from_code("send a transaction's records", &what, code, &text, &self.heard))
    }

    fn receipt(&self, transaction: &Transaction) -> Result<Receipt, LogError> {
        let (places, appended) = self.deliveries.take_journal();
        let mut receipt = Receipt { appended, ..Receipt::default() };
        let mut offsets: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
        for (shard, at) in places {
            offsets.entry(shard).or_default().push(at);
        }
        // A partition's records lie there in the order in which they were sent, whatever lies between them.
        offsets.values_mut().for_each(|offsets| offsets.sort_unstable());
        let mut missing = Vec::new();
        for (shard, chunks) in transaction.journal.iter().filter(|(_, chunks)| !chunks.is_empty()) {
            match offsets.get(shard).and_then(|offsets| offsets.get(..chunks.len())) {
                Some([first, rest @ ..]) => {
                    let end = rest.last().unwrap_or(first) + 1;
                    receipt.journal.entry(*shard).or_insert((JournalOffset::new(*first), JournalOffset::new(end)));
                }
                _ => missing.push(*shard),
            }
        }
        if missing.is_empty() {
            Ok(receipt)
        } else {
            Err(self.unavailable("commit a transaction", &format!("no offset was reported for the journal records of {missing:?}")))
        }
    }

    fn call_error(&self, action: &str, error: &KafkaError) -> LogError {
        self.error(action, &transactional_id(&self.topics.uid, &self.incarnation), error)
    }

    fn error(&self, action: &str, what: &str, error: &KafkaError) -> LogError {
        match code_of(error) {
            Some(code) => {
                let (code, text) = self.fatal_or(code, describe(error));
                from_code(action, what, code, &text, &self.heard)
            }
            None => log_error(action, what, error, &self.heard),
        }
    }

    /// A fatal error hides behind a code that only says that there was one.
    fn fatal_or(&self, code: RDKafkaErrorCode, text: String) -> (RDKafkaErrorCode, String) {
        self.producer.client().fatal_error().unwrap_or((code, text))
    }

    fn unavailable(&self, action: &str, reason: &str) -> LogError {
        LogError::Unavailable { action: action.into(), reason: format!("{reason}{}", self.heard.explain()) }
    }
}

impl ProducerPort for KafkaProducer {
    fn commit(&mut self, transaction: &Transaction) -> Result<Receipt, LogError> {
        let action = || format!("commit as incarnation {}", self.incarnation);
        match &self.spent {
            None => {}
            Some(Spent::Fenced) => return Err(LogError::Fenced { action: action() }),
            Some(Spent::Failed(before)) => {
                let reason = format!("this producer has failed before ({before}); take a new incarnation and claim again");
                return Err(LogError::Unavailable { action: action(), reason });
            }
        }
        let deadline = Instant::now() + self.transaction_timeout;
        self.watch.expect_by(Some(deadline));
        let result = self.try_commit(transaction, deadline);
        self.watch.expect_by(None);
        if let Err(error) = &result {
            let fenced = matches!(error, LogError::Fenced { .. });
            self.spent = Some(if fenced { Spent::Fenced } else { Spent::Failed(error.to_string()) });
            // What is still on its way must not trickle in later; the transaction is as good as aborted.
            self.producer.purge(PurgeConfig::default().queue().inflight());
        }
        result
    }
}

/// Blocks until librdkafka's threads have ended, which may take as long as one of them waits for the network.
impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
        self.watch.stop();
        if let Some(poller) = self.poller.take()
            && poller.join().is_err()
        {
            tracing::error!("the thread that polls a producer panicked");
        }
    }
}

/// Bars an incarnation with a throw-away producer; see [`forebay_engine::log::Log::bar`].
pub(crate) fn bar(options: &KafkaOptions, heard: &Arc<Heard>, incarnation: &Incarnation) -> Result<(), LogError> {
    let producer = connect(options, heard, Arc::new(Deliveries::default()), incarnation)?;
    let barred = initialise(options, heard, &producer, &format!("bar incarnation {incarnation}"), incarnation);
    retire(producer);
    barred
}

fn connect(
    options: &KafkaOptions,
    heard: &Arc<Heard>,
    deliveries: Arc<Deliveries>,
    incarnation: &Incarnation,
) -> Result<BaseProducer<ProducerEvents>, LogError> {
    let events = ProducerEvents { events: ClientEvents::new("producer", heard), deliveries };
    let producer: BaseProducer<ProducerEvents> =
        options.producer(incarnation).create_with_context(events).map_err(|e| creation("open a producer", &e))?;
    producer.context().events.log_in(producer.client());
    Ok(producer)
}

fn initialise(
    options: &KafkaOptions,
    heard: &Heard,
    producer: &BaseProducer<ProducerEvents>,
    action: &str,
    incarnation: &Incarnation,
) -> Result<(), LogError> {
    let deadline = Instant::now() + options.request_timeout;
    // Waits for a connection. Asked without one, librdkafka looks for the coordinator again only half a second later. A busy
    // broker may keep it waiting; the other half is for the transactions.
    let _cluster = producer.client().fetch_cluster_id(options.request_timeout / 2);
    producer.init_transactions(left(deadline)).map_err(|error| {
        // Takes in what librdkafka has said meanwhile, so that the error can say why.
        producer.poll(Duration::from_millis(1));
        let what = transactional_id(&options.topics.uid, incarnation);
        match heard.refused() {
            Some(_) => from_code(action, &what, RDKafkaErrorCode::Authentication, &describe(&error), heard),
            None => log_error(action, &what, &error, heard),
        }
    })
}

/// Which output has a number: its shard's place in the transaction, and its place among that shard's outputs.
fn output_place(transaction: &Transaction, mut number: usize) -> String {
    for (group, outputs) in transaction.outputs.iter().enumerate() {
        if number < outputs.len() {
            let key = outputs.iter().nth(number).and_then(|output| output.key.map(|key| String::from_utf8_lossy(key).into_owned()));
            let key = key.map_or_else(|| "no key".to_owned(), |key| format!("key {key:?}"));
            return format!("output {number} of {} of the transaction's part {group} ({key})", outputs.len());
        }
        number -= outputs.len();
    }
    format!("output {number}")
}

fn left(deadline: Instant) -> Duration {
    // Zero would mean "do not wait at all" to librdkafka, even for an answer that is there.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}
