//! Ways out, family by family. `probe list` names them.

use anyhow::Result;
use egress_tests::{probe, vectors::try_all, world::World};

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
