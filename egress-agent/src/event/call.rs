//! Refused system calls on their way to a line: what is counted, and what is shown of it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use egress_common::verdict::Reason;

/// The same call of programs with the same name is shown this often. Nanoseconds. Runtimes try
/// some at each start to see what they may use.
const SHOWN_EVERY_NS: u64 = 60_000_000_000;
/// Calls and programs that are told apart; beyond that nothing is held back for a while.
const MAX_KEPT: usize = 1024;

/// One refused call, with those like it that were not shown before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedCall {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    /// The call's name.
    pub name: &'static str,
    /// Why it was refused.
    pub reason: Reason,
    /// Process that called, on the host; 0 = it was gone.
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Name of the thread that called, NUL-padded.
    pub comm: [u8; 16],
    /// At least 1.
    pub count: u64,
    /// Path of the unix socket that was to be made, where it was that.
    pub path: Option<Vec<u8>>,
    /// The connector is only audited: it was carried out.
    pub audited: bool,
}

/// How many calls were refused, exactly, by reason.
#[derive(Debug)]
pub struct CallStats([AtomicU64; Reason::ALL.len()]);

impl Default for CallStats {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::ALL.len()])
    }
}

impl CallStats {
    /// One more.
    pub fn count(&self, reason: Reason) {
        if let Some(counter) = self.counter(reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All so far.
    pub fn refused(&self, reason: Reason) -> u64 {
        let counter = self.counter(reason);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn counter(&self, reason: Reason) -> Option<&AtomicU64> {
        let place = Reason::ALL.iter().position(|known| *known == reason)?;
        self.0.get(place)
    }
}

/// Which calls are shown.
#[derive(Debug, Default)]
pub struct CallRepeats(HashMap<Key, (u64, u64)>);

/// Call, reason, name of the program, and path where there is one.
type Key = (&'static str, Reason, [u8; 16], Option<Vec<u8>>);

impl CallRepeats {
    /// Whether a call is shown now; then for how many it stands.
    pub fn shows(
        &mut self,
        name: &'static str,
        reason: Reason,
        comm: [u8; 16],
        path: Option<&[u8]>,
        now_ns: u64,
    ) -> Option<u64> {
        let key = (name, reason, comm, path.map(<[u8]>::to_vec));
        if self.0.len() >= MAX_KEPT {
            self.0.clear();
        }
        match self.0.get_mut(&key) {
            Some((shown_ns, hidden)) if now_ns.saturating_sub(*shown_ns) < SHOWN_EVERY_NS => {
                *hidden = hidden.saturating_add(1);
                None
            }
            Some((shown_ns, hidden)) => {
                let count = hidden.saturating_add(1);
                (*shown_ns, *hidden) = (now_ns, 0);
                Some(count)
            }
            None => {
                self.0.insert(key, (now_ns, 0));
                Some(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_counted_and_shown_a_minute_later() {
        let mut repeats = CallRepeats::default();
        let mut shows =
            |name, comm: u8, now| repeats.shows(name, Reason::IoUring, [comm; 16], None, now);
        assert_eq!(shows("a", 1, 5), Some(1));
        assert_eq!(shows("a", 1, 6), None);
        assert_eq!(shows("b", 1, 6), Some(1));
        assert_eq!(shows("a", 2, 6), Some(1));
        assert_eq!(shows("a", 1, 7), None);
        assert_eq!(shows("a", 1, 5 + SHOWN_EVERY_NS), Some(3));
        assert_eq!(shows("a", 1, 6 + SHOWN_EVERY_NS), None);
    }

    #[test]
    fn names_without_end_take_no_memory_without_end() {
        let mut repeats = CallRepeats::default();
        for number in 0..10_000_u64 {
            let mut comm = [0; 16];
            comm[..8].copy_from_slice(&number.to_ne_bytes());
            assert_eq!(repeats.shows("a", Reason::IoUring, comm, None, 1), Some(1));
        }
        assert!(repeats.0.len() <= MAX_KEPT);
    }

    #[test]
    fn each_reason_has_its_counter() {
        let stats = CallStats::default();
        for &reason in Reason::ALL {
            stats.count(reason);
            assert_eq!(stats.refused(reason), 1);
        }
    }
}
