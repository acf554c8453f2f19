//! `egress-agent doctor`: what this host can enforce.

use std::path::Path;

use clap::Args;
use egress_common::abi::RULE_FIRST;
use serde::Serialize;

use super::check::{Output, POLICIES, json, print};
use crate::{
    host::{Hierarchy, layers::Layers},
    kernel::{
        Plane, Settings, attach,
        instance::{self, Instance},
        leftovers,
        load::Sizes,
        probe,
    },
    launch::{canary, layers},
    policy::{Policy, load, open},
};

/// Version of the JSON form.
const SCHEMA: &str = "egress-agent/doctor/v1";

/// Say what this host can enforce, layer by layer, and what stays open
///
/// Exit status: 0 where a connector can be confined, 1 where something is missing.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to print the findings
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    /// A connector can be confined here.
    ok: bool,
    findings: Vec<Finding>,
    /// Empty where the data plane cannot be loaded.
    layers: Vec<LayerFinding>,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
}

#[derive(Serialize)]
struct LayerFinding {
    layer: &'static str,
    state: State,
    /// First kernel that has it.
    since: String,
    does: &'static str,
    /// Why it does not hold; `null`: it holds.
    why: Option<String>,
    /// What stays open without it, here or elsewhere.
    open: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Missing,
    Open,
}

/// Prints the findings. Answers the exit code.
pub fn run(args: &DoctorArgs) -> u8 {
    let report = examine();
    print(&match args.output {
        Output::Text => text(&report),
        Output::Json => json(&report),
    });
    u8::from(!report.ok)
}

fn examine() -> Report {
    let (findings, layers) = match trial() {
        Ok((programs, layers)) => (host(Ok(programs)), layer_findings(&layers)),
        Err(error) => (host(Err(error)), Vec::new()),
    };
    let missing = |finding: &Finding| finding.state == State::Missing;
    Report {
        schema: SCHEMA,
        ok: !findings.iter().any(missing),
        findings,
        layers,
    }
}

/// What does not depend on the kernel's version alone; `trial`: the programs that loaded.
fn host(trial: Result<String, String>) -> Vec<Finding> {
    let (major, minor) = probe::OLDEST_KERNEL;
    let mut findings = vec![
        found(
            "kernel",
            probe::check_kernel().map(|()| {
                let release = probe::kernel_release();
                format!("Linux {release}; {major}.{minor} or newer is needed")
            }),
        ),
        found(
            "root, bpf file system",
            probe::check_access().map(|()| "the data plane can be loaded and pinned".to_owned()),
        ),
        found(
            "cgroup2",
            Hierarchy::find().and_then(|found| {
                let place = instance::place(&found)?;
                let (mount, place) = (found.mount().display(), place.path().display());
                Ok(format!("mounted at {mount}; connectors run below {place}"))
            }),
        ),
        found("data plane", trial),
        known(
            "names",
            "the connector's own DNS door; port 53 of any host leads there".to_owned(),
        ),
        known(
            "other ways out",
            "at launch: no inherited descriptors, no capabilities, no new privileges; own session, \
             IPC and PID namespace; harmless devices alone (a policy may ask for the host's \
             processes and for devices: `egress-agent check` says what that opens)"
                .to_owned(),
        ),
        known("running instances", running()),
    ];
    findings.extend(policies());
    findings.extend(OPEN_EVERYWHERE.map(|(what, detail)| Finding {
        what,
        state: State::Open,
        detail: detail.to_owned(),
    }));
    findings
}

fn running() -> String {
    match leftovers::running() {
        Err(error) => error.to_string(),
        Ok(names) if names.is_empty() => "none".to_owned(),
        Ok(names) => names.join(", "),
    }
}

/// What the policies of this host open beyond their destinations; their faults are `check`'s.
fn policies() -> Vec<Finding> {
    let files = load::list(Path::new(POLICIES)).unwrap_or_default();
    let usable = files.iter().filter_map(|file| load::load_file(file).ok());
    let finding = |policy: Policy| {
        let opened = open::all(&policy).into_iter();
        opened.map(move |told| Finding {
            what: "a policy here",
            state: State::Open,
            detail: format!("{}: {told}", policy.source.display()),
        })
    };
    usable.flat_map(finding).collect()
}

fn layer_findings(layers: &Layers) -> Vec<LayerFinding> {
    let finding = |(layer, why): (crate::host::layers::Layer, Option<&str>)| {
        let (major, minor) = layer.since();
        LayerFinding {
            layer: layer.name(),
            state: if why.is_none() {
                State::Ok
            } else {
                State::Open
            },
            since: format!("{major}.{minor}"),
            does: layer.does(),
            why: why.map(str::to_owned),
            open: layer.open(),
        }
    };
    layers.all().map(finding).collect()
}

/// Brings a data plane up and down again, for loading says more than a version number.
fn trial() -> Result<(String, Layers), String> {
    probe::check_host().map_err(|_| "not tried: see above".to_owned())?;
    let instance = Instance::create("doctor").map_err(|error| error.to_string())?;
    let layers = attach(&instance);
    let ended = instance.end().map_err(|error| error.to_string());
    let layers = layers?;
    ended?;
    let programs: Vec<&str> = attach::names().collect();
    Ok((
        format!("loaded and attached: {}", programs.join(", ")),
        layers,
    ))
}

fn attach(instance: &Instance) -> Result<Layers, String> {
    let level = instance
        .connector()
        .level()
        .map_err(|error| error.to_string())?;
    let settings = Settings {
        connector_level: level,
        connectors: 1,
        proxy_net: None,
        rules: RULE_FIRST,
        sizes: Sizes::ONE,
    };
    let mut plane =
        Plane::load(&settings, instance.pins().clone()).map_err(|error| error.to_string())?;
    plane
        .attach(instance.parent().path())
        .map_err(|error| error.to_string())?;
    let modules = plane
        .take_lsm()
        .and_then(|modules| canary::prove(modules, instance.parent().path()));
    Ok(layers::find(&plane, modules.as_ref().err()))
}

fn known(what: &'static str, detail: String) -> Finding {
    Finding {
        what,
        state: State::Ok,
        detail,
    }
}

fn found<E: std::fmt::Display>(what: &'static str, result: Result<String, E>) -> Finding {
    match result {
        Ok(detail) => known(what, detail),
        Err(error) => Finding {
            what,
            state: State::Missing,
            detail: error.to_string(),
        },
    }
}

/// What no layer of any host stops; `docs/threat-model.md` has the whole list.
const OPEN_EVERYWHERE: [(&str, &str); 3] = [
    (
        "permitted destinations",
        "what is hidden inside permitted traffic is not looked at",
    ),
    (
        "files and FIFOs",
        "a helper outside that reads what the connector writes is not stopped",
    ),
    (
        "abstract unix sockets",
        "a helper outside can call in where the connector listens on one",
    ),
];

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut add = |state: State, what: &str, detail: &str| {
        let state = match state {
            State::Ok => "ok     ",
            State::Missing => "missing",
            State::Open => "open   ",
        };
        lines.push(format!("{state}  {what:<24}  {detail}\n"));
    };
    for finding in &report.findings {
        add(finding.state, finding.what, &finding.detail);
    }
    for layer in &report.layers {
        let what = format!("layer {}", layer.layer);
        match &layer.why {
            None => add(layer.state, &what, layer.does),
            Some(why) => {
                let (since, open) = (&layer.since, layer.open);
                let detail = format!("{why} (from Linux {since} on); open without it: {open}");
                add(layer.state, &what, &detail);
            }
        }
    }
    lines.concat()
}
