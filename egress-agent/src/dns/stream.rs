//! DNS over TCP: framed, pipelined, bounded. RFC 7766.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use egress_common::abi::TCP;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    names::Names,
    server::{Client, Step, framing_lost, receive, respond},
    wire::MAX_QUERY,
};

/// Connections of one listener at once; more wait in the kernel.
const MAX_CONNECTIONS: usize = 64;
/// Queries of one connection under way at once; more wait in the socket.
const MAX_PIPELINED: usize = 16;
/// A connection without a whole query for this long is closed. RFC 7766 section 6.2.3.
const IDLE: Duration = Duration::from_secs(10);

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener, names: Arc<Names>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        // Finished tasks are taken out here; they hold nothing but their place.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, address)) => {
                let names = Arc::clone(&names);
                connections.spawn(async move {
                    let _place = place;
                    // A connection that breaks concerns its client alone.
                    drop(converse(stream, address, &names).await);
                });
            }
            // Out of descriptors, or the client was gone first: neither ends the listener.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection: every query has its own verdict, answers go out as they come.
async fn converse(
    mut stream: TcpStream,
    address: SocketAddr,
    names: &Arc<Names>,
) -> io::Result<()> {
    let client = Client {
        address,
        protocol: TCP,
    };
    stream.set_nodelay(true)?;
    let mut inbox = Inbox::default();
    let mut pending = JoinSet::new();
    let mut deadline = Instant::now() + IDLE;
    loop {
        while pending.len() < MAX_PIPELINED {
            let message = match inbox.next() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    framing_lost(names, client);
                    return Err(error);
                }
            };
            deadline = Instant::now() + IDLE;
            match receive(names, &message, client) {
                Step::Reply(Some(bytes)) => send(&mut stream, &bytes).await?,
                // An answer, or less than a header: not a resolver at the other end.
                Step::Reply(None) => return Err(io::ErrorKind::InvalidData.into()),
                Step::Ask(ask) => {
                    let names = Arc::clone(names);
                    pending.spawn(async move { respond(&names, ask).await });
                }
            }
        }
        let room = pending.len() < MAX_PIPELINED && !inbox.closed;
        if inbox.closed && pending.is_empty() {
            return Ok(());
        }
        tokio::select! {
            read = inbox.fill(&mut stream), if room => read?,
            Some(done) = pending.join_next() => {
                let bytes = done.map_err(io::Error::other)?;
                send(&mut stream, &bytes).await?;
                deadline = Instant::now() + IDLE;
            }
            () = sleep_until(deadline), if pending.is_empty() => return Ok(()),
        }
    }
}

/// Bytes received and not yet read as messages.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// The client sends no more.
    closed: bool,
}

impl Inbox {
    /// The next whole message. A length no query has ends the connection: what follows it
    /// cannot be told from the rest of that message.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_QUERY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let message = message.to_vec();
        self.bytes.drain(..length + 2);
        Ok(Some(message))
    }

    /// Reads what there is. Safe to cancel: nothing is taken from the socket before it is
    /// ready. `next` empties the buffer between reads, so it holds at most one message and
    /// what came with its end.
    async fn fill(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let mut chunk = [0; MAX_QUERY + 2];
        let count = stream.read(&mut chunk).await?;
        self.closed = count == 0;
        self.bytes
            .extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
    }
}

/// Sends a message with its length before it, in one write.
async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    // A client that does not read its answers loses the connection.
    timeout(IDLE, stream.write_all(&framed)).await?
}
