//! The daemon may end at any moment; a connector ends with its caller and not with the daemon.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use egress_tests::{
    daemon::{OTHER_USER, own_policy},
    leftovers::Leftovers,
    world::{USER, World},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ALLOWED: &str = "http://203.0.113.20:8080/";
const OTHER: &str = "http://203.0.113.21:8080/";
const NAMED: &str = "https://allowed.example/";

#[test]
fn a_connector_outlives_its_daemon_and_stays_confined() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let text = own_policy("first", &["203.0.113.20:8080", "allowed.example:443"]);
    let mut daemon = world.daemon(&[("first", &text)])?;
    let mut shells = vec![daemon.shell(USER, "first")?, daemon.shell(USER, "first")?];
    for shell in &mut shells {
        ensure!(shell.reaches(ALLOWED)? && !shell.reaches(OTHER)? && shell.reaches(NAMED)?);
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        daemon.end(signal)?;
        for shell in &mut shells {
            ensure!(shell.reaches(ALLOWED)?, "what stands in the kernel goes on");
            ensure!(!shell.reaches(OTHER)?, "{signal}: open without the daemon");
            ensure!(!shell.reaches(NAMED)?, "names are closed without it");
        }
        daemon.start()?;
        for shell in &mut shells {
            ensure!(
                !shell.reaches(OTHER)? && shell.reaches(ALLOWED)?,
                "with the next one"
            );
        }
        let rows = daemon.ps(USER)?;
        let orphaned = rows.iter().filter(|row| row["state"] == "orphaned").count();
        ensure!(orphaned == shells.len(), "{rows:?}");
        ensure!(daemon.ps(OTHER_USER)?.is_empty());
        ensure!(daemon.run(OTHER_USER, &["stop", "first"])?.code() == 125);
        // The new one serves as the first one did.
        ensure!(
            daemon
                .exec(USER, "first", &format!("curl -sS -o /dev/null {NAMED}"))?
                .ok()
        );
    }
    // Exit codes come from the init, whoever is daemon.
    let shell = shells.pop();
    let code = shell.map(|mut shell| {
        drop(shell.say("trap 'exit 9' EXIT"));
        shell.end()
    });
    ensure!(matches!(code, Some(Ok(9))), "{code:?}");
    ensure!(daemon.run(USER, &["stop", "first"])?.ok());
    for shell in &mut shells {
        ensure!(shell.wait()? == 128 + 9);
    }
    daemon.wait_for(USER, 0)?;
    daemon.end(Signal::SIGTERM)?;
    // What is left of the earlier ones ends with the next start.
    daemon.start()?;
    daemon.end(Signal::SIGTERM)?;
    before.ensure_nothing_new()
}

#[test]
fn a_connector_ends_with_its_caller() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let mut daemon = world.daemon(&[("first", &own_policy("first", &[]))])?;
    for with_daemon in [true, false] {
        let mut shell = daemon.shell(USER, "first")?;
        shell.say("sleep 1000 & setsid sleep 1000 & true")?;
        let alone = world.processes()?.len();
        if !with_daemon {
            daemon.end(Signal::SIGKILL)?;
        }
        kill(Pid::from_raw(shell.pid()), Signal::SIGKILL)?;
        let end = Instant::now() + Duration::from_secs(10);
        while world.processes()?.len() > alone.saturating_sub(4) {
            ensure!(
                Instant::now() < end,
                "daemon {with_daemon}: {:?} of {alone}",
                world.processes()?
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
    daemon.start()?;
    daemon.end(Signal::SIGTERM)?;
    before.ensure_nothing_new()
}
