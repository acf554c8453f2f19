//! The DNS door, through real clients.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    agent::{self, DOOR_CODE, DOOR_STATUS, Report, policy},
    event::Denial,
    process::{Running, must, patient},
    protocol::Record,
    shell::{Said, Shell},
    token,
    world::World,
    zone,
};

/// Of a program outside.
const LIMIT: Duration = Duration::from_secs(60);

fn dig(shell: &mut Shell, words: &str) -> Result<Said> {
    shell.run(&format!("dig +time=5 +tries=1 {words}"))
}

fn refused(said: &Said) -> bool {
    said.text.contains(&format!("status: {DOOR_STATUS}"))
}

/// Reads the door's answers to two questions sent in one segment.
const PIPELINE: &str = r#"
import socket, struct
def question(number, name):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    message = struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    return struct.pack(">H", len(message)) + message
def exactly(size):
    data = b""
    while len(data) < size:
        more = out.recv(size - len(data))
        assert more, "closed"
        data += more
    return data
out = socket.create_connection(("203.0.113.53", 53), timeout=5)
out.sendall(question(1, "allowed.example") + question(2, "giftshop.club") + question(3, "allowed.example"))
for _ in range(3):
    size, = struct.unpack(">H", exactly(2))
    message = exactly(size)
    number, flags, _, answers = struct.unpack(">HHHH", message[:8])
    print("answer", number, "code", flags & 15, "records", answers)
"#;

#[test]
fn any_server_over_any_transport_is_the_door() -> Result<()> {
    let world = World::new()?;
    let mut shell = world
        .agent(policy("names", &["allowed.example:443"]))
        .shell()?;
    let servers = [
        "",
        "@203.0.113.53",
        "@198.51.100.53",
        "@198.51.100.99",
        "@2001:db8:cb::53",
        "@127.0.0.1",
    ];
    for server in servers {
        for transport in ["", "+tcp"] {
            let said = dig(
                &mut shell,
                &format!("{server} {transport} +short allowed.example"),
            )?;
            ensure!(
                said.text.trim() == "203.0.113.20",
                "{server} {transport}: {said:?}"
            );
            let said = dig(&mut shell, &format!("{server} {transport} giftshop.club"))?;
            ensure!(refused(&said), "{server} {transport}: {said:?}");
            ensure!(
                said.took < Duration::from_secs(2),
                "{server} {transport}: {said:?}"
            );
        }
    }
    let said = dig(&mut shell, "+short allowed.example AAAA")?;
    ensure!(said.text.trim() == "2001:db8:cb::20", "{said:?}");
    let said = dig(&mut shell, "+short aLLoWeD.ExAmPlE")?;
    ensure!(said.text.trim() == "203.0.113.20", "{said:?}");
    let report = shell.end()?;
    report.ensure_denied(&Denial::of_name("giftshop.club").because(&["name-not-allowed"]))?;
    world.fence()?;
    ensure!(world.packets(zone::OTHER_DNS)?.is_empty());
    let queries = world.queries()?;
    ensure!(
        !queries.is_empty()
            && queries
                .iter()
                // The agent's own question, by which it learns how the network translates.
                .all(|q| q.name == "allowed.example" || q.name == "ipv4only.arpa"),
        "{queries:?}"
    );
    Ok(())
}

#[test]
fn several_questions_in_one_segment() -> Result<()> {
    let world = World::new()?;
    let agent = world.agent(policy("names", &["allowed.example:443"]));
    let report = agent.run(&["/usr/bin/python3", "-c", PIPELINE])?;
    let refusal = format!("answer 2 code {DOOR_CODE} records 0");
    for line in [
        "answer 1 code 0 records 1",
        &refusal,
        "answer 3 code 0 records 1",
    ] {
        report.ensure_printed(line)?;
    }
    report.ensure_denied(&Denial::of_name("giftshop.club"))?;
    Ok(())
}

#[test]
fn only_addresses_are_answered() -> Result<()> {
    let world = World::new()?;
    let mut shell = world
        .agent(policy("names", &["text.example:443"]))
        .shell()?;
    for kind in ["TXT", "TYPE65", "TYPE64", "MX", "SRV", "NULL", "ANY"] {
        let said = dig(&mut shell, &format!("+notcp text.example {kind}"))?;
        let empty = said.text.contains("status: NOERROR") && said.text.contains("ANSWER: 0,");
        ensure!(empty, "{kind}: {said:?}");
    }
    ensure!(dig(&mut shell, "+short text.example")?.text.trim() == "203.0.113.49");
    let queries = world.queries()?;
    let kinds_ok = queries
        .iter()
        .all(|query| query.kind == "A" || query.kind == "AAAA");
    ensure!(!queries.is_empty() && kinds_ok, "{queries:?}");
    Ok(())
}

#[test]
fn answers_that_point_inside_are_dropped() -> Result<()> {
    let world = World::new()?;
    let mut text = policy("rebind", &["\"*.rebind.example:80\""]);
    text.push_str("  - host: inside.example\n    ports: [8080]\n    private: true\n");
    let mut shell = world.agent(text).shell()?;
    for (label, kind) in [
        ("loopback", "A"),
        ("loopback", "AAAA"),
        ("zero", "A"),
        ("zero", "AAAA"),
        ("private", "A"),
        ("metadata", "A"),
        ("mapped", "AAAA"),
        ("nat64", "AAAA"),
    ] {
        let said = dig(&mut shell, &format!("{label}.rebind.example {kind}"))?;
        ensure!(said.text.contains("ANSWER: 0,"), "{label} {kind}: {said:?}");
        let name = format!("{label}.rebind.example");
        let denial = Denial::of_name(&name).because(&["private-answer"]);
        shell.confined.denial(&denial)?;
    }
    let said = dig(&mut shell, "+short mixed.rebind.example")?;
    ensure!(said.text.trim() == "203.0.113.31", "{said:?}");
    // Something has to answer there, or a refused connection proves nothing.
    let mut server = world.command("/usr/bin/python3");
    server.args(["-m", "http.server", "--bind", "127.0.0.1", "80"]);
    let _server = Running::start(server, LIMIT)?;
    for ip in ["10.20.0.5", "169.254.169.254", "127.0.0.1"] {
        let mut outside = world.command("curl");
        outside.args([
            "-sS",
            "--retry",
            "20",
            "--retry-connrefused",
            "--retry-delay",
            "1",
        ]);
        outside.args(["--max-time", "5", "--output", "/dev/null"]);
        outside.arg(format!("http://{ip}/"));
        must(outside, LIMIT).with_context(|| format!("{ip} does not even answer outside"))?;
        let said = shell.run(&format!("curl -sS --max-time 5 http://{ip}/"))?;
        ensure!(said.code == 7, "{ip}: {said:?}");
    }
    let said = shell.run("curl -sS --max-time 5 http://inside.example:8080/")?;
    ensure!(said.code == 0, "the rule says private: {said:?}");
    Ok(())
}

/// A public address of this host leads to what listens on it for others.
#[test]
fn this_hosts_own_addresses_are_private() -> Result<()> {
    let world = World::new()?;
    let add = |address: &str| -> Result<()> {
        let mut command = world.command("ip");
        command.args(["address", "add", address, "dev", "lo"]);
        must(command, agent::LIMIT).map(drop)
    };
    add("203.0.113.200/32")?;
    add("2001:db8:cb::200/128")?;
    for (name, last) in [
        ("own", 200),
        ("later", 201),
        ("routed", 202),
        ("inside", 200),
    ] {
        world.set(zone::both(&format!("{name}.example"), last))?;
    }
    let mut text = policy(
        "own",
        &[
            "own.example:8080",
            "later.example:8080",
            "routed.example:8080",
        ],
    );
    text.push_str("  - host: inside.example\n    ports: [8080]\n    private: true\n");
    let mut shell = world.agent(text).option("--start-unresolved").shell()?;
    for kind in ["A", "AAAA"] {
        let said = dig(&mut shell, &format!("own.example {kind}"))?;
        ensure!(said.text.contains("ANSWER: 0,"), "{kind}: {said:?}");
    }
    let denial = Denial::of_name("own.example").because(&["private-answer"]);
    shell.confined.denial(&denial)?;
    let said = dig(&mut shell, "+short inside.example")?;
    ensure!(said.text.trim() == "203.0.113.200", "{said:?}");
    // One that is elsewhere, and here a moment later: as an address, and as a part of a range.
    let reach = |last: u8| format!("curl -sS --max-time 5 http://203.0.113.{last}:8080/");
    for last in [201, 202] {
        let said = shell.run(&reach(last))?;
        ensure!(said.code == 0, "{said:?}");
    }
    add("203.0.113.201/32")?;
    let mut command = world.command("ip");
    command.args(["route", "add", "local", "203.0.113.202/31", "dev", "lo"]);
    must(command, agent::LIMIT)?;
    // Told by the kernel at once; nobody listens there, so only the event tells who refused.
    thread::sleep(patient(Duration::from_millis(500)));
    for last in [201, 202] {
        let said = shell.run(&reach(last))?;
        ensure!(said.code == 7, "{said:?}");
    }
    let report = shell.end()?;
    for last in [201, 202] {
        report.ensure_denied(&Denial::of_address(zone::v4(last)).port(8080))?;
    }
    Ok(())
}

#[test]
fn a_grant_is_there_before_its_answer() -> Result<()> {
    let world = World::new()?;
    for last in 100..150u8 {
        world.set(zone::both(&format!("n{last}.ingest.sentry.io"), last))?;
    }
    let script = r#"
import socket
for last in range(100, 150):
    host = f"n{last}.ingest.sentry.io"
    for *kind, _, address in socket.getaddrinfo(host, 9999, type=socket.SOCK_STREAM):
        with socket.socket(*kind) as out:
            out.connect(address)
print("all reached")
"#;
    let agent = world.agent(policy("names", &["\"*.ingest.sentry.io:9999\""]));
    let report = agent.run(&["/usr/bin/python3", "-c", script])?;
    report.ensure_printed("all reached")?;
    report.ensure_nothing_denied()
}

#[test]
fn a_grant_ends_with_its_answer() -> Result<()> {
    let world = World::new()?;
    world.set(Record {
        ttl: 1,
        ..zone::only("brief.ingest.sentry.io", &[zone::v4(77)], &[])
    })?;
    let mut text = policy("expiry", &["\"*.ingest.sentry.io:8080\""]);
    text.push_str("dns:\n  ttl:\n    floor: 1s\n    grace: 1s\n");
    let mut shell = world.agent(text).shell()?;
    let by_name = shell.run("curl -sS --max-time 5 http://brief.ingest.sentry.io:8080/")?;
    ensure!(by_name.code == 0, "{by_name:?}");
    // A connection made in time goes on.
    let open = "exec 5<>/dev/tcp/203.0.113.77/8080; echo $?";
    ensure!(shell.run(open)?.text.trim() == "0");
    thread::sleep(Duration::from_millis(3500));
    let by_address = shell.run("curl -sS --max-time 5 http://203.0.113.77:8080/")?;
    ensure!(
        by_address.code == 7,
        "a new flow after its time: {by_address:?}"
    );
    let request = r#"printf 'GET / HTTP/1.1\r\nhost: x\r\n\r\n' >&5; read -t 5 -r answer <&5; echo "$answer""#;
    let kept = shell.run(request)?;
    ensure!(
        kept.text.contains("200 OK"),
        "the open connection: {kept:?}"
    );
    let again = shell.run("curl -sS --max-time 5 http://brief.ingest.sentry.io:8080/")?;
    ensure!(again.code == 0, "asked again: {again:?}");
    let report = shell.end()?;
    let denial = Denial::of_address(zone::v4(77)).port(8080);
    report.ensure_denied(&denial.because(&["expired", "no-rule"]))?;
    Ok(())
}

/// Approved while its grant lasts, opened after: a SYN that a fast open puts off, in IPv4 and in
/// IPv6, to a port where names are checked too, and a datagram socket that waits. Prints the error
/// of each, and `open` for what was opened in time.
const LATE: &str = r#"
import socket, sys, time
MSG_FASTOPEN_COOKIELESS, FASTOPEN_CONNECT = 34, 30
infos = socket.getaddrinfo("brief.ingest.sentry.io", None, type=socket.SOCK_STREAM)
def put_off(info, port):
    out = socket.socket(info[0])
    out.setsockopt(socket.IPPROTO_TCP, FASTOPEN_CONNECT, 1)
    out.setsockopt(socket.IPPROTO_TCP, MSG_FASTOPEN_COOKIELESS, 1)
    out.settimeout(1.5)
    out.connect((info[4][0], port))
    return out
late = [(f"tcp {info[4][0]} {port}", put_off(info, port)) for info in infos for port in (9999, 443)]
for info in infos:
    out = socket.socket(info[0], socket.SOCK_DGRAM)
    out.connect((info[4][0], 9999))
    out.send(sys.argv[2].encode())
    late.append((f"udp {info[4][0]}", out))
early = put_off(infos[0], 9999)
early.send(sys.argv[2].encode())
print("early", early.recv(10) != b"", flush=True)
time.sleep(float(sys.argv[3]))
for name, out in late:
    try:
        if name.endswith(" 443"):
            out.send(b"")
        out.send(sys.argv[1].encode())
        out.recv(10)
        print("late", name, "ANSWERED", flush=True)
    except OSError as error:
        print("late", name, error, flush=True)
early.send(sys.argv[2].encode())
print("open", early.recv(10) != b"", flush=True)
"#;

#[test]
fn what_is_opened_late_needs_a_grant_then() -> Result<()> {
    let world = World::new()?;
    let name = "brief.ingest.sentry.io";
    let record = zone::only(name, &[zone::v4(77)], &[zone::v6(0x77)]);
    world.set(Record { ttl: 1, ..record })?;
    let mut text = policy("late", &[]);
    text = text.replace(
        "allow: []",
        "allow:\n  - { host: \"*.ingest.sentry.io\", ports: [9999], protocol: any }\n  \
         - { host: \"*.ingest.sentry.io\", ports: [443] }",
    );
    text.push_str("dns:\n  ttl:\n    floor: 1s\n    grace: 1s\n");
    let (late, early) = (token::new(), token::new());
    let words = |wait: &'static str| ["/usr/bin/python3", "-c", LATE, &late, &early, wait];
    let report = world.agent(text.clone()).run(&words("4"))?;
    report.ensure_printed("early True")?;
    report.ensure_printed("open True")?;
    let seen = world.sightings(&late)?;
    ensure!(seen.is_empty(), "{seen:?}; {report}");
    for address in [IpAddr::from(zone::v4(77)), zone::v6(0x77).into()] {
        let packets = world.packets(address)?;
        ensure!(!packets.iter().any(|flow| flow.port == 443), "{packets:?}");
    }
    ensure!(!world.sightings(&early)?.is_empty(), "{report}");
    let denial = Denial::of_address(zone::v4(77)).port(443);
    report.ensure_denied(&denial.because(&["expired", "no-rule"]))?;
    // The same in time.
    let report = world.agent(text).run(&words("0.1"))?;
    report.ensure_printed("open True")?;
    ensure!(world.sightings(&late)?.len() >= 4, "{report}");
    Ok(())
}

#[test]
fn an_exact_name_stays_open_while_it_is_refreshed() -> Result<()> {
    let world = World::new()?;
    let mut text = policy("refresh", &["short.example:8080"]);
    text.push_str("dns:\n  ttl:\n    floor: 1s\n    grace: 1s\n");
    let mut shell = world.agent(text).shell()?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1500));
        let said = shell.run("curl -sS --max-time 5 http://203.0.113.44:8080/")?;
        ensure!(said.code == 0, "{said:?}");
    }
    world.set(Record {
        ttl: 1,
        ..zone::only("short.example", &[zone::v4(78)], &[])
    })?;
    thread::sleep(Duration::from_secs(5));
    let moved = shell.run("curl -sS --max-time 5 http://203.0.113.78:8080/")?;
    ensure!(moved.code == 0, "the new address: {moved:?}");
    let old = shell.run("curl -sS --max-time 5 http://203.0.113.44:8080/")?;
    ensure!(old.code == 7, "the old address: {old:?}");
    Ok(())
}

#[test]
fn troubled_names() -> Result<()> {
    let world = World::new()?;
    let names = ["gone", "failing", "dead", "slow", "big", "alias", "loop"];
    let rules: Vec<String> = names
        .iter()
        .map(|name| format!("{name}.example:80"))
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let mut shell = world
        .agent(policy("troubled", &rules))
        .option("--start-unresolved")
        .shell()?;
    let status = |said: &Said, status: &str| said.text.contains(&format!("status: {status}"));
    let said = dig(&mut shell, "gone.example")?;
    ensure!(status(&said, "NXDOMAIN"), "{said:?}");
    let said = dig(&mut shell, "failing.example")?;
    ensure!(status(&said, "SERVFAIL"), "{said:?}");
    let said = shell.run("dig +time=15 +tries=1 dead.example")?;
    ensure!(status(&said, "SERVFAIL"), "{said:?}");
    let said = dig(&mut shell, "loop.example")?;
    ensure!(said.text.contains("ANSWER: 0,"), "{said:?}");
    let said = dig(&mut shell, "+short slow.example")?;
    ensure!(said.text.trim() == "203.0.113.43", "{said:?}");
    for name in ["big", "alias"] {
        let said = shell.run(&format!("curl -sS --max-time 5 http://{name}.example/"))?;
        ensure!(said.code == 0, "{name}: {said:?}");
    }
    let said = dig(&mut shell, "edge.cdn.example")?;
    ensure!(
        refused(&said),
        "an alias's target is not a declared name: {said:?}"
    );
    Ok(())
}

#[test]
fn a_program_that_asks_nobody() -> Result<()> {
    let world = World::new()?;
    let run = |address: &str| -> Result<Report> {
        let agent = world.agent(policy("hosts", &["allowed.example:80"]));
        let known = format!("allowed.example:80:{address}");
        let curl = ["curl", "-sS", "--max-time", "5", "--resolve", &known];
        agent.run(&[&curl[..], &["http://allowed.example/"]].concat())
    };
    run("203.0.113.20")?.ensure_printed("\"ok\":true")?;
    let report = run("198.51.100.7")?;
    ensure!(report.code() == 7, "{report}");
    report.ensure_denied(&Denial::of_address(zone::STRANGER).port(80))?;
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}
