//! What a start is made of: layers, unix sockets, what the launcher is told.

use std::ffi::OsString;

use egress_common::abi::OWN_FOLDER;

use super::{Run, RunError};
use crate::{
    host::{
        layers::{Layer, Layers},
        memory,
    },
    kernel::{
        Plane,
        instance::Instance,
        lsm::{LsmError, LsmPrograms},
    },
    launch::{self, Spec, UnixSockets, canary, env},
    policy::model::{Mode, Policy, Rule, Target},
};

/// The programs for security modules, where a canary shows that they fire.
pub(super) fn proven(instance: &Instance, plane: &mut Plane) -> Result<LsmPrograms, LsmError> {
    let modules = plane.take_lsm()?;
    canary::prove(modules, instance.parent().path())
}

/// Which layers hold for this run. Fails where the policy requires others.
pub(super) fn layers(
    policy: &Policy,
    plane: &Plane,
    modules: Option<&LsmError>,
) -> Result<Layers, RunError> {
    let mut layers = launch::layers::find(plane, modules);
    let is_abstract =
        |rule: &Rule| matches!(&rule.target, Target::Unix(name) if name.starts_with('@'));
    if policy.allow.iter().any(is_abstract) {
        let why = "a rule names an abstract unix socket, and then names decide";
        layers = layers.without(Layer::LandlockScope, why);
    }
    layers.require(&policy.require)?;
    Ok(layers)
}

/// Those of the layers that are used: not all are where nothing is refused.
pub(super) fn used(layers: &Layers, mode: Mode) -> Layers {
    let why = "the connector is only audited";
    match mode {
        Mode::Enforce => layers.clone(),
        Mode::Audit => [Layer::Landlock, Layer::LandlockScope]
            .into_iter()
            .fold(layers.clone(), |layers, layer| layers.without(layer, why)),
    }
}

/// What the launcher is told.
pub(super) fn spec(run: &Run, instance: &Instance, unix: UnixSockets) -> Spec {
    let name = run
        .user
        .name
        .clone()
        .unwrap_or_else(|| run.user.uid.to_string());
    let own = OsString::from(OWN_FOLDER.trim_end_matches('/'));
    let identity = [
        ("HOME", run.user.home.clone().into_os_string()),
        ("USER", OsString::from(&name)),
        ("LOGNAME", OsString::from(&name)),
        ("SHELL", run.user.shell.clone().into_os_string()),
    ];
    // Where the connector's own unix sockets work.
    let folders = [("TMPDIR", own.clone()), ("XDG_RUNTIME_DIR", own)];
    let block = run.policy.run.as_ref().and_then(|run| run.env.as_ref());
    Spec {
        cgroup_procs: instance.copy().path().join("cgroup.procs"),
        uid: run.user.uid,
        gid: run.user.gid,
        groups: run.user.groups.clone(),
        command: run.command.clone(),
        env: env::build(block, run.caller_env.iter().cloned(), &identity, &folders),
        enforced: run.policy.mode == Mode::Enforce,
        unix,
        inherited: run.inherited.clone(),
        oom_score_adj: memory::spare(),
    }
}
