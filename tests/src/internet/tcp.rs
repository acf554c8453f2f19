//! TCP servers for any port and address: TLS, HTTP and raw bytes, told apart by what comes
//! first.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    http,
    state::State,
    tls::{self, Tap},
};
use crate::{protocol::Sighting, token};

const PROTOCOL: u8 = 6;
/// Longer than any token: what is kept of one read to find a token that the next one ends.
const OVERLAP: usize = 64;

/// Serves a port on every address, IPv4 and IPv6.
pub(super) async fn listen(port: u16, state: Arc<State>) -> Result<()> {
    let listener = TcpListener::bind(("::", port))
        .await
        .with_context(|| format!("TCP port {port}"))?;
    tokio::spawn(async move {
        loop {
            let stream = accept(&listener).await;
            let state = state.clone();
            // A client that hangs up or sends rubbish ends only its own connection.
            tokio::spawn(async move { drop(serve(stream, &state).await) });
        }
    });
    Ok(())
}

/// The next connection. Errors are of one that is gone already, or of too many at once
/// (accept(2)): a server goes on.
pub(super) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // What is answered in two writes would wait for the client's delayed receipt.
                // It fails for connections that are gone.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Says the text on a connection this side opened, then listens for tokens.
pub(super) async fn dialled(mut stream: TcpStream, text: String, state: &State) {
    let Ok(from) = stream.local_addr() else {
        return;
    };
    if stream.write_all(text.as_bytes()).await.is_ok() {
        drop(raw(stream, &arrival("stream", from), state).await);
    }
}

async fn serve(stream: TcpStream, state: &Arc<State>) -> Result<()> {
    let to = stream.local_addr()?;
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let place = http::Place {
        to,
        peer: stream.peer_addr()?.ip().to_canonical(),
        sni: None,
    };
    let tap = Tap::new(stream, arrival("stream", to), state.clone())?;
    let mut first = [0; 1];
    if tap.peek(&mut first).await? == 0 {
        return Ok(());
    }
    if first[0] == tls::HANDSHAKE {
        return tls::serve(tap, place, state).await;
    }
    if first[0].is_ascii_uppercase() {
        return Ok(http::serve(tap, &place, &arrival("http", to), state).await?);
    }
    Ok(raw(tap, &arrival("stream", to), state).await?)
}

/// Reads to the end; each token is answered with `ok TOKEN`.
async fn raw<S>(mut stream: S, arrival: &Sighting, state: &State) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pending = Vec::new();
    let mut buffer = vec![0; 16384];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&buffer[..length]);
        state.scan(&pending, arrival);
        let found = token::find(&pending);
        for token in &found {
            stream.write_all(format!("ok {token}\n").as_bytes()).await?;
        }
        if !found.is_empty() {
            pending.clear();
        }
        pending.drain(..pending.len().saturating_sub(OVERLAP));
    }
}

fn arrival(how: &str, to: SocketAddr) -> Sighting {
    let to_ip = to.ip().to_canonical();
    Sighting {
        how: how.to_owned(),
        protocol: PROTOCOL,
        to: to_ip,
        port: to.port(),
    }
}
