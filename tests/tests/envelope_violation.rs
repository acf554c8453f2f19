//! A connector that tries what it must not stands still, or is ended; and nothing of it is left.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{agent::Confined, event::Event, process, world::World};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const API: &str = "api.postmarkapp.com";
const LIMIT: Duration = Duration::from_secs(10);
/// How long one that stands still is watched.
const WATCHED: Duration = Duration::from_millis(1_500);

fn policy(what: &str) -> String {
    format!(
        "version: 1\nconnector: tried\non-violation: {what}\nallow:\n  - host: {API}\n    ports: \
         [443]\n    inspect:\n      operations:\n        - {{ id: send, method: POST, path: /email, \
         body: json, recipients: {{ mail: [/to] }} }}\n"
    )
}

/// A connector that sends one request, and goes on.
fn start(world: &World, what: &str, request: &str) -> Result<Confined> {
    let line = format!(
        "echo before; curl -sS -o /dev/null -w 'status %{{http_code}}\\n' {request}; \
         sleep 1; echo after; sleep 30"
    );
    world.agent(policy(what)).start(&["/bin/sh", "-c", &line])
}

/// Mail to somebody whom nobody has named.
fn hidden() -> String {
    format!(
        "-H 'Content-Type: application/json' -d '{{\"to\":\"phan@giftshop.club\"}}' https://{API}/email"
    )
}

fn violation(confined: &Confined) -> Result<Event> {
    let end = Instant::now() + process::patient(LIMIT);
    loop {
        let events = confined.events()?;
        let fits = |event: &&Event| event.rest.get("topic").is_some_and(|it| it == "violation");
        if let Some(event) = events.iter().find(fits) {
            return Ok(event.clone());
        }
        let stderr = confined.agent.stderr();
        ensure!(Instant::now() < end, "no violation: {stderr}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A frozen connector, with its line and the instance that this names.
fn frozen(world: &World) -> Result<(Confined, String)> {
    let mut confined = start(world, "freeze", &hidden())?;
    confined.printed("before", LIMIT)?;
    let line = violation(&confined)?;
    ensure!(line.line.contains("phan@giftshop.club"), "{}", line.line);
    let instance = line.rest.get("instance").and_then(|it| it.as_str());
    let instance = instance.context("no instance")?.to_owned();
    ensure!(
        line.line.contains(&format!("thaw {instance}")),
        "{}",
        line.line
    );
    std::thread::sleep(WATCHED);
    let out = String::from_utf8_lossy(&confined.agent.stdout()).into_owned();
    ensure!(!out.contains("after"), "{out}");
    Ok((confined, instance))
}

#[test]
fn one_that_writes_to_a_stranger_stands_still_until_it_is_thawed() -> Result<()> {
    let world = World::new()?;
    let (mut confined, instance) = frozen(&world)?;
    let thaw = |instance: &str| process::run(world.agent_command(&["thaw", instance])?, LIMIT);
    let other = thaw("nobody-1")?;
    ensure!(
        other.code() == 1 && other.stderr.contains("no connector"),
        "{other:?}"
    );
    ensure!(thaw(&instance)?.ok());
    confined.printed("after", LIMIT)?;
    let again = thaw(&instance)?;
    ensure!(again.code() == 1, "{again:?}");
    confined.agent.signal(Signal::SIGTERM)?;
    confined.wait()?;
    Ok(())
}

#[test]
fn one_that_stands_still_ends_with_its_agent() -> Result<()> {
    let world = World::new()?;
    // By a signal that it could not hear itself.
    let (confined, _) = frozen(&world)?;
    confined.agent.signal(Signal::SIGTERM)?;
    let report = confined.wait()?;
    ensure!(report.code() == 137, "{report:?}");
    // And where its agent has no time for anything.
    let (confined, instance) = frozen(&world)?;
    let group = fs::read_to_string(format!("/proc/{}/cgroup", first(&world)?))?;
    ensure!(group.contains(&instance), "{group}");
    let pid = first(&world)?;
    confined.kill_agent()?;
    let end = Instant::now() + process::patient(LIMIT);
    while kill(pid, None).is_ok() {
        ensure!(Instant::now() < end, "{pid} is left");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The frozen shell.
fn first(world: &World) -> Result<Pid> {
    let pids = world.processes()?;
    let shell = pids.into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"/bin/sh\0-c\0echo before")
    });
    shell.context("no shell")
}

#[test]
fn one_that_is_to_be_ended_is() -> Result<()> {
    let world = World::new()?;
    let confined = start(&world, "kill", &hidden())?;
    let line = violation(&confined)?;
    ensure!(
        line.line.contains("the connector is ended"),
        "{}",
        line.line
    );
    let report = confined.wait()?;
    ensure!(
        report.code() == 137 && !report.text().contains("after"),
        "{report:?}"
    );
    Ok(())
}

/// What a mistake explains is refused and no more: an operation that no table lists.
#[test]
fn mistakes_are_no_violations() -> Result<()> {
    let world = World::new()?;
    for what in ["freeze", "kill"] {
        let mut confined = start(&world, what, &format!("https://{API}/other"))?;
        confined.printed("status 403", LIMIT)?;
        confined.printed("after", LIMIT)?;
        let events = confined.events()?;
        let violation = events
            .iter()
            .find(|event| event.line.contains("\"violation\""));
        ensure!(violation.is_none(), "{violation:?}");
        confined.agent.signal(Signal::SIGTERM)?;
        confined.wait()?;
    }
    Ok(())
}
