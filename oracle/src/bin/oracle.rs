//! Compares verdicts with the oracle's and says how many; the seed repeats a run.

use std::{
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use egress_oracle::run;

/// Compares the verdict function with a naive reading, on drawn tables and policies.
#[derive(Parser)]
#[command(name = "oracle")]
struct Arguments {
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |since| since.as_secs())
    });
    println!("oracle: {} cases, seed {seed}", arguments.cases);
    let started = Instant::now();
    let progress = |done: u64| {
        let seconds = started.elapsed().as_secs_f64();
        println!("oracle: {done} cases in {seconds:.0} s, no difference");
    };
    let (first, cases) = (arguments.round, arguments.cases);
    match run::run(seed, first, cases, arguments.jobs, &progress) {
        Ok(tally) => {
            println!(
                "oracle: {} cases without a difference in {:.1} s, seed {seed}, rounds {first} to \
                 {}: {} on tables, {} on policies, {} names of unix sockets, {} names in \
                 TLS",
                tally.total(),
                started.elapsed().as_secs_f64(),
                tally.next_round,
                tally.tables,
                tally.policies,
                tally.unix,
                tally.names,
            );
            ExitCode::SUCCESS
        }
        Err(round) => {
            eprintln!(
                "oracle: a difference; repeat it with --seed {seed} --round {round} --cases 1"
            );
            ExitCode::FAILURE
        }
    }
}
