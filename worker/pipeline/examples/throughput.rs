//! How fast one thread takes records through a pipeline: flights-like records, the example's own pipeline, state in memory.
//!
//! `cargo run --release -p forebay-pipeline --example throughput [events [job.yaml]]`

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use forebay_crds::pipeline::Step;
use forebay_engine::ids::{InputId, JournalOffset, Offset, Partition, Timestamp};
use forebay_engine::record::InputRecord;
use forebay_engine::shard::{Annotations, Shard};
use forebay_pipeline::fixture::{MemoryStore, beginning, fixture_context, owner};
use forebay_pipeline::{CompiledPipeline, InputContext, PipelineInstance};

const AIRCRAFT: u64 = 4_000;
const AIRPORTS: u64 = 100;
/// About what 100 ms bring when nothing else takes time.
const EPOCH_RECORDS: usize = 20_000;

#[derive(serde::Deserialize)]
struct Manifest {
    spec: Spec,
}

#[derive(serde::Deserialize)]
struct Spec {
    pipeline: Vec<Step>,
}

fn main() {
    let events: usize = std::env::args().nth(1).map_or(1_000_000, |events| events.parse().unwrap());
    let flights = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/flights/job.yaml").to_owned();
    let path = std::env::args().nth(2).unwrap_or(flights);
    let manifest: Manifest = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let steps = manifest.spec.pipeline;
    let inputs = vec![InputContext { topic: "flights".into(), partitions: 1 }];
    let compiled = CompiledPipeline::compile(&steps, fixture_context(&steps, inputs, "flights.dead")).unwrap();
    let records = generate(events);
    let bytes: usize = records.iter().map(|(_, value)| value.len()).sum();

    let owner = owner();
    let mut shard = Shard::new(PipelineInstance::new(compiled), MemoryStore::default(), beginning(owner.clone()), 256 << 20);
    let (mut outputs, mut output_bytes) = (0, 0);
    let mut sealing = Duration::ZERO;
    let (started, cpu_before) = (Instant::now(), on_cpu());
    for offset in 0..events {
        let (key, value) = &records[offset % records.len()];
        let record = InputRecord {
            input: InputId::new(0),
            partition: Partition::new(0),
            offset: Offset::new(offset as u64),
            timestamp: Timestamp::from_millis(1),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        shard.process(&record, Timestamp::from_millis(1)).unwrap();
        if shard.open_records() == EPOCH_RECORDS || offset + 1 == events {
            let sealed_at = Instant::now();
            let sealed = shard.seal(&owner, Timestamp::from_millis(1), Annotations::default()).unwrap();
            outputs += sealed.outputs.len();
            output_bytes += sealed.outputs.bytes();
            let epoch = sealed.epoch;
            drop(sealed);
            shard.committed(epoch, JournalOffset::new(1)).unwrap();
            sealing += sealed_at.elapsed();
        }
    }
    let took = started.elapsed();
    let cpu = on_cpu().zip(cpu_before).map(|(after, before)| after - before);
    let per_event = |time: Duration| time.as_nanos() as f64 / events as f64;
    println!("{events} events of {} bytes, {:?}", bytes / records.len(), shard.head().books);
    println!("{outputs} outputs of {} bytes on average", output_bytes / outputs.max(1));
    println!(
        "{:.0} events/s of {:.0} ns each, {:.0} of it sealing and applying epochs of {EPOCH_RECORDS}",
        events as f64 / took.as_secs_f64(),
        per_event(took),
        per_event(sealing)
    );
    if let Some(cpu) = cpu {
        println!("{:.0} ns of CPU each: {:.0} events/s on a core that nobody else uses", per_event(cpu), events as f64 / cpu.as_secs_f64());
    }
}

/// How long this thread has been on a CPU; only Linux tells.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Random enough: a fixed sequence, so that two runs are alike.
fn generate(events: usize) -> Vec<(String, String)> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    (0..events)
        .map(|id| {
            let aircraft = format!("N{:05}", next(AIRCRAFT));
            // One in a hundred comes again later.
            let id = if next(100) == 0 && id > 100 { id - 1 } else { id };
            let value = format!(
                "{{\"id\":\"F{id:06}\",\"time\":\"2013-01-{:02}T{:02}:00:00Z\",\"carrier\":\"UA\",\"origin\":\"EWR\",\"dest\":\"A{:02}\",\"tailnum\":\"{aircraft}\",\
                 \"flight\":{},\"dep_delay\":{},\"arr_delay\":{},\"air_time\":{},\"distance\":{}}}",
                1 + next(28), next(24), next(AIRPORTS), next(5000), next(200) as i64 - 30, next(200) as i64 - 30, next(400), 100 + next(3000)
            );
            (aircraft, value)
        })
        .collect()
}
