//! What confinement costs: builds the agent as it is installed and measures it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{host, setup, step};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Interleaved rounds of each measurement [default: 15, with --quick 5]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where the numbers go as JSON [default: target/bench/bench.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A look within 40 seconds, not numbers to quote
    #[arg(long)]
    quick: bool,
    /// Only one part: cost, wall, names, denial, agent or burst
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Fail where a bar does not hold
    #[arg(long)]
    check: bool,
}

/// Sets up, builds optimised, and hands over to the tests crate's `bench` program, which runs
/// as root.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::Extent::Everything)?;
    let mut cargo = host::cargo();
    cargo.args(["build", "--release"]);
    cargo.args(["--package", "egress-agent", "--package", "egress-tests"]);
    let why = "the agent and the measurements, optimised";
    step::quiet("build", why, &mut cargo)?;

    let default = host::target().join("bench").join("bench.json");
    let json = options.json.clone().unwrap_or(default);
    // Made here and not by root.
    if let Some(folder) = json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut bench = host::as_root(host::target().join("release/bench"))?;
    bench.arg("--json").arg(json);
    if let Some(rounds) = options.rounds {
        bench.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(only) = &options.only {
        bench.args(["--only", only]);
    }
    for (wanted, flag) in [(options.quick, "--quick"), (options.check, "--check")] {
        if wanted {
            bench.arg(flag);
        }
    }
    step::loud(&mut bench)
}
