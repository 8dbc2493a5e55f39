//! Helper tasks: the engine's blocking functions (restore, upload, garbage, scans), each on a thread of its own that runs only while the world
//! waits for it. Every call of a port hands the baton back, so the world decides what happens between any two calls, and a seed gives the
//! same run every time.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use forebay_engine::ids::{Incarnation, JournalOffset};
use forebay_engine::log::{JournalEntry, JournalRange, LogError, View};
use forebay_engine::restore::RestoreNote;
use forebay_engine::shard::Shard;
use forebay_engine::store::{ObjectInfo, Put, StoreError};
use forebay_engine::worker::Event;

use crate::disk::{FileData, SimState};
use crate::pipeline::Counting;
use crate::store::Content;

/// A request to the log or the store.
#[derive(Clone, Debug)]
pub enum Call {
    /// Begin, whenever a helper is free.
    Begin,
    /// Read the task's shard's journal.
    Journal(JournalOffset, View),
    /// Its start and end.
    Range,
    /// Bar an incarnation.
    Bar(Incarnation),
    /// Cut the journal.
    Cut(JournalOffset),
    /// Create an object.
    Put(String, Content),
    /// Read a manifest.
    Get(String),
    /// Read a file.
    Download(String),
    /// List a prefix.
    List(String),
    /// Delete objects.
    Delete(Vec<String>),
}

impl Call {
    /// Whether it changes anything: then it may be lost, or arrive late, with effect.
    pub fn writes(&self) -> bool {
        match self {
            Call::Bar(_) | Call::Cut(_) | Call::Put(..) | Call::Delete(_) => true,
            Call::Begin | Call::Journal(..) | Call::Range | Call::Get(_) | Call::Download(_) | Call::List(_) => false,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// Of `Journal`.
    Entries(Vec<JournalEntry>, JournalRange),
    /// Of `Range`.
    Range(JournalRange),
    /// Of `Put`.
    Put(Put),
    /// Of `Get`.
    Bytes(Vec<u8>),
    /// Of `Download`.
    Files(Vec<Arc<FileData>>),
    /// Of `List`.
    Rows(Vec<ObjectInfo>),
    /// Of all else.
    Done,
    /// The log refused.
    Log(LogError),
    /// The store refused.
    Store(StoreError),
    /// The process is dead: the thread unwinds.
    Killed,
}

/// A shard as the simulation runs it.
pub type SimShard = Shard<Counting, SimState>;

/// How a task ended.
pub enum Outcome {
    /// Nothing more to say.
    Nothing,
    /// One last event.
    Say(Box<Event>),
    /// A restored shard for its executor, then the event.
    Adopt(Box<SimShard>, Box<Event>),
    /// An assertion failed.
    Panicked(String),
}

/// What a task hands back together with the baton.
pub enum Message {
    /// It waits for an answer.
    Call(Call),
    /// It goes on at once.
    Say(Box<Event>),
    /// A restore tells what it found.
    Note(RestoreNote),
    /// It is over.
    Done(Outcome),
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that wait for jobs.
#[derive(Default)]
pub struct Pool {
    idle: Vec<Sender<Job>>,
}

/// The world's end of a task.
pub struct Link {
    answers: Sender<Answer>,
    messages: Receiver<Message>,
    thread: Option<Sender<Job>>,
}

/// The task's end.
pub struct Remote {
    answers: Mutex<Receiver<Answer>>,
    messages: Sender<Message>,
}

struct Killed;

impl Pool {
    /// Starts a task; it runs when the world first waits for its message.
    pub fn start(&mut self, job: impl FnOnce(&Remote) -> Outcome + Send + 'static) -> Link {
        let (answers, inbox) = channel();
        let (outbox, messages) = channel();
        let thread = self.idle.pop().unwrap_or_else(|| {
            let (jobs, inbox) = channel::<Job>();
            let builder = std::thread::Builder::new().name("sim-task".into()).stack_size(1 << 20);
            builder.spawn(move || inbox.into_iter().for_each(|job| job())).expect("the system refuses a thread");
            jobs
        });
        let remote = Remote { answers: Mutex::new(inbox), messages: outbox };
        let mutant = crate::mutant::current();
        let run = move || {
            crate::mutant::set(mutant);
            let outcome = catch_unwind(AssertUnwindSafe(|| job(&remote))).unwrap_or_else(|panic| match panic.downcast::<Killed>() {
                Ok(_) => Outcome::Nothing,
                Err(panic) => Outcome::Panicked(crate::panics::text(&*panic)),
            });
            let _ = remote.messages.send(Message::Done(outcome));
        };
        thread.send(Box::new(run)).expect("pool threads live as long as their sender");
        Link { answers, messages, thread: Some(thread) }
    }

    /// Waits until the task hands the baton back.
    pub fn next(&mut self, link: &mut Link) -> Message {
        let message = link.messages.recv().expect("a task ends with a message");
        if let (Message::Done(_), Some(thread)) = (&message, link.thread.take()) {
            self.idle.push(thread);
        }
        message
    }

    /// The task's process died: its thread unwinds and what it held is dropped.
    pub fn kill(&mut self, mut link: Link) {
        let _ = link.answers.send(Answer::Killed);
        while !matches!(self.next(&mut link), Message::Done(_)) {}
    }
}

impl Link {
    /// Gives the baton to the task.
    pub fn answer(&self, answer: Answer) {
        self.answers.send(answer).expect("a task waits for its answer");
    }
}

impl Remote {
    /// Hands the baton over until the answer is there.
    pub fn call(&self, call: Call) -> Answer {
        let _ = self.messages.send(Message::Call(call));
        let answers = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answers.recv() {
            Ok(Answer::Killed) | Err(_) => {
                drop(answers);
                resume_unwind(Box::new(Killed))
            }
            Ok(answer) => answer,
        }
    }

    /// Tells what a restore found.
    pub fn note(&self, note: &RestoreNote) {
        let _ = self.messages.send(Message::Note(note.clone()));
    }

    /// Sends an event and goes on.
    pub fn say(&self, event: Event) {
        let _ = self.messages.send(Message::Say(Box::new(event)));
    }
}
