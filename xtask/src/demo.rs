//! The main job, shown: a connector inside a small embedded internet.

use anyhow::Result;

use crate::{build, host, setup, step};

/// Sets up, builds, and hands over to the tests crate's `demo` program, which runs as root.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Extent::Everything)?;
    build::programs()?;
    step::loud(&mut host::as_root(host::target().join("debug/demo"))?)
}
