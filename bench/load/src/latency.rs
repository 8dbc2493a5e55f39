//! How old records are when a reader of committed records can see them, counted from the moment at which each was due to be sent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;

use crate::kafka::{all_partitions, ends, partitions_of, reader};

/// What precedes the time in a record.
const MARK: &[u8] = b"\"sent_us\":";

/// A latency above this counts as this.
const LATENCY_US_MAX: u64 = 600_000_000;

#[derive(clap::Args)]
pub struct Latency {
    /// The topic, read from its beginning
    #[arg(long)]
    topic: String,
    /// Read what comes from now on, instead of from the beginning
    #[arg(long)]
    from_end: bool,
    /// Leave out those that were due before, in microseconds since 1970
    #[arg(long, default_value_t = 0)]
    from_us: u64,
    /// End when this many records were seen
    #[arg(long)]
    records: Option<u64>,
    /// End when nothing comes for so long
    #[arg(long, default_value_t = 30)]
    patience_seconds: u64,
}

struct Seen {
    all: Histogram<u64>,
    by_second: BTreeMap<u64, Histogram<u64>>,
    records: u64,
    /// When the first record could be seen.
    first_us: Option<u64>,
}

impl Latency {
    /// Prints the distribution, over all and by the second in which records were due.
    pub fn run(&self, kafka: &str) -> Result<()> {
        let consumer: BaseConsumer = reader(kafka, true)?;
        consumer.assign(&self.places(&consumer)?)?;
        let mut seen = Seen { all: histogram()?, by_second: BTreeMap::new(), records: 0, first_us: None };
        let mut last = Instant::now();
        let patience = Duration::from_secs(self.patience_seconds);
        while self.records.is_none_or(|wanted| seen.records < wanted) && last.elapsed() < patience {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let now_us = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
                    self.add(&mut seen, message.payload().unwrap_or_default(), now_us)?;
                    last = Instant::now();
                }
                Some(Err(error)) => eprintln!("latency: {error}"),
                None => {}
            }
        }
        println!("{}", report(&seen));
        Ok(())
    }

    fn places(&self, consumer: &BaseConsumer) -> Result<TopicPartitionList> {
        let partitions = partitions_of(consumer, &self.topic)?;
        if !self.from_end {
            return all_partitions(&self.topic, partitions, Offset::Beginning);
        }
        // Asked for now: what is committed while the consumer looks up its places must not be missed.
        let mut places = TopicPartitionList::new();
        for (partition, end) in (0..).zip(ends(consumer, &self.topic, partitions)?) {
            places.add_partition_offset(&self.topic, partition, Offset::Offset(end))?;
        }
        Ok(places)
    }

    fn add(&self, seen: &mut Seen, value: &[u8], now_us: u64) -> Result<()> {
        seen.records += 1;
        seen.first_us.get_or_insert(now_us);
        let due_us = due(value).with_context(|| format!("a record of {} has no {}", self.topic, String::from_utf8_lossy(MARK)))?;
        let Some(since_us) = due_us.checked_sub(self.from_us) else { return Ok(()) };
        let latency_us = now_us.saturating_sub(due_us).clamp(1, LATENCY_US_MAX);
        seen.all.record(latency_us)?;
        let second = match seen.by_second.entry(since_us / 1_000_000) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(histogram()?),
        };
        second.record(latency_us)?;
        Ok(())
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

/// The time in a record, in microseconds.
fn due(value: &[u8]) -> Option<u64> {
    let at = value.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits = value[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn report(seen: &Seen) -> serde_json::Value {
    let ms = |us: u64| us as f64 / 1000.0;
    let all = &seen.all;
    let curve: Vec<_> = all.iter_quantiles(4).map(|step| json!([step.quantile_iterated_to(), ms(step.value_iterated_to())])).collect();
    let seconds: Vec<_> = seen
        .by_second
        .iter()
        .map(|(second, h)| json!([second, h.len(), ms(h.value_at_quantile(0.5)), ms(h.value_at_quantile(0.99)), ms(h.max())]))
        .collect();
    json!({
        "records_seen": seen.records,
        "first_seen_us": seen.first_us,
        "records_measured": all.len(),
        "p50_ms": ms(all.value_at_quantile(0.5)),
        "p90_ms": ms(all.value_at_quantile(0.9)),
        "p99_ms": ms(all.value_at_quantile(0.99)),
        "p999_ms": ms(all.value_at_quantile(0.999)),
        "max_ms": ms(all.max()),
        "curve": curve,
        "seconds": seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_in_a_record_and_a_record_without_one_has_none() {
        assert_eq!(due(br#"{"a":1,"sent_us":1234,"b":2}"#), Some(1234));
        assert_eq!(due(br#"{"sent":1}"#), None);
    }
}
