//! This build beside another one: what a change costs, in one run and on the same traffic.
//!
//! Where a program happens to lie in memory tells more than a small change does: 5 to 15 % were seen
//! between lanes of the same build, and so does their order. So each build has two lanes, made in the
//! order other, this, this, other, a round's figure is the geometric mean of both, and the lanes are
//! made anew several times.

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
    scene::{self, CONNECTOR, Scene},
    wall,
};

/// Established packets, connects and what a program notices of them may cost so much more.
const BAR: f64 = 1.02;
/// A start may take so much longer. Milliseconds.
const START_BAR: f64 = 10.0;
/// How often the lanes are made anew. A bar on a median needs more rounds than a table.
const SETS: usize = 8;

/// The places of each build's lanes among those of this part.
const PLACES: [[usize; 2]; 2] = [[0, 3], [1, 2]];

/// Figures of each round: the other build's, and this one's.
type Seen = Vec<(f64, f64)>;
/// Those of each job and hook.
type Costs = BTreeMap<(usize, &'static str), Seen>;

/// Measures; adds tables and bars.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let other = extent.beside.as_deref().context("--beside FILE")?;
    let this = crate::programs::agent()?;
    let first = scene.lanes.len();
    let mut costs = Costs::new();
    let mut times = vec![Seen::new(); wall::jobs(extent).len()];
    let mut progress = Progress::new("costs beside the other build's", SETS);
    for set in 0..SETS {
        for (place, program) in [other, &this, &this, other].into_iter().enumerate() {
            let lane = lane(scene, program, place)?;
            scene.lanes.push(lane);
        }
        account(scene, first, extent, &mut costs)?;
        time(scene, first, extent, &mut times)?;
        scene.lanes.truncate(first);
        progress.round(set);
    }
    tell(&costs, &times, extent, report);
    starts(scene, other, extent, report)
}

/// A connector of a build.
fn lane(scene: &Scene, program: &Path, place: usize) -> Result<Lane> {
    let world = &scene.world;
    let words = [&*world.bin("bench"), "worker"];
    let events = world.path(&format!("beside-{place}.jsonl"));
    let command = scene::agent_of(program, world, &events, &words)?;
    let worker = Process::start(command)?;
    let plane = Plane::of_agent(&format!("{CONNECTOR}-{}-", worker.pid()))?;
    Ok(Lane {
        name: "beside",
        worker,
        plane: Some(plane),
    })
}

/// The figures of the two builds, each from those of its lanes.
fn builds(lanes: [f64; 4]) -> (f64, f64) {
    let [other, this] = PLACES.map(|[one, two]| (lanes[one] * lanes[two]).sqrt());
    (other, this)
}

/// By the kernel's account of each program.
fn account(scene: &mut Scene, first: usize, extent: &Extent, costs: &mut Costs) -> Result<()> {
    let _on = Account::open()?;
    let jobs = cost::jobs(extent);
    for round in 0..=extent.rounds {
        for (job, what) in jobs.iter().enumerate() {
            let mut each = [const { BTreeMap::new() }; 4];
            for place in scene.turn([0, 1, 2, 3], round) {
                each[place] = cost::one(scene, first + place, what)?;
            }
            for hook in each[PLACES[1][0]].keys() {
                if round > 0 {
                    let of = |lane: &BTreeMap<_, f64>| lane.get(hook).copied().unwrap_or(f64::NAN);
                    let both = builds(each.each_ref().map(of));
                    costs.entry((job, *hook)).or_default().push(both);
                }
            }
        }
    }
    Ok(())
}

/// By the clock.
fn time(scene: &mut Scene, first: usize, extent: &Extent, times: &mut [Seen]) -> Result<()> {
    let jobs = wall::jobs(extent);
    for round in 0..=extent.rounds {
        for ((_, job, count), seen) in jobs.iter().zip(&mut *times) {
            let mut each = [0.0; 4];
            for place in scene.turn([0, 1, 2, 3], round) {
                let lane = &mut scene.lanes[first + place];
                let done = lane.worker.work(job).with_context(|| lane.name)?;
                each[place] = done.total as f64 / count;
            }
            if round > 0 {
                seen.push(builds(each));
            }
        }
    }
    Ok(())
}

/// What was measured, as tables and bars.
fn tell(costs: &Costs, times: &[Seen], extent: &Extent, report: &mut Report) {
    let mut table = Table::new(
        "Cost of the programs beside another build's, by the kernel's account (bpf_stats)",
        "ns per run",
        &COLUMNS,
    );
    table.note("“ingress” runs for what is received meanwhile.");
    for (about, job, hook) in cost::single_hooks() {
        if let Some(seen) = costs.get(&(job, hook)) {
            bar(&mut table, about, seen, 1.0, report);
        }
    }
    report.tables.push(table);
    let mut table = Table::new("Wall time beside another build's", "us", &COLUMNS);
    for ((about, ..), seen) in wall::jobs(extent).iter().zip(times) {
        bar(&mut table, about, seen, 1e3, report);
    }
    report.tables.push(table);
}

/// Adds a row, and the bar that goes with it.
fn bar(table: &mut Table, about: &str, seen: &Seen, unit: f64, report: &mut Report) {
    if let Some(ratio) = row(table, about, seen, unit) {
        let about = format!("{about}: beside the other build");
        report.bars.push(Bar::at_most(about, ratio, BAR, "x"));
    }
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
