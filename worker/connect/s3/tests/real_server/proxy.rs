//! A TCP proxy before the real server that loses replies and cuts connections where a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Runs until the test's process ends.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

/// Recognises a request by its first line: method, and something in the rest.
#[derive(Clone, Copy)]
pub struct RequestLine {
    pub method: &'static str,
    pub holds: &'static str,
}

#[derive(Default)]
struct State {
    lose_reply_to: Mutex<Option<RequestLine>>,
    /// Bytes that still go to the server before it "dies".
    dies_after: Mutex<Option<usize>>,
    dead: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                connect(client.unwrap(), server, &shared);
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The server carries out the next such request, and nobody hears of it.
    pub fn lose_reply_to(&self, request: RequestLine) {
        *self.state.lose_reply_to.lock().unwrap() = Some(request);
    }

    pub fn has_lost_a_reply(&self) -> bool {
        self.state.lose_reply_to.lock().unwrap().is_none()
    }

    /// After so many bytes all connections break, and nobody answers until [`Proxy::revive`].
    pub fn die_after(&self, bytes: usize) {
        *self.state.dies_after.lock().unwrap() = Some(bytes);
    }

    pub fn is_dead(&self) -> bool {
        self.state.dead.load(Ordering::SeqCst)
    }

    pub fn revive(&self) {
        self.state.dead.store(false, Ordering::SeqCst);
    }
}

fn connect(client: TcpStream, server: SocketAddr, state: &Arc<State>) {
    if state.dead.load(Ordering::SeqCst) {
        return;
    }
    let server = TcpStream::connect(server).unwrap();
    let lose = Arc::new(AtomicBool::new(false));
    state.open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    let (from, to, shared, mark) = (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(state), Arc::clone(&lose));
    thread::spawn(move || pump(from, to, |bytes| shared.request_bytes(bytes, &mark)));
    thread::spawn(move || pump(server, client, |_| !lose.load(Ordering::SeqCst)));
}

/// Copies until one side ends or `pass` says no; then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !pass(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl State {
    fn request_bytes(&self, bytes: &[u8], lose_reply: &AtomicBool) -> bool {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut wanted = self.lose_reply_to.lock().unwrap();
        if wanted.is_some_and(|request| line.starts_with(request.method) && line.contains(request.holds)) {
            *wanted = None;
            lose_reply.store(true, Ordering::SeqCst);
        }
        drop(wanted);
        let mut left = self.dies_after.lock().unwrap();
        match *left {
            Some(bytes_left) if bytes_left < bytes.len() => {
                *left = None;
                self.dead.store(true, Ordering::SeqCst);
                for stream in self.open.lock().unwrap().drain(..) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                false
            }
            Some(bytes_left) => {
                *left = Some(bytes_left - bytes.len());
                true
            }
            None => true,
        }
    }
}
