//! Guards the speed of the pipeline in a way that does not depend on the machine: how often memory is allocated per event, in the steady state
//! of the bench's workloads `action` and `transform`. The count is the same in every run of the same code. A test target of its own, since it has its own allocator.

#![allow(clippy::unwrap_used)]

mod support;

use allocation_counter::{AllocationInfo, measure};
use forebay_crds::pipeline::Step;
use forebay_engine::ids::{InputId, JournalOffset, Offset, Partition, Timestamp};
use forebay_engine::pipeline::Verdict;
use forebay_engine::record::InputRecord;
use forebay_engine::shard::{Annotations, Shard};
use forebay_pipeline::fixture::{MemoryStore, beginning, owner};
use forebay_pipeline::{CompiledPipeline, PipelineInstance};

/// More than this is a step back. When a change needs fewer, lower it to what the test prints, rounded up.
struct Limits {
    allocations_per_event: f64,
    bytes_per_event: f64,
}

const ACTION: Limits = Limits { allocations_per_event: 2.2, bytes_per_event: 900.0 };

/// VRL's values lie in memory of their own.
const TRANSFORM: Limits = Limits { allocations_per_event: 6.1, bytes_per_event: 700.0 };

/// Few enough that every user's memory of events is full before counting begins.
const USERS: u64 = 50;

/// At 100,000 events/s with commits every 100 ms a shard of twelve has about so many in an epoch.
const EPOCH_RECORDS: u64 = 800;

#[derive(serde::Deserialize)]
struct Manifest {
    spec: Spec,
}

#[derive(serde::Deserialize)]
struct Spec {
    pipeline: Vec<Step>,
}

/// Epochs of one shard, one after the other, until the last that is counted.
struct World {
    shard: Shard<PipelineInstance, MemoryStore>,
    made: u64,
}

impl World {
    fn open(workload: &str) -> Self {
        let path = format!("{}/../../bench/workloads/{workload}/job.yaml", env!("CARGO_MANIFEST_DIR"));
        let manifest: Manifest = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let compiled = CompiledPipeline::compile(&manifest.spec.pipeline, support::context(&manifest.spec.pipeline)).unwrap();
        let pipeline = PipelineInstance::new(compiled);
        Self { shard: Shard::new(pipeline, MemoryStore::default(), beginning(owner()), 64 << 20), made: 0 }
    }

    /// Runs one epoch; returns what its events have allocated, and what became of them: processed, rejected, duplicate.
    fn epoch(&mut self) -> ([AllocationInfo; 2], [u64; 3]) {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut verdicts = [0; 3];
        let records: Vec<_> = (0..EPOCH_RECORDS).map(|_| self.record()).collect();
        let first = self.made - EPOCH_RECORDS;
        let work = measure(|| {
            for (offset, (key, value)) in (first..).zip(&records) {
                let record = InputRecord {
                    input: InputId::new(0),
                    partition: Partition::new(0),
                    offset: Offset::new(offset),
                    timestamp: now,
                    key: Some(key.as_bytes()),
                    value: Some(value.as_bytes()),
                    headers: &[],
                };
                match self.shard.process(&record, now).unwrap() {
                    Verdict::Processed => verdicts[0] += 1,
                    Verdict::Rejected => verdicts[1] += 1,
                    Verdict::Duplicate => verdicts[2] += 1,
                    other => panic!("{other:?}: {value}"),
                }
            }
        });
        let mut sealed = None;
        let seal = measure(|| sealed = self.shard.seal(&owner(), now, Annotations::default()));
        let epoch = sealed.map(|sealed| sealed.epoch).unwrap();
        // What the store does is not the pipeline's.
        self.shard.committed(epoch, JournalOffset::new(epoch.get())).unwrap();
        ([work, seal], verdicts)
    }

    /// As the bench's generator makes them: 1% come twice, 0.5% are cut off.
    fn record(&mut self) -> (String, String) {
        let number = self.made;
        self.made += 1;
        let original = if number % 100 == 99 { number - 50 } else { number };
        // A linear congruential generator, so that neighbours in number are not alike.
        let random = original.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 16;
        let user = random % USERS;
        let kind = ["page_view", "click", "add_to_cart", "purchase", "search", "login", "signup", "refund"][(random >> 8) as usize % 8];
        let mut value = format!(
            "{{\"tenant\":\"t{}\",\"user\":\"u{user}\",\"event_id\":\"{:08x}-0000-4000-a000-{original:012x}\",\"ts\":{},\"sent_us\":{},\
             \"type\":\"{kind}\",\"attrs\":{{\"page\":\"/catalog/category-{}/item-{:04}\",\"referrer\":\"newsletter\",\"amount\":{}.{:02},\
             \"currency\":\"EUR\",\"sku\":\"SKU-{:08}\",\"campaign\":\"cmp-{}-autumn-sale\"}},\"identifiers\":{{\
             \"email\":\"user{user}@example-mail.com\",\"device\":\"dev-{user:08x}-{}\"}}}}",
            user % 10,
            random as u32,
            1_700_000_000_000 + original,
            1_700_000_000_000_000 + original * 1000,
            random % 50,
            random % 9973,
            random % 500,
            random % 100,
            random % 100_000_000,
            random % 300,
            (random >> 20) % 4,
        );
        if number % 200 == 120 {
            value.truncate(value.len() - 20);
        }
        (format!("t{}/u{user}", user % 10), value)
    }
}

/// Measures some epochs once all is in its steady state; returns what became of their events, in shares of 200.
fn check(workload: &str, limits: &Limits) -> [u64; 3] {
    let mut world = World::open(workload);
    for _ in 0..10 {
        world.epoch();
    }
    let (epochs, mut allocations, mut bytes, mut verdicts) = (5, 0, 0, [0; 3]);
    for _ in 0..epochs {
        let (counted, became) = world.epoch();
        allocations += counted.iter().map(|part| part.count_total).sum::<u64>();
        bytes += counted.iter().map(|part| part.bytes_total).sum::<u64>();
        verdicts.iter_mut().zip(became).for_each(|(sum, more)| *sum += more);
    }
    let events = epochs * EPOCH_RECORDS;
    let per_event = |sum: u64| sum as f64 / events as f64;
    let (allocations, bytes) = (per_event(allocations), per_event(bytes));
    println!("{workload}: {allocations:.2} allocations and {bytes:.0} bytes per event");
    assert!(allocations <= limits.allocations_per_event, "{workload}: {allocations:.2} allocations per event");
    assert!(bytes <= limits.bytes_per_event, "{workload}: {bytes:.0} bytes per event");
    verdicts.map(|count| count * 200 / events)
}

#[test]
fn an_event_of_the_bench_allocates_no_more_than_it_used_to() {
    assert_eq!(check("action", &ACTION), [197, 1, 2], "the workload is not what it should be");
    assert_eq!(check("transform", &TRANSFORM), [199, 1, 0], "the workload is not what it should be");
}
