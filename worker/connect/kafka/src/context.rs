//! What librdkafka says on its own account: its log lines go to `tracing` (target `librdkafka`), its errors are remembered, so that a call
//! that timed out can say why. It never decides anything.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::login::Login;

/// An error heard longer ago than this explains nothing any more. Twice librdkafka's pause between equal reports (30 s).
const FRESH: Duration = Duration::from_secs(60);

/// The callbacks of one client.
#[derive(Clone)]
pub(crate) struct ClientEvents {
    /// What the client is for, to tell log lines apart.
    role: &'static str,
    /// Shared by all clients of a [`crate::KafkaLog`].
    heard: Arc<Heard>,
    /// The number of the token that this client has.
    token: Arc<AtomicU64>,
}

impl ClientEvents {
    pub(crate) fn new(role: &'static str, heard: &Arc<Heard>) -> Self {
        Self { role, heard: heard.clone(), token: Arc::default() }
    }

    /// Gives a client the current token, if it logs in by one. To be called when it is made and before each use that may have to connect; what
    /// hinders it is heard as if the brokers had said it.
    pub(crate) fn log_in<C: ClientContext>(&self, client: &Client<C>) {
        if let Some(Err(reason)) = self.heard.login.as_ref().map(|login| login.log_in(client, &self.token)) {
            tracing::warn!(client = self.role, reason, "no token to log in with");
            self.heard.note(RDKafkaErrorCode::Authentication, &reason);
        }
    }
}

/// What the clients of one log share: the last errors that any of them heard of the cluster, and the token that they log in with.
#[derive(Default)]
pub(crate) struct Heard {
    last: Mutex<Option<Trouble>>,
    login: Option<Login>,
}

#[derive(Clone)]
struct Trouble {
    at: Instant,
    code: RDKafkaErrorCode,
    text: String,
}

impl Heard {
    pub(crate) fn new(login: Option<Login>) -> Self {
        Self { last: Mutex::default(), login }
    }

    fn note(&self, code: RDKafkaErrorCode, text: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows the line that says why they are; keep that one.
        let vague = code == RDKafkaErrorCode::AllBrokersDown;
        if !vague || last.as_ref().is_none_or(|trouble| trouble.at.elapsed() > FRESH) {
            *last = Some(Trouble { at: Instant::now(), code, text: text.to_owned() });
        }
    }

    /// What was heard lately, to be appended to an error; empty when there was nothing.
    pub(crate) fn explain(&self) -> String {
        self.fresh().map(|trouble| format!("; last heard: {}", trouble.text)).unwrap_or_default()
    }

    /// The reason if the brokers refused this client for who it is, or TLS failed: waiting does not help then.
    pub(crate) fn refused(&self) -> Option<String> {
        self.fresh()
            .filter(|trouble| matches!(trouble.code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
            .map(|trouble| trouble.text)
    }

    fn fresh(&self) -> Option<Trouble> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|trouble| trouble.at.elapsed() <= FRESH)
    }
}

impl ClientContext for ClientEvents {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.role;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", client, facility, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", client, facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", client, facility, "{message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", client, facility, "{message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::debug!(target: "librdkafka", client = self.role, "{}", String::from_utf8_lossy(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        // These two come through here as well, but they are answers to a reader and not troubles of the cluster.
        if matches!(code, RDKafkaErrorCode::PartitionEOF | RDKafkaErrorCode::AutoOffsetReset) {
            return;
        }
        self.heard.note(code, reason);
        // Said for every attempt of every client, some twenty times a second; the line before says why, and errors repeat it.
        if code == RDKafkaErrorCode::AllBrokersDown {
            tracing::debug!(target: "librdkafka", client = self.role, "{reason}");
        } else {
            tracing::warn!(target: "librdkafka", client = self.role, "{reason}");
        }
    }
}

impl ConsumerContext for ClientEvents {}

/// How much librdkafka need say: what `tracing` would throw away is not even formatted.
pub(crate) fn log_level() -> RDKafkaLogLevel {
    if tracing::enabled!(target: "librdkafka", tracing::Level::DEBUG) {
        RDKafkaLogLevel::Debug
    } else if tracing::enabled!(target: "librdkafka", tracing::Level::INFO) {
        RDKafkaLogLevel::Info
    } else {
        RDKafkaLogLevel::Warning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_why_brokers_are_down_outlives_the_news_that_they_are() {
        let heard = Heard::default();
        assert_eq!(heard.explain(), "");
        heard.note(RDKafkaErrorCode::AllBrokersDown, "2/2 brokers are down");
        heard.note(RDKafkaErrorCode::Authentication, "SASL authentication failed");
        heard.note(RDKafkaErrorCode::AllBrokersDown, "2/2 brokers are down");
        assert_eq!(heard.explain(), "; last heard: SASL authentication failed");
        assert_eq!(heard.refused().as_deref(), Some("SASL authentication failed"));
        heard.note(RDKafkaErrorCode::BrokerTransportFailure, "connection refused");
        assert_eq!(heard.refused(), None);
    }
}
