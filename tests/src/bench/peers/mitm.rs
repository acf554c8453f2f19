//! mitmproxy with a script that permits names: it ends TLS on both sides, so its clients must
//! take certificates of its own authority.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

use super::{
    daemon::Daemon,
    peer::{Peer, Stage, Start},
    squid::proxied,
};
use crate::bench::scene::{NAME, Scene};

const PORT: u16 = 8080;

/// Sets it up.
pub(super) fn make(stage: &Stage<'_>) -> Result<Peer> {
    let program = stage.programs.join("mitm/bin/mitmdump");
    ensure!(program.exists(), "mitmproxy could not be installed");
    let folder = stage.scene.world.path("mitm");
    let authority = folder.join("mitmproxy-ca-cert.pem");
    let start = move |scene: &Scene, port| daemon(scene, &program, &folder, port);
    let started = start(stage.scene, PORT)?;
    let peer = proxied(stage, "mitmproxy", started, PORT, authority)?;
    Ok(Peer {
        start: Start::Daemon(Box::new(move |scene| start(scene, PORT + 1))),
        ..peer
    })
}

fn daemon(scene: &Scene, program: &Path, folder: &Path, port: u16) -> Result<Daemon> {
    let world = &scene.world;
    let script = world.path("permit.py");
    fs::write(
        &script,
        format!(
            "from mitmproxy import http\n\
             def refuse(flow):\n    \
                 if flow.request.host != '{NAME}':\n        \
                     flow.response = http.Response.make(403)\n\
             http_connect = request = refuse\n"
        ),
    )?;
    let mut command = world.command(program);
    command.env_remove("PYTHONPATH");
    command.args(["--quiet", "--listen-host", "127.0.0.1"]);
    command.args(["--listen-port", &port.to_string()]);
    command.arg("--scripts").arg(&script);
    for setting in [
        format!("confdir={}", folder.display()),
        format!(
            "ssl_verify_upstream_trusted_ca={}",
            scene.authority.display()
        ),
        "connection_strategy=lazy".to_owned(),
    ] {
        command.args(["--set", &setting]);
    }
    Daemon::start(command, port, &world.path("mitm.out"))
}
