//! Ends clients of librdkafka. Ending one waits for its threads, and one of those may wait for the network: nobody else should.

/// Drops a client on a thread of its own.
pub(crate) fn retire(client: impl Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name("kafka-retire".into()).spawn(move || drop(client)) {
        tracing::warn!(%error, "no thread to end a client of librdkafka on; it was ended in place");
    }
}
