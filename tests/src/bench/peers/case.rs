//! What is compared.

use std::path::Path;

use super::errand::{Errand, Proxy, Way};
use crate::bench::{
    job::Job,
    plan::Extent,
    scene::{ASKED, NAME, NAMED, at, upstream},
    server::{CLOSE, COUNT, ECHO, HOLE, HTTPS},
};

/// One write of bulk. Bytes.
const CHUNK: usize = 64 << 10;

/// A mail. Bytes.
const MAIL: usize = 10_000;

/// One thing that programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Connect,
    Sends,
    Streamed,
    Datagrams,
    Bulk,
    Exchange,
    Handshake,
    GetNew,
    GetKept,
    Post,
    Down,
    Up,
    Name,
}

/// In the order of the tables.
pub(super) const CASES: [Case; 13] = [
    Case::Connect,
    Case::Handshake,
    Case::GetNew,
    Case::GetKept,
    Case::Post,
    Case::Down,
    Case::Up,
    Case::Exchange,
    Case::Sends,
    Case::Streamed,
    Case::Bulk,
    Case::Datagrams,
    Case::Name,
];

impl Case {
    /// For people.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Connect => "connection to the server",
            Self::Handshake => "connection and TLS handshake",
            Self::GetNew => "HTTPS GET, a connection each",
            Self::GetKept => "HTTPS GET, connection kept",
            Self::Post => "HTTPS POST of 10 kB, connection kept",
            Self::Down => "HTTPS, 64 MiB received, each MiB",
            Self::Up => "HTTPS, 64 MiB sent, each MiB",
            Self::Exchange => "64 B request and response",
            Self::Sends => "64 B send, TCP, eight then their echo",
            Self::Streamed => "64 B send, TCP, streamed",
            Self::Bulk => "bulk, each MiB",
            Self::Datagrams => "64 B send, UDP",
            Self::Name => "look-up of a name",
        }
    }

    /// Whether it is carried in TLS, on the port that HTTPS has.
    pub(super) fn is_https(self) -> bool {
        matches!(
            self,
            Self::Handshake | Self::GetNew | Self::GetKept | Self::Post | Self::Down | Self::Up
        )
    }

    /// How much of what it takes with nothing between it may take where requests are judged.
    pub(super) fn judged_within(self) -> Option<f64> {
        match self {
            Self::GetNew => Some(1.10),
            Self::GetKept => Some(1.45),
            Self::Post => Some(1.5),
            // Three quarters of the throughput.
            Self::Down | Self::Up => Some(4.0 / 3.0),
            _ => None,
        }
    }

    /// The job, and how many of it there are in one.
    pub(super) fn job(self, extent: &Extent, proxy: &Proxy, authority: &Path) -> (Job, u32) {
        let way = |port| Way {
            to: at(NAMED, port),
            name: NAME.to_owned(),
            proxy: proxy.clone(),
            authority: authority.to_owned(),
        };
        let errand = |port, errand| Job::Errand {
            way: way(port),
            errand,
        };
        let count = extent.scale(self.count());
        let size = 64;
        let job = match self {
            Self::Connect => errand(CLOSE, Errand::Connect { count }),
            Self::Handshake => errand(HTTPS, Errand::Handshakes { count }),
            Self::GetNew => errand(HTTPS, Errand::Gets { count, kept: false }),
            Self::GetKept => errand(HTTPS, Errand::Gets { count, kept: true }),
            Self::Post => errand(HTTPS, Errand::Posts { count, size: MAIL }),
            Self::Down | Self::Up => {
                let bytes = u64::from(count) << 20;
                let up = self == Self::Up;
                errand(HTTPS, Errand::Moves { bytes, up })
            }
            Self::Exchange => errand(ECHO, Errand::Exchange { count, size }),
            Self::Sends => errand(ECHO, Errand::Sends { count, size }),
            Self::Streamed => {
                let bytes = u64::from(count) * size as u64;
                errand(COUNT, Errand::Stream { bytes, size })
            }
            Self::Bulk => {
                let bytes = u64::from(count) << 20;
                errand(COUNT, Errand::Stream { bytes, size: CHUNK })
            }
            Self::Datagrams => Job::Datagrams {
                to: at(NAMED, HOLE),
                count,
                size,
                connected: true,
            },
            Self::Name => Job::Ask {
                server: upstream(),
                name: ASKED.to_owned(),
                count,
            },
        };
        (job, count)
    }

    fn count(self) -> u32 {
        match self {
            Self::Connect => 100,
            Self::Handshake | Self::GetNew => 24,
            Self::GetKept | Self::Post | Self::Exchange => 100,
            Self::Down | Self::Up => 64,
            Self::Sends => 800,
            Self::Streamed | Self::Datagrams => 4000,
            Self::Bulk => 32,
            Self::Name => 24,
        }
    }
}
