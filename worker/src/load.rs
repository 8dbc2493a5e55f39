//! What part of a thread's time a shard takes. It decides where shards should be, so it must be steady rather than new.

use std::time::{Duration, Instant};

/// Over so long it is taken: long enough for a burst to be a part of it.
const WINDOW: Duration = Duration::from_secs(60);

/// Of one shard, since it began to run here.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    began: Instant,
    busy: Duration,
    last_permille: Option<u32>,
}

impl Load {
    /// Of a shard that begins now.
    pub fn since(began: Instant) -> Self {
        Self { began, busy: Duration::ZERO, last_permille: None }
    }

    /// Adds what it has taken up to now.
    pub fn add(&mut self, busy: Duration, now: Instant) {
        self.busy += busy;
        let elapsed = now - self.began;
        if elapsed >= WINDOW {
            let permille = self.busy.as_micros() * 1000 / elapsed.as_micros();
            *self = Self { last_permille: Some(u32::try_from(permille).unwrap_or(u32::MAX)), ..Self::since(now) };
        }
    }

    /// In thousandths, over the last whole window; `None` until there has been one.
    pub fn permille(&self) -> Option<u32> {
        self.last_permille
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_after_a_minute_and_is_the_last_whole_minutes() {
        let begin = Instant::now();
        let mut load = Load::since(begin);
        let mut seconds = 0;
        let mut pass = |load: &mut Load, busy_millis: u64, count: u64| {
            for _ in 0..count {
                seconds += 1;
                load.add(Duration::from_millis(busy_millis), begin + Duration::from_secs(seconds));
            }
        };
        pass(&mut load, 250, 59);
        assert_eq!(load.permille(), None);
        pass(&mut load, 250, 1);
        assert_eq!(load.permille(), Some(250));
        pass(&mut load, 1000, 30);
        assert_eq!(load.permille(), Some(250));
        pass(&mut load, 0, 30);
        assert_eq!(load.permille(), Some(500));
        pass(&mut load, 0, 60);
        assert_eq!(load.permille(), Some(0));
    }
}
