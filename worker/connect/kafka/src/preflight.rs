//! Looks at a cluster before a job runs on it. Finds, and says what to change; changes nothing.

use std::fmt;

use forebay_engine::journal::CHUNK_BYTES;
use forebay_engine::log::LogError;

use crate::admin::{Admin, Settings};
use crate::options::{BATCH_BYTES, KafkaOptions};

/// Room for a journal chunk's head and the batch around it.
const CHUNK_ROOM_BYTES: usize = 8 << 10;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The job can run.
    Warning,
    /// It cannot, or not with the guarantees it is there for.
    Error,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What to change.
    pub way_out: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}; {}", self.problem, self.way_out)
    }
}

/// Everything that was found, topics first.
pub(crate) fn run(admin: &Admin, options: &KafkaOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let brokers = match admin.brokers("look at the cluster") {
        Ok(brokers) => brokers,
        Err(error) => return vec![unseen(&error)],
    };
    check_topics(admin, options, &mut findings);
    for broker in &brokers {
        match admin.broker_settings("look at the brokers' settings", *broker) {
            Ok(settings) => findings.extend(check_broker(*broker, &settings, options)),
            Err(error) => {
                let problem = format!("the brokers' settings cannot be seen ({error})");
                findings
                    .push(warning(problem, "grant this principal DescribeConfigs on the cluster, or see to it that they are 3.6 or newer"));
                break;
            }
        }
    }
    if brokers.len() < 3 {
        let problem = format!("the cluster has {} brokers", brokers.len());
        findings.push(warning(problem, "run at least 3, so that the journal survives the loss of one"));
    }
    findings
}

fn check_topics(admin: &Admin, options: &KafkaOptions, findings: &mut Vec<Finding>) {
    let topics = &options.topics;
    let mut counts = Vec::new();
    let mut writable = Vec::new();
    for name in topics.inputs.iter().chain(&topics.outputs).chain([&topics.journal]) {
        let input = topics.inputs.contains(name);
        match admin.partitions("look at the job's topics", name) {
            Ok(Some(count)) if input => counts.push((name, count)),
            Ok(Some(_)) => writable.push(name.as_str()),
            // The journal is made at the first start.
            Ok(None) if *name == topics.journal => {}
            Ok(None) => findings.push(error(format!("topic {name} does not exist"), "create it, or correct the name in the job")),
            Err(failure) => findings.push(unseen(&failure)),
        }
    }
    if let Some(((first, expected), (other, found))) = uneven(&counts) {
        let problem = format!("input {first} has {expected} partitions and input {other} has {found}");
        findings
            .push(error(problem, "inputs of one job need the same number and the same keys; repartition one of them, or make two jobs"));
    }
    match counts.first() {
        Some((_, count)) if topics.shards == 0 || count % topics.shards != 0 => {
            let problem = format!("{count} partitions cannot be divided evenly among {} shards", topics.shards);
            findings.push(warning(problem, "set `shards` to a divisor of the partition count"));
        }
        _ => {}
    }
    match admin.topic_settings("look at the topics' settings", &writable) {
        Ok(all) => {
            for (name, settings) in writable.iter().zip(&all) {
                let needed = if *name == topics.journal { CHUNK_BYTES + CHUNK_ROOM_BYTES } else { BATCH_BYTES };
                findings.extend(check_record_bytes(name, settings, needed));
            }
        }
        Err(failure) => findings.push(warning(
            format!("the topics' settings cannot be seen ({failure})"),
            "grant this principal DescribeConfigs on the outputs and the journal",
        )),
    }
}

fn check_broker(broker: i32, settings: &Settings, options: &KafkaOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    match settings.get("transaction.partition.verification.enable").map(String::as_str) {
        Some("true") => {}
        Some(_) => findings.push(error(
            format!("broker {broker} has `transaction.partition.verification.enable=false`, so that a late request can leave a transaction hanging"),
            "set it to true",
        )),
        None => findings.push(error(
            format!("broker {broker} does not know `transaction.partition.verification.enable`: it is older than 3.6"),
            "upgrade the brokers",
        )),
    }
    let longest = settings.get("transaction.max.timeout.ms").and_then(|value| value.parse::<u128>().ok());
    let wanted = options.transaction_timeout.as_millis();
    if longest.is_some_and(|longest| longest < wanted) {
        let problem = format!("broker {broker} allows transactions of {} ms, the job's may take {wanted} ms", longest.unwrap_or_default());
        findings.push(error(problem, "raise the broker's `transaction.max.timeout.ms`, or shorten the job's transaction time-out"));
    }
    findings
}

fn check_record_bytes(topic: &str, settings: &Settings, needed: usize) -> Option<Finding> {
    let allowed = settings.get("max.message.bytes")?.parse::<usize>().ok()?;
    (allowed < needed).then(|| {
        error(
            format!("topic {topic} takes batches of at most {allowed} bytes, the job writes up to {needed}"),
            format!("`kafka-configs.sh --alter --topic {topic} --add-config max.message.bytes={needed}`"),
        )
    })
}

/// The first two that differ.
fn uneven<'a>(counts: &[(&'a String, u32)]) -> Option<((&'a String, u32), (&'a String, u32))> {
    let first = counts.first()?;
    counts.iter().find(|(_, count)| *count != first.1).map(|other| (*first, *other))
}

fn unseen(failure: &LogError) -> Finding {
    let severity = Severity::Error;
    Finding { severity, problem: failure.to_string(), way_out: "see to that first, then check again".into() }
}

fn error(problem: impl Into<String>, way_out: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, problem: problem.into(), way_out: way_out.into() }
}

fn warning(problem: impl Into<String>, way_out: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, problem: problem.into(), way_out: way_out.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_engine::log::JobTopics;

    fn options() -> KafkaOptions {
        let (uid, journal, group) = ("u".into(), "j".into(), "g".into());
        KafkaOptions::new("b:9092", JobTopics { uid, inputs: vec![], outputs: vec![], journal, group, shards: 1 })
    }

    fn check(settings: &[(&str, &str)], expected: &[&str]) {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found: Vec<String> = check_broker(1, &settings, &options()).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with("error: ") && found.contains(expected), "{found} lacks {expected}");
        }
    }

    #[test]
    fn brokers_that_break_the_protocol_are_found() {
        check(&[("transaction.partition.verification.enable", "true"), ("transaction.max.timeout.ms", "900000")], &[]);
        check(&[("transaction.max.timeout.ms", "900000")], &["older than 3.6"]);
        check(&[("transaction.partition.verification.enable", "false")], &["set it to true"]);
        check(&[("transaction.partition.verification.enable", "true"), ("transaction.max.timeout.ms", "1000")], &["raise the broker's"]);
    }

    #[test]
    fn a_topic_that_refuses_our_batches_is_found() {
        let settings = |bytes: &str| [("max.message.bytes".to_owned(), bytes.to_owned())].into();
        assert_eq!(check_record_bytes("t", &settings("1048588"), BATCH_BYTES), None);
        assert!(check_record_bytes("t", &settings("1000"), BATCH_BYTES).is_some());
    }
}
