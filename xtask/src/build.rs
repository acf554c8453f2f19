//! Builds the eBPF programs and, around them, the agent.

use std::process::Command;

use anyhow::Result;

use crate::{host, setup, step};

/// What `build` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Optimised, as it is installed
    #[arg(long)]
    release: bool,
}

/// Builds both; the agent's build script sees to the eBPF crate.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::Extent::Build)?;
    let mut cargo = host::cargo();
    cargo.args(["build", "--package", "egress-agent"]);
    if options.release {
        cargo.arg("--release");
    }
    step::loud(&mut cargo)?;
    let profile = if options.release { "release" } else { "debug" };
    println!(
        "built: {}",
        host::target().join(profile).join("egress-agent").display()
    );
    Ok(())
}

/// The command that builds every program that the demo and the tests start. The selection
/// of packages is that of the tests, so that no dependency is built for each of them.
pub(crate) fn programs() -> Command {
    let mut cargo = host::cargo();
    cargo.args(["build", "--workspace", "--bins"]);
    cargo
}
