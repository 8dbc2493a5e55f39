//! Keeps the process within its memory (I9). The budget shares out what can be counted. What the allocator, the log's client and the databases take on
//! top of it swings, and only the system knows it: as that comes near the bound, free memory is given back, and epochs end earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the system is asked once three quarters of the bound are held: a backlog brings some megabytes in the meantime.
const TICK: Duration = Duration::from_millis(20);

/// How often otherwise. A backlog brings some twenty megabytes in the meantime, a third of the quarter that is left of the least bound that can be kept to.
const TICK_FAR: Duration = Duration::from_millis(100);

/// Of the bound, in sixteenths: from here on free memory is given back. Below, it is better kept: to take it anew costs page faults.
const GIVE_BACK_SIXTEENTHS: usize = 15;

/// At the bound epochs hold so much less. Shorter ones would cost more commits than they save memory.
const LEAST_SHARE: usize = 4;

/// The bound, and what one shard's open epoch may hold as things are.
pub(crate) struct Pressure {
    bytes_max: usize,
    epoch_bytes_max: usize,
    epoch_bytes: AtomicUsize,
}

impl Pressure {
    /// Of a process that may hold `bytes_max`, and a shard's epoch `epoch_bytes_max` of them.
    pub fn new(bytes_max: usize, epoch_bytes_max: usize) -> Self {
        Self { bytes_max, epoch_bytes_max, epoch_bytes: AtomicUsize::new(epoch_bytes_max) }
    }

    /// Bytes of outputs and state changes that one shard's open epoch may hold now.
    pub fn epoch_bytes(&self) -> usize {
        self.epoch_bytes.load(Ordering::Relaxed)
    }

    /// When to look again at a process that holds so many bytes.
    fn tick(&self, resident_bytes: usize) -> Duration {
        if resident_bytes < self.bytes_max / 4 * 3 { TICK_FAR } else { TICK }
    }

    /// The process holds so many bytes. Returns whether free memory is to be given back.
    fn felt(&self, resident_bytes: usize) -> bool {
        let from = self.bytes_max / 16 * GIVE_BACK_SIXTEENTHS;
        let (room, span) = (self.bytes_max.saturating_sub(resident_bytes), self.bytes_max - from);
        let least = self.epoch_bytes_max / LEAST_SHARE;
        let more = (self.epoch_bytes_max - least) as u64 * room.min(span) as u64 / span.max(1) as u64;
        self.epoch_bytes.store(least + usize::try_from(more).expect("it is less than the most"), Ordering::Relaxed);
        resident_bytes >= from
    }

    /// Starts the thread that asks the system; it ends when nobody else has the pressure any more. `give_back` has the allocator return what is free.
    pub fn watch(self: &Arc<Self>, give_back: fn()) -> JoinHandle<()> {
        let pressure = Arc::downgrade(self);
        let watch = move || {
            while let Some(pressure) = pressure.upgrade() {
                let resident = resident_bytes().unwrap_or(0);
                if pressure.felt(resident) {
                    give_back();
                }
                let tick = pressure.tick(resident);
                drop(pressure);
                std::thread::sleep(tick);
            }
        };
        std::thread::Builder::new().name("pressure".into()).spawn(watch).expect("the system refuses a thread at the start")
    }
}

/// What the process holds, as the kernel counts it; `None` where it does not tell.
pub(crate) fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<usize>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn epochs_get_shorter_as_the_bound_comes_near_and_longer_again() {
        let pressure = Pressure::new(1600, 800);
        let seen = |resident| (pressure.felt(resident), pressure.epoch_bytes());
        assert_eq!((pressure.tick(1199), pressure.tick(1200)), (TICK_FAR, TICK));
        assert_eq!(seen(1499), (false, 800));
        assert_eq!(seen(1500), (true, 800));
        assert_eq!(seen(1550), (true, 500));
        assert_eq!(seen(1600), (true, 200));
        assert_eq!(seen(9999), (true, 200));
        assert_eq!(seen(0), (false, 800));
    }

    #[test]
    fn a_process_over_its_bound_gives_back_until_nobody_has_the_pressure() {
        static GIVEN_BACK: AtomicUsize = AtomicUsize::new(0);
        let pressure = Arc::new(Pressure::new(1 << 20, 800));
        let thread = pressure.watch(|| {
            GIVEN_BACK.fetch_add(1, Ordering::Relaxed);
        });
        let begin = Instant::now();
        while GIVEN_BACK.load(Ordering::Relaxed) == 0 {
            assert!(begin.elapsed() < Duration::from_secs(60), "nothing is given back");
            std::thread::yield_now();
        }
        assert_eq!(pressure.epoch_bytes(), 200);
        drop(pressure);
        thread.join().unwrap();
    }

    #[test]
    fn what_the_process_holds_is_known() {
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let resident = resident_bytes().expect("the kernel tells");
        assert!(resident >= held.len() && resident < held.len() << 10, "{resident} bytes");
        assert_eq!(std::hint::black_box(held).last(), Some(&1));
    }
}
