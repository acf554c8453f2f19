//! What is spoken with whom, and connections to servers that are kept.

use std::{sync::atomic::Ordering, time::Duration};

use h2::Reason;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{
    floods::frame,
    twos::{ask, client, head, serves},
    world::{BoxFuture, Certificate, NAME, World, echo, inspect, mail, request, talk},
};

async fn chosen(world: &World, offered: &[&str]) -> Option<String> {
    let tls = world.speaks(offered).await.unwrap();
    let chosen = tls.get_ref().1.alpn_protocol();
    chosen.map(|it| String::from_utf8(it.to_vec()).unwrap())
}

#[tokio::test]
async fn programs_are_served_with_what_the_server_chooses() {
    let both: &[&str] = &["h2", "http/1.1"];
    for (spoken, offered, expected) in [
        (both, both, Some("h2")),
        (&["http/1.1"], both, Some("http/1.1")),
        (&[], both, Some("http/1.1")),
        (&["h2"], both, Some("h2")),
        (both, &["http/1.1"], Some("http/1.1")),
        (both, &["h2"], Some("h2")),
        (both, &[], None),
    ] {
        let world = World::speaking(inspect("enforce"), serves, Certificate::Good, spoken).await;
        let tried = format!("{spoken:?} {offered:?}");
        // Once it is asked, then it is known.
        for _ in 0..2 {
            assert_eq!(
                chosen(&world, offered).await.as_deref(),
                expected,
                "{tried}"
            );
        }
        assert!(world.taken.load(Ordering::SeqCst) <= 1, "{tried}");
    }
    let world = World::new(inspect("enforce"), echo).await;
    assert!(world.speaks(&["acme-tls/1"]).await.is_err());
}

#[tokio::test]
async fn a_server_that_is_not_reached_is_told_of_by_an_answer() {
    let both = &["h2", "http/1.1"];
    let world = World::speaking(inspect("enforce"), serves, Certificate::Expired, both).await;
    let mut tls = world.speaks(both).await.unwrap();
    let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let answer = talk(&mut tls, &get).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    // It was asked once.
    assert_eq!(world.taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn connections_to_the_server_are_kept() {
    let world = World::new(inspect("enforce"), echo).await;
    world.shared.ledger().operator("ann@example.org");
    let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    for _ in 0..5 {
        let answer = talk(&mut world.client(NAME).await.unwrap(), &get).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // What is for the proxy alone is not told to the server.
        let (_, read) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            read.starts_with("GET /server") && !read.contains("onnection"),
            "{read}"
        );
    }
    assert_eq!(world.taken.load(Ordering::SeqCst), 1);
    // What must not be sent twice has a connection that nobody has used.
    let body = r#"{"To":"ann@example.org"}"#;
    let answer = talk(&mut world.client(NAME).await.unwrap(), &mail(body)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.taken.load(Ordering::SeqCst), 2);
}

/// Answers once on each connection, and ends it with the next request.
fn moody(mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> BoxFuture {
    Box::pin(async move {
        request(&mut tls).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        tls.write_all(answer).await.unwrap();
        tls.flush().await.unwrap();
        request(&mut tls).await;
    })
}

#[tokio::test]
async fn a_kept_connection_that_ends_is_none_of_the_programs_business() {
    let world = World::new(inspect("enforce"), moody).await;
    let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    for _ in 0..3 {
        let answer = talk(&mut world.client(NAME).await.unwrap(), &get).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(world.taken.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn connections_in_http_2_are_kept_and_made_anew() {
    let world = World::speaking(inspect("enforce"), serves, Certificate::Good, &["h2"]).await;
    for _ in 0..3 {
        let client = client(&world).await;
        let answer = ask(&client, head("GET", "/server", &[]), None)
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        drop(client);
        // It is free when the proxy has seen the program's end.
        sleep(Duration::from_millis(200)).await;
    }
    assert!(world.taken.load(Ordering::SeqCst) < 3);
    // The name is elsewhere now, and the old place is not granted.
    let elsewhere = vec!["127.0.0.2".parse().unwrap()];
    world.shared.is_at(NAME.to_owned(), elsewhere);
    let client = client(&world).await;
    let answer = ask(&client, head("GET", "/server", &[]), None)
        .await
        .unwrap();
    assert_eq!(answer.status, 502);
}

/// Ends the connection as soon as a stream comes, and has looked at none.
fn leaves(mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> BoxFuture {
    Box::pin(async move {
        tls.write_all(&frame(4, 0, 0, b"")).await.unwrap();
        tls.flush().await.unwrap();
        let mut said = Vec::new();
        while !has_head(said.get(24..).unwrap_or_default()) {
            tls.read_buf(&mut said).await.unwrap();
        }
        tls.write_all(&frame(7, 0, 0, &[0; 8])).await.unwrap();
        tls.flush().await.unwrap();
        drop(tls.read_to_end(&mut said).await);
    })
}

/// Whether a whole head is among the frames.
fn has_head(mut frames: &[u8]) -> bool {
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        if rest.len() >= length && head[3] == 1 {
            return true;
        }
        frames = rest.get(length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_stream_that_the_server_has_not_looked_at_may_be_sent_again() {
    let world = World::speaking(inspect("enforce"), leaves, Certificate::Good, &["h2"]).await;
    let client = client(&world).await;
    let chat = head("POST", "/chat", &[("x", "hasty")]);
    let refused = ask(&client, chat, Some("x".into())).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::REFUSED_STREAM));
    // Not by the proxy, which cannot know whether it should.
    assert_eq!(world.taken.load(Ordering::SeqCst), 1);
}

/// On its first connection it answers once, and is not heard of again.
fn falls_asleep(tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> BoxFuture {
    static AWAKE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if AWAKE.swap(true, Ordering::SeqCst) {
        return serves(tls);
    }
    Box::pin(async move {
        let mut once = serves(tls);
        drop(timeout(Duration::from_secs(2), &mut once).await);
        std::future::pending::<()>().await;
    })
}

#[tokio::test]
async fn a_connection_in_http_2_that_died_unnoticed_is_not_used() {
    let world = World::speaking(inspect("enforce"), falls_asleep, Certificate::Good, &["h2"]).await;
    let client = client(&world).await;
    let look = head("GET", "/server", &[]);
    assert_eq!(ask(&client, look, None).await.unwrap().status, 200);
    sleep(Duration::from_secs(6)).await;
    let chat = head("POST", "/chat", &[("x", "hasty")]);
    let answer = ask(&client, chat, Some("x".into())).await;
    assert_eq!(answer.unwrap().status, 413);
    assert_eq!(world.taken.load(Ordering::SeqCst), 2);
}
