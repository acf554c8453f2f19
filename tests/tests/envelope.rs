//! Requests are judged: what the user asked for passes, what a turned connector adds does not, and
//! there is no way round.

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Confined},
    event::{Denial, Event},
    mcp::Sdk,
    process,
    shell::Shell,
    world::World,
    zone,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const TURNED: &str = include_str!("../fixtures/turned_mail.py");
const API: &str = "api.postmarkapp.com";
const FRIEND: &str = "ann@example.com";
const STRANGER: &str = "phan@giftshop.club";
/// What is refused is said within this time.
const SAID_WITHIN: Duration = Duration::from_secs(1);

fn policy(inspect: &str) -> String {
    format!(
        "version: 1\nconnector: postmark\nallow:\n  - host: {API}\n    ports: [443]\n    inspect: \
         {{ service: postmark{inspect} }}\n  - allowed.example:443\n"
    )
}

/// The mail server, spoken to as an MCP client does.
struct Mail {
    confined: Confined,
    seen: usize,
    calls: u64,
}

impl Mail {
    fn start(world: &World, policy: String, mode: &str) -> Result<Self> {
        let file = world.path("turned_mail.py");
        fs::write(&file, TURNED)?;
        let agent = world
            .agent(policy)
            .env("POSTMARK_TOKEN", "0e7d5a72-4a1b-4b8e-9d15-3c1ab0f4d6aa")
            .env("SENDER", "shop@example.org");
        let confined = agent.start(&["/usr/bin/python3", &file.display().to_string(), mode])?;
        let mut mail = Self {
            confined,
            seen: 0,
            calls: 0,
        };
        let hello = json!({"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {}});
        mail.ask(&hello)?;
        Ok(mail)
    }

    /// Has a mail sent to a friend. Answers the status that the server saw, and the text.
    fn send(&mut self) -> Result<(u64, String)> {
        self.calls += 1;
        let arguments = json!({"to": FRIEND, "subject": "Hello", "text": "How are you?"});
        let answer = self.ask(&json!({
            "jsonrpc": "2.0", "id": self.calls, "method": "tools/call",
            "params": {"name": "sendEmail", "arguments": arguments},
        }))?;
        let text = answer["result"]["content"][0]["text"].as_str();
        let said: Value = serde_json::from_str(text.context("no text")?)?;
        let status = said["status"].as_u64().context("no status")?;
        Ok((status, said["text"].as_str().unwrap_or_default().to_owned()))
    }

    fn ask(&mut self, message: &Value) -> Result<Value> {
        writeln!(self.confined.agent.stdin()?, "{message}")?;
        let end = Instant::now() + process::patient(Duration::from_secs(40));
        loop {
            let out = self.confined.agent.stdout();
            let new = out.get(self.seen..).unwrap_or_default();
            if let Some(length) = new.iter().position(|byte| *byte == b'\n') {
                self.seen += length + 1;
                return Ok(serde_json::from_slice(&new[..length])?);
            }
            ensure!(
                Instant::now() < end,
                "no answer: {}",
                self.confined.agent.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits for an event of the kind that fits.
fn event(
    confined: &Confined,
    kind: &str,
    limit: Duration,
    fits: impl Fn(&Event) -> bool,
) -> Result<Event> {
    let end = Instant::now() + process::patient(limit);
    loop {
        let events = confined.events()?;
        let mut of_kind = events.iter().filter(|event| event.kind == kind);
        if let Some(event) = of_kind.find(|event| fits(event)) {
            return Ok(event.clone());
        }
        ensure!(
            Instant::now() < end,
            "no such {kind}: {}",
            confined.agent.stderr()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn field<'e>(event: &'e Event, name: &str) -> &'e str {
    event
        .rest
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn refused(confined: &Confined) -> Result<Event> {
    event(confined, "operation", SAID_WITHIN, |event| {
        field(event, "verdict") == "refused"
    })
}

/// Bodies that the API got.
fn arrived(world: &World) -> Result<Vec<String>> {
    let requests = world.requests()?.into_iter();
    let api = requests.filter(|request| request.to.ip() == zone::POSTMARK);
    Ok(api.map(|request| request.body).collect())
}

fn process(world: &World) -> Result<Pid> {
    let pids = world.processes()?;
    let found = pids.into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).nth(1) == Some(b"__envelope")
    });
    found.context("there is no envelope proxy")
}

#[test]
fn honest_mail_passes_and_is_told() -> Result<()> {
    let world = World::new()?;
    let mut mail = Mail::start(&world, policy(""), "honest")?;
    for _ in 0..3 {
        let (status, text) = mail.send()?;
        ensure!(status == 200, "{text} {}", mail.confined.agent.stderr());
    }
    let told = event(&mail.confined, "operation", SAID_WITHIN, |event| {
        field(event, "verdict") == "passed"
    })?;
    ensure!(field(&told, "tool") == "sendEmail", "{}", told.line);
    ensure!(arrived(&world)?.len() == 3);
    let report = mail.confined.wait()?;
    report.ensure_nothing_denied()
}

#[test]
fn what_a_turned_connector_adds_is_refused_and_named() -> Result<()> {
    let world = World::new()?;
    for (mode, honest) in [
        ("bcc", 0),
        ("late", 2),
        ("cc", 0),
        ("joined", 0),
        ("twice", 0),
        ("batch", 0),
        ("host", 0),
        ("webhook", 0),
    ] {
        let before = arrived(&world)?.len();
        let mut mail = Mail::start(&world, policy(""), mode)?;
        for _ in 0..honest {
            ensure!(mail.send()?.0 == 200, "{mode}: honest mail");
        }
        let (status, text) = mail.send()?;
        let stderr = mail.confined.agent.stderr();
        ensure!(status == 403, "{mode}: {status} {text} {stderr}");
        let told = refused(&mail.confined)?;
        ensure!(field(&told, "tool") == "sendEmail", "{mode}: {}", told.line);
        ensure!(
            !["bcc", "late", "cc", "joined"].contains(&mode) || told.line.contains(STRANGER),
            "{mode}: {}",
            told.line
        );
        let new = arrived(&world)?.split_off(before);
        ensure!(new.len() == honest, "{mode}: {new:?}");
        ensure!(new.iter().all(|body| !body.contains(STRANGER)), "{new:?}");
        let report = mail.confined.wait()?;
        let stopped = report.events.iter().find(|event| event.kind == "stopped");
        let denied = stopped.and_then(|event| event.rest.get("denied")?.as_object());
        ensure!(denied.is_some_and(|denied| !denied.is_empty()), "{mode}");
    }
    Ok(())
}

/// Clients made with both SDKs, a server made with one of them, and no list of recipients.
#[test]
fn the_trojan_is_refused_where_a_real_client_calls_it() -> Result<()> {
    for sdk in [Sdk::Node, Sdk::Python] {
        let world = World::new()?;
        let mut session = world.turned_postmark(policy(""), 2)?.connect(sdk)?;
        ensure!(session.hello.tools == ["sendEmail"], "{:?}", session.hello);
        let mail = json!({"to": FRIEND, "subject": "Hello", "textBody": "How are you?"});
        for _ in 0..2 {
            let answer = session.call("sendEmail", &mail)?;
            ensure!(!answer.failed, "{sdk:?}: {answer:?} {}", session.stderr());
        }
        let answer = session.call("sendEmail", &mail)?;
        let said = answer.text.starts_with("403 ") && answer.text.contains("/Bcc");
        ensure!(answer.failed && said, "{sdk:?}: {answer:?}");
        let end = Instant::now() + process::patient(SAID_WITHIN);
        let told = loop {
            let events = session.events()?;
            let refused = |event: &&Event| field(event, "verdict") == "refused";
            if let Some(told) = events.iter().find(refused) {
                break told.clone();
            }
            ensure!(Instant::now() < end, "{sdk:?}: {}", session.stderr());
            std::thread::sleep(Duration::from_millis(5));
        };
        ensure!(field(&told, "tool") == "sendEmail", "{}", told.line);
        ensure!(told.line.contains(STRANGER), "{}", told.line);
        let bodies = arrived(&world)?;
        ensure!(bodies.len() == 2, "{bodies:?}");
        ensure!(bodies.iter().all(|body| !body.contains(STRANGER)));
        ensure!(session.end()?.outcome.ok());
    }
    Ok(())
}

#[test]
fn where_it_only_reports_the_same_is_told_and_passes() -> Result<()> {
    let world = World::new()?;
    let mut mail = Mail::start(&world, policy(", mode: report"), "bcc")?;
    let (status, text) = mail.send()?;
    ensure!(status == 200, "{text}");
    let told = event(&mail.confined, "operation", SAID_WITHIN, |event| {
        field(event, "verdict") == "would-refuse"
    })?;
    ensure!(told.line.contains(STRANGER), "{}", told.line);
    ensure!(arrived(&world)?.iter().any(|body| body.contains(STRANGER)));
    Ok(())
}

/// The first address of the named host, as a program finds it.
fn address(shell: &mut Shell, name: &str) -> Result<Ipv4Addr> {
    let said = shell.run(&format!("getent ahostsv4 {name}"))?;
    let first = said.text.split_whitespace().next().unwrap_or_default();
    first.parse().with_context(|| said.text.clone())
}

fn gets(shell: &mut Shell, options: &str, url: &str) -> Result<(i32, String)> {
    let said = shell.run(&format!("curl -sS --max-time 10 {options} {url}"))?;
    Ok((said.code, said.text))
}

#[test]
fn there_is_no_way_round() -> Result<()> {
    let world = World::new()?;
    let mut shell = world.agent(policy(", unlisted: report")).shell()?;
    let url = format!("https://{API}/server");
    let control = gets(&mut shell, "", &url)?;
    ensure!(control.1.contains("\"ok\""), "{control:?}");
    let place = address(&mut shell, API)?;
    ensure!(
        place.octets()[0] == 127 && place.octets()[1] >= 64,
        "{place}"
    );
    // By the real address, with the right name and without.
    for options in [
        format!("-k --resolve {API}:443:{}", zone::POSTMARK),
        format!("-k --connect-to {API}:443:{}:443", zone::POSTMARK),
    ] {
        let (code, text) = gets(&mut shell, &options, &url)?;
        ensure!(code != 0, "{options}: {text}");
    }
    let denied = Denial::of_address(zone::POSTMARK).port(443);
    shell.confined.denial(&denied)?;
    // Another port of the same place, and another place of the same range.
    let next = Ipv4Addr::from_bits(place.to_bits() + 1);
    for to in [format!("{place}:80"), format!("{next}:443")] {
        let (code, text) = gets(&mut shell, "-k", &format!("https://{to}/"))?;
        ensure!(code != 0, "{to}: {text}");
    }
    // Another permitted name is no way to it either.
    let (_, text) = gets(
        &mut shell,
        &format!("-k -H 'Host: {API}'"),
        "https://allowed.example/",
    )?;
    ensure!(text.contains("\"ok\""), "{text}");
    let real = arrived(&world)?;
    ensure!(real.len() == 1, "{real:?}");
    // A permitted name at the same address is none, by its own name or by the judged one.
    world.set(zone::only(
        "allowed.example",
        &[zone::POSTMARK, zone::ALLOWED],
        &[],
    ))?;
    for round in 0..2 {
        for (said, resolve) in [("allowed.example", ""), (API, "")] {
            let to = zone::POSTMARK;
            let options = format!("-k {resolve} --resolve {said}:443:{to} -H 'Host: {API}'");
            let (code, text) = gets(&mut shell, &options, &format!("https://{said}/"))?;
            ensure!(code != 0, "{round} {said}: {text}");
        }
        let looked_up = shell.run("getent ahostsv4 allowed.example; sleep 2")?;
        ensure!(
            !looked_up.text.contains(&zone::POSTMARK.to_string()) || round == 0,
            "{looked_up:?}"
        );
        shell.confined.agent.signal(Signal::SIGHUP)?;
        shell.run("sleep 2")?;
    }
    ensure!(arrived(&world)?.len() == 1);
    // Nobody else is served at the address.
    let mut other = world.command("curl");
    other.args(["-ksS", "--max-time", "5", &format!("https://{place}/")]);
    let outcome = process::run(other, agent::LIMIT)?;
    ensure!(!outcome.ok(), "{}", outcome.text());
    let again = gets(&mut shell, "", &url)?;
    ensure!(again.1.contains("\"ok\""), "{again:?}");
    Ok(())
}

#[test]
fn a_dead_proxy_is_closed_and_all_else_goes_on() -> Result<()> {
    let world = World::new()?;
    let mut shell = world.agent(policy("")).shell()?;
    let url = format!("https://{API}/server");
    let control = gets(&mut shell, "", &url)?;
    ensure!(control.1.contains("\"ok\""), "{control:?}");
    kill(process(&world)?, Signal::SIGKILL)?;
    event(
        &shell.confined,
        "warning",
        Duration::from_secs(5),
        |event| event.line.contains("the envelope proxy is gone"),
    )?;
    let before = arrived(&world)?.len();
    let (code, text) = gets(&mut shell, "", &url)?;
    ensure!(code != 0, "{text}");
    ensure!(arrived(&world)?.len() == before);
    let other = gets(&mut shell, "", "https://allowed.example/")?;
    ensure!(other.1.contains("\"ok\""), "{other:?}");
    Ok(())
}

#[test]
fn a_change_of_the_policy_holds_for_requests() -> Result<()> {
    let world = World::new()?;
    let file = world.path("policy.yaml");
    fs::write(&file, policy(""))?;
    let mut shell = world.agent("").shell_with_file(&file)?;
    let change = |shell: &Shell, text: String, added: &str| -> Result<()> {
        fs::write(&file, text)?;
        shell.confined.agent.signal(Signal::SIGHUP)?;
        event(&shell.confined, "policy", Duration::from_secs(5), |event| {
            event.line.contains(added)
        })?;
        Ok(())
    };
    let url = format!("https://{API}/unknown");
    let status = "-o /dev/null -w '%{http_code}'";
    let (_, before) = gets(&mut shell, status, &url)?;
    ensure!(before == "403", "{before}");
    change(
        &shell,
        policy(", unlisted: report") + "  - other.example:443\n",
        "other.example",
    )?;
    let (_, after) = gets(&mut shell, status, &url)?;
    ensure!(after == "200", "{after}");
    // Gone altogether: the address that stood for it leads nowhere.
    let place = address(&mut shell, API)?;
    let without = "version: 1\nconnector: postmark\nallow:\n  - allowed.example:443\n  - \
                   small-mss.example:443\n";
    change(&shell, without.to_owned(), "small-mss.example")?;
    for options in ["", &format!("-k --resolve {API}:443:{place}")] {
        let (code, text) = gets(&mut shell, options, &url)?;
        ensure!(code != 0, "{options}: {text}");
    }
    // A host that was not inspected at the start needs another one.
    let late = format!(
        "{without}  - {{ host: other.example, ports: [443], inspect: {{ service: postmark }} }}\n"
    );
    fs::write(
        &file,
        late.replace("service: postmark", "unlisted: report, mode: report"),
    )?;
    shell.confined.agent.signal(Signal::SIGHUP)?;
    event(
        &shell.confined,
        "warning",
        Duration::from_secs(5),
        |event| event.line.contains("restart the connector"),
    )?;
    let (code, text) = gets(&mut shell, "-k", "https://other.example/")?;
    ensure!(code != 0, "{text}");
    Ok(())
}

#[test]
fn programs_trust_the_proxy_and_nothing_is_left() -> Result<()> {
    let world = World::new()?;
    let listing = |world: &World| -> Result<String> {
        let mut list = world.command("/bin/sh");
        list.args([
            "-c",
            "ls -l /etc/ssl/certs | sha256sum; grep -c /etc/ssl /proc/self/mounts",
        ]);
        Ok(process::run(list, agent::LIMIT)?.text())
    };
    let before = listing(&world)?;
    let url = format!("https://{API}/server");
    let urllib =
        format!("python3 -c \"import urllib.request as u; u.urlopen('{url}', timeout=10)\"");
    let fetch = format!("node -e \"fetch('{url}').then(r => process.exit(r.ok ? 0 : 1))\"");
    let unset = "env -u SSL_CERT_FILE -u CURL_CA_BUNDLE -u REQUESTS_CA_BUNDLE";
    let mut shell = world.agent(policy("")).shell()?;
    for line in [
        format!("curl -fsS --max-time 10 -o /dev/null {url}"),
        format!("{unset} curl -fsS --max-time 10 -o /dev/null {url}"),
        format!("{unset} wget -q -T 10 -O /dev/null {url}"),
        urllib.clone(),
        format!("{unset} {urllib}"),
        fetch,
        // Beside it, a host that is not inspected.
        "curl -fsS --max-time 10 -o /dev/null https://allowed.example/".to_owned(),
    ] {
        let said = shell.run(&line)?;
        let stderr = shell.confined.agent.stderr();
        ensure!(said.code == 0, "{line}: {} {stderr}", said.text);
    }
    // One that trusts nobody but its own.
    let pinned = shell.run(&format!(
        "curl -fsS --max-time 10 --capath /nowhere --cacert {}/authority.pem {url}",
        world.dir().display()
    ))?;
    ensure!(pinned.code == 60, "{}", pinned.text);
    event(&shell.confined, "warning", SAID_WITHIN, |event| {
        event
            .line
            .contains("does not trust the certificate of the envelope proxy")
            && event.line.contains(API)
    })?;
    ensure!(
        listing(&world)? == before,
        "the host's store is another one"
    );
    shell.end()?.ensure_nothing_denied()?;
    ensure!(
        listing(&world)? == before,
        "the host's store is another one"
    );
    Ok(())
}

#[test]
fn a_captured_proxy_does_no_more_than_its_connector() -> Result<()> {
    let world = World::new()?;
    let mut shell = world.agent(policy("")).shell()?;
    let control = gets(&mut shell, "", &format!("https://{API}/server"))?;
    ensure!(control.1.contains("\"ok\""), "{control:?}");
    let pid = process(&world)?;
    // Another program in its place, with root's rights.
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.context("no cgroup")?;
    ensure!(path.ends_with("/_envelope"), "{path}");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| place.to_owned())
    });
    let procs = format!("{}{path}/cgroup.procs", mount.context("no cgroup2")?);
    let script = format!(
        "import socket,errno,ssl
def tcp(a, p):
    s = socket.socket(socket.AF_INET6 if ':' in a else socket.AF_INET); s.settimeout(3)
    try: s.connect((a, p)); return 'reached'
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def udp(a, p):
    try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (a, p)); return 'reached'
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def named(name):
    c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
    try:
        s = socket.create_connection(('{api}', 443), timeout=3)
        s = c.wrap_socket(s, server_hostname=name); s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')
        return 'reached'
    except OSError as e: return 'refused'
print('name', named('{API}'))
for name in ['giftshop.club', 'allowed.example', None]: print('stranger', name, named(name))
for a, p in [('{api}', 80), ('{allowed}', 443), ('{stranger}', 443), ('127.0.0.1', 22), ('{allowed6}', 443), ('{dns}', 53)]:
    print('other', a, p, tcp(a, p))
for a, p in [('{api}', 443), ('{dns}', 53), ('{stranger}', 443)]:
    print('other udp', a, p, udp(a, p))
",
        api = zone::POSTMARK,
        allowed = zone::ALLOWED,
        allowed6 = zone::ALLOWED6,
        stranger = zone::STRANGER,
        dns = zone::DNS,
    );
    let mut captured = world.command("/bin/sh");
    captured.args([
        "-c",
        &format!("echo 0 > {procs} && exec python3 -c \"$0\""),
        &script,
    ]);
    let said = process::run(captured, agent::LIMIT)?;
    let text = said.text();
    ensure!(text.contains("name reached"), "{text} {}", said.stderr);
    let of = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
    ensure!(of("other") == 9 && of("stranger") == 3, "{text}");
    for line in text.lines() {
        let fine = match line.split(' ').next() {
            Some("other") => line.ends_with("EPERM"),
            Some("stranger") => line.ends_with("refused"),
            _ => true,
        };
        ensure!(fine, "{line}");
    }

    // What it is by itself.
    process::ensure_powerless(pid)?;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next().map(str::to_owned))
    };
    ensure!(
        limit("Max address space").is_some_and(|most| most != "unlimited"),
        "{limits}"
    );
    ensure!(limit("Max processes").as_deref() == Some("0"), "{limits}");
    // Files: the two pipes, its listener, the runtime's own, and nothing on disk.
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path())?;
        let target = target.display().to_string();
        let known = ["pipe:", "socket:", "anon_inode:"];
        ensure!(
            known.iter().any(|kind| target.starts_with(kind)) || target == "/dev/null",
            "{target}"
        );
    }
    Ok(())
}
