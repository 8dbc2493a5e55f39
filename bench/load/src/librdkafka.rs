//! The part of librdkafka's C API that takes and gives records in batches, for the contestants that are written by hand: they are the limit that
//! others are measured against, and a wrapper that handles records one by one would slow them. It is part of no product.
#![allow(unsafe_code, reason = "a C API; each block says why it may be called so")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::bindings as c;

/// For any blocking call.
const PATIENCE_MS: i32 = 60_000;

/// Records taken in one call.
const BATCH: usize = 4096;

const OK: c::rd_kafka_resp_err_t = c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A consumed record; lives as long as the batch.
pub struct Consumed<'b> {
    pub partition: i32,
    pub offset: i64,
    pub key: &'b [u8],
    pub value: &'b [u8],
}

/// A consumer or producer. Never closed: the process ends with it.
struct Client(*mut c::rd_kafka_t);

impl Client {
    fn open(kind: c::rd_kafka_type_t, settings: &[(&str, &str)]) -> Result<Self> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: a new configuration, changed by nobody else, and handed over to `rd_kafka_new`; `reason` is as long as is said.
        unsafe {
            let configuration = c::rd_kafka_conf_new();
            for (name, value) in settings {
                let (name_c, value_c) = (CString::new(*name)?, CString::new(*value)?);
                let set = c::rd_kafka_conf_set(configuration, name_c.as_ptr(), value_c.as_ptr(), reason.as_mut_ptr(), reason.len());
                ensure!(set == c::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK, "set {name}={value}: {}", text(reason.as_ptr()));
            }
            let client = c::rd_kafka_new(kind, configuration, reason.as_mut_ptr(), reason.len());
            ensure!(!client.is_null(), "open a client: {}", text(reason.as_ptr()));
            Ok(Self(client))
        }
    }
}

/// Reads one topic from its beginning.
pub struct Consumer {
    client: Client,
    queue: *mut c::rd_kafka_queue_t,
    batch: Vec<*mut c::rd_kafka_message_t>,
    taken: usize,
}

impl Consumer {
    pub fn open(settings: &[(&str, &str)], topic: &str, partitions: i32) -> Result<Self> {
        let client = Client::open(c::rd_kafka_type_t::RD_KAFKA_CONSUMER, settings)?;
        let topic = CString::new(topic)?;
        // SAFETY: the client lives as long as the process; the list is made, used and destroyed here.
        let queue = unsafe {
            c::rd_kafka_poll_set_consumer(client.0);
            let list = c::rd_kafka_topic_partition_list_new(partitions);
            for partition in 0..partitions {
                (*c::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition)).offset = 0;
            }
            let assigned = c::rd_kafka_assign(client.0, list);
            c::rd_kafka_topic_partition_list_destroy(list);
            check(assigned).context("assign the input's partitions")?;
            c::rd_kafka_queue_get_consumer(client.0)
        };
        Ok(Self { client, queue, batch: vec![ptr::null_mut(); BATCH], taken: 0 })
    }

    /// Takes what is there, up to a full batch; waits so long for it. The batch before is given back.
    pub fn take(&mut self, wait_ms: i32) -> impl Iterator<Item = Result<Consumed<'_>>> {
        self.give_back();
        // SAFETY: the queue lives as long as the process, and `batch` has as many places as is said.
        let taken = unsafe { c::rd_kafka_consume_batch_queue(self.queue, wait_ms, self.batch.as_mut_ptr(), BATCH) };
        self.taken = usize::try_from(taken).unwrap_or(0);
        self.batch[..self.taken].iter().map(|message| {
            // SAFETY: librdkafka gave the message and keeps it until it is destroyed, which takes `&mut self`.
            let message = unsafe { &**message };
            check(message.err).context("read the input")?;
            // SAFETY: as before; a length goes with each pointer.
            let (key, value) = unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
            Ok(Consumed { partition: message.partition, offset: message.offset, key, value })
        })
    }

    fn give_back(&mut self) {
        for message in self.batch.drain(..self.taken) {
            // SAFETY: each message is one that `take` was given, and is destroyed once.
            unsafe { c::rd_kafka_message_destroy(message) };
        }
        self.batch.resize(BATCH, ptr::null_mut());
        self.taken = 0;
    }
}

/// Records on their way to one topic, laid out one behind the other.
#[derive(Default)]
pub struct Outgoing {
    pub bytes: Vec<u8>,
    records: Vec<Place>,
    messages: Vec<c::rd_kafka_message_t>,
}

struct Place {
    partition: i32,
    start: usize,
    key_length: usize,
    end: usize,
}

impl Outgoing {
    /// Begins a record: `write` appends its value.
    pub fn push(&mut self, partition: i32, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        write(&mut self.bytes);
        self.records.push(Place { partition, start, key_length: key.len(), end: self.bytes.len() });
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// A transactional producer of several topics.
pub struct Producer {
    client: Client,
    topics: Vec<*mut c::rd_kafka_topic_t>,
}

impl Producer {
    pub fn open(settings: &[(&str, &str)], topics: &[String]) -> Result<Self> {
        let client = Client::open(c::rd_kafka_type_t::RD_KAFKA_PRODUCER, settings)?;
        let mut handles = Vec::new();
        for topic in topics {
            let name = CString::new(topic.as_str())?;
            // SAFETY: the client lives as long as the process; a null configuration means the default.
            handles.push(unsafe { c::rd_kafka_topic_new(client.0, name.as_ptr(), ptr::null_mut()) });
        }
        // SAFETY: as before.
        settle(unsafe { c::rd_kafka_init_transactions(client.0, PATIENCE_MS) }).context("open the transactional producer")?;
        Ok(Self { client, topics: handles })
    }

    pub fn begin(&self) -> Result<()> {
        // SAFETY: the client lives as long as the process.
        settle(unsafe { c::rd_kafka_begin_transaction(self.client.0) }).context("begin a transaction")
    }

    /// Hands records over, which librdkafka copies, and empties `outgoing`. Waits while librdkafka's memory is full.
    pub fn send(&self, topic: usize, outgoing: &mut Outgoing) -> Result<()> {
        let Outgoing { bytes, records, messages } = outgoing;
        messages.clear();
        for record in records.drain(..) {
            // SAFETY: all zeros is a message without key and value. The pointers lead into `bytes`, which stays as it is until the end.
            unsafe {
                let mut message: c::rd_kafka_message_t = std::mem::zeroed();
                message.partition = record.partition;
                message.key = bytes.as_mut_ptr().add(record.start).cast::<c_void>();
                message.key_len = record.key_length;
                message.payload = bytes.as_mut_ptr().add(record.start + record.key_length).cast::<c_void>();
                message.len = record.end - record.start - record.key_length;
                messages.push(message);
            }
        }
        while !messages.is_empty() {
            let count = i32::try_from(messages.len())?;
            let flags = c::RD_KAFKA_MSG_F_COPY | c::RD_KAFKA_MSG_F_PARTITION;
            // SAFETY: as many messages as is said; with F_COPY librdkafka keeps no pointer into them.
            unsafe { c::rd_kafka_produce_batch(self.topics[topic], -1, flags, messages.as_mut_ptr(), count) };
            messages.retain(|message| message.err != OK);
            if let Some(message) = messages.first() {
                ensure!(message.err == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL, "send a record: {}", describe(message.err));
            }
            // SAFETY: the client lives as long as the process.
            unsafe { c::rd_kafka_poll(self.client.0, if messages.is_empty() { 0 } else { 1 }) };
        }
        bytes.clear();
        Ok(())
    }

    /// Commits what was sent, together with the next offsets of the input's partitions.
    pub fn commit(&self, consumer: &Consumer, input: &str, next: &[i64]) -> Result<()> {
        let input = CString::new(input)?;
        // SAFETY: both clients live as long as the process; list and metadata are made, used and destroyed here.
        unsafe {
            let list = c::rd_kafka_topic_partition_list_new(i32::try_from(next.len())?);
            for (partition, offset) in (0..).zip(next).filter(|(_, offset)| **offset > 0) {
                (*c::rd_kafka_topic_partition_list_add(list, input.as_ptr(), partition)).offset = *offset;
            }
            let group = c::rd_kafka_consumer_group_metadata(consumer.client.0);
            let sent = settle(c::rd_kafka_send_offsets_to_transaction(self.client.0, list, group, PATIENCE_MS));
            c::rd_kafka_topic_partition_list_destroy(list);
            c::rd_kafka_consumer_group_metadata_destroy(group);
            sent.context("add offsets to a transaction")?;
            settle(c::rd_kafka_commit_transaction(self.client.0, PATIENCE_MS)).context("commit a transaction")
        }
    }
}

fn check(code: c::rd_kafka_resp_err_t) -> Result<()> {
    if code == OK { Ok(()) } else { bail!("{}", describe(code)) }
}

fn describe(code: c::rd_kafka_resp_err_t) -> String {
    // SAFETY: librdkafka answers with a string of its own for any code.
    unsafe { text(c::rd_kafka_err2str(code)) }
}

/// Takes an error object that a call has made; null is none.
fn settle(error: *mut c::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is the caller's, read and destroyed once.
    let reason = unsafe {
        let reason = text(c::rd_kafka_error_string(error));
        c::rd_kafka_error_destroy(error);
        reason
    };
    bail!("{reason}")
}

/// # Safety
/// The pointer leads to a string that ends with zero.
unsafe fn text(string: *const c_char) -> String {
    // SAFETY: by this function's own contract.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// # Safety
/// The pointer is null, or leads to so many bytes that outlive `'b`.
unsafe fn bytes<'b>(start: *const c_void, length: usize) -> &'b [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by this function's own contract.
    unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) }
}
