//! What the peers' measurements say: tables and bars.

use super::{
    case::Case,
    measure::{Results, Seen},
    peer::{Kind, Peer, Start},
};
use crate::bench::{
    number::Spread,
    report::{Bar, Cell, Figure, Report, Table},
};

/// What is within it is level, and so is what two equal lanes are apart in the same run.
const LEVEL: f64 = 1.05;
/// So much longer may a request on a connection take that is kept, where it is judged. Microseconds.
const KEPT_MORE: f64 = 120.0;
/// The place of the second lane without anything.
const AGAIN: usize = 1;

/// Adds everything.
pub(super) fn tell(results: &Results, report: &mut Report) {
    for (case, seen) in &results.cases {
        let about = format!("Peers: {}", case.about());
        let lacks = |peer: &Peer| (peer.lacks)(*case);
        report
            .tables
            .push(table(results, &about, seen, "us", lacks));
        bars(results, *case, seen, report);
    }
    let about = "Peers: start of a program that ends at once";
    let lacks = |peer: &Peer| match peer.start {
        Start::None(why) => Some(why),
        _ => None,
    };
    let mut starts = table(results, about, &results.starts, "ms", lacks);
    starts.note("squid and mitmproxy: of the proxy, once, until it listens.");
    report.tables.push(starts);
    report.tables.push(glance(results));
    let mut memory = Table::new("Peers: memory beside the program's own", "MiB", &["held"]);
    for (peer, held) in results.peers.iter().zip(&results.memory) {
        memory.row(peer.name, vec![Cell::plain(Some(*held))]);
    }
    memory.note("Of processes (Pss); what the kernel keeps for maps and rules is not in it.");
    report.tables.push(memory);
}

fn table(
    results: &Results,
    about: &str,
    seen: &Seen,
    unit: &str,
    lacks: impl Fn(&Peer) -> Option<&'static str>,
) -> Table {
    let scale = if unit == "ms" { 1e6 } else { 1e3 };
    let columns = [&format!("each, {unit}"), "of none"];
    let mut table = Table::new(about, "", &columns).drawn(Figure::Detail);
    for (index, peer) in results.peers.iter().enumerate() {
        if let Some(why) = lacks(peer) {
            table.row(peer.name, vec![Cell::Word("not offered"), Cell::None]);
            table.note_once(&format!("Not offered by {}: {why}.", peer.name));
            continue;
        }
        let each = seen.iter().filter_map(|round| Some(round[index]? / scale));
        table.row(
            peer.name,
            vec![
                Cell::of(Spread::of(each)),
                Cell::ratio(ratio(seen, index, 0)),
            ],
        );
    }
    for (name, _) in &results.absent {
        table.row(name, vec![Cell::Word("not here"), Cell::None]);
    }
    table
}

/// All of them on one page.
fn glance(results: &Results) -> Table {
    let mut columns = vec!["none"];
    let others = || (1..results.peers.len()).filter(|index| *index != AGAIN);
    columns.extend(others().map(|index| results.peers[index].name));
    columns.extend(results.absent.iter().map(|(name, _)| *name));
    let mut table = Table::new(
        "Peers: time as ratio to that without anything",
        "",
        &columns,
    )
    .drawn(Figure::Peers);
    let mut row =
        |about: &str, seen: &Seen, unit: &str, scale: f64, offered: &dyn Fn(&Peer) -> bool| {
            let plain = Spread::of(seen.iter().filter_map(|round| Some(round[0]? / scale)));
            let mut cells = vec![Cell::of(plain)];
            cells.extend(others().map(|index| {
                if offered(&results.peers[index]) {
                    Cell::ratio(ratio(seen, index, 0))
                } else {
                    Cell::Word("not offered")
                }
            }));
            cells.extend(results.absent.iter().map(|_| Cell::Word("not here")));
            table.row(&format!("{about}, {unit}"), cells);
        };
    for (case, seen) in &results.cases {
        row(case.about(), seen, "us", 1e3, &|peer| {
            (peer.lacks)(*case).is_none()
        });
    }
    let measured = |peer: &Peer| !matches!(peer.start, Start::None(_));
    row("start", &results.starts, "ms", 1e6, &measured);
    table.note("squid and mitmproxy start once, before any program: until they listen.");
    for (name, why) in &results.absent {
        table.note(&format!("{name} is not here: {why}."));
    }
    table
}

/// Ahead of every proxy; level with the filters of the kernel, or ahead.
fn bars(results: &Results, case: Case, seen: &Seen, report: &mut Report) {
    let find = |kind| results.peers.iter().position(|peer| peer.kind == kind);
    if let Some(judging) = find(Kind::Judging) {
        judged(results, case, seen, judging, report);
    }
    let Some(own) = find(Kind::Own) else {
        return;
    };
    let noise = ratio(seen, AGAIN, 0).map_or(LEVEL, |spread| spread.high.max(LEVEL));
    for (index, peer) in results.peers.iter().enumerate() {
        let (limit, word) = match peer.kind {
            Kind::Proxy => (1.0, "ahead of"),
            // They know no names: what the look-up costs more is what makes rules by name.
            Kind::Kernel if case == Case::Name => continue,
            Kind::Kernel => (noise, "level with"),
            Kind::Nothing | Kind::Again | Kind::Own | Kind::Judging => continue,
        };
        if let Some(ratio) = ratio(seen, own, index) {
            let about = format!("{}: {word} {}", case.about(), peer.name);
            report
                .bars
                .push(Bar::at_most(about, ratio.median, limit, "x"));
        }
    }
}

/// What it may cost that requests are judged, beside nothing and beside every other proxy.
fn judged(results: &Results, case: Case, seen: &Seen, judging: usize, report: &mut Report) {
    let Some(limit) = case.judged_within() else {
        return;
    };
    let mut bar = |about: &str, than: usize, limit: f64| {
        if let Some(ratio) = ratio(seen, judging, than) {
            let about = format!("{}, judged: {about}", case.about());
            report
                .bars
                .push(Bar::at_most(about, ratio.median, limit, "x"));
        }
    };
    bar("beside nothing", 0, limit);
    if case == Case::GetNew {
        for (index, peer) in results.peers.iter().enumerate() {
            if peer.kind == Kind::Proxy {
                bar(&format!("ahead of {}", peer.name), index, 1.0);
            }
        }
    }
    if case == Case::GetKept {
        let more = seen
            .iter()
            .filter_map(|round| Some((round[judging]? - round[0]?) / 1e3));
        if let Some(more) = Spread::of(more) {
            let about = format!("{}, judged: longer than without", case.about());
            report
                .bars
                .push(Bar::at_most(about, more.median, KEPT_MORE, "us"));
        }
    }
}

/// One peer's time by another's, round by round.
fn ratio(seen: &Seen, of: usize, by: usize) -> Option<Spread> {
    Spread::of(
        seen.iter()
            .filter_map(|round| Some(round[of]? / round[by]?)),
    )
}
