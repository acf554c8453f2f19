//! The name in TLS is looked at in the kernel: what a refused one costs, what it is called, and
//! that the kernel's reader of hellos has the same opinion as a plain one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::policy,
    event::Denial,
    hello::{
        mutate::{DECLARED, Dice, mutant},
        naive::{Judgement, declared_length, judge},
    },
    probe::{
        FAMILIES,
        tls_many::{FAR, pack},
    },
    process::{must, patience},
    stage::Stage,
    token,
    vectors::{Verdict, Wrap, all_of, table, try_some},
    world::World,
    zone,
};

const ALLOW: [&str; 2] = ["allowed.example:443", "\"*.ingest.sentry.io:443\""];
/// How soon a program is told. Milliseconds.
const TOLD_MS: u64 = 250;

/// Octets that TCP sends in one packet where the other side is far away: two segments
/// (`tcp_min_tso_segs`). A longer hello is held back.
const AT_FIRST: usize = 2 * 1448;

/// Each way to say something else, and what the stream calls it.
const REASONS: &[(&str, &str)] = &[
    ("shared-address-sni", "sni-stranger"),
    ("sni-below", "sni-stranger"),
    ("sni-apex", "sni-stranger"),
    ("retry", "sni-stranger"),
    ("sni-none", "sni-missing"),
    ("sni-no-extensions", "sni-missing"),
    ("sni-ipv4", "sni-address"),
    ("sni-ipv6", "sni-address"),
    ("sni-two-names", "sni-repeated"),
    ("sni-twice", "sni-repeated"),
    ("plain-http", "sni-not-tls"),
    ("plain-text", "sni-not-tls"),
    ("sslv2-hello", "sni-not-tls"),
    ("ccs-first", "sni-not-tls"),
    ("sni-nul", "sni-malformed"),
    ("sni-dot", "sni-malformed"),
    ("sni-empty", "sni-missing"),
    ("sni-non-ascii", "sni-malformed"),
    ("two-records", "sni-records"),
    ("record-per-octet", "sni-records"),
    ("sni-ech", "sni-encrypted"),
    ("sni-esni", "sni-encrypted"),
    ("in-the-syn", "sni-early"),
    ("retry-early-data", "sni-early-data"),
    ("urgent-first", "sni-urgent"),
    ("multipath", "sni-stranger"),
];

#[test]
fn each_way_has_its_reason() -> Result<()> {
    let world = World::new()?;
    let tokens: Vec<String> = REASONS.iter().map(|_| token::new()).collect();
    let probe = world.bin("probe");
    let tries = REASONS.iter().zip(&tokens).map(|((vector, _), token)| {
        let words = [&probe, *vector, "forbidden", token].map(str::to_owned);
        (*vector, words.to_vec())
    });
    let tries: Vec<_> = tries.collect();
    let attempts = world.agent(policy("names", &ALLOW)).attempts(&tries)?;
    world.fence()?;
    let mut wrong = Vec::new();
    // Ways with one reason must not cover for each other: each is a process of its own, and each
    // of those has to have been refused for it.
    let denial = |reason| {
        Denial::of_address(zone::ALLOWED)
            .port(443)
            .by(&["sni"])
            .because(&[reason])
    };
    for reason in REASONS
        .iter()
        .map(|(_, reason)| *reason)
        .collect::<BTreeSet<_>>()
    {
        let denials = attempts.report.denials();
        let refused: BTreeSet<u32> = denials
            .into_iter()
            .filter(|event| denial(reason).fits(event))
            .filter_map(|event| event.process.as_ref()?.pid)
            .collect();
        let tried = REASONS.iter().filter(|(_, its)| *its == reason).count();
        if refused.len() < tried {
            wrong.push(format!("{reason}: {tried} ways, refused {refused:?}"));
        }
    }
    for ((vector, reason), token) in REASONS.iter().zip(&tokens) {
        let places = world.sightings(token)?;
        let said = &attempts.get(vector)?.output;
        if !places.is_empty() {
            wrong.push(format!("{vector} got out to {places:?}: {said}"));
        }
        if !attempts
            .report
            .denials()
            .iter()
            .any(|event| denial(reason).fits(event))
        {
            wrong.push(format!("{vector} is not called {reason}: {said}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        attempts.report
    );
    Ok(())
}

/// The program gets an error, not a time-out; the stream has the name, once for each connection.
#[test]
fn a_stranger_is_refused_at_once_and_shown_once() -> Result<()> {
    const COUNT: usize = 20;
    let world = World::new()?;
    let target = format!("{}:443", zone::ALLOWED);
    let probe = world.bin("probe");
    let count = COUNT.to_string();
    let words = |name: &str| {
        [&probe, "hello", &count, &target, name]
            .map(str::to_owned)
            .to_vec()
    };
    let attempts = world.agent(policy("names", &ALLOW)).attempts(&[
        ("declared", words(DECLARED)),
        ("stranger", words("stranger.example")),
        ("again", words(DECLARED)),
    ])?;
    for label in ["declared", "again"] {
        let times = times(&attempts.get(label)?.output, DECLARED, "answered")?;
        ensure!(times.len() == COUNT, "{label}: {}", attempts.report);
    }
    let times = times(
        &attempts.get("stranger")?.output,
        "stranger.example",
        "ECONNABORTED",
    )?;
    ensure!(times.len() == COUNT, "{}", attempts.report);
    println!("told after {times:?} µs");
    let middle = times[COUNT / 2];
    ensure!(
        middle < TOLD_MS * 1000 * u64::from(patience()),
        "told after {times:?} µs"
    );
    let denial = Denial {
        name: Some("stranger.example".to_owned()),
        ..Denial::of_address(zone::ALLOWED)
    };
    let denial = denial.port(443).by(&["sni"]).because(&["sni-stranger"]);
    let denials = attempts.report.denials();
    let ours = denials.iter().filter(|event| denial.fits(event));
    let shown: u64 = ours.map(|event| event.count.unwrap_or(1)).sum();
    ensure!(
        shown == COUNT as u64,
        "{shown} of {COUNT}: {}",
        attempts.report
    );
    for event in denials {
        ensure!(denial.fits(event), "another denial: {}", event.line);
    }
    world.fence()?;
    for one in world.connections(zone::ALLOWED)? {
        ensure!(
            one.received == 0 || one.sni.as_deref() == Some(DECLARED),
            "{one:?}"
        );
    }
    Ok(())
}

/// What `probe hello` printed of a name's connections that ended with the word, sorted.
/// Microseconds.
fn times(text: &str, name: &str, word: &str) -> Result<Vec<u64>> {
    let front = format!("{name} {word} ");
    let fitting = text.lines().filter_map(|line| line.strip_prefix(&front));
    let mut times: Vec<u64> = fitting
        .map(|time| Ok(time.trim().parse()?))
        .collect::<Result<_>>()?;
    times.sort_unstable();
    Ok(times)
}

/// Two names, one looked at and one not, in turns in one run.
#[test]
fn a_name_that_is_looked_at_costs_little() -> Result<()> {
    const COUNT: usize = 400;
    let world = World::new()?;
    let rules = [
        "allowed.example:443",
        "{ host: other.example, ports: [443], tls: off }",
    ];
    let (looked, free) = (
        format!("{}:443", zone::ALLOWED),
        format!("{}:443", zone::OTHER),
    );
    let words = [
        &world.bin("probe"),
        "hello",
        &COUNT.to_string(),
        &looked,
        DECLARED,
        &free,
        "other.example",
    ]
    .map(str::to_owned);
    let report = world.agent(policy("names", &rules)).run(&words)?;
    let text = report.text();
    let (looked, free) = (
        times(&text, DECLARED, "answered")?,
        times(&text, "other.example", "answered")?,
    );
    ensure!(looked.len() == COUNT && free.len() == COUNT, "{report}");
    let (with, without) = (looked[COUNT / 2], free[COUNT / 2]);
    println!(
        "connect, hello and answer, µs: {with} looked at, {without} not; quartiles {} to {}, {} to {}",
        looked[COUNT / 4],
        looked[COUNT * 3 / 4],
        free[COUNT / 4],
        free[COUNT * 3 / 4],
    );
    ensure!(with * 10 < without * 13, "{with} µs against {without}");
    report.ensure_nothing_denied()
}

#[test]
fn encrypted_hellos_may_be_allowed() -> Result<()> {
    let rule = "{ host: allowed.example, ports: [443], ech: allow }";
    tried(
        rule,
        &[
            ("sni-ech", true),
            ("sni-esni", true),
            ("shared-address-sni", false),
            ("sni-none", false),
        ],
    )
}

#[test]
fn a_rule_may_do_without_names() -> Result<()> {
    let rule = "{ host: allowed.example, ports: [443], tls: off }";
    tried(
        rule,
        &[
            ("shared-address-sni", true),
            ("plain-http", true),
            ("sni-ech", true),
            ("tcp4", false),
        ],
    )
}

/// Whether each vector gets out under a policy of one rule.
fn tried(rule: &str, vectors: &[(&str, bool)]) -> Result<()> {
    let world = World::new()?;
    let probe = world.bin("probe");
    let tokens: Vec<String> = vectors.iter().map(|_| token::new()).collect();
    let tries = vectors.iter().zip(&tokens).map(|((vector, _), token)| {
        let words = [&probe, *vector, "forbidden", token].map(str::to_owned);
        (*vector, words.to_vec())
    });
    let tries: Vec<_> = tries.collect();
    let attempts = world.agent(policy("names", &[rule])).attempts(&tries)?;
    world.fence()?;
    for ((vector, arrives), token) in vectors.iter().zip(&tokens) {
        let places = world.sightings(token)?;
        ensure!(
            places.is_empty() != *arrives,
            "{vector}: {places:?} {}",
            attempts.report
        );
    }
    Ok(())
}

/// Where packets wait behind the look at them, as they do on every real wire.
#[test]
fn pages_do_not_change_on_a_slow_wire() -> Result<()> {
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    let mut tc = world.command("tc");
    tc.args(["qdisc", "add", "dev", "up0", "root", "tbf"]);
    tc.args(["rate", "8mbit", "burst", "3000", "limit", "400000"]);
    must(tc, std::time::Duration::from_secs(5))?;
    let family = FAMILIES
        .iter()
        .find(|family| family.name == "tls-shared-pages");
    let vectors = all_of(family.context("no such family")?);
    let rows = try_some(&world, &stage, &Wrap::Agent, vectors, false)?;
    let text = table(&rows);
    println!("{text}{}", exchanged(&world)?);
    ensure!(
        rows.iter().all(|row| row.verdict() == Verdict::Blocked),
        "{text}"
    );
    Ok(())
}

/// Over a long way TCP sends no more than two segments in one packet, however much there is: a
/// hello that is longer is never seen whole.
#[test]
fn hellos_of_two_segments_go_a_long_way() -> Result<()> {
    let world = World::new()?;
    let mut tc = world.internet_command("tc");
    tc.args(["qdisc", "add", "dev", "up0", "root", "tbf"]);
    tc.args(["rate", "1mbit", "burst", "2000", "limit", "400000"]);
    must(tc, std::time::Duration::from_secs(5))?;
    let echo = format!(
        "{{ cidr: {}/32, ports: [9999], protocol: udp }}",
        zone::ALLOWED
    );
    let target = format!("{}:443", zone::ALLOWED);
    let probe = world.bin("probe");
    let far = |length: &str| {
        [&probe, "far", &target, DECLARED, length]
            .map(str::to_owned)
            .to_vec()
    };
    let attempts = world
        .agent(policy("names", &["allowed.example:443", &echo]))
        .attempts(&[("short", far("2850")), ("long", far("4096"))])?;
    let ended = |label: &str| -> Result<(String, u64)> {
        let output = attempts.get(label)?.output.trim().to_owned();
        let why = || format!("{output:?} {}", attempts.report);
        let line = output.lines().next().unwrap_or_default();
        let (word, trip) = line.rsplit_once(' ').with_context(why)?;
        Ok((word.to_owned(), trip.parse().with_context(why)?))
    };
    let ((short, one), (long, other)) = (ended("short")?, ended("long")?);
    ensure!(one > FAR && other > FAR, "not far: {one} µs, {other} µs");
    ensure!(short == "answered", "{short}: {}", attempts.report);
    ensure!(long != "answered", "{long}: {}", attempts.report);
    let denial = Denial::of_address(zone::ALLOWED).by(&["sni"]);
    attempts
        .report
        .ensure_denied(&denial.because(&["sni-incomplete"]))?;
    ensure!(attempts.report.denials().len() == 1, "{}", attempts.report);
    Ok(())
}

/// How many connections of each run of a vector showed the server another name than the one
/// that was looked at, in the order in which the runs began; the unconfined ones are first.
fn exchanged(world: &World) -> Result<String> {
    let mut counts: Vec<(String, u32)> = Vec::new();
    for address in [zone::ALLOWED, zone::TIGHT] {
        for one in world.connections(address)? {
            // It is in the name and in the session id.
            if let Some(token) = token::find(&one.first).pop() {
                match counts.iter_mut().find(|(known, _)| *known == token) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((token, 1)),
                }
            }
        }
    }
    let numbers: Vec<String> = counts.iter().map(|(_, count)| count.to_string()).collect();
    Ok(format!("names exchanged: {}\n", numbers.join(" ")))
}

/// Ten thousand changed hellos on connections of their own, through the kernel: each arrives, or
/// does not, as a plain reader says.
#[test]
fn the_kernel_agrees_with_a_plain_reader() -> Result<()> {
    const COUNT: usize = 10_000;
    const FROM: u16 = 12_000;
    let world = World::new()?;
    let mut dice = Dice::new(1);
    let mutants: Vec<Vec<u8>> = (0..COUNT).map(|_| mutant(&mut dice)).collect();
    let file = world.path("hellos");
    fs::write(&file, pack(&mutants))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let target = format!("{}:443", zone::ALLOWED);
    let words = [
        &world.bin("probe"),
        "hellos",
        &file.display().to_string(),
        &FROM.to_string(),
        "48",
        &target,
    ]
    .map(str::to_owned);
    let limit = std::time::Duration::from_secs(300);
    let report = world
        .agent(policy("names", &ALLOW))
        .limit(limit)
        .run(&words)?;
    report.ensure_printed(&format!("said {COUNT}"))?;
    world.fence()?;
    let connections = world.connections(zone::ALLOWED)?;
    let arrived: BTreeMap<u16, u64> = connections
        .iter()
        .map(|one| (one.from.port(), one.received))
        .collect();
    let text = report.text();
    let said = words_by_port(&text);
    let mut passed = 0;
    let mut wrong = Vec::new();
    for (index, mutant) in mutants.iter().enumerate() {
        let port = FROM + u16::try_from(index)?;
        let judgement = judge(mutant);
        let expected = matches!(&judgement, Judgement::Named(name) if is_declared(name));
        let received = arrived.get(&port).copied().unwrap_or_default();
        passed += usize::from(expected);
        let whole = mutant.len() as u64;
        let held = expected && mutant.len() > AT_FIRST && received == 0;
        let fits = match judgement {
            // What is not whole is held back; a hello in front of it need not be.
            Judgement::Unfinished => received <= declared_length(mutant, is_declared) as u64,
            _ => received == if expected { whole } else { 0 },
        };
        if !fits && !held {
            let word = said.get(&port).copied().unwrap_or("nothing");
            wrong.push(format!(
                "{index} {judgement:?}: {received} of {}, said {word}",
                mutant.len()
            ));
        }
    }
    ensure!(passed > COUNT / 5 && passed < COUNT * 4 / 5, "{passed}");
    ensure!(!text.contains("unsaid"), "{report}");
    ensure!(
        wrong.is_empty(),
        "{} of {COUNT} differ:\n{}",
        wrong.len(),
        wrong
            .iter()
            .take(40)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
    println!("{COUNT} hellos, {passed} of them declared: no difference");
    Ok(())
}

/// What `probe hellos` printed.
fn words_by_port(text: &str) -> BTreeMap<u16, &str> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(port, word)| Some((port.parse().ok()?, word)))
        .collect()
}

fn is_declared(name: &str) -> bool {
    let below = name.strip_suffix(".ingest.sentry.io");
    name == DECLARED || below.is_some_and(|label| !label.is_empty())
}
