//! What the fuzzer runs: each file takes any bytes and panics where two readings differ.

pub mod answer;
pub mod decide;
pub mod event;
pub mod netlink;
pub mod policy;
pub mod proc;
pub mod query;
pub mod unix;

/// A target by its name, which is that of its seeds' folder too.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 8] = [
    ("answer", answer::run),
    ("decide", decide::run),
    ("event", event::run),
    ("netlink", netlink::run),
    ("policy", policy::run),
    ("proc", proc::run),
    ("query", query::run),
    ("unix", unix::run),
];
