//! The list of targets.

use super::{answer, decide, event, hello, netlink, policy, proc, query, request, unix};

/// A target by its name, which is that of its seeds' folder too.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 10] = [
    ("answer", answer::run),
    ("decide", decide::run),
    ("event", event::run),
    ("hello", hello::run),
    ("netlink", netlink::run),
    ("policy", policy::run),
    ("proc", proc::run),
    ("query", query::run),
    ("request", request::run),
    ("unix", unix::run),
];
