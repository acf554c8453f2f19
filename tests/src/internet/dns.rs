//! The DNS servers: UDP and TCP on one address each.

use std::{net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record as Answer, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, SRV, SVCB, TXT,
            svcb::{IpHint, SvcParamKey, SvcParamValue},
        },
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::{state::State, tcp::accept};
use crate::{
    protocol::{Behaviour, Query, Record, Sighting},
    zone,
};

const ALIASES: usize = 64;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Binds both sockets, then serves in the background.
pub(super) async fn serve(server: IpAddr, state: Arc<State>) -> Result<()> {
    let udp = UdpSocket::bind((server, 53))
        .await
        .with_context(|| format!("DNS over UDP at {server}"))?;
    let tcp = TcpListener::bind((server, 53))
        .await
        .with_context(|| format!("DNS over TCP at {server}"))?;
    tokio::spawn(serve_udp(Arc::new(udp), server, state.clone()));
    tokio::spawn(async move {
        loop {
            let stream = accept(&tcp).await;
            let state = state.clone();
            // A client that hangs up or sends rubbish ends only its own connection.
            tokio::spawn(async move { drop(serve_tcp(stream, server, &state).await) });
        }
    });
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, server: IpAddr, state: Arc<State>) {
    let mut buffer = vec![0; 65536];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let question = buffer[..length].to_vec();
        let (socket, state) = (socket.clone(), state.clone());
        tokio::spawn(async move {
            let answer = answer(&question, server, false, &state).await;
            for lie in lies(&question, &state) {
                drop(socket.send_to(&lie, from).await);
            }
            if let Some(answer) = answer {
                drop(socket.send_to(&answer, from).await);
            }
        });
    }
}

async fn serve_tcp(mut stream: TcpStream, server: IpAddr, state: &State) -> Result<()> {
    loop {
        let length = usize::from(stream.read_u16().await?);
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        if let Some(answer) = answer(&question, server, true, state).await {
            stream.write_u16(u16::try_from(answer.len())?).await?;
            stream.write_all(&answer).await?;
        }
    }
}

/// The answer to one message; `None` where the server stays silent.
async fn answer(question: &[u8], server: IpAddr, tcp: bool, state: &State) -> Option<Vec<u8>> {
    let protocol = if tcp { TCP } else { UDP };
    let sighting = Sighting {
        how: "dns".to_owned(),
        protocol,
        to: server,
        port: 53,
    };
    state.scan(question, &sighting);
    let request = Message::from_vec(question).ok()?;
    let query = request.queries.first()?.clone();
    let asked = query.name().to_utf8();
    let name = asked.trim_end_matches('.').to_owned();
    let kind = query.query_type().to_string();
    state.add_query(Query {
        name: name.clone(),
        kind: kind.clone(),
        server,
        tcp,
    });

    let mut reply = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    let Some(record) = state.record(&name, &kind) else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return reply.to_vec().ok();
    };
    match record.behaviour {
        Behaviour::Dead | Behaviour::Lie => return None,
        Behaviour::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Behaviour::Truncated if !tcp => {
            reply.metadata.truncation = true;
            return reply.to_vec().ok();
        }
        Behaviour::Code(code) => {
            reply.metadata.response_code = ResponseCode::from_low(code);
            return reply.to_vec().ok();
        }
        Behaviour::Normal | Behaviour::Flip | Behaviour::Truncated => {}
    }
    let mut owner = query.name().clone();
    let mut record = Some(record);
    for _ in 0..ALIASES {
        let Some(current) = record else { break };
        if let Some(target) = &current.cname {
            let target = Name::from_str(&format!("{target}.")).ok()?;
            let alias = RData::CNAME(CNAME(target.clone()));
            reply.add_answer(Answer::from_rdata(owner, current.ttl, alias));
            record = state.record(target.to_utf8().trim_end_matches('.'), &kind);
            owner = target;
            continue;
        }
        for data in data(&current, query.query_type()) {
            reply.add_answer(Answer::from_rdata(owner.clone(), current.ttl, data));
        }
        break;
    }
    reply.to_vec().ok()
}

/// What a forger sends for a name that is lied about.
fn lies(question: &[u8], state: &State) -> Vec<Vec<u8>> {
    let forged = || {
        let request = Message::from_vec(question).ok()?;
        let query = request.queries.first()?.clone();
        let name = query.name().to_utf8();
        if !state.is_lied_about(name.trim_end_matches('.')) {
            return None;
        }
        let data = || match query.query_type() {
            RecordType::AAAA => RData::AAAA(AAAA(zone::STRANGER6)),
            _ => RData::A(A(zone::STRANGER)),
        };
        let other = Name::from_str("giftshop.club.").ok()?;
        let message = |id: u16, asked: Question, owner: &Name| {
            let mut reply = Message::new(id, MessageType::Response, OpCode::Query);
            reply.metadata.recursion_available = true;
            reply.add_query(asked);
            reply.add_answer(Answer::from_rdata(owner.clone(), 60, data()));
            reply.to_vec().ok()
        };
        let id = request.metadata.id;
        let elsewhere = Question::query(other.clone(), query.query_type());
        Some(vec![
            message(id.wrapping_add(1), query.clone(), query.name())?,
            message(id, elsewhere, &other)?,
            message(id, query.clone(), &other)?,
        ])
    };
    forged().unwrap_or_default()
}

fn data(record: &Record, kind: RecordType) -> Vec<RData> {
    match kind {
        RecordType::A => record.a.iter().map(|a| RData::A(A(*a))).collect(),
        RecordType::AAAA => record.aaaa.iter().map(|a| RData::AAAA(AAAA(*a))).collect(),
        RecordType::TXT => {
            let text = |text: &String| RData::TXT(TXT::new(vec![text.clone()]));
            record.txt.iter().map(text).collect()
        }
        RecordType::SRV => {
            let named = |(port, target): &(u16, String)| {
                let target = Name::from_str(&format!("{target}.")).ok()?;
                Some(RData::SRV(SRV::new(0, 0, *port, target)))
            };
            record.srv.iter().filter_map(named).collect()
        }
        RecordType::HTTPS => record
            .https_hint
            .map(|hint| {
                let hint = SvcParamValue::Ipv4Hint(IpHint(vec![A(hint)]));
                let parameters = vec![(SvcParamKey::Ipv4Hint, hint)];
                RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), parameters)))
            })
            .into_iter()
            .collect(),
        _ => Vec::new(),
    }
}
