//! Answers as they come in practice, and what is told of those that are not passed on.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    agent::policy,
    event::{Denial, Event},
    process::{must, patient},
    protocol::{Behaviour, Record},
    shell::Shell,
    world::World,
    zone,
};

fn message(event: &Event) -> &str {
    let message = event.rest.get("message");
    message.and_then(|it| it.as_str()).unwrap_or_default()
}

fn name(event: &Event) -> Option<&str> {
    event.destination.as_ref()?.name.as_deref()
}

fn addresses(shell: &mut Shell, question: &str) -> Result<Vec<String>> {
    let said = shell.run(&format!("dig +short +time=5 +tries=1 {question}"))?;
    Ok(said.text.lines().map(str::to_owned).collect())
}

/// A program that keeps an address for much longer than it is good for: by then the agent has
/// tidied up twice.
#[test]
fn an_address_of_long_ago_is_told_by_its_name() -> Result<()> {
    let world = World::new()?;
    let brief = "brief.ingest.sentry.io";
    world.set(Record {
        ttl: 1,
        ..zone::only(brief, &[zone::v4(77)], &[zone::v6(0x77)])
    })?;
    let mut text = policy("long-ago", &["\"*.ingest.sentry.io:8080\""]);
    text.push_str("dns:\n  ttl: {floor: 1s, grace: 1s}\n");
    let mut shell = world.agent(text).shell()?;
    let old = [IpAddr::from(zone::v4(77)), zone::v6(0x77).into()];
    let reach = |shell: &mut Shell, address: IpAddr| {
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        shell.run(&format!("curl -sS --max-time 5 'http://{host}:8080/'"))
    };
    let kinds = shell.run(&format!("getent ahosts {brief}"))?;
    ensure!(kinds.code == 0, "{kinds:?}");
    for address in old {
        let said = reach(&mut shell, address)?;
        ensure!(said.code == 0, "in time: {said:?}");
    }
    thread::sleep(patient(Duration::from_secs(25)));
    for address in old {
        let said = reach(&mut shell, address)?;
        ensure!(said.code == 7, "long after: {said:?}");
        let denial = Denial::of_address(address).port(8080);
        let event = shell.confined.denial(&denial.because(&["expired"]))?;
        ensure!(name(&event) == Some(brief), "{event:?}");
    }
    // One that was never granted has no time that could be over.
    let said = reach(&mut shell, zone::v4(78).into())?;
    ensure!(said.code == 7, "{said:?}");
    let never = Denial::of_address(zone::v4(78)).because(&["no-rule"]);
    shell.confined.denial(&never)?;
    // Asked for again, it is permitted again.
    let said = shell.run(&format!("curl -sS --max-time 5 http://{brief}:8080/"))?;
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

#[test]
fn an_address_that_is_left_out_is_named_with_its_key() -> Result<()> {
    let world = World::new()?;
    let fake = Ipv4Addr::new(198, 18, 0, 21);
    world.set(zone::only("fake.rebind.example", &[fake], &[]))?;
    let text = policy("left-out", &["\"*.rebind.example:80\""]);
    let mut shell = world.agent(text).shell()?;
    for (label, kind, address, words) in [
        (
            "private",
            "A",
            IpAddr::from(zone::INSIDE),
            "`private: true`",
        ),
        ("fake", "A", fake.into(), "`private: true`"),
        ("metadata", "A", zone::METADATA.into(), "`cidr`"),
        ("zero", "A", Ipv4Addr::UNSPECIFIED.into(), "no key takes it"),
        (
            "nat64",
            "AAAA",
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x0a14, 5).into(),
            "translated to 10.20.0.5",
        ),
        // Beside a good one.
        ("mixed", "A", zone::INSIDE.into(), "`private: true`"),
    ] {
        let asked = format!("{label}.rebind.example");
        let found = addresses(&mut shell, &format!("{asked} {kind}"))?;
        ensure!(found.is_empty() == (label != "mixed"), "{label}: {found:?}");
        let denial = Denial {
            ip: Some(address),
            ..Denial::of_name(&asked).because(&["private-answer"])
        };
        let event = shell.confined.denial(&denial)?;
        let said = message(&event);
        let whole = said.contains(words) && said.contains(&address.to_string());
        ensure!(whole, "{label}: {event:?}");
        let rule = event.rest.get("rule").and_then(|rule| rule.as_str());
        ensure!(rule == Some("*.rebind.example:80/tcp"), "{event:?}");
    }
    // With the key that it says.
    let mut text = policy("with-key", &[]);
    text = text.replace(
        "allow: []",
        "allow:\n  - { host: private.rebind.example, ports: [8080], private: true }",
    );
    let mut shell = world.agent(text).shell()?;
    let said = shell.run("curl -sS --max-time 5 http://private.rebind.example:8080/")?;
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

/// A cluster that is found by SRV records, as `mongodb+srv` names it.
#[test]
fn services_lead_to_permitted_targets_alone() -> Result<()> {
    let world = World::new()?;
    let cluster = "_mongodb._tcp.cluster.store.example";
    let all = [
        (8080, "shard-00.store.example"),
        (9999, "shard-00.store.example"),
        (8080, "stranger.example"),
    ];
    world.set(zone::services(cluster, &all))?;
    world.set(zone::both("shard-00.store.example", 24))?;
    let rules = ["cluster.store.example:8080", "shard-00.store.example:8080"];
    let mut shell = world
        .agent(policy("services", &rules))
        .option("--start-unresolved")
        .shell()?;
    let mut outside = world.command("dig");
    outside.args(["+short", "SRV", cluster]);
    let control = must(outside, Duration::from_secs(60))?.text();
    ensure!(control.lines().count() == 3, "the control: {control}");
    let found = addresses(&mut shell, &format!("SRV {cluster}"))?;
    ensure!(found == ["0 0 8080 shard-00.store.example."], "{found:?}");
    let denial = Denial::of_name(cluster).because(&["service-target"]);
    let event = shell.confined.denial(&denial)?;
    let said = message(&event);
    ensure!(
        said.contains("shard-00.store.example:9999, stranger.example:8080"),
        "{event:?}"
    );
    let said = shell.run("curl -sS --max-time 5 http://shard-00.store.example:8080/")?;
    ensure!(said.code == 0, "{said:?}");
    // Nothing else of such names, and no other service, is asked for.
    for (question, reason) in [
        ("TXT cluster.store.example", "record-type"),
        ("MX cluster.store.example", "record-type"),
        (
            "SRV _aGVsbG8._tcp.cluster.store.example",
            "name-not-allowed",
        ),
        ("SRV _mongodb._tcp.other.store.example", "name-not-allowed"),
    ] {
        let found = addresses(&mut shell, question)?;
        ensure!(found.is_empty(), "{question}: {found:?}");
        let asked = question.split(' ').next_back().context("no name")?;
        let denial = Denial::of_name(&asked.to_lowercase()).because(&[reason]);
        let event = shell.confined.denial(&denial)?;
        ensure!(
            !message(&event).is_empty() || !question.contains("TXT"),
            "{event:?}"
        );
    }
    let inside: Vec<_> = world
        .queries()?
        .into_iter()
        .filter(|query| query.kind != "A" && query.kind != "AAAA")
        .map(|query| (query.kind, query.name))
        .collect();
    // One of the control, one of the connector's.
    ensure!(
        inside.len() == 2
            && inside
                .iter()
                .all(|(kind, name)| kind == "SRV" && name == cluster),
        "{inside:?}"
    );
    Ok(())
}

#[test]
fn long_chains_and_hundreds_of_addresses() -> Result<()> {
    let world = World::new()?;
    for number in 0..20 {
        let target = format!("c{}.chain.example", number + 1);
        world.set(zone::alias(&format!("c{number}.chain.example"), &target))?;
    }
    world.set(zone::both("c20.chain.example", 25))?;
    let v4: Vec<Ipv4Addr> = (1..=250).map(zone::v4).collect();
    let v6: Vec<Ipv6Addr> = (1..=250).map(zone::v6).collect();
    world.set(zone::only("huge.example", &v4, &v6))?;
    world.set(Record {
        behaviour: Behaviour::Truncated,
        ..zone::only("huge-tcp.example", &v4, &v6)
    })?;
    let rules = [
        "c0.chain.example:8080",
        "huge.example:8080",
        "huge-tcp.example:8080",
    ];
    let mut shell = world.agent(policy("odd", &rules)).shell()?;
    for name in ["c0.chain.example", "huge.example", "huge-tcp.example"] {
        let said = shell.run(&format!("curl -sS --max-time 5 http://{name}:8080/"))?;
        ensure!(said.code == 0, "{name}: {said:?}");
    }
    for name in ["huge.example", "huge-tcp.example"] {
        for kind in ["A", "AAAA"] {
            let found = addresses(&mut shell, &format!("{kind} {name}"))?;
            ensure!(found.len() == 250, "{name} {kind}: {}", found.len());
        }
    }
    // The last of them is as good as the first.
    let said = shell.run("curl -sS --max-time 5 http://203.0.113.250:8080/")?;
    ensure!(said.code == 0, "{said:?}");
    shell.end()?.ensure_nothing_denied()
}
