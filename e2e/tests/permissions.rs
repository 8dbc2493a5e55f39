//! Promise: a job needs of Kafka and S3 what docs/permissions.md lists and no more: it runs on a broker with TLS, SASL and ACLs, and on a bucket, as a
//! user who has just been given that, by the very commands and the very policy of that page. Without them, or with a wrong password, it says what
//! is missing.

use std::fs;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, PARTITIONS, SHARDS, every_second, records};
use forebay_e2e::in_folder;
use forebay_e2e::job::Forebay;
use forebay_e2e::kafka::{Broker, Feeder};
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::stack::Instance;
use serde_json::Value;

/// Wrong usage, or surroundings that cannot work.
const UNUSABLE: Option<i32> = Some(2);

const JOURNAL: &str = "forebay.default.flights.0.journal";

/// The shell lines below a heading of docs/permissions.md that give permissions: those of the `acls` function, for the test's user.
fn documented(block: usize) -> Result<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permissions.md");
    let text = fs::read_to_string(page)?;
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let found: Vec<&&str> = blocks.iter().filter(|block| block.contains("acls ")).collect();
    let function =
        found.first().and_then(|block| block.lines().find(|line| line.starts_with("acls()"))).context("the page has no function acls")?;
    let lines = found.get(block).with_context(|| format!("the page has {} blocks that call acls", found.len()))?;
    let lines = if lines.contains("acls()") { (**lines).to_owned() } else { format!("{function}\n{lines}") };
    ensure!(lines.contains("User:flights"), "the page gives nothing to User:flights: {lines}");
    Ok(lines.replace("User:flights", "User:alice"))
}

/// The policy of docs/permissions.md for this job's prefix, for everybody whom the server knows; without one of its actions.
fn documented_policy(prefix: &str, missing: Option<&str>) -> Result<Value> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permissions.md"))?;
    let block = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).context("the page has no policy")?;
    let text = block.replace("PREFIX/default/flights", prefix).replace("BUCKET", BUCKET);
    let mut policy: Value = serde_json::from_str(&text)?;
    ensure!(!text.contains("PREFIX"), "a place of the policy is not this job's: {text}");
    let statements = policy["Statement"].as_array_mut().context("the policy has no statements")?;
    let before = statements.iter().map(|statement| actions(statement).len()).sum::<usize>();
    for statement in statements.iter_mut() {
        statement["Action"] = actions(statement).into_iter().filter(|action| Some(action.as_str()) != missing).collect();
        statement["Principal"] = "*".into();
    }
    let left = statements.iter().map(|statement| actions(statement).len()).sum::<usize>();
    ensure!(left == before - usize::from(missing.is_some()), "the policy has no action {missing:?}");
    statements.retain(|statement| !actions(statement).is_empty());
    Ok(policy)
}

fn actions(statement: &Value) -> Vec<String> {
    let text = |action: &Value| action.as_str().map(str::to_owned);
    match &statement["Action"] {
        Value::Array(all) => all.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

fn properties(instance: &Instance, password: &str) -> Result<String> {
    let ca = format!("{}/ca.pem", instance.get("FOREBAY_TEST_KAFKA_TLS")?);
    let lines = [
        "security.protocol=SASL_SSL".to_owned(),
        "sasl.mechanism=SCRAM-SHA-512".to_owned(),
        "sasl.username=alice".to_owned(),
        format!("sasl.password={password}"),
        format!("ssl.ca.location={ca}"),
    ];
    Ok(lines.join("\n"))
}

/// Runs a command, which must end with this exit code and say all this, and never the password.
fn check(forebay: &Forebay, arguments: &[&str], code: Option<i32>, said: &[&str]) -> Result<String> {
    let output = forebay.call(arguments)?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == code, "{arguments:?} ended with {:?} instead of {code:?}: {text}", output.status);
    for needed in said {
        ensure!(text.contains(needed), "{needed:?} is not in what {arguments:?} said: {text}");
    }
    ensure!(!text.contains("alice-secret") && !text.contains("hunter2"), "a password is in what it said: {text}");
    Ok(text)
}

/// Method: the example's own manifest on a broker of its own, as a user without any right, then with those of the page. The job runs, is killed
/// (its successor must bar it), takes checkpoints until the journal is cut; then the dead letters are put back with the page's second block.
#[test]
fn a_job_needs_what_the_page_lists_and_no_more() -> Result<()> {
    in_folder("permissions", |folder| {
        let instance = Instance::up("kafka-secure", "permissions")?;
        let (broker, s3) = (instance.broker()?, S3::of_environment()?);
        for topic in ["flights", "updates", "enriched", "delayed", "flights.dead"] {
            broker.create_topic(topic, PARTITIONS)?;
        }
        let manifest = folder.join("job.yaml");
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml"), &manifest)?;
        let mut forebay = Forebay::new(&manifest, folder)
            .with("FOREBAY_KAFKA", instance.get("FOREBAY_TEST_KAFKA_SASL_SSL")?)
            .with("FOREBAY_STORE", format!("s3://{BUCKET}/{}", forebay_e2e::unique("permissions")))
            .with("FOREBAY_KAFKA_PROPERTIES", properties(&instance, "alice-secret")?);
        for (name, value) in s3.environment() {
            forebay = forebay.with(name, value);
        }
        let run = ["run", "--until-end"];
        let wrong = forebay.clone().with("FOREBAY_KAFKA_PROPERTIES", properties(&instance, "hunter2")?);
        check(&wrong, &run, UNUSABLE, &["refused", "sasl.*"])?;
        let stranger = properties(&instance, "alice-secret")?.replace("/ca.pem", "/stranger.pem");
        check(&forebay.clone().with("FOREBAY_KAFKA_PROPERTIES", stranger), &run, UNUSABLE, &["ssl.*"])?;
        check(&forebay, &run, UNUSABLE, &["the Kafka cluster cannot run this job", "flights", "grant this principal"])?;

        instance.kafka_shell(&documented(0)?)?;
        let records = records(10_000)?;
        let feeder = Feeder::new(&broker, "flights")?;
        feeder.feed(&records[..4_000])?;
        let text = check(&forebay, &run, Some(0), &["4000 in"])?;
        ensure!(!text.contains("grant this principal"), "a right is missing: {text}");

        let killed = forebay.run("killed", &folder.join("data/state"), &[])?;
        killed.wait_until_running(SHARDS as usize)?;
        feeder.feed(&records[4_000..6_000])?;
        killed.wait_until_metric("forebay_records_total", 6_000.0)?;
        killed.kill()?;
        let mut fed = 6_000;
        while broker.ranges(JOURNAL)?.iter().any(|(start, _)| *start == 0) {
            ensure!(fed < records.len(), "the journal is never cut: {:?}", broker.ranges(JOURNAL)?);
            feeder.feed(&records[fed..fed + 1_000])?;
            fed += 1_000;
            let text = check(&forebay, &[&run[..], &["--checkpoint-on-stop"]].concat(), Some(0), &[&format!("{fed} in")])?;
            ensure!(!text.contains("was not cut"), "the journal was not cut: {text}");
        }

        let denied = check(&forebay, &["dlq", "replay"], UNUSABLE, &["refused"])?;
        ensure!(denied.contains("grant this principal"), "{denied}");
        instance.kafka_shell(&documented(1)?)?;
        let dry = check(&forebay, &["dlq", "replay", "--dry-run"], Some(0), &["dead letters would be put back"])?;
        check(&forebay, &["dlq", "replay"], Some(0), &[&dry.lines().last().unwrap_or_default().replace("would be", "are")])?;
        check(&forebay, &["dlq", "replay"], Some(0), &["0 dead letters are put back"])?;
        Ok(())
    })
}

/// Method: a bucket of its own, a user who may do nothing, then what the page's policy allows but for one action each, then all of it. The job takes
/// checkpoints, loses its disk, and is restored; it must come out right.
#[test]
fn a_job_needs_of_s3_what_the_page_lists_and_no_more() -> Result<()> {
    in_folder("permissions-s3", |folder| {
        let server = Instance::up("s3", "permissions")?;
        let owner = server.s3()?;
        let mut flights = Flights::new(folder, Broker::of_environment()?, &owner, every_second)?;
        flights.forebay = flights
            .forebay
            .with("AWS_ACCESS_KEY_ID", server.get("FOREBAY_TEST_S3_LIMITED_ACCESS_KEY")?)
            .with("AWS_SECRET_ACCESS_KEY", server.get("FOREBAY_TEST_S3_LIMITED_SECRET_KEY")?);
        let records = records(30_000)?;
        flights.feed(&records[..10_000])?;
        check(&flights.forebay, &["run", "--until-end"], UNUSABLE, &["list", "refused", "AccessDenied", "s3:ListBucket"])?;
        for (missing, action) in
            [("s3:ListBucket", "list"), ("s3:GetObject", "get"), ("s3:PutObject", "put"), ("s3:DeleteObject", "delete")]
        {
            owner.set_policy(&documented_policy(&flights.prefix(), Some(missing))?)?;
            let said = [action, "refused", "403", missing, &flights.prefix()];
            check(&flights.forebay, &["run", "--until-end"], UNUSABLE, &said).with_context(|| format!("without {missing}"))?;
        }
        ensure!(owner.list(&flights.prefix())?.iter().all(|key| key.contains("/.preflight/")), "something was written without a right");

        owner.set_policy(&documented_policy(&flights.prefix(), None)?)?;
        let running = flights.forebay.run("one", &flights.state_dir("one"), &[])?;
        for shard in 0..SHARDS {
            running.wait_for(&format!("a checkpoint of shard {shard}"), |line| {
                line.message() == "checkpoint uploaded" && line.field("shard").is_some_and(|found| found == shard.to_string())
            })?;
        }
        // An epoch after it, which names it.
        flights.feed(&records[10_000..20_000])?;
        running.wait_until_metric("forebay_records_total", 20_000.0)?;
        running.stop()?;
        fs::remove_dir_all(flights.state_dir("one"))?;
        flights.feed(&records[20_000..])?;
        let mut again = flights.forebay.run("one", &flights.state_dir("one"), &["--until-end", "--checkpoint-on-stop"])?;
        again.success()?;
        let restored = again.lines().iter().filter(|line| line.message() == "restored from a checkpoint").count();
        ensure!(restored == SHARDS as usize, "{restored} shards were restored from a checkpoint");
        let elsewhere = flights.forebay.clone().with("FOREBAY_STORE", format!("s3://{BUCKET}/elsewhere"));
        check(&elsewhere, &["run", "--until-end"], UNUSABLE, &["refused", "AccessDenied"])?;
        flights.check(&records, &["one"])
    })
}
