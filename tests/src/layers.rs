//! Which layers of the boundary stop which way out, found by taking layers away.
//!
//! Each vector that the whole agent blocks is tried without each single layer, and with each
//! single layer alone. What gets out without a layer has that layer as its only closer; what
//! one layer alone blocks does not depend on the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Result, ensure};

use crate::{
    probe::Vector,
    stage::Stage,
    vectors::{Row, Verdict, Wrap, delivered, try_some},
    world::World,
};

/// Every layer, by the name of its switch (`egress-agent/src/host/switch.rs`) and what it is.
pub const LAYERS: &[(&str, &str)] = &[
    ("connect", "hooks of `connect()`"),
    ("sendmsg", "hooks of `sendto()` and relatives"),
    ("packet", "packet hook"),
    ("socket", "refusals of the `socket()` hook"),
    ("sockopt", "hook of `setsockopt()`"),
    ("unix", "hooks of unix sockets"),
    ("door", "refusals of the DNS door"),
    ("rebinding", "what the door leaves out of answers"),
    ("sni", "name in TLS"),
    ("descriptors", "inherited descriptors closed"),
    (
        "standard",
        "pipes in place of sockets as standard descriptors",
    ),
    ("capabilities", "capabilities given up"),
    ("seccomp", "system call filter"),
    ("landlock", "Landlock"),
    ("session", "own session"),
    ("ipc", "own IPC namespace"),
    ("mounts", "own mount namespace"),
    ("processes", "own PID namespace"),
    ("devices", "small `/dev`"),
    ("stdio", "pipes for standard descriptors that are sockets"),
    ("lsm", "hooks of the security modules"),
];

/// What stops one way out.
#[derive(Clone, Debug)]
pub struct Closers {
    /// Family and vector.
    pub vector: (&'static str, &'static Vector),
    /// Tried by root.
    pub as_root: bool,
    /// It gets out without this one: nothing else stops it.
    pub only: Vec<&'static str>,
    /// Each of these stops it with no other layer there.
    pub enough: Vec<&'static str>,
    /// It does not get out either when every layer is gone: what stops it is an ordinary user's
    /// lack of rights, or what no switch takes away (`no_new_privs`, the connector's cgroup).
    pub rest: bool,
}

/// Measures some vectors for one user; `said` is told how far it is.
pub fn measure(
    vectors: Vec<(&'static str, &'static Vector)>,
    as_root: bool,
    said: &mut dyn FnMut(&str),
) -> Result<Vec<Closers>> {
    let rows = on_stage(|world, stage| try_some(world, stage, &Wrap::Agent, vectors, as_root))?;
    let wrong: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    ensure!(wrong.is_empty(), "these do not hold: {wrong:?}");
    let blocked: Vec<_> = rows
        .iter()
        .filter(|row| row.verdict() == Verdict::Blocked)
        .map(|row| (row.family, row.vector))
        .collect();
    let all: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    let mut found: BTreeMap<&str, Closers> = BTreeMap::new();
    let past_everything = past(&all, &blocked, as_root, TRIES)?;
    for &vector in &blocked {
        let closers = Closers {
            vector,
            as_root,
            only: Vec::new(),
            enough: Vec::new(),
            rest: !past_everything.contains(vector.1.name),
        };
        found.insert(vector.1.name, closers);
    }
    // Vectors that some layer stops.
    let outer: Vec<_> = blocked
        .iter()
        .filter(|(_, vector)| past_everything.contains(vector.name))
        .copied()
        .collect();
    for &layer in &all {
        said(layer);
        for name in past(&[layer], &blocked, as_root, 1)? {
            if let Some(closers) = found.get_mut(name) {
                closers.only.push(layer);
            }
        }
        let others: Vec<&str> = all.iter().copied().filter(|name| *name != layer).collect();
        let through = past(&others, &outer, as_root, TRIES)?;
        for (name, closers) in &mut found {
            if !closers.rest && !through.contains(name) {
                closers.enough.push(layer);
            }
        }
    }
    let in_order = blocked.iter().filter_map(|(_, one)| found.remove(one.name));
    Ok(in_order.collect())
}

/// What gets past the agent without some layers. What does not is tried again, `times` in all.
fn past(
    without: &[&str],
    vectors: &[(&'static str, &'static Vector)],
    as_root: bool,
    times: usize,
) -> Result<BTreeSet<&'static str>> {
    let mut through = BTreeSet::new();
    for of_names in [false, true] {
        // Without this layer loopback and others are granted before the first program starts,
        // for whoever asks: only names that lead there say something about it.
        let layers: Vec<&str> = without
            .iter()
            .copied()
            .filter(|layer| of_names || *layer != "rebinding")
            .collect();
        let wrap = Wrap::Without(layers.join(","));
        for _ in 0..times {
            let left: Vec<_> = vectors
                .iter()
                .filter(|(_, vector)| vector.name.starts_with("rebind-") == of_names)
                .filter(|(_, vector)| !through.contains(vector.name))
                .copied()
                .collect();
            if !left.is_empty() && !layers.is_empty() {
                let more = on_stage(|world, stage| delivered(world, stage, &wrap, &left, as_root))?;
                through.extend(more);
            }
        }
    }
    Ok(through)
}

/// On a busy machine some come too late, and a layer would seem to stop them.
const TRIES: usize = 3;

fn on_stage<T>(act: impl FnOnce(&World, &Stage) -> Result<T>) -> Result<T> {
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    act(&world, &stage)
}

/// A table, one row for the vectors of a family that the same layers stop.
pub fn markdown(all: &[Closers]) -> String {
    let mut groups: Vec<(&Closers, Vec<&str>)> = Vec::new();
    for one in all {
        let name = one.vector.1.name;
        let alike = |(other, _): &&mut (&Closers, Vec<&str>)| {
            other.vector.0 == one.vector.0
                && other.as_root == one.as_root
                && (&other.only, &other.enough, other.rest) == (&one.only, &one.enough, one.rest)
        };
        match groups.iter_mut().find(alike) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => groups.push((one, vec![name])),
        }
    }
    let mut text = "| family | ways out | gets out without | each alone stops it |\n\
                    | --- | --- | --- | --- |\n"
        .to_owned();
    for (closers, names) in groups {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let only = match closers.only.as_slice() {
            [] => "–".to_owned(),
            some => some.join(", "),
        };
        let enough = match closers.enough.as_slice() {
            _ if closers.rest => "the user's lack of rights".to_owned(),
            [] => "several together".to_owned(),
            some => some.join(", "),
        };
        let who = if closers.as_root { ", root" } else { "" };
        let family = format!("{}{who}", closers.vector.0);
        let _ = writeln!(
            text,
            "| {family} | {} | {only} | {enough} |",
            names.join(" ")
        );
    }
    text
}
