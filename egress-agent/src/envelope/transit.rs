//! One stream that passes, to the server and its answer back. Both ways move as fast as who reads
//! them.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use egress_envelope::head::{Framing, Head};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::time::sleep;

use super::{
    pool::{Lease, Way, suspect},
    shared::{Asked, Shared},
    stream::{Stream, given_up, go_on},
    upstream,
    why::Why,
};

/// When a connection is suspected that does not answer; streams to come take another one.
const SUSPECT_AFTER: Duration = Duration::from_secs(30);

/// Answers before the final one, of one stream: they wait for the program without a bound of the
/// library's.
const MAX_INTERIM: usize = 32;

/// What went wrong.
pub(super) enum Failed {
    /// The stream ends like this, without an answer.
    Reset(Reason),
    /// The server has not answered.
    Lost(Why),
    /// The answer had begun.
    Begun,
}

/// What broke while bytes were moved.
enum Broken {
    /// Where they came from.
    From(Reason),
    /// Where they went.
    To,
}

/// Sends a request that passes, and moves the answer back, which may come before the request is
/// whole.
pub(super) async fn carry(
    stream: &mut Stream<'_>,
    respond: &mut SendResponse<Bytes>,
    lease: &Lease,
    asked: &Asked,
    shared: &Arc<Shared>,
) -> Result<(), Failed> {
    let addresses = shared.addresses(&asked.name);
    let way = tokio::select! {
        way = shared.pool.way(lease, asked, &addresses, &shared.upstream) => way?,
        failed = given_up(respond) => return Err(failed),
    };
    let Way {
        mut send,
        wanted,
        number,
    } = way;
    let ends = stream.body.is_empty() && stream.rest.is_end_stream();
    let request = written(&stream.head)
        .ok_or_else(|| Why::ServerTls("the request cannot be written in HTTP/2".to_owned()))?;
    let sent = send.send_request(request, ends);
    let (mut response, to) = sent.map_err(|error| failed(&error, wanted))?;
    drop(send);
    if std::mem::take(&mut stream.waits) && go_on(respond).is_err() {
        return Err(Failed::Reset(Reason::CANCEL));
    }
    let Stream {
        judged,
        body,
        rest,
        room,
        ..
    } = stream;
    let (body, room) = (std::mem::take(body), room.take());
    let upload = async move {
        if ends {
            return Ok(());
        }
        let mut to = to;
        put(&mut to, body).await?;
        drop(room);
        // Its trailers are nothing that was judged.
        pump(rest, &mut to).await?;
        to.send_data(Bytes::new(), true).map_err(|_| Broken::To)
    };
    let download = async {
        let answer = answered(&mut response, respond, wanted, (lease, number)).await?;
        judged.tell(Some(answer.status().as_u16()));
        let (mut parts, mut from) = answer.into_parts();
        // An offer of another way to the server, which nobody may take.
        parts.headers.remove("alt-svc");
        let over = from.is_end_stream();
        let begun = respond.send_response(Response::from_parts(parts, ()), over);
        let mut to = begun.map_err(|_| Failed::Reset(Reason::CANCEL))?;
        if over {
            return Ok(());
        }
        match back(&mut from, &mut to).await {
            Ok(()) => Ok(()),
            Err(Broken::From(reason)) => {
                to.send_reset(reason);
                Err(Failed::Begun)
            }
            Err(Broken::To) => Err(Failed::Begun),
        }
    };
    let mut download = std::pin::pin!(download);
    tokio::select! {
        biased;
        done = &mut download => done,
        sent = upload => match sent {
            // It may have answered and not wanted to hear the rest.
            Ok(()) | Err(Broken::To) => download.await,
            // The program has given it up, and so does the server hear.
            Err(Broken::From(reason)) => Err(Failed::Reset(reason)),
        },
    }
}

/// The head as it is sent: from what was judged.
fn written(head: &Head) -> Option<Request<()>> {
    let host = &head.authority.host;
    let authority = match head.authority.port {
        Some(port) => format!("{host}:{port}"),
        None => host.clone(),
    };
    let path = match &head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path.clone(),
    };
    let uri = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(path)
        .build()
        .ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).ok()?;
    *request.uri_mut() = uri;
    let fields = request.headers_mut();
    for (name, value) in &head.fields {
        // Ours to answer, and said anew.
        if matches!(name.as_str(), "expect" | "content-length" | "trailer") {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    if let Framing::Length(length) = head.framing {
        fields.insert("content-length", HeaderValue::from(length));
    }
    Some(request)
}

/// Waits for the answer's head. Those before it (RFC 9110 section 15.2) are passed on, but for 100,
/// which is ours to say.
async fn answered(
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    wanted: bool,
    (lease, number): (&Lease, u64),
) -> Result<Response<RecvStream>, Failed> {
    let mut slow = std::pin::pin!(sleep(SUSPECT_AFTER));
    let mut suspected = false;
    let mut interims = 0_usize;
    loop {
        tokio::select! {
            biased;
            heard = poll_fn(|cx| hear(response, cx)) => match heard.map_err(|error| failed(&error, wanted))? {
                Heard::Answer(answer) => return Ok(answer),
                Heard::Interim(interim) if interim.status() == StatusCode::CONTINUE => {}
                Heard::Interim(_) if interims >= MAX_INTERIM => {
                    let what = "it gives no final answer".to_owned();
                    return Err(Failed::Lost(Why::Garbled(what)));
                }
                Heard::Interim(interim) => {
                    interims = interims.saturating_add(1);
                    let passed = respond.send_informational(interim);
                    passed.map_err(|_| Failed::Reset(Reason::CANCEL))?;
                }
            },
            given_up = given_up(respond) => return Err(given_up),
            () = &mut slow, if !suspected => {
                suspected = true;
                suspect(lease, number).await;
            }
        }
    }
}

/// What a server says in front of a body.
enum Heard {
    Interim(Response<()>),
    Answer(Response<RecvStream>),
}

/// The next head. The library passes those of interim answers over unless it is asked for them.
fn hear(response: &mut ResponseFuture, cx: &mut Context<'_>) -> Poll<Result<Heard, h2::Error>> {
    if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
        return Poll::Ready(interim.map(Heard::Interim));
    }
    Pin::new(response)
        .poll(cx)
        .map(|answer| answer.map(Heard::Answer))
}

/// Moves an answer to the program, trailers and all.
async fn back(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Result<(), Broken> {
    pump(from, to).await?;
    let trailers = tokio::select! {
        biased;
        trailers = from.trailers() => trailers.map_err(|error| Broken::From(reason(&error)))?,
        () = given_up_by(to) => return Err(Broken::To),
    };
    let ended = match trailers {
        Some(trailers) => to.send_trailers(plain(trailers)),
        None => to.send_data(Bytes::new(), true),
    };
    ended.map_err(|_| Broken::To)
}

/// Moves data until there is no more, and never holds more than may be sent.
async fn pump(from: &mut RecvStream, to: &mut SendStream<Bytes>) -> Result<(), Broken> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = from.data() => piece,
            () = given_up_by(to) => return Err(Broken::To),
        };
        let Some(piece) = piece else {
            return Ok(());
        };
        let piece = piece.map_err(|error| Broken::From(reason(&error)))?;
        let length = piece.len();
        put(to, piece).await?;
        let released = from.flow_control().release_capacity(length);
        released.map_err(|_| Broken::From(Reason::INTERNAL_ERROR))?;
    }
}

/// Sends bytes as the other side takes them.
async fn put(to: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Broken> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| to.poll_capacity(cx)).await;
        let room = room.and_then(Result::ok).ok_or(Broken::To)?;
        let piece = bytes.split_to(room.min(bytes.len()));
        to.send_data(piece, false).map_err(|_| Broken::To)?;
    }
    Ok(())
}

async fn given_up_by(to: &mut SendStream<Bytes>) {
    // However it ended.
    let _reason = poll_fn(|cx| to.poll_reset(cx)).await;
}

/// Trailers without what would be a head (RFC 9110 section 6.5.1).
fn plain(mut trailers: HeaderMap) -> HeaderMap {
    for name in ["content-length", "transfer-encoding", "host", "alt-svc"] {
        trailers.remove(name);
    }
    trailers
}

/// What the other side said when it ended a stream.
fn reason(error: &h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::INTERNAL_ERROR)
}

/// What an error before the answer means.
fn failed(error: &h2::Error, wanted: bool) -> Failed {
    if error.is_reset() {
        return Failed::Reset(reason(error));
    }
    if let Some(error) = error.get_io() {
        return Failed::Lost(match upstream::why(error, wanted) {
            Why::ServerTls(error) => Why::Silent(error),
            why => why,
        });
    }
    if error.is_go_away() && error.is_remote() {
        // The server says that it has not looked at the stream (RFC 9113 section 6.8). The program
        // may send it again, as it might without a proxy.
        return Failed::Reset(Reason::REFUSED_STREAM);
    }
    Failed::Lost(Why::Garbled(error.to_string()))
}
