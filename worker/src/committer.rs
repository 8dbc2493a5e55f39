//! The committer: has one producer opened per incarnation, has it commit, and throws it away after any error.
//!
//! Its own thread never makes a call of the log. Each producer lives on a thread of its own, from opening to dropping, and the committer waits
//! for its answers no longer than their deadlines: a call that hangs costs an incarnation and not the worker.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use forebay_engine::failure::Failure;
use forebay_engine::ids::Incarnation;
use forebay_engine::journal;
use forebay_engine::log::{Log, LogError, Producer, Receipt, Transaction};
use forebay_engine::worker::{Contribution, Event};

use crate::clock::Clock;
use crate::status::{Counters, Status};
use crate::watchdog::{Hung, Leash, Watchdog};

pub(crate) enum Order {
    Open(Incarnation),
    Commit(Incarnation, Contribution),
}

/// Starts the thread; it ends when the sender is dropped.
pub(crate) fn start<L: Log>(
    log: Arc<L>,
    clock: Arc<Clock>,
    watchdog: Arc<Watchdog>,
    status: Arc<Status>,
    events: Sender<Event>,
) -> (Sender<Order>, JoinHandle<()>) {
    let (orders, inbox) = unbounded();
    let committer = Committer { log, clock, watchdog, status, hand: None };
    let thread = std::thread::Builder::new().name("committer".into()).spawn(move || committer.run(&inbox, &events));
    (orders, thread.expect("the system refuses a thread at the start"))
}

struct Committer<L> {
    log: Arc<L>,
    clock: Arc<Clock>,
    watchdog: Arc<Watchdog>,
    status: Arc<Status>,
    hand: Option<Hand>,
}

/// The thread that owns an incarnation's producer. Dropped, it closes the producer, and nothing is heard from it any more.
struct Hand {
    incarnation: Incarnation,
    transactions: Sender<Transaction>,
    answers: Receiver<Result<Receipt, LogError>>,
    leash: Leash,
}

impl<L: Log> Committer<L> {
    fn run(mut self, inbox: &Receiver<Order>, events: &Sender<Event>) {
        for order in inbox {
            let event = match order {
                Order::Open(incarnation) => self.open(incarnation),
                Order::Commit(incarnation, contribution) => self.commit(incarnation, contribution),
            };
            if events.send(event).is_err() {
                break;
            }
        }
        self.close();
        self.watchdog.settle();
    }

    fn open(&mut self, incarnation: Incarnation) -> Event {
        self.close();
        match self.try_open(&incarnation) {
            Ok(hand) => {
                self.hand = Some(hand);
                Event::ProducerOpened(incarnation)
            }
            Err(failure) => Event::ProducerFailed(incarnation, failure),
        }
    }

    fn try_open(&self, incarnation: &Incarnation) -> Result<Hand, Failure> {
        let (transactions, inbox) = unbounded();
        let (answer, answers) = unbounded();
        let (log, owner) = (self.log.clone(), incarnation.clone());
        let what = format!("the producer of incarnation {incarnation}");
        let leash = self.watchdog.start(&what, move || serve(&*log, &owner, &inbox, &answer)).map_err(passing)?;
        let (opened, leash) = self.watchdog.await_answer(leash, &answers, self.log.deadlines().open).map_err(passing)?;
        match opened {
            Ok(_receipt) => Ok(Hand { incarnation: incarnation.clone(), transactions, answers, leash }),
            Err(error) => {
                self.watchdog.release(leash);
                Err(error.into())
            }
        }
    }

    fn commit(&mut self, incarnation: Incarnation, contribution: Contribution) -> Event {
        let Some(hand) = self.hand.take_if(|hand| hand.incarnation == incarnation) else {
            return Event::ProducerFailed(incarnation, Failure::Passing("its producer is closed".into()));
        };
        let (transaction, figures) = transaction_of(contribution);
        let (began, sent) = (Instant::now(), self.clock.read());
        tracing::debug!(epochs = transaction.journal.len(), records = figures.records, "commit begins");
        let outcome = self.commit_by(hand, transaction);
        tracing::debug!(committed = outcome.is_ok(), "commit ends");
        match outcome {
            Ok(receipt) => {
                figures.count(&self.status.counters, began.elapsed());
                if let Some(appended) = receipt.appended {
                    self.clock.compare(sent, appended);
                }
                Event::Committed(incarnation, receipt)
            }
            Err(failure) => Event::ProducerFailed(incarnation, failure),
        }
    }

    /// The hand is kept only if the commit succeeded: a producer is never used after an error.
    fn commit_by(&mut self, hand: Hand, transaction: Transaction) -> Result<Receipt, Failure> {
        let Hand { incarnation, transactions, answers, leash } = hand;
        // It fails only if the thread has panicked, and then there is no answer.
        let _ = transactions.send(transaction);
        let (outcome, leash) = self.watchdog.await_answer(leash, &answers, self.log.deadlines().commit).map_err(passing)?;
        match outcome {
            Ok(receipt) => {
                self.hand = Some(Hand { incarnation, transactions, answers, leash });
                Ok(receipt)
            }
            Err(error) => {
                drop(transactions);
                self.watchdog.release(leash);
                Err(error.into())
            }
        }
    }

    fn close(&mut self) {
        if let Some(Hand { transactions, leash, .. }) = self.hand.take() {
            drop(transactions);
            self.watchdog.release(leash);
        }
    }
}

/// The life of a producer. The first answer is that to its opening.
fn serve<L: Log>(log: &L, incarnation: &Incarnation, inbox: &Receiver<Transaction>, answers: &Sender<Result<Receipt, LogError>>) {
    let mut producer = match log.open_producer(incarnation) {
        Ok(producer) => producer,
        Err(error) => return drop(answers.send(Err(error))),
    };
    let mut heard = answers.send(Ok(Receipt::default())).is_ok();
    while heard && let Ok(transaction) = inbox.recv() {
        let outcome = producer.commit(&transaction);
        drop(transaction);
        heard = answers.send(outcome).is_ok();
    }
}

/// What a commit adds to the counters.
#[derive(Default)]
struct Figures {
    records: usize,
    output_bytes: usize,
    journal_bytes: usize,
}

impl Figures {
    fn count(&self, counters: &Counters, took: Duration) {
        Counters::add(&counters.transactions, 1);
        Counters::add(&counters.commit_micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        Counters::add(&counters.output_records, self.records as u64);
        Counters::add(&counters.output_bytes, self.output_bytes as u64);
        Counters::add(&counters.journal_bytes, self.journal_bytes as u64);
    }
}

fn transaction_of(contribution: Contribution) -> (Transaction, Figures) {
    let (mut transaction, mut figures) = (Transaction::default(), Figures::default());
    for epoch in contribution.epochs {
        figures.records += epoch.outputs.len();
        figures.output_bytes += epoch.outputs.bytes();
        transaction.outputs.push(epoch.outputs);
        transaction.journal.push((epoch.shard, epoch.journal));
        transaction.offsets.extend(epoch.positions);
    }
    transaction.journal.extend(contribution.claims.iter().map(|owner| (owner.shard, journal::encode_claim(owner))));
    transaction.journal.extend(contribution.releases.iter().map(|owner| (owner.shard, journal::encode_release(owner))));
    figures.journal_bytes = transaction.journal.iter().flat_map(|(_, chunks)| chunks).map(Vec::len).sum();
    (transaction, figures)
}

fn passing(hung: Hung) -> Failure {
    Failure::Passing(hung.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
