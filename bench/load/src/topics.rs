//! Makes and deletes topics.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use crate::kafka::{PATIENCE, config, ends, reader};

/// Makes topics, written NAME:PARTITIONS, and waits until they can be used. One that is there already is an error.
pub fn create(kafka: &str, topics: &[String]) -> Result<()> {
    let admin = Admin::open(kafka)?;
    let mut wanted = Vec::new();
    for topic in topics {
        let (name, partitions) = topic.split_once(':').with_context(|| format!("{topic}: write NAME:PARTITIONS"))?;
        let partitions: i32 = partitions.parse().with_context(|| format!("{topic}: how many partitions?"))?;
        wanted.push((name, partitions));
    }
    // Kept until they are deleted: a broker goes by the records' time stamps, which may be days old.
    let specs: Vec<NewTopic<'_>> = wanted
        .iter()
        .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1"))
        .collect();
    let made = admin.runtime.block_on(admin.client.create_topics(&specs, &limits()))?;
    for result in made {
        if let Err((name, code)) = result {
            anyhow::bail!("make topic {name}: {code}");
        }
    }
    // A broker knows a topic a moment after its controller does, and answers for its partitions another moment later.
    let asker = reader(kafka, false)?;
    let deadline = Instant::now() + PATIENCE;
    for (name, partitions) in wanted {
        while let Err(error) = ends(&asker, name, partitions) {
            ensure!(Instant::now() < deadline, "topic {name} was made and cannot be used: {error:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Deletes all topics whose names begin with one of these, and waits until they are gone.
pub fn delete(kafka: &str, prefixes: &[String]) -> Result<()> {
    let admin = Admin::open(kafka)?;
    let doomed = admin.names(prefixes)?;
    if doomed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = doomed.iter().map(String::as_str).collect();
    for result in admin.runtime.block_on(admin.client.delete_topics(&names, &limits()))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((name, code)) => anyhow::bail!("delete topic {name}: {code}"),
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !admin.names(prefixes)?.is_empty() {
        ensure!(Instant::now() < deadline, "topics {doomed:?} were deleted and do not disappear");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    fn open(kafka: &str) -> Result<Self> {
        let client = config(kafka).create().context("open an admin client")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client, runtime })
    }

    fn names(&self, prefixes: &[String]) -> Result<BTreeSet<String>> {
        let metadata = self.client.inner().fetch_metadata(None, PATIENCE)?;
        let is_meant = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        Ok(metadata.topics().iter().map(|topic| topic.name()).filter(is_meant).map(str::to_owned).collect())
    }
}

fn limits() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}
