//! What librdkafka offers through its C interface and rdkafka does not pass on: the ids of topics, and giving a token to a client that nobody
//! polls.
//!
//! The only file of the product with `unsafe`. Without ids a topic that was deleted and made anew under its name cannot be told from the old
//! one, and a position would silently mean another record. It goes as soon as rdkafka offers both.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings as native;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;

use crate::login::Token;

/// One topic, as the brokers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub name: String,
    /// In the brokers' own spelling (base64). Empty when they give none: older than 2.8, or a topic from such times.
    pub id: String,
    pub partitions: u32,
    /// What this principal may do with it; `None` when the brokers do not tell.
    pub operations: Option<Vec<Operation>>,
}

/// An operation that an ACL allows, as far as a job needs it on topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Delete,
}

/// How librdkafka writes the id that no topic has.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Asks for topics by name. `None` in the place of a topic that does not exist; the error of the first one that could not be described.
pub(crate) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
) -> Result<Vec<Option<Described>>, RDKafkaErrorCode> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<CString> =
        names.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>().map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let event = ask(client, &names, limit)?;
    // SAFETY: the event is alive until the end of this function, and so is all that is reached through it.
    let code = unsafe { native::rd_kafka_event_error(event.as_ptr()) };
    if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(code.into());
    }
    let found = read(&event)?;
    let of = |name: &CString| found.iter().find(|topic| topic.name.as_bytes() == name.to_bytes()).cloned();
    Ok(names.iter().map(of).collect())
}

/// Sends the request and waits for the event that answers it.
fn ask<C: ClientContext>(
    client: &Client<C>,
    names: &[CString],
    limit: Duration,
) -> Result<Owned<native::rd_kafka_event_t>, RDKafkaErrorCode> {
    let handle = client.native_ptr();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `handle` is alive as long as `client` is borrowed. The names are copied by the first call, and outlive it. Each pointer that comes
    // back is ours alone, and is freed by the function that belongs to it; null is refused. `DescribeTopics` copies its arguments. The queue is
    // one of our own, so that no other thread takes the answer.
    let (topics, options, queue) = unsafe {
        let topics = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = native::rd_kafka_AdminOptions_new(handle, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let queue = native::rd_kafka_queue_new(handle);
        (
            Owned::new(topics, native::rd_kafka_TopicCollection_destroy)?,
            Owned::new(options, native::rd_kafka_AdminOptions_destroy)?,
            Owned::new(queue, native::rd_kafka_queue_destroy)?,
        )
    };
    // SAFETY: all pointers are alive; a null buffer of no length for the error's text is allowed.
    unsafe {
        native::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), millis, ptr::null_mut(), 0);
        let refused = native::rd_kafka_AdminOptions_set_include_authorized_operations(options.as_ptr(), 1);
        drop(Owned::new(refused, native::rd_kafka_error_destroy));
        native::rd_kafka_DescribeTopics(handle, topics.as_ptr(), options.as_ptr(), queue.as_ptr());
    }
    // A little more than the request's own limit, whose error says more than ours.
    let deadline = Instant::now() + limit + Duration::from_secs(1);
    while Instant::now() < deadline {
        // SAFETY: the queue is alive; the event, if there is one, is ours to free.
        let event = unsafe { Owned::new(native::rd_kafka_queue_poll(queue.as_ptr(), 100), native::rd_kafka_event_destroy) };
        if let Ok(event) = event {
            return Ok(event);
        }
    }
    Err(RDKafkaErrorCode::OperationTimedOut)
}

fn read(event: &Owned<native::rd_kafka_event_t>) -> Result<Vec<Described>, RDKafkaErrorCode> {
    // SAFETY: the event is alive for as long as it is borrowed here, and the result and its topics live as long as the event. A result of
    // another type is null, and is refused. The array has as many elements as librdkafka says.
    let topics = unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let first = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if first.is_null() || count == 0 { &[] } else { std::slice::from_raw_parts(first, count) }
    };
    let mut found = Vec::with_capacity(topics.len());
    for topic in topics {
        // SAFETY: each element is a description that lives as long as the event; so do the error, the name and the id in it. An error that is
        // null means that there is none. The id's text is written into the description when it is first asked for, which no other thread does.
        let (code, described) = unsafe {
            let code = native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(*topic));
            let mut partitions = 0;
            native::rd_kafka_TopicDescription_partitions(*topic, &mut partitions);
            let id = text(native::rd_kafka_Uuid_base64str(native::rd_kafka_TopicDescription_topic_id(*topic)));
            let id = if id == NO_ID { String::new() } else { id };
            let name = text(native::rd_kafka_TopicDescription_name(*topic));
            let operations = operations(*topic);
            (code, Described { name, id, partitions: u32::try_from(partitions).unwrap_or(u32::MAX), operations })
        };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => found.push(described),
            RDKafkaErrorCode::UnknownTopicOrPartition => {}
            code => return Err(code),
        }
    }
    Ok(found)
}

/// # Safety
/// The topic is a description that is alive.
unsafe fn operations(topic: *const native::rd_kafka_TopicDescription_t) -> Option<Vec<Operation>> {
    let mut count = 0;
    // SAFETY: the caller vouches for the topic, which the array belongs to; it has as many elements as librdkafka says. They are read as the
    // plain numbers that they are in C, since a value that this version does not know would be none of the Rust type.
    let numbers = unsafe {
        let first = native::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        if first.is_null() || count == 0 {
            return None;
        }
        std::slice::from_raw_parts(first.cast::<u32>(), count)
    };
    let known = [
        (native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ, Operation::Read),
        (native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE, Operation::Write),
        (native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DELETE, Operation::Delete),
    ];
    Some(known.into_iter().filter(|(theirs, _)| numbers.contains(&(*theirs as u32))).map(|(_, ours)| ours).collect())
}

/// Gives a client the token that it logs in with from now on. `Err` is librdkafka's reason to refuse it.
pub(crate) fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), String> {
    let inner_zero = |_| "it holds a zero byte".to_owned();
    let (text, principal) = (CString::new(&*token.text).map_err(inner_zero)?, CString::new(&*token.principal).map_err(inner_zero)?);
    let mut reason = [0; 512];
    // SAFETY: the client is alive as long as it is borrowed; both strings are copied during the call and outlive it; no extensions are given; the
    // reason is written into the buffer, no longer than its length and with a zero at its end.
    let (code, reason) = unsafe {
        let (extensions, none) = (ptr::null_mut(), 0);
        let (buffer, length) = (reason.as_mut_ptr(), reason.len());
        let handle = client.native_ptr();
        let code = native::rd_kafka_oauthbearer_set_token(
            handle,
            text.as_ptr(),
            token.expires_millis,
            principal.as_ptr(),
            extensions,
            none,
            buffer,
            length,
        );
        (code, self::text(buffer))
    };
    if code == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(reason) }
}

/// Something of librdkafka's that is ours to free.
struct Owned<T> {
    pointer: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// `Err` for null.
    ///
    /// # Safety
    /// The pointer is null, or nobody else frees it and `free` is the function to do so, from any thread.
    unsafe fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Self, RDKafkaErrorCode> {
        NonNull::new(pointer).map(|pointer| Self { pointer, free }).ok_or(RDKafkaErrorCode::Fail)
    }

    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: ours since `new`, whose caller vouched for `free`; this is the only place that frees it.
        unsafe { (self.free)(self.pointer.as_ptr()) }
    }
}

/// A copy of a string of librdkafka's; empty for null.
///
/// # Safety
/// The pointer is null, or to a string that ends with a zero and stays where it is during the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
