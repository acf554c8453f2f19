//! The verdict over tables and attempts that the bytes choose.

use std::{net::IpAddr, sync::LazyLock};

use crate::{draw::Bytes, flow, matcher};

static EDGES: LazyLock<Vec<IpAddr>> = LazyLock::new(flow::edges);

/// Compares a few dozen verdicts.
pub fn run(data: &[u8]) {
    matcher::compare(&mut Bytes(data), &EDGES, 24);
}
