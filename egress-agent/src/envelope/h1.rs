//! A conversation in HTTP/1.1: head, verdict, body, answer, and again.

use std::{future::pending, time::Duration};

use egress_envelope::{
    h1,
    head::{Framing, Head},
    judge::{Inspect, Judged, Mode, Next, Refusal},
};
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};
use tokio_rustls::server;

use super::{
    carry::{After, Client, Failed, Request, Server, carry},
    incoming::{Incoming, Stop},
    pool::Met,
    refusal,
    relay::{Side, Tcp, send},
    shared::{Asked, Shared},
    upstream::{Offer, Speaks},
    why::Why,
};

/// How long a program may take for a head that it has begun, and for a body that is judged.
pub(super) const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// How long a program may say nothing between two requests.
pub(super) const IDLE_FOR: Duration = Duration::from_secs(600);

/// What happens after an exchange.
enum Turn {
    /// The next one.
    Next,
    /// The connection ends properly.
    Part,
    /// It is cut, since something on it was.
    Cut,
}

/// Where a connection to the server comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The program's requests before have used it.
    Own,
    /// Others have.
    Kept,
    /// Nobody has.
    New,
}

/// Whether a request may be sent a second time where the server has ended a connection that was
/// kept and may have read it (RFC 9110 section 9.2.2).
fn again(request: &Request<'_>) -> bool {
    let whole = request.body.is_empty() && request.rest.is_over();
    whole && matches!(request.head.method.as_str(), "GET" | "HEAD" | "OPTIONS")
}

struct Talk<'a> {
    client: Client,
    server: Option<Server>,
    /// What became of the server's choice of a protocol.
    met: Met,
    asked: &'a Asked,
    shared: &'a Shared,
}

/// Carries what a program says, until it or the server ends.
pub(super) async fn converse(
    client: server::TlsStream<Tcp>,
    met: Met,
    asked: &Asked,
    shared: &Shared,
) {
    let mut talk = Talk {
        client: Side::new(client),
        server: None,
        met,
        asked,
        shared,
    };
    let mut first = true;
    let turn = loop {
        match talk.exchange(first).await {
            Turn::Next => first = false,
            last => break last,
        }
    };
    let ended = [talk.server.take(), talk.met.server.take()];
    for server in ended.into_iter().flatten() {
        // Everything on it was answered.
        shared.pool.keep(asked, server);
    }
    match turn {
        // Without TLS' own goodbye: a broken end must not look like a proper one.
        Turn::Cut => drop(talk.client),
        Turn::Next | Turn::Part => talk.client.part().await,
    }
}

impl<'a> Talk<'a> {
    /// One request and its answer.
    async fn exchange(&mut self, first: bool) -> Turn {
        let head = match self.head(first).await {
            Ok(Some(head)) => head,
            Ok(None) => return Turn::Part,
            Err(Stop::Gone) => return Turn::Cut,
            Err(Stop::Refused(refusal)) => {
                let judged = Judged::unread(refusal);
                return self.refuse(judged, false).await;
            }
        };
        let Some(inspect) = self.shared.judge(&self.asked.name) else {
            // Its rule is gone, and so is the name's grant.
            return Turn::Cut;
        };
        let request = match self.judged(head, &inspect).await {
            Ok(request) => request,
            Err(turn) => return turn,
        };
        self.sent(request).await
    }

    /// The next head; `None`: there is none, and all is well.
    async fn head(&mut self, first: bool) -> Result<Option<Head>, Stop> {
        loop {
            match h1::head(self.client.input.left()).map_err(Stop::Refused)? {
                Some((head, used)) => {
                    self.client.input.take(used);
                    return Ok(Some(head));
                }
                None if self.client.input.left().is_empty() => {
                    if !self.idle(first).await? {
                        return Ok(None);
                    }
                }
                None => match timeout(WHOLE_WITHIN, self.client.fill()).await {
                    Ok(Ok(1..)) => {}
                    _ => return Err(Stop::Gone),
                },
            }
        }
    }

    /// Waits for the next request's first byte; `false`: there will be none. A server that ends
    /// its side meanwhile ends the program's too, which then knows as much as without a proxy.
    async fn idle(&mut self, first: bool) -> Result<bool, Stop> {
        let (client, server) = (&mut self.client, &mut self.server);
        client.input.rest();
        let ended = async {
            match server {
                Some(server) => {
                    server.side.input.rest();
                    drop(server.side.fill().await);
                }
                None => pending().await,
            }
        };
        let read = tokio::select! {
            biased;
            read = client.fill() => read,
            () = ended => {
                self.server = None;
                return Ok(false);
            }
            () = sleep(IDLE_FOR) => return Ok(false),
        };
        match read {
            Ok(0) | Err(_) if first => {
                self.shared.lost(self.asked, Why::Dropped);
                Err(Stop::Gone)
            }
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(_) => Err(Stop::Gone),
        }
    }

    /// The verdict: on the head, and on the body where that is judged. What is refused is answered
    /// here.
    async fn judged(&mut self, head: Head, inspect: &Inspect) -> Result<Request<'a>, Turn> {
        let shared = self.shared;
        let Asked { name, port } = self.asked;
        let report = inspect.mode == Mode::Report;
        let bodiless = head.method == "HEAD";
        let mut rest = Incoming::new(&head.framing);
        let (mut body, mut refusals) = (Vec::new(), Vec::new());
        let mut waits = head.expect_continue && !rest.is_over();
        let mut room = None;
        match inspect.head(&head, name, *port) {
            Next::Refuse(refusal) => refusals.push(refusal),
            Next::Pass => {}
            Next::Body { most } => {
                let most = most.min(Shared::most());
                room = shared.room(head.framing, most).await;
                match self
                    .body(&head, &mut rest, &mut body, &mut waits, most)
                    .await
                {
                    Ok(()) => {}
                    Err(Stop::Gone) => return Err(Turn::Cut),
                    Err(Stop::Refused(refusal)) => refusals.push(refusal),
                }
            }
        }
        let request = (&head, body.as_slice());
        let judged = shared.verdict(self.asked, inspect, request, refusals).await;
        if !judged.refusals.is_empty() && !report {
            return Err(self.refuse(judged, bodiless).await);
        }
        Ok(Request {
            head,
            judged: Some(judged),
            body,
            rest,
            waits,
            room,
        })
    }

    /// Reads a body that is judged, to its end or until it is longer than `most`.
    async fn body(
        &mut self,
        head: &Head,
        rest: &mut Incoming,
        body: &mut Vec<u8>,
        waits: &mut bool,
        most: usize,
    ) -> Result<(), Stop> {
        let declared = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => 0,
        };
        if declared > most {
            return Err(Stop::Refused(Refusal::too_large(most)));
        }
        if std::mem::take(waits) {
            send(&mut self.client.writer, b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .map_err(|_| Stop::Gone)?;
        }
        let Side { reader, input, .. } = &mut self.client;
        let read = async {
            while rest.next(reader, input, body).await? {
                if body.len() > most {
                    return Err(Stop::Refused(Refusal::too_large(most)));
                }
            }
            Ok(())
        };
        timeout(WHOLE_WITHIN, read).await.unwrap_or(Err(Stop::Gone))
    }

    /// Sends a request that passes, and moves the answer back.
    async fn sent(&mut self, mut request: Request<'a>) -> Turn {
        let bodiless = request.head.method == "HEAD";
        if let Some(why) = self.met.why.take() {
            return self.unreached(&mut request, why).await;
        }
        let (mut server, mut from) = match self.reached(&request).await {
            Ok(reached) => reached,
            Err(why) => return self.unreached(&mut request, why).await,
        };
        loop {
            let (client, asked, shared) = (&mut self.client, self.asked, self.shared);
            match carry(client, &mut server, &mut request, asked, shared).await {
                Ok(After::Next) => {
                    self.server = Some(server);
                    return Turn::Next;
                }
                Ok(After::Part) => {
                    self.server = Some(server);
                    return Turn::Part;
                }
                Ok(After::Close) => {
                    // Its goodbye is of no use to a server that has said its own.
                    let mut stream = server.side.whole();
                    let _gone = stream.shutdown().await;
                    return Turn::Part;
                }
                Ok(After::Cut) => return Turn::Cut,
                Err(Failed::Refused(refusal)) => {
                    if let Some(mut judged) = request.judged.take() {
                        judged.refusals = vec![refusal];
                        return self.refuse(judged, bodiless).await;
                    }
                    return Turn::Cut;
                }
                // The program does not know of a connection that was kept and ended meanwhile.
                Err(Failed::Lost(_)) if from == Source::Kept => match self.connected().await {
                    Ok(new) => (server, from) = (new, Source::New),
                    Err(why) => return self.unreached(&mut request, why).await,
                },
                Err(Failed::Lost(why)) if from == Source::New => {
                    return self.unreached(&mut request, why).await;
                }
                // The server had enough of the connection, as it may; the program knows what to do.
                Err(Failed::Lost(_) | Failed::Cut) => {
                    self.shared.told(self.asked, &mut request.judged, None);
                    return Turn::Cut;
                }
            }
        }
    }

    /// The connection that there is, one that was kept, or a new one.
    async fn reached(&mut self, request: &Request<'a>) -> Result<(Server, Source), Why> {
        if let Some(server) = self.server.take() {
            return Ok((server, Source::Own));
        }
        // It may have waited long for the program's first request.
        if let Some(mut server) = self.met.server.take()
            && server.is_silent().await
        {
            let source = if again(request) {
                Source::Kept
            } else {
                Source::New
            };
            return Ok((server, source));
        }
        if again(request) {
            let addresses = self.shared.addresses(&self.asked.name);
            if let Some(server) = self.shared.pool.kept(self.asked, &addresses).await {
                return Ok((server, Source::Kept));
            }
        }
        Ok((self.connected().await?, Source::New))
    }

    async fn connected(&self) -> Result<Server, Why> {
        let Asked { name, port } = self.asked;
        let addresses = self.shared.addresses(name);
        let only = Offer::Only(Speaks::Http1);
        let connected = self
            .shared
            .upstream
            .connect(name, &addresses, *port, only)
            .await?;
        Ok(Server::new(connected))
    }

    /// Answers a request that did not reach the server.
    async fn unreached(&mut self, request: &mut Request<'a>, why: Why) -> Turn {
        let answer = refusal::lost(self.asked, &why).written(request.head.method == "HEAD");
        self.shared.told(self.asked, &mut request.judged, Some(502));
        self.shared.lost(self.asked, why);
        self.last(&answer).await
    }

    /// Answers a request that is refused, tells the agent, and ends the connection.
    async fn refuse(&mut self, judged: Judged, bodiless: bool) -> Turn {
        let own = refusal::refused(self.asked, &judged);
        self.shared
            .told(self.asked, &mut Some(judged), Some(own.status));
        self.last(&own.written(bodiless)).await
    }

    /// The last answer of a connection.
    async fn last(&mut self, answer: &[u8]) -> Turn {
        match send(&mut self.client.writer, answer).await {
            Ok(()) => Turn::Part,
            Err(_) => Turn::Cut,
        }
    }
}
