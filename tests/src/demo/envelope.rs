//! The last act: a hidden recipient inside a permitted call. The client and the server are made
//! with the published SDK, and the policy has no list of recipients.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Row, Screen};
use crate::{
    agent::SHOWN_WITHIN,
    event::Event,
    mcp::{Sdk, Session},
    world::World,
    zone,
};

const POLICY: &str = include_str!("../../fixtures/postmark-inspect.yaml");
const STRANGER: &str = "phan@giftshop.club";
/// So many mails are honest.
const HONEST: u32 = 2;

/// Plays it and prints it. A row for each mail.
pub(super) fn play(screen: &mut Screen) -> Result<Vec<Row>> {
    screen.title("\nThe same service, judged by what is in the call")?;
    screen.text(
        "Each request is read, and its recipients are held against what the client asked for:\n",
    )?;
    screen.indented(POLICY)?;
    screen.text("$ egress-agent run --policy postmark.yaml -- node postmark_mcp.cjs\n")?;
    let world = World::new()?;
    let mut session = world.turned_postmark(POLICY, HONEST)?.connect(Sdk::Node)?;
    let mut rows = Vec::new();
    let mut shown = session.stderr().len();
    for number in 0..=HONEST {
        let honest = number < HONEST;
        let row = mail(&world, &mut session, honest)?;
        screen.step(&row)?;
        let said = session.stderr();
        screen.indented(said.get(shown..).unwrap_or_default())?;
        shown = said.len();
        rows.push(row);
    }
    session.end()?;
    Ok(rows)
}

/// Has one mail sent, and looks where it went.
fn mail(world: &World, session: &mut Session, honest: bool) -> Result<Row> {
    let (before, told) = (arrived(world)?.len(), session.events()?.len());
    let start = Instant::now();
    let arguments = json!({
        "to": "ann@example.com",
        "subject": "Your order",
        "textBody": "It is on its way.",
    });
    let answer = session.call("sendEmail", &arguments)?;
    let took = start.elapsed().as_millis();
    let event = told_of(session, told)?;
    let field = |name: &str| {
        event
            .as_ref()
            .map_or("", |event| text(event, name))
            .to_owned()
    };
    let bodies = arrived(world)?.split_off(before);
    let delivered = !bodies.is_empty();
    let about = if honest {
        "a mail that the client asked for"
    } else {
        "the same with a hidden Bcc"
    };
    let named = event
        .as_ref()
        .is_some_and(|event| event.line.contains(STRANGER));
    let verdict = if honest { "passed" } else { "refused" };
    Ok(Row {
        about,
        expected: if honest { "delivered" } else { "refused" },
        observed: if delivered {
            "delivered".to_owned()
        } else {
            format!("refused in {took} ms")
        },
        event: event.as_ref().map_or("none within 1 s".to_owned(), reason),
        ok: delivered == honest
            && answer.failed != honest
            && named != honest
            && field("verdict") == verdict
            && field("tool") == "sendEmail"
            && bodies.iter().all(|body| !body.contains(STRANGER)),
    })
}

/// Waits for the `operation` behind the first `before` events.
fn told_of(session: &Session, before: usize) -> Result<Option<Event>> {
    let end = Instant::now() + SHOWN_WITHIN;
    loop {
        let events = session.events()?;
        let mut new = events.into_iter().skip(before);
        if let Some(event) = new.find(|event| event.kind == "operation") {
            return Ok(Some(event));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Why it was refused, or that it passed.
fn reason(event: &Event) -> String {
    let refusals = event.rest.get("refusals").and_then(Value::as_array);
    let first = refusals.and_then(|refusals| refusals.first()?.get("reason")?.as_str());
    first.unwrap_or(text(event, "verdict")).to_owned()
}

fn text<'e>(event: &'e Event, name: &str) -> &'e str {
    event.rest.get(name).and_then(Value::as_str).unwrap_or("")
}

/// Bodies of the requests that the service got.
fn arrived(world: &World) -> Result<Vec<String>> {
    let requests = world.requests().context("the embedded internet is gone")?;
    let to_service = requests
        .into_iter()
        .filter(|it| it.to.ip() == zone::POSTMARK);
    Ok(to_service.map(|request| request.body).collect())
}
