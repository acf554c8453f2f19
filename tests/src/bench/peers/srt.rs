//! Anthropic's sandbox-runtime: bubblewrap without a network, and two proxies of Node.js that
//! socat joins to it.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{
    errand::Proxy,
    peer::{Kind, Peer, Place, Stage, Start},
    squid::{refuses, tunnels_only},
};
use crate::bench::{
    lane::Process,
    scene::{NAME, NAMED, NAMED6, Scene},
};

/// Sets it up.
pub(super) fn make(stage: &Stage<'_>) -> Result<Peer> {
    let folder = stage.programs.join("npm/node_modules");
    let (node, cli) = (
        folder.join("node/bin/node"),
        folder.join("@anthropic-ai/sandbox-runtime/dist/cli.js"),
    );
    ensure!(
        node.exists() && cli.exists(),
        "sandbox-runtime could not be installed"
    );
    let world = &stage.scene.world;
    let settings = world.path("srt.json");
    // It connects to an address of its own host only where that is permitted, too.
    let allowed = [NAME.to_owned(), NAMED.to_string(), format!("[{NAMED6}]")];
    let policy = json!({
        "network": { "allowedDomains": allowed, "deniedDomains": [] },
        "filesystem": { "denyRead": [], "allowWrite": [world.dir()], "denyWrite": [] },
    });
    fs::write(&settings, policy.to_string())?;
    // It makes files where it is, and the connectors' home is not root's.
    let home = world.path("home");
    fs::create_dir(&home)?;
    let command = move |scene: &Scene, words: &[&str]| {
        let mut command = scene.world.command("sh");
        command.env("HOME", &home);
        command.args(["-c", "cd \"$HOME\" && exec \"$@\"", "sh"]);
        command
            .arg(&node)
            .arg(&cli)
            .arg("--settings")
            .arg(&settings)
            .args(words);
        command
    };
    let bench = world.bin("bench");
    let mut worker = Process::start(command(stage.scene, &[&bench, "worker"]))
        .context("sandbox-runtime does not start here")?;
    let (proxy, authority) = (Proxy::Environment, stage.scene.authority.clone());
    refuses(&mut worker, &proxy, &authority)?;
    Ok(Peer {
        name: "srt",
        kind: Kind::Proxy,
        place: Place::Own(worker),
        proxy,
        authority,
        lacks: tunnels_only,
        rules: None,
        daemon: None,
        start: Start::Command(Box::new(move |scene| Ok(command(scene, &["/bin/true"])))),
    })
}
