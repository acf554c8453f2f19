//! HTTP/2: the same answers as over HTTP/1.1, several at a time.

use std::sync::Arc;

use ::http::{Request, Response};
use anyhow::Result;
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    http::{Asked, Place, answer},
    state::State,
};
use crate::protocol::Sighting;

/// Answers requests until the client ends.
pub(super) async fn serve<S>(
    stream: S,
    place: Place,
    arrival: Sighting,
    state: Arc<State>,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(stream).await?;
    let place = Arc::new(place);
    while let Some(next) = connection.accept().await {
        let (request, respond) = next?;
        let (place, arrival, state) = (place.clone(), arrival.clone(), state.clone());
        // A request that breaks off ends only itself.
        tokio::spawn(async move { drop(one(request, respond, &place, &arrival, &state).await) });
    }
    Ok(())
}

async fn one(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    place: &Place,
    arrival: &Sighting,
    state: &State,
) -> Result<()> {
    let (head, mut incoming) = request.into_parts();
    state.scan(head.uri.to_string().as_bytes(), arrival);
    for value in head.headers.values() {
        state.scan(value.as_bytes(), arrival);
    }
    let mut body = Vec::new();
    while let Some(part) = incoming.data().await {
        let part = part?;
        incoming.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    state.scan(&body, arrival);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let text = answer(
        place,
        Asked {
            host: head.uri.host().unwrap_or_default().to_owned(),
            line: format!("{} {path}", head.method),
            body,
        },
        state,
    );
    let reply = Response::builder()
        .header("content-type", "application/json")
        .body(())?;
    let mut outgoing = respond.send_response(reply, false)?;
    outgoing.send_data(text.into(), true)?;
    Ok(())
}
