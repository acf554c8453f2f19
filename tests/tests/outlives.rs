//! What confines a connector does not need the agent; and a connector ends with it.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    agent::{self, policy},
    leftovers::{self, Leftovers},
    process::{must, patience},
    token,
    world::World,
    zone,
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A connector whose agent is gone has this long.
const AT_ONCE: Duration = Duration::from_secs(1);
const WHILE_DEAD: Duration = Duration::from_secs(2);

#[test]
fn a_killed_agent_leaves_its_connector_confined() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let probe = world.bin("probe");
    let (permitted, forbidden) = (token::new(), token::new());
    let script = format!(
        "{probe} drip {}:9999 {permitted} 60 | sed -u s/^/declared-/ & \
         {probe} drip {}:9999 {forbidden} 60 | sed -u s/^/stranger-/; wait",
        zone::ALLOWED,
        zone::STRANGER
    );
    let allow = format!("{}:9999", zone::ALLOWED);
    let mut confined =
        world
            .agent(policy("outlives", &[&allow]))
            .start(&["/bin/bash", "-c", &script])?;
    confined.printed("declared-sent", agent::LIMIT)?;
    confined.printed("stranger-refused", agent::LIMIT)?;

    // Whoever ends the connector with its agent is held up.
    let init = confined.hold_init()?;
    confined.kill_agent()?;
    let said = confined.agent.stdout().len();
    thread::sleep(WHILE_DEAD);
    ensure!(
        !world.processes()?.is_empty(),
        "the connector ended with its agent"
    );
    let after = confined.agent.stdout();
    let after = String::from_utf8_lossy(&after[said..]).into_owned();
    ensure!(
        after.contains("declared-sent"),
        "declared flows ended: {after}"
    );
    ensure!(after.contains("stranger-refused"), "{after}");
    ensure!(!after.contains("stranger-sent"), "{after}");
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    ensure!(before.anything_new()?, "the test looks at the wrong places");

    kill(init, Signal::SIGCONT)?;
    ends(&world)?;

    // The next start ends what is left of it, and still nothing gets out on the way.
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    before.ensure_nothing_new()?;
    ensure!(
        world.processes()?.is_empty(),
        "left: {:?}",
        world.processes()?
    );
    thread::sleep(Duration::from_millis(500));
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    ensure!(world.sightings(&forbidden)?.is_empty());
    Ok(())
}

/// However deaf its processes are, and wherever they went.
#[test]
fn a_connector_ends_with_its_agent() -> Result<()> {
    let world = World::alone()?;
    let script = "trap '' TERM INT HUP; (trap '' TERM; setsid sleep 600) & \
                  echo up; while :; do sleep 1; done";
    let mut confined = world
        .agent(policy("deaf", &[]))
        .start(&["/bin/bash", "-c", script])?;
    confined.printed("up", agent::LIMIT)?;
    ensure!(!world.processes()?.is_empty());
    confined.kill_agent()?;
    ends(&world)?;
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    Ok(())
}

fn ends(world: &World) -> Result<()> {
    let end = Instant::now() + AT_ONCE * patience();
    while !world.processes()?.is_empty() {
        ensure!(
            Instant::now() < end,
            "left after its agent: {:?}",
            world.processes()?
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A connection that waits for its name: the first half of a ClientHello is queued, refused, and
/// holds the token.
fn half_hello(token: &str) -> String {
    format!(
        "exec 3<>/dev/tcp/{}/443; printf '\\x16\\x03\\x01\\x30\\x00\\x01\\x00\\x2f\\xfc{token}' >&3; \
         echo queued; exec sleep 600",
        "allowed.example"
    )
}

/// The agent's start in a network namespace that nothing else is in.
const ALONE: &str = "exec unshare --net /bin/bash -c 'ip link set lo up; exec \"$@\"' alone \"$@\"";

/// Sockets are in the network namespace that they were made in, wherever the next agent is.
#[test]
fn sockets_are_ended_where_they_are() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    for is_alive in [true, false] {
        let secret = token::new();
        let rules = policy("outlives", &[&format!("{}:443", "allowed.example")]);
        let mut confined = world
            .agent(rules)
            .start(&["/bin/bash", "-c", &half_hello(&secret)])?;
        confined.printed("queued", agent::LIMIT)?;
        confined.hold_init()?;
        confined.kill_agent()?;
        if !is_alive {
            end(&world)?;
        }
        let report = world
            .agent(policy("next", &[]))
            .behind(ALONE)
            .run(&["true"])?;
        ensure!(report.outcome.ok(), "{report}");
        before
            .ensure_nothing_new()
            .with_context(|| format!("connector alive: {is_alive}: {report}"))?;
        // Longer than the kernel waits before it tries again.
        thread::sleep(WHILE_DEAD);
        world.fence()?;
        let heard = world.sightings(&secret)?;
        ensure!(heard.is_empty(), "connector alive: {is_alive}: {heard:?}");
        // Control: the same bytes arrive where nobody asks for names.
        let open = format!("{{host: {}, ports: [443], tls: off}}", "allowed.example");
        let script = half_hello(&secret).replace("exec sleep 600", "sleep 0.5");
        let report = world
            .agent(policy("control", &[&open]))
            .run(&["/bin/bash", "-c", &script])?;
        report.ensure_printed("queued")?;
        world.fence()?;
        ensure!(!world.sightings(&secret)?.is_empty(), "{report}");
    }
    Ok(())
}

/// A namespace that is left with nothing but a socket can be entered by nobody: what confines it
/// stays until that has ended.
#[test]
fn what_cannot_be_reached_stays_confined() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let (ready, down) = (world.path("ready"), world.path("down"));
    let server = "import socket,time; s=socket.create_server((\"127.0.0.1\",7777)); \
                  open(\"READY\",\"w\").close(); c=s.accept(); time.sleep(600)"
        .replace("READY", &ready.display().to_string());
    let line = format!(
        "exec unshare --net /bin/bash -c 'ip link set lo up; \
         sysctl -qw net.ipv4.tcp_orphan_retries=1; /usr/bin/python3 -c \"$0\" & \
         until [ -e {} ]; do sleep 0.02; done; exec \"$@\"' '{server}' \"$@\"",
        ready.display()
    );
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/7777; echo x >&3; echo connected; \
         until [ -e {} ]; do sleep 0.02; done; echo more >&3; echo queued; exec sleep 600",
        down.display()
    );
    let mut confined = world
        .agent(policy("outlives", &["127.0.0.1:7777"]))
        .behind(&line)
        .start(&["/bin/bash", "-c", &script])?;
    confined.printed("connected", agent::LIMIT)?;
    // From here on nothing arrives, so that the socket has something to say for a while.
    let pid = confined.agent.pid().to_string();
    let mut cut = world.command("nsenter");
    cut.args(["--target", &pid, "--net", "ip", "link", "set", "lo", "down"]);
    must(cut, agent::LIMIT)?;
    fs::write(&down, "")?;
    confined.printed("queued", agent::LIMIT)?;
    let namespace = fs::read_link(format!("/proc/{pid}/ns/net"))?;
    confined.hold_init()?;
    confined.kill_agent()?;
    let others = inside(&namespace)?;
    ensure!(!others.is_empty(), "the connector ended with its agent");
    for pid in others {
        kill(pid, Signal::SIGKILL)?;
    }
    drop(confined);

    let next = || world.agent(policy("next", &[])).run(&["true"]);
    let report = next()?;
    ensure!(report.outcome.ok(), "{report}");
    let says = |text: &str| report.outcome.stderr.contains(text);
    ensure!(
        says("stays confined") && says("cannot be entered"),
        "{report}"
    );
    ensure!(before.anything_new()?, "what confines it is gone: {report}");
    let end = Instant::now() + Duration::from_secs(60) * patience();
    while before.anything_new()? {
        ensure!(Instant::now() < end, "the socket does not end");
        thread::sleep(Duration::from_millis(500));
        next()?;
    }
    Ok(())
}

/// Who lives is told by what is tied to the cgroup: another agent may have a /run, a bpf file
/// system, a view of the cgroups, of processes and of the network of its own.
#[test]
fn no_living_instance_is_taken_for_a_dead_one() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let cgroups = leftovers::cgroup2()?.display().to_string();
    let run = "mount -t tmpfs none /run/egress-agent";
    for (others, also) in [
        ("--mount", String::new()),
        ("--mount --net", "ip link set lo up;".to_owned()),
        (
            "--mount --pid --fork --mount-proc",
            format!("mount -t bpf bpf /sys/fs/bpf; mount -t cgroup2 none {cgroups};"),
        ),
    ] {
        let mut first = world.agent(policy("outlives", &[])).start(&[
            "/bin/bash",
            "-c",
            "echo up; read line; echo still here",
        ])?;
        first.printed("up", agent::LIMIT)?;
        let line =
            format!("exec unshare {others} /bin/bash -c '{run}; {also} exec \"$@\"' other \"$@\"");
        for _ in 0..2 {
            let report = world
                .agent(policy("second", &[]))
                .behind(&line)
                .run(&["echo", "second"])?;
            report.ensure_printed("second")?;
            ensure!(!report.outcome.stderr.contains("ended"), "{report}");
        }
        // With nothing of its own, too, and while the file below /run is not there.
        first.agent.stdin()?.write_all(b"\n")?;
        let report = first.wait()?;
        report.ensure_printed("still here")?;
        before.ensure_nothing_new()?;
    }
    // Control: what is dead is ended from there.
    let dead = world.agent(policy("outlives", &[])).start(&[
        "/bin/bash",
        "-c",
        "echo up; exec sleep 600",
    ])?;
    let mut dead = dead;
    dead.printed("up", agent::LIMIT)?;
    dead.kill_agent()?;
    drop(dead);
    let line = format!("exec unshare --mount /bin/bash -c '{run}; exec \"$@\"' other \"$@\"");
    let report = world
        .agent(policy("second", &[]))
        .behind(&line)
        .run(&["true"])?;
    ensure!(
        report
            .outcome
            .stderr
            .contains("which a dead agent had left"),
        "{report}"
    );
    ensure!(world.processes()?.is_empty());
    Ok(())
}

/// Ends everything that runs on the host of a world.
fn end(world: &World) -> Result<()> {
    for pid in world.processes()? {
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let end = Instant::now() + agent::LIMIT;
    while !world.processes()?.is_empty() {
        ensure!(Instant::now() < end, "processes are left");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Processes in a network namespace, by the text of its link.
fn inside(namespace: &Path) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let Ok(pid) = name.parse() else { continue };
        if fs::read_link(path.join("ns/net")).is_ok_and(|link| link == namespace) {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
