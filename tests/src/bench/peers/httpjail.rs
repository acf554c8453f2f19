//! httpjail: a network namespace whose HTTP and HTTPS is led to a proxy that ends TLS.
//!
//! The build of newer versions downloads a JavaScript engine. Where that fails the last version
//! without one is measured, whose rules are regular expressions.

use std::{
    fs,
    process::{Command, Stdio},
};

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
    let says = Command::new(&program).arg("--version").output()?;
    let is_old = says.stdout.starts_with(b"httpjail 0.1.0");
    let rules: Vec<String> = if is_old {
        let pattern = NAME.replace('.', "\\.");
        let rules = [format!("allow: {pattern}"), "deny: .*".to_owned()];
        rules
            .into_iter()
            .flat_map(|rule| ["--rule".to_owned(), rule])
            .collect()
    } else {
        vec!["--js".to_owned(), format!("r.host === '{NAME}'")]
    };
    let command = move |scene: &Scene, words: &[&str]| {
        let mut command = scene.world.command(&program);
        command.env("HOME", &home);
        // It takes no other authority than its own list's. What it saves by that is little.
        command.env("HTTPJAIL_DANGER_DISABLE_CERT_VALIDATION", "1");
        command.args(&rules).arg("--").args(words);
        // A line for each client that closes without a word.
        command.stderr(Stdio::null());
        command
    };
    let bench = world.bin("bench");
    let mut worker = Process::start(command(stage.scene, &[&bench, "worker"]))
        .context("httpjail does not start here")?;
    let proxy = Proxy::None;
    refuses(&mut worker, &proxy, &authority)?;
    Ok(Peer {
        name: if is_old { "httpjail 0.1.0" } else { "httpjail" },
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
