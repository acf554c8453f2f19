//! The host breaks under a running or starting agent: nothing opens, the reason is told, nothing is
//! left behind.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use egress_tests::{
    agent::{self, Confined, Report, policy},
    event::Denial,
    faults::{Tries, faulty, recovers, rules},
    kernel,
    leftovers::{Leftovers, cgroup2},
    process::{must, patience},
    protocol::{Behaviour, Record},
    unit::{self, Unit},
    world::World,
    zone,
};
use nix::sys::signal::Signal;

const PINS: &str = "/sys/fs/bpf/egress-agent";
const MOMENT: Duration = Duration::from_millis(300);
const STOP: Duration = Duration::from_secs(60);

/// The one instance of these tests that is new in a folder.
fn instance(folder: &Path, before: &[PathBuf]) -> Result<PathBuf> {
    let new: Vec<PathBuf> = folders(folder)?
        .into_iter()
        .filter(|path| !before.contains(path))
        .filter(|path| path.file_name().is_some_and(of_these_tests))
        .collect();
    match new.as_slice() {
        [one] => Ok(one.clone()),
        other => bail!("one instance is expected: {other:?}"),
    }
}

fn of_these_tests(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"faults-")
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths
        .filter(|path| path.as_ref().is_ok_and(|path| path.is_dir()) || path.is_err())
        .collect()
}

/// Waits until the agent has stopped itself.
fn stopped(confined: &mut Confined) -> Result<()> {
    let stat = format!("/proc/{}/stat", confined.agent.pid());
    let end = Instant::now() + STOP * patience();
    loop {
        let text = fs::read_to_string(&stat).context("the agent is gone")?;
        let state = text.rsplit(')').next().unwrap_or_default();
        if state.trim_start().starts_with('T') {
            return Ok(());
        }
        ensure!(
            Instant::now() < end && !confined.agent.ended()?,
            "it does not stop: {}",
            confined.agent.stderr()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn started(report: &Report) -> bool {
    report.events.iter().any(|event| event.kind == "started")
}

/// Whoever tidies up cgroups removes empty ones.
#[test]
fn the_cgroup_is_removed_before_the_connector_joins() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let parent = cgroup2()?.join("egress-agent");
    for again in [false, true] {
        let known = folders(&parent)?;
        let tries = Tries::default();
        let mut confined =
            faulty(&world, "STOP_AT", "Resolved").start(&["/bin/bash", "-c", &tries.script])?;
        stopped(&mut confined)?;
        let own = instance(&parent, &known)?;
        let (connector, copy) = (own.join("faults"), own.join("faults/1"));
        for folder in [&copy, &connector, &own] {
            fs::remove_dir(folder)?;
        }
        if again {
            // The same names, and nothing attached.
            fs::create_dir_all(&copy)?;
        }
        confined.agent.signal(Signal::SIGCONT)?;
        let report = confined.wait()?;
        ensure!(report.code() == 125 && !started(&report), "{report}");
        let reason = if again {
            "boundary does not hold"
        } else {
            "cannot join the cgroup"
        };
        ensure!(report.outcome.stderr.contains(reason), "{report}");
        tries.held(&world)?;
        recovers(&world, &before, false)?;
    }
    Ok(())
}

/// Removing a pin takes root; but a tool that tidies up is root.
#[test]
fn pins_that_are_removed_open_nothing_while_the_agent_lives() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let known = folders(Path::new(PINS))?;
    let tries = Tries::default();
    let script = format!(
        "{}\necho up; read line; (try) || echo refused again",
        tries.script
    );
    let mut confined = world.agent(rules()).start(&["/bin/bash", "-c", &script])?;
    confined.printed("up", agent::LIMIT)?;
    fs::remove_dir_all(instance(Path::new(PINS), &known)?)?;
    thread::sleep(MOMENT);
    tries.held(&world)?;
    confined.agent.stdin()?.write_all(b"\n")?;
    let report = confined.wait()?;
    report.ensure_printed("refused again")?;
    tries.held(&world)?;
    recovers(&world, &before, false)
}

/// As an agent of another version leaves them, or somebody who plays with them.
#[test]
fn pins_of_another_version_are_ended_like_ones_own() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    for case in [
        "another version",
        "renamed links",
        "half of them gone",
        "not ours",
    ] {
        let known = folders(Path::new(PINS))?;
        let tries = Tries::default();
        let report = tries.run(faulty(&world, "KILL_AT", "ConnectorEnded"))?;
        ensure!(report.code() == 137, "{report}");
        let own = instance(Path::new(PINS), &known)?;
        let version = folders(&own)?.pop().context("no version")?;
        match case {
            "another version" => fs::rename(&version, own.join("999"))?,
            "renamed links" => fs::rename(version.join("link_egress"), version.join("odd"))?,
            "half of them gone" => fs::remove_file(version.join("map_GRANTS"))?,
            _ => fs::create_dir_all(own.join("7/below"))?,
        }
        tries.held(&world).context(case)?;
        recovers(&world, &before, true).context(case)?;
        tries.held(&world).context(case)?;
    }
    Ok(())
}

/// Nobody else waits for an instance that cannot be ended; what is left of it stays confined.
#[test]
fn a_leftover_that_cannot_be_ended_holds_nobody_up() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let known = folders(Path::new(PINS))?;
    let tries = Tries::default();
    let report = tries.run(faulty(&world, "KILL_AT", "ConnectorEnded"))?;
    ensure!(report.code() == 137, "{report}");
    let version = folders(&instance(Path::new(PINS), &known)?)?;
    let version = version.first().context("no version")?.display().to_string();
    // A mount point cannot be removed.
    let line = format!("mount --bind {version} {version} && exec \"$@\"");
    let report = world
        .agent(policy("next", &[]))
        .behind(&line)
        .run(&["true"])?;
    let mut umount = world.command("umount");
    umount.arg(&version);
    must(umount, STOP)?;
    ensure!(report.code() == 0 && started(&report), "{report}");
    ensure!(
        report.outcome.stderr.contains("stays confined"),
        "it should say so: {report}"
    );
    tries.held(&world)?;
    recovers(&world, &before, true)?;
    tries.held(&world)
}

/// The events' own file, and a file of the user's, each on a file system without room.
#[test]
fn the_disk_under_the_events_is_full() -> Result<()> {
    let world = World::new()?;
    let tries = Tries::default();
    let script = format!(
        "{}\nfor n in $(seq 3000); do (exec 3<>/dev/tcp/{}/$((10000 + n))) 2>/dev/null; done; echo done",
        tries.script,
        zone::STRANGER
    );
    let own = "unshare --mount --propagation slave /bin/bash -c '\
        mkdir -p /run/egress-agent/events && \
        mount -t tmpfs -o size=64k,mode=0755 none /run/egress-agent/events && exec \"$@\"' full \"$@\"";
    let report = world
        .agent(rules())
        .behind(own)
        .run(&["/bin/bash", "-c", &script])?;
    report.ensure_printed("done")?;
    tries.held(&world)?;
    let last = report.events.last().context("no events")?;
    ensure!(
        last.kind == "stopped" && last.number("denied", "no-rule") >= 3000,
        "{}",
        last.line
    );
    let told = report
        .events
        .iter()
        .any(|event| event.kind == "warning" && event.line.contains("No space left on device"));
    ensure!(
        told,
        "it should tell of the full disk: {}",
        report.outcome.stderr
    );
    Ok(())
}

/// The reader of the ring stands still while a connector is refused and refused.
#[test]
fn the_ring_is_full() -> Result<()> {
    const TRIES: u64 = 60_000;
    let world = World::new()?;
    let probe = world.bin("probe");
    let line = format!("echo up; read line; {probe} burst {TRIES}");
    let mut confined = world
        .agent(policy("faults", &[]))
        .option("--quiet")
        .start(&["/bin/bash", "-c", &line])?;
    confined.printed("up", agent::LIMIT)?;
    confined.agent.stdin()?.write_all(b"\n")?;
    confined.agent.signal(Signal::SIGSTOP)?;
    confined.printed(&format!("refused {TRIES} other 0 "), agent::LIMIT)?;
    confined.agent.signal(Signal::SIGCONT)?;
    let report = confined.wait()?;
    let last = report.events.last().context("no events")?;
    ensure!(
        last.lost.is_some_and(|lost| lost > 0),
        "nothing was lost: {}",
        last.line
    );
    ensure!(last.number("denied", "no-rule") == TRIES, "{}", last.line);
    let denials = report.denials().into_iter();
    let shown: u64 = denials.filter_map(|event| event.count).sum();
    let hidden = last.number("not_shown", "no-rule");
    ensure!(
        shown + hidden == TRIES,
        "{shown} shown, {hidden} hidden: {}",
        last.line
    );
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}

/// A grant that finds no room is no grant; those that are there stay.
#[test]
fn the_table_of_grants_is_full() -> Result<()> {
    let world = World::new()?;
    // Two addresses, one port: two grants.
    let text = policy(
        "faults",
        &["allowed.example:80", "\"*.ingest.sentry.io:80\""],
    );
    let script = "curl -sS http://allowed.example/; echo first $?; \
        curl -sS http://o1.ingest.sentry.io/ 2>&1; echo second $?; \
        curl -sS http://allowed.example/; echo third $?";
    let report = world
        .agent(text)
        .without("")
        .env("EGRESS_TEST_ROOM", "GRANTS=2")
        .run(&["/bin/bash", "-c", script])?;
    for line in ["first 0", "second 6", "third 0"] {
        report.ensure_printed(line)?;
    }
    report.ensure_denied(&Denial::of_name("o1.ingest.sentry.io").because(&["table-full"]))?;
    Ok(())
}

/// A policy that does not fit starts nothing.
#[test]
fn the_tables_of_a_policy_are_full() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let addresses = ["198.51.100.1:80", "198.51.100.2:80"];
    let sockets = ["unix: /run/one.sock", "unix: /run/another.sock"];
    for (room, rules) in [("PREFIXES=1", addresses), ("UNIX_NAMES=1", sockets)] {
        // Without the hooks such a policy is not started for that reason.
        if rules == sockets && kernel::is_before((6, 7)) {
            continue;
        }
        let text = policy("faults", &rules);
        let report = world
            .agent(text)
            .without("")
            .env("EGRESS_TEST_ROOM", room)
            .run(&["true"])?;
        ensure!(
            report.code() == 125 && !started(&report),
            "{room}: {report}"
        );
        let table = room.split('=').next().unwrap_or(room);
        ensure!(report.outcome.stderr.contains(table), "{room}: {report}");
        before.ensure_nothing_new()?;
    }
    Ok(())
}

/// Grants end by the host's boot clock; an agent with another one would write them wrongly.
#[test]
fn a_boot_clock_of_its_own_starts_nothing() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let report = world
        .agent(rules())
        .behind("exec unshare --time --boottime 86400 --fork \"$@\"")
        .run(&["true"])?;
    ensure!(report.code() == 125 && !started(&report), "{report}");
    ensure!(report.outcome.stderr.contains("boot clock"), "{report}");
    before.ensure_nothing_new()
}

/// Descriptors, as a careless service manager limits them.
#[test]
fn few_descriptors_start_nothing_or_all() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let mut fates = Vec::new();
    for limit in [12, 20, 28, 36, 44, 52, 64] {
        let tries = Tries::default();
        let agent = world
            .agent(rules())
            .behind(&format!("ulimit -n {limit}; exec \"$@\""));
        let report = tries.run(agent)?;
        ensure!(
            (report.code() == 0 && started(&report)) || report.code() == 125,
            "{limit}: {report}"
        );
        ensure!(
            report.code() == 0 || !report.outcome.stderr.is_empty(),
            "{report}"
        );
        fates.push(report.code());
        tries.held(&world).with_context(|| limit.to_string())?;
    }
    ensure!(fates.contains(&125), "too many for every limit: {fates:?}");
    recovers(&world, &before, false)
}

/// A memory limit on agent and connector together. The kernel ends who has most.
#[test]
fn memory_runs_out() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let memory = Memory::limited(96 << 20)?;
    let tries = Tries::default();
    let script = format!(
        "{}\npython3 -c 'x = bytearray(400 << 20)' || echo ended by $?; echo on",
        tries.script
    );
    let report = world
        .agent(rules())
        .behind(&memory.line())
        .run(&["/bin/bash", "-c", &script])?;
    ensure!(report.code() == 0, "{report}");
    report.ensure_printed("ended by 137\non")?;
    tries.held(&world)?;
    recovers(&world, &before, false)?;
    drop(memory);

    // So little that the agent itself is refused memory, or ended.
    for limit in [2 << 20, 4 << 20, 6 << 20, 8 << 20, 10 << 20] {
        let memory = Memory::limited(limit)?;
        let tries = Tries::default();
        let report = tries.run(world.agent(rules()).behind(&memory.line()))?;
        tries.held(&world).with_context(|| limit.to_string())?;
        ensure!([0, 125, 137].contains(&report.code()), "{limit}: {report}");
        recovers(&world, &before, before.anything_new_of("faults")?)?;
    }
    Ok(())
}

/// Where memory runs out the kernel ends whoever has most; the agent should be the last.
#[test]
fn the_agent_outlives_its_connector_where_memory_runs_out() -> Result<()> {
    let world = World::alone()?;
    let score = |pid: &str| -> Result<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
        Ok(text.trim().parse()?)
    };
    let own = score("self")?;
    let script = "echo at $(cat /proc/self/oom_score_adj); sleep 99";
    let mut confined = world.agent(rules()).start(&["/bin/bash", "-c", script])?;
    confined.printed(&format!("at {own}\n"), agent::LIMIT)?;
    let agent = score(&confined.agent.pid().to_string())?;
    // Some hosts take from root what it needs for that.
    let lower = "echo -1 >/proc/self/oom_score_adj";
    let mut shell = world.command("sh");
    shell.args(["-c", lower]);
    let may = must(shell, MOMENT * 10).is_ok();
    if may {
        ensure!(agent < own, "agent {agent}, connector {own}");
    } else {
        // Then nothing is left to be had but that it does not stand before its connector.
        ensure!(agent == own, "agent {agent}, connector {own}");
    }
    confined.agent.signal(Signal::SIGTERM)?;
    confined.wait().map(drop)
}

/// A group of the memory controller: a unit's where that is cgroup2's, else of the old kind.
enum Memory {
    Unit(Unit),
    Old(PathBuf),
}

impl Memory {
    fn limited(bytes: u64) -> Result<Self> {
        let root = cgroup2()?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        let (this, file) = if controllers.split_whitespace().any(|name| name == "memory") {
            fs::write(root.join("cgroup.subtree_control"), "+memory")?;
            let unit = Unit::new("egress-test-memory")?.delegated()?;
            (Self::Unit(unit), "memory.max")
        } else {
            let folder = format!("/sys/fs/cgroup/memory/egress-test-{}", std::process::id());
            fs::create_dir(&folder)?;
            (Self::Old(folder.into()), "memory.limit_in_bytes")
        };
        fs::write(this.folder().join(file), bytes.to_string()).context("no memory controller")?;
        Ok(this)
    }

    fn folder(&self) -> &Path {
        match self {
            Self::Unit(unit) => unit.path(),
            Self::Old(folder) => folder,
        }
    }

    /// Puts what follows into the group.
    fn line(&self) -> String {
        unit::line(self.folder())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Self::Old(folder) = self {
            // It stays only where something still runs in it; then the test has failed already.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The server goes, lies and flips while the connector runs.
#[test]
fn the_name_server_turns_bad() -> Result<()> {
    let world = World::new()?;
    let rules = [
        "allowed.example:80",
        "other.example:80",
        "lying.example:9999",
        "flip.example:8080",
        "'*.turn.example:80'",
    ];
    let mut shell = world
        .agent(policy("faults", &rules))
        .option("--start-unresolved")
        .shell()?;
    // Forged answers: to nobody, and no address of theirs is open.
    let said = shell.run("getent hosts lying.example")?;
    ensure!(said.code == 2, "{said:?}");
    let said = shell.run(&format!(
        "curl -sS --max-time 3 http://{}:9999/",
        zone::STRANGER
    ))?;
    ensure!(said.code == 7, "{said:?}");
    // Each answer another address: the one that was answered works, each time.
    for _ in 0..6 {
        let said = shell.run("curl -4 -sS --max-time 5 http://flip.example:8080/")?;
        ensure!(said.code == 0, "{said:?}");
    }
    // The server dies: what is granted goes on, names fail in time, and come back with it.
    let dead = |name: &str, last: u8, behaviour: Behaviour| {
        world.set(Record {
            behaviour,
            ..zone::both(name, last)
        })
    };
    dead("other.example", 21, Behaviour::Dead)?;
    dead("a.turn.example", 21, Behaviour::Dead)?;
    let said = shell.run("curl -sS --max-time 3 http://203.0.113.20/")?;
    ensure!(said.code == 0, "{said:?}");
    let said = shell.run("dig +time=10 +tries=1 other.example")?;
    ensure!(said.text.contains("203.0.113.21"), "{said:?}");
    let said = shell.run("dig +time=12 +tries=1 a.turn.example")?;
    ensure!(said.text.contains("SERVFAIL"), "{said:?}");
    dead("a.turn.example", 21, Behaviour::Normal)?;
    // A failure is told again for a second (RFC 9520 section 3.2).
    let said = shell.run("sleep 1.2; curl -sS --max-time 5 http://a.turn.example/")?;
    ensure!(said.code == 0, "{said:?}");
    shell.end()?;
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}
