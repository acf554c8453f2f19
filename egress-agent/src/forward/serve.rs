//! The forwarder's work: for each connection a `CONNECT`, and then bytes both ways.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
        copy_bidirectional_with_sizes,
    },
    net::{TcpStream, unix::pipe},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    head::{self, Head, MAX_HEAD},
    spec::{Order, Said, Why},
};

/// Connections at a time; more wait in the listener.
const MAX_FLOWS: usize = 1_024;
/// How long one address of the proxy may take to accept a connection.
const ACCEPT_WITHIN: Duration = Duration::from_secs(10);
/// How long the proxy may take to open the way, which has a connection of its own to make.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What is in flight in one direction. Bytes.
const BUFFER: usize = 16 * 1024;
/// Lines that may wait for the agent.
const LINES: usize = 256;

/// What the forwarder has at its start.
pub(super) struct Forwarding {
    listener: tokio::net::TcpListener,
    commands: pipe::Receiver,
    answers: pipe::Sender,
    authorization: Option<String>,
}

/// What it is told while it runs.
#[derive(Default)]
struct Known {
    names: HashMap<Ipv4Addr, String>,
    proxies: Vec<SocketAddr>,
}

/// What every connection needs.
struct Shared {
    known: Mutex<Known>,
    authorization: Option<String>,
    lost: mpsc::Sender<Said>,
}

impl Forwarding {
    /// Must be called inside a tokio runtime; everything is opened here, and nothing after.
    pub(super) fn new(
        listener: TcpListener,
        commands: File,
        answers: File,
        authorization: Option<String>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: tokio::net::TcpListener::from_std(listener)?,
            commands: pipe::Receiver::from_file(commands)?,
            answers: pipe::Sender::from_file(answers)?,
            authorization,
        })
    }
}

/// Says that it is ready, and serves until the agent is gone.
pub(super) async fn serve(forwarding: Forwarding) {
    let Forwarding {
        listener,
        commands,
        answers,
        authorization,
    } = forwarding;
    let (lines, written) = mpsc::channel(LINES);
    let shared = Arc::new(Shared {
        known: Mutex::default(),
        authorization,
        lost: lines.clone(),
    });
    // There is room for it.
    let _gone_then = lines.send(Said::Ready).await;
    tokio::select! {
        () = hear(commands, &shared, lines) => {}
        () = write(answers, written) => {}
        () = accept(listener, &shared) => {}
    }
}

/// Takes orders until there are no more.
async fn hear(commands: pipe::Receiver, shared: &Shared, learned: mpsc::Sender<Said>) {
    let mut lines = BufReader::new(commands).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(order) = serde_json::from_str(&line) else {
            return;
        };
        match order {
            Order::Learn { address, name } => {
                shared.known().names.insert(address, name);
                if learned.send(Said::Learned).await.is_err() {
                    return;
                }
            }
            Order::Proxy(proxies) => shared.known().proxies = proxies,
        }
    }
}

async fn write(mut answers: pipe::Sender, mut lines: mpsc::Receiver<Said>) {
    while let Some(said) = lines.recv().await {
        let Ok(mut line) = serde_json::to_vec(&said) else {
            return;
        };
        line.push(b'\n');
        if answers.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, shared: &Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_FLOWS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let shared = Arc::clone(shared);
                tokio::spawn(async move {
                    carry(client, &shared).await;
                    drop(permit);
                });
            }
            // No descriptor or memory is left, or the client has gone already.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection from beginning to end.
async fn carry(mut client: TcpStream, shared: &Shared) {
    let Some((address, port, name)) = shared.asked(&client) else {
        return end(&client);
    };
    let mut proxy = match opened(&name, port, shared).await {
        Ok((proxy, first)) => {
            if client.write_all(&first).await.is_err() {
                return end(&proxy);
            }
            proxy
        }
        Err(why) => {
            end(&client);
            // An agent that does not listen loses lines, not connections.
            let _not_told = shared.lost.try_send(Said::Lost { address, port, why });
            return;
        }
    };
    plain(&client);
    plain(&proxy);
    // Each direction ends by itself; what one side does not take, the other is not asked for.
    let carried = copy_bidirectional_with_sizes(&mut client, &mut proxy, BUFFER, BUFFER).await;
    if carried.is_err() {
        // A broken end must not look like a proper one on the other side.
        end(&client);
        end(&proxy);
    }
}

/// A connection on which the proxy has opened the way, and what came behind its answer.
async fn opened(name: &str, port: u16, shared: &Shared) -> Result<(TcpStream, Vec<u8>), Why> {
    let proxies = shared.known().proxies.clone();
    let mut proxy = reach(&proxies).await?;
    let authorization = shared.authorization.as_ref();
    let authorization = authorization
        .map(|value| format!("Proxy-Authorization: {value}\r\n"))
        .unwrap_or_default();
    let request =
        format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n{authorization}\r\n");
    match timeout(ANSWER_WITHIN, ask(&mut proxy, request.as_bytes())).await {
        Ok(Ok(first)) => Ok((proxy, first)),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(Why::Silent),
    }
}

/// Tries the proxy's addresses in order.
async fn reach(proxies: &[SocketAddr]) -> Result<TcpStream, Why> {
    let mut why = Why::Nowhere;
    for address in proxies {
        why = match timeout(ACCEPT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(proxy)) => return Ok(proxy),
            Ok(Err(error)) => Why::Unreachable(error.to_string()),
            Err(_) => Why::Unreachable("no answer in time".to_owned()),
        };
    }
    Err(why)
}

/// Sends the request and reads the answer's head. Answers what came behind it.
async fn ask(proxy: &mut TcpStream, request: &[u8]) -> Result<Vec<u8>, Why> {
    proxy.write_all(request).await.map_err(|_| Why::Silent)?;
    let mut bytes = Vec::with_capacity(1_024);
    loop {
        let room = MAX_HEAD.saturating_sub(bytes.len());
        let limited = u64::try_from(room).unwrap_or(0);
        let read = (&mut *proxy).take(limited).read_buf(&mut bytes).await;
        if !matches!(read, Ok(1..)) {
            return Err(Why::Silent);
        }
        while let Head::Whole { status, len, .. } = head::read(&bytes)
            && (100..200).contains(&status)
        {
            // An interim answer (RFC 9110 section 15.2).
            bytes.drain(..len);
        }
        match head::read(&bytes) {
            Head::More => {}
            Head::Bad if !bytes.is_empty() => return Err(Why::Garbled),
            Head::Bad => {}
            Head::Whole {
                status: 200..=299,
                len,
                ..
            } => return Ok(bytes.split_off(len)),
            Head::Whole { status, reason, .. } => {
                return Err(Why::Status {
                    code: status,
                    reason,
                });
            }
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was called: the address, the port, and the name that the address stands for.
    fn asked(&self, client: &TcpStream) -> Option<(Ipv4Addr, u16, String)> {
        let called = client.local_addr().ok()?;
        let IpAddr::V4(address) = called.ip() else {
            return None;
        };
        let name = self.known().names.get(&address).cloned()?;
        Some((address, called.port(), name))
    }
}

/// Ends a connection with a reset: what was to be carried was not.
fn end(stream: &TcpStream) {
    // Without it the connection ends all the same, as it does when it is dropped.
    let _ends_anyway = stream.set_zero_linger();
}

/// As a connection without anybody in between: nothing is held back to be sent together, and a peer
/// that is gone is noticed.
fn plain(stream: &TcpStream) {
    let set = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        Ok(setsockopt(stream, sockopt::KeepAlive, &true)?)
    };
    // Slower, or noticed later; nothing else.
    let _carried_anyway = set();
}
