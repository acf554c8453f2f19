//! A flood of denials: how fast, and whether every one is accounted for.

use std::fs;

use anyhow::{Context, Result};

use super::{
    agent::status,
    job::Job,
    lane::Process,
    plan::Extent,
    report::{Bar, Cell, Report, Table},
    scene::{Scene, agent},
};
use crate::event;

const REASON: &str = "no-rule";

/// Measures; adds a table and bars.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let count = if extent.quick { 20_000 } else { 100_000 };
    let world = &scene.world;
    let events = world.path("burst.jsonl");
    let words = [&world.bin("bench"), "worker"];
    let mut worker = Process::start(agent(world, &events, &words)?)?;
    eprintln!("burst: {count} refused connects");
    let done = worker.work(&Job::Burst { count })?;
    let peak = status(worker.pid(), "VmHWM")?;
    let ended = worker.end()?;

    let all = event::read(&events)?;
    fs::remove_file(&events)?;
    let stopped = all.iter().find(|event| event.kind == "stopped");
    let stopped = stopped.context("the stream has no closing account")?;
    let counted = stopped.number("denied", REASON);
    let hidden = stopped.number("not_shown", REASON);
    let shown: u64 = all
        .iter()
        .filter(|event| event.kind == "denied" && event.reason.as_deref() == Some(REASON))
        .filter_map(|event| event.count)
        .sum();

    let number = |value: u64| vec![Cell::plain(Some(value as f64))];
    let mut table = Table::new(
        "A burst of refused connects to distinct destinations",
        "",
        &["value"],
    );
    let rate = f64::from(count) / (done.total as f64 / 1e9);
    table.row("refused", number(count.into()));
    table.row("refused each second", vec![Cell::plain(Some(rate.round()))]);
    let slowest = done.each.first().copied().unwrap_or_default();
    table.row("slowest call, us", number(slowest / 1000));
    table.row("counted by the kernel", number(counted));
    table.row("shown in the stream", number(shown));
    table.row("said not to be shown", number(hidden));
    table.row("agent's end after it, ms", number(ended.as_millis() as u64));
    table.row("agent's highest RSS, MiB", vec![Cell::plain(Some(peak))]);
    report.tables.push(table);

    let missed = u64::from(count).abs_diff(counted);
    let unsaid = u64::from(count).abs_diff(shown + hidden);
    let bars = [("counted", missed), ("shown or said to be lost", unsaid)];
    for (what, off) in bars {
        let about = format!("burst: denials that were not {what}");
        report.bars.push(Bar::at_most(about, off as f64, 0.0, ""));
    }
    Ok(())
}
