//! What tests of faults have in common: a connector that never stops trying, an agent with a
//! fault in it, and the start after that.

use anyhow::{Result, ensure};

use crate::{
    agent::{Agent, Report, policy},
    event::Event,
    leftovers::Leftovers,
    token,
    world::World,
    zone,
};

/// A connector that tries the stranger for as long as it lives, and asks the permitted address.
pub struct Tries {
    /// What the permitted address answers to.
    pub permitted: String,
    /// What the stranger must not hear.
    pub forbidden: String,
    /// The connector, for bash.
    pub script: String,
}

impl Default for Tries {
    /// With tokens of its own.
    fn default() -> Self {
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
}

impl Tries {
    /// Runs it under an agent.
    pub fn run(&self, agent: Agent<'_>) -> Result<Report> {
        agent.run(&["/bin/bash", "-c", &self.script])
    }

    /// Errors where the stranger heard anything until now.
    pub fn held(&self, world: &World) -> Result<()> {
        world.fence()?;
        let heard = world.sightings(&self.forbidden)?;
        ensure!(heard.is_empty(), "the stranger heard {heard:?}");
        let packets = world.packets(zone::STRANGER)?;
        ensure!(packets.is_empty(), "the stranger got {packets:?}");
        Ok(())
    }
}

/// Rules that permit the one address.
pub fn rules() -> String {
    policy("faults", &[&format!("{}:9999", zone::ALLOWED)])
}

/// The agent of test builds, with a fault in it.
pub fn faulty<'w>(world: &'w World, variable: &str, value: &str) -> Agent<'w> {
    world
        .agent(rules())
        .without("")
        .env(&format!("EGRESS_TEST_{variable}"), value)
}

/// A start that finds what another left, and its end.
pub fn recovers(world: &World, before: &Leftovers, left: bool) -> Result<()> {
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    if left {
        let says = |event: &&Event| {
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
