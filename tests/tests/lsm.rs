//! The second layer, at the hooks of the security modules: it stands where the kernel runs such
//! programs, says so where it does not, and stops by itself what the launcher stops otherwise.

use anyhow::{Result, ensure};
use egress_tests::{
    agent::policy,
    modules::{Expected, expected},
    world::World,
};

#[test]
fn a_start_says_whether_the_layer_stands() -> Result<()> {
    let world = World::new()?;
    let report = world.agent(policy("modules", &[])).run(&["/bin/true"])?;
    let warning = report.events.iter().find(|event| {
        event.kind == "warning" && event.rest.get("topic").is_some_and(|topic| topic == "lsm")
    });
    println!("{expected:?}: {report}", expected = expected());
    let says = |text: &str| warning.is_some_and(|event| event.line.contains(text));
    let right = match expected() {
        Expected::Fires => warning.is_none(),
        Expected::Silent => says("attached but does not fire"),
        Expected::Absent => says("no second layer"),
        Expected::Unknown => true,
    };
    ensure!(right, "not {:?}: {report}", expected());
    Ok(())
}
