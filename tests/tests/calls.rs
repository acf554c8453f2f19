//! Refused system calls: one line each, exact counters, and no way through.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Report, policy},
    event::Event,
    programs,
    world::World,
};
use nix::sys::signal::Signal;

const CALLS: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for number, *arguments in eval(sys.argv[1]):
    result = libc.syscall(number, *arguments)
    print(number, result, os.strerror(ctypes.get_errno()) if result < 0 else 'ok', flush=True)
";

fn python(calls: &str) -> [&str; 4] {
    ["/usr/bin/python3", "-c", CALLS, calls]
}

fn lines<'r>(report: &'r Report, name: &str) -> Vec<&'r Event> {
    let named = |event: &&&Event| event.rest.get("call").is_some_and(|call| call == name);
    report
        .denials()
        .iter()
        .copied()
        .filter(|event| named(&event))
        .collect()
}

/// The counters of the summary are what lines have shown and what they have not.
fn ensure_counted(report: &Report, reason: &str, count: u64) -> Result<()> {
    let stopped = report.events.last().context("no events")?;
    ensure!(
        stopped.number("denied", reason) == count,
        "{reason}: {report}"
    );
    let of_reason = |event: &&&Event| event.reason.as_deref() == Some(reason);
    let denials = report.denials();
    let shown: u64 = denials
        .iter()
        .filter(of_reason)
        .filter_map(|event| event.count)
        .sum();
    let hidden = stopped.number("not_shown", reason);
    ensure!(
        shown + hidden == count,
        "{shown} shown, {hidden} not: {report}"
    );
    Ok(())
}

/// Numbers are those of x86-64 and of the generic table.
#[test]
fn each_refused_call_is_a_line_with_its_name() -> Result<()> {
    let world = World::new()?;
    let calls = format!(
        "[({}, 8, 0), ({}, 16, 1, 0, 0), ({}, 0, 0, 0), ({}, 17, 3, 0), ({}, 0x10000000), ({}, b'/'), \
          ({}, 1, 0, 0, 0, 0)]",
        libc::SYS_io_uring_setup,
        libc::SYS_ptrace,
        libc::SYS_bpf,
        libc::SYS_socket,
        libc::SYS_unshare,
        libc::SYS_chroot,
        libc::SYS_keyctl,
    );
    let report = world.agent(policy("calls", &[])).run(&python(&calls))?;
    ensure!(report.outcome.ok(), "{report}");
    ensure!(
        report.text().matches("Operation not permitted").count() == 6,
        "{report}"
    );
    ensure!(
        report.text().contains("Address family not supported"),
        "{report}"
    );
    for (name, reason) in [
        ("io_uring_setup", "io-uring"),
        ("ptrace", "foreign-process"),
        ("bpf", "system-call"),
        ("socket", "socket-type"),
        ("unshare", "namespace"),
        ("chroot", "namespace"),
        ("keyctl", "kernel-key"),
    ] {
        let found = lines(&report, name);
        let [event] = found.as_slice() else {
            anyhow::bail!("{} lines for {name}: {report}", found.len());
        };
        ensure!(event.reason.as_deref() == Some(reason), "{name}: {report}");
        ensure!(
            event.layer.as_deref() == Some("seccomp"),
            "{name}: {report}"
        );
        let told = event.rest.get("message").map(ToString::to_string);
        ensure!(
            (reason == "namespace") == told.is_some_and(|told| told.contains("--no-sandbox")),
            "{name}: {report}"
        );
        let process = event.process.as_ref().context("no process")?;
        ensure!(
            process.comm.as_deref() == Some("python3"),
            "{name}: {report}"
        );
        ensure!(
            process.exe.is_some(),
            "the process is not the host's: {report}"
        );
    }
    ensure_counted(&report, "namespace", 2)?;
    ensure_counted(&report, "io-uring", 1)
}

/// Runtimes try some calls at each start: that is one line, and an exact number.
#[test]
fn repeats_are_counted_and_not_shown_one_by_one() -> Result<()> {
    let world = World::new()?;
    let calls = format!("[({}, 8, 0)] * 1000", libc::SYS_io_uring_setup);
    let report = world.agent(policy("calls", &[])).run(&python(&calls))?;
    ensure!(
        report.text().matches("not permitted").count() == 1000,
        "{report}"
    );
    ensure!(lines(&report, "io_uring_setup").len() == 1, "{report}");
    ensure_counted(&report, "io-uring", 1000)
}

/// Who is in the way stands still; a call waits, and is refused afterwards.
#[test]
fn a_stopped_agent_lets_nothing_through() -> Result<()> {
    let world = World::new()?;
    let calls = format!("[({}, b'go')]", libc::SYS_chroot);
    let script = format!("echo up; read line; /usr/bin/python3 -c \"$CALLS\" \"{calls}\"");
    let mut confined = world
        .agent(policy("calls", &[]))
        .env("CALLS", CALLS)
        .start(&["/bin/bash", "-c", &script])?;
    confined.printed("up", agent::LIMIT)?;
    confined.agent.signal(Signal::SIGSTOP)?;
    confined.agent.close_stdin();
    thread::sleep(Duration::from_secs(1));
    let said = String::from_utf8_lossy(&confined.agent.stdout()).into_owned();
    ensure!(said.trim() == "up", "{said}");
    confined.agent.signal(Signal::SIGCONT)?;
    let report = confined.wait()?;
    ensure!(
        report.text().contains("Operation not permitted"),
        "{report}"
    );
    ensure_counted(&report, "namespace", 1)
}

/// A program for another machine is ended before it did anything, with one line that says so.
#[test]
fn a_32_bit_program_ends_with_one_line() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let world = World::new()?;
    let program = programs::build_32_bit(&world.path("hello32"))?;
    let free = world.agent(policy("calls", &[])).free().run(&[&program])?;
    free.ensure_printed("hello from 32 bits")?;
    let script = format!("{program}; echo code $?");
    let report = world
        .agent(policy("calls", &[]))
        .run(&["/bin/sh", "-c", &script])?;
    report.ensure_printed("code 137")?;
    ensure!(!report.text().contains("hello"), "{report}");
    ensure!(lines(&report, "int80").len() == 1, "{report}");
    ensure!(
        report.outcome.stderr.contains("use a 64-bit one"),
        "{report}"
    );
    ensure_counted(&report, "foreign-abi", 1)
}

/// A sandbox inside: told what it is and what to do.
#[test]
fn a_sandbox_inside_is_told_why_it_cannot_be() -> Result<()> {
    let world = World::new()?;
    for script in ["unshare -Ur true", "unshare -m true"] {
        let report = world
            .agent(policy("calls", &[]))
            .run(&["/bin/sh", "-c", script])?;
        ensure!(!report.outcome.ok(), "{script}: {report}");
        ensure!(lines(&report, "unshare").len() == 1, "{script}: {report}");
        ensure!(
            report.outcome.stderr.contains("no sandbox inside"),
            "{report}"
        );
    }
    Ok(())
}
