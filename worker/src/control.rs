//! What an operator may ask of a worker, over gRPC: the contract is `api/proto/worker.proto`. It reads the status, keeps the assignment, and hands
//! shards to the runtime; it never touches a shard.

pub mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_api::v1::worker_server::{Worker, WorkerServer};
use forebay_api::v1::{
    self, AssignReply, CheckpointReply, CheckpointRequest, DescribeRequest, Description, PrefetchReply, PrefetchRequest,
};
use forebay_engine::claim::GaveUp;
use forebay_engine::ids::{AssignmentVersion, ShardId, Timeline};
use forebay_engine::journal::Books;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status as Refused};

use crate::assignment::{Assignment, AssignmentFile, Refusal, check_meant};
use crate::control::tls::Certificates;
use crate::prefetch::{Prefetched, Prefetcher};
use crate::pressure::resident_bytes;
use crate::status::{ShardStatus, Status};

/// Handshakes at a time: there is one operator, and a few more while it is replaced.
const HANDSHAKES_MAX: usize = 16;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After this a connection is made anew, so that nobody is served for long by a certificate that is no longer good.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);

/// Who has asked within this is listening: an operator asks once a second.
const LISTENING_TIME: Duration = Duration::from_secs(3);
/// How long a worker that has released its shards stays to say so: longer than an operator waits for another worker that is silent.
const FAREWELL_TIME: Duration = Duration::from_millis(2500);
/// How long it takes at most until requests that have come are answered. A connection whose other end is gone would hold up the end for ever.
const LAST_ANSWER_TIME: Duration = Duration::from_millis(500);

/// Hands shards to the engine: [`crate::Runtime::assigner`].
pub type Assigner = Box<dyn Fn(AssignmentVersion, BTreeSet<ShardId>) + Send + Sync>;

/// Has checkpoints taken: [`crate::Runtime::checkpointer`].
pub type Checkpoints = Box<dyn Fn() + Send + Sync>;

/// What a worker says of itself, whatever it does.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name in claims.
    pub worker: String,
    /// The uid of its job.
    pub job: String,
    /// The hash of what decides the job's results.
    pub revision: String,
    /// How many shards the job has.
    pub shards: u32,
    /// The history that it works on.
    pub timeline: Timeline,
    /// The rewind that began that; empty for the first one.
    pub rewind: String,
    /// The rewinds that had been given up when it started.
    pub rewinds_given_up: Vec<String>,
}

/// A worker's answers.
pub struct Control {
    facts: Facts,
    status: Arc<Status>,
    assign: Assigner,
    checkpoint: Checkpoints,
    prefetcher: Arc<Prefetcher>,
    file: AssignmentFile,
    ledger: Mutex<Ledger>,
    described: Condvar,
}

#[derive(Default)]
struct Ledger {
    assignment: Option<Assignment>,
    /// It could not be stored yet: it is tried again whenever an operator asks.
    is_unsaved: bool,
    given_up: BTreeMap<ShardId, GaveUp>,
    /// When an operator asked last.
    asked: Option<Instant>,
    /// All shards are to be released, and the process ends.
    is_ending: bool,
    /// An operator has heard that none is left.
    has_said_farewell: bool,
}

impl Ledger {
    /// Whether somebody will soon ask who has not heard yet that no shard is left.
    fn has_a_listener(&self) -> bool {
        !self.has_said_farewell && self.asked.is_some_and(|asked| asked.elapsed() < LISTENING_TIME)
    }
}

impl Control {
    /// Resumes the last assignment of this job, if one lies on the volume. `Err` when it cannot be read.
    pub fn resume(
        facts: Facts,
        status: Arc<Status>,
        (assign, checkpoint, prefetcher): (Assigner, Checkpoints, Arc<Prefetcher>),
        file: AssignmentFile,
    ) -> std::io::Result<Self> {
        let last = file.load()?.filter(|assignment| assignment.check(&facts.job, facts.shards, None).is_ok());
        if let Some(assignment) = &last {
            tracing::info!(version = %assignment.version, shards = ?assignment.shards, "the last assignment is resumed");
            assign(assignment.version, assignment.shards.clone());
        }
        let ledger = Mutex::new(Ledger { assignment: last, ..Ledger::default() });
        Ok(Self { facts, status, assign, checkpoint, prefetcher, file, ledger, described: Condvar::new() })
    }

    /// From now on all shards are being released, and the process ends after that.
    pub fn ending(&self) {
        self.ledger().is_ending = true;
    }

    /// Waits a moment until an operator has heard that all shards are released, if one has been listening: then it gives them to others at once, and not
    /// only when it learns that this container has ended.
    pub fn say_farewell(&self) {
        drop(self.described.wait_timeout_while(self.ledger(), FAREWELL_TIME, |ledger| ledger.has_a_listener()));
    }

    /// Notes that somebody else had the better right to a shard: the operator hears of it.
    pub fn gave_up(&self, shard: ShardId, gave_up: GaveUp) {
        self.ledger().given_up.insert(shard, gave_up);
    }

    fn describe(&self) -> Description {
        let mut ledger = self.ledger();
        if ledger.is_unsaved {
            self.save(&mut ledger);
        }
        let owned: Vec<v1::Shard> = self.status.shards().into_iter().map(|(shard, status)| described(shard, status)).collect();
        ledger.asked = Some(Instant::now());
        ledger.has_said_farewell = ledger.is_ending && owned.is_empty();
        self.described.notify_all();
        let given_up = |(shard, gave_up): (&ShardId, &GaveUp)| v1::GivenUp {
            shard: shard.get(),
            version: gave_up.version.get(),
            winner: gave_up.winner.to_string(),
        };
        Description {
            worker: self.facts.worker.clone(),
            job: self.facts.job.clone(),
            revision: self.facts.revision.clone(),
            shards: self.facts.shards,
            assignment: ledger.assignment.as_ref().map(|assignment| v1::Assignment {
                job: assignment.job.clone(),
                version: assignment.version.get(),
                shards: assignment.shards.iter().map(|shard| shard.get()).collect(),
            }),
            owned,
            given_up: ledger.given_up.iter().map(given_up).collect(),
            timeline: self.facts.timeline.get(),
            rewind: self.facts.rewind.clone(),
            can_prefetch: true,
            prefetched: self.prefetcher.all().into_iter().map(prefetched).collect(),
            memory_bytes: resident_bytes().map(|bytes| bytes as u64),
            rewinds_given_up: self.facts.rewinds_given_up.clone(),
        }
    }

    fn prefetch(&self, request: PrefetchRequest) -> Result<(), Refused> {
        let shards: BTreeSet<ShardId> = request.shards.into_iter().map(ShardId::new).collect();
        check_meant(&request.job, &shards, &self.facts.job, self.facts.shards).map_err(refused)?;
        let owned = self.status.shards();
        self.prefetcher.want(&shards.into_iter().filter(|shard| !owned.contains_key(shard)).collect());
        Ok(())
    }

    fn accept(&self, new: Assignment) -> Result<(), Refused> {
        let mut ledger = self.ledger();
        new.check(&self.facts.job, self.facts.shards, ledger.assignment.as_ref()).map_err(refused)?;
        if ledger.assignment.as_ref() == Some(&new) {
            return Ok(());
        }
        tracing::info!(version = %new.version, shards = ?new.shards, "assigned");
        // What was given up under an older version is claimed again under this one.
        ledger.given_up.clear();
        // First, for a shard that moves stands still until then, and a disk may take its time. Claims decide, not what was stored.
        (self.assign)(new.version, new.shards.clone());
        ledger.assignment = Some(new);
        self.save(&mut ledger);
        Ok(())
    }

    /// Stores the assignment. What is in force is in force without that: only a container that starts again without an operator would go on with the one before,
    /// whose version is too low for it to do harm.
    fn save(&self, ledger: &mut Ledger) {
        let Some(assignment) = &ledger.assignment else { return };
        let stored = self.file.store(assignment);
        if let Err(error) = &stored
            && !ledger.is_unsaved
        {
            tracing::warn!(%error, "the assignment is in force, and could not be stored; it is tried again");
        }
        ledger.is_unsaved = stored.is_err();
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that answers the operator.
pub struct Served {
    /// Where.
    pub address: SocketAddr,
    end: oneshot::Sender<()>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl Served {
    /// Takes no more requests, and waits a moment until those that have come are answered.
    pub fn end(self) {
        // Nobody hears it, and nobody says when, if it has ended by itself.
        let _ = self.end.send(());
        let _ = self.ended.recv_timeout(LAST_ANSWER_TIME);
    }
}

/// Serves on `address` from a thread of its own. With certificates only those who have one of their authority are
/// answered, without any everybody is. `Err` when the address cannot be had.
pub fn serve(address: SocketAddr, control: Arc<Control>, certificates: Option<Certificates>) -> std::io::Result<Served> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_encrypted = certificates.is_some();
    let (end, end_heard) = oneshot::channel();
    let (over, ended) = std::sync::mpsc::channel();
    let until_end = async {
        // Who only forgets the thread has it serve until the process ends.
        if end_heard.await.is_err() {
            std::future::pending().await
        }
    };
    let serve = move || {
        runtime.block_on(async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "the operator is not answered"),
            };
            let router =
                tonic::transport::Server::builder().max_connection_age(CONNECTION_AGE_MAX).add_service(WorkerServer::new(Service(control)));
            let served = match certificates {
                None => router.serve_with_incoming_shutdown(TcpIncoming::from(listener), until_end).await,
                Some(certificates) => router.serve_with_incoming_shutdown(handshaken(listener, certificates), until_end).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "the operator is no longer answered");
            }
        });
    };
    std::thread::Builder::new().name("control".into()).spawn(move || {
        serve();
        drop(over);
    })?;
    tracing::info!(%address, encrypted = is_encrypted, "the operator is answered");
    Ok(Served { address, end, ended })
}

/// Connections of those who have proved who they are. One that takes its time holds up nobody else.
fn handshaken(listener: TcpListener, mut certificates: Certificates) -> impl futures::Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    let (sender, mut receiver) = mpsc::channel(HANDSHAKES_MAX);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(acceptor) = certificates.acceptor() else { continue };
                    tokio::spawn(handshake(acceptor, stream, peer, sender.clone(), place));
                }
                Err(error) => tracing::warn!(%error, "a connection was not accepted"),
            }
        }
    });
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

async fn handshake(
    acceptor: tokio_rustls::TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    sender: mpsc::Sender<std::io::Result<TlsStream<TcpStream>>>,
    _place: OwnedSemaphorePermit,
) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        // Nobody receives when the server has ended.
        Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
        // Kubernetes' own probe only opens a connection, every two seconds.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Ok(Err(error)) => tracing::warn!(%peer, %error, "a client is refused"),
        Err(_) => tracing::warn!(%peer, "a client is refused: it did not finish its handshake"),
    }
}

struct Service(Arc<Control>);

#[tonic::async_trait]
impl Worker for Service {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Description>, Refused> {
        Ok(Response::new(self.0.describe()))
    }

    async fn assign(&self, request: Request<v1::Assignment>) -> Result<Response<AssignReply>, Refused> {
        let new = request.into_inner();
        let assignment = Assignment {
            job: new.job,
            version: AssignmentVersion::new(new.version),
            shards: new.shards.into_iter().map(ShardId::new).collect(),
        };
        self.0.accept(assignment)?;
        Ok(Response::new(AssignReply {}))
    }

    async fn prefetch(&self, request: Request<PrefetchRequest>) -> Result<Response<PrefetchReply>, Refused> {
        self.0.prefetch(request.into_inner())?;
        Ok(Response::new(PrefetchReply {}))
    }

    async fn checkpoint(&self, _: Request<CheckpointRequest>) -> Result<Response<CheckpointReply>, Refused> {
        (self.0.checkpoint)();
        Ok(Response::new(CheckpointReply {}))
    }
}

fn refused(refusal: Refusal) -> Refused {
    Refused::failed_precondition(refusal.to_string())
}

fn prefetched((shard, state): (ShardId, Prefetched)) -> v1::Prefetched {
    v1::Prefetched { shard: shard.get(), ready: state.ready, failure: state.failure.unwrap_or_default() }
}

fn described(shard: ShardId, status: ShardStatus) -> v1::Shard {
    let (lag_records, freshness_millis) = (status.lag_records(), status.freshness_millis());
    v1::Shard {
        shard: shard.get(),
        phase: status.phase.to_owned(),
        epoch: status.epoch.get(),
        lag_records,
        books: Some(books(status.books)),
        checkpoint_epoch: status.checkpoint.map_or(0, |epoch| epoch.get()),
        failure: status.failure.unwrap_or_default(),
        stalled: status.stalled,
        checkpoint_age_millis: status.checkpoint.and(status.checkpoint_seen).map(|seen| seen.elapsed().as_millis() as u64),
        running_millis: status.began.map(|(at, _)| at.elapsed().as_millis() as u64),
        books_at_start: status.began.map(|(_, at_start)| books(at_start)),
        freshness_millis,
        checkpoint_taken_millis: status.checkpoint_taken.map(|at| at.elapsed().as_millis() as u64),
        load_permille: status.load.and_then(|load| load.permille()),
    }
}

fn books(books: Books) -> v1::Books {
    let Books { records_in, processed, rejected, duplicate, filtered, throttled } = books;
    v1::Books { records_in, processed, rejected, duplicate, filtered, throttled }
}

#[cfg(test)]
mod tests {
    use forebay_engine::ids::WorkerName;

    use super::*;

    type Handed = Arc<Mutex<Vec<(u64, Vec<u32>)>>>;

    fn control(folder: &std::path::Path, handed: &Handed) -> Control {
        let facts = Facts {
            worker: "w".into(),
            job: "job".into(),
            revision: "r".into(),
            shards: 4,
            timeline: Timeline::new(0),
            rewind: String::new(),
            rewinds_given_up: vec!["r0".into()],
        };
        let handed = handed.clone();
        let assign: Assigner = Box::new(move |version, shards| {
            handed.lock().unwrap().push((version.get(), shards.iter().map(|shard| shard.get()).collect()));
        });
        let parts = (assign, Box::new(|| ()) as Checkpoints, Prefetcher::start(|_, _, _| Ok(())));
        Control::resume(facts, Arc::default(), parts, AssignmentFile::in_folder(folder)).unwrap()
    }

    fn assignment(version: u64, shards: &[u32]) -> Assignment {
        let shards = shards.iter().copied().map(ShardId::new).collect();
        Assignment { job: "job".into(), version: AssignmentVersion::new(version), shards }
    }

    /// Method: assign, repeat, assign a stale one; then begin again on the same folder, as a container does that was killed.
    #[test]
    fn an_assignment_reaches_the_engine_once_and_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let handed = Handed::default();
        let first = control(folder.path(), &handed);
        assert_eq!(first.describe().assignment, None);
        first.accept(assignment(5, &[1, 2])).unwrap();
        first.accept(assignment(5, &[1, 2])).unwrap();
        assert_eq!(first.accept(assignment(4, &[0])).unwrap_err().code(), tonic::Code::FailedPrecondition);
        assert_eq!(*handed.lock().unwrap(), [(5, vec![1, 2])]);

        let second = control(folder.path(), &handed);
        assert_eq!(*handed.lock().unwrap(), [(5, vec![1, 2]), (5, vec![1, 2])]);
        let said = second.describe().assignment.unwrap();
        assert_eq!((said.version, said.shards), (5, vec![1, 2]));
    }

    /// Method: a folder stands where the file is to be written, and goes away. The operator plans by what the worker says of itself.
    #[test]
    fn an_assignment_that_cannot_be_stored_is_in_force_and_stored_later() {
        let folder = tempfile::tempdir().unwrap();
        let handed = Handed::default();
        let control = control(folder.path(), &handed);
        let in_the_way = folder.path().join("assignment.new");
        std::fs::create_dir(&in_the_way).unwrap();
        control.accept(assignment(5, &[1])).unwrap();
        assert_eq!(*handed.lock().unwrap(), [(5, vec![1])]);
        assert_eq!(control.describe().assignment.unwrap().version, 5);
        assert_eq!(AssignmentFile::in_folder(folder.path()).load().unwrap(), None);
        std::fs::remove_dir(&in_the_way).unwrap();
        control.describe();
        assert_eq!(AssignmentFile::in_folder(folder.path()).load().unwrap(), Some(assignment(5, &[1])));
    }

    /// Method: a connection on which nothing is said, then another one that is answered: by then the first has been accepted.
    #[test]
    fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let served = serve("127.0.0.1:0".parse().unwrap(), Arc::new(control(folder.path(), &Handed::default())), None).unwrap();
        let silent = std::net::TcpStream::connect(served.address).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = runtime.block_on(async {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
            v1::worker_client::WorkerClient::new(endpoint.connect().await.unwrap()).describe(DescribeRequest {}).await.unwrap()
        });
        assert_eq!(said.into_inner().worker, "w");
        served.end();
        drop(silent);
    }

    /// Method: one shard is the worker's own, one does not exist, one is of another job.
    #[test]
    fn only_shards_of_others_are_prefetched() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), &Handed::default());
        control.status.update(ShardId::new(1), |status| status.phase = "running");
        let ask = |job: &str, shards: &[u32]| control.prefetch(PrefetchRequest { job: job.into(), shards: shards.to_vec() });
        let listed = || control.describe().prefetched.iter().map(|prefetched| prefetched.shard).collect::<Vec<_>>();
        ask("job", &[1, 2]).unwrap();
        assert_eq!(listed(), [2]);
        assert_eq!(ask("job", &[4]).unwrap_err().code(), tonic::Code::FailedPrecondition);
        assert_eq!(ask("another", &[3]).unwrap_err().code(), tonic::Code::FailedPrecondition);
        assert_eq!(listed(), [2]);
        ask("job", &[]).unwrap();
        assert!(listed().is_empty());
    }

    #[test]
    fn a_worker_stays_until_an_operator_has_heard_that_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), &Handed::default());
        assert!(!control.ledger().has_a_listener());
        // It has no shards yet: that is no farewell.
        assert!(control.describe().owned.is_empty());
        assert!(control.ledger().has_a_listener());
        control.ending();
        control.status.update(ShardId::new(1), |status| status.phase = "releasing");
        assert_eq!(control.describe().owned.len(), 1);
        assert!(control.ledger().has_a_listener());
        control.status.forget(ShardId::new(1));
        assert!(control.describe().owned.is_empty());
        assert!(!control.ledger().has_a_listener());
    }

    #[test]
    fn what_was_given_up_is_said_until_the_next_assignment() {
        let folder = tempfile::tempdir().unwrap();
        let control = control(folder.path(), &Handed::default());
        control.accept(assignment(5, &[1])).unwrap();
        let version = AssignmentVersion::new(9);
        control.gave_up(ShardId::new(1), GaveUp { version, winner: WorkerName::new("other"), claimed: false });
        assert_eq!(control.describe().given_up, [v1::GivenUp { shard: 1, version: 9, winner: "other".into() }]);
        control.accept(assignment(10, &[1])).unwrap();
        assert!(control.describe().given_up.is_empty());
    }
}
