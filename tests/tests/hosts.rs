//! Hosts on which others were first where the agent keeps its state.

use std::fs;

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::policy,
    faults::{Tries, rules},
    leftovers::Leftovers,
    world::World,
};

/// What an ordinary user makes there before the agent comes.
const SQUATTERS: [(&str, &str, &str); 6] = [
    (
        "a folder among the pins",
        "mount -t bpf -o mode=1777 bpf /sys/fs/bpf",
        "mkdir -p /sys/fs/bpf/egress-agent/one/2/below",
    ),
    (
        "a link among the pins",
        "mount -t bpf -o mode=1777 bpf /sys/fs/bpf",
        "ln -s VICTIM /sys/fs/bpf/egress-agent",
    ),
    (
        "a folder below /run",
        "mount -t tmpfs -o mode=1777 none /run",
        "mkdir -p /run/egress-agent/instances /run/egress-agent/events; \
         mkfifo /run/egress-agent/events/x.jsonl",
    ),
    (
        "a link below /run",
        "mount -t tmpfs -o mode=1777 none /run",
        "ln -s VICTIM /run/egress-agent",
    ),
    (
        "a lock that is held",
        "mount -t tmpfs none /run/egress-agent",
        "exec 9>/run/egress-agent/lock; flock 9; sleep 300 & true",
    ),
    (
        "a folder of locks",
        "mount -t tmpfs none /run/egress-agent",
        "ln -s VICTIM /run/egress-agent/instances; mkdir /run/egress-agent/events",
    ),
];

#[test]
fn nobody_is_in_the_way_of_a_start() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    // Where links lead: what is in there is nobody's pins, locks or events.
    let victim = world.path("victim");
    let content = ["file", "one.jsonl", "faults-1-a/2/link_egress"];
    for (what, place, squat) in SQUATTERS {
        for file in content.map(|file| victim.join(file)) {
            fs::create_dir_all(file.parent().context("no parent")?)?;
            fs::write(file, "precious")?;
        }
        let squat = squat.replace("VICTIM", &victim.display().to_string());
        let line = format!(
            "exec unshare --mount --propagation private --pid --mount-proc --fork --kill-child /bin/bash -c '\
             {place} && setpriv --reuid=65534 --regid=65534 --clear-groups bash -c \"{squat}\" || exit 99; \
             \"$@\"' squat \"$@\""
        );
        let tries = Tries::default();
        let report = tries.run(world.agent(rules()).behind(&line))?;
        ensure!(report.code() == 0, "{what}: {report}");
        report.ensure_printed("stranger refused")?;
        tries.held(&world)?;
        for file in content.map(|file| victim.join(file)) {
            let text = fs::read_to_string(&file).with_context(|| format!("{what}: {file:?}"))?;
            ensure!(text == "precious", "{what}: {file:?}");
        }
        fs::remove_dir_all(&victim)?;
    }
    let report = world.agent(policy("next", &[])).run(&["true"])?;
    ensure!(report.outcome.ok(), "{report}");
    before.ensure_nothing_new()
}
