//! The one place where the machine's clock is read.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay_engine::ids::Timestamp;

/// The time of day. May go back; whoever needs more keeps the highest value.
pub fn now() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
