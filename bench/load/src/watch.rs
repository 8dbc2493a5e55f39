//! Progress of a topic, as a broker tells it: cheap enough to ask while contestants run.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::kafka::{ends, partitions_of, reader};

/// Looks in a row at which the broker says nothing: half a minute of them.
const REFUSALS_MAX: u32 = 150;

#[derive(clap::Args)]
pub struct Watch {
    /// The topic
    #[arg(long)]
    topic: String,
    /// Count up to the last stable offset, not to the end
    #[arg(long)]
    committed: bool,
    /// Milliseconds between two looks
    #[arg(long, default_value_t = 200)]
    every_ms: u64,
}

impl Watch {
    /// Prints `{"us": now, "offsets": sum over all partitions}` until nobody reads it any more. Markers of transactions count as offsets.
    pub fn run(&self, kafka: &str) -> Result<()> {
        let consumer = reader(kafka, self.committed)?;
        let partitions = partitions_of(&consumer, &self.topic)?;
        let mut out = std::io::stdout().lock();
        let mut next = Instant::now();
        let mut refusals = 0;
        loop {
            // A broker that has just made a topic may refuse to say for a moment.
            let offsets: i64 = match ends(&consumer, &self.topic, partitions) {
                Ok(ends) => ends.iter().sum(),
                Err(error) if refusals > REFUSALS_MAX => return Err(error),
                Err(_) => {
                    refusals += 1;
                    thread::sleep(Duration::from_millis(self.every_ms));
                    continue;
                }
            };
            refusals = 0;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
            let told = writeln!(out, "{{\"us\": {now}, \"offsets\": {offsets}}}").and_then(|()| out.flush());
            if told.is_err() {
                return Ok(());
            }
            next = (next + Duration::from_millis(self.every_ms)).max(Instant::now());
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}
