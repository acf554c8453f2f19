//! `internet:`: every public host by its name, and nothing else.

use anyhow::{Result, ensure};
use egress_tests::{event::Denial, world::World, zone};

const POLICY: &str = "version: 1\nconnector: browser\nallow:\n  - internet: [443]\n    \
                      why: it fetches what it is told\ndeny: [\"*.exfil.example:443\"]\n";

#[test]
fn every_public_host_and_no_other() -> Result<()> {
    let world = World::new()?;
    let script = "for host in allowed.example other.example api.postmarkapp.com alias.example; do \
            curl -sS -o /dev/null https://$host/ && echo reached $host; done; \
        for host in inside.example metadata.rebind.example loopback.rebind.example \
            private.rebind.example mapped.rebind.example nat64.rebind.example x.exfil.example \
            nas.local metadata.google.internal router; do \
            curl -sS -m 5 -o /dev/null https://$host/ 2>/dev/null && echo LEAK $host; done; \
        echo over";
    let report = world.agent(POLICY).run(&["/bin/bash", "-c", script])?;
    report.ensure_printed("over")?;
    for host in [
        "allowed.example",
        "other.example",
        "api.postmarkapp.com",
        "alias.example",
    ] {
        ensure!(
            report.text().contains(&format!("reached {host}")),
            "{host}: {report}"
        );
    }
    ensure!(!report.text().contains("LEAK"), "{report}");
    for (name, reason) in [
        ("inside.example", "private-answer"),
        ("metadata.rebind.example", "private-answer"),
        ("nas.local", "name-not-allowed"),
        ("router", "name-not-allowed"),
        ("x.exfil.example", "deny-rule"),
    ] {
        report.ensure_denied(&Denial::of_name(name).because(&[reason]))?;
    }
    ensure!(
        report.outcome.stderr.contains("permits every public host"),
        "the start says what it means: {report}"
    );
    // Names in what is passed on as well: each connection has its own.
    let last = report
        .events
        .last()
        .map(|event| event.line.clone())
        .unwrap_or_default();
    ensure!(last.contains("internet:443/tcp"), "{last}");
    Ok(())
}

/// An address that no name led to, plain text, another port.
#[test]
fn no_address_without_a_name() -> Result<()> {
    let world = World::new()?;
    let script = format!(
        "getent hosts allowed.example >/dev/null; \
         (exec 3<>/dev/tcp/{stranger}/443) 2>/dev/null && echo LEAK address; \
         curl -sS -m 5 http://allowed.example/ >/dev/null 2>&1 && echo LEAK port; \
         (exec 3<>/dev/tcp/{allowed}/443; echo plain text >&3; read -t 3 line <&3) 2>/dev/null \
             && echo LEAK plain; \
         curl -sS -o /dev/null https://allowed.example/ && echo control",
        stranger = zone::STRANGER,
        allowed = zone::ALLOWED
    );
    let report = world.agent(POLICY).run(&["/bin/bash", "-c", &script])?;
    report.ensure_printed("control")?;
    ensure!(!report.text().contains("LEAK"), "{report}");
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}
