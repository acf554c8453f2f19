//! The verdict over tables and attempts that the bytes choose, on addresses or on names in TLS.

use std::{net::IpAddr, sync::LazyLock};

use crate::{draw::Bytes, flow, matcher, names};

static EDGES: LazyLock<Vec<IpAddr>> = LazyLock::new(flow::edges);

/// Compares a few dozen verdicts.
pub fn run(data: &[u8]) {
    let compared = match data.split_first() {
        Some((0..64, data)) => names::compare(&mut Bytes(data), &EDGES, 24),
        _ => matcher::compare(&mut Bytes(data), &EDGES, 24),
    };
    assert_eq!(compared, 24);
}
