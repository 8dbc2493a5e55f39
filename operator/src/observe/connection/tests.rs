//! Method: a worker's server of tonic's, with a certificate as the operator gives it, behind a socket of this machine that counts who connects.

use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_api::v1::worker_client::WorkerClient;
use forebay_api::v1::worker_server::{Worker, WorkerServer};
use forebay_api::v1::{
    AssignReply, Assignment, CheckpointReply, CheckpointRequest, DescribeRequest, Description, PrefetchReply, PrefetchRequest,
};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Status};

use super::*;
use crate::certificates::{Authority, Holder};
use crate::credentials::Credentials;

const JOB: &str = "0f3a9c1e-5a34-4b7e-9d7e-000000000000";

/// Says its name, and has nothing else to say.
struct Played {
    name: String,
}

#[tonic::async_trait]
impl Worker for Played {
    async fn describe(&self, _: tonic::Request<DescribeRequest>) -> Result<tonic::Response<Description>, Status> {
        Ok(tonic::Response::new(Description { worker: self.name.clone(), ..Description::default() }))
    }

    async fn assign(&self, _: tonic::Request<Assignment>) -> Result<tonic::Response<AssignReply>, Status> {
        Err(Status::failed_precondition("it has another version"))
    }

    async fn checkpoint(&self, _: tonic::Request<CheckpointRequest>) -> Result<tonic::Response<CheckpointReply>, Status> {
        Ok(tonic::Response::new(CheckpointReply {}))
    }

    async fn prefetch(&self, _: tonic::Request<PrefetchRequest>) -> Result<tonic::Response<PrefetchReply>, Status> {
        Ok(tonic::Response::new(PrefetchReply {}))
    }
}

struct Scene {
    credentials: Credentials,
    connected: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Self {
        let now = Timestamp::now();
        Self { credentials: Credentials::of(Authority::make(now).unwrap(), now).unwrap(), connected: Arc::default() }
    }

    fn connection(&self, job: &str, address: SocketAddr) -> Connection {
        let (name, tls) = self.credentials.for_workers(job);
        Connection::new(address, name, tls)
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::SeqCst)
    }

    /// A worker of the job that says this name, until it is told to end, and its connections with it.
    fn serve(&self, listener: TcpListener, name: String) -> (JoinHandle<()>, oneshot::Sender<()>) {
        let authority = self.credentials.authority();
        let pair = authority.sign(Holder::Workers(JOB), Timestamp::now()).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(pair.certificate, pair.key))
            .client_ca_root(Certificate::from_pem(&authority.pair().certificate));
        let mut server = Server::builder().tls_config(tls).unwrap();
        let connected = self.connected.clone();
        let incoming = TcpIncoming::from(listener).inspect(move |_| {
            connected.fetch_add(1, Ordering::SeqCst);
        });
        let (sender, ends) = oneshot::channel();
        let serves = async move {
            let server = server.add_service(WorkerServer::new(Played { name }));
            server.serve_with_incoming_shutdown(incoming, ends.map(drop)).await.unwrap();
        };
        (tokio::spawn(serves), sender)
    }
}

async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).await.unwrap()
}

async fn ask(connection: &Connection) -> Result<String, Status> {
    let said = WorkerClient::new(connection.clone()).describe(DescribeRequest {}).await?;
    Ok(said.into_inner().worker)
}

#[tokio::test]
async fn one_connection_serves_until_it_breaks_and_then_another_one() {
    let scene = Scene::new();
    let listener = listen(0).await;
    let address = listener.local_addr().unwrap();
    let connection = scene.connection(JOB, address);
    let (server, end) = scene.serve(listener, "first".into());
    for _ in 0..3 {
        assert_eq!(ask(&connection).await.unwrap(), "first");
    }
    // What a worker refuses does not break it.
    let refused = WorkerClient::new(connection.clone()).assign(Assignment::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "it has another version"));
    assert_eq!(ask(&connection).await.unwrap(), "first");
    assert_eq!(scene.connected(), 1);
    end.send(()).unwrap();
    server.await.unwrap();
    ask(&connection).await.unwrap_err();
    let _server = scene.serve(listen(address.port()).await, "second".into());
    assert_eq!(ask(&connection).await.unwrap(), "second");
    assert_eq!(scene.connected(), 2);
}

#[tokio::test]
async fn who_cannot_prove_its_name_is_not_asked() {
    let scene = Scene::new();
    let listener = listen(0).await;
    let address = listener.local_addr().unwrap();
    let _server = scene.serve(listener, "worker".into());
    let error = ask(&scene.connection("another-job", address)).await.unwrap_err();
    assert!(error.message().contains("certificate"), "{error}");
    // Nor by one that this authority did not sign.
    let error = ask(&Scene::new().connection(JOB, address)).await.unwrap_err();
    assert!(error.message().contains("certificate"), "{error}");
    assert_eq!(ask(&scene.connection(JOB, address)).await.unwrap(), "worker");
}

#[tokio::test]
async fn a_silent_one_is_given_up_and_its_connection_too() {
    let scene = Scene::new();
    let listener = listen(0).await;
    let connection = scene.connection(JOB, listener.local_addr().unwrap());
    let (answer, silent) = futures::join!(ask(&connection), listener.accept());
    assert_eq!(answer.unwrap_err().message(), "there was no answer within 2 s");
    let _server = scene.serve(listener, "worker".into());
    assert_eq!(ask(&connection).await.unwrap(), "worker");
    drop(silent);
}

/// More than fits into one frame, and into the window of a connection, several times over.
#[tokio::test]
async fn a_long_answer_is_read_whole_and_one_that_is_too_long_is_refused() {
    let scene = Scene::new();
    let listener = listen(0).await;
    let connection = scene.connection(JOB, listener.local_addr().unwrap());
    let name = "w".repeat(300_000);
    let _server = scene.serve(listener, name.clone());
    for _ in 0..3 {
        assert!(ask(&connection).await.unwrap() == name);
    }
    assert_eq!(scene.connected(), 1);
    let listener = listen(0).await;
    let connection = scene.connection(JOB, listener.local_addr().unwrap());
    let _server = scene.serve(listener, "w".repeat(ANSWER_BYTES_MAX));
    let error = ask(&connection).await.unwrap_err();
    assert_eq!(error.message(), format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
}

#[test]
fn a_silent_worker_is_waited_for_until_it_is_lost_and_then_like_any_other() {
    let millis = |silent| until_lost(Duration::from_millis(silent)).map(|left| left.as_millis());
    assert_eq!([0, 4_900, 5_000, 7_000].map(millis), [Some(5_000), Some(100), None, None]);
}
