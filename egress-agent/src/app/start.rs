//! What a start is made of: layers, unix sockets, what the launcher is told.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use egress_common::abi::OWN_FOLDER;

use super::{Run, RunError};
use crate::{
    host::{
        layers::{Layer, Layers},
        memory,
        switch::{self, Part},
        temporary::{Owner, Temporary},
    },
    instance::DataPlane,
    kernel::{instance::Instance, lsm::LsmError},
    launch::{self, Spec, UnixSockets, binds::Binds, canary, env, identity, pinned},
    policy::{
        model::{Mode, Policy, Processes, Rule},
        session::Session,
    },
};

/// Shows once that the programs for security modules fire.
pub(super) fn proven(instance: &Instance, plane: &DataPlane) -> Result<(), LsmError> {
    let modules = plane.modules(|modules| canary::prove(modules, instance.parent().path()));
    modules.as_ref().map(drop).map_err(Clone::clone)
}

/// Which layers hold for this connector. Fails where the policy requires others.
pub(super) fn layers(
    policy: &Policy,
    plane: &DataPlane,
    modules: Option<&LsmError>,
) -> Result<Layers, RunError> {
    let mut layers = launch::layers::find(&plane.plane(), modules);
    let is_abstract = |rule: &Rule| {
        rule.target
            .socket()
            .is_some_and(|name| name.starts_with('@'))
    };
    if policy.allow.iter().any(is_abstract) {
        let why = "a rule names an abstract unix socket, and then names decide";
        layers = layers.without(Layer::LandlockScope, why);
    }
    if has_host_processes(policy) {
        layers = layers.without(
            Layer::Processes,
            "the policy asks for the host's (run.processes)",
        );
    }
    layers.require(&policy.require)?;
    Ok(layers)
}

/// Those of the layers that are used: not all are where nothing is refused.
pub(super) fn used(layers: &Layers, mode: Mode) -> Layers {
    let why = "the connector is only audited";
    match mode {
        Mode::Enforce => layers.clone(),
        Mode::Audit => [Layer::Landlock, Layer::LandlockScope, Layer::SignalScope]
            .into_iter()
            .fold(layers.clone(), |layers, layer| layers.without(layer, why)),
    }
}

/// The temporary folder that the connector shares with its caller. `Ok(None)`: it needs none,
/// because it can make no unix sockets or the policy names another.
pub(super) fn temporary(
    run: &Run,
    instance: &Instance,
    unix: &UnixSockets,
    plane: &DataPlane,
) -> io::Result<Option<Temporary>> {
    let block = run.policy.run.as_ref().and_then(|run| run.env.as_ref());
    let named = block.is_some_and(|env| env.set.contains_key("TMPDIR"));
    if !unix.sockets || named || switch::is_off(Part::Mounts) {
        return Ok(None);
    }
    if !plane.plane().leads_unix() {
        return Err(io::Error::other(
            "the kernel does not let programs lead a unix socket's address elsewhere",
        ));
    }
    let wish = run.caller_env.iter().find(|(name, _)| name == "TMPDIR");
    let owner = Owner {
        uid: run.user.uid,
        gid: run.user.gid,
        groups: &run.user.groups,
    };
    Temporary::make(
        instance.name(),
        wish.map(|(_, path)| Path::new(path)),
        owner,
    )
    .map(Some)
}

/// Where the connector can make unix sockets.
pub(super) fn binds(spec: &Spec) -> Binds {
    let own = PathBuf::from(OWN_FOLDER);
    let temporary = spec.temporary.as_ref().map(Temporary::path);
    Binds {
        own: [own].into_iter().chain(temporary).collect(),
        enforced: spec.enforced,
    }
}

fn has_host_processes(policy: &Policy) -> bool {
    let run = policy.run.as_ref();
    run.is_some_and(|run| run.processes == Processes::Host)
}

/// What the launcher is told.
pub(super) fn spec(
    run: &Run,
    instance: &Instance,
    unix: UnixSockets,
    temporary: Option<Temporary>,
) -> Spec {
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
    let runtime = Session::runtime_dir(&run.policy).map(PathBuf::into_os_string);
    let mut folders = vec![("XDG_RUNTIME_DIR", runtime.unwrap_or_else(|| own.clone()))];
    match &temporary {
        Some(temporary) => folders.push(("TMPDIR", temporary.path().into_os_string())),
        // Where it can make no sockets, the caller's own is as good as any.
        None if unix.sockets => folders.push(("TMPDIR", own)),
        None => {}
    }
    let wishes = run.policy.run.as_ref();
    let pinned = pinned::of(&run.policy);
    let block = wishes.and_then(|run| run.env.as_ref());
    let mut env = env::build(block, run.caller_env.iter().cloned(), &identity, &folders);
    if pinned.is_some() {
        pinned::close(&mut env);
    }
    Spec {
        cgroup_procs: instance.copy().path().join("cgroup.procs"),
        uid: run.user.uid,
        gid: run.user.gid,
        groups: run.user.groups.clone(),
        command: run.command.clone(),
        env,
        enforced: run.policy.mode == Mode::Enforce,
        unix,
        inherited: run.inherited.clone(),
        cwd: run.cwd.clone(),
        search: run.search.clone(),
        temporary,
        oom_score_adj: memory::spare(),
        entries: identity::missing(&run.user),
        trust: None,
        host_processes: has_host_processes(&run.policy),
        pinned,
        devices: wishes.map(|run| run.devices.clone()).unwrap_or_default(),
    }
}
