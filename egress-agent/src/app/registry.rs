//! The instances that a daemon has started and that still run.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;

use super::outside::Order;
use crate::{
    control::{Peer, protocol::Row},
    exit,
};

/// Instances that one user may have at a time, unless it is root.
const EACH: usize = 256;

/// One of them.
pub(super) struct Entry {
    /// Its connector.
    pub(super) connector: String,
    /// Who started it.
    pub(super) caller: u32,
    /// As whom it runs; `None`: not known yet.
    pub(super) uid: Option<u32>,
    /// Number of its first process; `None`: it is being started.
    pub(super) pid: Option<u32>,
    /// `enforce` or `audit`.
    pub(super) mode: &'static str,
    /// When it began.
    pub(super) since: Instant,
    /// What it is told.
    pub(super) orders: mpsc::Sender<Order>,
}

/// All of them, by name.
#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<String, Entry>>);

impl Registry {
    /// Takes one in; it goes with [`Registry::remove`].
    pub(super) fn add(&self, name: &str, entry: Entry) -> Result<(), (u8, String)> {
        let mut all = self.all();
        let own = all.values().filter(|it| it.caller == entry.caller).count();
        if entry.caller != 0 && own >= EACH {
            let told = format!("you have {own} connectors running, and may have no more: end some");
            return Err((exit::AGENT_FAILED, told));
        }
        all.insert(name.to_owned(), entry);
        Ok(())
    }

    /// It runs.
    pub(super) fn runs(&self, name: &str, pid: u32) {
        if let Some(entry) = self.all().get_mut(name) {
            entry.pid = Some(pid);
        }
    }

    /// It is over.
    pub(super) fn remove(&self, name: &str) {
        self.all().remove(name);
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Those that somebody may see.
    pub(super) fn rows(&self, peer: &Peer, operates: bool) -> Vec<Row> {
        let all = self.all();
        let seen = all
            .iter()
            .filter(|(_, it)| operates || it.caller == peer.uid);
        seen.map(|(name, it)| Row {
            instance: name.clone(),
            connector: it.connector.clone(),
            caller: Some(it.caller),
            uid: it.uid,
            pid: it.pid,
            age: Some(it.since.elapsed().as_secs()),
            state: if it.pid.is_some() {
                "running"
            } else {
                "starting"
            }
            .to_owned(),
            mode: Some(it.mode.to_owned()),
        })
        .collect()
    }

    /// Whom to tell something: the instances of a name, or of a connector, that somebody may see.
    pub(super) fn of(
        &self,
        peer: &Peer,
        operates: bool,
        what: &str,
    ) -> Vec<(String, mpsc::Sender<Order>)> {
        let all = self.all();
        all.iter()
            .filter(|(_, it)| operates || it.caller == peer.uid)
            .filter(|(name, it)| *name == what || it.connector == what)
            .map(|(name, it)| (name.clone(), it.orders.clone()))
            .collect()
    }

    /// Each change is whole.
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
