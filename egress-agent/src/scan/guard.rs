//! The policy of a server that the agent is in front of, looked up and never trusted.

use std::{
    io,
    path::{Component, Path},
};

use egress_sys::as_user;
use nix::unistd::geteuid;

use super::program::Agent;
use crate::{
    host::{User, trust::Way},
    policy::{Fault, Faults, Loaded, Policy, changeable_by, find, load_traced},
};

/// What is known about it.
#[derive(Debug)]
pub enum Guard {
    /// It cannot be looked at from here.
    Unknown,
    /// There is none; where it was looked for.
    Missing(String),
    /// It cannot be used; its first fault.
    Faulty(Fault),
    /// It is this.
    Known(Box<Known>),
}

/// A policy and its file.
#[derive(Debug)]
pub struct Known {
    /// The policy.
    pub policy: Policy,
    /// Whole days since the file was changed.
    pub days: u64,
    /// How the server's user could change it.
    pub changeable: Option<String>,
}

/// Looks for the policy that the agent's words name, in one folder after the other. A file that somebody's configuration names
/// is read with that user's rights, the folder of policies with the caller's.
pub fn look(agent: &Agent, user: &User, folders: &[&Path], now: i64) -> Guard {
    let mut last = Guard::Unknown;
    for folder in folders {
        match in_folder(agent, user, folder, now) {
            missing @ Guard::Missing(_) => last = missing,
            found => return found,
        }
    }
    last
}

fn in_folder(agent: &Agent, user: &User, folder: &Path, now: i64) -> Guard {
    let loaded = match (&agent.policy, &agent.connector) {
        (Some(file), _) => {
            let path = Path::new(file);
            if !path.is_absolute() || file.contains('$') {
                return Guard::Unknown;
            }
            by_file(path, user, folder)
        }
        (None, Some(connector)) if !connector.contains(['$', '{']) => by_name(connector, folder),
        (None, _) => return Guard::Unknown,
    };
    match loaded {
        Ok(loaded) => {
            let age = now.saturating_sub(loaded.way.changed()).max(0);
            let looked = match geteuid().is_root() && !user.is_root() {
                true => changeable_by(&loaded, user),
                false => Ok(None),
            };
            // The agent would not start with it either.
            let changeable = match looked {
                Ok(changeable) => changeable,
                Err(faults) => return first(faults),
            };
            Guard::Known(Box::new(Known {
                days: u64::try_from(age / 86_400).unwrap_or_default(),
                changeable: changeable.map(|found| found.to_string()),
                policy: loaded.policy,
            }))
        }
        Err(guard) => guard,
    }
}

fn by_file(path: &Path, user: &User, folder: &Path) -> Result<Loaded, Guard> {
    let load = || match Way::open(path) {
        Err(error) => Err(unopened(&error, path)),
        Ok(_) => load_traced(path).map_err(first),
    };
    let plain = path.components().all(|part| part != Component::ParentDir);
    if !geteuid().is_root() || (plain && path.starts_with(folder)) {
        return load();
    }
    as_user(user.uid, user.gid, &user.groups, load).unwrap_or(Err(Guard::Unknown))
}

fn by_name(connector: &str, folder: &Path) -> Result<Loaded, Guard> {
    if let Err(error) = std::fs::read_dir(folder) {
        return Err(unopened(&error, folder));
    }
    find(folder, connector).map_err(|faults| {
        let faults = faults.into_vec();
        let missing = faults.iter().any(|fault| fault.file == folder);
        let own = |fault: &&Fault| fault.file.file_stem().is_some_and(|stem| stem == connector);
        // What this caller may not read, the agent, which is root, may.
        if faults
            .iter()
            .any(|fault| fault.message.starts_with("cannot be read"))
        {
            return Guard::Unknown;
        }
        match faults.iter().find(own) {
            Some(fault) => Guard::Faulty(fault.clone()),
            None if missing => Guard::Missing(folder.display().to_string()),
            None => faults
                .into_iter()
                .next()
                .map_or(Guard::Unknown, Guard::Faulty),
        }
    })
}

fn unopened(error: &io::Error, path: &Path) -> Guard {
    match error.kind() {
        io::ErrorKind::NotFound => Guard::Missing(path.display().to_string()),
        _ => Guard::Unknown,
    }
}

fn first(faults: Faults) -> Guard {
    let first = faults.into_vec().into_iter().next();
    first.map_or(Guard::Unknown, Guard::Faulty)
}
