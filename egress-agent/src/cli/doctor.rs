//! `egress-agent doctor`: what this host can enforce.

use clap::{Args, ValueEnum};
use egress_common::abi::RULE_FIRST;
use serde::Serialize;

use crate::{
    host::Hierarchy,
    kernel::{
        Plane, Settings, attach,
        instance::{self, Instance},
        probe,
    },
    launch::{canary, scope},
};

/// The first kernel with hooks for unix sockets.
const UNIX_HOOKS: (u32, u32) = (6, 7);

/// Say what this host can enforce, layer by layer, and what stays open.
///
/// Exit status: 0 where a connector can be confined, 1 where something is missing.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to print the findings
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
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
    let findings = examine();
    match args.output {
        Output::Text => print(&findings),
        Output::Json => match serde_json::to_string_pretty(&findings) {
            Ok(json) => println!("{json}"),
            Err(error) => return super::fail(error),
        },
    }
    u8::from(
        findings
            .iter()
            .any(|finding| finding.state == State::Missing),
    )
}

fn examine() -> Vec<Finding> {
    let host = probe::check_host();
    let release = probe::kernel_release();
    let cgroup = Hierarchy::find();
    let running = instance::running().map_or_else(
        |error| error.to_string(),
        |names| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        },
    );
    vec![
        Finding {
            what: "kernel",
            state: State::Ok,
            detail: format!(
                "Linux {release}; {}.{} or newer is needed",
                probe::OLDEST_KERNEL.0,
                probe::OLDEST_KERNEL.1
            ),
        },
        finding(
            "root, bpf file system",
            host.map(|()| "the data plane can be loaded and pinned".to_owned()),
        ),
        finding(
            "cgroup2",
            cgroup.map(|found| format!("mounted at {}", found.mount().display())),
        ),
        finding("IP packets, TCP, UDP", trial()),
        Finding {
            what: "names",
            state: State::Ok,
            detail: "the connector's own DNS door; port 53 of any host leads there".to_owned(),
        },
        Finding {
            what: "other ways out",
            state: State::Ok,
            detail: "at launch: no inherited descriptors, no capabilities, no new privileges, own \
                     session and IPC namespace, system call filter (io_uring, ptrace, keyrings, \
                     namespaces, other socket families)"
                .to_owned(),
        },
        unix_sockets(),
        abstract_sockets(),
        security_modules(),
        Finding {
            what: "files and FIFOs",
            state: State::Open,
            detail: "a helper outside that reads what the connector writes is not stopped"
                .to_owned(),
        },
        Finding {
            what: "permitted destinations",
            state: State::Open,
            detail: "what is hidden inside permitted traffic is not looked at".to_owned(),
        },
        Finding {
            what: "running instances",
            state: State::Ok,
            detail: running,
        },
    ]
}

/// Brings a data plane up and down again, for loading says more than a version number.
fn trial() -> Result<String, String> {
    probe::check_host().map_err(|_| "not tried: see above".to_owned())?;
    let instance = Instance::create("doctor").map_err(|error| error.to_string())?;
    let attached = attach(&instance);
    let ended = instance.end().map_err(|error| error.to_string());
    attached.and(ended)?;
    let programs: Vec<&str> = attach::names().collect();
    Ok(format!("loaded and attached: {}", programs.join(", ")))
}

fn attach(instance: &Instance) -> Result<(), String> {
    load(instance)?
        .attach(instance.parent().path())
        .map_err(|error| error.to_string())
}

fn load(instance: &Instance) -> Result<Plane, String> {
    let level = instance
        .connector()
        .level()
        .map_err(|error| error.to_string())?;
    let settings = Settings {
        connector_level: level,
        connectors: 1,
        rules: RULE_FIRST,
    };
    Plane::load(&settings, instance.pins().clone()).map_err(|error| error.to_string())
}

fn unix_sockets() -> Finding {
    let new = probe::kernel_version(&probe::kernel_release())
        .is_some_and(|version| version >= UNIX_HOOKS);
    let detail = match (new, scope::supported().paths) {
        (true, true) => {
            "cgroup programs at connect and sendmsg judge every path; Landlock keeps own sockets \
             in the connector's own folder"
        }
        (true, false) => {
            "cgroup programs at connect and sendmsg judge every path; without Landlock a helper \
             outside can call in where the connector makes a socket"
        }
        (false, _) => {
            "no hooks before Linux 6.7: connectors can make no unix sockets but pairs, and a \
             policy with a rule for one is not started"
        }
    };
    Finding {
        what: "unix sockets",
        state: State::Ok,
        detail: detail.to_owned(),
    }
}

/// What a start would do, tried.
fn security_modules() -> Finding {
    let (state, detail) = match secured() {
        Ok(hooks) => (State::Ok, format!("a canary was refused; hooks: {hooks}")),
        Err(error) => (State::Open, format!("no second layer: {error}")),
    };
    Finding {
        what: "security modules",
        state,
        detail,
    }
}

fn secured() -> Result<String, String> {
    probe::check_host().map_err(|_| "not tried: see above".to_owned())?;
    let instance = Instance::create("doctor").map_err(|error| error.to_string())?;
    let proven = load(&instance).and_then(|mut plane| {
        let programs = plane
            .take_lsm()
            .and_then(|programs| canary::prove(programs, instance.parent().path()));
        let programs = programs.map_err(|error| error.to_string())?;
        let hooks: Vec<&str> = programs.hooks().collect();
        Ok(hooks.join(", "))
    });
    let ended = instance.end().map_err(|error| error.to_string());
    proven.and_then(|hooks| ended.map(|()| hooks))
}

fn abstract_sockets() -> Finding {
    let detail = if scope::supported().abstracts {
        "Landlock keeps the connector to its own; with a rule for one, names decide. A helper \
         outside can call in where the connector listens"
    } else {
        "by name; the connector's own are refused, too (Landlock has them from Linux 6.12). A \
         helper outside can call in where the connector listens"
    };
    Finding {
        what: "abstract unix sockets",
        state: State::Open,
        detail: detail.to_owned(),
    }
}

fn finding<E: std::fmt::Display>(what: &'static str, result: Result<String, E>) -> Finding {
    match result {
        Ok(detail) => Finding {
            what,
            state: State::Ok,
            detail,
        },
        Err(error) => Finding {
            what,
            state: State::Missing,
            detail: error.to_string(),
        },
    }
}

fn print(findings: &[Finding]) {
    for finding in findings {
        let state = match finding.state {
            State::Ok => "ok     ",
            State::Missing => "missing",
            State::Open => "open   ",
        };
        println!("{state}  {:<24}  {}", finding.what, finding.detail);
    }
}
