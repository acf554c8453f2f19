//! One stream in HTTP/2: head, verdict, body, answer.

use std::{future::poll_fn, sync::Arc};

use bytes::{Bytes, BytesMut};
use egress_envelope::{
    h2::from_pseudo,
    head::Head,
    judge::{Judged, Mode, Next, Refusal},
};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use tokio::{sync::SemaphorePermit, time::timeout};

use super::{
    h1::WHOLE_WITHIN,
    incoming::Stop,
    pool::Lease,
    refusal::{self, Own},
    shared::{Asked, Shared},
    transit::{self, Failed},
    why::Why,
};

/// A stream's request, with what was read of its body.
pub(super) struct Stream<'a> {
    pub(super) head: Head,
    pub(super) judged: Untold<'a>,
    /// What was read to be judged.
    pub(super) body: Bytes,
    /// What comes behind that.
    pub(super) rest: RecvStream,
    /// The program waits to be told to send its body.
    pub(super) waits: bool,
    /// Its place among the bodies that are held at a time.
    pub(super) room: Option<SemaphorePermit<'a>>,
}

/// An operation that is told of once, at the latest when its stream is over: a program that goes
/// away at once has sent it nevertheless.
pub(super) struct Untold<'a> {
    judged: Option<Judged>,
    asked: &'a Asked,
    shared: &'a Shared,
}

impl Untold<'_> {
    pub(super) fn tell(&mut self, status: Option<u16>) {
        self.shared.told(self.asked, &mut self.judged, status);
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.tell(None);
    }
}

/// One stream from beginning to end.
pub(super) async fn carry(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    lease: &Lease,
    asked: &Asked,
    shared: &Arc<Shared>,
) {
    match judged(request, &mut respond, asked, shared).await {
        Ok(Some(mut stream)) => {
            let carried = transit::carry(&mut stream, &mut respond, lease, asked, shared).await;
            let Err(failed) = carried else {
                return;
            };
            match failed {
                Failed::Reset(reason) => respond.send_reset(reason),
                Failed::Lost(why) => {
                    stream.judged.tell(Some(502));
                    let own = refusal::lost(asked, &why);
                    shared.lost(asked, why);
                    answer(&mut respond, &own, stream.head.method == "HEAD");
                }
                // It went on to its program before it broke.
                Failed::Begun => {}
            }
        }
        Ok(None) => {}
        Err((judged, bodiless)) => {
            let own = refusal::refused(asked, &judged);
            shared.told(asked, &mut Some(judged), Some(own.status));
            answer(&mut respond, &own, bodiless);
        }
    }
}

/// The verdict: on the head, and on the body where that is judged. `None`: the program or its rule
/// is gone. The error is refused, and whether the answer has no body.
async fn judged<'a>(
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    asked: &'a Asked,
    shared: &'a Shared,
) -> Result<Option<Stream<'a>>, (Judged, bool)> {
    let bodiless = request.method() == "HEAD";
    let head = head(&request).map_err(|refusal| (Judged::unread(refusal), bodiless))?;
    let mut rest = request.into_body();
    let Some(inspect) = shared.judge(&asked.name) else {
        // Its rule is gone, and so is the name's grant.
        respond.send_reset(Reason::REFUSED_STREAM);
        return Ok(None);
    };
    let report = inspect.mode == Mode::Report;
    let mut waits = head.expect_continue && !rest.is_end_stream();
    let (mut refusals, mut room, mut body) = (Vec::new(), None, BytesMut::new());
    match inspect.head(&head, &asked.name, asked.port) {
        Next::Refuse(refusal) => refusals.push(refusal),
        Next::Pass => {}
        Next::Body { most } => {
            let most = most.min(Shared::most());
            room = shared.room(head.framing, most).await;
            if std::mem::take(&mut waits) && go_on(respond).is_err() {
                return Ok(None);
            }
            let read = whole(&mut rest, &mut body, most);
            match timeout(WHOLE_WITHIN, read).await.unwrap_or(Err(Stop::Gone)) {
                Ok(()) => {}
                Err(Stop::Gone) => {
                    respond.send_reset(Reason::CANCEL);
                    return Ok(None);
                }
                Err(Stop::Refused(refusal)) => refusals.push(refusal),
            }
        }
    }
    let judged = shared
        .verdict(asked, &inspect, (&head, &body), refusals)
        .await;
    if !judged.refusals.is_empty() && !report {
        return Err((judged, bodiless));
    }
    Ok(Some(Stream {
        head,
        judged: Untold {
            judged: Some(judged),
            asked,
            shared,
        },
        body: body.freeze(),
        rest,
        waits,
        room,
    }))
}

/// The head as it is judged. The library has checked the frames; what they say is read here.
fn head(request: &Request<RecvStream>) -> Result<Head, Refusal> {
    let uri = request.uri();
    // Without an authority the library drops the scheme, which there has to be; what is sent on
    // says https.
    let scheme = uri.scheme_str().or(match uri.authority() {
        None => Some("https"),
        Some(_) => None,
    });
    let fields = request.headers().iter();
    from_pseudo(
        request.method().as_str(),
        scheme,
        uri.authority().map(http::uri::Authority::as_str),
        uri.path_and_query()
            .map_or("", http::uri::PathAndQuery::as_str),
        fields.map(|(name, value)| (name.as_str(), value.as_bytes())),
        request.body().is_end_stream(),
    )
}

/// Reads a body that is judged, to its end or until it is longer than `most`.
async fn whole(rest: &mut RecvStream, body: &mut BytesMut, most: usize) -> Result<(), Stop> {
    while let Some(piece) = rest.data().await {
        let piece = piece.map_err(|_| Stop::Gone)?;
        body.extend_from_slice(&piece);
        let released = rest.flow_control().release_capacity(piece.len());
        released.map_err(|_| Stop::Gone)?;
        if body.len() > most {
            return Err(Stop::Refused(Refusal::too_large(most)));
        }
    }
    Ok(())
}

/// Tells the program to send its body.
pub(super) fn go_on(respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    respond.send_informational(response)
}

/// Answers in the proxy's own name. What the program still sends is cut off with the stream.
fn answer(respond: &mut SendResponse<Bytes>, own: &Own, bodiless: bool) {
    let response = Response::builder()
        .status(own.status)
        .header(CONTENT_TYPE, "application/json")
        .header("content-length", own.body.len());
    let response = match own.again {
        Some(seconds) => response.header(RETRY_AFTER, seconds),
        None => response,
    };
    let Ok(response) = response.body(()) else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    let sent = respond.send_response(response, bodiless);
    if let Ok(mut stream) = sent
        && !bodiless
    {
        // As long as one sentence: what the program does not read waits until it is gone.
        let _gone = stream.send_data(Bytes::copy_from_slice(own.body.as_bytes()), true);
    }
}

/// The program has given the stream up.
pub(super) async fn given_up(respond: &mut SendResponse<Bytes>) -> Failed {
    match poll_fn(|cx| respond.poll_reset(cx)).await {
        Ok(reason) => Failed::Reset(reason),
        Err(_) => Failed::Reset(Reason::CANCEL),
    }
}

impl From<Why> for Failed {
    fn from(why: Why) -> Self {
        Self::Lost(why)
    }
}
