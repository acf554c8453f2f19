//! Asking for a name through the DNS door, beside asking the same server directly.

use anyhow::{Context, Result};

use super::{
    job::Job,
    number::Spread,
    plan::{Extent, Progress},
    report::{Bar, Cell, Report, Table},
    scene::{AGENT, ASKED, NONE, Scene, upstream},
};

/// What the door may add, the grant included. Microseconds.
const BAR: f64 = 200.0;
/// Questions in a row before it is the other's turn.
const BLOCK: u32 = 25;

/// Measures; adds a table and a bar.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let rounds = extent.rounds * 4;
    let mut progress = Progress::new("names", rounds);
    let job = Job::Ask {
        server: upstream(),
        name: ASKED.to_owned(),
        count: BLOCK,
    };
    // By lane: every question, and the median of each round.
    let (mut all, mut medians) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for round in 0..=rounds {
        for index in scene.turn([0, 1], round) {
            let lane = &mut scene.lanes[[NONE, AGENT][index]];
            let done = lane.worker.work(&job).with_context(|| lane.name)?;
            let micros: Vec<f64> = done.each.iter().map(|ns| *ns as f64 / 1e3).collect();
            if round > 0 {
                let spread = Spread::of(micros.iter().copied()).context("no question")?;
                medians[index].push(spread.median);
                all[index].extend(micros);
            }
        }
        progress.round(round);
    }
    let added = medians[1]
        .iter()
        .zip(&medians[0])
        .map(|(door, direct)| door - direct);
    let added = Spread::of(added).context("no round")?;
    let mut table = Table::new("A name, asked over UDP", "us", &["p50", "p99"]);
    for (about, all) in ["the upstream directly", "through the door"]
        .iter()
        .zip(all)
    {
        let spread = Spread::of(all);
        table.row(
            about,
            vec![
                Cell::of(spread),
                Cell::plain(spread.map(|spread| spread.p99)),
            ],
        );
    }
    table.row(
        "added by the door",
        vec![Cell::of(Some(added)), Cell::plain(None)],
    );
    report.tables.push(table);
    let about = "a name through the door: added, p50".to_owned();
    report
        .bars
        .push(Bar::at_most(about, added.median, BAR, "us"));
    Ok(())
}
