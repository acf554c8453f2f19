//! What rules say about names in TLS: `tls:`, several ports, denied names, and changes of it.

use std::{fs, net::Ipv4Addr, time::Instant};

use anyhow::{Result, ensure};
use egress_tests::{agent, event::Denial, shell::Shell, world::World, zone};
use nix::sys::signal::Signal;

/// Whether a server at an address answers to a name.
fn gets(shell: &mut Shell, name: &str, port: u16, at: Ipv4Addr) -> Result<bool> {
    let said = shell.run(&format!(
        "curl -sk --max-time 10 -o /dev/null --resolve {name}:{port}:{at} https://{name}:{port}/"
    ))?;
    Ok(said.code == 0)
}

#[track_caller]
fn ensure_gets(shell: &mut Shell, name: &str, port: u16, at: Ipv4Addr) -> Result<()> {
    let got = gets(shell, name, port, at)?;
    let said = shell.confined.agent.stderr();
    ensure!(got, "{name}:{port} at {at} was not reached: {said}");
    Ok(())
}

#[track_caller]
fn ensure_refused(
    shell: &mut Shell,
    name: &str,
    port: u16,
    at: Ipv4Addr,
    why: &'static str,
) -> Result<()> {
    let got = gets(shell, name, port, at)?;
    ensure!(!got, "{name}:{port} at {at} was reached");
    let denial = Denial {
        name: Some(name.to_owned()),
        ..Denial::of_address(at).port(port).by(&["sni"])
    };
    shell.confined.denial(&denial.because(&[why]))?;
    Ok(())
}

const HEAD: &str = "version: 1\nconnector: names\nallow:\n";

#[test]
fn each_port_of_a_rule_has_its_own_word() -> Result<()> {
    let world = World::new()?;
    let text = HEAD.to_owned()
        + "  - { host: allowed.example, ports: [443, 8443] }\n"
        + "  - { host: other.example, ports: [4443], tls: require }\n"
        + "  - \"*.ingest.sentry.io:443\"\n"
        + "deny:\n  - host: bad.ingest.sentry.io\n";
    let mut shell = world.agent(text).shell()?;
    let (here, there) = (zone::ALLOWED, zone::OTHER);
    ensure_gets(&mut shell, "allowed.example", 443, here)?;
    ensure_refused(&mut shell, "stranger.example", 443, here, "sni-stranger")?;
    // Without `tls:` only 443 is looked at.
    ensure_gets(&mut shell, "allowed.example", 8443, here)?;
    ensure_gets(&mut shell, "stranger.example", 8443, here)?;
    ensure_gets(&mut shell, "other.example", 4443, there)?;
    ensure_refused(&mut shell, "stranger.example", 4443, there, "sni-stranger")?;
    // Permitted, but not at this port.
    ensure_refused(&mut shell, "allowed.example", 4443, there, "sni-stranger")?;
    ensure_gets(&mut shell, "o1.ingest.sentry.io", 443, here)?;
    ensure_refused(&mut shell, "bad.ingest.sentry.io", 443, here, "deny-rule")?;

    let report = shell.end()?;
    let stopped = report.events.iter().find(|event| event.kind == "stopped");
    let allowed = stopped.and_then(|event| event.rest.get("allowed")?.as_array());
    let rules: Vec<_> = allowed.into_iter().flatten().collect();
    let both = "allowed.example:443,8443/tcp";
    let both: Vec<_> = rules.iter().filter(|rule| rule["rule"] == both).collect();
    ensure!(
        both.len() == 1,
        "a rule in two parts is one rule: {rules:?}"
    );
    ensure!(both[0]["connections"].as_u64() >= Some(3), "{rules:?}");
    Ok(())
}

#[test]
fn a_changed_word_holds_at_once() -> Result<()> {
    let world = World::new()?;
    let file = world.path("policy.yaml");
    let asked = format!("{HEAD}  - allowed.example:443\n");
    let off = format!("{HEAD}  - {{ host: allowed.example, ports: [443], tls: off }}\n");
    fs::write(&file, &asked)?;
    let mut shell = world.agent("").shell_with_file(&file)?;
    let here = zone::ALLOWED;
    ensure_gets(&mut shell, "allowed.example", 443, here)?;
    ensure_refused(&mut shell, "stranger.example", 443, here, "sni-stranger")?;
    reload(&shell, &file, &off)?;
    resolved(&mut shell)?;
    ensure_gets(&mut shell, "stranger.example", 443, here)?;
    reload(&shell, &file, &asked)?;
    resolved(&mut shell)?;
    let got = gets(&mut shell, "stranger.example", 443, here)?;
    ensure!(!got, "{}", shell.confined.agent.stderr());
    ensure_gets(&mut shell, "allowed.example", 443, here)
}

/// The grants of a new rule follow its policy line; asking for the name waits for them.
fn resolved(shell: &mut Shell) -> Result<()> {
    let said = shell.run("getent ahosts allowed.example")?;
    ensure!(said.code == 0, "{}", said.text);
    Ok(())
}

fn reload(shell: &Shell, file: &std::path::Path, text: &str) -> Result<()> {
    let changes = || -> Result<usize> {
        let events = shell.confined.events()?;
        Ok(events.iter().filter(|event| event.kind == "policy").count())
    };
    let before = changes()?;
    fs::write(file, text)?;
    shell.confined.agent.signal(Signal::SIGHUP)?;
    let since = Instant::now();
    while changes()? == before {
        let said = shell.confined.agent.stderr();
        ensure!(since.elapsed() < agent::LIMIT, "no policy line; {said}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}
