//! Comparison by the hundred million: rounds that a seed and a number repeat exactly.

use std::{
    net::IpAddr,
    panic::catch_unwind,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{draw::Random, flow, matcher, names, policy, target::unix};

/// Attempts on one set of drawn tables.
const ATTEMPTS: usize = 256;
/// Attempts on one policy, which costs more to make.
const POLICY_ATTEMPTS: usize = 1_024;

/// How many cases were compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Attempts on drawn tables.
    pub tables: u64,
    /// Attempts on drawn policies.
    pub policies: u64,
    /// Names of unix sockets.
    pub unix: u64,
    /// Names in TLS.
    pub names: u64,
    /// The number of the first round that was not run.
    pub next_round: u64,
}

impl Tally {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.tables + self.policies + self.unix + self.names
    }
}

/// Runs rounds from `first` on until `cases` have been compared, on `jobs` threads, and tells
/// `each` of every thousandth round. Fails with the number of a round in which two readings
/// differ; the panic has said what differs.
pub fn run(
    seed: u64,
    first: u64,
    cases: u64,
    jobs: usize,
    each: &(dyn Fn(u64) + Sync),
) -> Result<Tally, u64> {
    let edges = flow::edges();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let work = || {
        let mut own = Tally::default();
        while done.load(Ordering::Relaxed) < cases {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let compared = catch_unwind(|| round(seed, number, &edges)).map_err(|_| number)?;
            own.tables += compared.tables;
            own.policies += compared.policies;
            own.unix += compared.unix;
            own.names += compared.names;
            let so_far = done.fetch_add(compared.total(), Ordering::Relaxed);
            if number % 1_000 == 999 {
                each(so_far);
            }
        }
        Ok(own)
    };
    let results: Vec<Result<Tally, u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(first)))
            .collect()
    });
    let mut total = Tally::default();
    for result in results {
        let own = result?;
        total.tables += own.tables;
        total.policies += own.policies;
        total.unix += own.unix;
        total.names += own.names;
    }
    total.next_round = next.into_inner();
    Ok(total)
}

/// One round: four sets of tables, one policy, some names.
fn round(seed: u64, number: u64, edges: &[IpAddr]) -> Tally {
    // Rounds lie far apart in the sequence of the generator.
    let mut draw = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
    let mut tally = Tally::default();
    for _ in 0..4 {
        tally.tables += matcher::compare(&mut draw, edges, ATTEMPTS);
    }
    tally.policies += policy::compare(&mut draw, edges, POLICY_ATTEMPTS);
    tally.unix += unix::compare(&mut draw, ATTEMPTS / 2);
    tally.names += names::compare(&mut draw, edges, ATTEMPTS / 2);
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_million_verdicts_are_those_of_the_oracle() {
        let tally = run(1, 0, 500_000, 2, &|_| {});
        assert!(tally.is_ok_and(|tally| tally.total() >= 500_000));
    }
}
