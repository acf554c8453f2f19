//! How much of the kernel's tables each connector holds. Pure.
//!
//! The tables never evict, and one that is full in the midst of a change would leave the change
//! half done. So what a policy needs is set aside before anything is written, for all connectors
//! together.

use std::collections::{BTreeMap, BTreeSet};

/// Entries of the tables that policies are written into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    /// Address prefixes.
    pub prefixes: usize,
    /// Names in TLS.
    pub names: usize,
    /// Names of unix sockets.
    pub unix: usize,
}

/// What does not fit beside the other connectors.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// Entries of a table.
    #[error(
        "the policy needs {wanted} {what}, and {left} of {total} are left beside the other \
         connectors of this data plane: stop some of them, or combine rules"
    )]
    Table {
        /// What the table is of.
        what: &'static str,
        /// Entries that are needed.
        wanted: usize,
        /// Entries that nobody holds.
        left: usize,
        /// Entries of the table.
        total: usize,
    },
    /// Ids of connectors.
    #[error("{0} connectors run in this data plane, which holds no more: stop some of them")]
    Connectors(u32),
}

/// What is given out, and to whom.
#[derive(Debug)]
pub(super) struct Room {
    total: Need,
    held: BTreeMap<u32, Need>,
    /// Connector ids run from 1 to this.
    last: u32,
    taken: BTreeSet<u32>,
    next: u32,
}

impl Room {
    /// All of it is free.
    pub(super) fn new(total: Need, connectors: u32) -> Self {
        Self {
            total,
            held: BTreeMap::new(),
            last: connectors,
            taken: BTreeSet::new(),
            next: 1,
        }
    }

    /// An id that no connector has. One that has ended long ago before one that ended just now.
    pub(super) fn take_id(&mut self) -> Result<u32, Full> {
        let ids = (self.next..=self.last).chain(1..self.next);
        let free = ids.into_iter().find(|id| !self.taken.contains(id));
        let id = free.ok_or(Full::Connectors(self.last))?;
        self.taken.insert(id);
        self.next = id.saturating_add(1);
        Ok(id)
    }

    /// Sets aside what a connector needs, in the place of what it held. After an error it holds
    /// what it held.
    pub(super) fn hold(&mut self, id: u32, need: Need) -> Result<(), Full> {
        let others = self.held.iter().filter(|(other, _)| **other != id);
        let others = others.fold(Need::default(), |sum, (_, held)| Need {
            prefixes: sum.prefixes.saturating_add(held.prefixes),
            names: sum.names.saturating_add(held.names),
            unix: sum.unix.saturating_add(held.unix),
        });
        for (what, wanted, others, total) in [
            (
                "prefix entries",
                need.prefixes,
                others.prefixes,
                self.total.prefixes,
            ),
            (
                "entries for names in TLS",
                need.names,
                others.names,
                self.total.names,
            ),
            (
                "entries for unix sockets",
                need.unix,
                others.unix,
                self.total.unix,
            ),
        ] {
            let left = total.saturating_sub(others);
            if wanted > left {
                return Err(Full::Table {
                    what,
                    wanted,
                    left,
                    total,
                });
            }
        }
        self.held.insert(id, need);
        Ok(())
    }

    /// Nothing of a connector is in the tables any more, nor in a socket.
    pub(super) fn give_back(&mut self, id: u32) {
        self.held.remove(&id);
        self.taken.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(prefixes: usize) -> Need {
        Need {
            prefixes,
            ..Need::default()
        }
    }

    #[test]
    fn what_one_holds_the_others_have_not() {
        let total = Need {
            prefixes: 10,
            names: 4,
            unix: 2,
        };
        let mut room = Room::new(total, 2);
        assert_eq!(room.hold(1, prefixes(7)), Ok(()));
        let full = room.hold(2, prefixes(4));
        assert!(matches!(
            full,
            Err(Full::Table {
                wanted: 4,
                left: 3,
                total: 10,
                ..
            })
        ));
        assert_eq!(
            room.hold(
                2,
                Need {
                    unix: 2,
                    names: 4,
                    prefixes: 3
                }
            ),
            Ok(())
        );
        assert!(room.hold(1, prefixes(8)).is_err(), "its own 7 and no more");
        assert_eq!(room.hold(1, prefixes(2)), Ok(()));
        assert!(
            room.hold(
                2,
                Need {
                    unix: 3,
                    ..Need::default()
                }
            )
            .is_err()
        );
        assert_eq!(room.hold(2, prefixes(8)), Ok(()), "beside the two");
        room.give_back(2);
        assert_eq!(room.hold(1, prefixes(10)), Ok(()));
    }

    #[test]
    fn an_id_is_of_one_connector_at_a_time() {
        let mut room = Room::new(Need::default(), 3);
        let ids: Vec<_> = (0..3).map(|_| room.take_id()).collect();
        assert_eq!(ids, [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(room.take_id(), Err(Full::Connectors(3)));
        room.give_back(3);
        room.give_back(1);
        assert_eq!((room.take_id(), room.take_id()), (Ok(1), Ok(3)));
        assert!(room.take_id().is_err());
    }
}
