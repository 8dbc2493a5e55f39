//! Plays the workers of pods that nobody runs, for `make bench-operator`: answers the operator at every pod's address, as the worker in it would, with
//! the certificate of its job. It processes nothing: a shard that is assigned runs at once, and has nothing to do.
//!
//! The addresses of all pods must lead to this machine: `ip route add local 10.200.0.0/16 dev lo`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use forebay_api::v1::worker_server::{Worker, WorkerServer};
use forebay_api::v1::{
    AssignReply, Assignment, Books, CheckpointReply, CheckpointRequest, DescribeRequest, Description, PrefetchReply, PrefetchRequest, Shard,
};
use forebay_api::{PORT, TLS_AUTHORITY, TLS_CERTIFICATE, TLS_KEY};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{Acceptor, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tonic::{Request, Response, Status};

/// Connections that were accepted and are not served yet.
const WAITING_MAX: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The epoch of all shards, which is that of their checkpoints: nothing is left to do.
const EPOCH: u64 = 1;

/// Plays the workers of pods that nobody runs.
#[derive(Parser)]
struct Arguments {
    /// How many shards each job has
    #[arg(long, default_value_t = 4)]
    shards: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let client = Client::try_default().await.context("find the API server by KUBECONFIG")?;
    let stage = Arc::new(Stage { shards: arguments.shards, known: Mutex::default() });
    let own = || Config::default().labels("app.kubernetes.io/managed-by=forebay-operator");
    let (pods, secrets) = (stage.clone(), stage.clone());
    tokio::spawn(watcher(Api::<Pod>::all(client.clone()), own()).default_backoff().for_each(move |event| {
        pods.see_pod(event);
        std::future::ready(())
    }));
    tokio::spawn(watcher(Api::<Secret>::all(client), own()).default_backoff().for_each(move |event| {
        secrets.see_secret(event);
        std::future::ready(())
    }));
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await.context("listen where workers do")?;
    let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(accept(listener, stage.clone(), sender));
    let connections = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let server = tonic::transport::Server::builder().add_service(WorkerServer::new(Played(stage)));
    Ok(server.serve_with_incoming(connections).await?)
}

type Connection = std::io::Result<TlsStream<TcpStream>>;

/// The pods and certificates that there are.
struct Stage {
    shards: u32,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_address: HashMap<IpAddr, Part>,
    /// By the uid of their job.
    certificates: HashMap<String, Arc<ServerConfig>>,
}

/// One pod, and what its worker was told.
struct Part {
    uid: String,
    worker: String,
    job: String,
    assignment: Option<(Assignment, Instant)>,
}

impl Stage {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see_pod(&self, event: watcher::Result<Event<Pod>>) {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => self.enter(&pod),
            Ok(Event::Delete(pod)) => self.known().by_address.retain(|_, part| Some(&part.uid) != pod.meta().uid.as_ref()),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => eprintln!("stub_workers: the watch of pods is started again: {error}"),
        }
    }

    fn enter(&self, pod: &Pod) {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok());
        let (Some(address), Some(uid), Some(job)) = (address, pod.uid(), job_of(pod)) else { return };
        let mut known = self.known();
        // An address is given to another pod when its first one is gone.
        if known.by_address.get(&address).is_none_or(|part| part.uid != uid) {
            let worker = format!("{}.{uid}", pod.name_any());
            known.by_address.insert(address, Part { uid, worker, job, assignment: None });
        }
    }

    fn see_secret(&self, event: watcher::Result<Event<Secret>>) {
        let Ok(Event::Apply(secret) | Event::InitApply(secret)) = event else { return };
        let (Some(job), Some(data)) = (job_of(&secret), &secret.data) else { return };
        match server_config(data) {
            Ok(config) => drop(self.known().certificates.insert(job, Arc::new(config))),
            Err(error) => eprintln!("stub_workers: the certificate of {}: {error:#}", secret.name_any()),
        }
    }

    fn certificate(&self, address: IpAddr) -> Option<Arc<ServerConfig>> {
        let known = self.known();
        known.certificates.get(&known.by_address.get(&address)?.job).cloned()
    }

    fn describe(&self, address: IpAddr) -> Option<Description> {
        let known = self.known();
        let part = known.by_address.get(&address)?;
        let owned =
            part.assignment.iter().flat_map(|(given, since)| given.shards.iter().map(move |number| running(*number, since.elapsed())));
        Some(Description {
            worker: part.worker.clone(),
            job: part.job.clone(),
            revision: "stub".to_owned(),
            shards: self.shards,
            assignment: part.assignment.as_ref().map(|(assignment, _)| assignment.clone()),
            owned: owned.collect(),
            ..Description::default()
        })
    }

    fn assign(&self, address: IpAddr, assignment: Assignment) -> Result<(), Status> {
        let mut known = self.known();
        let part = known.by_address.get_mut(&address).ok_or_else(no_such_pod)?;
        let last = part.assignment.as_ref().map_or(0, |(last, _)| last.version);
        if part.job != assignment.job || assignment.version < last {
            return Err(Status::failed_precondition(format!("{} works for job {} and has version {last}", part.worker, part.job)));
        }
        part.assignment = Some((assignment, Instant::now()));
        Ok(())
    }
}

/// One that has run for so long, and has its only epoch in a checkpoint.
fn running(shard: u32, since: Duration) -> Shard {
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Shard {
        shard,
        phase: "running".to_owned(),
        epoch: EPOCH,
        books: Some(Books::default()),
        checkpoint_epoch: EPOCH,
        checkpoint_age_millis: Some(millis),
        running_millis: Some(millis),
        books_at_start: Some(Books::default()),
        freshness_millis: Some(0),
        ..Shard::default()
    }
}

/// From what a worker has in its folder, where Kubernetes puts what stands in the secret.
fn server_config(data: &BTreeMap<String, ByteString>) -> Result<ServerConfig> {
    let entry = |name: &str| data.get(name).map(|bytes| bytes.0.as_slice()).with_context(|| format!("there is no {name}"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(entry(TLS_AUTHORITY)?)?)?;
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let (chain, key) = (vec![CertificateDer::from_pem_slice(entry(TLS_CERTIFICATE)?)?], PrivateKeyDer::from_pem_slice(entry(TLS_KEY)?)?);
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The uid of the job that an object is of.
fn job_of<K: Resource>(object: &K) -> Option<String> {
    object.meta().owner_references.iter().flatten().find(|owner| owner.kind == "IngestionJob").map(|owner| owner.uid.clone())
}

async fn accept(listener: TcpListener, stage: Arc<Stage>, sender: mpsc::Sender<Connection>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, stage.clone(), sender.clone()))),
            Err(error) => eprintln!("stub_workers: a connection was not accepted: {error}"),
        }
    }
}

async fn serve(stream: TcpStream, stage: Arc<Stage>, sender: mpsc::Sender<Connection>) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, &stage)).await {
        // Nobody receives when the server has ended.
        Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
        Ok(Err(error)) => eprintln!("stub_workers: a client is refused: {error:#}"),
        Err(_) => eprintln!("stub_workers: a client did not finish its handshake"),
    }
}

async fn handshake(stream: TcpStream, stage: &Stage) -> Result<TlsStream<TcpStream>> {
    let address = stream.local_addr()?.ip();
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = stage.certificate(address).with_context(|| format!("there is no pod at {address}, or no certificate of its job, yet"))?;
    Ok(hello.into_stream(config).await?)
}

struct Played(Arc<Stage>);

#[tonic::async_trait]
impl Worker for Played {
    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        self.0.describe(dialled(&request)?).map(Response::new).ok_or_else(no_such_pod)
    }

    async fn assign(&self, request: Request<Assignment>) -> Result<Response<AssignReply>, Status> {
        let address = dialled(&request)?;
        self.0.assign(address, request.into_inner())?;
        Ok(Response::new(AssignReply {}))
    }

    async fn checkpoint(&self, _: Request<CheckpointRequest>) -> Result<Response<CheckpointReply>, Status> {
        Ok(Response::new(CheckpointReply {}))
    }

    async fn prefetch(&self, _: Request<PrefetchRequest>) -> Result<Response<PrefetchReply>, Status> {
        // It says that it cannot, and there is nothing to prepare.
        Err(Status::unimplemented("there is no state here"))
    }
}

/// The pod's address that the operator called.
fn dialled<T>(request: &Request<T>) -> Result<IpAddr, Status> {
    request.local_addr().map(|address| address.ip()).ok_or_else(no_such_pod)
}

fn no_such_pod() -> Status {
    Status::not_found("there is no pod at this address any more")
}
