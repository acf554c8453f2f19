//! A connector stays in the unit that its agent was started in, where the unit was given that part
//! of the hierarchy, and is confined there as anywhere.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use egress_tests::{
    agent,
    faults::{Tries, recovers, rules},
    leftovers::Leftovers,
    unit::{self, Unit},
    world::{USER, World},
};
use nix::unistd::{Uid, chown};

const WHERE: &str = "sed -n s/^0::/at/p /proc/self/cgroup\n";

/// The folder's name as a program inside sees it.
fn seen(unit: &Unit) -> String {
    let name = unit.path().file_name().unwrap_or_default();
    format!("at/{}/egress-agent/faults-", name.to_string_lossy())
}

/// Everything that is not a file of the kernel's.
fn groups(folder: &Path) -> Result<usize> {
    let entries = fs::read_dir(folder)?;
    Ok(entries.flatten().filter(|at| at.path().is_dir()).count())
}

#[test]
fn a_connector_stays_in_a_unit_that_was_given_its_groups() -> Result<()> {
    let world = World::alone()?;
    let unit = Unit::new("egress-test-kept")?.delegated()?;
    let tries = Tries::default();
    let script = format!("{WHERE}{}", tries.script);
    let agent = world.agent(rules()).behind(&unit.line());
    let report = agent.run(&["/bin/bash", "-c", &script])?;
    ensure!(report.code() == 0, "{report}");
    report.ensure_printed(&seen(&unit))?;
    report.ensure_printed(&tries.permitted)?;
    report.ensure_printed("stranger refused")?;
    tries.held(&world)?;
    ensure!(groups(unit.path())? == 0, "left in {:?}", unit.path());
    Ok(())
}

/// As with `DelegateSubgroup=`: the agent is in a group below the unit's.
#[test]
fn the_agent_may_be_in_a_group_of_the_units_own() -> Result<()> {
    let world = World::alone()?;
    let unit = Unit::new("egress-test-below")?.delegated()?;
    let below = unit.path().join("main");
    fs::create_dir(&below)?;
    let agent = world.agent(rules()).behind(&unit::line(&below));
    let report = agent.run(&["/bin/bash", "-c", WHERE]);
    fs::remove_dir(&below)?;
    report?.ensure_printed(&seen(&unit))
}

#[test]
fn units_that_others_can_change_are_not_used() -> Result<()> {
    let world = World::alone()?;
    let mine = Unit::new("egress-test-plain")?;
    let given = Unit::new("egress-test-users")?.delegated()?;
    let user = Some(Uid::from_raw(USER));
    chown(&given.path().join("cgroup.procs"), user, None)?;
    for unit in [mine, given] {
        let agent = world.agent(rules()).behind(&unit.line());
        let report = agent.run(&["/bin/bash", "-c", WHERE])?;
        report.ensure_printed("at/egress-agent/faults-")?;
    }
    Ok(())
}

/// The next start is in no unit, and knows nothing but the instance's name.
#[test]
fn what_a_dead_agent_left_in_a_unit_is_ended() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    let unit = Unit::new("egress-test-dead")?.delegated()?;
    let tries = Tries::default();
    let script = format!("{}\necho up; sleep 99", tries.script);
    let agent = world.agent(rules()).behind(&unit.line());
    let mut confined = agent.start(&["/bin/bash", "-c", &script])?;
    confined.printed("up", agent::LIMIT)?;
    confined.hold_init()?;
    confined.kill_agent()?;
    ensure!(
        !world.processes()?.is_empty(),
        "the connector ended with its agent"
    );
    tries.held(&world)?;
    recovers(&world, &before, true)?;
    tries.held(&world)?;
    ensure!(groups(unit.path())? == 0, "left in {:?}", unit.path());
    Ok(())
}
