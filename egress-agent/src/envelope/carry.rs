//! One request that passes, to the server and its answer back.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use egress_envelope::{
    h1,
    head::{Framing, Head, Version},
    judge::{Judged, Refusal},
};
use tokio::sync::SemaphorePermit;
use tokio_rustls::{client, server};

use super::{
    answer::Ends,
    incoming::Incoming,
    relay::{Broken, Side, Tcp, chunk, download, final_head, send, watch},
    shared::{Asked, Shared},
    upstream,
    why::Why,
};

/// The program's side.
pub(super) type Client = Side<server::TlsStream<Tcp>>;

/// The server's side.
pub(super) struct Server {
    pub(super) side: Side<client::TlsStream<Tcp>>,
    /// It has asked for a client certificate.
    pub(super) wanted: bool,
    /// Which of the name's addresses it is at.
    pub(super) at: IpAddr,
}

/// A request on its way: what was judged of it, and what is still to be read.
pub(super) struct Request<'a> {
    pub(super) head: Head,
    /// Taken when it is told.
    pub(super) judged: Option<Judged>,
    pub(super) body: Vec<u8>,
    pub(super) rest: Incoming,
    /// The program waits to be told to send its body.
    pub(super) waits: bool,
    /// Its place among the bodies that are held at a time.
    pub(super) room: Option<SemaphorePermit<'a>>,
}

/// What becomes of the connections behind an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// Both live on.
    Next,
    /// The program's ends, the server's lives on.
    Part,
    /// They end.
    Close,
    /// The answer was cut, and the program is to see that.
    Cut,
}

/// What went wrong before the program was answered.
pub(super) enum Failed {
    /// Nothing can be said to the program any more.
    Cut,
    /// The server has not answered.
    Lost(Why),
    /// The request's body turned out to be none while it was sent.
    Refused(Refusal),
}

/// Sends a request and moves its answer back. The answer may come before the request is whole.
pub(super) async fn carry(
    client: &mut Client,
    server: &mut Server,
    request: &mut Request<'_>,
    asked: &Asked,
    shared: &Shared,
) -> Result<After, Failed> {
    let Request {
        head,
        judged,
        body,
        rest,
        waits,
        room,
    } = request;
    let old = head.version == Version::Http10;
    let method = head.method.clone();
    let keeps = !old && !names(head, "connection", "close");
    let (mut out, chunked) = written(head, body, rest);
    if *waits {
        let go_on = send(&mut client.writer, b"HTTP/1.1 100 Continue\r\n\r\n").await;
        go_on.map_err(|_| Failed::Cut)?;
    }
    let (sent, begun) = (AtomicBool::new(false), AtomicBool::new(false));
    let Server { side, wanted, .. } = server;
    let upload = async {
        out.append(body);
        let to = &mut side.writer;
        if rest.is_at_hand(&client.input) {
            rest.next(&mut client.reader, &mut client.input, &mut out)
                .await?;
        }
        send(to, &out).await.map_err(Broken::Server)?;
        drop((out, room.take()));
        let mut piece = Vec::new();
        while rest
            .next(&mut client.reader, &mut client.input, &mut piece)
            .await?
        {
            chunk(to, &piece, chunked).await.map_err(Broken::Server)?;
            piece.clear();
        }
        if chunked {
            send(to, b"0\r\n\r\n").await.map_err(Broken::Server)?;
        }
        sent.store(true, Relaxed);
        watch(&mut client.reader, &mut client.input).await
    };
    let answer = async {
        let (reader, input) = (&mut side.reader, &mut side.input);
        let answer = final_head(reader, input, &mut client.writer, !old).await?;
        shared.told(asked, judged, Some(answer.status));
        let ends = answer.ends(&method).map_err(Broken::Garbled)?;
        let written = if old && ends == Ends::Chunked {
            Ends::Close
        } else {
            ends
        };
        let served = answer.keeps() && sent.load(Relaxed) && ends != Ends::Close;
        let close = !keeps || !served || written == Ends::Close;
        begun.store(true, Relaxed);
        let mut head = Vec::new();
        answer.write(written, close, &mut head);
        let chunked = written == Ends::Chunked;
        let whole = download(reader, input, &mut client.writer, head, ends, chunked).await?;
        Ok(match (whole, served && input.left().is_empty(), close) {
            (false, ..) => After::Cut,
            (true, false, _) => After::Close,
            (true, true, true) => After::Part,
            (true, true, false) => After::Next,
        })
    };
    let mut answer = std::pin::pin!(answer);
    let done = tokio::select! {
        biased;
        done = &mut answer => done,
        broken = upload => match broken {
            // It may have answered and not wanted to hear the rest.
            Err(Broken::Server(_)) => answer.await,
            Err(broken) => Err(broken),
            Ok(never) => match never {},
        },
    };
    match done {
        Ok(after) => Ok(after),
        Err(_) if begun.load(Relaxed) => Ok(After::Cut),
        Err(Broken::Client) => Err(Failed::Cut),
        Err(Broken::Refused(refusal)) => Err(Failed::Refused(refusal)),
        Err(Broken::Garbled(what)) => Err(Failed::Lost(Why::Garbled(what.to_owned()))),
        Err(Broken::Server(error)) => Err(Failed::Lost(match upstream::why(&error, *wanted) {
            Why::ServerTls(error) => Why::Silent(error),
            why => why,
        })),
    }
}

/// The head as it is sent, and whether the body goes in chunks. What was read whole has a length.
fn written(head: &Head, body: &[u8], rest: &Incoming) -> (Vec<u8>, bool) {
    let mut head = head.clone();
    if rest.is_over() && head.framing != Framing::None {
        head.framing = Framing::Length(u64::try_from(body.len()).unwrap_or(u64::MAX));
    }
    head.fields
        .retain(|(name, _)| !OWN.contains(&name.as_str()));
    let mut out = Vec::new();
    h1::write_head(&head, &mut out);
    (out, head.framing == Framing::Chunked)
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1), and those that say where the body
/// ends, which is said anew.
const OWN: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field is a list that names something.
fn names(head: &Head, field: &str, what: &str) -> bool {
    head.fields
        .iter()
        .filter(|(name, _)| name == field)
        .flat_map(|(_, value)| value.split(','))
        .any(|member| member.trim().eq_ignore_ascii_case(what))
}
