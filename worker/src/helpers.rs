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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{RecvTimeoutError, unbounded};

    use super::*;

    /// A thread that is there takes a task at once, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// `spec.checkpoint.maxConcurrent` is such a count.
    #[test]
    fn no_more_tasks_run_at_a_time_than_there_are_threads_and_a_panic_ends_only_its_own() {
        let (tasks, threads) = start("test", 2);
        assert_eq!(threads.len(), 2);
        let ((say, said), (go, gate)) = (unbounded(), unbounded::<()>());
        for number in 0..4 {
            let (say, gate) = (say.clone(), gate.clone());
            let task = move || {
                say.send(("begins", number)).unwrap();
                gate.recv_timeout(PATIENCE).unwrap();
                say.send(("ends", number)).unwrap();
                assert!(number > 0, "the first one panics");
            };
            tasks.send(Box::new(task)).unwrap();
        }
        drop((tasks, say));
        let (mut running, mut begun) = (0, 0);
        let next = || match said.recv_timeout(PATIENCE) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("tasks wait, and no thread takes them"),
        };
        for (what, number) in std::iter::from_fn(next) {
            if what == "ends" {
                running -= 1;
                continue;
            }
            (running, begun) = (running + 1, begun + 1);
            assert!(running <= 2, "task {number} begins, and {running} run");
            // One ends when two have begun, and both when there is none left to begin.
            (0..if begun == 4 { 2 } else { running - 1 }).for_each(|_| go.send(()).unwrap());
        }
        assert_eq!(running, 0);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
