//! A committer: one transactional producer, one request at a time. A commit is many requests; each may be lost, answered to nobody, or late.

use std::collections::{BTreeMap, VecDeque};

use forebay_engine::failure::Failure;
use forebay_engine::ids::{Incarnation, OutputId, Partition, ShardId, Timestamp};
use forebay_engine::journal;
use forebay_engine::log::{InputPosition, Receipt};
use forebay_engine::worker::{Contribution, Event};

use super::faults::OF_PRODUCERS;
use super::{Orphan, World};
use crate::coverage::Fault;
use crate::log::{OutputBody, Refused, SimLog, TxnId};
use crate::mutant::{Mutant, is};

/// What a committer is told.
#[derive(Debug)]
pub(super) enum Order {
    Open(Incarnation),
    Commit(Incarnation, Contribution),
}

/// A request of a producer.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Init,
    Begin,
    Outputs((OutputId, Partition), Vec<OutputBody>),
    /// A record of the journal, or the first chunks of it,
    Journal(ShardId, Vec<Vec<u8>>),
    /// and those that follow.
    Chunks(ShardId, Vec<Vec<u8>>),
    Offsets(Vec<InputPosition>),
    End,
}

impl Part {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Part::Init => "open-producer",
            Part::Begin => "commit-begin",
            Part::Outputs(..) => "commit-outputs",
            Part::Journal(..) => "commit-journal",
            Part::Chunks(..) => "commit-chunks",
            Part::Offsets(_) => "commit-offsets",
            Part::End => "commit-end",
        }
    }
}

/// What it is at.
#[derive(Debug)]
struct Current {
    incarnation: Incarnation,
    epoch: u32,
    txn: Option<TxnId>,
    parts: VecDeque<Part>,
    receipt: Receipt,
    /// The request was carried out; opening waits for markers.
    sent: bool,
    again: Vec<Part>,
    /// How many shards have an epoch in it.
    shards: usize,
    /// When it began, by the log's clock.
    began: i64,
}

/// The thread that it stands for.
#[derive(Debug, Default)]
pub struct Committer {
    pub(super) orders: VecDeque<Order>,
    current: Option<Current>,
    producer: Option<(Incarnation, u32)>,
    /// A scenario makes it wait.
    pub(super) hangs: bool,
    /// Its request is carried out at this time, if it is slow.
    pub(super) slow_until: i64,
}

impl Committer {
    pub(super) fn can_act(&self, log: &SimLog, now: i64) -> bool {
        match &self.current {
            _ if self.hangs || now < self.slow_until => false,
            None => !self.orders.is_empty(),
            Some(current) if current.sent || matches!(current.parts.front(), Some(Part::Begin)) => log.settled(&current.incarnation),
            Some(_) => true,
        }
    }

    pub(super) fn incarnation(&self) -> Option<&Incarnation> {
        self.producer.as_ref().map(|(incarnation, _)| incarnation)
    }

    /// The request that it would send next.
    pub(super) fn next_part(&self) -> Option<&Part> {
        self.current.as_ref().filter(|current| !current.sent)?.parts.front()
    }

    /// The process died: the request that was on its way.
    pub(super) fn last_words(&mut self) -> Option<(Incarnation, u32, Option<TxnId>, Part)> {
        let current = self.current.take().filter(|current| !current.sent)?;
        Some((current.incarnation, current.epoch, current.txn, current.parts.front()?.clone()))
    }
}

impl World {
    /// The committer takes its next order, or sends its next request.
    pub(super) fn commit_step(&mut self, seat: usize) {
        let Some(process) = &mut self.seats[seat].process else { return };
        let committer = &mut process.committer;
        let Some(current) = &committer.current else { return self.take_order(seat) };
        if current.sent {
            let current = committer.current.take().expect("just seen");
            committer.producer = Some((current.incarnation.clone(), current.epoch));
            return process.inbox.push_back(Event::ProducerOpened(current.incarnation));
        }
        let part = current.parts.front().expect("one without requests is over").clone();
        let who = (current.incarnation.clone(), current.epoch, current.txn);
        if matches!(&part, Part::Outputs((_, partition), _) if self.refusing == Some(*partition)) {
            let several = current.shards > 1;
            self.cover(seat, Fault::Refused);
            self.coverage.situation(if several {
                "a transaction of several shards is refused"
            } else {
                "a shard's transaction is refused"
            });
            return self.producer_error(seat, Failure::Lasting("the topic takes no such records".into()), true);
        }
        if let Part::Journal(shard, _) | Part::Chunks(shard, _) = &part
            && self.offline == Some(*shard)
        {
            return self.producer_error(seat, Failure::Passing(format!("partition journal-{shard} is offline")), false);
        }
        let is_late = std::mem::take(&mut committer.slow_until) > 0;
        match if is_late { None } else { self.call_fault(seat, part.name(), OF_PRODUCERS) } {
            Some(Fault::Slow) => {
                let until = self.slow_until();
                return self.seats[seat].process.as_mut().expect("it acts").committer.slow_until = until;
            }
            Some(Fault::Lost) => return self.producer_error(seat, Failure::Passing("the request was lost".into()), false),
            Some(Fault::Late) => {
                let id = self.id();
                self.orphans.insert(id, Orphan::Producer(who.0, who.1, who.2, part));
                return self.producer_error(seat, Failure::Passing("no answer in time".into()), false);
            }
            Some(Fault::ReplyLost) => {
                let _ = self.carry_out(&who.0, who.1, who.2, &part);
                if matches!(part, Part::End) {
                    self.coverage.situation("a commit's outcome is unknown, and it is committed");
                }
                return self.producer_error(seat, Failure::Passing("the reply was lost".into()), false);
            }
            _ => {}
        }
        match self.carry_out(&who.0, who.1, who.2, &part) {
            Ok(done) => self.part_done(seat, part, done),
            Err(Refused::Busy) => {}
            Err(Refused::Fenced | Refused::NoTransaction) => {
                self.coverage.situation("a producer is fenced");
                self.producer_error(seat, Failure::Passing("barred".into()), true);
            }
        }
    }

    fn take_order(&mut self, seat: usize) {
        let began = self.now;
        let process = self.seats[seat].process.as_mut().expect("it acts");
        let committer = &mut process.committer;
        let of = |incarnation, epoch, parts| Current {
            incarnation,
            epoch,
            txn: None,
            parts,
            receipt: Receipt::default(),
            sent: false,
            again: Vec::new(),
            shards: 0,
            began,
        };
        match committer.orders.pop_front() {
            None => {}
            Some(Order::Open(incarnation)) => {
                committer.producer = None;
                committer.current = Some(of(incarnation, 0, [Part::Init].into()));
            }
            Some(Order::Commit(incarnation, contribution)) => match &committer.producer {
                Some((ours, epoch)) if *ours == incarnation => {
                    let epoch = *epoch;
                    let shards = contribution.epochs.len();
                    let parts = self.parts(contribution);
                    let again = if is(Mutant::CommitAgain) { parts.clone() } else { Vec::new() };
                    let current = Current { again, shards, ..of(incarnation, epoch, parts.into()) };
                    self.seats[seat].process.as_mut().expect("it acts").committer.current = Some(current);
                }
                _ => process.inbox.push_back(Event::ProducerFailed(incarnation, Failure::Passing("its producer is closed".into()))),
            },
        }
    }

    /// A transaction as requests: partitions in any order, the offsets, the end.
    fn parts(&mut self, contribution: Contribution) -> Vec<Part> {
        let mut outputs: BTreeMap<(OutputId, Partition), Vec<OutputBody>> = BTreeMap::new();
        let (mut parts, mut followers) = (Vec::new(), Vec::new());
        let mut offsets = Vec::new();
        for epoch in contribution.epochs {
            for record in epoch.outputs.iter() {
                let body = OutputBody { key: record.key.map(<[u8]>::to_vec), value: record.value.map(<[u8]>::to_vec) };
                outputs.entry((record.output, record.partition.expect("the pipeline names it"))).or_default().push(body);
            }
            offsets.extend(epoch.positions);
            let mut rest = epoch.journal;
            parts.push(Part::Journal(epoch.shard, self.some_of(&mut rest)));
            while !rest.is_empty() {
                followers.push((epoch.shard, Part::Chunks(epoch.shard, self.some_of(&mut rest))));
            }
        }
        if is(Mutant::OutputsReversed) {
            outputs.values_mut().for_each(|bodies| bodies.reverse());
        }
        parts.extend(contribution.claims.iter().map(|owner| Part::Journal(owner.shard, journal::encode_claim(owner))));
        let marks = contribution.releases.iter().map(|owner| (owner.shard, Part::Journal(owner.shard, journal::encode_release(owner))));
        followers.extend(marks);
        let outputs: Vec<Part> = outputs.into_iter().map(|(to, bodies)| Part::Outputs(to, bodies)).collect();
        let mut all = vec![Part::Begin];
        if is(Mutant::OutputsEarly) && !outputs.is_empty() {
            all.extend(outputs.into_iter().chain([Part::End, Part::Begin]));
        } else {
            parts.extend(outputs);
        }
        while !parts.is_empty() {
            all.push(parts.swap_remove(self.rng.below(parts.len())));
        }
        // One partition's records go in order.
        for (shard, follower) in followers {
            let before = all.iter().rposition(|part| matches!(part, Part::Journal(of, _) | Part::Chunks(of, _) if *of == shard));
            let from = before.unwrap_or(0) + 1;
            all.insert(from + self.rng.below(all.len() - from + 1), follower);
        }
        if !offsets.is_empty() {
            all.push(Part::Offsets(offsets));
        }
        all.push(Part::End);
        all
    }

    /// The first of these chunks: what one request carries.
    fn some_of(&mut self, chunks: &mut Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let count = 1 + self.rng.below(chunks.len());
        chunks.drain(..count).collect()
    }

    /// Does at the broker what a request asks for.
    pub(super) fn carry_out(&mut self, incarnation: &Incarnation, epoch: u32, txn: Option<TxnId>, part: &Part) -> Result<Done, Refused> {
        let who = (incarnation, epoch);
        match part {
            Part::Init => Ok(Done::Epoch(self.log.init(incarnation))),
            Part::Begin => self.log.begin(incarnation, epoch).map(Done::Txn),
            Part::Outputs(to, bodies) => {
                self.log.produce(who, txn.ok_or(Refused::NoTransaction)?, *to, bodies.clone()).map(|()| Done::Nothing)
            }
            Part::Journal(shard, chunks) | Part::Chunks(shard, chunks) => {
                self.log.journal(who, txn.ok_or(Refused::NoTransaction)?, *shard, chunks).map(Done::Journal)
            }
            Part::Offsets(offsets) => self.log.add_offsets(who, txn.ok_or(Refused::NoTransaction)?, offsets).map(|()| Done::Nothing),
            Part::End => self.log.end(who, true).map(|_| Done::Nothing),
        }
    }

    fn part_done(&mut self, seat: usize, part: Part, done: Done) {
        let now = self.now;
        let process = self.seats[seat].process.as_mut().expect("it acts");
        let committer = &mut process.committer;
        let current = committer.current.as_mut().expect("it sent a request");
        current.parts.pop_front();
        match (part, done) {
            (Part::Init, Done::Epoch(epoch)) => (current.epoch, current.sent) = (epoch, true),
            (Part::Begin, Done::Txn(txn)) => current.txn = Some(txn),
            (Part::Journal(shard, _), Done::Journal(range)) => {
                current.receipt.appended.get_or_insert(Timestamp::from_millis(now));
                current.receipt.journal.entry(shard).or_insert(range);
            }
            (Part::Chunks(shard, _), Done::Journal((from, end))) => {
                let known = &mut current.receipt.journal.get_mut(&shard).expect("its first chunks came before").1;
                let situation =
                    if *known == from { "chunks of a record follow each other" } else { "something lies between the chunks of a record" };
                *known = end;
                self.coverage.situation(situation);
            }
            _ => {}
        }
        if current.parts.is_empty() && !current.sent {
            let current = committer.current.take().expect("just seen");
            current.receipt.appended.into_iter().for_each(|appended| process.compare_clocks(current.began, appended));
            process.inbox.push_back(Event::Committed(current.incarnation, current.receipt));
        }
    }

    fn producer_error(&mut self, seat: usize, failure: Failure, fenced: bool) {
        let process = self.seats[seat].process.as_mut().expect("it acts");
        let committer = &mut process.committer;
        let mut current = committer.current.take().expect("it sent a request");
        if !fenced && !current.again.is_empty() {
            // The mutant: aborts what may be open, and sends everything once more.
            let _ = self.log.end((&current.incarnation, current.epoch), false);
            current.parts = std::mem::take(&mut current.again).into();
            (current.txn, current.receipt) = (None, Receipt::default());
            committer.current = Some(current);
            return;
        }
        committer.producer = None;
        process.inbox.push_back(Event::ProducerFailed(current.incarnation, failure));
    }
}

/// What a request brought.
pub(super) enum Done {
    Nothing,
    Epoch(u32),
    Txn(TxnId),
    Journal((forebay_engine::ids::JournalOffset, forebay_engine::ids::JournalOffset)),
}
