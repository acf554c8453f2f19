//! What `run` passes on, how it ends, and that bad input starts nothing and leaves nothing.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    agent::{self, policy, unconfined},
    leftovers::Leftovers,
    process::{self, Outcome},
    world::World,
    zone,
};
use nix::sys::signal::Signal;

/// personality(2): the kernel calls itself 2.6.60 and more to what is started so.
const OLD_KERNEL: &str = "exec setarch --uname-2.6 --";
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn the_connectors_own_code() -> Result<()> {
    let world = World::new()?;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 125", 125),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        let report = world
            .agent(policy("codes", &[]))
            .run(&["/bin/sh", "-c", script])?;
        ensure!(report.code() == code, "{script}: {report}");
        // The agent's own failures have codes of their own, one of which is 125: that the
        // connector ran, and how it ended, the stream says.
        let kinds: Vec<&str> = report
            .events
            .iter()
            .map(|event| event.kind.as_str())
            .collect();
        ensure!(kinds.contains(&"started"), "{script}: {report}");
        let stopped = report.events.last().context("no events")?;
        let (word, told) = if script.starts_with("exit") {
            ("code", code)
        } else {
            ("signal", code - 128)
        };
        ensure!(
            stopped.kind == "stopped"
                && stopped.number("exit", word) == u64::from(told.unsigned_abs()),
            "{script}: {report}"
        );
    }
    Ok(())
}

#[test]
fn programs_that_cannot_start() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let plain = world.path("plain");
    fs::write(&plain, "not a program")?;
    let plain = plain.display().to_string();
    for (program, code) in [
        ("/nowhere/at/all", 127),
        ("no-such-command-anywhere", 127),
        (plain.as_str(), 126),
        ("/etc", 126),
    ] {
        let report = world.agent(policy("codes", &[])).run(&[program])?;
        ensure!(report.code() == code, "{program}: {report}");
        ensure!(
            report.outcome.stderr.contains(program),
            "it should name {program}: {report}"
        );
        ensure!(report.outcome.stdout.is_empty(), "{report}");
        before.ensure_nothing_new()?;
    }
    Ok(())
}

/// Such as ping on many hosts. The kernel refuses to start one whose capabilities nobody here can have
/// (`security/commoncap.c` `bprm_caps_from_vfs_caps`).
#[test]
fn a_program_with_capabilities_says_why_it_does_not_start() -> Result<()> {
    let world = World::new()?;
    let program = world.path("capable");
    fs::copy("/bin/true", &program)?;
    let run = || {
        world
            .agent(policy("codes", &[]))
            .run(&[&program.display().to_string()])
    };
    let report = run()?;
    ensure!(report.code() == 0, "the control: {report}");
    // struct vfs_cap_data, revision 2, effective: CAP_NET_RAW (`include/uapi/linux/capability.h`).
    let script = "import os, struct, sys\n\
                  data = struct.pack('<5I', 0x02000001, 1 << 13, 0, 0, 0)\n\
                  os.setxattr(sys.argv[1], 'security.capability', data)";
    let set = Command::new("python3")
        .args(["-c", script])
        .arg(&program)
        .status()?;
    ensure!(set.success(), "{set}");
    let report = run()?;
    ensure!(report.code() == 126, "{report}");
    ensure!(report.outcome.stderr.contains("capabilities"), "{report}");
    Ok(())
}

#[test]
fn every_byte_passes_unchanged() -> Result<()> {
    let world = World::new()?;
    let bytes: Vec<u8> = (0..1_000_003u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut confined = world.agent(policy("bytes", &[])).start(&["cat"])?;
    // The harness reads standard output all the time, so this cannot block for good.
    confined.agent.stdin()?.write_all(&bytes)?;
    let report = confined.wait()?;
    ensure!(report.outcome.ok(), "{}", report.outcome.stderr);
    ensure!(
        report.outcome.stdout == bytes,
        "{} bytes came back",
        report.outcome.stdout.len()
    );
    Ok(())
}

#[test]
fn standard_output_is_the_connectors_alone() -> Result<()> {
    let world = World::new()?;
    let script = format!(
        "curl -sS http://{}/ 2>&1 >/dev/null | cat >&2; echo only this",
        zone::STRANGER
    );
    let report = world
        .agent(policy("quiet", &[]))
        .run(&["/bin/bash", "-c", &script])?;
    ensure!(report.outcome.stdout == b"only this\n", "{report}");
    ensure!(
        report.outcome.stderr.contains(&zone::STRANGER.to_string()),
        "no denial line: {report}"
    );
    let report = world
        .agent(policy("quiet", &[]))
        .option("--quiet")
        .run(&["true"])?;
    ensure!(report.outcome.stderr.is_empty(), "{report}");
    Ok(())
}

#[test]
fn signals_are_passed_on() -> Result<()> {
    let world = World::new()?;
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGUSR1, "USR1"),
    ] {
        let script =
            format!("trap 'echo got {name}; exit 3' {name}; echo up; while :; do sleep 0.05; done");
        let mut confined =
            world
                .agent(policy("signals", &[]))
                .start(&["/bin/bash", "-c", &script])?;
        confined.printed("up", agent::LIMIT)?;
        confined.agent.signal(signal)?;
        let report = confined.wait()?;
        ensure!(
            report.code() == 3 && report.text().contains(&format!("got {name}")),
            "{name}: {report}"
        );
    }
    Ok(())
}

#[test]
fn what_the_connector_leaves_running_ends_with_it() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let script = "setsid sleep 600 >/dev/null 2>&1 & nohup sleep 601 >/dev/null 2>&1 & exit 4";
    let report = world
        .agent(policy("daemons", &[]))
        .run(&["/bin/bash", "-c", script])?;
    ensure!(report.code() == 4, "{report}");
    before.ensure_nothing_new()?;
    ensure!(
        world.processes()?.is_empty(),
        "left: {:?}",
        world.processes()?
    );
    Ok(())
}

/// A policy file that is not one.
fn bad_policies(world: &World) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut all = Vec::new();
    let mut add = |what: &'static str, bytes: &[u8]| -> Result<()> {
        let path = world.path("bad.yaml");
        fs::write(&path, bytes)?;
        all.push((what, path));
        Ok(())
    };
    add("empty", b"")?;
    add("blank", b"\n\n# nothing\n")?;
    add(
        "binary",
        &(0..=255u8).cycle().take(4096).collect::<Vec<u8>>(),
    )?;
    add("not a mapping", b"- version: 1\n")?;
    add("unknown key", b"version: 1\nconnector: x\nalow: []\n")?;
    add("no version", b"connector: x\nallow: []\n")?;
    add(
        "duplicate key",
        b"version: 1\nconnector: x\nconnector: y\nallow: []\n",
    )?;
    add("port", policy("x", &["allowed.example:70000"]).as_bytes())?;
    add("bare star", policy("x", &["\"*:443\""]).as_bytes())?;
    add(
        "NUL",
        b"version: 1\nconnector: x\nallow:\n  - \"allowed.example\\0.evil.example:443\"\n",
    )?;
    let big = format!(
        "version: 1\nconnector: x\nallow:\n{}",
        "  - allowed.example:443\n".repeat(450_000)
    );
    ensure!(big.len() > 10 << 20);
    add("10 MiB", big.as_bytes())?;
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![below; 9].join(", ")
        ));
    }
    bomb.push_str("version: 1\nconnector: x\nallow: *a9\n");
    add("alias bomb", bomb.as_bytes())?;
    all.push(("missing", world.dir().join("no-such-file.yaml")));
    all.push(("a folder", world.dir().to_owned()));
    Ok(all)
}

#[test]
fn bad_policies_start_nothing() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    for (what, file) in bad_policies(&world)? {
        let outcome = start_marker(&world, what, |marker| {
            let agent = world.agent(String::new()).limit(LIMIT);
            Ok(agent
                .start_with_file(&file, &["touch", marker])?
                .wait()?
                .outcome)
        })?;
        ensure!(outcome.code() == 125, "{what}: {outcome:?}");
        ensure!(!outcome.stderr.trim().is_empty(), "{what}: no message");
        ensure!(
            outcome.stderr.len() < 20_000,
            "{what}: {} bytes of message",
            outcome.stderr.len()
        );
        ensure!(
            outcome.took < Duration::from_secs(10),
            "{what}: {:?}",
            outcome.took
        );
        before.ensure_nothing_new()?;
    }
    Ok(())
}

#[test]
fn bad_hosts_start_nothing() -> Result<()> {
    if unconfined() {
        anyhow::bail!("it is about the agent alone");
    }
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let file = world.path("policy.yaml");
    fs::write(&file, policy("hosts", &["allowed.example:80"]))?;
    let hide_cgroup2 =
        "for m in $(awk '$3 == \"cgroup2\" {print $2}' /proc/mounts); do umount -l $m; done";
    let read_only_bpffs = "umount -l /sys/fs/bpf; mount -t tmpfs -o ro none /sys/fs/bpf && mount -o bind,ro /sys/fs/bpf /sys/fs/bpf";
    let cases = [
        (
            "no cgroup2",
            format!("{hide_cgroup2}; exec \"$@\""),
            "cgroup",
        ),
        (
            "no bpffs",
            format!(
                "{read_only_bpffs}; exec capsh --drop=cap_sys_admin -- -c 'exec \"$0\" \"$@\"' \"$@\""
            ),
            "bpf",
        ),
        (
            "no root",
            "exec setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"".to_owned(),
            "root",
        ),
        (
            "an old kernel",
            format!("{OLD_KERNEL} \"$@\""),
            "is too old: the data plane needs 5.10 or newer",
        ),
    ];
    for (what, script, word) in cases {
        let outcome = start_marker(&world, what, |marker| {
            let mut command = world.command("unshare");
            command.args([
                "--mount",
                "--propagation",
                "private",
                "/bin/bash",
                "-c",
                &script,
                "case",
            ]);
            command.arg(world.bin("egress-agent"));
            command
                .args(["run", "--user", "65534", "--policy"])
                .arg(&file)
                .args(["--", "touch", marker]);
            process::run(command, LIMIT)
        })?;
        ensure!(outcome.code() == 125, "{what}: {outcome:?}");
        ensure!(
            outcome.stderr.to_lowercase().contains(word),
            "{what} should speak of {word}: {outcome:?}"
        );
        before.ensure_nothing_new()?;
    }
    Ok(())
}

#[test]
fn doctor_names_a_kernel_that_is_too_old() -> Result<()> {
    let world = World::alone()?;
    let mut command = world.command("/bin/sh");
    command.args(["-c", &format!("{OLD_KERNEL} \"$@\""), "case"]);
    command.arg(world.bin("egress-agent")).arg("doctor");
    let outcome = process::run(command, LIMIT)?;
    let text = outcome.text();
    let row = text.lines().find(|line| line.contains(" kernel "));
    ensure!(
        row.is_some_and(|row| row.starts_with("missing") && row.contains("too old")),
        "{outcome:?}"
    );
    // Whoever asks whether it can run here must not read further than the code.
    ensure!(outcome.code() == 1, "{outcome:?}");
    Ok(())
}

#[test]
fn a_name_without_an_address_starts_nothing_where_the_policy_is_strict() -> Result<()> {
    let world = World::new()?;
    let before = Leftovers::now()?;
    let lenient = policy("names", &["gone.example:80"]);
    let strict = format!("{lenient}start: strict\n");
    let names = || world.agent(strict.clone());
    let outcome = start_marker(&world, "a name without an address", |marker| {
        Ok(names().run(&["touch", marker])?.outcome)
    })?;
    ensure!(outcome.code() == 125, "{outcome:?}");
    ensure!(outcome.stderr.contains("gone.example"), "{outcome:?}");
    before.ensure_nothing_new()?;
    let report =
        names()
            .option("--start-unresolved")
            .run(&["curl", "-sS", "http://gone.example/"])?;
    ensure!(report.code() == 6, "{report}");
    // Without a word in the policy, one name that is gone keeps nobody from the others.
    let report = world.agent(lenient).run(&["true"])?;
    ensure!(report.code() == 0, "{report}");
    ensure!(
        report
            .outcome
            .stderr
            .contains("unresolved  names         gone.example"),
        "{report}"
    );
    Ok(())
}

/// Gives the run a path to make; errors if it was made.
fn start_marker(
    world: &World,
    what: &str,
    run: impl FnOnce(&str) -> Result<Outcome>,
) -> Result<Outcome> {
    let marker = world.dir().join("home").join("started");
    let outcome = run(&marker.display().to_string())?;
    ensure!(
        !exists(&marker),
        "{what}: the connector was started: {outcome:?}"
    );
    Ok(outcome)
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
