//! Promise: while an epoch is committed the next one is processed; nothing of it is committed out of turn.

use std::sync::Arc;

use forebay_engine::ids::Epoch;
use forebay_local::LogFolder;

use crate::gates::{Gate, Gated};
use crate::support::{log, options, produce, start, until_shard};

/// Method: a commit is held up on its way to the log. What comes in meanwhile must be processed, and wait; then the commit goes through.
#[test]
fn while_an_epoch_is_committed_the_next_one_is_processed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(&dir.path().join("log")).unwrap();
    produce(&folder, 10);
    let gate = Arc::<Gate>::default();
    let gated = Gated { log: log(dir.path()), commits: gate.clone(), bars: Arc::default() };
    let runtime = start(dir.path(), gated, options(dir.path(), "p"));
    let status = runtime.status().clone();

    let before =
        until_shard(&status, "the first records are committed", |shard| shard.books.records_in == 10 && shard.uncommitted_records == 0);
    gate.set_closed(true);
    produce(&folder, 10);
    gate.wait_until_somebody_waits();
    produce(&folder, 20);
    let meanwhile = until_shard(&status, "all that has come meanwhile is processed", |shard| shard.uncommitted_records == 30);
    assert_eq!((meanwhile.epoch, meanwhile.books.records_in), (before.epoch, 10), "something was committed through a closed gate");

    gate.set_closed(false);
    let after = until_shard(&status, "all is committed", |shard| shard.books.records_in == 40 && shard.uncommitted_records == 0);
    assert!(after.epoch > Epoch::new(before.epoch.get() + 1), "the commit that was held up took what had come later with it");
    runtime.stop();
    runtime.join().unwrap();
}
