//! The servers of the embedded internet. They run in a network namespace of their own and are
//! driven over standard input and output, see [`crate::protocol`].

mod dns;
mod git;
mod http;
mod http2;
mod proxy;
mod sniff;
mod state;
mod tcp;
mod tls;

use std::{
    io::{BufRead, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::net::{TcpSocket, UdpSocket};

use crate::protocol::{Config, Reply, Request};
use state::State;

const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Calls at once, more than a listener without room has room for; and how long each waits.
const KNOCKS: usize = 12;
const KNOCK_LIMIT: Duration = Duration::from_secs(1);

/// Serves until standard input ends. Errors: a config that cannot be read, an address that
/// cannot be bound.
pub fn serve() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let first = lines.next().context("no config on standard input")??;
    let config: Config = serde_json::from_str(&first).context("config")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let state = Arc::new(State::new(config.zone.clone())?);
    let sniffer = sniff::start(&config.interface, state.clone())?;
    runtime.block_on(start(&config, &state))?;
    answer(&Reply::Ready(state.authority_pem().to_owned()))?;
    for line in lines {
        let request: Request = serde_json::from_str(&line?).context("request")?;
        state.add_missed(sniffer.dropped()?);
        let reply = runtime
            .block_on(carry_out(request, &state))
            .unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
        answer(&reply)?;
    }
    Ok(())
}

fn answer(reply: &Reply) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

async fn start(config: &Config, state: &Arc<State>) -> Result<()> {
    for server in &config.dns {
        dns::serve(*server, state.clone()).await?;
    }
    for port in &config.tcp {
        tcp::listen(*port, state.clone()).await?;
    }
    for address in &config.udp {
        echo(*address).await?;
    }
    Ok(())
}

async fn carry_out(request: Request, state: &Arc<State>) -> Result<Reply> {
    Ok(match request {
        Request::Token(token) => Reply::Sightings(state.sightings(&token)),
        Request::Packets(ip) => Reply::Flows(state.flows(ip)),
        Request::Queries => Reply::Queries(state.queries()),
        Request::Requests => Reply::Requests(state.requests()),
        Request::Connections(ip) => Reply::Connections(state.connections(ip)),
        Request::Missed => Reply::Missed(state.missed()),
        Request::Set(record) => {
            state.set(record);
            Reply::Done
        }
        Request::Remove(name) => {
            state.remove(&name);
            Reply::Done
        }
        Request::Repositories(folder) => {
            state.set_repositories(folder);
            Reply::Done
        }
        Request::ListenTcp(port) => {
            tcp::listen(port, state.clone()).await?;
            Reply::Done
        }
        Request::Proxy(settings) => {
            proxy::listen(settings, state.clone()).await?;
            Reply::Done
        }
        Request::Proxied => Reply::Proxied(state.all_proxied()),
        Request::ListenUdp(address) => {
            echo(address).await?;
            Reply::Done
        }
        Request::Dial { from, to, text } => {
            let socket = caller(from)?;
            let stream = tokio::time::timeout(DIAL_LIMIT, socket.connect(to)).await??;
            let state = state.clone();
            tokio::spawn(async move { tcp::dialled(stream, text, &state).await });
            Reply::Done
        }
        Request::Knock { from, to } => {
            for _ in 0..KNOCKS {
                let call = caller(from)?.connect(to);
                // Whether somebody is there is seen from what arrives.
                tokio::spawn(tokio::time::timeout(KNOCK_LIMIT, call));
            }
            Reply::Done
        }
        Request::Poke { from, to, text } => {
            let socket = UdpSocket::bind(from).await?;
            socket.send_to(text.as_bytes(), to).await?;
            Reply::Done
        }
    })
}

/// A socket that calls from an address.
fn caller(from: IpAddr) -> Result<TcpSocket> {
    let socket = match from {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(from, 0))?;
    Ok(socket)
}

async fn echo(address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address)
        .await
        .with_context(|| format!("UDP {address}"))?;
    tokio::spawn(async move {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // A lost echo is a lost datagram: the sender decides what that means.
            drop(socket.send_to(&buffer[..length], from).await);
        }
    });
    Ok(())
}
