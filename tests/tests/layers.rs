//! What the operator is told of the boundary's layers, and what a policy can insist on.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, policy},
    leftovers::Leftovers,
    process::{Running, patience},
    world::World,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LAYERS: [&str; 13] = [
    "connect",
    "sendmsg",
    "socket",
    "packet",
    "sockopt",
    "unix",
    "seccomp",
    "landlock",
    "landlock-scope",
    "processes",
    "signal-scope",
    "lsm",
    "sni",
];

fn doctor(world: &World, arguments: &[&str]) -> Result<String> {
    let command = world.agent_command(&[&["doctor"], arguments].concat())?;
    let outcome = Running::start(command, agent::LIMIT)?.wait()?;
    ensure!(outcome.ok(), "{}{}", outcome.text(), outcome.stderr);
    Ok(outcome.text())
}

/// The layers of this host: those that hold, and those that do not.
fn layers(world: &World) -> Result<(Vec<String>, Vec<String>)> {
    let report: Value = serde_json::from_str(&doctor(world, &["-o", "json"])?)?;
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    ensure!(text(&report, "schema").as_deref() == Some("egress-agent/doctor/v1"));
    ensure!(report["ok"] == Value::Bool(true), "{report}");
    let (mut active, mut missing) = (Vec::new(), Vec::new());
    for layer in report["layers"].as_array().context("no layers")? {
        let name = text(layer, "layer").context("no name")?;
        let open = text(layer, "open").context("what stays open")?;
        ensure!(
            !open.is_empty() && text(layer, "since").is_some(),
            "{layer}"
        );
        match (text(layer, "state").as_deref(), text(layer, "why")) {
            (Some("ok"), None) => active.push(name),
            (Some("open"), Some(_)) => missing.push(name),
            _ => anyhow::bail!("{layer}"),
        }
    }
    let mut all = [active.clone(), missing.clone()].concat();
    all.sort_by_key(|name| LAYERS.iter().position(|known| known == name));
    ensure!(all == LAYERS, "{all:?}");
    Ok((active, missing))
}

/// A verifier that follows more ways than the one the programs were written with refuses what it
/// took elsewhere; a connector is started all the same, without the layer.
#[test]
fn layers_that_depend_on_the_kernel_alone_stand_from_their_release_on() -> Result<()> {
    let world = World::alone()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel = version(&release).context(release)?;
    let report: Value = serde_json::from_str(&doctor(&world, &["-o", "json"])?)?;
    for layer in report["layers"].as_array().context("no layers")? {
        let name = layer["layer"].as_str().context("no name")?;
        // The others depend on the list of security modules, too.
        if ["landlock", "landlock-scope", "signal-scope", "lsm"].contains(&name) {
            continue;
        }
        let since = layer["since"].as_str().and_then(version);
        let since = since.with_context(|| layer.to_string())?;
        ensure!((layer["state"] == "ok") == (kernel >= since), "{layer}");
    }
    Ok(())
}

/// Major and minor number.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

fn requiring(layers: &[String]) -> String {
    policy("layers", &[]) + &format!("require: [{}]\n", layers.join(", "))
}

#[test]
fn a_start_says_what_doctor_says() -> Result<()> {
    let world = World::new()?;
    let (active, missing) = layers(&world)?;
    let text = doctor(&world, &[])?;
    for layer in LAYERS {
        ensure!(text.contains(&format!("layer {layer} ")), "{layer}: {text}");
    }
    let report = world.agent(policy("layers", &[])).run(&["true"])?;
    let event = report.events.iter().find(|event| event.kind == "layers");
    let event = event.with_context(|| format!("no layers line: {report}"))?;
    let found: Vec<String> = serde_json::from_value(event.rest["active"].clone())?;
    ensure!(found == active, "{found:?} against {active:?}");
    let lines = event.rest["missing"].as_array().context("no list")?;
    ensure!(lines.len() == missing.len(), "{}", event.line);
    for (line, name) in lines.iter().zip(&missing) {
        ensure!(
            line["layer"].as_str() == Some(name),
            "{line} against {name}"
        );
        let open = line["open"].as_str().context("what stays open")?;
        ensure!(report.outcome.stderr.contains(open), "{report}");
    }
    ensure!(report.outcome.stdout.is_empty(), "{report}");
    Ok(())
}

#[test]
fn what_is_required_and_missing_is_not_started() -> Result<()> {
    let world = World::alone()?;
    let (active, missing) = layers(&world)?;
    let before = Leftovers::now()?;
    let started = world.path("started");
    let touch = ["/usr/bin/touch", &started.display().to_string()].map(str::to_owned);
    for layer in &missing {
        let needed = [active.clone(), vec![layer.clone()]].concat();
        let report = world
            .agent(requiring(&needed))
            .user(Some("0"))
            .run(&touch)?;
        ensure!(report.code() == 125, "{layer}: {report}");
        let said = &report.outcome.stderr;
        let named =
            said.contains(&format!("{layer} (from Linux ")) && said.contains("open without");
        ensure!(named && said.contains("nothing was started"), "{report}");
        ensure!(
            !active
                .iter()
                .any(|other| said.contains(&format!("{other} (from"))),
            "{report}"
        );
        ensure!(!started.exists(), "{layer}");
    }
    before.ensure_nothing_new()?;
    let report = world
        .agent(requiring(&active))
        .user(Some("0"))
        .run(&touch)?;
    ensure!(report.outcome.ok() && started.exists(), "{report}");
    Ok(())
}

#[test]
fn a_policy_that_requires_more_is_not_taken_over() -> Result<()> {
    let world = World::new()?;
    let (_, missing) = layers(&world)?;
    let Some(layer) = missing.first() else {
        return Ok(());
    };
    let file = world.path("policy.yaml");
    fs::write(&file, policy("layers", &[]))?;
    let confined = world.agent("").start_with_file(&file, &["cat"])?;
    let is_there = |kind: &str, part: &str| -> Result<bool> {
        let events = confined.events().unwrap_or_default();
        Ok(events
            .iter()
            .any(|event| event.kind == kind && event.line.contains(part)))
    };
    let wait = |kind: &str, part: &str| -> Result<()> {
        for _ in 0..3000 * patience() {
            if is_there(kind, part)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("no {kind} line with {part:?}: {}", confined.agent.stderr())
    };
    wait("started", "layers")?;
    fs::write(&file, requiring(std::slice::from_ref(layer)))?;
    confined.agent.signal(Signal::SIGHUP)?;
    wait(
        "warning",
        "the policy requires what this host does not have",
    )?;
    ensure!(!is_there("policy", "")?, "it was taken over");
    let report = confined.wait()?;
    ensure!(report.outcome.ok(), "{report}");
    Ok(())
}
