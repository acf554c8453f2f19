//! Which layers of the boundary hold on this host.

use std::fs;

use super::scope;
use crate::{
    host::layers::{Layer, Layers},
    kernel::{Plane, lsm::LsmError},
};

/// Which system calls a filter can refuse, and how (`seccomp(2)`); Linux 5.0.
const SECCOMP_ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// Asks the loaded data plane, and the kernel for what the launcher does. `modules`: why there
/// are no programs for security modules, if the canary says so.
pub fn find(plane: &Plane, modules: Option<&LsmError>) -> Layers {
    let landlock = scope::supported();
    Layers::find(|layer| match layer {
        // Without one of these the data plane does not load.
        Layer::Connect | Layer::Sendmsg | Layer::Socket | Layer::Packet | Layer::Sockopt => None,
        // Every kernel that is supported has it.
        Layer::Processes => None,
        Layer::Unix => plane.unix().err().map(ToString::to_string),
        Layer::Seccomp => seccomp(),
        Layer::Landlock => (!landlock.paths).then(|| NO_LANDLOCK.to_owned()),
        Layer::LandlockScope => (!landlock.abstracts).then(|| NO_LANDLOCK.to_owned()),
        Layer::SignalScope => (!landlock.signals).then(|| NO_LANDLOCK.to_owned()),
        Layer::Lsm => modules.map(ToString::to_string),
        Layer::Sni => plane.sni().err().map(ToString::to_string),
    })
}

const NO_LANDLOCK: &str = "the kernel is too old for it, or Landlock is not in its list of security \
                           modules (lsm= on its command line)";

fn seccomp() -> Option<String> {
    match fs::read_to_string(SECCOMP_ACTIONS) {
        Ok(actions)
            if actions
                .split_whitespace()
                .any(|action| action == "user_notif") =>
        {
            None
        }
        Ok(_) => Some(format!("{SECCOMP_ACTIONS} does not name “user_notif”")),
        Err(error) => Some(format!("{SECCOMP_ACTIONS} cannot be read: {error}")),
    }
}
