//! Behind a company's proxy: what is permitted goes through it, whatever the program knows of it,
//! and it leads nowhere else.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent,
    event::Denial,
    process::{self, Running},
    programs,
    protocol::{Answer, Behaviour, Proxy, Record, Request},
    shell::Shell,
    token,
    world::World,
    zone,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where the proxy is.
const PROXY: Ipv4Addr = zone::v4(31);
/// An address of its name's at which there is none.
const NO_PROXY: Ipv4Addr = zone::v4(32);
const PORT: u16 = 3128;
/// `user` and `s3cret-word`.
const WANTED: &str = "Basic dXNlcjpzM2NyZXQtd29yZA==";
const SECRET: &str = "s3cret-word";
/// A name that the proxy alone finds.
const INSIDE: &str = "inside.example";

/// A world where names lead nowhere without the proxy.
fn company() -> Result<World> {
    company_of(World::new()?)
}

fn company_of(world: World) -> Result<World> {
    serve(&world, Answer::Opens)?;
    world.set(zone::only("proxy.corp.example", &[NO_PROXY, PROXY], &[]))?;
    for name in [INSIDE, "a.wild.example"] {
        world.set(Record {
            behaviour: Behaviour::Code(3),
            ..zone::only(name, &[zone::ALLOWED], &[])
        })?;
    }
    Ok(world)
}

fn serve(world: &World, answer: Answer) -> Result<()> {
    let proxy = Proxy {
        at: SocketAddr::from((PROXY, PORT)),
        wants: Some(WANTED.to_owned()),
        answer,
    };
    world.ask(&Request::Proxy(proxy)).map(drop)
}

fn policy(proxy: &str) -> String {
    format!(
        "version: 1\nconnector: proxied\n{proxy}allow:\n  - {INSIDE}:443\n  - \"*.wild.example:443\"\n  \
         - {{ host: {INSIDE}, ports: [9999, 8443], tls: off }}\n"
    )
}

const URL: &str = "http://user:s3cret-word@proxy.corp.example:3128";

fn by_policy() -> String {
    policy(&format!("proxy: {URL}\n"))
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

/// Asked of the proxy by this host, in order.
fn asked(world: &World) -> Result<Vec<String>> {
    let asked = world.proxied()?;
    for one in &asked {
        ensure!(one.from == zone::HOST, "{one:?}");
        ensure!(one.authorization.as_deref() == Some(WANTED), "{one:?}");
    }
    Ok(asked.into_iter().map(|one| one.line).collect())
}

/// Nothing went to a host of the internet but to the proxy.
fn only_the_proxy_was_reached(world: &World) -> Result<()> {
    world.fence()?;
    for address in [zone::ALLOWED, zone::STRANGER, zone::OTHER] {
        let flows = world.packets(address)?;
        ensure!(flows.is_empty(), "{address}: {flows:?}");
    }
    ensure!(
        !world.packets(PROXY)?.is_empty(),
        "nothing went to the proxy"
    );
    Ok(())
}

fn forwarder(world: &World) -> Result<Pid> {
    let pids = world.processes()?;
    let found = pids.into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).nth(1) == Some(b"__forward")
    });
    found.context("there is no forwarder")
}

fn warning(shell: &Shell, parts: &[&str]) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let events = shell.confined.events()?;
        let lines = events.iter().filter(|event| event.kind == "warning");
        let mut lines = lines.map(|event| &event.line);
        if lines.any(|line| parts.iter().all(|part| line.contains(part))) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "no warning with {parts:?}: {}",
            shell.confined.agent.stderr()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn programs_reach_names_that_only_the_proxy_knows() -> Result<()> {
    let world = company()?;
    programs::build_go_tls_client()?;
    let url = format!("https://{INSIDE}/");
    for (name, policy, variables) in [
        ("policy", by_policy(), vec![]),
        ("environment", policy(""), vec![("HTTPS_PROXY", URL)]),
        (
            "both",
            by_policy(),
            vec![
                ("https_proxy", "http://nowhere.example:1"),
                ("ALL_PROXY", URL),
            ],
        ),
    ] {
        let mut agent = world.agent(policy);
        for (variable, value) in variables {
            agent = agent.env(variable, value);
        }
        let mut shell = agent.shell()?;
        let before = asked(&world)?.len();
        for line in [
            format!("curl -sS --max-time 10 -o /dev/null {url}"),
            format!("node -e \"fetch('{url}').then(r => process.exit(r.ok ? 0 : 1))\""),
            format!("python3 -c \"import urllib.request as u; u.urlopen('{url}', timeout=10)\""),
            format!("$CLIENTS/go-fetch {url}"),
        ] {
            let said = shell.run(&line)?;
            ensure!(
                said.code == 0,
                "{name}: {line}: {} {}",
                said.text,
                shell.confined.agent.stderr()
            );
        }
        let lines = asked(&world)?;
        let new = lines.get(before..).unwrap_or_default();
        let wanted = format!("CONNECT {INSIDE}:443 HTTP/1.1");
        ensure!(
            new.len() == 4 && new.iter().all(|line| *line == wanted),
            "{new:?}"
        );
        let (code, text) = gets(&mut shell, "-o /dev/null", "https://a.wild.example/")?;
        ensure!(code == 0, "{text}");
        // The credentials are nowhere that the connector could look, nor where they are shown.
        let said = shell.run("env; tr '\\0' '\\n' < /proc/$$/environ")?;
        ensure!(
            !said.text.contains(SECRET) && !said.text.contains(WANTED),
            "{}",
            said.text
        );
        ensure!(
            !said.text.to_lowercase().contains("_proxy="),
            "{}",
            said.text
        );
        let report = shell.end()?;
        report.ensure_nothing_denied()?;
        let started = report.events.iter().find(|event| event.kind == "started");
        let proxy = started.and_then(|event| event.rest.get("proxy")?.as_str());
        let source = if name == "environment" {
            "from HTTPS_PROXY"
        } else {
            "from the policy"
        };
        ensure!(
            proxy == Some(&format!("http://proxy.corp.example:3128 ({source})")),
            "{proxy:?}"
        );
        // Each connection counts once, under its rule.
        let stopped = report.events.iter().find(|event| event.kind == "stopped");
        let allowed = stopped.and_then(|event| event.rest.get("allowed")?.as_array().cloned());
        let allowed = allowed.context("no account")?;
        let rules: Vec<_> = allowed
            .iter()
            .filter_map(|rule| rule["rule"].as_str())
            .collect();
        let own = |rule: &&&str| !rule.starts_with('(');
        ensure!(
            rules.iter().filter(own).count() == 2 && !rules.contains(&"(inbound)"),
            "{rules:?}"
        );
        let rule = allowed
            .iter()
            .find(|rule| rule["rule"] == format!("{INSIDE}:443/tcp"));
        ensure!(
            rule.is_some_and(|rule| rule["connections"] == 4),
            "{allowed:?}"
        );
        for event in &report.events {
            ensure!(!event.line.contains(SECRET), "{}", event.line);
        }
        ensure!(
            !report.outcome.stderr.contains(SECRET),
            "{}",
            report.outcome.stderr
        );
    }
    only_the_proxy_was_reached(&world)
}

#[test]
fn nobody_else_is_reached_through_it() -> Result<()> {
    let world = company()?;
    let mut shell = world.agent(by_policy()).shell()?;
    let place = address(&mut shell, INSIDE)?;
    ensure!(
        place.octets()[0] == 127 && place.octets()[1] >= 64,
        "{place}"
    );
    let control = gets(&mut shell, "-o /dev/null", &format!("https://{INSIDE}/"))?;
    ensure!(control.0 == 0, "{}", control.1);

    // By its name, by the name in TLS, by a request of the connector's own, by the proxy itself.
    let (code, _) = gets(&mut shell, "", "https://stranger.example/")?;
    ensure!(code != 0, "a stranger's name was reached");
    shell
        .confined
        .denial(&Denial::of_name("stranger.example"))?;
    let there = format!("-k --resolve stranger.example:443:{place}");
    let (code, _) = gets(&mut shell, &there, "https://stranger.example/")?;
    ensure!(code != 0, "a stranger's name in TLS was reached");
    let sni = Denial::of_address(place).port(443).by(&["sni"]);
    shell
        .confined
        .denial(&sni.clone().because(&["sni-stranger"]))?;
    let own = "CONNECT stranger.example:443 HTTP/1.1\\r\\n\\r\\n";
    let say = |port: u16, text: &str| {
        format!(
            "timeout 8 python3 -c \"import socket; s=socket.create_connection(('{INSIDE}',{port}),5); \
             s.settimeout(3); s.sendall(b'{text}'); print(s.recv(20))\""
        )
    };
    let said = shell.run(&say(443, own))?;
    ensure!(!said.text.contains("HTTP/1.1 200"), "{}", said.text);
    shell.confined.denial(&sni.because(&["sni-not-tls"]))?;
    let token = token::new();
    // That server answers HTTP itself.
    shell.run(&say(9999, &format!("{own}{token}")))?;
    for way in [
        format!("-p -x http://{PROXY}:{PORT}"),
        format!("-p -x http://proxy.corp.example:{PORT}"),
        format!("--resolve stranger.example:443:{PROXY}"),
    ] {
        let (code, text) = gets(
            &mut shell,
            &format!("-k {way}"),
            "https://stranger.example/",
        )?;
        ensure!(code != 0, "{way}: {text}");
    }
    shell
        .confined
        .denial(&Denial::of_address(PROXY).port(PORT))?;
    // Nobody but the proxy is asked about the name, for its services neither.
    shell.run(&format!(
        "dig +short +time=5 +tries=1 SRV _sip._tcp.{INSIDE}"
    ))?;
    let services = Denial::of_name(&format!("_sip._tcp.{INSIDE}"));
    shell.confined.denial(&services.because(&["record-type"]))?;
    // A port of the name's that no rule permits, and an address that stands for nothing.
    let (code, _) = gets(&mut shell, "-k", &format!("https://{INSIDE}:4443/"))?;
    ensure!(code != 0, "a port without a rule was reached");
    let [a, b, c, d] = place.octets();
    let other = Ipv4Addr::new(a, b, c, d ^ 0x40);
    let (code, _) = gets(&mut shell, "-k", &format!("https://{other}/"))?;
    ensure!(code != 0, "an address without a name was reached");

    let lines = asked(&world)?;
    let places = [format!("{INSIDE}:443"), format!("{INSIDE}:9999")];
    for line in &lines {
        let target = line.split(' ').nth(1).unwrap_or_default();
        ensure!(places.iter().any(|place| place == target), "{lines:?}");
    }
    // What the connector wrote came to its peer, and the proxy did not read it.
    let seen = world.sightings(&token)?;
    ensure!(
        seen.iter()
            .any(|one| one.to == zone::ALLOWED && one.port == 9999),
        "{seen:?}"
    );
    only_the_proxy_was_reached(&world)
}

#[test]
fn the_listener_is_the_connectors_alone() -> Result<()> {
    let world = company()?;
    // Somebody listens on every address already, on a permitted port.
    let serve = "import socket,time\nfor p in (443, 8443): s=socket.create_server(('0.0.0.0',p),backlog=9); globals()['s%d'%p]=s\nprint('up',flush=True); time.sleep(60)";
    let mut outside = world.command("/usr/bin/python3");
    outside.args(["-c", serve]);
    let outside = Running::start(outside, agent::LIMIT)?;
    while outside.stdout().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut shell = world.agent(by_policy()).shell()?;
    let place = address(&mut shell, INSIDE)?;
    for port in [443, 8443] {
        let (code, text) = gets(
            &mut shell,
            "-o /dev/null",
            &format!("https://{INSIDE}:{port}/"),
        )?;
        ensure!(code == 0, "{port}: {text}");
    }
    let before = asked(&world)?.len();
    for user in ["0", "65534", "1"] {
        for port in [443, 9999] {
            let mut stranger = world.command("setpriv");
            stranger.args([
                &format!("--reuid={user}"),
                "--clear-groups",
                "--",
                "/usr/bin/python3",
            ]);
            let script =
                format!("import socket; print(socket.socket().connect_ex(('{place}', {port})))");
            stranger.args(["-c", &script]);
            let said = process::run(stranger, agent::LIMIT)?;
            ensure!(
                said.text().trim() == "111",
                "user {user}: {} {}",
                said.text(),
                said.stderr
            );
        }
    }
    ensure!(
        asked(&world)?.len() == before,
        "the proxy was asked for a stranger"
    );

    // The forwarder's death closes its addresses, to whomever listens; the connector goes on.
    kill(forwarder(&world)?, Signal::SIGKILL)?;
    warning(&shell, &["forwarder", "is gone"])?;
    for port in [443, 8443] {
        let said = shell.run(&format!(
            "python3 -c \"import socket; print(socket.socket().connect_ex(('{place}', {port})))\""
        ))?;
        ensure!(said.text.trim() == "111", "{port}: {}", said.text);
    }
    let said = shell.run("getent hosts b.wild.example; echo on")?;
    ensure!(said.text.trim() == "on", "{}", said.text);
    Ok(())
}

#[test]
fn a_dead_agent_leaves_no_forwarder() -> Result<()> {
    // No other agent that clears up after the dead one.
    let world = company_of(World::alone()?)?;
    let mut shell = world.agent(by_policy()).shell()?;
    let place = address(&mut shell, INSIDE)?;
    let pid = forwarder(&world)?;
    shell.confined.kill_agent()?;
    let end = Instant::now() + Duration::from_secs(5);
    while fs::exists(format!("/proc/{pid}"))? {
        ensure!(Instant::now() < end, "the forwarder outlives its agent");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Its addresses stay closed, whoever listens.
    let script = format!(
        "import socket; s=socket.create_server(('0.0.0.0',8443)); \
         print(socket.socket().connect_ex(('{place}', 8443)), socket.socket().connect_ex(('127.0.0.1', 8443)))"
    );
    let mut stranger = world.command("/usr/bin/python3");
    stranger.args(["-c", &script]);
    let said = process::run(stranger, agent::LIMIT)?;
    ensure!(
        said.text().trim() == "111 0",
        "{} {}",
        said.text(),
        said.stderr
    );
    Ok(())
}

#[test]
fn a_captured_forwarder_reaches_the_proxy_alone() -> Result<()> {
    let world = company()?;
    let mut shell = world.agent(by_policy()).shell()?;
    let control = gets(&mut shell, "-o /dev/null", &format!("https://{INSIDE}/"))?;
    ensure!(control.0 == 0, "{}", control.1);
    let pid = forwarder(&world)?;
    // Another program in its place, with root's rights.
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.context("no cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| place.to_owned())
    });
    let procs = format!("{}{path}/cgroup.procs", mount.context("no cgroup2")?);
    ensure!(path.ends_with("/_forwarder"), "{path}");
    let script = format!(
        "import socket,errno
def tcp(a, p):
    s = socket.socket(socket.AF_INET6 if ':' in a else socket.AF_INET); s.settimeout(3)
    try: s.connect((a, p)); return 'reached'
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def udp(a, p):
    try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (a, p)); return 'reached'
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
print('proxy', tcp('{PROXY}', {PORT}))
for a, p in [('{PROXY}', 443), ('{NO_PROXY}', 443), ('{allowed}', 443), ('{stranger}', {PORT}), ('127.0.0.1', 22), ('{allowed6}', 443), ('{dns}', 53)]:
    print('other', a, p, tcp(a, p))
for a, p in [('{PROXY}', {PORT}), ('{dns}', 53), ('{stranger}', 443)]:
    print('other udp', a, p, udp(a, p))
",
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
    ensure!(text.contains("proxy reached"), "{text} {}", said.stderr);
    let others: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("other"))
        .collect();
    ensure!(others.len() == 10, "{text}");
    for line in others {
        ensure!(line.ends_with("EPERM"), "{line}");
    }

    // What it is by itself.
    process::ensure_powerless(pid)?;
    for file in ["environ", "cmdline"] {
        let text = fs::read(format!("/proc/{pid}/{file}"))?;
        let text = String::from_utf8_lossy(&text);
        ensure!(
            !text.contains(SECRET) && !text.contains(WANTED),
            "{file}: {text}"
        );
    }
    ensure!(fs::read(format!("/proc/{pid}/environ"))?.is_empty());
    Ok(())
}

#[test]
fn what_the_proxy_says_is_told() -> Result<()> {
    let world = company()?;
    let mut shell = world.agent(by_policy()).shell()?;
    for (answer, parts) in [
        (
            "HTTP/1.1 403 Not For You\r\n\r\n",
            &["403 (Not For You)", "permit", INSIDE][..],
        ),
        (
            "HTTP/1.1 504 Late\r\nContent-Length: 3\r\n\r\nno\n",
            &["504", "reach"],
        ),
        ("HTTP/1.1 407 No\r\n\r\n", &["407", "cntlm"]),
        ("SSH-2.0-nonsense\r\n", &["no HTTP"]),
        ("", &["no answer"]),
    ] {
        serve(&world, Answer::Says(answer.to_owned()))?;
        let (code, text) = gets(&mut shell, "", &format!("https://{INSIDE}/"))?;
        ensure!(code != 0, "{answer}: {text}");
        warning(&shell, parts)?;
    }
    serve(&world, Answer::After(3_000))?;
    let (code, text) = gets(&mut shell, "-o /dev/null", &format!("https://{INSIDE}/"))?;
    ensure!(code == 0, "a slow one: {text}");
    serve(
        &world,
        Answer::Says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 x\r\n\r\n".to_owned()),
    )?;
    ensure!(gets(&mut shell, "", &format!("https://{INSIDE}/"))?.0 != 0);
    serve(&world, Answer::Opens)?;
    let (code, text) = gets(&mut shell, "-o /dev/null", &format!("https://{INSIDE}/"))?;
    ensure!(code == 0, "{text}");
    // Without credentials the words are others.
    drop(shell);
    let bare = policy("proxy: http://proxy.corp.example:3128\n");
    let mut shell = world.agent(bare).shell()?;
    ensure!(gets(&mut shell, "", &format!("https://{INSIDE}/"))?.0 != 0);
    warning(&shell, &["407 (Who Are You)", "USER:PASSWORD"])
}

#[test]
fn one_side_may_end_and_the_other_go_on() -> Result<()> {
    let world = company()?;
    let mut shell = world.agent(by_policy()).shell()?;
    let token = token::new();
    let script = format!(
        "import socket; s=socket.create_connection(('{INSIDE}',9999),10); s.sendall(b'x'*300000+b' {token}'); \
         s.shutdown(socket.SHUT_WR); d=b''
while True:
    r=s.recv(9)
    if not r: break
    d+=r
print(d.decode().strip())"
    );
    fs::write(world.dir().join("half.py"), script)?;
    let said = shell.run(&format!("python3 {}/half.py", world.dir().display()))?;
    ensure!(said.text.trim() == format!("ok {token}"), "{}", said.text);
    only_the_proxy_was_reached(&world)
}

#[test]
fn what_does_not_go_through_it_goes_its_own_way() -> Result<()> {
    let world = company()?;
    let rules = "allow: [\"allowed.example:443\", \"other.example:443\"]\n";
    let direct = format!(
        "version: 1\nconnector: proxied\nproxy: {{ url: \"{URL}\", direct: [allowed.example] }}\n{rules}"
    );
    let by_caller = format!("version: 1\nconnector: proxied\n{rules}");
    let off = format!("version: 1\nconnector: proxied\nproxy: off\n{rules}");
    for (policy, caller, proxied) in [
        (direct, None, true),
        (by_caller, Some("localhost,allowed.example"), true),
        (off, Some(""), false),
    ] {
        let mut agent = world.agent(policy);
        if let Some(exceptions) = caller {
            agent = agent.env("HTTPS_PROXY", URL).env("NO_PROXY", exceptions);
        }
        let mut shell = agent.shell()?;
        ensure!(address(&mut shell, "allowed.example")? == zone::ALLOWED);
        let other = address(&mut shell, "other.example")?;
        ensure!(other.is_loopback() == proxied, "{other}");
        for name in ["allowed.example", "other.example"] {
            let (code, text) = gets(
                &mut shell,
                "-o /dev/null --noproxy '*'",
                &format!("https://{name}/"),
            )?;
            ensure!(code == 0, "{name}: {text}");
        }
    }
    let lines = asked(&world)?;
    ensure!(
        lines == ["CONNECT other.example:443 HTTP/1.1"; 2],
        "{lines:?}"
    );
    Ok(())
}

#[test]
fn a_rule_that_leads_to_it_is_refused() -> Result<()> {
    let world = company()?;
    for rules in [
        "allow: [\"proxy.corp.example:3128\"]".to_owned(),
        "allow: [\"*.corp.example:3128\"]".to_owned(),
        format!(
            "allow: [{{ cidr: {}/24, ports: [3000-4000] }}]",
            zone::v4(0)
        ),
    ] {
        let text = format!("version: 1\nconnector: proxied\nproxy: {URL}\n{rules}\n");
        let report = world.agent(text).run(&["true"])?;
        ensure!(report.code() == 125, "{rules}: {report}");
        let said = &report.outcome.stderr;
        ensure!(
            said.contains("anywhere") && !said.contains(SECRET),
            "{said}"
        );
        let text = format!("version: 1\nconnector: proxied\n{rules}\n");
        let report = world.agent(text).env("HTTPS_PROXY", URL).run(&["true"])?;
        ensure!(report.code() == 125, "{rules}: {report}");
    }
    for (url, word) in [
        ("socks5://u:s3cret-word@p:1080", "SOCKS"),
        ("https://p:443", "TLS"),
    ] {
        let report = world
            .agent(policy(""))
            .env("HTTPS_PROXY", url)
            .run(&["true"])?;
        ensure!(report.code() == 125, "{url}: {report}");
        let said = &report.outcome.stderr;
        ensure!(said.contains(word) && !said.contains(SECRET), "{said}");
    }
    // A rule at the same addresses that leaves the proxy's port out is none.
    let rules = format!("allow: [{{ cidr: {}/24, ports: [443] }}]", zone::v4(0));
    let text = format!("version: 1\nconnector: proxied\nproxy: {URL}\n{rules}\n");
    let report = world.agent(text).run(&["true"])?;
    ensure!(report.code() == 0, "{report}");
    Ok(())
}

#[test]
fn a_change_of_the_policy_holds_for_what_goes_through_it() -> Result<()> {
    let world = company()?;
    let file = world.path("policy.yaml");
    let head = format!("version: 1\nconnector: proxied\nproxy: {URL}\n");
    let with = |rules: &str| format!("{head}{rules}\n");
    fs::write(&file, with(&format!("allow: [\"{INSIDE}:443\"]")))?;
    let mut shell = world.agent("").option("--watch").shell_with_file(&file)?;
    let url = format!("https://{INSIDE}/");
    ensure!(gets(&mut shell, "-o /dev/null", &url)?.0 == 0);
    let changed = |shell: &Shell, kind: &str, count: usize| -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let events = shell.confined.events()?;
            if events.iter().filter(|event| event.kind == kind).count() >= count {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{}", shell.confined.agent.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    fs::write(
        &file,
        with("allow: [\"a.wild.example:443\"]\ndeny: [{ cidr: 127.0.0.0/8 }]"),
    )?;
    changed(&shell, "policy", 1)?;
    ensure!(
        gets(&mut shell, "-o /dev/null", &url)?.0 != 0,
        "a rule that is gone"
    );
    let (code, text) = gets(&mut shell, "-o /dev/null", "https://a.wild.example/")?;
    ensure!(code == 0, "{text} {}", shell.confined.agent.stderr());
    // One that leads to the proxy is not taken.
    let wide = format!(
        "allow: [\"{INSIDE}:443\", {{ cidr: {}/24, ports: [3128] }}]",
        zone::v4(0)
    );
    fs::write(&file, with(&wide))?;
    warning(&shell, &["not replaced", "anywhere"])?;
    ensure!(gets(&mut shell, "-o /dev/null", &url)?.0 != 0);
    Ok(())
}
