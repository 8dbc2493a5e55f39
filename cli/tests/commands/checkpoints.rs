//! Promise: checkpoints are incremental: one uploads what is new since the one before, not the whole state again.

use std::collections::BTreeMap;

use crate::support::{World, fill, orders};

/// Method: a state of some twenty megabytes is in a checkpoint; then a few entities change. What the next checkpoint names and the first one
/// does not is what was uploaded.
#[test]
fn a_second_checkpoint_uploads_what_is_new_alone() {
    let world = World::new();
    fill(&world, 40_000);
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let first = objects(&world);
    world.produce("orders", orders("ann", [1, 2, 3]));
    world.produce("orders", orders("bob", [1, 2, 3]));
    world.ask(&["run", "--until-end", "--checkpoint-on-stop"]);
    let second = objects(&world);
    let bytes = |objects: &BTreeMap<String, u64>| objects.values().sum::<u64>();
    assert!(bytes(&first) > 10 << 20, "too little for this test: {first:?}");
    assert!(bytes(&second) >= bytes(&first), "the second checkpoint does not hold the whole state: {second:?}, the first {first:?}");
    let uploaded: BTreeMap<_, _> = second.into_iter().filter(|(object, _)| !first.contains_key(object)).collect();
    assert!(!uploaded.is_empty(), "no second checkpoint was taken");
    assert!(bytes(&uploaded) < bytes(&first) / 20, "{uploaded:?} was uploaded, after {first:?}");
}

/// Objects and their sizes that the newest checkpoints of both shards name.
fn objects(world: &World) -> BTreeMap<String, u64> {
    let manifests = ["0", "1"].map(|shard| world.ask_json(&["snapshot", "inspect", "--shard", shard]).remove(0));
    let files = manifests.iter().flat_map(|manifest| manifest["files"].as_array().unwrap());
    files.map(|file| (file["object"].as_str().unwrap().to_owned(), file["size"].as_u64().unwrap())).collect()
}
