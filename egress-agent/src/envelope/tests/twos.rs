//! A server and a client in HTTP/2.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

use super::world::{BoxFuture, NAME, SOON, World};

/// Takes streams and answers each by its path.
pub(super) fn serves(tls: TlsStream<TcpStream>) -> BoxFuture {
    Box::pin(async move {
        let mut connection = h2::server::handshake(tls).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(answers(request, respond));
        }
    })
}

/// `/server`: fields of the request, as text. `/email`: the body. `/file`: the body, as it comes,
/// with trailers. `/chat`: by the field `x`.
async fn answers(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let said = parts.headers.get("x").map(|it| it.to_str().unwrap());
    let mut response = Response::new(());
    match (parts.uri.path(), said) {
        ("/server", _) => {
            let mut text = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(text.into(), true).unwrap();
        }
        ("/email", _) => {
            let body = whole(&mut body).await.unwrap().0;
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(body, true).unwrap();
        }
        ("/file", _) => {
            let mut stream = respond.send_response(response, false).unwrap();
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                body.flow_control().release_capacity(piece.len()).unwrap();
                put(&mut stream, piece).await;
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
        ("/chat", Some("hints")) => {
            let mut hints = Response::new(());
            *hints.status_mut() = StatusCode::EARLY_HINTS;
            hints.headers_mut().insert("link", "</a>".parse().unwrap());
            respond.send_informational(hints).unwrap();
            *response.status_mut() = StatusCode::NO_CONTENT;
            respond.send_response(response, true).unwrap();
        }
        ("/chat", Some("undecided")) => {
            let mut hints = Response::new(());
            *hints.status_mut() = StatusCode::EARLY_HINTS;
            for _ in 0..1_000 {
                if respond.send_informational(hints.clone()).is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
        }
        ("/chat", Some("silent")) => {
            HEARD.notify_one();
            drop(poll_fn(|cx| respond.poll_reset(cx)).await);
        }
        ("/chat", Some("hasty")) => {
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            respond.send_response(response, true).unwrap();
        }
        ("/chat", Some("reset")) => respond.send_reset(h2::Reason::INADEQUATE_SECURITY),
        ("/chat", Some("half")) => {
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data("only this".into(), false).unwrap();
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        ("/chat", Some("until-reset")) => {
            let mut stream = respond.send_response(response, false).unwrap();
            let reason = poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
            assert_eq!(reason, h2::Reason::CANCEL);
            RESETS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        other => panic!("{other:?}"),
    }
}

/// A stream that is not answered has come.
pub(super) static HEARD: tokio::sync::Notify = tokio::sync::Notify::const_new();
/// Streams whose program has gone.
pub(super) static RESETS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Sends as much as the other side takes.
pub(super) async fn put(stream: &mut SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return };
        let piece = bytes.split_to(room.min(bytes.len()));
        if stream.send_data(piece, false).is_err() {
            return;
        }
    }
}

/// A body and its trailers.
pub(super) async fn whole(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes.freeze(), body.trailers().await?))
}

/// A client in HTTP/2.
pub(super) async fn client(world: &World) -> SendRequest<Bytes> {
    let tls = world.speaks(&["h2"]).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (send, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    send
}

/// A request's head.
pub(super) fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{NAME}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) trailers: Option<HeaderMap>,
}

/// One request and its answer.
pub(super) async fn ask(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Answer, h2::Error> {
    let asked = async {
        let mut client = client.clone().ready().await?;
        let (response, mut stream) = client.send_request(request, body.is_none())?;
        if let Some(body) = body {
            tokio::spawn(async move {
                put(&mut stream, body).await;
                drop(stream.send_data(Bytes::new(), true));
            });
        }
        let (parts, mut body) = response.await?.into_parts();
        let (bytes, trailers) = whole(&mut body).await?;
        Ok(Answer {
            status: parts.status.as_u16(),
            body: String::from_utf8(bytes.to_vec()).unwrap(),
            trailers,
        })
    };
    timeout(SOON, asked).await.unwrap()
}
