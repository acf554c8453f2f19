//! The door: UDP and TCP listeners on loopback that answer one connector.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use egress_common::{
    abi::{TCP, UDP},
    verdict::Reason,
};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    task::JoinSet,
};

use super::{
    answer::{self, Code, Record},
    cache::{Kept, Upkeep},
    lookup::{Asker, Awaited, Begun, wait},
    names::{Names, ResolveError, Resolved, TABLE_FULL},
    offer::{Offered, advice, record},
    report::Refusal,
    stream,
    verdict::{Denial, Verdict, Wanted, audited, judge, over_budget},
    wire::{self, Echo, Fault, Malformed, Query},
};
use crate::{
    host::switch::{self, Part},
    policy::{model::Policy, name::Name},
};

/// Ports tried before binding gives up.
const BIND_TRIES: usize = 64;

/// Sockets of a door, bound but not yet served: its port is known before the data plane is
/// told, and queries wait in the sockets meanwhile.
#[derive(Debug)]
pub struct Door {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Door {
    /// Binds a port that is free for UDP and TCP on 127.0.0.1 and, where the host has ::1, on
    /// ::1 as well.
    pub fn bind() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..BIND_TRIES {
            match Self::try_bind() {
                Ok(door) => return Ok(door),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// A door from sockets that the caller bound, for example to adopt those of an earlier
    /// agent. The addresses are those of the UDP sockets.
    pub fn from_sockets(udp: Vec<UdpSocket>, tcp: Vec<TcpListener>) -> io::Result<Self> {
        let addresses = udp
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<io::Result<Vec<_>>>()?;
        for socket in &udp {
            socket.set_nonblocking(true)?;
        }
        for socket in &tcp {
            socket.set_nonblocking(true)?;
        }
        Ok(Self {
            udp,
            tcp,
            addresses,
        })
    }

    /// The addresses bound, 127.0.0.1 first; every one serves UDP and TCP.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The port, the same on every address; 0 for a door without sockets.
    pub fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    /// Closes the sockets to everybody but those whom `admit` lets in from then on. Whoever
    /// was quicker is sent away.
    pub fn admit(&self, mut admit: impl FnMut(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<()> {
        for socket in &self.udp {
            admit(socket.as_fd())?;
            while until_empty(socket.recv(&mut []))?.is_some() {}
        }
        for socket in &self.tcp {
            admit(socket.as_fd())?;
            while until_empty(socket.accept())?.is_some() {}
        }
        Ok(())
    }

    /// Answers queries until `shutdown` becomes true or its sender is gone. Needs a tokio
    /// runtime with time and I/O. An error means that a socket failed: the connector then
    /// resolves nothing more.
    pub async fn serve(self, names: Arc<Names>, shutdown: watch::Receiver<bool>) -> io::Result<()> {
        let mut listeners: JoinSet<io::Result<()>> = JoinSet::new();
        for socket in self.udp {
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            listeners.spawn(serve_udp(Arc::new(socket), Arc::clone(&names)));
        }
        for listener in self.tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            listeners.spawn(stream::serve(listener, Arc::clone(&names)));
        }
        // Leaving this function drops the set, and with it every task below.
        tokio::select! {
            () = ended(shutdown) => Ok(()),
            Some(result) = listeners.join_next() => match result {
                Ok(result) => result,
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }

    fn try_bind() -> io::Result<Self> {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = v4.local_addr()?.port();
        let mut udp = vec![UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?];
        let mut tcp = vec![v4];
        let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
        match UdpSocket::bind(v6) {
            Ok(socket) => {
                udp.push(socket);
                tcp.push(TcpListener::bind(v6)?);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // No IPv6, or no ::1: then there is nothing to serve there.
            Err(_) => {}
        }
        Self::from_sockets(udp, tcp)
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    /// IP protocol number.
    pub(super) protocol: u8,
}

/// What to do with a message: send this now, or wait for an answer.
pub(super) enum Step {
    /// Send this; `None`: nothing.
    Reply(Option<Vec<u8>>),
    /// Ask upstream first.
    Ask(Ask),
}

/// A query on its way upstream.
pub(super) struct Ask {
    query: Query,
    client: Client,
    plan: Plan,
    awaited: Awaited,
    _permit: OwnedSemaphorePermit,
}

enum Plan {
    Granted,
    Audited(Denial),
}

/// Decides a message without waiting for anything.
pub(super) fn receive(names: &Names, bytes: &[u8], client: Client) -> Step {
    let query = match wire::read(bytes) {
        Ok(query) => query,
        Err(malformed) => return Step::Reply(turn_away(names, malformed, client)),
    };
    let current = names.current();
    let policy = &current.policy;
    match judge(policy, &query.name, query.kind) {
        Verdict::Empty => never_given(names, policy, &query, advice(query.kind), client),
        Verdict::Refuse(denial) => refuse(names, policy, query, (denial, Code::Refused), client),
        Verdict::Resolve {
            wanted: Wanted::Services,
            ..
        } if names
            .carrier(policy, &query.name, Wanted::Services)
            .is_some() =>
        {
            let why = "the proxy alone resolves names, and it tells no services";
            never_given(names, policy, &query, Some(why), client)
        }
        Verdict::Resolve {
            wanted,
            rule,
            wildcard,
        } => {
            let rate = policy.allow.get(rule).map(|rule| rule.lookups_per_minute);
            let budget = rate.filter(|_| wildcard);
            let budget = budget.map(|rate| (current.holder.slot(rule), rate));
            let asker = Asker::connector(wanted, budget);
            match names.begin(&query.name, wanted, asker) {
                Begun::OverBudget => {
                    // What comes back later: REFUSED would make clients give up.
                    let denial = (over_budget(policy, rule), Code::ServFail);
                    refuse(names, policy, query, denial, client)
                }
                begun => go_on(names, query, client, Plan::Granted, begun),
            }
        }
    }
}

/// Records that nobody is given, of a permitted name: an empty answer, and a line.
fn never_given(
    names: &Names,
    policy: &Policy,
    query: &Query,
    message: Option<&str>,
    client: Client,
) -> Step {
    // Clients ask for these by the way and go on without (RFC 9460 section 3).
    if !matches!(query.kind, wire::SVCB | wire::HTTPS) {
        let denial = Denial {
            message: message.map(str::to_owned),
            ..Denial::because(Reason::RecordType)
        };
        report(names, shown(query), denial, client, audited(policy));
    }
    reply(&query.echo, Code::NoError, client)
}

/// Reports a TCP message of a length that no query has.
pub(super) fn framing_lost(names: &Names, client: Client) {
    let malformed = Malformed {
        reply: None,
        fault: Fault::Long,
        shown: String::new(),
        kind: None,
    };
    drop(turn_away(names, malformed, client));
}

/// Waits for what the upstream says, grants, and only then writes the answer.
pub(super) async fn respond(names: &Names, ask: Ask) -> Vec<u8> {
    let Ask {
        query,
        client,
        plan,
        awaited,
        _permit,
    } = ask;
    let kept = wait(awaited).await.unwrap_or_else(|error| Kept {
        answer: Err(error),
        came_ns: (names.now_ns)(),
    });
    settle(names, &query, client, plan, &kept)
}

fn settle(names: &Names, query: &Query, client: Client, plan: Plan, kept: &Kept) -> Vec<u8> {
    if Wanted::of(query.kind) == Some(Wanted::Services) {
        return offer(names, query, client, plan, kept);
    }
    let result = match plan {
        Plan::Granted => names.settle(&query.name, kept),
        Plan::Audited(denial) => names.settle_unchecked(&query.name, kept, denial),
    };
    let limit = limit(&query.echo, client);
    match result {
        Ok(Resolved {
            addresses,
            ttl,
            would_deny,
            left_out,
            ..
        }) => {
            if let Some(denial) = would_deny {
                report(names, shown(query), denial, client, true);
            }
            if let Some(denial) = left_out.filter(|denial| names.is_news(&query.name, denial)) {
                let audited = audited(&names.current().policy);
                report(names, shown(query), denial, client, audited);
            }
            let records: Vec<Record> = addresses.into_iter().map(Record::Address).collect();
            answer::write(&query.echo, Code::NoError, &records, ttl, limit)
        }
        Err(error) => {
            let code = failure(names, query, error, client);
            answer::write(&query.echo, code, &[], 0, limit)
        }
    }
}

/// The answer to a question for services.
fn offer(names: &Names, query: &Query, client: Client, plan: Plan, kept: &Kept) -> Vec<u8> {
    let result = match plan {
        Plan::Granted => names.offer(&query.name, kept),
        Plan::Audited(denial) => names.offer_unchecked(kept, denial),
    };
    let limit = limit(&query.echo, client);
    match result {
        Ok(Offered {
            services,
            ttl,
            left_out,
        }) => {
            if let Some(denial) = left_out {
                let audited = audited(&names.current().policy);
                report(names, shown(query), denial, client, audited);
            }
            let records: Vec<Record> = services.into_iter().filter_map(record).collect();
            answer::write(&query.echo, Code::NoError, &records, ttl, limit)
        }
        Err(error) => {
            let code = failure(names, query, error, client);
            answer::write(&query.echo, code, &[], 0, limit)
        }
    }
}

/// The code for a query without addresses; reports it where the policy is the cause.
fn failure(names: &Names, query: &Query, error: ResolveError, client: Client) -> Code {
    let denial = match error {
        ResolveError::NoData => return Code::NoError,
        ResolveError::NxDomain => return Code::NxDomain,
        ResolveError::Upstream(_) => {
            names.stats.count_failed();
            return Code::ServFail;
        }
        ResolveError::Denied(denial) => denial,
        ResolveError::Table(_) => TABLE_FULL,
    };
    let code = match denial.reason {
        Reason::TableFull => Code::ServFail,
        // The name became closed while it was looked up, or its addresses are.
        Reason::NameNotAllowed => Code::Refused,
        _ => Code::Withheld,
    };
    report(names, shown(query), denial, client, false);
    code
}

/// A name outside the policy: refused, or resolved and reported where it is only audited.
fn refuse(
    names: &Names,
    policy: &Policy,
    query: Query,
    (denial, code): (Denial, Code),
    client: Client,
) -> Step {
    if !audited(policy) && !switch::is_off(Part::Door) {
        report(names, shown(&query), denial, client, false);
        return reply(&query.echo, code, client);
    }
    match Wanted::of(query.kind) {
        Some(wanted) => {
            let free = Asker::Connector(Upkeep::Asked, None);
            let begun = names.begin(&query.name, wanted, free);
            go_on(names, query, client, Plan::Audited(denial), begun)
        }
        None => {
            report(names, shown(&query), denial, client, true);
            reply(&query.echo, Code::NoError, client)
        }
    }
}

fn go_on(names: &Names, query: Query, client: Client, plan: Plan, begun: Begun) -> Step {
    let awaited = match begun {
        Begun::Kept(kept) => {
            return Step::Reply(Some(settle(names, &query, client, plan, &kept)));
        }
        Begun::Awaited(awaited) => awaited,
        Begun::OverBudget => return reply(&query.echo, Code::ServFail, client),
    };
    match Arc::clone(&names.questions).try_acquire_owned() {
        Ok(permit) => Step::Ask(Ask {
            query,
            client,
            plan,
            awaited,
            _permit: permit,
        }),
        Err(_) => reply(&query.echo, Code::ServFail, client),
    }
}

fn turn_away(names: &Names, malformed: Malformed, client: Client) -> Option<Vec<u8>> {
    let kind = malformed.kind.map(wire::kind_name).unwrap_or_default();
    let denial = Denial::because(Reason::NameMalformed);
    report(names, (malformed.shown, kind), denial, client, false);
    let (echo, code) = malformed.reply?;
    Some(answer::write(&echo, code, &[], 0, limit(&echo, client)))
}

fn reply(echo: &Echo, code: Code, client: Client) -> Step {
    Step::Reply(Some(answer::write(echo, code, &[], 0, limit(echo, client))))
}

fn limit(echo: &Echo, client: Client) -> usize {
    if client.protocol == TCP {
        usize::from(u16::MAX)
    } else {
        echo.udp_limit()
    }
}

fn shown(query: &Query) -> (String, String) {
    let name: &Name = &query.name;
    (name.as_str().to_owned(), wire::kind_name(query.kind))
}

fn report(
    names: &Names,
    (name, qtype): (String, String),
    denial: Denial,
    client: Client,
    audited: bool,
) {
    let refusal = Refusal {
        time_ns: (names.now_ns)(),
        name,
        qtype,
        reason: denial.reason,
        rule: denial.rule,
        client: client.address,
        protocol: client.protocol,
        audited,
        address: denial.address,
        message: denial.message,
    };
    names.stats.refuse(&names.refusals, refusal);
}

async fn serve_udp(socket: Arc<tokio::net::UdpSocket>, names: Arc<Names>) -> io::Result<()> {
    // One byte more than the longest query, so that a longer one is seen as such.
    let mut buffer = [0; wire::MAX_QUERY + 1];
    let mut pending = JoinSet::new();
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = pending.join_next() => continue,
        };
        let Ok((length, address)) = received else {
            // The socket stays usable after an error (a full buffer, a vanished client); a
            // pause keeps one that repeats from taking the processor.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let client = Client {
            address,
            protocol: UDP,
        };
        match receive(&names, buffer.get(..length).unwrap_or_default(), client) {
            Step::Reply(Some(bytes)) => send(&socket, &bytes, address).await,
            Step::Reply(None) => {}
            Step::Ask(ask) => {
                let (socket, names) = (Arc::clone(&socket), Arc::clone(&names));
                pending.spawn(async move {
                    let bytes = respond(&names, ask).await;
                    send(&socket, &bytes, address).await;
                });
            }
        }
    }
}

/// A client that is gone is no concern of the door.
async fn send(socket: &tokio::net::UdpSocket, bytes: &[u8], to: SocketAddr) {
    drop(socket.send_to(bytes, to).await);
}

/// `None` where a socket that does not block has nothing more.
fn until_empty<T>(received: io::Result<T>) -> io::Result<Option<T>> {
    match received {
        Ok(one) => Ok(Some(one)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

async fn ended(mut shutdown: watch::Receiver<bool>) {
    drop(shutdown.wait_for(|&stop| stop).await.map(|_| ()));
}
