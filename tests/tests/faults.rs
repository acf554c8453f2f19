//! Whatever breaks, nothing opens, the log says why, and the next start finds its way.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    faults::{Tries, faulty, recovers},
    leftovers::Leftovers,
    world::World,
};

const SWITCH: &str = include_str!("../../egress-agent/src/host/switch.rs");
/// Steps that the launcher takes: the agent outlives those, and clears up by itself.
const LAUNCHER: [&str; 8] = [
    "Joining",
    "Joined",
    "Separated",
    "Mounted",
    "Dropped",
    "Probed",
    "Closed",
    "Filtered",
];
/// After these the agent took the launcher for the connector.
const LET_GO: [&str; 2] = ["Closed", "Filtered"];
/// What is left after these is nothing.
const TRACELESS: [&str; 3] = ["HostChecked", "LeftoversEnded", "Unlocked"];
/// From here on the connector has run.
const RAN: &str = "ConnectorEnded";
/// Steps of every end, that of what a dead agent left included.
const END: &str = "EndBegun";
const MOMENT: Duration = Duration::from_millis(200);

/// Every step that `switch.rs` knows, in their order.
fn steps() -> Result<Vec<&'static str>> {
    let (_, rest) = SWITCH.split_once("pub enum Step {").context("no steps")?;
    let (list, _) = rest.split_once("\n}").context("no end")?;
    let words = list
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"));
    Ok(words
        .filter(|line| !line.is_empty())
        .map(|line| line.trim_end_matches(','))
        .collect())
}

#[test]
fn the_agent_is_killed_at_every_step() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let steps = steps()?;
    let ran = steps.iter().position(|step| *step == RAN).context(RAN)?;
    for (number, step) in steps.iter().enumerate() {
        let tries = Tries::default();
        let report = tries.run(faulty(&world, "KILL_AT", step))?;
        let at = || format!("killed at {step}: {report}");
        let of_launcher = LAUNCHER.contains(step);
        let expected = if of_launcher && !LET_GO.contains(step) {
            125
        } else {
            137
        };
        ensure!(report.code() == expected, "{}", at());
        thread::sleep(MOMENT);
        tries.held(&world).with_context(at)?;
        if of_launcher {
            before.ensure_nothing_new().with_context(at)?;
            continue;
        }
        let left = before.anything_new_of("faults")?;
        ensure!(left != TRACELESS.contains(step), "{}", at());
        if number >= ran {
            let asked = format!("ok {}\nstranger refused", tries.permitted);
            ensure!(report.text().contains(&asked), "{}", at());
        }
        recovers(&world, &before, left).with_context(at)?;
        tries.held(&world).with_context(at)?;
    }
    Ok(())
}

/// So is the one that clears up after it.
#[test]
fn the_next_agent_is_killed_while_it_clears_up() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let steps = steps()?;
    let end = steps.iter().position(|step| *step == END).context(END)?;
    for step in &steps[end..] {
        let tries = Tries::default();
        let first = tries.run(faulty(&world, "KILL_AT", "ConnectorEnded"))?;
        ensure!(first.code() == 137, "{first}");
        let second = faulty(&world, "KILL_AT", step).run(&["true"])?;
        ensure!(second.code() == 137, "killed at {step}: {second}");
        thread::sleep(MOMENT);
        tries
            .held(&world)
            .with_context(|| format!("killed at {step}"))?;
        recovers(&world, &before, *step != "Unlocked").with_context(|| (*step).to_owned())?;
        tries.held(&world)?;
    }
    Ok(())
}
