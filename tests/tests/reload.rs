//! A policy changes while its connector runs: what is taken away ends at once, what is added
//! works at once, and everything else notices nothing.

use std::{
    fs,
    io::Write,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Confined, policy},
    event::{Denial, Event},
    process::patience,
    token,
    world::World,
    zone,
};
use nix::sys::signal::Signal;

/// A program notices within this time that its flow has ended; no time-out is this short.
const AT_ONCE: Duration = Duration::from_secs(1);
/// `--watch` sees a change within this time.
const WATCHED: Duration = Duration::from_secs(5);
/// After this time a connection without traffic has sent its last acknowledgement.
const QUIET: Duration = Duration::from_millis(300);

/// Holds sockets open and does with them what its standard input says, one line at a time.
/// Each line is answered by one that starts with its number; `await` answers when something
/// happens to the socket.
const HOLDER: &str = r#"
import errno, socket, sys, threading
held = {}
def answer(number, text):
    sys.stdout.write(f"{number} {text}\n")
    sys.stdout.flush()
def told(number, work):
    try:
        answer(number, work())
    except TimeoutError:
        answer(number, "silence")
    except OSError as error:
        answer(number, "error " + errno.errorcode.get(error.errno, str(error)))
def open_(name, kind, host, port):
    out = socket.socket(socket.AF_INET, {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[kind])
    out.settimeout(3)
    held[name] = out
    out.connect((host, int(port)))
    return "open"
def say(name, token):
    held[name].send(token.encode())
    return "heard" if token.encode() in held[name].recv(200) else "closed"
def send(name, token):
    held[name].send(token.encode())
    return "sent"
def sendto(token, host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(token.encode(), (host, int(port)))
    return "sent"
def await_(name):
    held[name].settimeout(None)
    return "got " + str(held[name].recv(200))
does = {"open": open_, "say": say, "send": send, "sendto": sendto}
for number, line in enumerate(sys.stdin):
    word, *rest = line.split()
    if word == "await":
        threading.Thread(target=told, args=(number, lambda rest=rest: await_(*rest)), daemon=True).start()
    else:
        told(number, lambda: does[word](*rest))
"#;

/// A connector that holds flows, and its policy file.
struct Held<'w> {
    world: &'w World,
    confined: Confined,
    file: PathBuf,
    lines: usize,
}

impl<'w> Held<'w> {
    fn start(world: &'w World, text: &str, options: &[&str]) -> Result<Self> {
        let file = world.path("policy.yaml");
        fs::write(&file, text)?;
        let mut agent = world.agent("").limit(Duration::from_secs(60));
        for option in options {
            agent = agent.option(option);
        }
        let words = ["/usr/bin/python3", "-c", HOLDER];
        let confined = agent.start_with_file(&file, &words)?;
        Ok(Self {
            world,
            confined,
            file,
            lines: 0,
        })
    }

    /// Sends a line; its number.
    fn begin(&mut self, line: &str) -> Result<usize> {
        writeln!(self.confined.agent.stdin()?, "{line}").context("the connector is gone")?;
        self.lines += 1;
        Ok(self.lines - 1)
    }

    /// The answer to a line.
    fn answer(&mut self, number: usize) -> Result<String> {
        let start = format!("\n{number} ");
        let find = |text: &str| {
            let text = format!("\n{text}");
            let (_, rest) = text.split_once(&start)?;
            Some(rest.split_once('\n')?.0.to_owned())
        };
        let end = Instant::now() + agent::LIMIT;
        loop {
            if let Some(answer) = find(&String::from_utf8_lossy(&self.confined.agent.stdout())) {
                return Ok(answer);
            }
            let gone = self.confined.agent.ended()?;
            let said = self.confined.agent.stderr();
            ensure!(!gone && Instant::now() < end, "no answer {number}: {said}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn does(&mut self, line: &str) -> Result<String> {
        let number = self.begin(line)?;
        self.answer(number)
    }

    /// Sends a token over a flow; it has to be answered.
    fn ensure_alive(&mut self, flow: &str) -> Result<()> {
        let answer = self.does(&format!("say {flow} {}", token::new()))?;
        ensure!(answer == "heard", "{flow}: {answer}; {}", self.said());
        Ok(())
    }

    fn ensure_opens(&mut self, flow: &str, rest: &str) -> Result<()> {
        let answer = self.does(&format!("open {flow} {rest}"))?;
        ensure!(answer == "open", "{flow} {rest}: {answer}; {}", self.said());
        self.ensure_alive(flow)
    }

    /// Replaces the file's text in place and sends SIGHUP. The moment of that.
    fn hang_up(&self, text: &str) -> Result<Instant> {
        fs::write(&self.file, text)?;
        let now = Instant::now();
        self.confined.agent.signal(Signal::SIGHUP)?;
        Ok(now)
    }

    /// The same, and waits until the stream says that it took effect.
    fn reload(&self, text: &str) -> Result<Event> {
        let before = self.said_of("policy")?.len();
        self.hang_up(text)?;
        self.event("policy", before, agent::LIMIT)
    }

    /// Events of a kind; of warnings, those about the policy.
    fn said_of(&self, kind: &str) -> Result<Vec<Event>> {
        let mut events = self.confined.events()?;
        let other = |event: &Event| {
            event
                .rest
                .get("topic")
                .is_some_and(|topic| topic != "policy")
        };
        events.retain(|event| event.kind == kind && !other(event));
        Ok(events)
    }

    /// The event of a kind behind the first so many.
    fn event(&self, kind: &str, behind: usize, limit: Duration) -> Result<Event> {
        let end = Instant::now() + limit;
        loop {
            if let Some(event) = self.said_of(kind)?.get(behind) {
                return Ok(event.clone());
            }
            ensure!(Instant::now() < end, "no {kind} line: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The flow, whose program waits for an answer, has an error at once.
    fn ensure_ends(&mut self, waiting: usize, since: Instant) -> Result<()> {
        let answer = self.answer(waiting)?;
        let took = since.elapsed();
        ensure!(answer == "error ECONNABORTED", "{answer}; {}", self.said());
        ensure!(took < AT_ONCE * patience(), "not at once: {took:?}");
        Ok(())
    }

    /// Sending fails, and nothing of it arrives.
    fn ensure_dead(&mut self, flow: &str, to: IpAddr) -> Result<()> {
        let before = self.packets(to)?;
        let token = token::new();
        let answer = self.does(&format!("send {flow} {token}"))?;
        ensure!(answer.starts_with("error"), "{answer}; {}", self.said());
        ensure!(self.packets(to)? == before, "packets after the end");
        ensure!(self.world.sightings(&token)?.is_empty());
        Ok(())
    }

    fn packets(&self, to: IpAddr) -> Result<u64> {
        self.world.fence()?;
        let flows = self.world.packets(to)?;
        Ok(flows.iter().map(|flow| flow.packets).sum())
    }

    fn said(&self) -> String {
        self.confined.agent.stderr()
    }
}

fn with(head: &str, allow: &[&str], deny: &[&str]) -> String {
    let mut text = format!("version: 1\nconnector: reload\n{head}\nallow: [");
    text.push_str(&allow.join(", "));
    text.push_str("]\ndeny: [");
    text.push_str(&deny.join(", "));
    text.push_str("]\n");
    text
}

fn names(event: &Event, key: &str) -> Vec<String> {
    let list = event.rest.get(key).and_then(|list| list.as_array());
    let names = list.into_iter().flatten().filter_map(|name| name.as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn a_removed_host_ends_its_flow_and_no_other() -> Result<()> {
    let world = World::new()?;
    let both = policy("reload", &["allowed.example:9999", "other.example:9999"]);
    let one = policy("reload", &["other.example:9999"]);
    let mut held = Held::start(&world, &both, &[])?;
    held.ensure_opens("gone", "tcp allowed.example 9999")?;
    held.ensure_opens("stays", "tcp other.example 9999")?;

    let waiting = held.begin("await gone")?;
    std::thread::sleep(QUIET);
    let before = held.packets(zone::ALLOWED.into())?;
    let since = held.hang_up(&one)?;
    held.ensure_ends(waiting, since)?;
    // Not even the reset that says so: the rule was off before the socket ended.
    let after = held.packets(zone::ALLOWED.into())?;
    ensure!(after == before, "{before} packets, then {after}");
    held.ensure_dead("gone", zone::ALLOWED.into())?;
    held.ensure_alive("stays")?;
    let event = held.event("policy", 0, agent::LIMIT)?;
    ensure!(
        names(&event, "removed") == ["allowed.example:9999/tcp"],
        "{event:?}"
    );
    ensure!(names(&event, "added").is_empty(), "{event:?}");

    let by_address = format!("open again tcp {} 9999", zone::ALLOWED);
    let answer = held.does(&by_address)?;
    ensure!(answer == "error EPERM", "{answer}");
    let denial = Denial::of_address(zone::ALLOWED).port(9999);
    held.confined
        .denial(&denial.because(&["revoked", "no-rule"]))?;
    let answer = held.does("open again tcp allowed.example 9999")?;
    ensure!(answer.starts_with("error"), "{answer}");
    held.confined.denial(&Denial::of_name("allowed.example"))?;

    // The rule comes back, and with it what it permits.
    held.reload(&both)?;
    held.ensure_opens("back", "tcp allowed.example 9999")?;
    held.ensure_alive("stays")?;
    Ok(())
}

#[test]
fn a_removed_prefix_ends_streams_and_datagrams() -> Result<()> {
    let world = World::new()?;
    let gone = "{cidr: 203.0.113.20, ports: [9999], protocol: any}";
    let stays = "{cidr: 203.0.113.16/29, ports: [9999], protocol: tcp}";
    let mut held = Held::start(&world, &with("", &[gone, "198.51.100.7:9999"], &[]), &[])?;
    held.ensure_opens("stream", "tcp 203.0.113.20 9999")?;
    held.ensure_opens("datagrams", "udp 203.0.113.20 9999")?;
    held.ensure_opens("stays", "tcp 198.51.100.7 9999")?;

    let stream = held.begin("await stream")?;
    let datagrams = held.begin("await datagrams")?;
    let since = held.hang_up(&with("", &["198.51.100.7:9999"], &[]))?;
    held.ensure_ends(stream, since)?;
    held.ensure_ends(datagrams, since)?;
    held.ensure_dead("stream", zone::ALLOWED.into())?;
    held.ensure_dead("datagrams", zone::ALLOWED.into())?;
    let sent = held.does(&format!("sendto {} 203.0.113.20 9999", token::new()))?;
    ensure!(sent == "error EPERM", "{sent}");
    held.ensure_alive("stays")?;

    // A flow that another rule permits as well goes on.
    held.reload(&with("", &[gone, stays, "198.51.100.7:9999"], &[]))?;
    held.ensure_opens("shared", "tcp 203.0.113.20 9999")?;
    held.reload(&with("", &[stays, "198.51.100.7:9999"], &[]))?;
    held.ensure_alive("shared")?;
    // Until that rule goes, too.
    let shared = held.begin("await shared")?;
    let since = held.hang_up(&with("", &["198.51.100.7:9999"], &[]))?;
    held.ensure_ends(shared, since)?;
    held.ensure_alive("stays")?;
    Ok(())
}

#[test]
fn what_is_added_works_and_touches_nothing() -> Result<()> {
    let world = World::new()?;
    let mut held = Held::start(&world, &with("", &["other.example:9999"], &[]), &[])?;
    held.ensure_opens("first", "tcp other.example 9999")?;
    let denied = held.does("open early tcp 203.0.113.20 9999")?;
    ensure!(denied == "error EPERM", "{denied}");
    let rules = [
        "allowed.example:9999",
        "other.example:9999",
        "{cidr: 198.51.100.0/24, ports: [9999], protocol: any}",
    ];
    let event = held.reload(&with("", &rules, &[]))?;
    ensure!(names(&event, "added").len() == 2, "{event:?}");
    ensure!(names(&event, "removed").is_empty(), "{event:?}");
    held.ensure_opens("stream", "tcp 198.51.100.7 9999")?;
    held.ensure_opens("datagrams", "udp 198.51.100.7 9999")?;
    held.ensure_opens("name", "tcp allowed.example 9999")?;
    held.ensure_alive("first")?;
    // The address of an exact name is permitted to programs that ask nobody.
    held.ensure_opens("address", "tcp 203.0.113.20 9999")?;
    held.ensure_alive("first")?;
    Ok(())
}

#[test]
fn a_faulty_file_changes_nothing_and_says_where() -> Result<()> {
    let world = World::new()?;
    let good = policy("reload", &["allowed.example:9999"]);
    let mut held = Held::start(&world, &good, &[])?;
    held.ensure_opens("flow", "tcp allowed.example 9999")?;
    let faulty = format!("{good}  - other.example\nallowed: []\n");
    held.hang_up(&faulty)?;
    let event = held.event("warning", 0, agent::LIMIT)?;
    let place = format!("{}:6:", held.file.display());
    // Standard error has a thread of its own.
    let end = Instant::now() + agent::LIMIT;
    while !held.said().contains("stays in force") && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    for text in [event.line.clone(), held.said()] {
        ensure!(text.contains("stays in force"), "{text}");
        ensure!(text.contains(&place), "{text}");
    }
    held.ensure_alive("flow")?;
    fs::remove_file(&held.file)?;
    held.confined.agent.signal(Signal::SIGHUP)?;
    held.event("warning", 1, agent::LIMIT)?;
    held.ensure_alive("flow")?;
    ensure!(held.said_of("policy")?.is_empty());

    let waiting = held.begin("await flow")?;
    let since = held.hang_up(&policy("reload", &[]))?;
    held.ensure_ends(waiting, since)?;
    Ok(())
}

#[test]
fn what_cannot_change_takes_effect_at_the_next_start() -> Result<()> {
    let world = World::new()?;
    let rules = ["allowed.example:9999"];
    let mut held = Held::start(&world, &policy("reload", &rules), &[])?;
    held.ensure_opens("flow", "tcp allowed.example 9999")?;
    let other = format!("{}run: {{ command: [other] }}\n", policy("renamed", &rules));
    held.reload(&other)?;
    let warnings = held.said_of("warning")?;
    let told = |text: &str| warnings.iter().any(|event| event.line.contains(text));
    ensure!(told("renamed") && told("run:"), "{warnings:?}");
    ensure!(
        warnings
            .iter()
            .all(|event| event.line.contains("next start"))
    );
    held.ensure_alive("flow")?;
    Ok(())
}

#[test]
fn a_replaced_file_is_seen() -> Result<()> {
    let world = World::new()?;
    let both = policy("reload", &["allowed.example:9999", "other.example:9999"]);
    let mut held = Held::start(&world, &both, &["--watch"])?;
    held.ensure_opens("gone", "tcp allowed.example 9999")?;
    held.ensure_opens("stays", "tcp other.example 9999")?;
    let waiting = held.begin("await gone")?;
    ensure!(held.said_of("policy")?.is_empty(), "nothing has changed");
    let next = world.path("next.yaml");
    fs::write(&next, policy("reload", &["other.example:9999"]))?;
    fs::rename(&next, &held.file)?;
    held.event("policy", 0, WATCHED)?;
    ensure!(held.answer(waiting)? == "error ECONNABORTED");
    held.ensure_alive("stays")?;
    fs::write(&held.file, &both)?;
    held.event("policy", 1, WATCHED)?;
    held.ensure_opens("back", "tcp allowed.example 9999")?;
    // A fault does not end the watching.
    fs::write(&held.file, "version: 2\n")?;
    held.event("warning", 0, WATCHED)?;
    fs::write(&held.file, policy("reload", &["other.example:9999"]))?;
    held.event("policy", 2, WATCHED)?;
    held.ensure_alive("stays")?;
    Ok(())
}

#[test]
fn auditing_becomes_enforcing_and_back() -> Result<()> {
    let world = World::new()?;
    let rules = ["allowed.example:9999"];
    let mut held = Held::start(&world, &with("mode: audit", &rules, &[]), &[])?;
    held.ensure_opens("stranger", "tcp 198.51.100.7 9999")?;
    held.ensure_opens("datagrams", "udp 198.51.100.7 9999")?;
    held.ensure_opens("permitted", "tcp allowed.example 9999")?;
    let stranger = held.begin("await stranger")?;
    let datagrams = held.begin("await datagrams")?;
    let since = held.hang_up(&with("mode: enforce", &rules, &[]))?;
    held.ensure_ends(stranger, since)?;
    held.ensure_ends(datagrams, since)?;
    held.ensure_dead("stranger", zone::STRANGER.into())?;
    // Not the same address: its repeats are not shown within the same second.
    let answer = held.does("open again tcp 198.51.100.8 9999")?;
    ensure!(answer == "error EPERM", "{answer}");
    let other = IpAddr::from([198, 51, 100, 8]);
    held.confined
        .denial(&Denial::of_address(other).port(9999))?;
    held.ensure_alive("permitted")?;
    held.reload(&with("mode: audit", &rules, &[]))?;
    held.ensure_opens("again", "tcp 198.51.100.7 9999")?;
    held.ensure_alive("permitted")?;
    Ok(())
}

#[test]
fn a_denial_ends_what_it_covers() -> Result<()> {
    let world = World::new()?;
    let rules = [
        "allowed.example:9999",
        "other.example:9999",
        "{cidr: 198.51.100.0/24, ports: [9999]}",
    ];
    let mut held = Held::start(&world, &with("", &rules, &[]), &[])?;
    held.ensure_opens("name", "tcp allowed.example 9999")?;
    held.ensure_opens("other", "tcp other.example 9999")?;
    held.ensure_opens("prefix", "tcp 198.51.100.7 9999")?;
    held.ensure_opens("beside", "tcp 198.51.100.9 9999")?;
    let name = held.begin("await name")?;
    let prefix = held.begin("await prefix")?;
    let denials = ["{cidr: 203.0.113.20}", "{cidr: 198.51.100.0/29}"];
    let since = held.hang_up(&with("", &rules, &denials))?;
    held.ensure_ends(name, since)?;
    held.ensure_ends(prefix, since)?;
    held.ensure_alive("other")?;
    held.ensure_alive("beside")?;
    for address in ["203.0.113.20", "198.51.100.7"] {
        let answer = held.does(&format!("open again tcp {address} 9999"))?;
        ensure!(answer == "error EPERM", "{address}: {answer}");
        let address: IpAddr = address.parse()?;
        let denial = Denial::of_address(address).because(&["deny-rule"]);
        held.confined.denial(&denial)?;
    }
    // A denied name becomes no grant, and what was granted to it before is gone.
    held.reload(&with("", &rules, &["{host: other.example}"]))?;
    let answer = held.does("open again tcp 203.0.113.21 9999")?;
    ensure!(answer == "error EPERM", "{answer}");
    held.ensure_opens("name-again", "tcp allowed.example 9999")?;
    held.ensure_alive("beside")?;
    Ok(())
}

#[test]
fn where_no_place_is_left_the_old_policy_stays() -> Result<()> {
    let world = World::new()?;
    let many = |third: u8| -> Vec<String> {
        let rules = (0..200).map(|last| format!("10.20.{third}.{last}:9999"));
        rules.chain(["allowed.example:9999".to_owned()]).collect()
    };
    let text = |third| -> String {
        let rules = many(third);
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        with("", &rules, &[])
    };
    let mut held = Held::start(&world, &policy("reload", &["allowed.example:9999"]), &[])?;
    held.ensure_opens("flow", "tcp allowed.example 9999")?;
    held.reload(&text(1))?;
    held.hang_up(&text(2))?;
    let event = held.event("warning", 0, agent::LIMIT)?;
    ensure!(event.line.contains("restart the connector"), "{event:?}");
    held.ensure_alive("flow")?;
    held.ensure_opens("kept", "tcp 10.20.1.7 9999")?;
    let answer = held.does("open new tcp 10.20.2.7 9999")?;
    ensure!(answer == "error EPERM", "{answer}");
    // Rules that were here before have their places, however often they come and go.
    for _ in 0..3 {
        held.reload(&policy("reload", &["allowed.example:9999"]))?;
        held.reload(&text(1))?;
    }
    held.ensure_alive("flow")?;
    Ok(())
}
