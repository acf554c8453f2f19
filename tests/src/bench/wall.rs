//! What a program notices: durations as ratios to those without any program.

use std::fs;

use anyhow::{Context, Result};

use super::{
    job::Job,
    number::Spread,
    plan::{Extent, Progress},
    report::{Cell, Report, Table},
    scene::{AGAIN, AGENT, FILTER, NAMED, NONE, NOOP, PLANE, Scene, at},
    server::{CLOSE, ECHO, HOLE, SINK},
};

/// Short jobs in many rounds: whatever else runs on the machine takes whole slices of time, and
/// a median passes over those.
const MORE_ROUNDS: usize = 4;
const LANES: [usize; 6] = [NONE, AGAIN, NOOP, FILTER, PLANE, AGENT];

/// What is done, how often in one job, and what one is.
pub(super) fn jobs(extent: &Extent) -> Vec<(&'static str, Job, f64)> {
    let (connects, packets) = (extent.scale(250), extent.scale(5_000));
    let (exchanges, chunks) = (extent.scale(250), extent.scale(32));
    let datagrams = |connected| Job::Datagrams {
        to: at(NAMED, HOLE),
        count: packets,
        size: 64,
        connected,
    };
    let mebibytes = Job::Bulk {
        to: at(NAMED, SINK),
        bytes: u64::from(chunks) << 20,
    };
    let connect = Job::Connect {
        to: at(NAMED, CLOSE),
        count: connects,
    };
    let exchange = Job::Exchange {
        to: at(NAMED, ECHO),
        count: exchanges,
        size: 64,
    };
    vec![
        ("TCP connect and close", connect, connects.into()),
        ("UDP sendto", datagrams(false), packets.into()),
        ("UDP send, connected", datagrams(true), packets.into()),
        ("TCP bulk, per MiB", mebibytes, chunks.into()),
        ("TCP 64 B request and response", exchange, exchanges.into()),
    ]
}

/// Measures; adds a table.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let jobs = jobs(extent);
    let rounds = extent.rounds * MORE_ROUNDS;
    let mut progress = Progress::new("wall time", rounds);
    // [job][round][lane], nanoseconds of one; the first round warms up and is not kept.
    let mut seen = vec![Vec::new(); jobs.len()];
    let mut accounted = 0;
    for round in 0..=rounds {
        accounted += usize::from(accounts());
        for ((_, job, count), seen) in jobs.iter().zip(&mut seen) {
            let mut each = [0.0; LANES.len()];
            for lane in scene.turn(LANES, round) {
                let lane_ref = &mut scene.lanes[lane];
                let done = lane_ref.worker.work(job);
                let done = done.with_context(|| lane_ref.name)?;
                each[lane] = done.total as f64 / count;
            }
            if round > 0 {
                seen.push(each);
            }
        }
        progress.round(round);
    }
    let mut table = Table::new(
        "Wall time, as ratio to no programs (medians of the rounds' ratios)",
        "ratio",
        &[
            "none, us",
            "none again",
            "no-op",
            "systemd-like",
            "data plane",
            "egress-agent",
        ],
    );
    table.note("“none again” is the noise. “data plane” has the programs, “egress-agent” also");
    table.note("the launcher's seccomp filter and Landlock.");
    if accounted > 0 {
        table.note(&format!(
            "Somebody else had bpf_stats on in {accounted} rounds: its cost is in these ratios."
        ));
    }
    for ((about, ..), seen) in jobs.iter().zip(&seen) {
        let mut cells = vec![Cell::of(Spread::of(
            seen.iter().map(|each| each[NONE] / 1e3),
        ))];
        for lane in [AGAIN, NOOP, FILTER, PLANE, AGENT] {
            let ratios = seen.iter().map(|each| each[lane] / each[NONE]);
            cells.push(Cell::ratio(Spread::of(ratios)));
        }
        table.row(about, cells);
    }
    report.tables.push(table);
    Ok(())
}

/// Whether the host keeps an account of all programs, which slows each of their runs; ours is
/// off by now.
fn accounts() -> bool {
    fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() != "0")
}
