//! Connections to workers: one to each, opened when it is first asked, and anew after it broke. An operator holds thousands of them, so they are made of the few
//! parts that one short call after the other needs: tonic's own channel takes twice the memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_api::v1::worker_client::WorkerClient;
use forebay_api::v1::{DescribeRequest, Description};
use futures::FutureExt;
use futures::future::BoxFuture;
use h2::client::SendRequest;
use http_body_util::{BodyExt, Full};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::codegen::{Service, http};

use crate::plan::WORKER_TIMEOUT;

/// How long a worker may take to answer, connecting included: it answers from memory. Two of these are less than the time after which it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Far above what a worker with all shards of a large job says.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How one worker is asked. A clone uses the same connection.
#[derive(Clone)]
pub struct Connection(Arc<Line>);

struct Line {
    address: SocketAddr,
    /// Whom its certificate must name.
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    open: Mutex<Option<SendRequest<Bytes>>>,
}

/// Why a worker could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// There is no connection, or it is none that proves who answers.
    #[error("connect: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection broke.
    #[error("ask: {0}")]
    Broken(#[from] h2::Error),
    /// What should be asked could not be put into bytes.
    #[error("ask: {0}")]
    Request(#[from] tonic::Status),
    /// It says more than a worker has to say.
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// It is silent.
    #[error("there was no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
}

impl Connection {
    /// To the worker at an address, which must prove the name. Nothing is sent before something is asked.
    pub fn new(address: SocketAddr, name: ServerName<'static>, tls: Arc<ClientConfig>) -> Self {
        Self(Arc::new(Line { address, name, tls, open: Mutex::default() }))
    }
}

/// What a worker says of itself. One that has answered before, so long ago, is waited for until it counts as lost: what follows from that begins then.
pub(super) async fn describe(connection: Connection, silent: Option<Duration>) -> Result<Description, tonic::Status> {
    let mut client = WorkerClient::new(connection);
    let asked = client.describe(DescribeRequest {});
    let answer = match silent.and_then(until_lost) {
        Some(left) => {
            timeout(left, asked).await.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("it has been silent for too long")))
        }
        None => asked.await,
    };
    answer.map(tonic::Response::into_inner)
}

/// What is left of the time after which a worker that has been silent for so long counts as lost; `None` when it is over.
fn until_lost(silent: Duration) -> Option<Duration> {
    WORKER_TIMEOUT.checked_sub(silent).filter(|left| !left.is_zero())
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Unreachable;
    type Future = BoxFuture<'static, Result<Response<Body>, Unreachable>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let line = self.0.clone();
        async move {
            let answer = timeout(ANSWER_TIMEOUT, line.ask(request)).await.unwrap_or(Err(Unreachable::TimedOut));
            // Who holds it is opening a new one.
            if answer.is_err()
                && let Ok(mut open) = line.open.try_lock()
            {
                *open = None;
            }
            answer
        }
        .boxed()
    }
}

impl Line {
    async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, Unreachable> {
        let (mut head, body) = request.into_parts();
        head.uri = absolute(head.uri.into_parts().path_and_query);
        let body = body.collect().await?.to_bytes();
        let (response, mut stream) = self.sender().await?.send_request(Request::from_parts(head, ()), false)?;
        stream.send_data(body, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut answer = BytesMut::new();
        while let Some(part) = body.data().await.transpose()? {
            body.flow_control().release_capacity(part.len())?;
            answer.extend_from_slice(&part);
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(Unreachable::TooLong);
            }
        }
        let trailers = body.trailers().await?.map(Ok);
        let answer = Full::new(answer.freeze()).with_trailers(std::future::ready(trailers));
        Ok(Response::from_parts(head, Body::new(answer)))
    }

    /// The connection that there is, or a new one.
    async fn sender(&self) -> Result<SendRequest<Bytes>, Unreachable> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.take()
            && let Ok(sender) = sender.ready().await
        {
            return Ok(open.insert(sender).clone());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(self.tls.clone()).connect(self.name.clone(), stream).await?;
        // Without a table of headers that came before: it takes more memory than what it saves is worth.
        let handshake = h2::client::Builder::new().enable_push(false).header_table_size(0).handshake(stream);
        let (sender, connection) = handshake.await?;
        // Ends when it breaks, or nobody can ask any more. Whoever asks then hears why.
        tokio::spawn(connection.map(drop));
        Ok(open.insert(sender).clone())
    }
}

/// With the parts that HTTP/2 wants to have, and that nobody looks at.
fn absolute(path: Option<PathAndQuery>) -> Uri {
    let mut parts = http::uri::Parts::default();
    (parts.scheme, parts.authority) = (Some(http::uri::Scheme::HTTPS), Some(http::uri::Authority::from_static("worker")));
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).expect("it has all parts that it needs")
}

#[cfg(test)]
mod tests;
