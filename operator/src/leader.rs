//! The lease in the cluster: taken, renewed, given back. Who holds it, and how long that is certain, is read here by everybody who acts.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::election::{ACT_DURATION, Election, RENEW_INTERVAL, Step};

/// The lease's name, in the operator's own namespace.
const NAME: &str = forebay_api::look::LEASE;
/// How long one call may take: a renewal that fails is tried again before the leader must stop.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the API server may have been out of reach before one says that one is not ready.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// This operator as a candidate, and as the leader while it is.
pub struct Leadership {
    api: Api<Lease>,
    me: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Until when no other one can have the lease.
    certain_until: Option<Instant>,
    /// When the API server last answered.
    answered: Option<Instant>,
}

/// Why an operator ends: another one leads, or may.
#[derive(Debug, thiserror::Error)]
#[error("the lease {NAME} could not be renewed in time; this operator ends, and waits for its turn when it is started again")]
pub struct Lost;

impl Leadership {
    /// A candidate, by the name of its pod, for the lease in the client's own namespace.
    pub fn new(client: &Client, me: String) -> Self {
        Self { api: Api::default_namespaced(client.clone()), me, known: Mutex::default() }
    }

    /// Whether this operator may act now.
    pub fn is_certain(&self) -> bool {
        self.known().certain_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the API server has answered lately.
    pub fn is_in_touch(&self) -> bool {
        self.known().answered.is_some_and(|at| at.elapsed() < SILENCE_MAX)
    }

    /// Runs `work` while this operator leads: waits for the lease, renews it meanwhile, and gives it back when the work is done. `Err` when it was lost:
    /// the work is dropped where it stands. `stop` ends the waiting.
    pub async fn run(&self, work: impl Future<Output = ()>, stop: impl Future<Output = ()>) -> Result<(), Lost> {
        let mut election = Election::new(self.me.clone());
        tokio::select! {
            biased;
            () = stop => return Ok(()),
            () = self.acquire(&mut election) => {}
        }
        tracing::info!(name = self.me, "this operator leads");
        let done = tokio::select! {
            biased;
            lost = self.keep(&mut election) => Err(lost),
            () = work => Ok(()),
        };
        self.known().certain_until = None;
        if done.is_ok() {
            self.release(&election).await;
        }
        done
    }

    async fn acquire(&self, election: &mut Election) {
        while !self.attempt(election).await {
            tokio::time::sleep(RENEW_INTERVAL).await;
        }
    }

    async fn keep(&self, election: &mut Election) -> Lost {
        while self.is_certain() {
            tokio::time::sleep(RENEW_INTERVAL).await;
            self.attempt(election).await;
        }
        Lost
    }

    /// One look at the lease, and what follows from it. Whether it is this operator's now.
    async fn attempt(&self, election: &mut Election) -> bool {
        let begin = Instant::now();
        let done = tokio::time::timeout(CALL_TIMEOUT, self.write(election)).await;
        let mut known = self.known();
        match done {
            Ok(Ok(is_mine)) => {
                known.answered = Some(begin);
                // From before the call: nobody can have seen the lease any earlier.
                known.certain_until = is_mine.then(|| begin + ACT_DURATION);
                is_mine
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease is tried again");
                false
            }
            Err(_) => {
                tracing::warn!("the API server did not answer about the lease");
                false
            }
        }
    }

    async fn write(&self, election: &mut Election) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(NAME).await?;
        let written = match election.step(lease.as_ref(), Instant::now(), Timestamp::now()) {
            Step::Wait => return Ok(false),
            Step::Create(mut lease) => {
                lease.metadata.name = Some(NAME.to_owned());
                self.api.create(&PostParams::default(), &lease).await
            }
            Step::Replace(lease) => self.api.replace(NAME, &PostParams::default(), &lease).await,
        };
        match written {
            Ok(_) => Ok(true),
            // Another one was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A courtesy to the next one; without it the lease runs out.
    async fn release(&self, election: &Election) {
        let released = async {
            let Some(lease) = self.api.get_opt(NAME).await?.and_then(|lease| election.released(&lease)) else { return Ok(()) };
            self.api.replace(NAME, &PostParams::default(), &lease).await.map(drop)
        };
        match tokio::time::timeout(CALL_TIMEOUT, released).await {
            Ok(Ok(())) => tracing::info!("the lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease is not given back, and runs out"),
            Err(_) => tracing::warn!("the lease is not given back, and runs out"),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
