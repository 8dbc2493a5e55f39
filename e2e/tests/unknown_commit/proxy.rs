//! A TCP proxy before a real broker that tells the frames of Kafka's protocol apart, and loses the end of one transaction: the request for it, or
//! the reply. From then on no request of that producer to end a transaction gets through: its client cannot learn from the broker what came of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use forebay_e2e::PATIENCE;

/// EndTxn, among the protocol's requests.
const END_TXN: i16 = 26;

/// From this version on its fields are laid out otherwise. librdkafka speaks 0 and 1.
const END_TXN_COMPACT: i16 = 3;

/// The length that stands before each frame.
const LENGTH_BYTES: usize = 4;

/// By the limits of brokers and clients no frame is as long.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// Runs until the test's process ends.
pub struct Proxy {
    address: SocketAddr,
    broker: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What is to be lost of the end of a transaction. Its connection is closed then.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// The broker ends the transaction, and its client does not hear of it.
    Reply,
    /// The broker does not hear of it.
    Request,
}

/// What was lost.
#[derive(Clone, Debug)]
pub enum Lost {
    /// With the broker's code.
    Reply { code: i16 },
    /// As the client sent it.
    Request { frame: Vec<u8> },
}

#[derive(Default)]
struct State {
    armed: Option<Loss>,
    /// The transactional id of the producer whose transaction was hit.
    cut_off: Option<String>,
    lost: Option<Lost>,
}

impl Proxy {
    /// Leads whoever connects to `listener` to the broker.
    pub fn start(listener: TcpListener, broker: SocketAddr) -> Result<Self> {
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if let Err(error) = client.map_err(anyhow::Error::from).and_then(|client| connect(client, broker, &shared)) {
                    eprintln!("proxy: {error:#}");
                }
            }
        });
        Ok(Self { address, broker, state })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Hits the next transaction that a client wants committed; all other producers are left alone.
    pub fn lose(&self, loss: Loss) {
        lock(&self.state).armed = Some(loss);
    }

    /// Whose transaction was hit, and what was lost of it; `None` while that has not come to pass.
    pub fn lost(&self) -> Option<(String, Lost)> {
        let state = lock(&self.state);
        state.cut_off.clone().zip(state.lost.clone())
    }

    /// Hands the broker a request to end a transaction, over a connection of its own. Returns its code.
    pub fn deliver(&self, request: &[u8]) -> Result<i16> {
        let broker = TcpStream::connect(self.broker).context("connect to the broker")?;
        broker.set_read_timeout(Some(PATIENCE))?;
        (&broker).write_all(request)?;
        let reply = read_frame(&broker)?.context("the broker hung up without an answer")?;
        code_of(&reply)
    }
}

/// A client's connection, and the one to the broker that stands for it.
struct Link {
    client: TcpStream,
    broker: TcpStream,
    /// The request whose reply nobody is to hear.
    unanswered: Mutex<Option<i32>>,
}

impl Link {
    fn end(&self) {
        // They may be closed already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }
}

fn connect(client: TcpStream, broker: SocketAddr, state: &Arc<Mutex<State>>) -> Result<()> {
    let broker = TcpStream::connect(broker).context("connect to the broker")?;
    // A frame is one write, and nothing is to wait for the next.
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let link = Arc::new(Link { client, broker, unanswered: Mutex::default() });
    let directions: [fn(&Link, &Mutex<State>) -> Result<()>; 2] = [pass_requests, pass_replies];
    for pass in directions {
        let (link, state) = (link.clone(), state.clone());
        thread::spawn(move || {
            if let Err(error) = pass(&link, &state) {
                eprintln!("proxy: {error:#}");
            }
            link.end();
        });
    }
    Ok(())
}

fn pass_requests(link: &Link, state: &Mutex<State>) -> Result<()> {
    while let Some(frame) = read_frame(&link.client)? {
        let fate = lock(state).judge(&frame)?;
        match fate {
            Fate::Passes => {}
            // Before the broker can answer.
            Fate::PassesUnanswered(correlation) => *lock(&link.unanswered) = Some(correlation),
            Fate::Lost => return Ok(()),
        }
        (&link.broker).write_all(&frame)?;
    }
    Ok(())
}

fn pass_replies(link: &Link, state: &Mutex<State>) -> Result<()> {
    while let Some(frame) = read_frame(&link.broker)? {
        let correlation = i32::from_be_bytes(Fields::of(&frame).take()?);
        if *lock(&link.unanswered) == Some(correlation) {
            lock(state).lost = Some(Lost::Reply { code: code_of(&frame)? });
            return Ok(());
        }
        (&link.client).write_all(&frame)?;
    }
    Ok(())
}

/// What becomes of a request.
enum Fate {
    Passes,
    /// The reply to the request of this number is not passed on.
    PassesUnanswered(i32),
    Lost,
}

impl State {
    fn judge(&mut self, frame: &[u8]) -> Result<Fate> {
        let Some(end) = EndTxn::of(frame)? else { return Ok(Fate::Passes) };
        if self.cut_off.as_ref() == Some(&end.transactional_id) {
            return Ok(Fate::Lost);
        }
        let Some(loss) = self.armed.take_if(|_| end.commits) else { return Ok(Fate::Passes) };
        self.cut_off = Some(end.transactional_id);
        Ok(match loss {
            Loss::Reply => Fate::PassesUnanswered(end.correlation),
            Loss::Request => {
                self.lost = Some(Lost::Request { frame: frame.to_vec() });
                Fate::Lost
            }
        })
    }
}

/// A request to end a transaction.
struct EndTxn {
    correlation: i32,
    transactional_id: String,
    /// The other end is an abort.
    commits: bool,
}

impl EndTxn {
    /// `None`: it is a request of another kind.
    fn of(frame: &[u8]) -> Result<Option<Self>> {
        let mut fields = Fields::of(frame);
        if i16::from_be_bytes(fields.take()?) != END_TXN {
            return Ok(None);
        }
        let version = i16::from_be_bytes(fields.take()?);
        ensure!(version < END_TXN_COMPACT, "the client speaks version {version} of EndTxn, which this proxy cannot read");
        let correlation = i32::from_be_bytes(fields.take()?);
        let _client_id = fields.text()?;
        let transactional_id = fields.text()?;
        let _producer_id_and_epoch: [u8; 10] = fields.take()?;
        let committed: [u8; 1] = fields.take()?;
        Ok(Some(Self { correlation, transactional_id, commits: committed != [0] }))
    }
}

/// The error code in a reply to [`EndTxn`].
fn code_of(reply: &[u8]) -> Result<i16> {
    let mut fields = Fields::of(reply);
    let _correlation_and_throttle: [u8; 8] = fields.take()?;
    Ok(i16::from_be_bytes(fields.take()?))
}

/// What of a frame is not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(frame: &'a [u8]) -> Self {
        Self(&frame[LENGTH_BYTES..])
    }

    fn take<const BYTES: usize>(&mut self) -> Result<[u8; BYTES]> {
        let (taken, rest) = self.0.split_first_chunk::<BYTES>().context("a frame is too short")?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Empty where there is none, which has a length below zero.
    fn text(&mut self) -> Result<String> {
        let length = usize::try_from(i16::from_be_bytes(self.take()?)).unwrap_or(0);
        let (text, rest) = self.0.split_at_checked(length).context("a frame is too short")?;
        self.0 = rest;
        Ok(String::from_utf8(text.to_vec())?)
    }
}

/// The next frame, its length in front. `None`: the other side has closed the connection.
fn read_frame(mut stream: &TcpStream) -> Result<Option<Vec<u8>>> {
    let mut length = [0; LENGTH_BYTES];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let bytes = usize::try_from(i32::from_be_bytes(length))?;
    ensure!(bytes <= FRAME_BYTES_MAX, "a frame of {bytes} bytes: this is not Kafka's protocol");
    let mut frame = vec![0; LENGTH_BYTES + bytes];
    frame[..LENGTH_BYTES].copy_from_slice(&length);
    stream.read_exact(&mut frame[LENGTH_BYTES..])?;
    Ok(Some(frame))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
