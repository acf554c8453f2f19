//! The policies that a daemon knows: the last sound one of each connector, and what is wrong with
//! its file now.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    control::Peer,
    host::user::{group_number, user_number},
    policy::{Loaded, load, model::Starters},
    reload::say,
};

/// A connector's policy, as it was read last without a fault.
pub(super) struct Known {
    /// The policy, and the way to its file.
    pub(super) loaded: Loaded,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Known {
    /// Whether somebody may start the connector.
    pub(super) fn permits(&self, peer: &Peer) -> bool {
        peer.uid == 0
            || self.users.contains(&peer.uid)
            || self.groups.iter().any(|group| peer.is_in(*group))
    }
}

/// All of them.
pub(super) struct Policies {
    folder: PathBuf,
    all: Mutex<All>,
}

#[derive(Clone, Default)]
struct All {
    known: BTreeMap<String, Arc<Known>>,
    /// What is wrong with the file of a known connector.
    faults: BTreeMap<String, String>,
    /// What is wrong with others.
    others: Vec<String>,
}

/// A connector, and what is wrong with its file now.
pub(super) type Entry = (String, Arc<Known>, Option<String>);

impl Policies {
    /// Reads a folder.
    pub(super) fn read(folder: &Path) -> Self {
        let policies = Self {
            folder: folder.to_owned(),
            all: Mutex::default(),
        };
        policies.read_again();
        policies
    }

    /// Reads the folder again. A connector whose file is faulty keeps the policy it had. Blocks:
    /// it asks the user database for names.
    pub(super) fn read_again(&self) {
        let before = self.all().clone();
        let mut now = All::default();
        let files = match load::list(&self.folder) {
            Ok(files) => files,
            Err(faults) => {
                // A folder that cannot be read takes nothing away.
                let mut all = self.all();
                all.others = vec![say::faults(&faults)];
                return;
            }
        };
        for file in files {
            match load::load_traced(&file) {
                Ok(loaded) => now.add(loaded),
                Err(faults) => {
                    let told = say::faults(&faults);
                    let mut had = before.known.iter();
                    match had.find(|(_, known)| known.loaded.policy.source == file) {
                        Some((name, known)) => {
                            now.known.entry(name.clone()).or_insert(Arc::clone(known));
                            now.faults.insert(name.clone(), told);
                        }
                        None => now.others.push(told),
                    }
                }
            }
        }
        *self.all() = now;
    }

    /// The policy of a connector. One whose file came since the folder was read is found as well.
    pub(super) fn find(&self, connector: &str) -> Option<Arc<Known>> {
        if let Some(known) = self.all().known.get(connector) {
            return Some(Arc::clone(known));
        }
        let file = self.folder.join(format!("{connector}.yaml"));
        if connector.contains('/') || !file.exists() {
            return None;
        }
        self.read_again();
        self.all().known.get(connector).cloned()
    }

    /// Every connector.
    pub(super) fn list(&self) -> Vec<Entry> {
        let all = self.all();
        let entry = |(name, known): (&String, &Arc<Known>)| {
            (
                name.clone(),
                Arc::clone(known),
                all.faults.get(name).cloned(),
            )
        };
        all.known.iter().map(entry).collect()
    }

    /// What is wrong with files that are no connector's.
    pub(super) fn others(&self) -> Vec<String> {
        self.all().others.clone()
    }

    /// Changed as a whole.
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn add(&mut self, loaded: Loaded) {
        let name = loaded.policy.connector.clone();
        let file = loaded.policy.source.display().to_string();
        if let Some(other) = self.known.get(&name) {
            self.others.push(format!(
                "{file}: the connector “{name}” has a policy in {} already; remove one of them",
                other.loaded.policy.source.display()
            ));
            return;
        }
        let Starters { users, groups } = &loaded.policy.starters;
        let mut unknown = Vec::new();
        let mut numbers = |names: &[String], number: fn(&str) -> Option<u32>, what: &str| {
            let mut all = Vec::new();
            for name in names {
                match number(name) {
                    Some(number) => all.push(number),
                    // The group of the default needs not be there.
                    None if name == Starters::GROUP => {}
                    None => unknown.push(format!("there is no {what} “{name}”")),
                }
            }
            all
        };
        let users = numbers(users, user_number, "user");
        let groups = numbers(groups, group_number, "group");
        if !unknown.is_empty() {
            let told = format!(
                "{file}: {}; nobody else is let in for it",
                unknown.join(", ")
            );
            self.faults.insert(name.clone(), told);
        }
        let known = Known {
            loaded,
            users,
            groups,
        };
        self.known.insert(name, Arc::new(known));
    }
}
