//! A server that answers as a test says, in the open or by TLS. One request per connection, requests with a length only: all that the SDK
//! sends here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent.
    sent: usize,
    /// Whether the connection stays open when they are not all.
    silent: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: vec![], sent: body.len(), silent: false, body }
    }

    /// An error as S3 words it.
    pub fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>in plain words</Message></Error>"))
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn breaking_off_after(mut self, bytes: usize) -> Self {
        self.sent = bytes;
        self
    }

    pub fn falling_silent_after(mut self, bytes: usize) -> Self {
        self.silent = true;
        self.breaking_off_after(bytes)
    }
}

/// Runs until the test's process ends.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` is told how many requests of the same method came before; with `None` the server says nothing until the client gives up.
    pub fn answering(answer: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::start(None, answer)
    }

    /// The same by TLS.
    pub fn answering_by_tls(config: ServerConfig, answer: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::start(Some(Arc::new(config)), answer)
    }

    fn start(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (log, answer, tls) = (Arc::clone(&log), Arc::clone(&answer), tls.clone());
                let client = client.unwrap();
                thread::spawn(move || match tls {
                    None => serve(client, &log, &*answer),
                    Some(tls) => serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), client), &log, &*answer),
                });
            }
        });
        Self { address, scheme, seen }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The methods of all requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: impl Read + Write, log: &Mutex<Vec<String>>, answer: &dyn Fn(&Request, usize) -> Option<Reply>) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream) else { return };
    let before = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|method| **method == request.method).count();
        log.push(request.method.clone());
        before
    };
    match answer(&request, before) {
        Some(reply) => {
            write(stream.get_mut(), &request, &reply);
            if reply.silent {
                wait_for_end(stream);
            }
        }
        None => wait_for_end(stream),
    }
}

fn read(stream: &mut BufReader<impl Read + Write>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    if headers.contains_key("expect") {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// Until the client gives up.
fn wait_for_end(mut stream: impl Read) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn write(stream: &mut impl Write, request: &Request, reply: &Reply) {
    let mut head = format!("HTTP/1.1 {} Scripted\r\nconnection: close\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let body = if request.method == "HEAD" { &[] } else { &reply.body[..reply.sent] };
    // A client that has gone is its own business.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
}
