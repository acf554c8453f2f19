//! What the door reports: refusals, one by one while there is room, and exact counters.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

use egress_common::verdict::Reason;
use tokio::sync::mpsc;

/// One refused (or, in audit mode, would-be refused) query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    /// The name asked for: printable ASCII, other bytes as `\ddd` (RFC 4343 section 2.1), at
    /// most 255 bytes.
    pub name: String,
    /// Record type: `A`, `TXT`, `TYPE65400`; empty where it could not be read.
    pub qtype: String,
    /// Why.
    pub reason: Reason,
    /// Id of the policy's rule that refused it or whose bounds it broke.
    pub rule: Option<String>,
    /// Who asked: the connector's socket as the door sees it.
    pub client: SocketAddr,
    /// IP protocol number of the exchange.
    pub protocol: u8,
    /// Only reported; the query was answered.
    pub audited: bool,
    /// The address that was left out of the answer.
    pub address: Option<IpAddr>,
    /// What is refused in particular, and what to do.
    pub message: Option<String>,
}

/// Counters of one door. Exact, whatever happens to the reports.
#[derive(Debug)]
pub struct DoorStats {
    refused: [AtomicU64; SLOTS],
    lost: AtomicU64,
    failed: AtomicU64,
}

const SLOTS: usize = egress_common::stat::REASON_SLOTS as usize;

impl Default for DoorStats {
    fn default() -> Self {
        Self {
            refused: [const { AtomicU64::new(0) }; SLOTS],
            lost: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl DoorStats {
    /// Refusals for a reason, audited ones included.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused
            .get(usize::from(reason.code()))
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Refusals whose report found no room in the channel.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Permitted queries that the upstream did not answer.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal and reports it if there is room.
    pub(super) fn refuse(&self, refusals: &mpsc::Sender<Refusal>, refusal: Refusal) {
        if let Some(count) = self.refused.get(usize::from(refusal.reason.code())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if refusals.try_send(refusal).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
