//! Answers: every form in which one can end, and those that do not end properly.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use super::world::{BoxFuture, NAME, SOON, World, inspect, request, talk};
use crate::envelope::{spec::Said, why::Why};

/// Answers by the request's first field, `X: FORM`, and ends.
fn forms(mut tls: TlsStream<TcpStream>) -> BoxFuture {
    Box::pin(async move {
        let Some(request) = request(&mut tls).await else {
            return;
        };
        let request = String::from_utf8(request).unwrap();
        let form = request.lines().find_map(|line| line.strip_prefix("x: "));
        let parts: &[&str] = match form.unwrap() {
            "chunked" => &[
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
                "c\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n",
            ],
            "close" => &["HTTP/1.0 200 OK\r\n\r\n", "until ", "the end"],
            "hints" => &[
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
                "HTTP/1.1 204 No Content\r\n\r\n",
            ],
            "head" => &["HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"],
            "unchanged" => &["HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"],
            "switch" => &["HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"],
            "garbage" => &["220 mail.example ESMTP\r\n\r\n"],
            "nothing" => &[],
            "half" => &["HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nonly this"],
            other => panic!("{other}"),
        };
        for part in parts {
            tls.write_all(part.as_bytes()).await.unwrap();
            tls.flush().await.unwrap();
        }
        if form != Some("half") {
            tls.shutdown().await.unwrap();
        }
    })
}

fn get(method: &str, version: &str, form: &str) -> String {
    format!("{method} /server HTTP/{version}\r\nHost: {NAME}\r\nX: {form}\r\n\r\n")
}

async fn answer(method: &str, version: &str, form: &str) -> String {
    let world = World::new(inspect("enforce"), forms).await;
    let mut client = world.client(NAME).await.unwrap();
    talk(&mut client, &get(method, version, form)).await
}

#[tokio::test]
async fn answers_end_where_the_server_ends_them() {
    let chunked = answer("GET", "1.1", "chunked").await;
    let (head, body) = chunked.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    assert!(body.ends_with("2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"), "{body}");

    let close = answer("GET", "1.1", "close").await;
    let expected = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end";
    assert_eq!(close, expected);

    let hints = answer("GET", "1.1", "hints").await;
    let expected = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(hints, expected);

    for (method, form) in [("HEAD", "head"), ("GET", "unchanged")] {
        let bodiless = answer(method, "1.1", form).await;
        assert!(
            bodiless.ends_with("Content-Length: 99\r\n\r\n"),
            "{bodiless}"
        );
    }
}

#[tokio::test]
async fn old_clients_get_no_chunks_and_no_hints() {
    let chunked = answer("GET", "1.0", "chunked").await;
    let expected = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde";
    assert_eq!(chunked, expected);
    let hints = answer("GET", "1.0", "hints").await;
    assert_eq!(
        hints,
        "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    );
}

#[tokio::test]
async fn what_is_no_answer_is_told_of() {
    for form in ["switch", "garbage", "nothing"] {
        let mut world = World::new(inspect("enforce"), forms).await;
        let mut client = world.client(NAME).await.unwrap();
        let answer = talk(&mut client, &get("GET", "1.1", form)).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{form}: {answer}");
        assert!(matches!(
            world.next().await,
            Said::Operation {
                status: Some(502),
                ..
            }
        ));
        let why = world.lost().await;
        match form {
            "nothing" => assert!(matches!(why, Why::Silent(_)), "{why:?}"),
            _ => assert!(matches!(why, Why::Garbled(_)), "{form}: {why:?}"),
        }
    }
}

#[tokio::test]
async fn half_an_answer_does_not_end_properly() {
    let world = World::new(inspect("enforce"), forms).await;
    let mut client = world.client(NAME).await.unwrap();
    client
        .write_all(get("GET", "1.1", "half").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = timeout(SOON, client.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(answer.ends_with(b"only this"));
    assert!(read.is_err());
}

/// Answers before it has read the body, and reads no more.
fn hasty(mut tls: TlsStream<TcpStream>) -> BoxFuture {
    Box::pin(async move {
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|it| it == b"\r\n\r\n") {
            tls.read_buf(&mut bytes).await.unwrap();
        }
        let answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!";
        tls.write_all(answer).await.unwrap();
        tls.shutdown().await.unwrap();
        tokio::time::sleep(SOON).await;
    })
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_whole() {
    let world = World::new(inspect("enforce"), hasty).await;
    let mut client = world.client(NAME).await.unwrap();
    let head = format!("PUT /file HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100000000\r\n\r\n");
    let answer = talk(&mut client, &(head + &"x".repeat(1000))).await;
    assert!(answer.starts_with("HTTP/1.1 413 Too Large\r\n"), "{answer}");
    assert!(answer.ends_with("Connection: close\r\n\r\nno!"), "{answer}");
}

/// Sends an event each time it is asked by a byte of the body.
fn events(mut tls: TlsStream<TcpStream>) -> BoxFuture {
    Box::pin(async move {
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|it| it == b"\r\n\r\n") {
            tls.read_buf(&mut bytes).await.unwrap();
        }
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        tls.write_all(head).await.unwrap();
        loop {
            // The first one may have come with the head.
            while bytes.last() == Some(&b'.') {
                bytes.pop();
                tls.write_all(b"data: x\n\n").await.unwrap();
            }
            if !matches!(tls.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
        }
    })
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let world = World::new(inspect("enforce"), events).await;
    let mut client = world.client(NAME).await.unwrap();
    let head = format!("PUT /file HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 10\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    for count in 1..=10 {
        client.write_all(b".").await.unwrap();
        while seen.windows(9).filter(|it| it == b"data: x\n\n").count() < count {
            timeout(SOON, client.read_buf(&mut seen))
                .await
                .unwrap()
                .unwrap();
        }
    }
}
