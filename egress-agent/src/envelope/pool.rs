//! Connections to servers that are kept while no connection of a program uses them. All of them
//! belong to one connector. Each of a program's connections has one of its own, in HTTP/2 too: what
//! one leaves unread, and the streams that it has open, hold up no other.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, SendRequest},
};
use tokio::time::{Instant, timeout};

use super::{
    carry::Server,
    relay::Side,
    shared::Asked,
    upstream::{Connected, Offer, Speaks, Upstream},
    why::Why,
};

/// How long a connection is kept that nobody uses. Servers keep theirs for a minute or more.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// How long one in HTTP/2 is.
const FREE_FOR: Duration = Duration::from_secs(300);
/// When one in HTTP/2 on which nothing was sent is asked whether it lives before it is used again:
/// what is sent on one that has ended unnoticed cannot be sent a second time.
const TRUSTED_FOR: Duration = Duration::from_secs(5);
/// How long it may take to say so.
const PONG_WITHIN: Duration = Duration::from_secs(3);
/// How long it is taken for granted what a server speaks.
const SPOKEN_FOR: Duration = Duration::from_secs(600);
/// Connections to one name that are kept.
const MAX_KEPT: usize = 8;
/// Names and ports with connections.
const MAX_DOORS: usize = 256;
/// What a server may send ahead, of one answer and of all: a program that does not read its answers
/// must not hold up others on the same connection. Bytes.
const WINDOWS: (u32, u32) = (1 << 20, 64 << 20);
/// Longest head of an answer. Bytes.
const MAX_HEAD: u32 = 256 << 10;
/// How long the server may take to hear the first words in HTTP/2.
const BEGUN_WITHIN: Duration = Duration::from_secs(20);

/// Connections to servers.
#[derive(Default)]
pub(super) struct Pool {
    doors: Mutex<HashMap<Asked, Door>>,
}

#[derive(Default)]
struct Door {
    speaks: Option<(Speaks, Instant)>,
    idle: Vec<(Server, Instant)>,
    /// Those in HTTP/2.
    free: Vec<Live>,
}

/// The server's side of a program's connection in HTTP/2.
pub(super) type Lease = tokio::sync::Mutex<Slot>;

/// The connection of a lease.
#[derive(Default)]
pub(super) struct Slot {
    live: Option<Live>,
    made: u64,
    failed: Option<(Instant, Why)>,
}

struct Live {
    send: SendRequest<Bytes>,
    pings: Option<PingPong>,
    wanted: bool,
    at: IpAddr,
    used: Instant,
}

/// The way to the server for one stream.
pub(super) struct Way {
    pub(super) send: SendRequest<Bytes>,
    /// The server has asked for a client certificate.
    pub(super) wanted: bool,
    /// Which connection it is.
    pub(super) number: u64,
}

/// How a program that speaks both is served.
pub(super) struct Met {
    pub(super) speaks: Speaks,
    /// A connection that nobody has used.
    pub(super) server: Option<Server>,
    /// Why the server was not reached.
    pub(super) why: Option<Why>,
}

impl Met {
    /// A program that speaks nothing else.
    pub(super) fn only(speaks: Speaks) -> Self {
        Self {
            speaks,
            server: None,
            why: None,
        }
    }
}

impl Pool {
    fn doors(&self) -> MutexGuard<'_, HashMap<Asked, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a door, where there is one or room for it.
    fn door<T>(&self, asked: &Asked, with: impl FnOnce(&mut Door) -> T) -> Option<T> {
        let mut doors = self.doors();
        if doors.len() >= MAX_DOORS && !doors.contains_key(asked) {
            return None;
        }
        Some(with(doors.entry(asked.clone()).or_default()))
    }

    /// What a connection of a program begins with in HTTP/2: a connection that is free, or nothing.
    pub(super) fn lease(&self, asked: &Asked) -> Lease {
        let live = self.door(asked, |door| door.free.pop()).flatten();
        Lease::new(Slot {
            live,
            ..Slot::default()
        })
    }

    /// Keeps the connection of a lease whose streams are over.
    pub(super) async fn free(&self, asked: &Asked, lease: &Lease) {
        if let Some(live) = lease.lock().await.live.take() {
            self.put(asked, live);
        }
    }

    fn put(&self, asked: &Asked, live: Live) {
        self.door(asked, |door| {
            if door.free.len() < MAX_KEPT {
                door.free.push(live);
            }
        });
    }

    /// Keeps a connection on which everything was answered.
    pub(super) fn keep(&self, asked: &Asked, server: Server) {
        self.door(asked, |door| {
            if door.idle.len() < MAX_KEPT {
                door.idle.push((server, Instant::now()));
            }
        });
    }

    /// A connection that was kept, to one of `addresses`, and that the server has not ended as far
    /// as anybody knows: it may do so before it has read what is sent next.
    pub(super) async fn kept(&self, asked: &Asked, addresses: &[IpAddr]) -> Option<Server> {
        loop {
            let (mut server, since) = self.doors().get_mut(asked)?.idle.pop()?;
            let granted = addresses.contains(&server.at);
            if granted && server.is_silent().await && since.elapsed() < KEPT_FOR {
                return Some(server);
            }
        }
    }

    /// What to speak with a program that offers both: what the server chooses, who is asked for
    /// that where nobody knows.
    pub(super) async fn meet(
        &self,
        asked: &Asked,
        addresses: &[IpAddr],
        upstream: &Upstream,
    ) -> Met {
        let known = self.door(asked, |door| door.speaks).flatten();
        if let Some((speaks, since)) = known
            && since.elapsed() < SPOKEN_FOR
        {
            return Met::only(speaks);
        }
        let Asked { name, port } = asked;
        let met = upstream.connect(name, addresses, *port, Offer::Either);
        match met.await {
            Ok(connected) => {
                let speaks = connected.speaks;
                self.door(asked, |door| door.speaks = Some((speaks, Instant::now())));
                let server = match speaks {
                    Speaks::Http1 => Some(Server::new(connected)),
                    Speaks::Http2 => {
                        if let Ok(live) = begun(connected).await {
                            self.put(asked, live);
                        }
                        None
                    }
                };
                Met {
                    speaks,
                    server,
                    why: None,
                }
            }
            Err(why) => Met {
                speaks: Speaks::Http1,
                server: None,
                why: Some(why),
            },
        }
    }

    /// The way for one stream: by the connection that there is, or by a new one.
    pub(super) async fn way(
        &self,
        lease: &Lease,
        asked: &Asked,
        addresses: &[IpAddr],
        upstream: &Upstream,
    ) -> Result<Way, Why> {
        let since = Instant::now();
        let mut slot = lease.lock().await;
        if let Some(way) = slot.way(addresses).await {
            return Ok(way);
        }
        // Somebody else has tried while this stream waited.
        if let Some((when, why)) = &slot.failed
            && *when > since
        {
            return Err(why.clone());
        }
        slot.live = None;
        let Asked { name, port } = asked;
        let only = Offer::Only(Speaks::Http2);
        let made = match upstream.connect(name, addresses, *port, only).await {
            Ok(connected) => begun(connected).await,
            Err(why) => Err(why),
        };
        match made {
            Ok(live) => {
                slot.put(live);
                slot.way(addresses).await.ok_or(Why::Nowhere)
            }
            Err(why) => {
                slot.failed = Some((Instant::now(), why.clone()));
                self.door(asked, |door| door.speaks = None);
                Err(why)
            }
        }
    }

    /// Ends what nobody has used for long.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.doors().retain(|_, door| {
            door.idle
                .retain(|(_, since)| now.duration_since(*since) < KEPT_FOR);
            door.free
                .retain(|live| now.duration_since(live.used) < FREE_FOR);
            !(door.free.is_empty() && door.idle.is_empty())
                || door
                    .speaks
                    .is_some_and(|(_, since)| now.duration_since(since) < SPOKEN_FOR)
        });
    }
}

/// Nothing was heard on a connection for long: the streams to come take another one.
pub(super) async fn suspect(lease: &Lease, number: u64) {
    let mut slot = lease.lock().await;
    if slot.made == number {
        slot.live = None;
    }
}

impl Slot {
    fn put(&mut self, live: Live) {
        self.live = Some(live);
        self.made = self.made.wrapping_add(1);
    }

    /// By the connection that there is, unless it has ended or is to where nobody may go any more.
    async fn way(&mut self, addresses: &[IpAddr]) -> Option<Way> {
        let live = self.live.as_mut()?;
        if !addresses.contains(&live.at) {
            return None;
        }
        if live.used.elapsed() > TRUSTED_FOR && !live.answers().await {
            return None;
        }
        // One's own handle waits for nobody else's streams.
        let send = live.send.clone().ready().await.ok()?;
        live.used = Instant::now();
        Some(Way {
            send,
            wanted: live.wanted,
            number: self.made,
        })
    }
}

impl Live {
    /// Whether the server is still there.
    async fn answers(&mut self) -> bool {
        let Some(pings) = &mut self.pings else {
            return false;
        };
        matches!(
            timeout(PONG_WITHIN, pings.ping(Ping::opaque())).await,
            Ok(Ok(_))
        )
    }
}

impl Server {
    pub(super) fn new(connected: Connected) -> Self {
        Self {
            side: Side::new(connected.stream),
            wanted: connected.wanted,
            at: connected.at,
        }
    }

    /// Whether the server has said nothing since its last answer, its goodbye included.
    pub(super) async fn is_silent(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.side.fill() => false,
            () = std::future::ready(()) => true,
        }
    }
}

/// The first words in HTTP/2. It goes on in a task of its own, which ends with the last stream once
/// nobody holds it.
async fn begun(connected: Connected) -> Result<Live, Why> {
    let Connected {
        stream, wanted, at, ..
    } = connected;
    let (one, all) = WINDOWS;
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(one)
        .initial_connection_window_size(all)
        .max_header_list_size(MAX_HEAD);
    let begun = timeout(BEGUN_WITHIN, builder.handshake(stream)).await;
    let (send, mut connection) = begun
        .map_err(|_| Why::Silent("no answer in time".to_owned()))?
        .map_err(|error| Why::Silent(error.to_string()))?;
    let pings = connection.ping_pong();
    tokio::spawn(async move {
        // Each of its streams hears of its end.
        let _told_there = connection.await;
    });
    Ok(Live {
        send,
        pings,
        wanted,
        at,
        used: Instant::now(),
    })
}
