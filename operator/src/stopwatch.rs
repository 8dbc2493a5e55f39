//! How long work keeps the thread, its waits left out: what deciding costs, and how long nothing else can be done.

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

/// Does the work. Returns for how long it kept the thread besides what comes of it.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = pin!(work);
    let mut busy = Duration::ZERO;
    let output = poll_fn(|context| {
        let begin = Instant::now();
        let polled = work.as_mut().poll(context);
        busy += begin.elapsed();
        polled
    });
    let output = output.await;
    (output, busy)
}

#[cfg(test)]
mod tests {
    use futures::channel::oneshot;

    use super::*;

    /// Method: the work waits for something that keeps the thread itself meanwhile. Both happen on one thread, so their times cannot overlap, however
    /// slow the machine is.
    #[tokio::test]
    async fn waits_are_left_out() {
        let (sender, receiver) = oneshot::channel();
        let begin = Instant::now();
        let other = async move {
            let other = Instant::now();
            while other.elapsed() < Duration::from_millis(5) {}
            let took = other.elapsed();
            sender.send(7).unwrap();
            took
        };
        let ((output, busy), other) = futures::join!(timed(receiver), other);
        let whole = begin.elapsed();
        assert_eq!(output.unwrap(), 7);
        assert!(busy > Duration::ZERO && busy + other <= whole, "{busy:?} and {other:?} in {whole:?}");
    }
}
