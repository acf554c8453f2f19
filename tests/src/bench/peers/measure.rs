//! Sets the peers up and measures them in turn.

use anyhow::{Context, Result};

use super::{
    case::{CASES, Case},
    daemon::{Daemon, held, is_worker, tree},
    firewall, httpjail, mitm, ours,
    peer::{Peer, Place, Stage, Start},
    squid, srt, table,
};
use crate::bench::{
    agent::whole,
    number::Spread,
    plan::{Extent, Progress},
    report::Report,
    scene::Scene,
};

type Make = fn(&Stage<'_>) -> Result<Peer>;

/// By the names that they have in tables.
const OTHERS: [(&str, Make); 7] = [
    ("egress-agent, inspect", ours::inspect),
    ("nftables", firewall::nft),
    ("iptables", firewall::iptables),
    ("squid", squid::make),
    ("mitmproxy", mitm::make),
    ("httpjail", httpjail::make),
    ("srt", srt::make),
];

/// Short jobs in more rounds: a median passes over what else runs on the machine.
const CASES_FOR_EACH_START: usize = 2;

/// What was seen of one case or start, by round and peer, in nanoseconds of one.
pub(super) type Seen = Vec<Vec<Option<f64>>>;

/// All of it.
pub(super) struct Results {
    pub(super) peers: Vec<Peer>,
    /// Name, and why it is not here.
    pub(super) absent: Vec<(&'static str, String)>,
    pub(super) cases: Vec<(Case, Seen)>,
    /// Of a program that ends at once, or of the proxy that is started before.
    pub(super) starts: Seen,
    /// MiB of each peer beside its worker.
    pub(super) memory: Vec<f64>,
}

/// Measures; adds tables and bars.
pub(in crate::bench) fn measure(
    scene: &mut Scene,
    extent: &Extent,
    report: &mut Report,
) -> Result<()> {
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    let stage = Stage {
        scene,
        programs: &extent.programs,
    };
    peers.extend(ours::all(&stage));
    for (name, make) in OTHERS {
        eprintln!("peers: setting up {name}");
        match make(&stage) {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                eprintln!("{name} is not here: {error:#}");
                let why = format!("{error:#}");
                let first = why.lines().next().unwrap_or_default();
                absent.push((name, first.to_owned()));
            }
        }
    }
    let rounds = extent.rounds * CASES_FOR_EACH_START;
    let mut progress = Progress::new("peers", rounds);
    let mut results = Results {
        cases: CASES.map(|case| (case, Vec::new())).into(),
        starts: Vec::new(),
        memory: Vec::new(),
        peers,
        absent,
    };
    for round in 0..=rounds {
        for (case, seen) in &mut results.cases {
            let each = one_case(scene, extent, &mut results.peers, *case, round)?;
            // The first round warms up.
            if round > 0 {
                seen.push(each);
            }
        }
        if round % CASES_FOR_EACH_START == 0 {
            let each = starts(scene, &results.peers, round / CASES_FOR_EACH_START)?;
            if round > 0 {
                results.starts.push(each);
            }
        }
        progress.round(round);
    }
    results.memory = results
        .peers
        .iter()
        .map(|peer| memory(scene, peer))
        .collect();
    table::tell(&results, report);
    Ok(())
}

/// Each peer once, in another order each round.
fn one_case(
    scene: &mut Scene,
    extent: &Extent,
    peers: &mut [Peer],
    case: Case,
    round: usize,
) -> Result<Vec<Option<f64>>> {
    let mut each = vec![None; peers.len()];
    for index in order(peers.len(), round) {
        let peer = &mut peers[index];
        if (peer.lacks)(case).is_some() {
            continue;
        }
        let (job, count) = case.job(extent, &peer.proxy, &peer.authority);
        if let Some(rules) = &peer.rules {
            rules.on(&scene.world)?;
        }
        let done = peer.worker(scene).work(&job);
        if let Some(rules) = &peer.rules {
            rules.off(&scene.world)?;
        }
        let done = done.with_context(|| format!("{}, {}", peer.name, case.about()))?;
        each[index] = Some(match case {
            Case::Name => {
                let spread = Spread::of(done.each.iter().map(|ns| *ns as f64));
                spread.context("no question")?.median
            }
            _ => done.total as f64 / f64::from(count),
        });
    }
    Ok(each)
}

fn starts(scene: &Scene, peers: &[Peer], round: usize) -> Result<Vec<Option<f64>>> {
    let mut each = vec![None; peers.len()];
    for index in order(peers.len(), round) {
        let peer = &peers[index];
        let millis = match &peer.start {
            Start::None(_) => continue,
            Start::Command(command) => {
                let (millis, _) = whole(&mut command(scene)?)?;
                if let Some(rules) = &peer.rules {
                    rules.off(&scene.world)?;
                }
                millis
            }
            Start::Daemon(daemon) => {
                let start = std::time::Instant::now();
                let daemon: Daemon = daemon(scene)?;
                let took = start.elapsed();
                drop(daemon);
                took.as_secs_f64() * 1e3
            }
        };
        each[index] = Some(millis * 1e6);
    }
    Ok(each)
}

/// Each round begins with another one.
fn order(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count)
}

/// What a peer's processes hold, its worker's left out.
fn memory(scene: &Scene, peer: &Peer) -> f64 {
    let mut roots: Vec<u32> = peer.daemon.iter().map(Daemon::pid).collect();
    roots.push(match &peer.place {
        Place::Lane(index) => scene.lanes[*index].worker.pid(),
        Place::Own(process) => process.pid(),
    });
    let all = roots.into_iter().flat_map(tree);
    all.filter(|pid| !is_worker(*pid)).filter_map(held).sum()
}
