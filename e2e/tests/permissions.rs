//! Promise: a job needs of Kafka and S3 what docs/permissions.md lists and no more: it runs on a broker with TLS, SASL and ACLs, and on a bucket, as a
//! user who has just been given that, by the very commands and the very policies and rows of that page. Without them, or with a wrong password, it says what
//! is missing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, PARTITIONS, SHARDS, every_second, records, replaced};
use forebay_e2e::in_folder;
use forebay_e2e::job::Forebay;
use forebay_e2e::kafka::{Broker, Feeder};
use forebay_e2e::s3::{BUCKET, S3};
use forebay_e2e::stack::Instance;
use serde_json::{Value, json};

/// Wrong usage, or surroundings that cannot work.
const UNUSABLE: Option<i32> = Some(2);

const JOURNAL: &str = "forebay.default.flights.0.journal";

/// The variable that holds the user's name.
const USER: &str = "FLIGHTS_KAFKA_USER";

/// What must be true.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/permissions.md");

/// The page's policies: that of a job, and that of somebody who looks at one.
const JOB: usize = 0;
const READER: usize = 1;

/// The shell lines below a heading of docs/permissions.md that give permissions: those of the `acls` function, for the test's user.
fn documented(block: usize) -> Result<String> {
    let text = fs::read_to_string(PAGE)?;
    let blocks: Vec<&str> = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let found: Vec<&&str> = blocks.iter().filter(|block| block.contains("acls ")).collect();
    let function =
        found.first().and_then(|block| block.lines().find(|line| line.starts_with("acls()"))).context("the page has no function acls")?;
    let lines = found.get(block).with_context(|| format!("the page has {} blocks that call acls", found.len()))?;
    let lines = if lines.contains("acls()") { (**lines).to_owned() } else { format!("{function}\n{lines}") };
    ensure!(lines.contains("User:flights"), "the page gives nothing to User:flights: {lines}");
    Ok(lines.replace("User:flights", "User:alice"))
}

/// A policy of docs/permissions.md for this job's prefix, for everybody whom the server knows; without one of its actions.
fn documented_policy(which: usize, prefix: &str, missing: Option<&str>) -> Result<Value> {
    let page = fs::read_to_string(PAGE)?;
    let block = page.split("```json\n").nth(1 + which).and_then(|rest| rest.split("```").next()).context("the page has no such policy")?;
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

/// A right that the page's table gives: its column, and the place below the job's prefix.
#[derive(Clone, Debug, PartialEq)]
struct Right {
    what: &'static str,
    place: String,
}

/// What the table's row of these commands gives them.
fn row(commands: &str) -> Result<Vec<Right>> {
    const COLUMNS: [&str; 4] = ["list", "get", "put", "delete"];
    let page = fs::read_to_string(PAGE)?;
    let (_, table) = page.split_once(&format!("| command | {} |", COLUMNS.join(" | "))).context("the page has no table of prefixes")?;
    let line = table.lines().find(|line| line.starts_with(&format!("| {commands} |")));
    let line = line.with_context(|| format!("the page's table has no row of {commands}"))?;
    let cells = line.trim_matches('|').split('|').skip(1);
    let places = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    Ok(COLUMNS.into_iter().zip(cells).flat_map(|(what, cell)| places(cell).into_iter().map(move |place| Right { what, place })).collect())
}

/// A policy that gives just these, to everybody whom the server knows.
fn policy_of(rights: &[Right], flights: &Flights) -> Value {
    let statement = |Right { what, place }: &Right| {
        let place = place.replace("<uid>/<timeline>", &format!("default.{}/*", flights.name));
        let pattern = format!("{}/{place}{}", flights.prefix(), if place.ends_with('/') { "*" } else { "" });
        let actions: &[&str] = match *what {
            "list" => &["s3:ListBucket"],
            "get" => &["s3:GetObject"],
            "put" => &["s3:PutObject", "s3:AbortMultipartUpload"],
            _ => &["s3:DeleteObject"],
        };
        let mut statement = json!({"Effect": "Allow", "Principal": "*", "Action": actions});
        if *what == "list" {
            statement["Resource"] = format!("arn:aws:s3:::{BUCKET}").into();
            statement["Condition"] = json!({"StringLike": {"s3:prefix": pattern}});
        } else {
            statement["Resource"] = format!("arn:aws:s3:::{BUCKET}/{pattern}").into();
        }
        statement
    };
    json!({"Version": "2012-10-17", "Statement": rights.iter().map(statement).collect::<Vec<_>>()})
}

/// Calls these with all that their row of the table gives, and before that with one right less at a time, which one of them must miss. `untried` are rights
/// that matter in moments only which the test does not bring about.
fn check_row(owner: &S3, flights: &Flights, commands: &str, calls: &[&[&str]], untried: &[(&str, &str)]) -> Result<()> {
    let rights = row(commands)?;
    let is = |right: &Right, (what, place): &(&str, &str)| right.what == *what && right.place == *place;
    for other in untried {
        ensure!(rights.iter().any(|right| is(right, other)), "the row of {commands} does not give {other:?}");
    }
    for missing in rights.iter().filter(|right| !untried.iter().any(|other| is(right, other))) {
        let rest: Vec<Right> = rights.iter().filter(|right| *right != missing).cloned().collect();
        owner.set_policy(&policy_of(&rest, flights))?;
        let mut refused = false;
        for call in calls {
            let output = flights.forebay.call(call)?;
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            refused |= !output.status.success() && said.contains("answered 403");
        }
        ensure!(refused, "{commands} do without the right that the page lists for them: {missing:?}");
    }
    owner.set_policy(&policy_of(&rights, flights))?;
    for call in calls {
        flights.forebay.ask(call).with_context(|| format!("with what the page lists for {commands}"))?;
    }
    Ok(())
}

/// How the job finds the broker and logs in, as its manifest says it: the user stands in the environment, the password in a file.
fn connection(instance: &Instance, password: &Path) -> Result<String> {
    Ok(format!(
        "\
spec:
  kafka:
    bootstrapServers: \"{}\"
    properties:
      security.protocol: SASL_SSL
      sasl.mechanism: SCRAM-SHA-512
      ssl.ca.location: {}/ca.pem
    propertiesFrom:
      sasl.username: {{env: {USER}}}
      sasl.password: {{file: {}}}
",
        instance.get("FOREBAY_TEST_KAFKA_SASL_SSL")?,
        instance.get("FOREBAY_TEST_KAFKA_TLS")?,
        password.display()
    ))
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

/// Method: the example's own manifest on a broker of its own, which it names itself, with user and password by reference. At first a reference leads
/// nowhere or to what is wrong; then the user is without any right, then with those of the page. The job runs, is killed (its successor must bar
/// it), takes checkpoints until the journal is cut; then the dead letters are put back with the page's second block.
#[test]
fn a_job_needs_what_the_page_lists_and_no_more() -> Result<()> {
    in_folder("permissions", |folder| {
        let instance = Instance::up("kafka-secure", "permissions")?;
        let (broker, s3) = (instance.broker()?, S3::of_environment()?);
        for topic in ["flights", "updates", "enriched", "delayed", "flights.dead"] {
            broker.create_topic(topic, PARTITIONS)?;
        }
        let (manifest, password) = (folder.join("job.yaml"), folder.join("password"));
        let example = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml"))?;
        fs::write(&manifest, replaced(example, "spec:\n", &connection(&instance, &password)?)?)?;
        let mut forebay = Forebay::new(&manifest, folder)
            .with(USER, "alice")
            .with("FOREBAY_STORE", format!("s3://{BUCKET}/{}", forebay_e2e::unique("permissions")));
        for (name, value) in s3.environment() {
            forebay = forebay.with(name, value);
        }
        let run = ["run", "--until-end"];
        check(&forebay, &run, UNUSABLE, &["spec.kafka.propertiesFrom.sasl.password", &password.to_string_lossy()])?;
        let wrong = ["refused", "sasl.*", "spec.kafka.propertiesFrom", "--kafka-property"];
        fs::write(&password, "hunter2\n")?;
        check(&forebay, &run, UNUSABLE, &wrong)?;
        fs::write(&password, "alice-secret\n")?;
        check(&forebay.clone().with(USER, "nobody"), &run, UNUSABLE, &wrong)?;
        check(&forebay.clone().without(USER), &run, UNUSABLE, &["spec.kafka.propertiesFrom.sasl.username", USER, "is not set"])?;
        // The environment counts more than the manifest.
        let stranger = format!("ssl.ca.location={}/stranger.pem", instance.get("FOREBAY_TEST_KAFKA_TLS")?);
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
            owner.set_policy(&documented_policy(JOB, &flights.prefix(), Some(missing))?)?;
            let said = [action, "refused", "403", missing, &flights.prefix()];
            check(&flights.forebay, &["run", "--until-end"], UNUSABLE, &said).with_context(|| format!("without {missing}"))?;
        }
        ensure!(owner.list(&flights.prefix())?.iter().all(|key| key.contains("/.preflight/")), "something was written without a right");

        owner.set_policy(&documented_policy(JOB, &flights.prefix(), None)?)?;
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

/// Method: a bucket of its own, and a user who may do just what a row of the page's table gives, or one right less. A job runs, is rewound, runs on, is saved,
/// rewound once more, looked at and cleaned up. What `run` lacks at its first start it lacks before anything is stored.
#[test]
fn each_command_needs_of_s3_what_its_row_lists_and_no_more() -> Result<()> {
    in_folder("permissions-rows", |folder| {
        let server = Instance::up("s3", "permissions")?;
        let owner = server.s3()?;
        let mut flights = Flights::new(folder, Broker::of_environment()?, &owner, Ok)?;
        flights.forebay = flights
            .forebay
            .with("AWS_ACCESS_KEY_ID", server.get("FOREBAY_TEST_S3_LIMITED_ACCESS_KEY")?)
            .with("AWS_SECRET_ACCESS_KEY", server.get("FOREBAY_TEST_S3_LIMITED_SECRET_KEY")?);
        let check_one = |commands: &str, calls: &[&[&str]], untried: &[(&str, &str)]| check_row(&owner, &flights, commands, calls, untried);
        let savepoint = |name: &str| format!("default/{}/{name}", flights.name);
        let records = records(20_000)?;
        ensure!(row("`validate`, `test`, `log`, `dlq`")?.is_empty(), "without any right these commands work");
        flights.forebay.ask(&["dlq", "ls"])?;

        flights.feed(&records[..10_000])?;
        let run: &[&[&str]] = &[&["run", "--until-end", "--checkpoint-on-stop"]];
        // That a missing object may be listed matters on AWS; at the first start there is nothing to be read yet.
        check_one("`run`", run, &[("list", "adopted.json"), ("get", "timelines/"), ("get", "identity/")])?;
        owner.set_policy(&documented_policy(JOB, &flights.prefix(), None)?)?;
        flights.forebay.ask(&["savepoint", "take", "--name", "zero"])?;
        flights.forebay.ask(&["rewind", "--id", "first", "--to-savepoint", &savepoint("zero")])?;
        flights.feed(&records[10_000..])?;
        check_one("`run`", run, &[("list", "adopted.json"), ("put", "identity/")])?;
        let mut more = row("`run`")?;
        more.push(Right { what: "put", place: "timelines/".to_owned() });
        let worker = row("`worker`")?;
        ensure!(worker.len() == more.len() && more.iter().all(|right| worker.contains(right)), "a worker needs {more:?}");

        let take: &[&[&str]] = &[&["savepoint", "take", "--name", "one"], &["savepoint", "take", "--name", "two", "--at-rest"]];
        check_one("`savepoint take`", take, &[("list", "savepoints/"), ("delete", "savepoints/")])?;
        check_one("`rewind`", &[&["rewind", "--id", "second", "--to-savepoint", &savepoint("one")]], &[("list", "savepoints/")])?;
        owner.set_policy(&policy_of(&row("`run`")?, &flights))?;
        flights.forebay.ask(run[0])?;

        let here: &[&[&str]] = &[&["state", "ls"], &["books"]];
        let there: &[&[&str]] = &[&["state", "scan", "--limit", "1", "--from-store"], &["books", "--from-store"], &["snapshot", "verify"]];
        check_one("`state`, `books`", here, &[])?;
        check_one("`state --from-store`, `books --from-store`, `snapshot`", there, &[])?;
        owner.set_policy(&documented_policy(READER, &flights.prefix(), None)?)?;
        for call in [here, there].concat() {
            flights.forebay.ask(call).context("with the page's policy for somebody who looks at a job")?;
        }
        check(&flights.forebay, &["run", "--until-end"], UNUSABLE, &["put", "refused", "403", "s3:PutObject"])?;

        check_one("`savepoint delete`", &[&["savepoint", "delete", "--name", "one"]], &[])?;
        check_one("`cleanup`", &[&["cleanup", "--delete"]], &[])?;
        let left = owner.list(&flights.prefix())?;
        ensure!(
            !left.is_empty() && left.iter().all(|key| key.contains("/savepoints/")),
            "something else than savepoints is left: {left:?}"
        );
        Ok(())
    })
}
