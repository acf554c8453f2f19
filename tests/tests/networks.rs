//! Names as networks have them: `docs/networks.md` says which situation each test is.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use egress_tests::{
    agent::{Report, policy},
    event::{Denial, Event},
    process::{self, patience},
    programs,
    protocol::{Behaviour, Record},
    shell::Shell,
    world::World,
    zone,
};

const SERVER: &str = include_str!("../fixtures/networks/server.py");
/// Addresses for servers of a test's own.
const FIRST: &str = "198.51.100.71";
const SECOND: &str = "198.51.100.72";
/// An address of the internet where nothing listens on port 53.
const REFUSING: &str = "198.51.100.73";
/// What an answer may take longer than outside.
const SLACK: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);

/// A name server of a test's own; gone when dropped.
struct Server(Child);

impl Server {
    fn start(world: &World, address: &str, delay_ms: i32, zone: &[&str]) -> Result<Self> {
        let mut command = world.internet_command("/usr/bin/python3");
        command
            .args(["-c", SERVER, address, &delay_ms.to_string()])
            .args(zone)
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "the server did not start: {line:?}");
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

fn servers(list: &[&str]) -> String {
    list.iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

/// Runs a command until it says what is expected.
fn until(shell: &mut Shell, command: &str, expected: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10) * patience();
    loop {
        let said = shell.run(command)?;
        if said.text.trim() == expected {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{command}: {said:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn warnings<'a>(events: &'a [Event], about: &str) -> Vec<&'a Event> {
    events
        .iter()
        .filter(|event| event.kind == "warning" && format!("{event:?}").contains(about))
        .collect()
}

const GIT: &str = "getent ahostsv4 git.corp.example | head -1 | cut -d' ' -f1";
const DB: &str = "getent ahostsv4 db.corp.example | head -1 | cut -d' ' -f1";

/// A laptop goes from one network to another, and through a time without any.
#[test]
fn a_network_that_changes_is_followed_and_its_loss_said_once() -> Result<()> {
    let world = World::new()?;
    let home = Server::start(&world, FIRST, 0, &["git.corp.example=203.0.113.20"])?;
    world.set_resolv_conf(&servers(&[FIRST]))?;
    let mut text = policy("laptop", &["git.corp.example:8080", "db.corp.example:8080"]);
    text.push_str("dns:\n  ttl: {floor: 1s, grace: 1s}\n");
    let mut shell = world.agent(text).shell()?;
    until(&mut shell, GIT, "203.0.113.20")?;
    // No network at all.
    drop(home);
    thread::sleep(Duration::from_secs(2));
    for _ in 0..5 {
        let said = shell.run(GIT)?;
        ensure!(said.text.trim().is_empty(), "{said:?}");
    }
    // Another one, with other addresses. Nobody has to be told.
    let office = Server::start(
        &world,
        SECOND,
        0,
        &[
            "git.corp.example=203.0.113.21",
            "db.corp.example=203.0.113.22",
        ],
    )?;
    world.set_resolv_conf(&servers(&[SECOND]))?;
    until(&mut shell, GIT, "203.0.113.21")?;
    until(&mut shell, DB, "203.0.113.22")?;
    let said = shell.run("curl -sS --max-time 5 http://git.corp.example:8080/")?;
    ensure!(said.code == 0, "{said:?}");
    drop(office);
    let report = shell.end()?;
    let lost = warnings(&report.events, "do not answer");
    let back = warnings(&report.events, "answer again");
    ensure!(lost.len() == 1 && !back.is_empty(), "{report}");
    let stopped = report.events.iter().find(|event| event.kind == "stopped");
    let unanswered = stopped.and_then(|event| event.rest.get("unanswered")?.as_u64());
    ensure!(
        unanswered.unwrap_or(0) > 0,
        "the summary says nothing: {report}"
    );
    Ok(())
}

/// The server of a VPN stands before a public one, which has another address for one inside
/// name and does not know the other.
#[test]
fn the_first_server_counts() -> Result<()> {
    let world = World::new()?;
    let _inside = Server::start(
        &world,
        FIRST,
        60,
        &[
            "git.corp.example=203.0.113.20",
            "db.corp.example=203.0.113.22",
        ],
    )?;
    let _outside = Server::start(&world, SECOND, 0, &["git.corp.example=203.0.113.66"])?;
    for (order, git, db) in [
        ([FIRST, SECOND], "203.0.113.20", "203.0.113.22"),
        ([SECOND, FIRST], "203.0.113.66", ""),
    ] {
        let text = policy("vpn", &["git.corp.example:8080", "db.corp.example:8080"]);
        let mut named = text.clone();
        named.push_str(&format!("dns:\n  servers: [{}]\n", order.join(", ")));
        world.set_resolv_conf(&servers(&order))?;
        let control = world.command("getent");
        let outside = process::run(with(control, &["ahostsv4", "git.corp.example"]), LIMIT)?;
        ensure!(outside.text().contains(git), "the control: {outside:?}");
        for policy in [text, named] {
            let mut shell = world.agent(policy).shell()?;
            for _ in 0..3 {
                let said = shell.run(GIT)?;
                ensure!(said.text.trim() == git, "{order:?}: {said:?}");
                let said = shell.run(DB)?;
                ensure!(said.text.trim() == db, "{order:?}: {said:?}");
            }
            world.set_resolv_conf(&servers(&order))?;
        }
    }
    Ok(())
}

/// Servers that refuse cost nothing, and silent ones no more than glibc waits for them.
#[test]
fn servers_that_are_gone_are_passed_over() -> Result<()> {
    let world = World::new()?;
    let _silent = Server::start(&world, SECOND, -1, &[])?;
    let _good = Server::start(&world, FIRST, 0, &["git.corp.example=203.0.113.20"])?;
    for (list, most) in [
        (vec![REFUSING, REFUSING, FIRST], 1),
        (vec![SECOND, FIRST], 5),
    ] {
        world.set_resolv_conf(&servers(&list))?;
        let begun = Instant::now();
        let mut shell = world
            .agent(policy("gone", &["git.corp.example:8080"]))
            .shell()?;
        ensure!(
            begun.elapsed() < Duration::from_secs(most + 5) * patience(),
            "{list:?}: the start took {:?}",
            begun.elapsed()
        );
        // By now it is known who is silent.
        for _ in 0..3 {
            let said = shell.run(GIT)?;
            ensure!(said.text.trim() == "203.0.113.20", "{list:?}: {said:?}");
            ensure!(
                said.took < Duration::from_secs(1) * patience(),
                "{list:?}: {said:?}"
            );
        }
    }
    Ok(())
}

/// Names that only `/etc/hosts` has, which programs read themselves.
#[test]
fn names_of_the_hosts_file_are_permitted_as_the_rules_say() -> Result<()> {
    let world = World::new()?;
    let local = "127.0.0.1 localhost\n::1 localhost\n";
    world.set_hosts(&format!(
        "{local}203.0.113.20 git.corp.example git\n203.0.113.21 a.wild.corp.example\n\
         10.20.0.5 inside.corp.example\n10.20.0.6 private.corp.example\n\
         203.0.113.22 elsewhere.example\n2001:db8:cb::20 six.corp.example\n"
    ))?;
    let mut text = policy(
        "hosts",
        &[
            "git.corp.example:8080",
            "six.corp.example:8080",
            "\"*.wild.corp.example:8080\"",
            "private.corp.example:8080",
        ],
    );
    text.push_str("  - host: inside.corp.example\n    ports: [8080]\n    private: true\n");
    let mut shell = world.agent(text).shell()?;
    let get = |shell: &mut Shell, name: &str| {
        shell.run(&format!("curl -sS --max-time 5 http://{name}:8080/"))
    };
    for name in [
        "git.corp.example",
        "six.corp.example",
        "a.wild.corp.example",
        "inside.corp.example",
    ] {
        let said = get(&mut shell, name)?;
        ensure!(said.code == 0, "{name}: {said:?}");
    }
    for name in ["private.corp.example", "elsewhere.example"] {
        let said = get(&mut shell, name)?;
        ensure!(said.code == 7, "{name}: {said:?}");
    }
    // Who asks is told what the file says, too.
    let said = shell.run("dig +short git.corp.example")?;
    ensure!(said.text.trim() == "203.0.113.20", "{said:?}");
    // It changes while the connector runs; nobody asks for the name.
    world.set_hosts(&format!(
        "{local}203.0.113.30 git.corp.example\n203.0.113.31 b.wild.corp.example\n"
    ))?;
    let code = |name| format!("curl -s --max-time 5 -o /dev/null http://{name}:8080/; echo $?");
    until(&mut shell, &code("git.corp.example"), "0")?;
    until(&mut shell, &code("b.wild.corp.example"), "0")?;
    let report = shell.end()?;
    // Nobody asked for it, so its line is that of the start.
    let told = report.events.iter().any(|event| {
        event.kind == "name-unresolved"
            && event.line.contains("private.corp.example")
            && event.line.contains("private-answer")
    });
    ensure!(told, "{report}");
    report.ensure_denied(&Denial::of_address(Ipv4Addr::new(10, 20, 0, 6)).port(8080))?;
    Ok(())
}

/// A network with IPv6 alone, whose DNS64 writes IPv4 addresses behind a prefix: the well-known
/// one, and then one of its own.
#[test]
fn translated_addresses_are_judged_by_what_is_behind_them() -> Result<()> {
    let world = World::new()?;
    let behind = |prefix: &str, v4: Ipv4Addr| -> Result<Ipv6Addr> {
        let [a, b, c, d] = v4.octets();
        Ok(format!("{prefix}{a:x}{b:02x}:{c:x}{d:02x}").parse()?)
    };
    for (prefix, told) in [("64:ff9b::", false), ("2001:db8:cb:64::", true)] {
        if told {
            let known = behind(prefix, Ipv4Addr::new(192, 0, 0, 170))?;
            world.set(zone::only("ipv4only.arpa", &[], &[known]))?;
        }
        let public = behind(prefix, zone::ALLOWED)?;
        let inside = behind(prefix, zone::INSIDE)?;
        let metadata = behind(prefix, zone::METADATA)?;
        let denied = behind(prefix, zone::GIFTSHOP)?;
        for (name, address) in [
            ("public", public),
            ("inside", inside),
            ("private", inside),
            ("metadata", metadata),
            ("denied", denied),
        ] {
            world.set(zone::only(&format!("{name}.six.example"), &[], &[address]))?;
        }
        let mut text = policy(
            "nat64",
            &[
                "public.six.example:8080",
                "inside.six.example:8080",
                "denied.six.example:8080",
            ],
        );
        for name in ["private", "metadata"] {
            text.push_str(&format!(
                "  - host: {name}.six.example\n    ports: [8080]\n    private: true\n"
            ));
        }
        text.push_str(&format!("deny:\n  - cidr: {}\n", zone::GIFTSHOP));
        let mut shell = world.agent(text).shell()?;
        for (name, address, permitted) in [
            ("public", public, true),
            ("private", inside, true),
            ("inside", inside, false),
            ("metadata", metadata, false),
            ("denied", denied, false),
        ] {
            let said = shell.run(&format!("dig +short AAAA {name}.six.example"))?;
            let expected = if permitted {
                address.to_string()
            } else {
                String::new()
            };
            ensure!(said.text.trim() == expected, "{prefix} {name}: {said:?}");
        }
        let said = shell.run(&format!("curl -sS --max-time 5 'http://[{public}]:8080/'"))?;
        ensure!(said.code == 0, "{prefix}: {said:?}");
        let said = shell.run(&format!(
            "curl -sS --max-time 5 'http://[{metadata}]:8080/'"
        ))?;
        ensure!(said.code == 7, "{prefix}: {said:?}");
    }
    Ok(())
}

/// One name of two is gone, and comes back; the other is there all the time.
#[test]
fn a_name_that_is_late_keeps_nobody_from_starting() -> Result<()> {
    let world = World::new()?;
    world.set(Record {
        behaviour: Behaviour::Code(3),
        ..zone::both("late.example", 24)
    })?;
    let text = policy("late", &["late.example:8080", "allowed.example:8080"]);
    let mut shell = world.agent(text).shell()?;
    let events = shell.confined.events()?;
    let unresolved: Vec<&Event> = events
        .iter()
        .filter(|event| event.kind == "name-unresolved")
        .collect();
    ensure!(unresolved.len() == 1, "{events:?}");
    let said = shell.run("curl -sS --max-time 5 http://allowed.example:8080/")?;
    ensure!(said.code == 0, "{said:?}");
    world.set(zone::both("late.example", 24))?;
    // Nobody asks: it is asked for by itself.
    let code = "curl -s --max-time 5 -o /dev/null http://203.0.113.24:8080/; echo $?";
    until(&mut shell, code, "0")?;
    let report = shell.end()?;
    let said = warnings(&report.events, "late.example has an address now");
    ensure!(said.len() == 1, "{report}");
    Ok(())
}

/// A search list whose first domain nobody permits, and a number of dots as Kubernetes sets it.
const SEARCHING: &str = "search first.example corp.example\noptions ndots:5\n";

/// The resolver libraries: a program that prints a line for each of its names.
fn libraries(world: &World) -> Result<[(&'static str, String); 6]> {
    programs::build_resolvers()?;
    let script = world.path("resolve.js");
    std::fs::write(&script, include_str!("../fixtures/networks/resolve.js"))?;
    let script = script.display();
    let clients = "$CLIENTS";
    Ok([
        ("glibc", format!("{clients}/resolve-glibc")),
        ("musl", format!("{clients}/resolve-musl")),
        ("Go", format!("{clients}/resolve-go")),
        ("node lookup", format!("node {script} lookup")),
        // c-ares does not search.
        ("node resolve", format!("node {script} resolve")),
        (
            "Java",
            format!("java -Xshare:auto -cp {clients}/java-resolve Resolve"),
        ),
    ])
}

/// Looks names up outside and inside, and answers what each took in turn. `runs`: of which the
/// shortest times count.
fn beside(
    world: &World,
    command: &str,
    names: &[(&str, &str)],
    (rules, runs): (&[&str], usize),
) -> Result<Vec<(Line, Line)>> {
    let words: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let line = format!("{command} {}", words.join(" "));
    let outside = best(runs, || {
        let outcome = process::run(with(world.command("/bin/bash"), &["-c", &line]), LIMIT)?;
        Ok(outcome.text())
    })?;
    let inside = best(runs, || {
        let agent = world.agent(policy("search", rules));
        Ok(agent.run(&["/bin/bash", "-c", &line])?.text())
    })?;
    let mut both = Vec::new();
    for (index, (name, address)) in names.iter().enumerate() {
        let of = |all: &[Line]| all.get(index).cloned().context("a line is missing");
        let (outside, inside) = (of(&outside)?, of(&inside)?);
        ensure!(
            inside.name == *name && inside.address == *address,
            "{command}: {inside:?}"
        );
        // A refused name has an address outside.
        ensure!(
            *address == "-" || outside.address == *address,
            "{command}: the control: {outside:?}"
        );
        ensure!(
            inside.took <= outside.took + SLACK * patience(),
            "{command}, {name}: {inside:?} against {outside:?}"
        );
        both.push((outside, inside));
    }
    Ok(both)
}

/// One row of the table in `docs/networks.md`.
fn print_row(library: &str, row: &[(Line, Line)]) {
    let cells: Vec<String> = row
        .iter()
        .map(|(outside, inside)| {
            format!("{} → {}", outside.took.as_millis(), inside.took.as_millis())
        })
        .collect();
    println!("| {library} | {} |", cells.join(" | "));
}

/// Searched, permitted as it is, refused, and late: its server takes 1.5 s.
const FOUND: [(&str, &str); 4] = [
    ("git", "203.0.113.20"),
    ("allowed.example", "203.0.113.20"),
    ("giftshop.club", "-"),
    ("slow.late.example", "203.0.113.43"),
];
const RULES: [&str; 3] = [
    "git.corp.example:443",
    "allowed.example:443",
    "\"*.late.example:443\"",
];

fn searching() -> Result<World> {
    let world = World::new()?;
    world.set(zone::only("git.corp.example", &[zone::v4(20)], &[]))?;
    world.set(Record {
        behaviour: Behaviour::Slow(1500),
        ..zone::both("slow.late.example", 43)
    })?;
    world.set_resolv_conf(&format!("{}{SEARCHING}", servers(&["203.0.113.53"])))?;
    Ok(world)
}

/// Every resolver library goes on past a name that no rule covers, and waits for nothing that
/// it does not wait for outside.
#[test]
fn every_resolver_searches_on_and_none_waits() -> Result<()> {
    let world = searching()?;
    let mut whole = FOUND;
    whole[0].0 = "git.corp.example";
    for (library, command) in libraries(&world)? {
        let names = if library == "node resolve" {
            whole
        } else {
            FOUND
        };
        print_row(library, &beside(&world, &command, &names, (&RULES, 3))?);
    }
    let mut shell = world
        .agent(policy("search", &["git.corp.example:443"]))
        .shell()?;
    let said = shell.run("dig +search +short git")?;
    ensure!(said.text.trim() == "203.0.113.20", "dig: {said:?}");
    Ok(())
}

/// The first of two servers is silent, which the agent knows since its start.
#[test]
fn no_resolver_waits_longer_for_a_server_that_is_gone() -> Result<()> {
    let world = World::new()?;
    let _silent = Server::start(&world, SECOND, -1, &[])?;
    world.set_resolv_conf(&servers(&[SECOND, "203.0.113.53"]))?;
    let rules = ["allowed.example:443", "\"*.ingest.sentry.io:443\""];
    let names = [("one.ingest.sentry.io", "203.0.113.50")];
    for (library, command) in libraries(&world)? {
        print_row(library, &beside(&world, &command, &names, (&rules, 1))?);
    }
    Ok(())
}

/// The host's resolver is systemd-resolved, by its stub.
#[test]
fn behind_the_stub_of_systemd_resolved() -> Result<()> {
    let world = searching()?;
    let (program, library) = programs::resolved()?;
    let mut command = world.command("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/bash", "-c"]);
    command.args([include_str!("../fixtures/networks/resolved.sh"), "resolved"]);
    command.arg(program).arg("203.0.113.53");
    if let Some(library) = library {
        command.env("LD_LIBRARY_PATH", library);
    }
    let _stub = Server(command.stderr(Stdio::null()).spawn()?);
    world.set_resolv_conf(&format!("{}{SEARCHING}", servers(&["127.0.0.53"])))?;
    let end = Instant::now() + Duration::from_secs(20) * patience();
    loop {
        let dig = [
            "+short",
            "+time=1",
            "+tries=1",
            "@127.0.0.53",
            "git.corp.example",
        ];
        let said = process::run(with(world.command("dig"), &dig), LIMIT)?;
        if said.text().trim() == "203.0.113.20" {
            break;
        }
        ensure!(Instant::now() < end, "the stub does not answer: {said:?}");
        thread::sleep(Duration::from_millis(200));
    }
    for (library, command) in libraries(&world)? {
        if ["glibc", "musl", "Go"].contains(&library) {
            let row = beside(&world, &command, &FOUND, (&RULES, 3))?;
            print_row(&format!("{library}, stub"), &row);
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Line {
    name: String,
    address: String,
    took: Duration,
}

/// Of some runs, the shortest time for each name. The first time programs are read from the disk.
fn best(runs: usize, run: impl Fn() -> Result<String>) -> Result<Vec<Line>> {
    let mut best: Vec<Line> = Vec::new();
    for _ in 0..runs {
        let text = run()?;
        let lines: Vec<Line> = text.lines().filter_map(line).collect();
        if best.is_empty() {
            best = lines;
            continue;
        }
        if best.len() != lines.len() {
            bail!("{best:?} and then {lines:?}: {text}");
        }
        for (best, line) in best.iter_mut().zip(lines) {
            if line.took < best.took {
                *best = line;
            }
        }
    }
    Ok(best)
}

fn line(text: &str) -> Option<Line> {
    let mut words = text.split_ascii_whitespace();
    let (name, address) = (words.next()?.to_owned(), words.next()?.to_owned());
    let took = Duration::from_millis(words.next()?.parse().ok()?);
    let known = address == "-" || address.parse::<IpAddr>().is_ok();
    (words.next().is_none() && known).then_some(Line {
        name,
        address,
        took,
    })
}

fn with(mut command: std::process::Command, arguments: &[&str]) -> std::process::Command {
    command.args(arguments);
    command
}

/// A connector that runs as root could write the file; then it does not count.
#[test]
fn what_a_connector_could_write_does_not_count() -> Result<()> {
    let world = World::new()?;
    world.set_hosts("127.0.0.1 localhost\n198.51.100.7 allowed.example\n")?;
    let text = || policy("root", &["allowed.example:8080"]);
    let run = |user: &str| -> Result<Report> {
        let curl = [
            "curl",
            "-sS",
            "--max-time",
            "5",
            "http://allowed.example:8080/",
        ];
        world.agent(text()).user(Some(user)).run(&curl)
    };
    let report = run("nobody")?;
    ensure!(report.code() == 0, "the control: {report}");
    let report = run("root")?;
    ensure!(report.code() == 7, "{report}");
    report.ensure_denied(&Denial::of_address(zone::STRANGER).port(8080))?;
    Ok(())
}
