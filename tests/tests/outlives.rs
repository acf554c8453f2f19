//! What confines a connector does not need the agent.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{self, policy},
    leftovers::Leftovers,
    token,
    world::World,
    zone,
};

const WHILE_DEAD: Duration = Duration::from_secs(2);

#[test]
fn a_killed_agent_leaves_its_connector_confined() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let probe = world.bin("probe");
    let (permitted, forbidden) = (token::new(), token::new());
    let script = format!(
        "{probe} drip {}:9999 {permitted} 60 | sed -u s/^/declared-/ & \
         {probe} drip {}:9999 {forbidden} 60 | sed -u s/^/stranger-/; wait",
        zone::ALLOWED,
        zone::STRANGER
    );
    let allow = format!("{}:9999", zone::ALLOWED);
    let mut confined =
        world
            .agent(policy("outlives", &[&allow]))
            .start(&["/bin/bash", "-c", &script])?;
    confined.printed("declared-sent", agent::LIMIT)?;
    confined.printed("stranger-refused", agent::LIMIT)?;

    confined.kill_agent()?;
    let said = confined.agent.stdout().len();
    thread::sleep(WHILE_DEAD);
    ensure!(
        !world.processes()?.is_empty(),
        "the connector ended with its agent"
    );
    let after = confined.agent.stdout();
    let after = String::from_utf8_lossy(&after[said..]).into_owned();
    ensure!(
        after.contains("declared-sent"),
        "declared flows ended: {after}"
    );
    ensure!(after.contains("stranger-refused"), "{after}");
    ensure!(!after.contains("stranger-sent"), "{after}");
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    ensure!(before.anything_new()?, "the test looks at the wrong places");

    // The next start ends what is left of it, and still nothing gets out on the way.
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    before.ensure_nothing_new()?;
    ensure!(
        world.processes()?.is_empty(),
        "left: {:?}",
        world.processes()?
    );
    thread::sleep(Duration::from_millis(500));
    world.fence()?;
    ensure!(world.packets(zone::STRANGER)?.is_empty());
    ensure!(world.sightings(&forbidden)?.is_empty());
    Ok(())
}
