//! The second layer, at the hooks of the security modules: it stands where the kernel runs such
//! programs, says so where it does not, and stops by itself what the launcher stops otherwise.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{LIMIT, Report, policy},
    modules::{Expected, expected},
    probe,
    process::patience,
    stage::Stage,
    vectors::{Row, Verdict, Wrap, table, try_some},
    world::World,
};

/// Everything the launcher does.
const LAUNCHER: &str = "descriptors,capabilities,seccomp,landlock,session,ipc,mounts,processes,\
                        devices,stdio";

/// Ways out that this layer stops without the launcher, whoever takes them.
const EVERYBODY: &[&str] = &[
    "scm-rights-stdin",
    "pidfd-getfd",
    "proc-fd-pipe",
    "process-vm-writev",
    "proc-mem",
    "ptrace",
    "netlink-user",
    "keyring",
];
/// The same for those that only root can take.
const ROOT: &[&str] = &[
    "packet",
    "packet-raw",
    "packet-bypass",
    "packet-ring",
    "packet-old",
    "cgroup-root",
    "cgroup-sibling",
    "cgroup-clone",
    "tun",
    "bpf-load",
    "bpf-objects",
    "kernel-memory",
    "init-namespaces",
    "init-files",
];

#[test]
fn a_start_says_whether_the_layer_stands() -> Result<()> {
    let world = World::new()?;
    let report = world.agent(policy("modules", &[])).run(&["/bin/true"])?;
    let says = |text: &str| missing(&report).is_some_and(|line| line.contains(text));
    let right = match expected() {
        Expected::Fires => stands(&report),
        Expected::Silent => says("attached but does not fire"),
        Expected::Absent => !stands(&report),
        Expected::Unknown => true,
    };
    ensure!(right, "not {:?}: {report}", expected());
    Ok(())
}

#[test]
fn ways_of_everybody_are_stopped_without_the_launcher() -> Result<()> {
    by_itself(EVERYBODY, false)
}

#[test]
fn ways_of_root_are_stopped_without_the_launcher() -> Result<()> {
    by_itself(&[EVERYBODY, ROOT].concat(), true)
}

/// A socket that no other hook sees: refused, reported and counted; only reported in audit mode;
/// still refused when the agent is dead.
#[test]
fn a_refusal_is_reported_and_outlives_the_agent() -> Result<()> {
    let world = World::new()?;
    let attempt = "import socket
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2)
    print('made', flush=True)
except OSError as error:
    print('refused', error.errno, flush=True)
";
    let agent = |option: Option<&str>| {
        let agent = world.agent(policy("modules", &[])).without(LAUNCHER);
        match option {
            Some(option) => agent.option(option),
            None => agent,
        }
    };
    let report = agent(None).run(&["/usr/bin/python3", "-c", attempt])?;
    if !stands(&report) {
        ensure!(expected() != Expected::Fires, "it does not stand: {report}");
        return report.ensure_printed("made");
    }
    report.ensure_printed("refused 1")?;
    let stopped = report.events.iter().find(|event| event.kind == "stopped");
    let counted = stopped.map(|event| event.number("denied", "socket-type"));
    ensure!(counted == Some(1), "not counted once: {report}");
    let seen = |report: &Report, kind: &str| {
        report
            .events
            .iter()
            .any(|event| event.kind == kind && event.line.contains("\"layer\":\"lsm\""))
    };
    ensure!(seen(&report, "denied"), "not reported: {report}");

    let report = agent(Some("--audit")).run(&["/usr/bin/python3", "-c", attempt])?;
    report.ensure_printed("made")?;
    ensure!(seen(&report, "would-deny"), "not reported: {report}");

    // Its parent is the agent.
    let orphan = format!(
        "import os,time\nprint('up', flush=True)\nagent = os.getppid()\nwhile os.getppid() == agent: time.sleep(0.01)\n{attempt}"
    );
    let mut confined = agent(None).start(&["/usr/bin/python3", "-c", &orphan])?;
    confined.printed("up", LIMIT)?;
    confined.kill_agent()?;
    let end = Duration::from_secs(10) * patience();
    let began = std::time::Instant::now();
    let said = loop {
        let said = String::from_utf8_lossy(&confined.agent.stdout()).into_owned();
        if said.contains("made") || said.contains("refused") || began.elapsed() > end {
            break said;
        }
        thread::sleep(Duration::from_millis(20));
    };
    ensure!(said.contains("refused 1"), "the agent is dead: {said}");
    // The next start ends what was left, and works.
    let report = world.agent(policy("modules", &[])).run(&["/bin/true"])?;
    ensure!(report.outcome.ok() && stands(&report), "{report}");
    Ok(())
}

/// Tries vectors without the launcher's layers, with this layer and without it.
fn by_itself(names: &[&str], as_root: bool) -> Result<()> {
    let world = World::new()?;
    let stands = {
        let report = world.agent(policy("modules", &[])).run(&["/bin/true"])?;
        stands(&report)
    };
    ensure!(stands || expected() != Expected::Fires, "it does not stand");
    let stage = Stage::new(&world)?;
    let vectors = || {
        let all = probe::FAMILIES
            .iter()
            .flat_map(egress_tests::vectors::all_of);
        let chosen = all.filter(|(_, vector)| names.contains(&vector.name));
        chosen.collect::<Vec<_>>()
    };
    ensure!(vectors().len() == names.len(), "a vector is not there");
    let tried = |layers: &str| {
        let wrap = Wrap::Without(layers.to_owned());
        try_some(&world, &stage, &wrap, vectors(), as_root)
    };
    let without = tried(&format!("{LAUNCHER},lsm"))?;
    // Without Landlock some are known to be open.
    let open = |row: &Row| {
        use Verdict::{Delivered, Limit, NotApplicable};
        matches!(row.verdict(), Delivered | Limit | NotApplicable)
    };
    let shut: Vec<&Row> = without.iter().filter(|row| !open(row)).collect();
    ensure!(
        shut.is_empty(),
        "something else stops these:\n{}",
        table(shut)
    );
    let delivered = without
        .iter()
        .filter(|row| row.verdict() == Verdict::Delivered);
    ensure!(delivered.count() > names.len() / 2, "{}", table(&without));
    if !stands {
        return Ok(());
    }
    let with = tried(LAUNCHER)?;
    println!("{}", table(&with));
    let bad: Vec<&Row> = with.iter().filter(|row| !row.holds()).collect();
    ensure!(bad.is_empty(), "these get out:\n{}", table(bad));
    Ok(())
}

fn stands(report: &Report) -> bool {
    report.outcome.ok()
        && report.events.iter().any(|event| event.kind == "layers")
        && missing(report).is_none()
}

/// Why the layer is missing, as the start says it.
fn missing(report: &Report) -> Option<String> {
    let line = report.events.iter().find(|event| event.kind == "layers")?;
    let missing = line.rest.get("missing")?.as_array()?;
    let layer = missing.iter().find(|layer| layer["layer"] == "lsm")?;
    Some(layer["why"].to_string())
}
