//! The keeper: the only owner of the ledgers and the only writer of grants to the kernel.
//!
//! Each connector has a ledger of its own, and each call says whose it means. So nothing that is
//! done for one connector looks at what another one holds, and none of them can fill the kernel's
//! table for all.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use egress_common::{
    grant::Grant,
    key::{Addr, GrantKey},
};

use super::ledger::{Lease, Ledger};

/// The kernel's grant table, as the keeper sees it.
pub trait Table: Send + Sync {
    /// Writes a grant. When it returns, the kernel decides by it.
    fn put(&self, key: &GrantKey, grant: &Grant) -> Result<(), TableError>;
    /// Deletes a grant; one that is not there is no error.
    fn delete(&self, key: &GrantKey) -> Result<(), TableError>;
}

/// Why the kernel did not take a grant.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The table has no room left.
    #[error("the grant table is full")]
    Full,
    /// Anything else.
    #[error("the kernel refused the grant: {0}")]
    Kernel(String),
}

/// Why leases were not granted. Nothing of the failed entry is left in the books.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The kernel's table did not take it.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Ended destinations that make room at once where the kernel's table is full.
const ROOM: usize = 1024;

/// Grants leases and takes them back.
pub struct Keeper {
    table: Box<dyn Table>,
    books: Mutex<Books>,
    /// Destinations that one connector may hold.
    share: usize,
}

/// Ledgers by connector.
type Books = BTreeMap<u32, Ledger>;

impl Keeper {
    /// A keeper with empty books over a table. Each connector may fill it.
    pub fn new(table: Box<dyn Table>) -> Self {
        Self::shared(table, usize::MAX)
    }

    /// A keeper with empty books over a table of which each connector may hold `share`
    /// destinations.
    pub fn shared(table: Box<dyn Table>, share: usize) -> Self {
        Self {
            table,
            books: Mutex::default(),
            share,
        }
    }

    /// Grants leases that came from one name. When it returns `Ok`, every one of them is in
    /// the kernel; after an error the answer must not be sent.
    pub fn grant(&self, name: &str, leases: &[Lease]) -> Result<(), KeeperError> {
        let mut books = self.books();
        for lease in leases {
            let ledger = books.entry(lease.key.connector).or_default();
            let (grant, before) = ledger.enter(name, lease);
            let written = if ledger.len() > self.share {
                Err(TableError::Full)
            } else {
                self.put(&mut books, &lease.key, &grant)
            };
            if let Err(error) = written {
                let ledger = books.entry(lease.key.connector).or_default();
                ledger.undo(lease, before);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Takes back everything a rule granted, which only its own connector, and the process beside
    /// it, have. The rule's switch in the kernel is thrown by the caller first; this only tidies
    /// the table.
    pub fn remove_rule(&self, rule: u32) -> Result<(), KeeperError> {
        let mut books = self.books();
        for ledger in books.values_mut() {
            self.carry_out(ledger.remove_rule(rule))?;
        }
        Ok(())
    }

    /// Takes back every grant of a connector that is not kept, whichever rules hold it. When it
    /// returns `Ok`, the kernel has none of them.
    pub fn retain(
        &self,
        connector: u32,
        keep: impl Fn(&GrantKey) -> bool,
    ) -> Result<(), KeeperError> {
        let mut books = self.books();
        let Some(ledger) = books.get_mut(&connector) else {
            return Ok(());
        };
        let deleted = ledger
            .retain(keep)
            .into_iter()
            .map(|key| self.table.delete(&key));
        // Each is tried, whatever became of the one before.
        deleted.fold(Ok(()), Result::and).map_err(Into::into)
    }

    /// Takes back everything that a connector was granted, and forgets it. When it returns `Ok`,
    /// the kernel has nothing of it, not even as ended.
    pub fn forget(&self, connector: u32) -> Result<(), KeeperError> {
        self.retain(connector, |_| false)?;
        self.books().remove(&connector);
        Ok(())
    }

    /// Everything that is granted to a connector, as the kernel has it.
    pub fn grants(&self, connector: u32) -> Vec<(GrantKey, Grant)> {
        let books = self.books();
        let ledger = books.get(&connector);
        ledger.map_or_else(Vec::new, |ledger| ledger.grants().collect())
    }

    /// Takes what ended before `now_ns` (boot clock) out of the books. The kernel already
    /// refuses those, and says that they have ended for as long as there is room for them.
    pub fn sweep(&self, now_ns: u64) -> Result<(), KeeperError> {
        let mut books = self.books();
        for ledger in books.values_mut() {
            self.carry_out(ledger.sweep(now_ns))?;
        }
        Ok(())
    }

    /// The name under which an address was last granted to a connector.
    pub fn name_of(&self, connector: u32, addr: &Addr) -> Option<String> {
        let books = self.books();
        books.get(&connector)?.name_of(addr).map(str::to_owned)
    }

    /// Notes the name of addresses that are answered to a connector and not granted: for lines
    /// about them.
    pub fn answered(&self, connector: u32, name: &str, addrs: impl Iterator<Item = Addr>) {
        let mut books = self.books();
        let ledger = books.entry(connector).or_default();
        addrs.for_each(|addr| ledger.answered(name, addr));
    }

    /// The name under which an address was last answered to a connector without a grant.
    pub fn answered_as(&self, connector: u32, addr: &Addr) -> Option<String> {
        let books = self.books();
        books.get(&connector)?.answered_as(addr).map(str::to_owned)
    }

    /// Destinations granted now, to all connectors together.
    pub fn len(&self) -> usize {
        self.books().values().map(Ledger::len).sum()
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.books().values().all(Ledger::is_empty)
    }

    /// Writes what destinations mean now. The books stay locked meanwhile.
    fn carry_out(&self, changes: Vec<(GrantKey, Option<Grant>)>) -> Result<(), KeeperError> {
        for (key, grant) in changes {
            match grant {
                Some(grant) => self.table.put(&key, &grant)?,
                None => self.table.delete(&key)?,
            }
        }
        Ok(())
    }

    /// Writes one grant; what has ended makes room for it.
    fn put(&self, books: &mut Books, key: &GrantKey, grant: &Grant) -> Result<(), TableError> {
        loop {
            match self.table.put(key, grant) {
                Err(TableError::Full) => {
                    let ledgers = books.values_mut();
                    let gone: Vec<GrantKey> = ledgers
                        .flat_map(|ledger| ledger.forget_ended(ROOM))
                        .collect();
                    if gone.is_empty() {
                        return Err(TableError::Full);
                    }
                    for key in gone {
                        self.table.delete(&key)?;
                    }
                }
                written => return written,
            }
        }
    }

    /// A panic while the lock was held cannot leave the books half written in a way that
    /// grants more: the kernel is written after the ledger and from it.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use super::*;

    /// A table with room for so many.
    #[derive(Clone)]
    struct Small(Arc<Mutex<HashMap<GrantKey, Grant>>>, usize);

    impl Small {
        fn grants(&self) -> MutexGuard<'_, HashMap<GrantKey, Grant>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Table for Small {
        fn put(&self, key: &GrantKey, grant: &Grant) -> Result<(), TableError> {
            let mut grants = self.grants();
            if grants.len() >= self.1 && !grants.contains_key(key) {
                return Err(TableError::Full);
            }
            grants.insert(*key, *grant);
            Ok(())
        }

        fn delete(&self, key: &GrantKey) -> Result<(), TableError> {
            self.grants().remove(key);
            Ok(())
        }
    }

    #[test]
    fn what_has_ended_stays_in_the_kernel_until_its_room_is_needed() {
        let table = Small(Arc::default(), 3);
        let keeper = Keeper::new(Box::new(table.clone()));
        let lease = |port: u16, expires_ns| Lease {
            key: GrantKey {
                addr: Addr::from_v4(0xcb00_7107),
                connector: 1,
                port,
                protocol: 6,
                pad: 0,
            },
            rule: 8,
            expires_ns,
            named: false,
        };
        let grant = |port, end| keeper.grant("a.example", &[lease(port, end)]);
        assert!(grant(1, 10).is_ok() && grant(2, 10).is_ok() && grant(3, 90).is_ok());
        assert!(keeper.sweep(50).is_ok());
        assert_eq!((keeper.len(), table.grants().len()), (1, 3));
        let ended = table.grants().get(&lease(1, 0).key).map(|it| it.expires_ns);
        assert_eq!(ended, Some(10), "as it was");
        assert!(
            grant(4, 90).is_ok() && grant(5, 90).is_ok(),
            "they make room"
        );
        assert_eq!((keeper.len(), table.grants().len()), (3, 3));
        assert!(matches!(
            grant(6, 90),
            Err(KeeperError::Table(TableError::Full))
        ));
        assert_eq!((keeper.len(), table.grants().len()), (3, 3));
    }

    /// What one connector holds, gives up or fills is its own matter.
    #[test]
    fn connectors_never_mix() {
        let table = Small(Arc::default(), 100);
        let keeper = Keeper::shared(Box::new(table.clone()), 3);
        let lease = |connector, port| Lease {
            key: GrantKey {
                addr: Addr::from_v4(0xcb00_7107),
                connector,
                port,
                protocol: 6,
                pad: 0,
            },
            rule: 8 + connector,
            expires_ns: 10,
            named: false,
        };
        for port in 1..=3 {
            assert!(keeper.grant("a.example", &[lease(1, port)]).is_ok());
        }
        assert!(matches!(
            keeper.grant("a.example", &[lease(1, 4)]),
            Err(KeeperError::Table(TableError::Full))
        ));
        assert_eq!(keeper.grants(1).len(), 3, "its share, and not more");
        assert!(keeper.grant("b.example", &[lease(2, 4)]).is_ok());
        let addr = lease(1, 1).key.addr;
        let names = [1, 2, 3].map(|connector| keeper.name_of(connector, &addr));
        let expected = [
            Some("a.example".to_owned()),
            Some("b.example".to_owned()),
            None,
        ];
        assert_eq!(
            names, expected,
            "the same address, under the name that each had"
        );
        assert!(keeper.retain(1, |key| key.port == 1).is_ok());
        assert_eq!((keeper.grants(1).len(), keeper.grants(2).len()), (1, 1));
        assert!(keeper.remove_rule(9).is_ok() && keeper.grants(1).is_empty());
        assert!(keeper.grant("a.example", &[lease(1, 1)]).is_ok());
        assert!(keeper.sweep(50).is_ok() && keeper.forget(2).is_ok());
        assert_eq!(keeper.name_of(2, &addr), None);
        let left: Vec<u32> = table.grants().keys().map(|key| key.connector).collect();
        assert_eq!(left, [1], "what has ended of the other one's stays");
    }
}
