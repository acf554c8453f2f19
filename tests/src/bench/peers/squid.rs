//! Squid as an allowlisting proxy: clients ask it for a tunnel (`CONNECT`) to a name. It looks
//! at no byte of what passes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{
    case::Case,
    daemon::Daemon,
    errand::{Errand, Proxy, Way},
    ours,
    peer::{Kind, Peer, Place, Stage, Start},
};
use crate::bench::{
    job::Job,
    lane::Process,
    scene::{NAME, NAMED, Scene, at},
    server::HTTPS,
};

const PORT: u16 = 3128;
/// A name that no peer permits.
const STRANGER: &str = "other.example";

/// Sets it up.
pub(super) fn make(stage: &Stage<'_>) -> Result<Peer> {
    let started = daemon(stage.scene, PORT)?;
    let authority = stage.scene.authority.clone();
    let peer = proxied(stage, "squid", started, PORT, authority)?;
    Ok(Peer {
        // Not the port of the one that is measured.
        start: Start::Daemon(Box::new(|scene| daemon(scene, PORT + 1))),
        ..peer
    })
}

/// A peer whose clients are told of a proxy and are confined by nothing else.
pub(super) fn proxied(
    stage: &Stage<'_>,
    name: &'static str,
    daemon: Daemon,
    port: u16,
    authority: PathBuf,
) -> Result<Peer> {
    let proxy = Proxy::At(([127, 0, 0, 1], port).into());
    let mut place = ours::worker(stage, name)?;
    if let Place::Own(worker) = &mut place {
        refuses(worker, &proxy, &authority)?;
    }
    Ok(Peer {
        name,
        kind: Kind::Proxy,
        place,
        proxy,
        authority,
        lacks: tunnels_only,
        rules: None,
        daemon: Some(daemon),
        start: Start::None("not measured"),
    })
}

/// What an HTTP proxy has no way for.
pub(super) fn tunnels_only(case: Case) -> Option<&'static str> {
    match case {
        Case::Datagrams => Some("an HTTP proxy carries no UDP"),
        Case::Name => Some("the proxy looks names up itself"),
        _ => None,
    }
}

/// That the permitted name is reached and another is not.
pub(super) fn refuses(worker: &mut Process, proxy: &Proxy, authority: &Path) -> Result<()> {
    let get = |name: &str| Job::Errand {
        way: Way {
            to: at(NAMED, HTTPS),
            name: name.to_owned(),
            proxy: proxy.clone(),
            authority: authority.to_owned(),
        },
        errand: Errand::Gets {
            count: 1,
            kept: false,
        },
    };
    worker
        .work(&get(NAME))
        .context("it refuses what it permits")?;
    let other = worker.work(&get(STRANGER));
    ensure!(other.is_err(), "it does not refuse here");
    Ok(())
}

fn daemon(scene: &Scene, port: u16) -> Result<Daemon> {
    let world = &scene.world;
    let file = world.path("squid.conf");
    fs::write(
        &file,
        format!(
            "http_port 127.0.0.1:{port}\n\
             acl permitted dstdomain {NAME}\n\
             http_access allow permitted\n\
             http_access deny all\n\
             cache deny all\n\
             access_log none\n\
             cache_log /dev/null\n\
             pid_filename none\n\
             visible_hostname bench\n\
             shutdown_lifetime 0 seconds\n"
        ),
    )?;
    let mut command = world.command("squid");
    // Without a name of its own it would share memory with another one, or with what a killed
    // one left.
    command.args([
        "-N",
        "-d",
        "1",
        "-n",
        &format!("bench{}x{port}", std::process::id()),
    ]);
    command.arg("-f").arg(&file);
    Daemon::start(command, port, &world.path("squid.out"))
}
