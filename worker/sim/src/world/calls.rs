//! Helper tasks at the broker and the store: carries out what they ask for, or loses it, or answers nobody, or is late.

use forebay_engine::ids::{JournalOffset, ShardId};
use forebay_engine::log::{LogError, View};
use forebay_engine::restore::RestoreNote;
use forebay_engine::store::{Put, StoreError};
use forebay_engine::worker::Event;

use super::executor::Command;
use super::faults::{OF_READS, OF_WRITES};
use super::{Orphan, Task, World};
use crate::coverage::Fault;
use crate::jobs::Job;
use crate::oracle::Invariant;
use crate::store::{Content, savepoint_of};
use crate::task::{Answer, Call, Message, Outcome};

/// How long a request waits for markers before it ends with what blocks it, in milliseconds.
const WAIT_MAX: i64 = 15_000;

impl World {
    /// Starts a helper task of a shard; it runs up to its first call.
    pub(super) fn help(&mut self, seat: usize, shard: ShardId, kind: &'static str, act: impl FnOnce(Job<'_>) -> Outcome + Send + 'static) {
        let disk = self.seats[seat].disk.clone();
        let link = self.pool.start(move |remote| act(Job { remote, shard, attempt: forebay_engine::worker::Attempt::default(), disk }));
        let id = self.id();
        self.tasks.insert(
            id,
            Task { seat, shard, kind, calls: 0, pending: Call::Begin, end: None, since: self.now, sent: false, slow_until: 0, link },
        );
        self.listen(id);
    }

    /// Whether a step of the task would get anywhere.
    pub(super) fn can_answer(&self, task: &Task) -> bool {
        if self.held.is_some_and(|held| held == label(task)) {
            return false;
        }
        match (&task.pending, task.end) {
            _ if self.now < task.slow_until => false,
            _ if self.is_overdue(task) => true,
            (call, _) if self.is_offline(task.shard, call) => false,
            (Call::Bar(incarnation), _) if task.sent => self.log.settled(incarnation),
            (Call::Journal(from, View::CommittedToEnd), Some(end)) => {
                let journal = &self.log.journals[task.shard.get() as usize];
                journal.stable_end() >= end.get() || journal.start() > from.get()
            }
            _ => true,
        }
    }

    fn is_overdue(&self, task: &Task) -> bool {
        self.now - task.since > WAIT_MAX
    }

    /// Carries out what the task waits for, and lets it go on.
    pub(super) fn task_step(&mut self, id: u64) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let (seat, shard, call, sent) = (task.seat, task.shard, task.pending.clone(), task.sent);
        let label = label(task);
        match (task.kind, &call) {
            ("look", Call::Range) => self.coverage.situation("an idle owner asks for its journal's end"),
            ("look", _) => self.coverage.situation("an idle owner reads on in its journal"),
            _ => {}
        }
        let possible = if call.writes() { OF_WRITES } else { OF_READS };
        let is_late = std::mem::take(&mut task.slow_until) > 0;
        let mut fault = if sent || is_late { None } else { self.call_fault(seat, label, possible) };
        if fault == Some(Fault::Slow) {
            let until = self.slow_until();
            self.tasks.get_mut(&id).expect("its step").slow_until = until;
            return;
        }
        if fault.take_if(|fault| *fault == Fault::Twice).is_some() {
            let again = self.id();
            self.orphans.insert(again, Orphan::Call(shard, call.clone()));
        }
        let answer = match fault {
            Some(Fault::Late) if call.writes() => {
                let orphan = self.id();
                self.orphans.insert(orphan, Orphan::Call(shard, call.clone()));
                failure(&call, "no answer in time")
            }
            Some(Fault::ReplyLost) if call.writes() => {
                let answer = self.serve(shard, &call, None);
                // A client that tries again by itself finds its own object there.
                if matches!(call, Call::Put(..)) && self.rng.chance(0.5) { retried(answer) } else { failure(&call, "the reply was lost") }
            }
            Some(_) => failure(&call, "the request was lost"),
            None if self.is_store_call(&call) && self.store_down => {
                self.coverage.fault(label, Fault::StoreDown);
                self.coverage.situation("the store is down");
                failure(&call, "503")
            }
            None if self.is_offline(shard, &call) => {
                self.coverage.situation("a wait for a partition that is offline ends");
                failure(&call, &format!("partition journal-{shard} is offline"))
            }
            None => match self.serve_waiting(id, shard, &call) {
                Some(answer) => answer,
                None if self.is_overdue(&self.tasks[&id]) => self.waited_too_long(shard, &call),
                None => return,
            },
        };
        if matches!((&answer, &call), (Answer::Files(_), Call::Download(key)) if self.store.is_damaged(key)) {
            self.coverage.fault(label, Fault::Damaged);
        }
        let task = self.tasks.get_mut(&id).expect("it was just looked up");
        (task.sent, task.end) = (false, None);
        task.link.answer(answer);
        self.listen(id);
    }

    /// The deadline of a wait has passed.
    fn waited_too_long(&mut self, shard: ShardId, call: &Call) -> Answer {
        self.coverage.situation("a wait for markers ends with what blocks it");
        let whose = self.log.in_the_way(shard).map_or("somebody".into(), ToString::to_string);
        failure(call, &format!("a transaction of {whose} is open"))
    }

    /// Barring and reading to the end may take several looks.
    fn serve_waiting(&mut self, id: u64, shard: ShardId, call: &Call) -> Option<Answer> {
        let range = self.log.journal_range(shard);
        let task = self.tasks.get_mut(&id).expect("its step");
        let end = *task.end.get_or_insert(range.end);
        match call {
            Call::Bar(incarnation) if task.sent => self.log.settled(incarnation).then_some(Answer::Done),
            Call::Bar(incarnation) => {
                task.sent = true;
                let incarnation = incarnation.clone();
                self.barred(&incarnation);
                self.log.settled(&incarnation).then_some(Answer::Done)
            }
            Call::Journal(from, view) => match self.log.read_journal(shard, *from, *view, end) {
                Ok(None) => {
                    self.coverage.situation("a read to the end waits for an open transaction");
                    None
                }
                Ok(Some((entries, range))) => Some(Answer::Entries(entries, range)),
                Err(error) => {
                    if matches!(error, LogError::Cut { .. }) {
                        let (task_label, name) = (label(&self.tasks[&id]), "the journal is cut under a reader");
                        self.coverage.situation(name);
                        self.coverage.situation(match task_label {
                            "scan" => "the journal is cut between manifest and scan",
                            "restore-journal" => "the journal is cut under a restore",
                            _ => "the journal is cut under another reader",
                        });
                    }
                    Some(Answer::Log(error))
                }
            },
            other => Some(self.serve(shard, other, None)),
        }
    }

    /// Carries out a call at once.
    pub(super) fn serve(&mut self, shard: ShardId, call: &Call, late: Option<&'static str>) -> Answer {
        match call {
            Call::Begin => Answer::Done,
            Call::Journal(..) => failure(call, "not now"),
            Call::Range => Answer::Range(self.log.journal_range(shard)),
            Call::Bar(incarnation) => {
                let incarnation = incarnation.clone();
                self.barred(&incarnation);
                Answer::Done
            }
            Call::Cut(before) => {
                self.cut(shard, *before, late.is_some());
                Answer::Done
            }
            Call::Put(key, content) => {
                let put = self.store.put(key, content.clone(), forebay_engine::ids::Timestamp::from_millis(self.now));
                if let (Put::Created, Content::Bytes(bytes), Some(name)) = (put, content, savepoint_of(key)) {
                    self.coverage.situation("a savepoint is taken");
                    self.oracle.savepoint(name, bytes, &self.store);
                } else if let (Put::Created, Content::Bytes(bytes)) = (put, content) {
                    self.coverage.situation(if late.is_some() { "a manifest arrives late" } else { "a manifest is put" });
                    self.oracle.manifest(key, bytes, &self.store);
                }
                Answer::Put(put)
            }
            Call::Get(key) => match self.store.get(key) {
                Some(Content::Bytes(bytes)) => Answer::Bytes(bytes.clone()),
                Some(Content::Files(_)) | None => Answer::Store(StoreError::NotFound { action: "get", key: key.clone() }),
            },
            Call::Download(key) => match self.store.get(key) {
                Some(Content::Files(files)) => Answer::Files(files.clone()),
                Some(Content::Bytes(_)) | None => Answer::Store(StoreError::NotFound { action: "download", key: key.clone() }),
            },
            Call::List(prefix) => Answer::Rows(self.store.list(prefix)),
            Call::Delete(keys) => {
                for key in keys {
                    if self.store.get(key).is_some() {
                        self.coverage.situation("garbage is deleted");
                        self.oracle.deleted(key);
                        self.store.delete(key);
                    }
                }
                Answer::Done
            }
        }
    }

    /// A request arrives that nobody waits for.
    pub(super) fn orphan_step(&mut self, id: u64) {
        let text = self.trace.is_some().then(|| format!("    late: {:?}", self.orphans.get(&id)));
        text.into_iter().for_each(|text| self.note(|_| text));
        match self.orphans.remove(&id) {
            None => {}
            Some(Orphan::Call(shard, call)) => {
                self.serve(shard, &call, Some("late"));
            }
            Some(Orphan::Producer(incarnation, epoch, txn, part)) => {
                self.coverage.situation("a producer's request arrives late");
                let _ = self.carry_out(&incarnation, epoch, txn, &part);
            }
        }
    }

    fn cut(&mut self, shard: ShardId, before: JournalOffset, late: bool) {
        self.coverage.situation(if late { "a cut arrives late" } else { "a journal is cut" });
        self.oracle.cut(shard, before);
        self.log.journals[shard.get() as usize].cut(before.get());
    }

    fn barred(&mut self, incarnation: &forebay_engine::ids::Incarnation) {
        self.coverage.situation("an incarnation is barred");
        if let (Some(seat), true) = (self.seat_of(incarnation), self.log.is_live(incarnation)) {
            self.coverage.situation("a live incarnation is barred");
            self.cover(seat, Fault::Barred);
        }
        self.log.init(incarnation);
    }

    /// Takes what the task says until it waits again, or is over.
    fn listen(&mut self, id: u64) {
        loop {
            let task = self.tasks.get_mut(&id).expect("it is listened to");
            let (seat, shard) = (task.seat, task.shard);
            match self.pool.next(&mut task.link) {
                Message::Call(call) => {
                    task.calls += 1;
                    (task.pending, task.since) = (call, self.now);
                    return;
                }
                Message::Say(event) => {
                    if matches!(*event, Event::CheckpointUploaded(..)) {
                        task.kind = "garbage";
                        self.coverage.situation("a checkpoint is uploaded");
                    }
                    self.post(seat, *event);
                }
                Message::Note(note) => self.noted(shard, &note),
                Message::Done(outcome) => {
                    let task = self.tasks.remove(&id).expect("it is listened to");
                    if matches!(task.kind, "snapshot" | "garbage")
                        && let Some(process) = &mut self.seats[seat].process
                    {
                        process.due.entry(shard).or_default().running = false;
                    }
                    return self.done(seat, shard, outcome);
                }
            }
        }
    }

    fn done(&mut self, seat: usize, shard: ShardId, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Say(event) => self.post(seat, *event),
            Outcome::Adopt(state, event) => {
                self.oracle.restored(shard, self.seats[seat].disk.digest(shard));
                let Event::Restored(_, attempt, ..) = &*event else { unreachable!("a restore ends with Restored") };
                if let Some(process) = &mut self.seats[seat].process {
                    process.executor(shard).commands.push_back(Command::Adopt(shard, *attempt, state));
                }
                self.post(seat, *event);
            }
            Outcome::Panicked(panic) => self.oracle.report(Invariant::Assertion, format!("a task of shard {shard}: {panic}")),
        }
    }

    fn noted(&mut self, shard: ShardId, note: &RestoreNote) {
        self.note(|_| format!("    restore of shard {shard}: {note:?}"));
        self.coverage.situation(match note {
            RestoreNote::LocalUnusable(_) => "a local database is of another history, or too old",
            RestoreNote::Local(_) => "a local database is used",
            RestoreNote::Damaged(..) => "a damaged checkpoint is passed over",
            RestoreNote::Snapshot(_) => "a checkpoint is restored",
            RestoreNote::Journal => "a shard is restored from the journal alone",
        });
    }

    fn post(&mut self, seat: usize, event: Event) {
        if let Some(process) = &mut self.seats[seat].process {
            process.inbox.push_back(event);
        }
    }

    fn is_offline(&self, shard: ShardId, call: &Call) -> bool {
        self.offline == Some(shard) && matches!(call, Call::Journal(..) | Call::Range | Call::Cut(_))
    }

    fn is_store_call(&self, call: &Call) -> bool {
        match call {
            Call::Put(..) | Call::Get(_) | Call::Download(_) | Call::List(_) | Call::Delete(_) => true,
            Call::Begin | Call::Journal(..) | Call::Range | Call::Bar(_) | Call::Cut(_) => false,
        }
    }
}

/// What a task is at, for coverage.
pub(super) fn label(task: &Task) -> &'static str {
    match (task.kind, &task.pending) {
        ("restore", Call::Journal(_, View::Uncommitted)) => "verify",
        ("restore", Call::Journal(..)) => "restore-journal",
        ("restore", Call::Range) => "restore-range",
        ("restore", Call::Get(_) | Call::List(_)) => "restore-manifest",
        ("restore", Call::Download(_)) => "restore-download",
        ("snapshot", Call::Begin) => "snapshot-begin",
        ("snapshot", Call::Get(_)) => "snapshot-list",
        ("snapshot", Call::Put(_, Content::Files(_))) => "snapshot-file",
        ("snapshot", Call::Put(_, Content::Bytes(_))) => "snapshot-manifest",
        ("snapshot", Call::List(_)) => "snapshot-check",
        ("garbage", Call::List(prefix)) if prefix.starts_with("files/") => "garbage-files",
        ("garbage", Call::List(_)) => "garbage-manifests",
        ("savepoint", Call::Put(..)) => "savepoint-write",
        ("savepoint", Call::Download(_)) => "savepoint-copy",
        ("savepoint", _) => "savepoint-read",
        ("discard", Call::Cut(_)) => "cut",
        ("discard", Call::Delete(_)) => "delete",
        (kind, _) => kind,
    }
}

fn failure(call: &Call, reason: &str) -> Answer {
    let reason = reason.to_owned();
    match call {
        Call::Put(key, _) | Call::Get(key) | Call::Download(key) | Call::List(key) => {
            Answer::Store(StoreError::Unavailable { action: "ask for", key: key.clone(), reason })
        }
        Call::Delete(_) => Answer::Store(StoreError::Unavailable { action: "delete", key: String::new(), reason }),
        Call::Begin => Answer::Done,
        Call::Journal(..) | Call::Range | Call::Bar(_) | Call::Cut(_) => {
            Answer::Log(LogError::Unavailable { action: "ask the broker".into(), reason })
        }
    }
}

fn retried(answer: Answer) -> Answer {
    match answer {
        Answer::Put(_) => Answer::Put(Put::AlreadyThere),
        other => other,
    }
}
