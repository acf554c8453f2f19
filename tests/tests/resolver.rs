//! The DNS proxy belongs to its connector: nobody else is answered, nobody else stands there.

use std::{io::Write, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, policy},
    event::Event,
    process::must,
    world::World,
};

/// What every script here begins with: questions over UDP and TCP.
const QUESTIONS: &str = r#"
import errno, os, socket, struct, sys, time
def question(name, edns=True):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    more = b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if edns else b""
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, int(edns)) + labels + b"\0\0\1\0\1" + more
def said(message):
    return "code %d answers %d" % (message[3] & 15, struct.unpack(">H", message[6:8])[0])
def udp(to, name, source=None, wait=2):
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        out.settimeout(wait)
        if source:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            out.bind(source)
        try:
            out.sendto(question(name), to)
            return said(out.recv(2000))
        except OSError as error:
            return type(error).__name__
def tcp(to, name, wait=2):
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    with socket.socket(family) as out:
        out.settimeout(wait)
        try:
            out.connect(to)
            asked = question(name)
            out.sendall(struct.pack(">H", len(asked)) + asked)
            return said(out.recv(2000)[2:])
        except OSError as error:
            return type(error).__name__
def door():
    for line in open("/proc/net/udp").read().splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        if address == "0100007F" and fields[2] == "00000000:0000":
            return int(port, 16)
"#;

/// Any user that runs nothing else.
const OTHER_USER: &str = "4343";

/// A script that runs outside, as another user.
fn outside(world: &World, script: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = world.command("setpriv");
    let user = [
        format!("--reuid={OTHER_USER}"),
        format!("--regid={OTHER_USER}"),
    ];
    command
        .args(user)
        .args(["--clear-groups", "--", "/usr/bin/python3", "-c"]);
    command.arg(format!("{QUESTIONS}{script}")).args(arguments);
    command
}

const STRANGER: &str = r#"
port = door()
for to in [("127.0.0.1", port), ("::1", port)]:
    print("udp", udp(to, "allowed.example"))
    print("tcp", tcp(to, "allowed.example"))
print("forged", udp(("127.0.0.1", port), "forged.evil.example", ("127.0.0.7", 40404)))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    for number in range(200):
        out.sendto(question("n%d.ingest.sentry.io" % number), ("127.0.0.1", port))
print("asked")
"#;

const FLOOD: &str = r#"
port, end = door(), time.time() + 6
held = []
for _ in range(300):
    call = socket.socket(); call.setblocking(False); call.connect_ex(("127.0.0.1", port)); held.append(call)
print("held", flush=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    message = question("allowed.example")
    while time.time() < end:
        out.sendto(message, ("127.0.0.1", port))
print("flooded")
"#;

/// Asks when told to, over UDP from a port that strangers may know, and over TCP.
const ASKER: &str = r#"
server = ("203.0.113.53", 53)
print("up", flush=True)
for line in sys.stdin:
    for name in line.split():
        print(name, udp(server, name, ("0.0.0.0", 40404)), tcp(server, name), flush=True)
    print("done", line.strip(), flush=True)
"#;

#[test]
fn a_stranger_is_not_answered_and_costs_nothing() -> Result<()> {
    let world = World::new()?;
    let rules = ["allowed.example:443", "\"*.ingest.sentry.io:443\""];
    let script = format!("{QUESTIONS}{ASKER}");
    let mut confined =
        world
            .agent(policy("names", &rules))
            .start(&["/usr/bin/python3", "-c", &script])?;
    confined.printed("up", agent::LIMIT)?;
    writeln!(confined.agent.stdin()?, "allowed.example giftshop.club")?;
    confined.printed("done allowed.example", agent::LIMIT)?;

    let asked = must(outside(&world, STRANGER, &[]), agent::LIMIT)?.text();
    ensure!(asked.contains("\nasked\n"), "{asked}");
    for line in asked.lines().filter(|line| *line != "asked") {
        ensure!(
            line.ends_with(" TimeoutError"),
            "a stranger is answered: {asked}"
        );
    }

    let mut flood =
        egress_tests::process::Running::start(outside(&world, FLOOD, &[]), agent::LIMIT)?;
    while !String::from_utf8_lossy(&flood.stdout()).contains("held") {
        ensure!(!flood.ended()?, "{}", flood.stderr());
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(200));
    writeln!(
        confined.agent.stdin()?,
        "n1.ingest.sentry.io allowed.example"
    )?;
    confined.printed("done n1.ingest", agent::LIMIT)?;
    let flooded = flood.wait()?;
    ensure!(flooded.text().contains("flooded"), "{flooded:?}");

    let report = confined.wait()?;
    report.ensure_printed("allowed.example code 0 answers 1 code 0 answers 1")?;
    report.ensure_printed("giftshop.club code 3 answers 0 code 3 answers 0")?;
    let text = report.text();
    let permitted = text.matches("allowed.example code 0 answers 1 code 0 answers 1");
    ensure!(permitted.count() == 2, "held up by strangers: {report}");
    // Within the budget, which strangers have not spent; nothing of it was refused.
    let names: Vec<&str> = report
        .denials()
        .iter()
        .filter_map(|event| name(event))
        .collect();
    ensure!(
        names.iter().all(|name| *name == "giftshop.club"),
        "{names:?}"
    );
    ensure!(names.len() == 2, "{names:?}");
    let queries = world.queries()?;
    let strangers = queries.iter().filter(|query| query.name.starts_with('n'));
    ensure!(
        strangers
            .clone()
            .all(|query| query.name == "n1.ingest.sentry.io"),
        "{queries:?}"
    );
    Ok(())
}

fn name(event: &Event) -> Option<&str> {
    event.destination.as_ref()?.name.as_deref()
}

/// Two processes of one connector, on the same port of two loopback addresses.
const TWINS: &str = r#"
which = sys.argv[1]
source = {"one": "127.0.0.2", "two": "127.0.0.3"}[which]
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind((source, 40404))
if which == "one":
    child = os.spawnv(os.P_NOWAIT, sys.executable, ["python3", "-c", os.environ["SCRIPT"], "two"])
for number in range(10):
    out.sendto(question("%s-%d.evil.example" % (which, number)), ("203.0.113.53", 53))
    out.settimeout(5)
    print(which, said(out.recv(2000)), flush=True)
time.sleep(1)
if which == "one":
    os.waitpid(child, 0)
"#;

#[test]
fn a_refused_name_is_told_of_the_process_that_asked() -> Result<()> {
    let world = World::new()?;
    let script = format!("{QUESTIONS}{TWINS}");
    let report = world
        .agent(policy("names", &["allowed.example:443"]))
        .env("SCRIPT", &script)
        .run(&["/usr/bin/python3", "-c", &script, "one"])?;
    for which in ["one", "two"] {
        report.ensure_printed(&format!("{which} code 3"))?;
        let asked = |event: &&&Event| name(event).is_some_and(|name| name.starts_with(which));
        let denials = report.denials();
        let own: Vec<_> = denials.iter().filter(asked).collect();
        ensure!(own.len() == 10, "{report}");
        for event in own {
            let process = event.process.as_ref().context("no process")?;
            let arguments = process.rest.get("cmdline").context("no arguments")?;
            let last = arguments.as_array().and_then(|all| all.last());
            // Long arguments are cut, and so may be the last; the parent tells them apart then.
            let by = last
                .and_then(|word| word.as_str())
                .context("no arguments")?;
            ensure!(by == which, "{}", event.line);
        }
    }
    Ok(())
}

/// Asks for ever, with sockets from before and new ones.
const ORPHAN: &str = r#"
server = ("203.0.113.53", 53)
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
old.connect(server)
old.settimeout(1)
def by_old():
    try:
        old.send(question("allowed.example"))
        return said(old.recv(2000))
    except OSError as error:
        return type(error).__name__
def longest(ask):
    begin = time.time()
    answer = ask()
    return answer + (" at once" if time.time() - begin < 0.7 else " late")
for number in range(1000):
    print("connected", by_old(), flush=True)
    print("new", longest(lambda: udp(server, "allowed.example", wait=1)), flush=True)
    print("stream", longest(lambda: tcp(server, "allowed.example", wait=1)), flush=True)
    print("six", longest(lambda: udp(("2001:db8:cb::53", 53), "allowed.example", wait=1)), flush=True)
    time.sleep(0.1)
"#;

/// Takes the place of the proxy, and says what comes.
const SQUATTER: &str = r#"
import select
port = int(sys.argv[1])
sockets = []
for family, address in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]:
    for kind in [socket.SOCK_DGRAM, socket.SOCK_STREAM]:
        own = socket.socket(family, kind)
        own.bind((address, port))
        if kind == socket.SOCK_STREAM:
            own.listen()
        sockets.append(own)
print("squatting", flush=True)
end = time.time() + 5
while time.time() < end:
    for own in select.select(sockets, [], [], 0.2)[0]:
        if own.type == socket.SOCK_STREAM:
            print("heard a call", flush=True); own.accept()
        else:
            print("heard", own.recv(2000), flush=True)
"#;

#[test]
fn the_place_of_a_dead_agents_proxy_is_closed() -> Result<()> {
    let world = World::alone()?;
    let script = format!("{QUESTIONS}{ORPHAN}");
    let mut confined = world
        .agent(policy("names", &["allowed.example:443"]))
        .start(&["/usr/bin/python3", "-c", &script])?;
    for line in [
        "connected code 0 answers 1",
        "new code 0 answers 1 at once",
        "stream code 0 answers 1 at once",
        "six code 0 answers 1 at once",
    ] {
        confined.printed(line, agent::LIMIT)?;
    }
    let port = must(outside(&world, "print(door())", &[]), agent::LIMIT)?;
    let port = port.text().trim().to_owned();
    confined.hold_init()?;
    confined.kill_agent()?;

    let squatter = outside(&world, SQUATTER, &[&port]);
    let mut squatter = egress_tests::process::Running::start(squatter, agent::LIMIT)?;
    while !String::from_utf8_lossy(&squatter.stdout()).contains("squatting") {
        ensure!(!squatter.ended()?, "{}", squatter.stderr());
        thread::sleep(Duration::from_millis(5));
    }
    let said = confined.agent.stdout().len();
    // Others do reach it.
    let other = outside(
        &world,
        "print(udp((\"127.0.0.1\", int(sys.argv[1])), \"control\", wait=0.2))",
        &[&port],
    );
    must(other, agent::LIMIT)?;
    let heard = squatter.wait()?.text();
    let calls: Vec<&str> = heard
        .lines()
        .filter(|line| line.contains("heard"))
        .collect();
    ensure!(
        calls.len() == 1 && heard.contains("control"),
        "a stranger in the proxy's place heard the connector: {heard}"
    );
    let after = confined.agent.stdout();
    let after = String::from_utf8_lossy(&after[said..]).into_owned();
    for line in [
        "connected PermissionError",
        "new PermissionError at once",
        "stream PermissionError at once",
        "six PermissionError at once",
    ] {
        ensure!(after.contains(line), "{line}: {after}");
    }
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    Ok(())
}
