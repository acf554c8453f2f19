//! The second layer, at the hooks of the security modules: it stands where the kernel runs such
//! programs, says so where it does not, and stops by itself what the launcher stops otherwise.

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::policy,
    modules::{Expected, expected},
    probe,
    stage::Stage,
    vectors::{Verdict, Wrap, all_of, table, try_some},
    world::World,
};

/// Everything the launcher does.
const LAUNCHER: &str = "descriptors,capabilities,seccomp,landlock,session,ipc,mounts";

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

#[test]
fn descriptors() -> Result<()> {
    by_itself("descriptors")
}

#[test]
fn neighbours() -> Result<()> {
    by_itself("neighbours")
}

#[test]
fn other_sockets() -> Result<()> {
    by_itself("other-sockets")
}

#[test]
fn packet_sockets() -> Result<()> {
    by_itself("packet-sockets")
}

#[test]
fn cgroups_and_namespaces() -> Result<()> {
    by_itself("cgroups-and-namespaces")
}

#[test]
fn host_controls() -> Result<()> {
    by_itself("host-controls")
}

#[test]
fn ipc() -> Result<()> {
    by_itself("ipc")
}

#[test]
fn io_uring() -> Result<()> {
    by_itself("io-uring")
}

#[test]
fn unix_sockets() -> Result<()> {
    by_itself("unix-sockets")
}

#[test]
fn foreign_abis() -> Result<()> {
    by_itself("foreign-abis")
}

/// Tries a family without the launcher's layers, with this layer and without it.
fn by_itself(name: &str) -> Result<()> {
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    let family = probe::FAMILIES.iter().find(|family| family.name == name);
    let family = family.context("no such family")?;
    for as_root in [false, true] {
        let tried = |layers: String| {
            try_some(&world, &stage, &Wrap::Without(layers), all_of(family), as_root)
        };
        let with = tried(LAUNCHER.to_owned())?;
        let without = tried(format!("{LAUNCHER},lsm"))?;
        println!("{}", table(&with));
        for (with, without) in with.iter().zip(&without) {
            let verdicts = (with.verdict(), without.verdict());
            if verdicts.0 != verdicts.1 || verdicts.0 == Verdict::Delivered {
                println!("DIFF {} root {as_root} {verdicts:?} control {} {}", with.vector.name, with.control_arrived(), with.noticed());
            }
        }
    }
    Ok(())
}
