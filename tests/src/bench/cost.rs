//! What each program takes, by the kernel's own account.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{
    job::Job,
    number::Spread,
    plan::{Extent, Progress},
    plane::Account,
    report::{Bar, Cell, Report, Table},
    scene::{AGENT, FILTER, NAME, NAMED, NAMED6, NOOP, RANGED, Scene, at},
    server::{CHECKED, CLOSE, HOLE, SINK},
};

/// Half of what a straightforward prototype's connect program took, which looked up four maps.
/// Nanoseconds over a program that does nothing.
const CONNECT_BAR: f64 = 950.0;
/// How far apart two runs of the same instructions are seen here.
const NOISE: f64 = 1.05;
/// The lanes that are compared, and where their measurements are in a row.
const LANES: [usize; 3] = [NOOP, FILTER, AGENT];

/// One line of the table.
struct Line {
    about: &'static str,
    job: usize,
    hooks: &'static [&'static str],
    bar: Option<Limit>,
}

/// What a line must not exceed.
enum Limit {
    /// The filter like systemd's.
    Filter,
    /// The no-op program and [`CONNECT_BAR`].
    Connect,
    /// The same without a check of the name, within [`NOISE`].
    Unchecked,
}

/// Places in [`jobs`] of the two whose packets are compared.
const UNCHECKED_JOB: usize = 0;
const CHECKED_JOB: usize = 7;

/// What is done.
pub(super) fn jobs(extent: &Extent) -> Vec<Job> {
    let (packets, connects) = (extent.scale(20_000), extent.scale(2_000));
    let stream = |to, name: Option<&str>| Job::Stream {
        to,
        count: packets,
        size: 64,
        name: name.map(str::to_owned),
    };
    let datagrams = |connected| Job::Datagrams {
        to: at(NAMED, HOLE),
        count: packets,
        size: 64,
        connected,
    };
    let connect = |to| Job::Connect {
        to,
        count: connects,
    };
    vec![
        stream(at(NAMED, SINK), None),
        stream(at(NAMED6, SINK), None),
        datagrams(true),
        datagrams(false),
        connect(at(NAMED, CLOSE)),
        connect(at(NAMED6, CLOSE)),
        connect(at(RANGED, CLOSE)),
        stream(at(NAMED, CHECKED), Some(NAME)),
    ]
}

const LINES: [Line; 12] = [
    line(
        "packet, TCP established, IPv4",
        0,
        &["egress"],
        Some(Limit::Filter),
    ),
    line(
        "packet, TCP established, IPv6",
        1,
        &["egress"],
        Some(Limit::Filter),
    ),
    line(
        "packet, TCP, its name checked before",
        CHECKED_JOB,
        &["egress"],
        Some(Limit::Unchecked),
    ),
    line("packet, UDP connected", 2, &["egress"], Some(Limit::Filter)),
    line("packet, UDP not connected", 3, &["egress"], None),
    line("packet received, TCP established", 0, &["ingress"], None),
    line("sendmsg4", 3, &["sendmsg4"], None),
    line(
        "connect4, permitted by name",
        4,
        &["connect4"],
        Some(Limit::Connect),
    ),
    line(
        "connect6, permitted by name",
        5,
        &["connect6"],
        Some(Limit::Connect),
    ),
    line(
        "connect4, permitted by range",
        6,
        &["connect4"],
        Some(Limit::Connect),
    ),
    line("sock_create", 4, &["sock_create"], None),
    line(
        "connect4 + sock_create",
        4,
        &["connect4", "sock_create"],
        None,
    ),
];

/// The lines about one program: what they are about, their place in [`jobs`], the hook.
pub(super) fn single_hooks() -> impl Iterator<Item = (&'static str, usize, &'static str)> {
    LINES.iter().filter_map(|line| match line.hooks {
        [hook] => Some((line.about, line.job, *hook)),
        _ => None,
    })
}

const fn line(
    about: &'static str,
    job: usize,
    hooks: &'static [&'static str],
    bar: Option<Limit>,
) -> Line {
    Line {
        about,
        job,
        hooks,
        bar,
    }
}

/// What one round saw: by job, by place in [`LANES`], by hook; nanoseconds a run.
type Round = Vec<Vec<BTreeMap<&'static str, f64>>>;

/// Measures; adds a table and the bars.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let _on = Account::open()?;
    let jobs = jobs(extent);
    let mut progress = Progress::new("cost of each program", extent.rounds);
    let mut seen: Vec<Round> = Vec::new();
    for round in 0..=extent.rounds {
        let mut all = Vec::new();
        for job in &jobs {
            let mut each = vec![BTreeMap::new(); LANES.len()];
            for lane in scene.turn([0, 1, 2], round) {
                each[lane] = one(scene, LANES[lane], job)?;
            }
            all.push(each);
        }
        // The first round warms up.
        if round > 0 {
            seen.push(all);
        }
        progress.round(round);
    }
    let columns = [
        "no-op",
        "systemd-like",
        "egress-agent",
        "over no-op",
        "of systemd-like",
    ];
    let mut table = Table::new(
        "Cost of the programs, by the kernel's account (bpf_stats)",
        "ns per run",
        &columns,
    );
    table
        .note("bpf_stats itself is most of a no-op's time. systemd-like has a packet filter only.");
    for line in &LINES {
        tell(line, &seen, &mut table, report)?;
    }
    report.tables.push(table);
    Ok(())
}

/// Adds a line and its bar.
fn tell(line: &Line, seen: &[Round], table: &mut Table, report: &mut Report) -> Result<()> {
    let of = |lane: usize, round: &Round| {
        let hooks = line.hooks.iter();
        hooks
            .map(|hook| round[line.job][lane].get(hook).copied())
            .sum::<Option<f64>>()
    };
    let column = |lane| pairs(seen, |round| of(lane, round));
    let over = pairs(seen, |round| Some(of(2, round)? - of(0, round)?));
    let ratio = pairs(seen, |round| Some(of(2, round)? / of(1, round)?));
    let agent = column(2).with_context(|| format!("{} did not run", line.about))?;
    table.row(
        line.about,
        vec![
            Cell::of(column(0)),
            Cell::of(column(1)),
            Cell::of(Some(agent)),
            Cell::of(over),
            Cell::ratio(ratio),
        ],
    );
    match (&line.bar, over, ratio) {
        (Some(Limit::Filter), _, Some(ratio)) => report.bars.push(Bar::at_most(
            format!("{}: no more than systemd-like", line.about),
            ratio.median,
            1.0,
            "x",
        )),
        (Some(Limit::Unchecked), ..) => {
            let of = |job: usize, round: &Round| round[job][2].get("egress").copied();
            let same = pairs(seen, |round| {
                Some(of(line.job, round)? / of(UNCHECKED_JOB, round)?)
            });
            report.bars.push(Bar::at_most(
                format!("{}: as without", line.about),
                same.context("no round")?.median,
                NOISE,
                "x",
            ));
        }
        (Some(Limit::Connect), Some(over), _) => report.bars.push(Bar::at_most(
            format!("{}: over no-op", line.about),
            over.median,
            CONNECT_BAR,
            "ns",
        )),
        _ => {}
    }
    Ok(())
}

fn pairs<T>(rounds: &[T], value: impl Fn(&T) -> Option<f64>) -> Option<Spread> {
    Spread::of(rounds.iter().filter_map(value))
}

/// Nanoseconds a run of each program while the job was done.
pub(super) fn one(
    scene: &mut Scene,
    lane: usize,
    job: &Job,
) -> Result<BTreeMap<&'static str, f64>> {
    let lane = &mut scene.lanes[lane];
    let plane = lane.plane.as_ref().context("no programs")?;
    let before = plane.usage()?;
    lane.worker.work(job).with_context(|| lane.name)?;
    let after = plane.usage()?;
    let each = after.iter().filter_map(|(hook, usage)| {
        let before = before.get(hook)?;
        Some((*hook, usage.each_since(*before)?))
    });
    Ok(each.collect())
}
