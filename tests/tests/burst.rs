//! A flood of denials is counted to the last one, and holds nothing up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use egress_tests::{agent::policy, world::World, zone};

const COUNT: u64 = 100_000;
const REASON: &str = "no-rule";
/// A denied call never waits for the reader of the events.
const SLOWEST_US: u64 = 500_000;

#[test]
fn a_hundred_thousand_destinations() -> Result<()> {
    let world = World::new()?;
    let probe = world.bin("probe");
    let agent = world
        .agent(policy("burst", &[]))
        .option("--quiet")
        .limit(Duration::from_secs(120));
    let report = agent.run(&[&probe, "burst", &COUNT.to_string()])?;
    report.ensure_printed(&format!("refused {COUNT} other 0 "))?;
    let text = report.text();
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "slowest_us");
    let slowest: u64 = words.nth(1).context("no slowest_us")?.parse()?;
    ensure!(slowest < SLOWEST_US, "one call took {slowest} us");

    let stopped = report.events.iter().find(|event| event.kind == "stopped");
    let stopped =
        stopped.with_context(|| format!("no closing account: {}", report.outcome.stderr))?;
    let counted = stopped.number("denied", REASON);
    ensure!(counted == COUNT, "counted {counted}: {}", stopped.line);
    let shown: u64 = report
        .denials()
        .iter()
        .filter(|event| event.reason.as_deref() == Some(REASON))
        .filter_map(|event| event.count)
        .sum();
    let hidden = stopped.number("not_shown", REASON);
    ensure!(
        shown + hidden == COUNT,
        "shown {shown}, said to be hidden {hidden}: {}",
        stopped.line
    );
    ensure!(shown > 0, "nothing was shown at all");
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    Ok(())
}

#[test]
fn repeats_are_counted_too() -> Result<()> {
    let world = World::new()?;
    let script = format!(
        "for i in {{1..200}}; do curl -s http://{}/; done; true",
        zone::STRANGER
    );
    let report = world
        .agent(policy("repeats", &[]))
        .run(&["/bin/bash", "-c", &script])?;
    let stopped = report.events.iter().find(|event| event.kind == "stopped");
    let stopped = stopped.with_context(|| report.to_string())?;
    ensure!(stopped.number("denied", REASON) == 200, "{}", stopped.line);
    let shown: u64 = report
        .denials()
        .iter()
        .filter_map(|event| event.count)
        .sum();
    let hidden = stopped.number("not_shown", REASON);
    ensure!(
        shown + hidden == 200,
        "shown {shown}, hidden {hidden}: {}",
        stopped.line
    );
    Ok(())
}
