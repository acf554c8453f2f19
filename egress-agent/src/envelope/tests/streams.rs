//! Streams in HTTP/2: which pass, which are refused, and what becomes of the rest.

use std::{future::poll_fn, sync::atomic::Ordering};

use bytes::Bytes;
use h2::Reason;
use tokio::{task::JoinSet, time::timeout};

use super::{
    twos::{HEARD, RESETS, ask, client, head, put, serves},
    world::{Certificate, SOON, World, inspect},
};
use crate::envelope::{spec::Said, why::Why};

async fn world(mode: &str) -> World {
    World::speaking(inspect(mode), serves, Certificate::Good, &["h2"]).await
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test]
async fn streams_are_judged_one_by_one() {
    let mut world = world("enforce").await;
    world.shared.ledger().operator("ann@example.org");
    let client = client(&world).await;
    let good = r#"{"To":"ann@example.org"}"#;
    let bad = r#"{"To":"ann@example.org","Bcc":"eve@example.net"}"#;
    for _ in 0..2 {
        let answer = ask(&client, head("POST", "/email", &JSON), Some(good.into())).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, good));
        assert_eq!(world.told().await, (0, Some(200)));

        let answer = ask(&client, head("POST", "/email", &JSON), Some(bad.into())).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 403);
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let message = json.get("Message").unwrap().as_str().unwrap();
        assert!(message.contains("eve@example.net"), "{json:?}");
        assert_eq!(world.told().await, (1, Some(403)));
    }
}

#[tokio::test]
async fn where_only_a_report_is_wanted_streams_pass_and_are_told() {
    let mut world = world("report").await;
    let client = client(&world).await;
    let bad = r#"{"Bcc":"eve@example.net"}"#;
    let long = format!(r#"{{"To":"{}"}}"#, "x".repeat(100_000));
    for body in [bad, &long] {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = ask(&client, head("POST", "/email", &JSON), Some(body.clone())).await;
        assert_eq!(answer.unwrap().body.as_bytes(), body);
        assert!(
            matches!(world.next().await, Said::Operation { refusals, .. } if refusals.len() == 1)
        );
    }
}

#[tokio::test]
async fn the_server_reads_what_was_judged() {
    let world = world("enforce").await;
    let client = client(&world).await;
    let fields = [("te", "trailers"), ("x-two", "1"), ("x-two", "2")];
    let answer = ask(&client, head("GET", "/server?a=b", &fields), None)
        .await
        .unwrap();
    let expected = "GET https://api.mail.example/server?a=b\nte: trailers\nx-two: 1\nx-two: 2\n";
    assert_eq!(answer.body, expected);
}

#[tokio::test]
async fn streams_for_others_and_in_two_readings_are_refused() {
    let world = world("enforce").await;
    let client = client(&world).await;
    let mut other = head("GET", "/server", &[]);
    *other.uri_mut() = "https://evil.example/server".parse().unwrap();
    let mut port = head("GET", "/server", &[]);
    *port.uri_mut() = "https://api.mail.example:1/server".parse().unwrap();
    let mut plain = head("GET", "/server", &[]);
    *plain.uri_mut() = "http://api.mail.example/server".parse().unwrap();
    for request in [
        other,
        port,
        plain,
        head("GET", "/server", &[("host", "evil.example")]),
        head("GET", "/server", &[("x-http-method-override", "POST")]),
        head("GET", "/a/../server", &[]),
        head("GET", "//server", &[]),
        head("GET", "/nothing", &[]),
    ] {
        let text = format!("{request:?}");
        assert_eq!(
            ask(&client, request, None).await.unwrap().status,
            403,
            "{text}"
        );
    }
    let control = head("GET", "/server", &[("host", "api.mail.example")]);
    assert_eq!(ask(&client, control, None).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says() {
    let world = world("enforce").await;
    for length in ["5", "1"] {
        let client = client(&world).await;
        let fields = [
            ("content-type", "application/json"),
            ("content-length", length),
        ];
        let answer = ask(&client, head("POST", "/email", &fields), Some("{ }".into())).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let client = client(&world).await;
    let fields = [
        ("content-type", "application/json"),
        ("content-length", "3"),
    ];
    let answer = ask(&client, head("POST", "/email", &fields), Some("{ }".into())).await;
    assert_eq!(answer.unwrap().body, "{ }");
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_not_read_on() {
    let world = world("enforce").await;
    let client = client(&world).await;
    let long = Bytes::from(vec![b' '; 4 << 20]);
    let answer = ask(&client, head("POST", "/email", &JSON), Some(long)).await;
    assert_eq!(answer.unwrap().status, 403);
    // The connection lives on.
    let next = ask(&client, head("GET", "/server", &[]), None).await;
    assert_eq!(next.unwrap().status, 200);
}

#[tokio::test]
async fn what_needs_no_judging_is_streamed_with_its_trailers() {
    let world = world("enforce").await;
    let client = client(&world).await;
    let data = Bytes::from("0123456789".repeat(1_000_000));
    let answer = ask(&client, head("PUT", "/file", &[]), Some(data.clone())).await;
    let answer = answer.unwrap();
    assert_eq!(answer.body.as_bytes(), data);
    assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), "0");
}

#[tokio::test]
async fn messages_go_to_and_fro_on_one_stream() {
    let world = world("enforce").await;
    let mut client = client(&world).await.ready().await.unwrap();
    let (response, mut stream) = client
        .send_request(head("PUT", "/file", &[]), false)
        .unwrap();
    put(&mut stream, "0".into()).await;
    let mut body = timeout(SOON, response).await.unwrap().unwrap().into_body();
    for turn in 0..10 {
        let piece = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(piece, turn.to_string());
        put(&mut stream, (turn + 1).to_string().into()).await;
    }
}

#[tokio::test]
async fn interim_answers_and_hasty_ones_are_passed_on() {
    let world = world("enforce").await;
    let client = client(&world).await;
    let mut own = client.clone().ready().await.unwrap();
    let hints = head("POST", "/chat", &[("x", "hints")]);
    let (mut response, _stream) = own.send_request(hints, true).unwrap();
    let interim = poll_fn(|cx| response.poll_informational(cx));
    let interim = timeout(SOON, interim).await.unwrap().unwrap().unwrap();
    assert_eq!(interim.status(), 103);
    assert_eq!(interim.headers().get("link").unwrap(), "</a>");
    assert_eq!(
        timeout(SOON, response).await.unwrap().unwrap().status(),
        204
    );

    // A server that gives nothing else than hints.
    let undecided = head("POST", "/chat", &[("x", "undecided")]);
    assert_eq!(ask(&client, undecided, None).await.unwrap().status, 502);

    let long = Bytes::from(vec![b' '; 4 << 20]);
    let hasty = head("POST", "/chat", &[("x", "hasty")]);
    assert_eq!(ask(&client, hasty, Some(long)).await.unwrap().status, 413);

    let mut own = client.clone().ready().await.unwrap();
    let waits = head("PUT", "/file", &[("expect", "100-continue")]);
    let (mut response, mut stream) = own.send_request(waits, false).unwrap();
    let interim = poll_fn(|cx| response.poll_informational(cx));
    let interim = timeout(SOON, interim).await.unwrap().unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    stream.send_data("x".into(), true).unwrap();
    assert_eq!(
        timeout(SOON, response).await.unwrap().unwrap().status(),
        200
    );
}

#[tokio::test]
async fn ends_are_passed_on_both_ways() {
    let world = world("enforce").await;
    let client = client(&world).await;
    let reset = ask(&client, head("POST", "/chat", &[("x", "reset")]), None).await;
    assert_eq!(
        reset.unwrap_err().reason(),
        Some(Reason::INADEQUATE_SECURITY)
    );
    let half = ask(&client, head("POST", "/chat", &[("x", "half")]), None).await;
    assert_eq!(half.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));

    let mut own = client.clone().ready().await.unwrap();
    let endless = head("POST", "/chat", &[("x", "until-reset")]);
    let (response, mut stream) = own.send_request(endless, false).unwrap();
    timeout(SOON, response).await.unwrap().unwrap();
    let before = RESETS.load(Ordering::SeqCst);
    stream.send_reset(Reason::CANCEL);
    let heard = async {
        while RESETS.load(Ordering::SeqCst) == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, heard).await.unwrap();
}

#[tokio::test]
async fn a_program_that_goes_away_at_once_is_told_of() {
    let mut world = world("enforce").await;
    let tls = world.speaks(&["h2"]).await.unwrap();
    let (send, connection) = h2::client::handshake(tls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut own = send.ready().await.unwrap();
    let silent = head("POST", "/chat", &[("x", "silent")]);
    let waits = own.send_request(silent, true).unwrap();
    timeout(SOON, HEARD.notified()).await.unwrap();
    connection.abort();
    let told = world.next().await;
    assert!(
        matches!(told, Said::Operation { status: None, .. }),
        "{told:?}"
    );
    drop(waits);
}

#[tokio::test]
async fn a_thousand_streams_at_a_time() {
    let world = world("enforce").await;
    world.shared.ledger().operator("ann@example.org");
    let client = client(&world).await;
    let mut streams = JoinSet::new();
    for number in 0..1_000 {
        let client = client.clone();
        streams.spawn(async move {
            let (to, expected) = match number % 4 {
                0 => ("eve@example.net", 403),
                _ => ("ann@example.org", 200),
            };
            let body = format!(r#"{{"To":"{to}","Number":{number}}}"#);
            let request = head("POST", "/email", &JSON);
            let answer = ask(&client, request, Some(body.clone().into()))
                .await
                .unwrap();
            assert_eq!(answer.status, expected);
            assert!(expected == 403 || answer.body == body);
        });
    }
    while let Some(done) = streams.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.taken.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn servers_in_http_2_are_verified() {
    for (certificate, expected) in [
        (Certificate::Expired, Why::Expired),
        (Certificate::Stranger, Why::UnknownIssuer),
        (Certificate::WantsClient, Why::ClientCertificate),
    ] {
        let mut world = World::speaking(inspect("enforce"), serves, certificate, &["h2"]).await;
        let client = client(&world).await;
        let answer = ask(&client, head("GET", "/server", &[]), None)
            .await
            .unwrap();
        assert_eq!(answer.status, 502, "{answer:?}");
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
