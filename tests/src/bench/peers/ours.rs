//! The lanes that the other measurements have, too.

use anyhow::Result;

use super::{
    errand::Proxy,
    peer::{Kind, Peer, Place, Stage, Start},
};
use crate::bench::scene::{AGAIN, AGENT, FILTER, NONE, Scene, agent};

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
