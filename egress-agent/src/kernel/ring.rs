//! The event ring, read as it fills.

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

use super::load::PlaneError;

/// The event ring of an instance, not yet read by anybody.
pub struct RingMap(pub(super) Map);

impl RingMap {
    /// Begins to read. Must be called inside the tokio runtime that will read.
    pub fn open(self) -> Result<Ring, PlaneError> {
        Ring::new(self.0)
    }
}

/// The reader of an instance's events. Records are bytes here; `event::decode` checks them.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    fn new(map: Map) -> Result<Self, PlaneError> {
        let ring = RingBuf::try_from(map).map_err(|source| PlaneError::Map {
            name: egress_common::abi::map::EVENTS,
            source: Box::new(source),
        })?;
        #[expect(
            deprecated,
            reason = "the successor is unsafe for types that may swap their descriptor; \
                      the ring owns its map and never does"
        )]
        let ring = AsyncFd::with_interest(ring, Interest::READABLE).map_err(PlaneError::Ring)?;
        Ok(Self { ring })
    }

    /// Waits until there is something, then hands over up to `limit` records, oldest first.
    /// Answers how many there were; may be none. Safe to cancel: nothing is taken before
    /// the wait is over.
    pub async fn read(
        &mut self,
        limit: usize,
        mut each: impl FnMut(&[u8]),
    ) -> std::io::Result<usize> {
        let mut guard = self.ring.readable_mut().await?;
        let taken = drain(guard.get_inner_mut(), limit, &mut each);
        if taken < limit {
            guard.clear_ready();
            // A record that came between the last look and the line above has woken nobody.
            return Ok(taken.saturating_add(drain(
                self.ring.get_mut(),
                limit.saturating_sub(taken),
                &mut each,
            )));
        }
        Ok(taken)
    }

    /// Hands over what is there now, without waiting.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        drain(self.ring.get_mut(), usize::MAX, &mut each)
    }
}

fn drain(ring: &mut RingBuf<MapData>, limit: usize, each: &mut impl FnMut(&[u8])) -> usize {
    let mut taken = 0;
    while taken < limit {
        let Some(record) = ring.next() else {
            break;
        };
        each(&record);
        taken += 1;
    }
    taken
}
