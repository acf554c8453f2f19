//! The comparison of verdicts with a naive reading's: builds the program optimised and runs it.

use std::thread;

use anyhow::Result;

use crate::{host, setup, step};

/// What `oracle` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Verdicts to compare
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    cases: u64,
    /// Repeats a run; drawn from the clock where it is missing
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The round to begin with, as a failed run names it
    #[arg(long, value_name = "N", default_value_t = 0)]
    round: u64,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
}

impl Options {
    /// What every change must pass, on all processors.
    pub(crate) fn whole() -> Self {
        Self {
            cases: 100_000_000,
            seed: None,
            round: 0,
            jobs: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Builds and hands over.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run(setup::Extent::Build)?;
    let mut cargo = host::cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "egress-oracle"]);
    cargo.args(["--bin", "oracle", "--"]);
    let seed = options.seed.map(|seed| ("--seed", seed));
    let numbers = [
        ("--cases", options.cases),
        ("--round", options.round),
        ("--jobs", options.jobs as u64),
    ];
    for (name, number) in numbers.into_iter().chain(seed) {
        cargo.args([name, &number.to_string()]);
    }
    step::loud(&mut cargo)
}
