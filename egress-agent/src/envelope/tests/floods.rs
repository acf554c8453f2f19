//! Programs that want too much.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use h2::Reason;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    twos::{ask, client, head, put, serves},
    world::{Certificate, NAME, SOON, World, inspect},
};
use crate::envelope::spec::Said;

async fn world() -> World {
    World::speaking(inspect("enforce"), serves, Certificate::Good, &["h2"]).await
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 section 4.1.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length.get(1..).unwrap().to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A head for `GET https://NAME/server`, without anything that HPACK would remember.
fn headers() -> Vec<u8> {
    let mut out = vec![0x82, 0x87];
    for (index, value) in [(4_u8, "/server"), (1, NAME)] {
        out.push(index);
        out.push(u8::try_from(value.len()).unwrap());
        out.extend(value.as_bytes());
    }
    out
}

/// Sends frames for as long as they are taken. Answers with what the proxy ended the connection:
/// the error of its last frame (RFC 9113 section 6.8).
async fn flood(world: &World, number: u32, frames: impl Fn(u32) -> Vec<u8>) -> Option<Reason> {
    let patience = match number {
        1 => Duration::from_secs(1),
        _ => SOON,
    };
    let tls = world.speaks(&["h2"]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(tls);
    writer.write_all(PREFACE).await.unwrap();
    writer.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    let flood = async {
        for number in 0..number {
            if writer.write_all(&frames(number)).await.is_err() {
                break;
            }
        }
        pending::<()>().await;
    };
    let mut said = Vec::new();
    let ended = async { drop(reader.read_to_end(&mut said).await) };
    tokio::select! {
        () = flood => {}
        _ = timeout(patience, ended) => {}
    }
    let mut rest = said.as_slice();
    let mut reason = None;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (payload, after) = after.split_at_checked(usize::try_from(length).unwrap())?;
        if head[3] == 7 {
            let code = payload.get(4..8).unwrap().try_into().unwrap();
            reason = Some(u32::from_be_bytes(code).into());
        }
        rest = after;
    }
    reason
}

/// Sends one frame that opens a stream. Answers the kind of the first frame that decides about it.
async fn decided(world: &World, frame_sent: &[u8]) -> u8 {
    let mut tls = world.speaks(&["h2"]).await.unwrap();
    let begun = [PREFACE, &frame(4, 0, 0, b""), frame_sent].concat();
    tls.write_all(&begun).await.unwrap();
    tls.flush().await.unwrap();
    loop {
        let mut head = [0; 9];
        timeout(SOON, tls.read_exact(&mut head))
            .await
            .unwrap()
            .unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        tls.read_exact(&mut payload).await.unwrap();
        if [1, 3, 7].contains(&head[3]) {
            return head[3];
        }
    }
}

#[tokio::test]
async fn heads_that_are_not_proper_reach_nobody() {
    let mut world = world().await;
    let field = |name: &str, value: &str| {
        let mut out = vec![0];
        for text in [name, value] {
            out.push(u8::try_from(text.len()).unwrap());
            out.extend(text.as_bytes());
        }
        out
    };
    let behind = |name, value| [headers(), field(name, value)].concat();
    for (what, block) in [
        (
            "a pseudo field behind others",
            [field("x", "1"), headers()].concat(),
        ),
        ("two paths", behind(":path", "/email")),
        ("two authorities", behind(":authority", NAME)),
        ("a protocol", behind(":protocol", "websocket")),
        ("a status", behind(":status", "200")),
        ("a connection's field", behind("connection", "x")),
        ("an encoding", behind("transfer-encoding", "chunked")),
        ("capitals", behind("X-A", "1")),
        ("a line end", behind("x", "a\r\nhost: b")),
    ] {
        let kind = decided(&world, &frame(1, 5, 1, &block)).await;
        assert!([3, 7].contains(&kind), "{what}: {kind}");
    }
    while let Ok(said) = world.said.try_recv() {
        assert!(!matches!(said, Said::Operation { .. }), "{said:?}");
    }
    assert_eq!(decided(&world, &frame(1, 5, 1, &headers())).await, 1);
    // Padding says nothing.
    let padded = [&[4], headers().as_slice(), &[0; 4]].concat();
    assert_eq!(decided(&world, &frame(1, 13, 1, &padded)).await, 1);
}

const CALM: Option<Reason> = Some(Reason::ENHANCE_YOUR_CALM);

async fn others_are_served(world: &World) {
    let client = client(world).await;
    let answer = ask(&client, head("GET", "/server", &[]), None)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn streams_that_are_reset_as_they_come_end_the_connection() {
    let world = world().await;
    let frames = |number: u32| {
        let stream = number * 2 + 1;
        let mut out = frame(1, 5, stream, &headers());
        out.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
        out
    };
    assert_eq!(flood(&world, 1, frames).await, None);
    assert_eq!(flood(&world, 200_000, frames).await, CALM);
    others_are_served(&world).await;
}

#[tokio::test]
async fn heads_without_an_end_end_the_connection() {
    let world = world().await;
    let frames = |number: u32| match number {
        0 => frame(1, 1, 1, &headers()),
        _ => frame(9, 0, 1, b""),
    };
    assert_eq!(flood(&world, 1, frames).await, None);
    assert_eq!(flood(&world, 200_000, frames).await, CALM);
    others_are_served(&world).await;
}

/// The answers to these have to be sent, and are not read.
#[tokio::test]
async fn what_asks_for_answers_is_not_read_faster_than_they_are() {
    let world = world().await;
    for frames in [frame(4, 0, 0, b""), frame(6, 0, 0, b"12345678")] {
        let mut tls = world.speaks(&["h2"]).await.unwrap();
        tls.write_all(PREFACE).await.unwrap();
        tls.write_all(&frame(4, 0, 0, b"")).await.unwrap();
        let piece = frames.repeat(1_000);
        let mut sent = 0_usize;
        while let Ok(Ok(())) = timeout(Duration::from_millis(500), tls.write_all(&piece)).await {
            sent += piece.len();
            assert!(sent < 64 << 20, "{sent}");
        }
        others_are_served(&world).await;
    }
}

#[tokio::test]
async fn data_in_tiny_pieces_ends_the_connection() {
    let world = world().await;
    for piece in [b"".as_slice(), b"x"] {
        // Bodies that nobody reads as fast: they come to many streams in turn.
        let frames = |number: u32| {
            let stream = number % 64 * 2 + 1;
            match number {
                0..64 => {
                    let mut head = vec![0x83, 0x87, 4, 5];
                    head.extend(b"/file");
                    head.extend(headers().get(11..).unwrap());
                    let method = vec![2, 3, b'P', b'U', b'T'];
                    frame(1, 4, stream, &[&method, head.get(1..).unwrap()].concat())
                }
                _ => frame(0, 0, stream, piece),
            }
        };
        assert_eq!(flood(&world, 1, frames).await, None);
        assert_eq!(flood(&world, 200_000, frames).await, CALM, "{piece:?}");
    }
    others_are_served(&world).await;
}

#[tokio::test]
async fn what_a_program_does_not_read_waits_with_the_server() {
    let world = world().await;
    let mut own = client(&world).await.ready().await.unwrap();
    let (response, mut stream) = own.send_request(head("PUT", "/file", &[]), false).unwrap();
    // What comes back is not read, so that nothing more is taken at some time.
    let piece = Bytes::from(vec![0; 16 << 10]);
    let mut sent = 0_usize;
    loop {
        stream.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let Ok(room) = timeout(Duration::from_millis(500), room).await else {
            break;
        };
        let length = room.unwrap().unwrap().min(piece.len());
        stream.send_data(piece.slice(..length), false).unwrap();
        sent += length;
        assert!(sent < 16 << 20, "{sent}");
    }
    drop(response);
    others_are_served(&world).await;
}

/// More bodies at a time than there is room for.
#[tokio::test]
async fn bodies_that_wait_for_room_do_not_hold_up_those_that_have_it() {
    let mut inspect = inspect("enforce");
    // Sixteen of them fill all the room that there is.
    inspect.limits.body = 4 << 20;
    let world = World::speaking(inspect, serves, Certificate::Good, &["h2"]).await;
    world.shared.ledger().operator("ann@example.org");
    let client = client(&world).await;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        streams.spawn(async move {
            let text = format!(
                r#"{{"To":"ann@example.org","Text":"{}"}}"#,
                "x".repeat(200_000)
            );
            let request = head("POST", "/email", &[("content-type", "application/json")]);
            let answer = ask(&client, request, Some(text.into())).await;
            answer.unwrap().status
        });
    }
    while let Some(status) = streams.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_hold_up_others() {
    let world = world().await;
    let mut unread = Vec::new();
    for _ in 0..10 {
        // Each with a connection of its own, at the server too.
        let mut own = client(&world).await.ready().await.unwrap();
        let large = head("PUT", "/file", &[]);
        let (response, mut stream) = own.send_request(large, false).unwrap();
        let answer = timeout(SOON, response).await.unwrap().unwrap();
        let data = Bytes::from(vec![0; 3 << 20]);
        let sent = tokio::spawn(async move { put(&mut stream, data).await });
        unread.push((own, answer, sent));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    others_are_served(&world).await;
    let other = client(&world).await;
    let answer = ask(&other, head("PUT", "/file", &[]), Some("x".into())).await;
    assert_eq!(answer.unwrap().body, "x");
}
