//! Looks at a cluster before a job runs on it. Finds, and says what to change; changes nothing.

use std::fmt;
use std::time::{Duration, Instant};

use forebay_engine::journal::CHUNK_BYTES;
use forebay_engine::log::LogError;

use crate::admin::{Admin, JOURNAL_SETTINGS, Settings};
use crate::native::{Described, Operation};
use crate::options::{BROKERS_FIELD, KafkaOptions};

/// A batch with one journal chunk, its head and the batch's own.
const JOURNAL_BATCH_BYTES: usize = CHUNK_BYTES + (8 << 10);

/// What an output topic must take: a batch with the largest record that a pipeline makes. Kafka takes that by default.
pub const OUTPUT_BATCH_BYTES: usize = 1 << 20;

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
    /// The topic that it is about, if it is one that the job names.
    pub topic: Option<String>,
    /// Nothing is known to be wrong: the brokers gave no answer.
    pub may_pass: bool,
}

impl Finding {
    fn of(mut self, topic: &str) -> Self {
        self.topic = Some(topic.to_owned());
        self
    }
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

/// Everything that was found, topics first. `barred` is what came of opening a transactional producer.
pub(crate) fn run(admin: &Admin, options: &KafkaOptions, barred: Result<(), LogError>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let brokers = match admin.brokers(&format!("look at the cluster at {}", options.bootstrap_servers)) {
        Ok(brokers) => brokers,
        Err(error) => return vec![unseen(&error)],
    };
    let found = check_topics(admin, options, &mut findings);
    check_settings(admin, options, &found, brokers.len(), &mut findings);
    check_permissions(admin, options, &found, &mut findings);
    check_group(admin, options, &mut findings);
    findings.extend(barred.err().as_ref().map(unseen));
    let journal_is_there = found.contains(&options.topics.journal.as_str());
    for broker in &brokers {
        match admin.broker_settings("look at the brokers' settings", *broker) {
            Ok(settings) if !settings.is_empty() => findings.extend(check_broker(*broker, &settings, options, journal_is_there)),
            unseen => {
                let why = unseen.err().map(|error| format!(" ({error})")).unwrap_or_default();
                let problem = format!("the brokers' settings cannot be seen{why}");
                findings
                    .push(warning(problem, "grant this principal DescribeConfigs on the cluster, or see to it that they are 3.6 or newer"));
                break;
            }
        }
    }
    if brokers.len() < 3 {
        let problem = format!("the cluster's number of brokers is {}", brokers.len());
        findings.push(warning(problem, "run at least 3, so that the journal survives the loss of one"));
    }
    findings
}

/// How long topics may be missing in all: one that was made a moment ago is not known to every broker.
const NEW_TOPIC: Duration = Duration::from_secs(1);

/// Whether they are there and fit each other. Returns those that are.
fn check_topics<'a>(admin: &Admin, options: &'a KafkaOptions, findings: &mut Vec<Finding>) -> Vec<&'a str> {
    let topics = &options.topics;
    let (mut counts, mut there) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + NEW_TOPIC;
    for name in topics.inputs.iter().chain(&topics.outputs).chain([&topics.journal]) {
        let mut found = admin.partitions("look at the job's topics", name);
        while matches!(found, Ok(None)) && *name != topics.journal && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            found = admin.partitions("look at the job's topics", name);
        }
        match found {
            Ok(Some(count)) => {
                there.push(name.as_str());
                if topics.inputs.contains(name) {
                    counts.push((name, count));
                }
            }
            // The journal is made at the first start.
            Ok(None) if *name == topics.journal => {}
            Ok(None) => findings.push(error(format!("topic {name} does not exist"), "create it, or correct the name in the job").of(name)),
            Err(failure) => findings.push(unseen(&failure)),
        }
    }
    if let Some(((first, expected), (other, found))) = uneven(&counts) {
        let problem = format!("input {first} has {expected} partitions and input {other} has {found}");
        let way_out = "inputs of one job need the same number and the same keys; repartition one of them, or make two jobs";
        findings.push(error(problem, way_out).of(other));
    }
    match counts.first() {
        Some((_, count)) if topics.shards == 0 || count % topics.shards != 0 => {
            let problem = format!("{count} partitions cannot be divided evenly among {} shards", topics.shards);
            findings.push(warning(problem, "set `shards` to a divisor of the partition count"));
        }
        _ => {}
    }
    there
}

fn check_settings(admin: &Admin, options: &KafkaOptions, there: &[&str], brokers: usize, findings: &mut Vec<Finding>) {
    let topics = &options.topics;
    let written: Vec<&str> = there.iter().copied().filter(|name| !topics.inputs.iter().any(|input| input == name)).collect();
    if written.is_empty() {
        return;
    }
    let all = match admin.topic_settings("look at the topics' settings", &written) {
        Ok(all) => all,
        Err(failure) => {
            let problem = format!("the topics' settings cannot be seen ({failure})");
            return findings.push(warning(problem, "grant this principal DescribeConfigs on the outputs and the journal"));
        }
    };
    for (name, settings) in written.iter().zip(&all) {
        if settings.is_empty() {
            let problem = format!("the settings of topic {name} cannot be seen");
            findings.push(warning(problem, "grant this principal DescribeConfigs on it").of(name));
            continue;
        }
        let is_journal = *name == topics.journal;
        let needed = if is_journal { JOURNAL_BATCH_BYTES } else { OUTPUT_BATCH_BYTES };
        findings.extend(check_record_bytes(name, settings, needed));
        if is_journal {
            match admin.replicas("look at the journal", name) {
                Ok(replicas) => findings.extend(check_journal(name, settings, replicas, brokers)),
                Err(failure) => findings.push(unseen(&failure)),
            }
        }
    }
}

/// What a journal must be so that nothing that was committed is lost.
fn check_journal(topic: &str, settings: &Settings, replicas: usize, brokers: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mend = |name: &str, value: &str| format!("`kafka-configs.sh --alter --topic {topic} --add-config {name}={value}`");
    for (name, expected, harm) in JOURNAL_SETTINGS {
        if let Some(found) = settings.get(name).filter(|found| *found != expected) {
            findings.push(error(format!("journal {topic} has `{name}={found}`, which {harm}"), mend(name, expected)));
        }
    }
    let in_sync = settings.get("min.insync.replicas").and_then(|value| value.parse::<usize>().ok());
    if replicas >= 3 && in_sync.is_some_and(|least| least < 2) {
        let problem = format!("journal {topic} takes records that only one broker has, and loses them with it");
        findings.push(error(problem, mend("min.insync.replicas", "2")));
    }
    if brokers >= 3 && replicas < 3 {
        let problem = format!("journal {topic} lies on {replicas} of {brokers} brokers");
        findings.push(warning(problem, "give it 3 replicas (`kafka-reassign-partitions.sh`), so that it survives the loss of a broker"));
    }
    findings
}

fn check_permissions(admin: &Admin, options: &KafkaOptions, there: &[&str], findings: &mut Vec<Finding>) {
    let described = match admin.describe("look at the permissions on the job's topics", there) {
        Ok(described) => described,
        Err(failure) => return findings.push(unseen(&failure)),
    };
    let topics = &options.topics;
    for Described { name, operations, .. } in described.into_iter().flatten() {
        let Some(operations) = operations else { continue };
        let needed: &[Operation] = match &name {
            name if topics.inputs.contains(name) => &[Operation::Read],
            name if *name == topics.journal => &[Operation::Read, Operation::Write],
            _ => &[Operation::Write],
        };
        for missing in needed.iter().filter(|operation| !operations.contains(operation)) {
            let problem = format!("this principal may not {missing:?} topic {name}");
            findings.push(error(problem, format!("grant it {missing:?} on it")).of(&name));
        }
        if name == topics.journal && !operations.contains(&Operation::Delete) {
            let problem = format!("this principal may not delete records of the journal {name}, which grows for ever");
            findings.push(warning(problem, "grant it Delete on it"));
        }
    }
}

fn check_group(admin: &Admin, options: &KafkaOptions, findings: &mut Vec<Finding>) {
    let group = &options.topics.group;
    match admin.group_members("look at the job's consumer group") {
        Ok(0) => {}
        Ok(members) => {
            let problem =
                format!("{members} other consumers are members of the job's group {group}, and the brokers take no offsets of the job");
            findings.push(error(problem, "stop them, or give the job a group of its own (`consumerGroup`)"));
        }
        Err(failure @ LogError::Denied { .. }) => findings.push(unseen(&failure)),
        Err(failure) => findings.push(warning(format!("the job's consumer group cannot be seen ({failure})"), "see to that first")),
    }
}

fn check_broker(broker: i32, settings: &Settings, options: &KafkaOptions, journal_is_there: bool) -> Vec<Finding> {
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
        findings.push(error(problem, "raise the broker's `transaction.max.timeout.ms` to as much"));
    }
    let largest = settings.get("message.max.bytes").and_then(|value| value.parse::<usize>().ok());
    if let Some(largest) = largest.filter(|largest| !journal_is_there && *largest < JOURNAL_BATCH_BYTES) {
        let problem =
            format!("broker {broker} takes batches of at most {largest} bytes, the job writes its journal in up to {JOURNAL_BATCH_BYTES}");
        findings.push(error(
            problem,
            "raise the brokers' `message.max.bytes`, or create the journal topic with a `max.message.bytes` of its own",
        ));
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
        .of(topic)
    })
}

/// The first two that differ.
fn uneven<'a>(counts: &[(&'a String, u32)]) -> Option<((&'a String, u32), (&'a String, u32))> {
    let first = counts.first()?;
    counts.iter().find(|(_, count)| *count != first.1).map(|other| (*first, *other))
}

fn unseen(failure: &LogError) -> Finding {
    let way_out = match failure {
        LogError::Unavailable { .. } => format!("see to it that the brokers are reached from here, or correct {BROKERS_FIELD}"),
        // The failure has a way out of its own.
        _ => "see to that first, then check again".into(),
    };
    Finding { may_pass: matches!(failure, LogError::Unavailable { .. }), ..error(failure.to_string(), way_out) }
}

fn error(problem: impl Into<String>, way_out: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, problem: problem.into(), way_out: way_out.into(), topic: None, may_pass: false }
}

fn warning(problem: impl Into<String>, way_out: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..error(problem, way_out) }
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
        let found: Vec<String> = check_broker(1, &settings, &options(), false).iter().map(ToString::to_string).collect();
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
        check(
            &[("transaction.partition.verification.enable", "true"), ("message.max.bytes", "100000")],
            &["takes batches of at most 100000"],
        );
    }

    #[test]
    fn brokers_that_do_not_answer_are_told_with_the_field_that_names_them() {
        let away = LogError::Unavailable { action: "look at the cluster at b:9092".into(), reason: "timed out".into() };
        let text = unseen(&away).to_string();
        for needed in ["error: look at the cluster at b:9092: timed out; ", "spec.kafka.bootstrapServers", "`--kafka`"] {
            assert!(text.contains(needed), "{text} lacks {needed}");
        }
        let denied = LogError::Denied { action: "look at the cluster".into(), reason: "no; grant it".into() };
        assert_eq!(unseen(&denied).way_out, "see to that first, then check again");
    }

    #[test]
    fn a_topic_that_refuses_our_batches_is_found() {
        let settings = |bytes: &str| [("max.message.bytes".to_owned(), bytes.to_owned())].into();
        assert_eq!(check_record_bytes("t", &settings("1048588"), OUTPUT_BATCH_BYTES), None);
        assert!(check_record_bytes("t", &settings("600000"), OUTPUT_BATCH_BYTES).is_some());
    }

    #[test]
    fn a_journal_that_may_lose_what_was_committed_is_found() {
        let check = |changed: &[(&str, &str)], replicas: usize, brokers: usize, expected: &[(Severity, &str)]| {
            let sound = JOURNAL_SETTINGS.iter().map(|(name, value, _)| (*name, *value)).chain([("min.insync.replicas", "2")]);
            let all = sound.chain(changed.iter().copied()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let found: Vec<_> = check_journal("j", &all, replicas, brokers);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, (severity, words)) in found.iter().zip(expected) {
                assert!(found.severity == *severity && found.to_string().contains(words), "{found} is not {severity:?} or lacks {words}");
            }
        };
        check(&[], 3, 3, &[]);
        check(&[("min.insync.replicas", "1")], 1, 1, &[]);
        check(&[("min.insync.replicas", "1")], 3, 3, &[(Severity::Error, "min.insync.replicas=2")]);
        check(&[], 1, 3, &[(Severity::Warning, "1 of 3 brokers")]);
        check(
            &[("retention.ms", "1000"), ("message.timestamp.type", "CreateTime")],
            3,
            3,
            &[(Severity::Error, "add-config retention.ms=-1"), (Severity::Error, "add-config message.timestamp.type=LogAppendTime")],
        );
    }
}
