//! What a start is made of: layers, unix sockets, what the launcher is told.

use std::{ffi::OsString, path::PathBuf};

use egress_common::abi::OWN_FOLDER;

use super::{Run, RunError};
use crate::{
    host::layers::{Layer, Layers},
    kernel::{
        Plane,
        instance::Instance,
        lsm::{self, LsmError, LsmPrograms},
        unix::UnixError,
    },
    launch::{
        self, Spec, UnixSockets,
        canary::Song,
        env,
        scope::{self, Landlocked},
    },
    policy::model::{Mode, Policy, Rule, Target},
};

/// Attaches the programs for security modules and shows that they fire. After an error they
/// are gone again.
pub(super) fn secured(instance: &Instance, modules: &LsmPrograms) -> Result<(), LsmError> {
    modules.attach(instance.parent().path(), instance.pins())?;
    let silent = match launch::canary::send(instance.parent().path()) {
        Song::Fires => return Ok(()),
        Song::Silent => LsmError::Silent,
        Song::Unproven(why) => LsmError::Unproven(why),
    };
    // A pin that stays can refuse only more.
    let _stays_closed = lsm::detach(instance.pins());
    Err(silent)
}

/// Which layers hold for this run. Fails where the policy requires others.
pub(super) fn layers(policy: &Policy, plane: &Plane) -> Result<Layers, RunError> {
    let mut layers = launch::layers::find(plane);
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

/// What the launcher is to do about unix sockets. Fails where rules name some that this
/// kernel cannot tell from others.
pub(super) fn unix_sockets(
    policy: &Policy,
    hooks: Result<(), &UnixError>,
) -> Result<UnixSockets, RunError> {
    let names = policy.allow.iter().filter_map(|rule| match &rule.target {
        Target::Unix(name) => Some(name.as_str()),
        Target::Host(_) | Target::Cidr(_) => None,
    });
    let (abstracts, paths): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with('@'));
    let enforced = policy.mode == Mode::Enforce;
    if let (Err(error), true, Some(name)) =
        (hooks, enforced, paths.first().or_else(|| abstracts.first()))
    {
        return Err(RunError::Unix {
            name: (*name).to_owned(),
            error: error.to_string(),
        });
    }
    let offered = scope::supported();
    Ok(UnixSockets {
        sockets: hooks.is_ok() || !enforced,
        landlock: Landlocked {
            paths: enforced && offered.paths,
            // The scope knows no exceptions: with a foreign socket to reach, names decide.
            abstracts: enforced && offered.abstracts && abstracts.is_empty(),
        },
        paths: paths.into_iter().map(PathBuf::from).collect(),
    })
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
    }
}
