//! Ordinary clients reach the declared name and nothing else, and are told so at once.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{self, DOOR_STATUS, policy},
    attempts::Attempts,
    event::Denial,
    process::patience,
    programs, token,
    world::World,
    zone,
};

/// "At once": no time-out of any client is this short.
const AT_ONCE_MS: u64 = 2000;
const ALLOW: [&str; 2] = ["allowed.example:443", "allowed.example:80"];

/// A client as a command line for a URL, and what it says of a host it cannot reach.
struct Client {
    command: fn(&str) -> Vec<String>,
    /// One of these is in its output, or its exit code is listed.
    says: &'static [&'static str],
    codes: &'static [i32],
    /// Whether it speaks TLS and takes bracketed addresses.
    full: bool,
}

const REFUSED: &[&str] = &[
    "ENOTFOUND",
    "EAI_AGAIN",
    "EPERM",
    "EACCES",
    "ECONNREFUSED",
    "ECONNABORTED",
    "Operation not permitted",
    "Permission denied",
    "Connection refused",
    "Temporary failure in name resolution",
    "Name or service not known",
    "No address associated with hostname",
    "bad address",
    "failed to resolve",
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn curl() -> Result<()> {
    reaches_only_what_is_declared(&Client {
        command: |url| words(&["curl", "-sS", "--max-time", "10", url]),
        says: &[
            "Could not resolve host",
            "Failed to connect",
            "Couldn't connect",
            "Operation not permitted",
        ],
        codes: &[6, 7],
        full: true,
    })
}

#[test]
fn wget() -> Result<()> {
    reaches_only_what_is_declared(&Client {
        command: |url| words(&["wget", "-nv", "--tries=1", "--timeout=10", "-O", "-", url]),
        says: &[
            "unable to resolve host address",
            "Operation not permitted",
            "failed:",
        ],
        codes: &[4],
        full: true,
    })
}

#[test]
fn node_fetch() -> Result<()> {
    reaches_only_what_is_declared(&Client {
        command: |url| {
            let script = format!(
                "fetch('{url}').then(r => r.text()).then(t => console.log(t), \
                 e => {{ console.log(String(e.cause ?? e), e.cause?.code, e.cause?.errors?.map(x => x.code)); process.exit(1) }})"
            );
            words(&["node", "-e", &script])
        },
        says: REFUSED,
        codes: &[],
        full: true,
    })
}

#[test]
fn node_axios() -> Result<()> {
    programs::install_clients()?;
    reaches_only_what_is_declared(&Client {
        command: |url| {
            let script = format!(
                "require('axios').get('{url}').then(r => console.log(JSON.stringify(r.data)), \
                 e => {{ console.log(e.message, e.code, e.errors?.map(x => x.code)); process.exit(1) }})"
            );
            words(&["node", "-e", &script])
        },
        says: REFUSED,
        codes: &[],
        full: true,
    })
}

#[test]
fn python_urllib() -> Result<()> {
    reaches_only_what_is_declared(&Client {
        command: |url| {
            let script = format!(
                "import urllib.request as r; print(r.urlopen('{url}', timeout=10).read().decode())"
            );
            words(&["/usr/bin/python3", "-c", &script])
        },
        says: REFUSED,
        codes: &[],
        full: true,
    })
}

#[test]
fn python_httpx() -> Result<()> {
    programs::install_clients()?;
    reaches_only_what_is_declared(&Client {
        command: |url| {
            let script = format!("import httpx; print(httpx.get('{url}', timeout=10).text)");
            words(&["/usr/bin/python3", "-c", &script])
        },
        says: REFUSED,
        codes: &[],
        full: true,
    })
}

#[test]
fn busybox_static() -> Result<()> {
    reaches_only_what_is_declared(&Client {
        // Not its wget: Debian's static build of that one crashes on every host name.
        command: |url| {
            let (host, path) = split(url);
            let request = format!("GET {path} HTTP/1.1\\r\\nhost: {host}\\r\\n\\r\\n");
            let script =
                format!("set -o pipefail; printf '{request}' | busybox nc -w 10 {host} 80");
            words(&["/bin/bash", "-c", &script])
        },
        says: REFUSED,
        codes: &[],
        full: false,
    })
}

#[test]
fn musl_static() -> Result<()> {
    programs::build_musl_client()?;
    reaches_only_what_is_declared(&Client {
        command: |url| {
            let (host, path) = split(url);
            let script = format!("exec \"$CLIENTS/fetch\" {host} 80 {path}");
            words(&["/bin/bash", "-c", &script])
        },
        says: REFUSED,
        codes: &[6, 7],
        full: false,
    })
}

/// Host and path of a URL without a port.
fn split(url: &str) -> (&str, String) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (host, format!("/{path}"))
}

/// The declared name is reached first; then a name, and an address in every spelling, are not,
/// with an error, at once, with a line in the stream each; then the declared name still is.
fn reaches_only_what_is_declared(client: &Client) -> Result<()> {
    let world = World::new()?;
    let tokens: Vec<String> = (0..6).map(|_| token::new()).collect();
    let scheme = if client.full { "https" } else { "http" };
    let mut commands = vec![
        (
            "control",
            (client.command)(&format!("{scheme}://allowed.example/{}", tokens[0])),
        ),
        (
            "name",
            (client.command)(&format!("{scheme}://giftshop.club/{}", tokens[1])),
        ),
        (
            "v4",
            (client.command)(&format!("http://{}/{}", zone::STRANGER, tokens[2])),
        ),
    ];
    if client.full {
        let mapped = zone::STRANGER.to_ipv6_mapped();
        commands.push((
            "v6",
            (client.command)(&format!("http://[{}]/{}", zone::STRANGER6, tokens[3])),
        ));
        commands.push((
            "mapped",
            (client.command)(&format!("http://[{mapped}]/{}", tokens[4])),
        ));
    }
    commands.push((
        "again",
        (client.command)(&format!("{scheme}://allowed.example/{}", tokens[5])),
    ));
    let attempts = world.agent(policy("clients", &ALLOW)).attempts(&commands)?;

    for label in ["control", "again"] {
        let attempt = attempts.get(label)?;
        ensure!(
            attempt.code == 0 && attempt.output.contains("ok"),
            "{}",
            explain(label, &attempts)
        );
    }
    for label in ["name", "v4", "v6", "mapped"] {
        let Some(attempt) = attempts.all.iter().find(|attempt| attempt.label == label) else {
            ensure!(!client.full);
            continue;
        };
        ensure!(attempt.code != 0, "{}", explain(label, &attempts));
        ensure!(
            attempt.ms < AT_ONCE_MS * u64::from(patience()),
            "not at once: {}",
            explain(label, &attempts)
        );
        let says = client.says.iter().any(|text| attempt.output.contains(text));
        ensure!(
            says || client.codes.contains(&attempt.code),
            "unclear: {}",
            explain(label, &attempts)
        );
    }
    attempts
        .report
        .ensure_denied(&Denial::of_name("giftshop.club").because(&["name-not-allowed"]))?;
    attempts.report.ensure_denied(
        &Denial::of_address(zone::STRANGER)
            .port(80)
            .because(&["no-rule"]),
    )?;
    let mut strangers: Vec<IpAddr> = vec![zone::STRANGER.into(), zone::GIFTSHOP.into()];
    if client.full {
        attempts
            .report
            .ensure_denied(&Denial::of_address(zone::STRANGER6).port(80))?;
        strangers.push(zone::STRANGER6.into());
    }

    world.fence()?;
    for (index, token) in tokens.iter().enumerate() {
        let places = world.sightings(token)?;
        let permitted = index == 0 || index == 5;
        ensure!(
            places.is_empty() != permitted,
            "token {index}: {places:?}; {}",
            attempts.report
        );
    }
    for stranger in strangers {
        let packets = world.packets(stranger)?;
        ensure!(packets.is_empty(), "{stranger} got {packets:?}");
    }
    ensure!(
        world
            .queries()?
            .iter()
            .all(|query| !query.name.contains("giftshop")),
        "the name itself got out: {:?}",
        world.queries()?
    );
    Ok(())
}

#[test]
fn getent() -> Result<()> {
    let world = World::new()?;
    let attempts = world.agent(policy("clients", &ALLOW)).attempts(&[
        ("control", words(&["getent", "ahosts", "allowed.example"])),
        ("name", words(&["getent", "ahosts", "giftshop.club"])),
        ("hosts", words(&["getent", "hosts", "giftshop.club"])),
    ])?;
    let control = attempts.get("control")?;
    ensure!(
        control.code == 0 && control.output.contains("203.0.113.20"),
        "{}",
        explain("control", &attempts)
    );
    for label in ["name", "hosts"] {
        let attempt = attempts.get(label)?;
        ensure!(
            attempt.code == 2 && attempt.ms < AT_ONCE_MS * u64::from(patience()),
            "{}",
            explain(label, &attempts)
        );
    }
    attempts
        .report
        .ensure_denied(&Denial::of_name("giftshop.club"))?;
    ensure!(
        world
            .queries()?
            .iter()
            .all(|query| !query.name.contains("giftshop"))
    );
    Ok(())
}

#[test]
fn dig() -> Result<()> {
    let world = World::new()?;
    let attempts = world.agent(policy("clients", &ALLOW)).attempts(&[
        ("control", words(&["dig", "+short", "allowed.example"])),
        ("name", words(&["dig", "+tries=1", "giftshop.club"])),
        (
            "server",
            words(&["dig", "+tries=1", "@198.51.100.53", "giftshop.club"]),
        ),
    ])?;
    ensure!(
        attempts.get("control")?.output.trim() == "203.0.113.20",
        "{}",
        explain("control", &attempts)
    );
    for label in ["name", "server"] {
        let attempt = attempts.get(label)?;
        ensure!(
            attempt.output.contains(&format!("status: {DOOR_STATUS}")),
            "{}",
            explain(label, &attempts)
        );
        ensure!(
            attempt.ms < AT_ONCE_MS * u64::from(patience()),
            "{}",
            explain(label, &attempts)
        );
    }
    attempts
        .report
        .ensure_denied(&Denial::of_name("giftshop.club"))?;
    world.fence()?;
    ensure!(world.packets(zone::OTHER_DNS)?.is_empty());
    ensure!(
        world
            .queries()?
            .iter()
            .all(|query| !query.name.contains("giftshop"))
    );
    Ok(())
}

#[test]
fn a_denial_is_in_the_stream_within_a_second() -> Result<()> {
    let world = World::new()?;
    let script = format!(
        "curl -sS https://allowed.example/; curl -sS http://{}/; echo tried; sleep 5",
        zone::STRANGER
    );
    let mut confined =
        world
            .agent(policy("clients", &ALLOW))
            .start(&["/bin/bash", "-c", &script])?;
    confined.printed("tried", agent::LIMIT)?;
    let event = confined.denial(&Denial::of_address(zone::STRANGER).port(80).by(&["connect"]))?;
    ensure!(event.connector.as_deref() == Some("clients"), "{event:?}");
    ensure!(event.protocol.as_deref() == Some("tcp"), "{event:?}");
    let process = event.process.clone().unwrap_or_default();
    ensure!(process.comm.as_deref() == Some("curl"), "{event:?}");
    ensure!(process.uid == Some(egress_tests::world::USER), "{event:?}");
    ensure!(process.pid.is_some_and(|pid| pid != 0), "{event:?}");
    Ok(())
}

#[test]
fn a_permitted_program_causes_no_denial() -> Result<()> {
    let world = World::new()?;
    let script =
        "for i in 1 2 3; do curl -sS https://allowed.example/; done; getent ahosts allowed.example";
    let report = world
        .agent(policy("clients", &ALLOW))
        .run(&["/bin/bash", "-c", script])?;
    report.ensure_printed("\"ok\":true")?;
    report.ensure_nothing_denied()?;
    ensure!(!world.requests()?.is_empty());
    Ok(())
}

#[test]
fn an_empty_list_permits_nothing() -> Result<()> {
    let world = World::new()?;
    let missing = "version: 1\nconnector: none\nmode: enforce\n".to_owned();
    for text in [policy("none", &[]), missing] {
        let token = token::new();
        let attempts = world.agent(text).attempts(&[
            (
                "name",
                words(&["curl", "-sS", &format!("https://allowed.example/{token}")]),
            ),
            (
                "v4",
                words(&["curl", "-sS", &format!("http://{}/{token}", zone::ALLOWED)]),
            ),
        ])?;
        for attempt in &attempts.all {
            ensure!(attempt.code != 0, "{}", explain(&attempt.label, &attempts));
        }
        attempts
            .report
            .ensure_denied(&Denial::of_name("allowed.example"))?;
        attempts
            .report
            .ensure_denied(&Denial::of_address(zone::ALLOWED).port(80))?;
        world.fence()?;
        ensure!(world.sightings(&token)?.is_empty());
    }
    Ok(())
}

fn explain(label: &str, attempts: &Attempts) -> String {
    format!("{label}: {:?}\n{}", attempts.get(label), attempts.report)
}
