//! What a person sees while a job runs: a bar with rate, lag and books on a terminal, elsewhere a line of the log now and then and at the end.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use forebay_engine::ids::ShardId;
use forebay_engine::journal::Books;
use forebay_worker::status::Status;
use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The bar on the terminal, if there is one: what else is written there must come above it.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Standard error for the log, with the bar out of the way.
pub struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match BAR.get() {
            Some(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    last_line: Instant,
    /// Shards, rate and lag, as last seen before the shards were released.
    standing: String,
    /// When the rate was last taken, and how many records the running shards had in then.
    last: (Instant, BTreeMap<ShardId, u64>),
    rate: f64,
}

impl Progress {
    /// `total` records are to be worked off; `None`: it goes on for ever.
    pub fn new(total: Option<u64>) -> Self {
        let bar = ProgressBar::new(total.unwrap_or(0));
        let template = match total {
            Some(_) => "{bar:30} {percent:>3}%  {msg}",
            None => "{spinner}  {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
        let plain = bar.is_hidden();
        if !plain {
            BAR.get_or_init(|| bar.clone());
        }
        Self { bar, plain, last_line: Instant::now(), standing: String::new(), last: (Instant::now(), BTreeMap::new()), rate: 0.0 }
    }

    /// Shows where the job stands; once its shards are being released, and fewer by and by, where they stood.
    pub fn show(&mut self, status: &Status, releasing: bool) {
        let now = Instant::now();
        let (shards, books) = (status.shards(), status.books());
        let elapsed = now.duration_since(self.last.0).as_secs_f64();
        if elapsed >= 0.5 {
            let ins: BTreeMap<_, _> =
                shards.iter().filter(|(_, shard)| shard.phase == "running").map(|(id, shard)| (*id, shard.books.records_in)).collect();
            // What a shard had in when it came up was not read just now.
            let read: u64 = ins.iter().filter_map(|(id, now)| Some(now.saturating_sub(*self.last.1.get(id)?))).sum();
            let rate = read as f64 / elapsed;
            self.rate = if self.rate == 0.0 { rate } else { 0.5 * self.rate + 0.5 * rate };
            self.last = (now, ins);
        }
        let running = shards.values().filter(|shard| shard.phase == "running").count();
        let lag: u64 = shards.values().map(forebay_worker::status::ShardStatus::lag_records).sum();
        if !releasing {
            self.standing = format!("{running}/{} shards  {:.0} records/s  lag {lag}", shards.len(), self.rate);
        }
        let message = self.message(&books);
        if !self.plain {
            self.bar.set_position(books.records_in);
            self.bar.set_message(message);
        } else if now.duration_since(self.last_line) >= LINE_INTERVAL {
            self.last_line = now;
            tracing::info!("{message}");
        }
    }

    fn message(&self, books: &Books) -> String {
        format!("{}  {}", self.standing, books_line(books))
    }

    /// Prints a line above the bar; without one it is a line of the log.
    pub fn say(&self, line: &str) {
        if self.plain { tracing::info!("{line}") } else { self.bar.println(line) }
    }

    /// Takes the bar away; without one the end is a line of the log, so that a short run has one too.
    pub fn finish(&self, books: &Books) {
        if self.plain {
            tracing::info!("{}", self.message(books));
        }
        self.bar.finish_and_clear();
    }
}

/// `340184 in = 328521 processed + 8383 rejected + 3280 duplicate`
pub fn books_line(books: &Books) -> String {
    let parts = [
        (books.processed, "processed"),
        (books.rejected, "rejected"),
        (books.duplicate, "duplicate"),
        (books.filtered, "filtered"),
        (books.throttled, "throttled"),
    ];
    let parts: Vec<_> =
        parts.iter().filter(|(count, name)| *count > 0 || *name == "processed").map(|(count, name)| format!("{count} {name}")).collect();
    format!("{} in = {}", books.records_in, parts.join(" + "))
}
