//! Requests: which pass, which are refused, and what is told of both.

use std::net::IpAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::RootCertStore;

use super::world::{Certificate, NAME, REAL, SOON, World, authority, echo, inspect, mail, talk};
use crate::envelope::{spec::Said, why::Why};

#[tokio::test]
async fn a_mail_to_whom_the_operator_named_passes() {
    let mut world = World::new(inspect("enforce"), echo).await;
    world.shared.ledger().operator("ann@example.org");
    let body = r#"{"To":"ann@example.org"}"#;
    let answer = talk(&mut world.client(NAME).await.unwrap(), &mail(body)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(body), "{answer}");
    assert_eq!(world.told().await, (0, Some(200)));
}

#[tokio::test]
async fn a_hidden_recipient_is_refused_before_the_server_sees_anything() {
    let mut world = World::new(inspect("enforce"), echo).await;
    world.shared.ledger().operator("ann@example.org");
    let body = r#"{"To":"ann@example.org","Bcc":"eve@example.net"}"#;
    let answer = talk(&mut world.client(NAME).await.unwrap(), &mail(body)).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    let json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(
        json.get("Message")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("eve@example.net"),
        "{json:?}"
    );
    assert_eq!(json.get("ErrorCode").unwrap(), 403);
    assert_eq!(world.told().await, (1, Some(403)));
}

#[tokio::test]
async fn where_only_a_report_is_wanted_it_passes_and_is_told() {
    let mut world = World::new(inspect("report"), echo).await;
    let body = r#"{"Bcc":"eve@example.net"}"#;
    let answer = talk(&mut world.client(NAME).await.unwrap(), &mail(body)).await;
    assert!(answer.ends_with(body), "{answer}");
    assert_eq!(world.told().await, (1, Some(200)));
    // Longer than what is judged: refused, and carried whole.
    let long = format!(r#"{{"To":"{}"}}"#, "x".repeat(100_000));
    let answer = talk(&mut world.client(NAME).await.unwrap(), &mail(&long)).await;
    assert!(answer.ends_with(&long), "{} bytes", answer.len());
    assert!(matches!(world.next().await, Said::Operation { refusals, .. } if refusals.len() == 1));
}

#[tokio::test]
async fn what_the_judgement_does_not_need_is_streamed_both_ways() {
    let world = World::new(inspect("enforce"), echo).await;
    let mut client = world.client(NAME).await.unwrap();
    let data = "0123456789".repeat(100_000);
    let head = format!("PUT /file HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n");
    let known = format!("{head}Content-Length: {}\r\n\r\n{data}", data.len());
    let answer = talk(&mut client, &known).await;
    assert!(answer.ends_with(&data), "{} bytes", answer.len());
    let mut client = world.client(NAME).await.unwrap();
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let answer = talk(&mut client, &chunked).await;
    assert!(
        answer.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let world = World::new(inspect("enforce"), echo).await;
    let mut client = world.client(NAME).await.unwrap();
    let one = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let last = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    // Two at once, and a third behind them.
    let answer = talk(&mut client, &format!("{one}{one}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[tokio::test]
async fn the_rest_of_a_connection_ends_with_a_refusal() {
    let world = World::new(inspect("enforce"), echo).await;
    let mut client = world.client(NAME).await.unwrap();
    let good = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let bad = format!("GET /other HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let answer = talk(&mut client, &format!("{good}{bad}{good}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
    assert_eq!(
        answer.matches("HTTP/1.1 403 Forbidden").count(),
        1,
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_is_asked_for_once_the_head_has_passed() {
    let world = World::new(inspect("enforce"), echo).await;
    for (path, method) in [("/email", "POST"), ("/file", "PUT")] {
        let mut client = world.client(NAME).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut line = [0; 25];
        timeout(SOON, client.read_exact(&mut line))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        let answer = talk(&mut client, "{}").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    let mut client = world.client(NAME).await.unwrap();
    let head = format!(
        "POST /other HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    );
    assert!(talk(&mut client, &head).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn the_name_in_tls_is_the_name_that_was_called() {
    let mut world = World::new(inspect("enforce"), echo).await;
    assert!(world.client("elsewhere.example").await.is_err());
    assert_eq!(
        world.lost().await,
        Why::OtherName(Some("elsewhere.example".to_owned()))
    );
    assert!(world.client("127.77.0.1").await.is_err());
    assert_eq!(world.lost().await, Why::OtherName(None));
}

#[tokio::test]
async fn a_program_that_does_not_trust_the_proxy_is_told_of() {
    let mut world = World::new(inspect("enforce"), echo).await;
    let mut roots = RootCertStore::empty();
    roots.add(authority("its own").der().clone()).unwrap();
    assert!(world.trusting(NAME, roots).await.is_err());
    assert!(matches!(world.lost().await, Why::Distrusted(_)));
}

#[tokio::test]
async fn what_is_not_tls_ends() {
    let mut world = World::new(inspect("enforce"), echo).await;
    let mut plain = TcpStream::connect(world.called).await.unwrap();
    plain
        .write_all(b"GET /server HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // An alert, or nothing; never an answer.
    let _ended = timeout(SOON, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(world.lost().await, Why::NotTls);
}

#[tokio::test]
async fn servers_are_verified() {
    for (certificate, expected) in [
        (Certificate::Expired, Why::Expired),
        (
            Certificate::OtherName,
            Why::WrongName(vec!["elsewhere.example".to_owned()]),
        ),
        (Certificate::Stranger, Why::UnknownIssuer),
        (Certificate::WantsClient, Why::ClientCertificate),
    ] {
        let mut world = World::with(inspect("enforce"), echo, certificate).await;
        let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        let answer = talk(&mut world.client(NAME).await.unwrap(), &get).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(matches!(
            world.next().await,
            Said::Operation {
                status: Some(502),
                ..
            }
        ));
        assert_eq!(world.lost().await, expected);
    }
}

#[tokio::test]
async fn addresses_that_do_not_answer_do_not_matter() {
    let world = World::new(inspect("enforce"), echo).await;
    let dead = ["127.88.0.1", "::1", "127.88.0.2"].map(|text| text.parse().unwrap());
    let addresses = dead.into_iter().chain([IpAddr::V4(REAL)]).collect();
    world.shared.is_at(NAME.to_owned(), addresses);
    let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    let answer = talk(&mut world.client(NAME).await.unwrap(), &get).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn what_the_agent_has_ordered_is_known_before_a_request_is_judged() {
    let world = World::new(inspect("enforce"), echo).await;
    world
        .ordered
        .lock()
        .unwrap()
        .push("ann@example.org".to_owned());
    let body = r#"{"To":"ann@example.org"}"#;
    let answer = talk(&mut world.client(NAME).await.unwrap(), &mail(body)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn a_rule_that_changes_holds_for_the_next_request() {
    let world = World::new(inspect("enforce"), echo).await;
    let mut client = world.client(NAME).await.unwrap();
    let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    client.write_all(get.as_bytes()).await.unwrap();
    let mut begin = [0; 15];
    timeout(SOON, client.read_exact(&mut begin))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    let mut closed = inspect("enforce");
    closed.service.operations.clear();
    world.shared.inspect([(NAME.to_owned(), closed)].into());
    let answer = talk(&mut client, &get).await;
    assert!(answer.contains("HTTP/1.1 403 Forbidden"), "{answer}");
}

/// Answers once, and ends a moment later.
fn once(mut tls: tokio_rustls::server::TlsStream<TcpStream>) -> super::world::BoxFuture {
    Box::pin(async move {
        let _request = super::world::request(&mut tls).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        tls.write_all(answer).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        tls.shutdown().await.unwrap();
    })
}

#[tokio::test]
async fn a_server_that_ends_an_idle_connection_ends_the_programs() {
    let world = World::new(inspect("enforce"), once).await;
    let mut client = world.client(NAME).await.unwrap();
    let get = format!("GET /server HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    let answer = talk(&mut client, &get).await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
}
