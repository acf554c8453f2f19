//! httpjail: a network namespace whose HTTP and HTTPS is led to a proxy that ends TLS.
//!
//! Its build downloads a JavaScript engine, and has not come through so far: this set-up is
//! written after its manual and has not been run. A fault in it would show as "not here".

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{
    case::Case,
    errand::Proxy,
    peer::{Kind, Peer, Place, Stage, Start},
    squid::refuses,
};
use crate::bench::{
    lane::Process,
    scene::{NAME, Scene},
};

/// Sets it up.
pub(super) fn make(stage: &Stage<'_>) -> Result<Peer> {
    let program = stage.programs.join("cargo/bin/httpjail");
    ensure!(
        program.exists(),
        "it could not be installed; its build downloads V8 from github.com"
    );
    let world = &stage.scene.world;
    let home = world.path("home");
    fs::create_dir(&home)?;
    let authority = home.join(".config/httpjail/ca-cert.pem");
    let command = move |scene: &Scene, words: &[&str]| {
        let mut command = scene.world.command(&program);
        command.env("HOME", &home);
        command.args(["--js", &format!("r.host === '{NAME}'"), "--"]);
        command.args(words);
        command
    };
    let bench = world.bin("bench");
    let mut worker = Process::start_deep(command(stage.scene, &[&bench, "worker"]))
        .context("httpjail does not start here")?;
    let proxy = Proxy::None;
    refuses(&mut worker, &proxy, &authority)?;
    Ok(Peer {
        name: "httpjail",
        kind: Kind::Proxy,
        place: Place::Own(worker),
        proxy,
        authority,
        lacks,
        rules: None,
        daemon: None,
        start: Start::Command(Box::new(move |scene| Ok(command(scene, &["/bin/true"])))),
    })
}

fn lacks(case: Case) -> Option<&'static str> {
    match case {
        Case::Name => Some("every name has the same address there"),
        case if case.is_https() => None,
        _ => Some("HTTP and HTTPS alone pass"),
    }
}
