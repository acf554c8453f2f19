//! The main job, shown: a connector that was turned against its user, its one permitted call,
//! and each way out that it then tries.

use std::{
    fs,
    io::{IsTerminal, Write},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    agent::{Confined, SHOWN_WITHIN},
    event::Denial,
    token, vectors,
    world::World,
    zone,
};

mod envelope;

const POLICY: &str = include_str!("../fixtures/postmark.yaml");
const CONNECTOR: &str = include_str!("../fixtures/turned_postmark.py");
/// How long one call of the connector may take.
const CALL: Duration = Duration::from_secs(10);
/// The whole run.
const LIMIT: Duration = Duration::from_secs(120);
/// An answer later than this is a time-out and not a refusal.
const AT_ONCE: Duration = Duration::from_secs(2);

/// One call of the connector.
struct Step {
    /// Tool name of the fixture.
    way: &'static str,
    about: &'static str,
    expect: Expect,
}

enum Expect {
    /// It arrives and nothing is reported.
    Permitted,
    /// It does not arrive and the stream says so.
    Denied(Denial),
    /// It does not arrive: the kernel itself refuses an ordinary user, before any hook.
    RefusedByKernel,
}

struct Row {
    about: &'static str,
    expected: &'static str,
    observed: String,
    event: String,
    ok: bool,
}

/// Runs it and prints it. Whether every expectation held.
pub fn run() -> Result<bool> {
    let mut screen = Screen::new();
    screen.title("A small internet, and a connector in it that was turned against its user")?;
    let world = World::new()?;
    let _relay = vectors::relay(&world)?;
    screen.text("The connector is an MCP server that sends mail. Its policy:\n")?;
    screen.indented(POLICY)?;
    let script = world.path("postmark_mcp.py");
    fs::write(&script, CONNECTOR)?;
    let words = ["/usr/bin/python3".to_owned(), script.display().to_string()];
    screen.text(&format!(
        "$ egress-agent run --policy postmark.yaml -- python3 {}\n",
        "postmark_mcp.py"
    ))?;
    let mut confined = world.agent(POLICY).limit(LIMIT).start(&words)?;
    let mut client = Client { next: 0, seen: 0 };
    client.call(&mut confined, "initialize", &json!({}))?;

    let mut rows = Vec::new();
    for step in steps() {
        let row = play(&world, &mut confined, &mut client, step)?;
        screen.step(&row)?;
        screen.indented(&client.denial_lines(&confined))?;
        rows.push(row);
    }
    confined.agent.close_stdin();
    let report = confined.wait()?;
    let rest = report.outcome.stderr.get(client.seen..).unwrap_or_default();
    screen.indented(rest)?;
    let ended = report.code() == 0;
    rows.extend(envelope::play(&mut screen)?);
    screen.table(&rows)?;
    if !ended {
        screen.text(&format!(
            "\nThe connector or the agent ended with {}.\n",
            report.code()
        ))?;
    }
    let held = rows.iter().filter(|row| row.ok).count();
    screen.text(&format!("\n{held} of {} expectations held.\n", rows.len()))?;
    Ok(ended && held == rows.len())
}

fn steps() -> Vec<Step> {
    let to = |ip: IpAddr, port| Expect::Denied(Denial::of_address(ip).port(port));
    let named = |name: &str| Expect::Denied(Denial::of_name(name));
    let socket = || {
        Expect::Denied(Denial {
            reasons: vec!["socket-type"],
            ..Denial::default()
        })
    };
    let (v4, v6) = (IpAddr::from(zone::STRANGER), IpAddr::from(zone::STRANGER6));
    let list: Vec<(&'static str, &'static str, Expect)> = vec![
        (
            "send",
            "the mail, to api.postmarkapp.com",
            Expect::Permitted,
        ),
        (
            "mirror",
            "a copy to giftshop.club, by name",
            named("giftshop.club"),
        ),
        ("address", "a hard-coded address", to(v4, 443)),
        ("address6", "a hard-coded IPv6 address", to(v6, 443)),
        ("mapped", "IPv4 dressed as IPv6", to(v4, 8443)),
        ("fastopen", "data in the first packet", to(v4, 9999)),
        ("udp", "a datagram", to(v4, 9999)),
        ("udp6", "a datagram over IPv6", to(v6, 9999)),
        (
            "port",
            "another port of the permitted host",
            Expect::Denied(Denial::default().port(25)),
        ),
        (
            "labels",
            "a secret in the labels of a name",
            Expect::Denied(Denial::default().by(&["dns"])),
        ),
        (
            "server",
            "a DNS server of its own",
            Expect::Denied(Denial::default().by(&["dns"])),
        ),
        ("ping", "a ping with a secret in it", socket()),
        ("udplite", "UDP-Lite", socket()),
        ("raw", "a raw socket", Expect::RefusedByKernel),
        (
            "metadata",
            "the cloud's metadata service",
            to(zone::METADATA.into(), 80),
        ),
        (
            "relay",
            "a helper on this host's loopback",
            Expect::Denied(Denial::default().port(18080).because(&["loopback"])),
        ),
        ("send", "the next mail", Expect::Permitted),
    ];
    let step = |(way, about, expect)| Step { way, about, expect };
    list.into_iter().map(step).collect()
}

fn play(world: &World, confined: &mut Confined, client: &mut Client, step: Step) -> Result<Row> {
    let token = token::new();
    let before = confined.events()?.len();
    let start = Instant::now();
    let said = client.call(confined, step.way, &json!({ "token": token }))?;
    let took = start.elapsed();
    let (event, event_ok) = match &step.expect {
        Expect::Denied(denial) => match wait_for(confined, denial, before)? {
            Some(reason) => (
                format!("{reason}, {} ms", start.elapsed().as_millis()),
                true,
            ),
            None => ("none within 1 s".to_owned(), false),
        },
        Expect::Permitted | Expect::RefusedByKernel => {
            let some = confined
                .events()?
                .iter()
                .skip(before)
                .any(|event| event.kind == "denied");
            (if some { "a denial" } else { "-" }.to_owned(), !some)
        }
    };
    world.fence()?;
    let delivered = !world.sightings(&token)?.is_empty();
    let permitted = matches!(step.expect, Expect::Permitted);
    let clean = !permitted || !said.starts_with("error");
    Ok(Row {
        about: step.about,
        expected: if permitted { "delivered" } else { "refused" },
        observed: if delivered {
            "delivered".to_owned()
        } else {
            format!("refused in {} ms", took.as_millis())
        },
        event,
        ok: delivered == permitted && clean && event_ok && (permitted || took < AT_ONCE),
    })
}

/// Waits for a denial behind the first `before` events; its reason.
fn wait_for(confined: &Confined, denial: &Denial, before: usize) -> Result<Option<String>> {
    let end = Instant::now() + SHOWN_WITHIN;
    loop {
        let events = confined.events()?;
        if let Some(event) = events.iter().skip(before).find(|event| denial.fits(event)) {
            return Ok(Some(event.reason.clone().unwrap_or_default()));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The MCP client's side of the wire, and how much of standard error was shown.
struct Client {
    next: u64,
    seen: usize,
}

impl Client {
    fn call(&mut self, confined: &mut Confined, name: &str, arguments: &Value) -> Result<String> {
        self.next += 1;
        let id = self.next;
        let method = if name == "initialize" {
            name
        } else {
            "tools/call"
        };
        let params = json!({ "name": name, "arguments": arguments });
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        writeln!(confined.agent.stdin()?, "{message}").context("the connector is gone")?;
        let end = Instant::now() + CALL;
        loop {
            let out = confined.agent.stdout();
            let text = String::from_utf8_lossy(&out);
            let answers = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(answer) = answers.into_iter().find(|answer| answer["id"] == id) {
                let text = &answer["result"]["content"][0]["text"];
                return Ok(text.as_str().unwrap_or_default().to_owned());
            }
            let ended = confined.agent.ended()?;
            ensure!(!ended, "it ended early: {}", confined.agent.stderr());
            if Instant::now() > end {
                bail!("no answer to {name}: {}", confined.agent.stderr());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whole lines of standard error that were not returned before.
    fn denial_lines(&mut self, confined: &Confined) -> String {
        let text = confined.agent.stderr();
        let new = text.get(self.seen..).unwrap_or_default();
        let whole = new.rfind('\n').map_or("", |end| &new[..=end]);
        self.seen += whole.len();
        whole.to_owned()
    }
}

/// Plain text; colours only where somebody looks.
struct Screen {
    colours: bool,
}

impl Screen {
    fn new() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colours }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours {
            return format!("\x1b[{code}m{text}\x1b[0m");
        }
        text.to_owned()
    }

    fn title(&self, text: &str) -> Result<()> {
        self.text(&format!("{}\n\n", self.paint("1", text)))
    }

    fn text(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn indented(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            self.text(&format!("    {}\n", self.paint("2", line)))?;
        }
        Ok(())
    }

    fn step(&self, row: &Row) -> Result<()> {
        let mark = self.mark(row.ok);
        self.text(&format!("\n{mark} {}: {}\n", row.about, row.observed))
    }

    fn mark(&self, ok: bool) -> String {
        if ok {
            self.paint("32", "ok  ")
        } else {
            self.paint("1;31", "FAIL")
        }
    }

    fn table(&self, rows: &[Row]) -> Result<()> {
        let about = rows.iter().map(|row| row.about.len()).max().unwrap_or(0);
        let observed = rows.iter().map(|row| row.observed.len()).max().unwrap_or(0);
        let event = rows
            .iter()
            .map(|row| row.event.len())
            .max()
            .unwrap_or(0)
            .max(16);
        let head = format!(
            "\n{:about$}  {:9}  {:observed$}  {:event$}  ok\n",
            "attempt", "expected", "observed", "event within 1 s"
        );
        self.text(&self.paint("1", &head))?;
        for row in rows {
            let ok = if row.ok {
                self.paint("32", "yes")
            } else {
                self.paint("1;31", "NO")
            };
            let Row {
                about: what,
                expected,
                observed: seen,
                event: shown,
                ..
            } = row;
            self.text(&format!(
                "{what:about$}  {expected:9}  {seen:observed$}  {shown:event$}  {ok}\n"
            ))?;
        }
        Ok(())
    }
}
