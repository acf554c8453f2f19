//! TLS servers: every name of the zone behind every address, TLS 1.2 and 1.3, HTTP/1.1 and
//! HTTP/2, sessions that are resumed. They keep what arrived, byte for byte: what a client says
//! in the clear is what a confinement can look at.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use anyhow::Result;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    LazyConfigAcceptor,
    rustls::{HandshakeKind, ProtocolVersion, ServerConnection, server::Acceptor},
};

use super::{http, http2, state::State};
use crate::protocol::{Connection, Sighting};

/// First byte of a TLS handshake record (RFC 8446 section 5.1).
pub(super) const HANDSHAKE: u8 = 22;
/// What is kept of a connection: a whole flight of the largest hello there is.
const KEPT: usize = 20 << 10;
/// Longer than any token: what is kept of one read to find a token that the next one ends.
const OVERLAP: usize = 64;

/// A stream whose incoming bytes are counted, kept and searched for tokens.
pub(super) struct Tap {
    stream: TcpStream,
    connection: Arc<Mutex<Connection>>,
    arrival: Sighting,
    state: Arc<State>,
    tail: Vec<u8>,
}

impl Tap {
    pub(super) fn new(stream: TcpStream, arrival: Sighting, state: Arc<State>) -> Result<Self> {
        let connection = Arc::new(Mutex::new(Connection::new(
            stream.local_addr()?,
            stream.peer_addr()?,
        )));
        state.add_connection(connection.clone());
        Ok(Self {
            stream,
            connection,
            arrival,
            state,
            tail: Vec::new(),
        })
    }

    /// The first bytes, which stay to be read.
    pub(super) async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(bytes).await
    }

    fn note(&mut self, bytes: &[u8]) {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connection.received += bytes.len() as u64;
        let room = KEPT.saturating_sub(connection.first.len());
        connection
            .first
            .extend_from_slice(&bytes[..room.min(bytes.len())]);
        drop(connection);
        self.tail.extend_from_slice(bytes);
        self.state.scan(&self.tail, &self.arrival);
        self.tail.drain(..self.tail.len().saturating_sub(OVERLAP));
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let new = buffer.filled()[before..].to_vec();
        self.note(&new);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Shakes hands under the name that the client says, and answers HTTP. What follows a handshake
/// that failed is still read: it arrived.
pub(super) async fn serve(tap: Tap, place: http::Place, state: &Arc<State>) -> Result<()> {
    let connection = tap.connection.clone();
    let note = |change: &dyn Fn(&mut Connection)| {
        change(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let start = LazyConfigAcceptor::new(Acceptor::default(), tap);
    tokio::pin!(start);
    let start = match start.as_mut().await {
        Ok(start) => start,
        Err(error) => {
            note(&|connection| connection.fault = Some(error.to_string()));
            if let Some(rest) = start.take_io() {
                drain(rest).await;
            }
            return Ok(());
        }
    };
    let name = start.client_hello().server_name().map(str::to_owned);
    note(&|connection| connection.sni.clone_from(&name));
    let config = state.certificate(name.as_deref(), place.to.ip())?;
    let stream = match start.into_stream(config).into_fallible().await {
        Ok(stream) => stream,
        Err((error, rest)) => {
            note(&|connection| connection.fault = Some(error.to_string()));
            drain(rest).await;
            return Ok(());
        }
    };
    let session = stream.get_ref().1;
    note(&|connection| agreed(connection, session));
    let arrival = Sighting {
        how: "tls".to_owned(),
        ..stream.get_ref().0.arrival.clone()
    };
    let second = session.alpn_protocol() == Some(b"h2");
    let place = http::Place { sni: name, ..place };
    if second {
        return http2::serve(stream, place, arrival, state.clone()).await;
    }
    Ok(http::serve(stream, &place, &arrival, state).await?)
}

/// Notes what the two sides agreed on.
fn agreed(connection: &mut Connection, session: &ServerConnection) {
    connection.version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "",
    }
    .to_owned();
    let alpn = session.alpn_protocol().unwrap_or_default();
    connection.alpn = String::from_utf8_lossy(alpn).into_owned();
    let kind = session.handshake_kind();
    connection.resumed = kind == Some(HandshakeKind::Resumed);
    connection.retried = kind == Some(HandshakeKind::FullWithHelloRetryRequest);
}

async fn drain(mut rest: Tap) {
    let mut buffer = vec![0; 16384];
    while let Ok(1..) = rest.read(&mut buffer).await {}
}
