//! The lanes that the other measurements have, too, and one whose requests are judged.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use super::{
    errand::Proxy,
    peer::{Kind, Peer, Place, Stage, Start},
    squid::refuses,
};
use crate::bench::{
    lane::Process,
    scene::{AGAIN, AGENT, FILTER, NONE, Scene, agent},
};
use crate::world::USER;

/// Nothing, this project, and the filter like systemd's.
pub(super) fn all(stage: &Stage<'_>) -> Vec<Peer> {
    let lane = |name, kind, index, start| Peer {
        name,
        kind,
        place: Place::Lane(index),
        proxy: Proxy::None,
        authority: stage.scene.authority.clone(),
        lacks: |_| None,
        rules: None,
        daemon: None,
        start,
    };
    let plain = |scene: &Scene| Ok(scene.world.command("/bin/true"));
    let confined = Start::Command(Box::new(|scene| {
        let world = &scene.world;
        agent(world, &world.path("starts.jsonl"), &["/bin/true"])
    }));
    let none = Start::None("systemd's own start is not measured: it is not in these namespaces");
    vec![
        lane("none", Kind::Nothing, NONE, Start::Command(Box::new(plain))),
        lane(
            "none again",
            Kind::Again,
            AGAIN,
            Start::Command(Box::new(plain)),
        ),
        lane("egress-agent", Kind::Own, AGENT, confined),
        lane("systemd-like", Kind::Kernel, FILTER, none),
    ]
}

/// The start of everything that needs no more than a program in its place.
pub(super) fn worker(stage: &Stage<'_>, name: &str) -> Result<Place> {
    let (_, leaf) = stage.scene.cgroups.add(name)?;
    let process = crate::bench::scene::worker(&stage.scene.world, &leaf)?;
    Ok(Place::Own(process))
}

/// A connector whose requests to the server are read and judged.
const POLICY: &str = r#"version: 1
connector: bench-inspect
mode: enforce
allow:
  - host: server.bench.example
    ports: [443]
    private: true
    why: the server of the measurements, by name
    inspect:
      recipients: listed
      listed: ["*@example.org"]
      operations:
        - { id: get, method: GET, path: / }
        - { id: mail, method: POST, path: /mail, body: json, recipients: { mail: [/To] } }
        - { id: down, method: GET, path: "/large/{bytes}" }
        - { id: up, method: PUT, path: /large, body: any }
"#;

/// Sets it up.
pub(super) fn inspect(stage: &Stage<'_>) -> Result<Peer> {
    let world = &stage.scene.world;
    let policy = world.path("inspect.yaml");
    fs::write(&policy, POLICY)?;
    let events = world.path("inspect.jsonl");
    let authority = stage.scene.authority.clone();
    let command = move |scene: &Scene, words: &[&str]| -> Result<Command> {
        let mut command = scene.world.command(&crate::programs::agent()?);
        command.args(["run", "--quiet", "--user", &USER.to_string()]);
        command.arg("--policy").arg(&policy);
        command.arg("--events").arg(&events);
        // Whose certificates the server has; the connector gets a bundle of its own in its place.
        command.env("SSL_CERT_FILE", &authority);
        command.arg("--").args(words);
        Ok(command)
    };
    let mut worker = Process::start(command(stage.scene, &[&world.bin("bench"), "worker"])?)?;
    let (proxy, authority) = (Proxy::Unseen, PathBuf::from(BUNDLE));
    refuses(&mut worker, &proxy, &authority)?;
    Ok(Peer {
        name: "egress-agent, inspect",
        kind: Kind::Judging,
        place: Place::Own(worker),
        proxy,
        authority,
        lacks: |case| (!case.is_https()).then_some("only requests in TLS are judged"),
        rules: None,
        daemon: None,
        start: Start::Command(Box::new(move |scene| command(scene, &["/bin/true"]))),
    })
}

/// What a connector whose requests are judged sees there has the judging proxy's authority in it.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
