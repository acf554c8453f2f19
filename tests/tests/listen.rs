//! Who may call in: nobody but loopback, and whom a `listen:` rule names.
//!
//! A caller is a program in the embedded internet that comes from an address of its choice.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Agent, Confined},
    event::Denial,
    process::{Running, patience},
    token,
    world::World,
    zone,
};
use nix::sys::signal::Signal;

/// The port of the connector that rules name, and the one that none does.
const OPEN: u16 = 18080;
const CLOSED: u16 = 18081;
/// A caller waits so long for an answer that should come, in seconds, and for one that should not.
const ANSWER: &str = "20";
const SILENCE: &str = "1.5";
/// A program notices within this time that its connection has ended.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Sends back what callers say, on two ports of every address, and tells of each connection
/// that ends with an error. A line on its standard input is a destination to call: from the
/// port that it listens on.
const SERVER: &str = r#"
import errno, socket, sys, threading
def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
def serve(peer, who):
    try:
        while data := peer.recv(200):
            peer.sendall(data)
        say(f"closed {who}")
    except OSError as error:
        say(f"ended {who} {errno.errorcode.get(error.errno)}")
callers = {}
def listen(port):
    # Bound before anything listens: so this socket may have the listener's port.
    out = socket.socket()
    out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    out.bind(("0.0.0.0", port))
    callers[port] = out
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    server.listen()
    say(f"up {port}")
    while True:
        peer, address = server.accept()
        threading.Thread(target=serve, args=(peer, address[0]), daemon=True).start()
for port in map(int, sys.argv[1:]):
    threading.Thread(target=listen, args=(port,), daemon=True).start()
def call(kind, host, port, own):
    if kind == "STREAM":
        out = callers[int(own)]
    else:
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        out.bind(("0.0.0.0", int(own)))
    out.settimeout(3)
    out.connect((host, int(port)))
    out.send(b"out")
    return "connected"
for line in sys.stdin:
    try:
        say("called " + call(*line.split()))
    except OSError as error:
        say("called " + errno.errorcode.get(error.errno, str(error)))
"#;

/// Calls from an address, and says what comes back; then holds the connection.
const CALLER: &str = r#"
import socket, sys, time
source, host, port, patience, token = sys.argv[1:]
try:
    out = socket.create_connection((host, int(port)), float(patience), (source, 0))
    out.sendall(token.encode())
    print("answer " + out.recv(200).decode(), flush=True)
except OSError as error:
    print("silence " + str(error), flush=True)
    raise SystemExit
out.settimeout(None)
for line in sys.stdin:
    out.sendall(line.strip().encode())
    print("again " + out.recv(200).decode(), flush=True)
"#;

fn text(listen: &str) -> String {
    format!("version: 1\nconnector: server\nlisten: [{listen}]\n")
}

/// A connector that serves, and its policy file.
struct Server<'w> {
    world: &'w World,
    confined: Confined,
    file: std::path::PathBuf,
}

impl<'w> Server<'w> {
    fn start(world: &'w World, listen: &str) -> Result<Self> {
        Self::with(world, world.agent(""), listen)
    }

    fn with(world: &'w World, agent: Agent<'w>, listen: &str) -> Result<Self> {
        let file = world.path("policy.yaml");
        fs::write(&file, text(listen))?;
        let (open, closed) = (OPEN.to_string(), CLOSED.to_string());
        let words = ["/usr/bin/python3", "-c", SERVER, &open, &closed];
        let mut confined = agent.start_with_file(&file, &words)?;
        for port in [&open, &closed] {
            confined.printed(&format!("up {port}"), agent::LIMIT)?;
        }
        Ok(Self {
            world,
            confined,
            file,
        })
    }

    /// A caller that has got an answer, or none.
    fn called_from(&self, source: IpAddr, port: u16, patience: &str) -> Result<(Caller, bool)> {
        let host: IpAddr = match source {
            IpAddr::V4(_) => zone::HOST.into(),
            IpAddr::V6(_) => zone::HOST6.into(),
        };
        let token = token::new();
        let mut command = self.world.internet_command("/usr/bin/python3");
        command.args(["-c", CALLER, &source.to_string(), &host.to_string()]);
        command.args([&port.to_string(), patience, &token]);
        let caller = Caller(Running::start(command, agent::LIMIT)?);
        let said = caller.said(1)?;
        ensure!(
            said.starts_with("answer ") || said.starts_with("silence "),
            "{said}"
        );
        let answered = said == format!("answer {token}");
        ensure!(answered || said.starts_with("silence "), "{said}");
        Ok((caller, answered))
    }

    fn ensure_answers(&self, source: impl Into<IpAddr>, port: u16) -> Result<Caller> {
        let source = source.into();
        let (caller, answered) = self.called_from(source, port, ANSWER)?;
        let said = self.confined.agent.stderr();
        ensure!(answered, "{source} got no answer from port {port}; {said}");
        Ok(caller)
    }

    fn ensure_silent(&self, source: impl Into<IpAddr>, port: u16) -> Result<()> {
        let source = source.into();
        let (_, answered) = self.called_from(source, port, SILENCE)?;
        ensure!(!answered, "{source} got an answer from port {port}");
        let denial = Denial {
            layers: vec!["packet"],
            protocol: Some("tcp"),
            ..Denial::of_address(source)
        };
        self.confined.denial(&denial.because(&["inbound"]))?;
        Ok(())
    }

    /// What the connector gets when it calls a destination itself.
    fn calls(&mut self, kind: &str, to: IpAddr, port: u16) -> Result<String> {
        let before = self.printed().matches("called ").count();
        writeln!(self.confined.agent.stdin()?, "{kind} {to} {port} {OPEN}")?;
        let end = Instant::now() + agent::LIMIT;
        loop {
            let printed = self.printed();
            let mut calls = printed
                .lines()
                .filter_map(|line| line.strip_prefix("called "));
            if let Some(result) = calls.nth(before) {
                return Ok(result.to_owned());
            }
            ensure!(Instant::now() < end, "no result: {printed}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&self.confined.agent.stdout()).into_owned()
    }

    /// Replaces the policy and waits until it is in force.
    fn reload(&self, listen: &str) -> Result<Instant> {
        let changes = || -> Result<usize> {
            let events = self.confined.events()?;
            Ok(events.iter().filter(|event| event.kind == "policy").count())
        };
        let before = changes()?;
        fs::write(&self.file, text(listen))?;
        let now = Instant::now();
        self.confined.agent.signal(Signal::SIGHUP)?;
        while changes()? == before {
            let said = self.confined.agent.stderr();
            ensure!(now.elapsed() < agent::LIMIT, "no policy line; {said}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(now)
    }
}

/// A program outside that called.
struct Caller(Running);

impl Caller {
    /// Its first so many lines; the last of them.
    fn said(&self, lines: usize) -> Result<String> {
        let end = Instant::now() + agent::LIMIT;
        loop {
            let text = String::from_utf8_lossy(&self.0.stdout()).into_owned();
            let whole = text.matches('\n').count();
            if let (true, Some(line)) = (whole >= lines, text.lines().nth(lines - 1)) {
                return Ok(line.to_owned());
            }
            ensure!(
                Instant::now() < end,
                "it said {text:?}; {}",
                self.0.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn says(&mut self, token: &str) -> Result<()> {
        writeln!(self.0.stdin()?, "{token}").context("the caller is gone")
    }
}

const FRIEND: Ipv4Addr = zone::v4(77);
const FRIEND6: Ipv6Addr = zone::v6(0x77);

fn both() -> String {
    format!("{OPEN} from 203.0.113.0/24, {{ports: [{OPEN}], from: [\"2001:db8:cb::/48\"]}}")
}

#[test]
fn permitted_callers_get_answers_and_others_do_not() -> Result<()> {
    let world = World::new()?;
    let server = Server::start(&world, &both())?;
    let mut caller = server.ensure_answers(FRIEND, OPEN)?;
    server.ensure_answers(FRIEND6, OPEN)?;
    server.ensure_silent(zone::STRANGER, OPEN)?;
    server.ensure_silent(zone::STRANGER6, OPEN)?;
    server.ensure_silent(zone::v4(78), CLOSED)?;
    let token = token::new();
    caller.says(&token)?;
    ensure!(caller.said(2)? == format!("again {token}"));
    Ok(())
}

#[test]
fn without_a_rule_nobody_outside_gets_an_answer() -> Result<()> {
    let world = World::new()?;
    let server = Server::start(&world, "")?;
    server.ensure_silent(FRIEND, OPEN)?;
    server.ensure_silent(FRIEND6, OPEN)?;
    drop(server);
    let free = Server::with(&world, world.agent("").free(), "")?;
    free.ensure_answers(zone::STRANGER, OPEN)?;
    free.ensure_answers(zone::STRANGER6, OPEN)?;
    Ok(())
}

/// Many half-open calls at once, to a port with no room for them: the kernel answers such with SYN
/// cookies, for which there is no socket.
const HALF_OPEN: &str = r#"
import socket, sys, time
source, host, port = sys.argv[1:]
calls = []
for _ in range(12):
    out = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    out.bind((source, 0))
    out.setblocking(False)
    out.connect_ex((host, int(port)))
    calls.append(out)
time.sleep(1.3)
"#;

/// Listens where nobody is let in, with no room for callers.
const NO_ROOM: &str = r#"
import socket, time
server = socket.socket(socket.AF_INET6)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", 18082))
server.listen(0)
print("up", flush=True)
time.sleep(60)
"#;

/// Not a segment comes back: its fields would be of the connector's choice.
#[test]
fn callers_nobody_let_in_hear_nothing() -> Result<()> {
    for (without, heard) in [(None, false), (Some("ingress"), true)] {
        let world = World::new()?;
        let agent = world.agent(text(""));
        let agent = match without {
            Some(layers) => agent.without(layers),
            None => agent,
        };
        let mut confined = agent.start(&["/usr/bin/python3", "-c", NO_ROOM])?;
        confined.printed("up", agent::LIMIT)?;
        let pairs: [(IpAddr, IpAddr); 2] = [
            (zone::STRANGER.into(), zone::HOST.into()),
            (zone::STRANGER6.into(), zone::HOST6.into()),
        ];
        let mut segments = 0;
        for (source, host) in pairs {
            let mut command = world.internet_command("/usr/bin/python3");
            command.args([
                "-c",
                HALF_OPEN,
                &source.to_string(),
                &host.to_string(),
                "18082",
            ]);
            Running::start(command, agent::LIMIT)?.wait()?;
            segments += world.packets(source)?.len();
        }
        ensure!((segments > 0) == heard, "without {without:?}: {segments}");
        if without.is_none() {
            let events = confined.events()?;
            let inbound = events.iter().filter(|it| it.kind == "denied").count();
            // 24 calls, each tried twice: few lines.
            ensure!((2..=10).contains(&inbound), "{inbound} lines");
        }
    }
    Ok(())
}

#[test]
fn a_permitted_caller_cannot_be_called() -> Result<()> {
    let world = World::new()?;
    let mut server = Server::start(&world, &both())?;
    server.ensure_answers(FRIEND, OPEN)?;
    // From the very port on which it may answer, too.
    let result = server.calls("STREAM", FRIEND.into(), 9999)?;
    ensure!(result == "EPERM", "{result}");
    let result = server.calls("DGRAM", FRIEND.into(), 9999)?;
    ensure!(result == "EPERM", "{result}");
    let packets = world.packets(FRIEND)?;
    let called = packets.iter().any(|flow| flow.port == 9999);
    ensure!(!called, "{packets:?}");
    Ok(())
}

#[test]
fn a_removed_rule_ends_its_connections_and_no_other() -> Result<()> {
    let world = World::new()?;
    let (one, other) = (
        format!("{OPEN} from {FRIEND}"),
        format!("{OPEN} from {}", zone::v4(78)),
    );
    let mut server = Server::start(&world, &format!("{one}, {other}"))?;
    let mut gone = server.ensure_answers(FRIEND, OPEN)?;
    let mut stays = server.ensure_answers(zone::v4(78), OPEN)?;

    let since = server.reload(&other)?;
    let ended = format!("ended ::ffff:{FRIEND} ECONNABORTED");
    server.confined.printed(&ended, AT_ONCE)?;
    let took = since.elapsed();
    ensure!(took < AT_ONCE * patience(), "not at once: {took:?}");
    gone.says("hello")?;
    stays.says("hello")?;
    ensure!(stays.said(2)? == "again hello");
    server.ensure_silent(FRIEND, OPEN)?;

    // A rule that says the same in other words takes the connection over.
    server.reload(&format!(
        "{{id: net, ports: [{OPEN}], from: 203.0.113.0/24}}"
    ))?;
    stays.says("still")?;
    ensure!(stays.said(3)? == "again still");
    server.ensure_answers(FRIEND, OPEN)?;
    let answers = String::from_utf8_lossy(&gone.0.stdout())
        .matches("again")
        .count();
    ensure!(answers == 0, "the ended connection was answered");
    Ok(())
}
