//! A few threads for what blocks for long: journals, barring, restores, uploads, deletions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

/// One piece of work. It reports by itself; a panic in it is logged and ends only the piece.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// Starts `count` threads; they end when the sender is dropped and the queue is worked off.
pub(crate) fn start(name: &str, count: usize) -> (Sender<Task>, Vec<JoinHandle<()>>) {
    let (tasks, inbox) = unbounded::<Task>();
    let threads = (0..count).map(|number| {
        let inbox = inbox.clone();
        let builder = std::thread::Builder::new().name(format!("{name}-{number}"));
        let thread = builder.spawn(move || {
            for task in inbox {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(task)) {
                    tracing::error!(reason = panic_text(&*panic), "a helper task panicked");
                }
            }
        });
        thread.expect("the system refuses a thread at the start")
    });
    (tasks, threads.collect())
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
}
