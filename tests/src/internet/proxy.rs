//! A company's proxy: `CONNECT`, names of its own knowledge, and whatever it has the mood to answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::{state::State, tcp};
use crate::protocol::{Answer, Proxied, Proxy};

/// Longest request. Bytes.
const MAX_REQUEST: usize = 8_192;

/// Serves at an address until the end; asked again for one, it answers differently from then on.
pub(super) async fn listen(proxy: Proxy, state: Arc<State>) -> Result<()> {
    let at = proxy.at;
    if !state.set_proxy(proxy) {
        return Ok(());
    }
    let listener = TcpListener::bind(at)
        .await
        .with_context(|| format!("the proxy at {at}"))?;
    tokio::spawn(async move {
        loop {
            let stream = tcp::accept(&listener).await;
            let state = state.clone();
            // A client that hangs up or sends rubbish ends only its own connection.
            tokio::spawn(async move { drop(serve(stream, at, &state).await) });
        }
    });
    Ok(())
}

async fn serve(mut client: TcpStream, at: SocketAddr, state: &State) -> Result<()> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") && bytes.len() < MAX_REQUEST {
        // One at a time: what comes behind the request is the tunnel's.
        bytes.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let authorization = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"))
        .map(|(_, value)| value.to_owned());
    let from = client.peer_addr()?.ip();
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let known = state.proxied(
        at,
        Proxied {
            line,
            authorization: authorization.clone(),
            from,
        },
    );
    let Some(proxy) = known else {
        return Ok(());
    };
    if let Some(wanted) = &proxy.wants
        && authorization.as_ref() != Some(wanted)
    {
        client
            .write_all(b"HTTP/1.1 407 Who Are You\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
            .await?;
        return Ok(());
    }
    match proxy.answer {
        Answer::Opens => {}
        Answer::Says(text) => {
            client.write_all(text.as_bytes()).await?;
            // What it does not read would end the connection before that is read.
            drop(tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await);
            return Ok(());
        }
        Answer::After(wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
    }
    let (name, port) = target.rsplit_once(':').context("no port")?;
    let record = state.record(name, "A");
    let address = record.and_then(|record| record.a.first().copied());
    let Some(address) = address else {
        client
            .write_all(b"HTTP/1.1 503 No Such Host\r\n\r\n")
            .await?;
        return Ok(());
    };
    let mut server = TcpStream::connect((address, port.parse()?)).await?;
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        .await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
