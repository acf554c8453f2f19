//! The order of the agent's rooms: each imports only from those to its left. And what each
//! room alone may know: files that only decide own no socket, file or clock, and aya is
//! known to `kernel` alone.

use std::path::Path;

use super::{
    check::Fault,
    source,
    token::{NamedPath, Source},
};

/// From left to right.
const ROOMS: [&str; 21] = [
    "host", "grant", "policy", "dns", "kernel", "event", "instance", "scan", "wrap", "learn",
    "reload", "launch", "forward", "envelope", "control", "exit", "app", "cli", "lib", "main",
    "tests",
];

/// Files that only decide, besides those whose first lines say "Pure".
const PURE: [&str; 14] = [
    "grant/set.rs",
    "grant/diff.rs",
    "grant/ledger.rs",
    "policy/schema.rs",
    "policy/lower.rs",
    "policy/model.rs",
    "policy/name.rs",
    "policy/compile.rs",
    "policy/explain.rs",
    "dns/wire.rs",
    "dns/verdict.rs",
    "dns/lease.rs",
    "event/decode.rs",
    "control/protocol.rs",
];

/// What has hands. Address types of `std::net` have none.
const HANDS: [&str; 19] = [
    "aya",
    "aya_log",
    "caps",
    "landlock",
    "nix",
    "rustix",
    "seccompiler",
    "tokio",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Checks one file; those outside the agent and the shared crate are none of its business.
pub(super) fn check(file: &Path, source: &Source, faults: &mut Vec<Fault>) {
    if let Ok(inner) = file.strip_prefix("egress-agent/src") {
        order(file, inner, source, faults);
        if is_pure(inner, source) {
            hands(file, source, faults);
        }
        if !inner.starts_with("kernel") {
            aya(file, source, faults);
        }
    } else if file.starts_with("egress-common/src") && !file.ends_with("pod.rs") {
        hands(file, source, faults);
    }
}

fn order(file: &Path, inner: &Path, source: &Source, faults: &mut Vec<Fault>) {
    let own = inner
        .components()
        .next()
        .map(|first| Path::new(first.as_os_str()).with_extension(""))
        .unwrap_or_default();
    let own = own.to_string_lossy();
    let Some(place) = place(&own) else {
        let order = ROOMS.join(" → ");
        let what = format!("{own} is no room; they are, in their order: {order}");
        faults.push(Fault::new(file, 0, what));
        return;
    };
    let depth = depth(inner);
    for path in &source.paths {
        let Some(room) = target(path, depth) else {
            continue;
        };
        if self::place(room).is_some_and(|other| other > place) {
            let named = path.segments.join("::");
            let what = format!("{own} may not import from {room}, a room to its right: {named}");
            faults.push(Fault::new(file, path.line, what));
        }
    }
}

/// The room that a path leads to, where it starts at the crate's root or climbs to it.
fn target(path: &NamedPath, depth: usize) -> Option<&str> {
    let mut segments = path.segments.iter().map(String::as_str).peekable();
    let mut climbed = 0;
    match segments.peek() {
        Some(&"crate") => {
            segments.next();
        }
        Some(&("super" | "self")) => {
            while let Some(step) = segments.next_if(|&step| step == "super" || step == "self") {
                climbed += usize::from(step == "super");
            }
            if climbed < depth {
                return None;
            }
        }
        _ => return None,
    }
    segments.next()
}

/// How many modules deep a file is: `policy/name.rs` 2, `policy/mod.rs` 1.
fn depth(inner: &Path) -> usize {
    let own = usize::from(!inner.ends_with("mod.rs"));
    inner.components().count().saturating_sub(1) + own
}

fn place(room: &str) -> Option<usize> {
    ROOMS.iter().position(|own| *own == room)
}

fn is_pure(inner: &Path, source: &Source) -> bool {
    PURE.iter().any(|file| inner == Path::new(file)) || source.says_pure
}

fn hands(file: &Path, source: &Source, faults: &mut Vec<Fault>) {
    if source::is_test_file(file) {
        return;
    }
    for path in source
        .paths
        .iter()
        .filter(|path| !source.is_test(path.line))
    {
        let named = path.segments.join("::");
        let below = |start: &str| named == start || named.starts_with(&format!("{start}::"));
        if HANDS.iter().any(|hand| below(hand)) {
            let what = format!("only decides, so it may not use {named}: take it as an argument");
            faults.push(Fault::new(file, path.line, what));
        }
    }
}

fn aya(file: &Path, source: &Source, faults: &mut Vec<Fault>) {
    for path in &source.paths {
        let first = path.segments.first().map_or("", String::as_str);
        if matches!(first, "aya" | "aya_log") {
            let what = "only the room kernel knows aya";
            faults.push(Fault::new(file, path.line, what));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check(Path::new(file), &Source::read(text).unwrap(), &mut faults);
        faults.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn a_room_sees_only_rooms_to_its_left() {
        let policy = "egress-agent/src/policy/load.rs";
        assert_eq!(faults(policy, "use crate::grant::Lease;"), [""; 0]);
        assert_eq!(faults(policy, "use super::name::Name;"), [""; 0]);
        assert_eq!(faults(policy, "use crate::{app, host};").len(), 1);
        assert_eq!(faults(policy, "use super::super::dns::wire;").len(), 1);
        assert_eq!(faults(policy, "fn f() { crate::cli::go() }").len(), 1);
        let module = "egress-agent/src/policy/mod.rs";
        assert_eq!(faults(module, "use super::event::x;").len(), 1);
        assert_eq!(faults("egress-agent/src/misc.rs", "").len(), 1);
    }

    #[test]
    fn what_decides_has_no_hands() {
        let ledger = "egress-agent/src/grant/ledger.rs";
        assert_eq!(faults(ledger, "use std::net::IpAddr;"), [""; 0]);
        assert_eq!(
            faults(ledger, "use std::net::{IpAddr, UdpSocket};").len(),
            1
        );
        assert_eq!(
            faults(ledger, "fn f() { std::time::Instant::now(); }").len(),
            1
        );
        let marked = "//! Pure.\nuse tokio::sync::mpsc;";
        assert_eq!(faults("egress-agent/src/event/limit.rs", marked).len(), 1);
        let tests = "#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(faults(ledger, tests), [""; 0]);
    }

    #[test]
    fn aya_stays_in_its_room() {
        let text = "use aya::Ebpf;";
        assert_eq!(faults("egress-agent/src/kernel/load.rs", text), [""; 0]);
        assert_eq!(faults("egress-agent/src/app.rs", text).len(), 1);
    }
}
