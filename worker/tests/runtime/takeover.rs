//! Promise: whoever takes a shard over from an owner that must be barred does not wait for that before it downloads.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay_engine::ids::WorkerName;
use forebay_worker::RuntimeOptions;

use crate::gates::{Gate, Gated};
use crate::support::{Scene, Slow, end, log, options, start_with, until, until_shard};

/// Method: the barring of an owner waits until the checkpoint is downloaded. The restore behind it must find it there.
#[test]
fn a_checkpoint_is_downloaded_while_the_owner_before_is_barred() {
    let scene = Scene::new();
    let owner = scene.start("one", RuntimeOptions::GARBAGE_GRACE);
    let checkpoint = scene.take_checkpoint(&owner);

    let (store, bars) = (Slow::over(&scene.store), Arc::<Gate>::default());
    store.let_go();
    bars.set_closed(true);
    let mut other = options(scene.path(), "two");
    (other.state_dir, other.worker.worker) = (scene.path().join("beside"), WorkerName::new("v"));
    let gated = Gated { log: log(scene.path()), commits: Arc::default(), bars: bars.clone() };
    let runtime = start_with(store.clone(), gated, other);
    bars.wait_until_somebody_waits();
    let named: BTreeSet<String> = checkpoint.files.iter().map(|file| file.object.clone()).collect();
    until("the checkpoint is downloaded", || match BTreeSet::from_iter(store.asked()) {
        asked if asked == named => Ok(()),
        asked => Err(asked),
    });

    bars.set_closed(false);
    let shard = until_shard(runtime.status(), "the shard runs", |shard| shard.phase == "running");
    assert_eq!(shard.books.records_in, 11);
    assert_eq!(store.asked().len(), named.len(), "something was downloaded twice: {:?}", store.asked());
    end(runtime);
    end(owner);
}
