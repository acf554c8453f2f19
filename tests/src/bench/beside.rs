//! This build beside another one: what a change costs, in one run and on the same traffic.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};

use super::{
    agent::whole,
    cost,
    lane::{Lane, Process},
    number::Spread,
    plan::{Extent, Progress},
    plane::{Account, Plane},
    report::{Bar, Cell, Report, Table},
    scene::{self, AGENT, CONNECTOR, Scene},
    wall,
};

/// Established packets, connects and what a program notices of them may cost so much more.
const BAR: f64 = 1.02;
/// A start may take so much longer. Milliseconds.
const START_BAR: f64 = 10.0;
/// A bar on a median needs more rounds than a table.
const MORE_ROUNDS: usize = 4;

/// What a program notices, and the programs' account.
type Seen = Vec<(f64, f64)>;

/// Measures; adds tables and bars.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let other = extent.beside.as_deref().context("--beside FILE")?;
    let lane = other_lane(scene, other)?;
    let place = scene.lanes.len();
    scene.lanes.push(lane);
    account(scene, place, extent, report)?;
    time(scene, place, extent, report)?;
    scene.lanes.pop();
    starts(scene, other, extent, report)
}

/// A connector of the other build.
fn other_lane(scene: &Scene, program: &Path) -> Result<Lane> {
    let world = &scene.world;
    let words = [&*world.bin("bench"), "worker"];
    let command = scene::agent_of(program, world, &world.path("beside.jsonl"), &words)?;
    let worker = Process::start(command)?;
    let plane = Plane::of_agent(&format!("{CONNECTOR}-{}-", worker.pid()))?;
    Ok(Lane {
        name: "the other build",
        worker,
        plane: Some(plane),
    })
}

/// By the kernel's account of each program.
fn account(scene: &mut Scene, other: usize, extent: &Extent, report: &mut Report) -> Result<()> {
    let _on = Account::open()?;
    let jobs = cost::jobs(extent);
    let rounds = extent.rounds * MORE_ROUNDS;
    let mut progress = Progress::new("cost of each program beside the other build's", rounds);
    let mut seen: BTreeMap<(usize, &'static str), Seen> = BTreeMap::new();
    for round in 0..=rounds {
        for (job, what) in jobs.iter().enumerate() {
            let mut each = [const { BTreeMap::new() }; 2];
            for place in scene.turn([0, 1], round) {
                each[place] = cost::one(scene, [other, AGENT][place], what)?;
            }
            let [before, now] = each;
            for (hook, now) in now {
                if round > 0 {
                    let before = before.get(hook).copied().unwrap_or(f64::NAN);
                    seen.entry((job, hook)).or_default().push((before, now));
                }
            }
        }
        progress.round(round);
    }
    let mut table = Table::new(
        "Cost of the programs beside another build's, by the kernel's account (bpf_stats)",
        "ns per run",
        &COLUMNS,
    );
    table.note("“ingress” runs for what is received meanwhile.");
    for (about, job, hook) in cost::single_hooks() {
        let Some(seen) = seen.get(&(job, hook)) else {
            continue;
        };
        let ratio = row(&mut table, about, seen, 1.0);
        if let Some(ratio) = ratio {
            let about = format!("{about}: beside the other build");
            report.bars.push(Bar::at_most(about, ratio, BAR, "x"));
        }
    }
    report.tables.push(table);
    Ok(())
}

/// By the clock.
fn time(scene: &mut Scene, other: usize, extent: &Extent, report: &mut Report) -> Result<()> {
    let jobs = wall::jobs(extent);
    let rounds = extent.rounds * MORE_ROUNDS;
    let mut progress = Progress::new("wall time beside the other build's", rounds);
    let mut seen: Vec<Seen> = vec![Vec::new(); jobs.len()];
    for round in 0..=rounds {
        for ((_, job, count), seen) in jobs.iter().zip(&mut seen) {
            let mut each = [0.0; 2];
            for place in scene.turn([0, 1], round) {
                let lane = &mut scene.lanes[[other, AGENT][place]];
                let done = lane.worker.work(job).with_context(|| lane.name)?;
                each[place] = done.total as f64 / count;
            }
            if round > 0 {
                seen.push((each[0], each[1]));
            }
        }
        progress.round(round);
    }
    let mut table = Table::new("Wall time beside another build's", "us", &COLUMNS);
    for ((about, ..), seen) in jobs.iter().zip(&seen) {
        if let Some(ratio) = row(&mut table, about, seen, 1e3) {
            let about = format!("{about}: beside the other build");
            report.bars.push(Bar::at_most(about, ratio, BAR, "x"));
        }
    }
    report.tables.push(table);
    Ok(())
}

/// A program that ends at once, from start to end.
fn starts(scene: &Scene, other: &Path, extent: &Extent, report: &mut Report) -> Result<()> {
    let world = &scene.world;
    let events = world.path("beside-starts.jsonl");
    let mut progress = Progress::new("starts beside the other build's", extent.rounds);
    let mut seen = Seen::new();
    for round in 0..=extent.rounds {
        let mut each = [0.0; 2];
        for place in scene.turn([0, 1], round) {
            let program = [other, &*crate::programs::agent()?][place].to_owned();
            let mut command = scene::agent_of(&program, world, &events, &["/bin/true"])?;
            each[place] = whole(&mut command)?.0;
        }
        if round > 0 {
            seen.push((each[0], each[1]));
        }
        progress.round(round);
    }
    let mut table = Table::new("Starts beside another build's", "ms", &COLUMNS);
    row(&mut table, "a program that ends at once", &seen, 1.0);
    report.tables.push(table);
    let longer = Spread::of(seen.iter().map(|(before, now)| now - before));
    let longer = longer.context("no round")?.median;
    let about = "a start: longer than the other build's".to_owned();
    report
        .bars
        .push(Bar::at_most(about, longer, START_BAR, "ms"));
    Ok(())
}

const COLUMNS: [&str; 3] = ["the other build", "this build", "of the other"];

/// Adds a row. Answers the middle of the rounds' ratios.
fn row(table: &mut Table, about: &str, seen: &[(f64, f64)], unit: f64) -> Option<f64> {
    let ratio = Spread::of(seen.iter().map(|(before, now)| now / before));
    table.row(
        about,
        vec![
            Cell::of(Spread::of(seen.iter().map(|(before, _)| before / unit))),
            Cell::of(Spread::of(seen.iter().map(|(_, now)| now / unit))),
            Cell::ratio(ratio),
        ],
    );
    ratio.map(|ratio| ratio.median)
}
