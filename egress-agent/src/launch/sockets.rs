//! What a policy and this kernel make of the connector's unix sockets.

use std::path::PathBuf;

use super::{
    scope::{self, Landlocked},
    spec::UnixSockets,
};
use crate::{
    kernel::unix::UnixError,
    policy::model::{Mode, Policy},
};

/// A rule for a unix socket on a kernel that cannot judge those.
#[derive(Debug, thiserror::Error)]
#[error(
    "the rule for the unix socket {name} cannot be enforced: {error}; take the rule out, or use Linux 6.7 or newer"
)]
pub struct Unenforceable {
    name: String,
    error: String,
}

/// What the launcher is to do about unix sockets. Fails where rules name some that this
/// kernel cannot tell from others.
pub fn unix_sockets(
    policy: &Policy,
    hooks: Result<(), &UnixError>,
) -> Result<UnixSockets, Unenforceable> {
    let names = policy.allow.iter().filter_map(|rule| rule.target.socket());
    let (abstracts, paths): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with('@'));
    let enforced = policy.mode == Mode::Enforce;
    if let (Err(error), true, Some(name)) =
        (hooks, enforced, paths.first().or_else(|| abstracts.first()))
    {
        return Err(Unenforceable {
            name: (*name).to_owned(),
            error: error.to_string(),
        });
    }
    let offered = scope::supported();
    Ok(UnixSockets {
        sockets: hooks.is_ok() || !enforced,
        binds: offered.paths && hooks.is_ok(),
        landlock: Landlocked {
            paths: enforced && offered.paths,
            // The scope knows no exceptions: with a foreign socket to reach, names decide.
            abstracts: enforced && offered.abstracts && abstracts.is_empty(),
            signals: enforced && offered.signals,
        },
        paths: paths.into_iter().map(PathBuf::from).collect(),
    })
}
