//! Builds the eBPF programs and, around them, the agent.

use anyhow::Result;

use crate::{host, setup, step};

/// The agent with switches that take a layer away, for tests alone.
const SWITCHES: &str = "egress-agent-switches";

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

/// Builds every program that the demo and the tests start; answers what cargo said. The
/// selection of packages is that of the tests, so that no dependency is built for each.
pub(crate) fn programs() -> Result<Vec<String>> {
    let mut cargo = host::cargo();
    cargo.args(["build", "--workspace", "--bins"]);
    let why = "the eBPF programs, the agent and the embedded internet";
    let mut lines = step::quiet("build", why, &mut cargo)?;
    // Beside it the agent with switches; the same selection of packages, as above. The feature
    // must not reach the product's own program, so only this one is built with it.
    let mut cargo = host::cargo();
    cargo.args(["build", "--workspace", "--bin", SWITCHES]);
    cargo.args(["--features", "egress-agent/test-switches"]);
    let why = "the agent of the tests, from which layers can be taken away";
    lines.extend(step::quiet("build", why, &mut cargo)?);
    Ok(lines)
}
