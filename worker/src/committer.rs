//! The thread that owns the transactional producer. It opens one per incarnation and throws it away after any error.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use forebay_engine::ids::Incarnation;
use forebay_engine::journal;
use forebay_engine::log::{Log, Producer, Transaction};
use forebay_engine::worker::{Contribution, Event};

use crate::status::{Counters, Status};

pub(crate) enum Order {
    Open(Incarnation),
    Commit(Incarnation, Contribution),
}

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn start<L: Log>(log: Arc<L>, status: Arc<Status>, events: Sender<Event>) -> (Sender<Order>, JoinHandle<()>) {
    let (orders, inbox) = unbounded();
    let thread = std::thread::Builder::new().name("committer".into()).spawn(move || run(&*log, &status, &inbox, &events));
    (orders, thread.expect("the system refuses a thread at the start"))
}

fn run<L: Log>(log: &L, status: &Status, inbox: &Receiver<Order>, events: &Sender<Event>) {
    let mut producer: Option<(Incarnation, L::Producer)> = None;
    for order in inbox {
        let event = match order {
            Order::Open(incarnation) => {
                producer = None;
                match log.open_producer(&incarnation) {
                    Ok(opened) => {
                        producer = Some((incarnation.clone(), opened));
                        Event::ProducerOpened(incarnation)
                    }
                    Err(error) => Event::ProducerFailed(incarnation, error.to_string()),
                }
            }
            Order::Commit(incarnation, contribution) => match &mut producer {
                Some((current, opened)) if *current == incarnation => {
                    let event = commit(opened, incarnation, contribution, &status.counters);
                    if matches!(event, Event::ProducerFailed(..)) {
                        producer = None;
                    }
                    event
                }
                Some(_) | None => Event::ProducerFailed(incarnation, "its producer is closed".into()),
            },
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn commit(producer: &mut impl Producer, incarnation: Incarnation, contribution: Contribution, counters: &Counters) -> Event {
    let began = Instant::now();
    let mut transaction = Transaction::default();
    let (mut records, mut bytes) = (0, 0);
    for epoch in contribution.epochs {
        records += epoch.outputs.len();
        bytes += epoch.outputs.bytes();
        transaction.outputs.push(epoch.outputs);
        transaction.journal.push((epoch.shard, epoch.journal));
        transaction.offsets.extend(epoch.positions);
    }
    transaction.journal.extend(contribution.claims.iter().map(|owner| (owner.shard, journal::encode_claim(owner))));
    transaction.journal.extend(contribution.releases.iter().map(|owner| (owner.shard, journal::encode_release(owner))));
    tracing::debug!(epochs = transaction.journal.len(), records, "commit begins");
    let journal_bytes: usize = transaction.journal.iter().flat_map(|(_, chunks)| chunks).map(Vec::len).sum();
    let outcome = producer.commit(&transaction);
    tracing::debug!(committed = outcome.is_ok(), "commit ends");
    match outcome {
        Ok(receipt) => {
            Counters::add(&counters.transactions, 1);
            Counters::add(&counters.commit_micros, u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
            Counters::add(&counters.output_records, records as u64);
            Counters::add(&counters.output_bytes, bytes as u64);
            Counters::add(&counters.journal_bytes, journal_bytes as u64);
            Event::Committed(incarnation, receipt)
        }
        Err(error) => Event::ProducerFailed(incarnation, error.to_string()),
    }
}
