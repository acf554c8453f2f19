//! Landlock (`landlock(7)`): unix sockets that the connector binds stay its own, it reaches no
//! abstract socket of others, and its signals stay inside.
//!
//! No hook sees `bind()` on a unix socket. So its path must lie in the connector's own folder,
//! where nobody outside could call in; and since an abstract name says nothing about who has
//! bound it, the kernel tells own from foreign where no policy needs a foreign one.

use std::path::Path;

use egress_common::abi::OWN_FOLDER;
use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

/// What Landlock is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Landlocked {
    /// Sockets can be bound in the own folder alone (Linux 5.19).
    pub paths: bool,
    /// Abstract sockets of others cannot be reached (Linux 6.12).
    pub abstracts: bool,
    /// Processes outside cannot be signalled (Linux 6.12).
    pub signals: bool,
}

/// What this kernel offers.
pub fn supported() -> Landlocked {
    let none = Landlocked::default();
    Landlocked {
        paths: handled(Landlocked {
            paths: true,
            ..none
        })
        .is_ok(),
        abstracts: handled(Landlocked {
            abstracts: true,
            ..none
        })
        .is_ok(),
        signals: handled(Landlocked {
            signals: true,
            ..none
        })
        .is_ok(),
    }
}

/// Restricts this process and everything it becomes. `no_new_privs` must be set and the own
/// folder mounted. `temporary`: where sockets can be bound, too.
pub fn install(wanted: Landlocked, temporary: Option<&Path>) -> Result<(), String> {
    if wanted == Landlocked::default() {
        return Ok(());
    }
    let status = created(wanted, temporary)
        .map_err(|error| failed(&error))?
        .restrict_self()
        .map_err(|error| failed(&error.to_string()))?;
    if status.ruleset != RulesetStatus::FullyEnforced {
        return Err(failed("the kernel enforces it in part only"));
    }
    Ok(())
}

fn created(wanted: Landlocked, temporary: Option<&Path>) -> Result<RulesetCreated, String> {
    let text = |error: RulesetError| error.to_string();
    let ruleset = handled(wanted).and_then(Ruleset::create).map_err(text)?;
    if !wanted.paths {
        return Ok(ruleset);
    }
    // A ruleset for files forbids moving files between folders unless that is permitted.
    let permitted: [(&Path, BitFlags<AccessFs>); 2] = [
        (Path::new("/"), AccessFs::Refer.into()),
        (Path::new(OWN_FOLDER), AccessFs::MakeSock.into()),
    ];
    permitted
        .into_iter()
        .chain(temporary.map(|folder| (folder, AccessFs::MakeSock.into())))
        .try_fold(ruleset, |ruleset, (path, access)| {
            let folder = PathFd::new(path).map_err(|error| error.to_string())?;
            ruleset
                .add_rule(PathBeneath::new(folder, access))
                .map_err(text)
        })
}

fn handled(wanted: Landlocked) -> Result<Ruleset, RulesetError> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if wanted.paths {
        ruleset = ruleset.handle_access(AccessFs::MakeSock | AccessFs::Refer)?;
    }
    if wanted.abstracts {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    if wanted.signals {
        ruleset = ruleset.scope(Scope::Signal)?;
    }
    Ok(ruleset)
}

fn failed(why: &str) -> String {
    format!(
        "cannot keep unix sockets and signals in with Landlock: {why}; the connector was not started"
    )
}
