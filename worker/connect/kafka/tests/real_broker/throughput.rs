//! How fast 200,000 records go out and come in. Figures for people, no time is asserted: machines differ.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_engine::ids::{Incarnation, ShardId};
use forebay_engine::log::{InputReader, Log, Producer, StartFrom, Transaction, View};
use forebay_engine::record::Outputs;

use crate::world::{committed, journal_of, to, world};

const RECORDS: usize = 200_000;
const PARTITIONS: u32 = 12;

#[test]
fn many_records_go_out_and_come_in() {
    let Some(world) = world(1, PARTITIONS) else { return };
    let value = vec![b'v'; 380];
    let mut upstream = world.upstream();
    let parts = 10;
    let transactions: Vec<Transaction> = (0..parts)
        .map(|part| {
            let mut outputs = Outputs::default();
            for number in 0..RECORDS / parts {
                outputs.push(to(None, Some(format!("user-{}", number * parts + part).as_bytes())), Some(&value), &[]);
            }
            Transaction { outputs: vec![Arc::new(outputs)], ..Transaction::default() }
        })
        .collect();
    let begun = Instant::now();
    for transaction in &transactions {
        upstream.commit(transaction).unwrap();
    }
    report(&format!("committed {RECORDS} records in {parts} transactions"), begun);

    let mut input = world.input(StartFrom::Earliest);
    let (begun, mut count, mut bytes) = (Instant::now(), 0, 0);
    while count < RECORDS {
        assert!(begun.elapsed() < crate::world::PATIENCE * 4, "only {count} records came");
        count += input.poll(Duration::from_millis(100), 4096, &mut |record| bytes += record.value.map_or(0, <[u8]>::len)).unwrap();
    }
    assert_eq!((count, bytes), (RECORDS, RECORDS * value.len()));
    report(&format!("polled {RECORDS} records"), begun);
}

#[test]
fn what_small_commits_reads_and_barring_cost() {
    let Some(world) = world(1, 1) else { return };
    let mut producer = world.producer("w0.1");
    committed(&mut producer, &journal_of(0, &[b"warm"]));
    let begun = Instant::now();
    for _ in 0..50 {
        committed(&mut producer, &journal_of(0, &[b"epoch"]));
    }
    report("50 commits of one journal record", begun);
    for view in [View::Uncommitted, View::CommittedToEnd] {
        world.journal(0, 0, view).unwrap();
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(world.journal(0, 0, view).unwrap().0.len(), 51);
        }
        report(&format!("20 reads of a short journal, {view:?}"), begun);
    }
    let begun = Instant::now();
    world.log.bar(&Incarnation::new("w9.1")).unwrap();
    report("barring with nothing open", begun);
    let zombie = world.foreign("w9.2");
    world.leave_open(&zombie, 0, b"open");
    let begun = Instant::now();
    world.log.bar(&Incarnation::new("w9.2")).unwrap();
    report("barring with an open transaction", begun);
    let begun = Instant::now();
    drop(producer);
    report("dropping a producer", begun);
    let begun = Instant::now();
    let input = world.input(StartFrom::Latest);
    report("opening the first input", begun);
    drop(input);
    let begun = Instant::now();
    drop(
        world
            .log
            .open_input(ShardId::new(0), &world.log.start_positions(forebay_engine::ids::InputId::new(0), StartFrom::Latest).unwrap())
            .unwrap(),
    );
    report("opening and closing it again", begun);
}

fn report(what: &str, begun: Instant) {
    eprintln!("FIGURE: {what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
}
