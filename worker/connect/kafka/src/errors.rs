//! librdkafka's errors as the log port's. Whatever is not known for certain is `Unavailable`: the caller then learns the truth from the
//! journal.

use forebay_engine::log::LogError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::context::Heard;
use crate::options::PROPERTIES_FIELD;

/// Turns an error into the port's. `what` is the topic, partition or group that the call was about.
pub(crate) fn log_error(action: &str, what: &str, error: &KafkaError, heard: &Heard) -> LogError {
    match code_of(error) {
        Some(code) => from_code(action, what, code, &describe(error), heard),
        None => LogError::Unavailable { action: action.into(), reason: format!("{}{}", describe(error), heard.explain()) },
    }
}

/// The same when there is a code with a text of its own.
pub(crate) fn from_code(action: &str, what: &str, code: RDKafkaErrorCode, text: &str, heard: &Heard) -> LogError {
    use RDKafkaErrorCode as Code;
    let action = action.to_owned();
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => LogError::Fenced { action },
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => LogError::Rejected {
            action,
            reason: format!(
                "{what}: {text}; raise the topic's `max.message.bytes` (and the brokers' `replica.fetch.max.bytes`), or make the record smaller"
            ),
        },
        Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidMessage => LogError::Rejected {
            action,
            reason: format!(
                "{what}: {text}; the topic's settings (`cleanup.policy=compact` needs keys, `message.timestamp.*` bounds time stamps) do not allow it"
            ),
        },
        Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicId => LogError::Missing {
            action,
            what: what.into(),
            way_out: "create it, or correct its name; if it is there, grant this principal Describe on it".into(),
        },
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed => {
            LogError::Denied { action, reason: format!("{what}: {text}; {}", acl_to_grant(code)) }
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::IllegalSASLState | Code::SSL => {
            let heard = heard.explain();
            LogError::Denied {
                action,
                reason: format!(
                    "{text}{heard}; check `security.protocol`, the `sasl.*` credentials and the `ssl.*` certificates in {PROPERTIES_FIELD}"
                ),
            }
        }
        Code::InvalidTransactionTimeout => LogError::Denied {
            action,
            reason: format!(
                "{text}; the brokers' `transaction.max.timeout.ms` is shorter than what a job's transaction may take: raise it to 30 seconds or more"
            ),
        },
        Code::IllegalGeneration | Code::UnknownMemberId | Code::RebalanceInProgress => LogError::Denied {
            action,
            reason: format!("{what}: {text}; another consumer is a member of the job's group: stop it, or give it a group of its own"),
        },
        Code::PolicyViolation | Code::InvalidConfig | Code::InvalidReplicationFactor | Code::InvalidPartitions | Code::InvalidTopic => {
            LogError::Denied { action, reason: format!("{what}: {text}") }
        }
        _ => LogError::Unavailable { action, reason: format!("{text}{}", heard.explain()) },
    }
}

/// The code of an error, if it has one.
pub(crate) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}

/// The error in words, without the value of a property: it may be a secret.
pub(crate) fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) => format!("property `{name}`: unknown name or invalid value"),
        KafkaError::Transaction(error) => error.string(),
        other => other.to_string(),
    }
}

/// A client that could not even be made: a property that librdkafka does not take.
pub(crate) fn creation(action: &str, error: &KafkaError) -> LogError {
    LogError::Denied { action: action.into(), reason: format!("{}; see librdkafka's CONFIGURATION.md", describe(error)) }
}

fn acl_to_grant(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "grant this principal Read and Describe on the inputs, Write on the outputs, and all of both, Create, Delete and DescribeConfigs on the journal"
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => "grant this principal Read on the job's consumer group",
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
            "grant this principal Write and Describe on transactional ids with the prefix `forebay.`"
        }
        _ => "grant this principal IdempotentWrite and DescribeConfigs on the cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaConfRes;

    fn kind(code: RDKafkaErrorCode) -> &'static str {
        match from_code("commit", "orders-3", code, "words", &Heard::default()) {
            LogError::Fenced { .. } => "fenced",
            LogError::Cut { .. } | LogError::Beyond { .. } => "gone",
            LogError::Missing { .. } => "missing",
            LogError::Denied { .. } => "denied",
            LogError::Unavailable { .. } => "unavailable",
            LogError::Rejected { .. } => "rejected",
        }
    }

    #[test]
    fn errors_get_the_kind_that_tells_the_caller_what_to_do() {
        use RDKafkaErrorCode as Code;
        for (code, expected) in [
            (Code::Fenced, "fenced"),
            (Code::InvalidProducerEpoch, "fenced"),
            (Code::ProducerFenced, "fenced"),
            (Code::MessageSizeTooLarge, "rejected"),
            (Code::UnknownTopicOrPartition, "missing"),
            (Code::TopicAuthorizationFailed, "denied"),
            (Code::Authentication, "denied"),
            (Code::OperationTimedOut, "unavailable"),
            // A barred id that the coordinator has forgotten: nobody knows what is true, so nothing is claimed.
            (Code::InvalidProducerIdMapping, "unavailable"),
        ] {
            assert_eq!(kind(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let error = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"hunter2\"".into(),
            "ssl.key.pem".into(),
            "hunter2".into(),
        );
        let message = creation("connect", &error).to_string();
        assert!(message.contains("ssl.key.pem") && !message.contains("hunter2"), "{message}");
    }
}
