//! The agent itself: its memory, and what starting through it costs.

use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use super::{
    number::Spread,
    plan::{Extent, Progress},
    report::{Bar, Cell, Report, Table},
    scene::{AGENT, NAMED, Scene, agent, at},
    server::CLOSE,
    worker::boot_ns,
};

/// MiB with one connector.
const BAR: f64 = 25.0;

/// Measures; adds a table and a bar.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let pid = scene.lanes[AGENT].worker.pid();
    let memory = status(pid, "VmRSS")?;
    let peak = status(pid, "VmHWM")?;
    let world = &scene.world;
    let events = world.path("starts.jsonl");
    let bench = world.bin("bench");
    let to = at(NAMED, CLOSE).to_string();
    let mut progress = Progress::new("starts", extent.rounds);
    let mut seen = [const { Vec::new() }; 6];
    for round in 0..=extent.rounds {
        let mut plain = world.command("/bin/true");
        let mut first = world.command(&bench);
        first.args(["first", &to]);
        let (plain, plain_cpu) = whole(&mut plain)?;
        let (confined, confined_cpu) = whole(&mut agent(world, &events, &["/bin/true"])?)?;
        let commands = [
            plain,
            confined,
            plain_cpu,
            confined_cpu,
            to_connection(&mut first)?,
            to_connection(&mut agent(world, &events, &[&bench, "first", &to])?)?,
        ];
        if round > 0 {
            for (seen, millis) in seen.iter_mut().zip(commands) {
                seen.push(millis);
            }
        }
        progress.round(round);
    }
    let [
        plain,
        confined,
        plain_cpu,
        confined_cpu,
        first,
        confined_first,
    ] = seen.map(|seen| Cell::of(Spread::of(seen)));
    let mut table = Table::new(
        "Starting, with one name to resolve",
        "ms",
        &["without", "egress-agent run"],
    );
    table.row(
        "a program that ends at once, start to end",
        vec![plain, confined],
    );
    table.row("the same, processor time", vec![plain_cpu, confined_cpu]);
    table.row(
        "start to the first permitted connection",
        vec![first, confined_first],
    );
    let plane = scene.lanes[AGENT].plane.as_ref().context("no programs")?;
    table.note(&format!(
        "Nearly all of it is the kernel's verifier: {} instructions in the programs measured here.",
        plane.verified()?
    ));
    report.tables.push(table);
    let mut table = Table::new("The agent with one connector", "MiB", &["RSS", "highest"]);
    table.row(
        "after the measurements above",
        vec![Cell::plain(Some(memory)), Cell::plain(Some(peak))],
    );
    report.tables.push(table);
    let about = "RSS of the agent, one connector".to_owned();
    report.bars.push(Bar::at_most(about, memory, BAR, "MiB"));
    Ok(())
}

/// A field of `/proc/PID/status` that is in kB, as MiB.
pub(super) fn status(pid: u32, key: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    let kib: f64 = number.with_context(|| format!("no {key}"))?.parse()?;
    Ok(kib / 1024.0)
}

/// Milliseconds from start to end, and of processor time.
pub(super) fn whole(command: &mut Command) -> Result<(f64, f64)> {
    let (start, before) = (Instant::now(), children()?);
    let status = command.stdin(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok((start.elapsed().as_secs_f64() * 1e3, children()? - before))
}

/// Processor time of children that have ended. Milliseconds.
fn children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    Ok(time.num_microseconds() as f64 / 1e3)
}

/// Milliseconds from start to what the command prints, which is the boot clock.
fn to_connection(command: &mut Command) -> Result<f64> {
    let start = boot_ns()?;
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    let then: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok((then - start) as f64 / 1e6)
}
