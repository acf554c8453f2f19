//! Which layers of the boundary hold on this host.

use std::fs;

use super::scope;
use crate::{
    host::layers::{Layer, Layers},
    kernel::Plane,
};

/// Which system calls a filter can refuse, and how (`seccomp(2)`); Linux 4.14.
const SECCOMP_ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// Asks the loaded data plane, and the kernel for what the launcher does.
pub fn find(plane: &Plane) -> Layers {
    let landlock = scope::supported();
    Layers::find(|layer| match layer {
        // Without one of these the data plane does not load.
        Layer::Connect | Layer::Sendmsg | Layer::Socket | Layer::Packet | Layer::Sockopt => None,
        Layer::Unix => plane.unix().err().map(ToString::to_string),
        Layer::Seccomp => seccomp(),
        Layer::Landlock => (!landlock.paths).then(|| NO_LANDLOCK.to_owned()),
        Layer::LandlockScope => (!landlock.abstracts).then(|| NO_LANDLOCK.to_owned()),
        Layer::Lsm => Some("this version has no programs for it".to_owned()),
        Layer::Sni => Some("this version has no programs for it".to_owned()),
    })
}

const NO_LANDLOCK: &str = "the kernel is too old for it, or Landlock is not in its list of security \
                           modules (lsm= on its command line)";

fn seccomp() -> Option<String> {
    match fs::read_to_string(SECCOMP_ACTIONS) {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => None,
        Ok(_) => Some(format!("{SECCOMP_ACTIONS} does not name “errno”")),
        Err(error) => Some(format!("{SECCOMP_ACTIONS} cannot be read: {error}")),
    }
}
