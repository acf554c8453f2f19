//! The keeper: the only owner of the ledger and the only writer of grants to the kernel.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    ledger: Mutex<Ledger>,
}

impl Keeper {
    /// A keeper with empty books over a table.
    pub fn new(table: Box<dyn Table>) -> Self {
        Self {
            table,
            ledger: Mutex::new(Ledger::default()),
        }
    }

    /// Grants leases that came from one name. When it returns `Ok`, every one of them is in
    /// the kernel; after an error the answer must not be sent.
    pub fn grant(&self, name: &str, leases: &[Lease]) -> Result<(), KeeperError> {
        let mut ledger = self.ledger();
        for lease in leases {
            let (grant, before) = ledger.enter(name, lease);
            if let Err(error) = self.put(&mut ledger, &lease.key, &grant) {
                ledger.undo(lease, before);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Takes back everything a rule granted. The rule's switch in the kernel is thrown by
    /// the caller first; this only tidies the table.
    pub fn remove_rule(&self, rule: u32) -> Result<(), KeeperError> {
        let mut ledger = self.ledger();
        self.carry_out(ledger.remove_rule(rule))
    }

    /// Takes back every grant that is not kept, whichever rules hold it. When it returns
    /// `Ok`, the kernel has none of them.
    pub fn retain(&self, keep: impl Fn(&GrantKey) -> bool) -> Result<(), KeeperError> {
        let mut ledger = self.ledger();
        let deleted = ledger
            .retain(keep)
            .into_iter()
            .map(|key| self.table.delete(&key));
        // Each is tried, whatever became of the one before.
        deleted.fold(Ok(()), Result::and).map_err(Into::into)
    }

    /// Everything that is granted, as the kernel has it.
    pub fn grants(&self) -> Vec<(GrantKey, Grant)> {
        self.ledger().grants().collect()
    }

    /// Takes what ended before `now_ns` (boot clock) out of the books. The kernel already
    /// refuses those, and says that they have ended for as long as there is room for them.
    pub fn sweep(&self, now_ns: u64) -> Result<(), KeeperError> {
        let mut ledger = self.ledger();
        self.carry_out(ledger.sweep(now_ns))
    }

    /// The name under which an address was last granted.
    pub fn name_of(&self, addr: &Addr) -> Option<String> {
        self.ledger().name_of(addr).map(str::to_owned)
    }

    /// Notes the name of addresses that are answered and not granted: for lines about them.
    pub fn answered(&self, name: &str, addrs: impl Iterator<Item = Addr>) {
        let mut ledger = self.ledger();
        addrs.for_each(|addr| ledger.answered(name, addr));
    }

    /// The name under which an address was last answered without a grant.
    pub fn answered_as(&self, addr: &Addr) -> Option<String> {
        self.ledger().answered_as(addr).map(str::to_owned)
    }

    /// Destinations granted now.
    pub fn len(&self) -> usize {
        self.ledger().len()
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.ledger().is_empty()
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
    fn put(&self, ledger: &mut Ledger, key: &GrantKey, grant: &Grant) -> Result<(), TableError> {
        loop {
            match self.table.put(key, grant) {
                Err(TableError::Full) => {
                    let gone = ledger.forget_ended(ROOM);
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
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
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
}
