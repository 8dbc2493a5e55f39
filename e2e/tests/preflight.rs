//! Promise: a cluster that cannot serve a job is refused before anything is made or stored, with exit code 2; all that is wrong is printed at once,
//! each with what was found, what is needed and the way out; and once that is done the very same start succeeds.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, PARTITIONS, SHARDS, records, replaced};
use forebay_e2e::job::Forebay;
use forebay_e2e::s3::S3;
use forebay_e2e::stack::Instance;
use forebay_e2e::{PATIENCE, in_folder, until};

/// Surroundings that cannot work.
const UNUSABLE: Option<i32> = Some(2);

/// What the job writes in one batch: a chunk of its journal and 8 KiB around it, or its outputs.
const JOURNAL_BATCH_BYTES: usize = 776 << 10;
const OUTPUT_BATCH_BYTES: usize = 1 << 20;

/// Less than either.
const SMALL: &str = "600000";
const SMALLER: &str = "100000";

/// How a job's transactions are too long for a broker, in its own words.
const TOO_SHORT: &str =
    "broker 1 allows transactions of 10000 ms, the job's may take 30000 ms; raise the broker's `transaction.max.timeout.ms` to as much";

/// Starts the job, which must be refused and say all this; returns what it said.
fn refused(forebay: &Forebay, said: &[String]) -> Result<String> {
    let output = forebay.call(&["run", "--until-end"])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == UNUSABLE, "it ended with {:?} instead of {UNUSABLE:?}: {text}", output.status);
    for needed in said {
        ensure!(text.contains(needed), "{needed:?} is not in what it said: {text}");
    }
    Ok(text)
}

/// What is said of a topic that takes batches of so few bytes.
fn takes_less(topic: &str, found: &str, needed: usize) -> String {
    format!(
        "topic {topic} takes batches of at most {found} bytes, the job writes up to {needed}; `kafka-configs.sh --alter --topic {topic} \
         --add-config max.message.bytes={needed}`"
    )
}

fn outputs(flights: &Flights) -> [String; 4] {
    ["updates", "enriched", "delayed", "dead"].map(|output| flights.output(output))
}

/// Method: a broker with three settings that each stand in the way. Two of them are mended while it runs, to just what is needed. The third, which
/// a broker reads at its start alone, is then refused by itself, and mended by a restart, to just what is needed too.
#[test]
fn a_broker_with_settings_that_cannot_serve_is_refused_until_the_last_one_is_mended() -> Result<()> {
    in_folder("settings", |folder| {
        let (unverified, transactions) = ("transaction.partition.verification.enable", "transaction.max.timeout.ms");
        let unfit = [("message.max.bytes", SMALL), (transactions, "10000"), (unverified, "false")];
        let mut kafka = Instance::up_with("kafka", "settings", &unfit)?;
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, kafka.broker()?, &s3, Ok)?;
        let records = records(5_000)?;
        let mut all = Vec::from(outputs(&flights).map(|output| takes_less(&output, SMALL, OUTPUT_BATCH_BYTES)));
        all.extend([
            format!(
                "broker 1 takes batches of at most {SMALL} bytes, the job writes its journal in up to {JOURNAL_BATCH_BYTES}; raise the brokers' \
                 `message.max.bytes`, or create the journal topic with a `max.message.bytes` of its own"
            ),
            format!("broker 1 has `{unverified}=false`, so that a late request can leave a transaction hanging; set it to true"),
            TOO_SHORT.to_owned(),
        ]);
        refused(&flights.forebay, &all)?;
        ensure!(!flights.broker.topics()?.contains(&flights.journal()), "a journal was made on a broker that cannot serve");
        ensure!(s3.list(&flights.prefix())?.is_empty(), "something was stored: {:?}", s3.list(&flights.prefix())?);

        kafka.kafka_shell(&format!(
            "kafka-configs.sh --bootstrap-server \"$BROKERS\" --alter --entity-type brokers --entity-default \
             --add-config message.max.bytes={OUTPUT_BATCH_BYTES},{unverified}=true"
        ))?;
        // The broker hears of it from its controller, a moment later.
        until("the third setting is refused by itself", PATIENCE, || {
            let text = refused(&flights.forebay, &[TOO_SHORT.to_owned()])?;
            Ok((!text.contains("takes batches of at most") && !text.contains(unverified)).then_some(()))
        })?;
        kafka.kill()?;
        kafka.start_with(&[(transactions, "30000")])?;
        flights.feed(&records)?;
        flights.run_until_end("one")?;
        flights.check(&records, &["one"])
    })
}

/// Method: two outputs are not there, one of them that of the dead letters, a third takes small batches only, and the journal, which somebody else
/// has made, has four settings that lose state, stop its time or refuse its batches. The topics are made, and the commands that were printed are run
/// as they stand.
#[test]
fn topics_that_cannot_serve_are_refused_at_once_and_what_is_printed_mends_them() -> Result<()> {
    in_folder("unfit", |folder| {
        let kafka = Instance::up("kafka", "unfit")?;
        let s3 = S3::of_environment()?;
        let flights = Flights::new(folder, kafka.broker()?, &s3, Ok)?;
        let records = records(5_000)?;
        flights.feed(&records)?;
        let [updates, _, delayed, dead] = outputs(&flights);
        let (broker, journal) = (&flights.broker, flights.journal());
        for gone in [&updates, &dead] {
            broker.delete_topic(gone)?;
        }
        broker.set(&delayed, &[("max.message.bytes", SMALL)])?;
        broker.create_topic(&journal, SHARDS)?;
        broker.set(&journal, &[("cleanup.policy", "compact"), ("retention.bytes", "1000000"), ("max.message.bytes", SMALLER)])?;

        let has = |setting: &str, harm: &str, needed: &str| {
            format!("journal {journal} has `{setting}`, which {harm}; `kafka-configs.sh --alter --topic {journal} --add-config {needed}`")
        };
        let clock = "lets a machine whose clock runs ahead stop the job's time";
        let said = [
            format!("spec.deadLetter.topic: topic {dead} does not exist; create it"),
            format!("spec.pipeline[3].upsert.emit.topic: topic {updates} does not exist; create it"),
            takes_less(&delayed, SMALL, OUTPUT_BATCH_BYTES),
            takes_less(&journal, SMALLER, JOURNAL_BATCH_BYTES),
            has("cleanup.policy=compact", "loses state", "cleanup.policy=delete"),
            has("retention.bytes=1000000", "loses state", "retention.bytes=-1"),
            has("message.timestamp.type=CreateTime", clock, "message.timestamp.type=LogAppendTime"),
        ];
        let text = refused(&flights.forebay, &said)?;
        ensure!(s3.list(&flights.prefix())?.is_empty(), "something was stored: {:?}", s3.list(&flights.prefix())?);

        let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let commands: Vec<&str> = quoted.filter(|code| code.starts_with("kafka-configs.sh ")).collect();
        ensure!(commands.len() == 5, "these are the commands that it printed: {commands:?}");
        let lines: Vec<String> = commands.iter().map(|command| format!("{command} --bootstrap-server \"$BROKERS\"\n")).collect();
        kafka.kafka_shell(&lines.concat())?;
        for gone in [&updates, &dead] {
            broker.create_topic(gone, PARTITIONS)?;
        }
        flights.run_until_end("one")?;
        flights.check(&records, &["one"])
    })
}

/// The command by which docs/permissions.md has a journal made by hand: this one, on a single broker.
fn by_hand(journal: &str) -> Result<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permissions.md"))?;
    let mut blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let command = blocks.find(|block| block.starts_with("kafka-topics.sh ")).context("the page makes no journal by hand")?;
    let changes = [
        ("forebay.default.flights.0.journal", journal),
        ("--replication-factor 3", "--replication-factor 1"),
        ("min.insync.replicas=2", "min.insync.replicas=1"),
    ];
    changes.into_iter().try_fold(command.to_owned(), |command, (from, to)| replaced(command, from, to))
}

/// Method: the journal is made as the page says, for four shards, and the job's first start has six. A job that has never run can be repaired in its
/// shards: with four it must run.
#[test]
fn a_journal_made_by_hand_is_taken_once_the_job_has_as_many_shards() -> Result<()> {
    in_folder("by-hand", |folder| {
        let kafka = Instance::up("kafka", "by-hand")?;
        let flights = Flights::new(folder, kafka.broker()?, &S3::of_environment()?, Ok)?;
        let records = records(5_000)?;
        flights.feed(&records)?;
        kafka.kafka_shell(&by_hand(&flights.journal())?)?;
        let changed = flights.manifest.with_extension("changed.yaml");
        fs::write(&changed, replaced(fs::read_to_string(&flights.manifest)?, "shards: 4", "shards: 6")?)?;
        let said = ["4 partitions", "6 shards", "`shards`", &flights.journal()].map(str::to_owned);
        refused(&flights.forebay.clone().with_manifest(&changed), &said)?;
        flights.run_until_end("one")?;
        flights.check(&records, &["one"])
    })
}
