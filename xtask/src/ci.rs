//! Everything a change must pass, in the order in which it fails soonest. A step that fails
//! does not hide the others.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use crate::{
    build, fuzz, host, oracle, reproduce, setup, step, test, tidy, toolchain, unconfined, vm,
};

/// The release of cargo-deny that is installed where there is none.
const CARGO_DENY: &str = "0.20.2";

/// The workspaces, each with a lock file of its own.
const MANIFESTS: [&str; 4] = [
    "Cargo.toml",
    "egress-ebpf/Cargo.toml",
    "egress-init/Cargo.toml",
    "fuzz/Cargo.toml",
];

/// What `ci` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also run each of the fuzzer's targets for six seconds, whose build takes some minutes
    #[arg(long)]
    fuzz: bool,
}

/// What has been done so far.
#[derive(Default)]
struct Record {
    steps: Vec<(&'static str, Duration, Result<String>)>,
}

/// Runs every step; the error names those that failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    // Minutes of compiling, where it has to be installed: beside everything else.
    let deny = thread::spawn(cargo_deny);
    let mut record = Record::default();

    record.step("format", "every file is formatted", || {
        components()?;
        for manifest in MANIFESTS {
            let mut cargo = host::cargo();
            cargo.args(["fmt", "--all", "--check", "--manifest-path", manifest]);
            step::loud(&mut cargo)?;
        }
        Ok(())
    });
    record.step("tidy", "the house rules hold", tidy::run);
    record.step("set-up", "what is missing installs itself", || {
        setup::run(setup::Extent::Machines)
    });
    record.step(
        "data plane",
        "the eBPF programs build without a warning",
        data_plane,
    );
    record.step("clippy", "no lint speaks up", || {
        let mut cargo = host::cargo();
        cargo.args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]);
        step::loud(&mut cargo)
    });
    record.step(
        "documentation",
        "it builds and its links lead somewhere",
        || {
            let mut cargo = host::cargo();
            cargo.args([
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
            ]);
            step::loud(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))
        },
    );
    record.step("policies", "every shipped policy is valid", policies);
    record.proven("test", || test::run(&test::Options::default()));
    record.proven("unconfined", unconfined::run);
    if cfg!(target_arch = "x86_64") {
        record.proven("oldest kernel", vm::oldest);
    }
    record.step(
        "oracle",
        "a hundred million verdicts are those of a naive reading",
        || oracle::run(&oracle::Options::whole()),
    );
    record.step(
        "reproduce",
        "the eBPF object is the same in every folder",
        reproduce::run,
    );
    if options.fuzz {
        record.step("fuzz", "six seconds of each target find nothing", || {
            fuzz::run(&fuzz::Options::smoke())
        });
    }
    record.dependencies(deny);
    record.report(started.elapsed())
}

impl Record {
    fn step(&mut self, name: &'static str, proof: &str, run: impl FnOnce() -> Result<()>) {
        self.proven(name, || run().map(|()| proof.to_owned()));
    }

    fn proven(&mut self, name: &'static str, run: impl FnOnce() -> Result<String>) {
        println!("\n== {name} ==");
        let started = Instant::now();
        let result = run();
        if let Err(error) = &result {
            println!("{name}: {error:#}");
        }
        self.steps.push((name, started.elapsed(), result));
    }

    fn dependencies(&mut self, deny: JoinHandle<Result<PathBuf>>) {
        self.proven("dependencies", || {
            let deny = deny
                .join()
                .map_err(|_| anyhow!("the installation of cargo-deny broke off"))??;
            for manifest in MANIFESTS {
                // Those of other systems too, which no build fetched.
                let why = format!("fetching every crate that {manifest} could lead to");
                let mut fetch = host::cargo();
                fetch.args(["fetch", "--locked", "--manifest-path", manifest]);
                step::quiet("crates", &why, &mut fetch)?;
                let mut command = deny_on(&deny, manifest);
                command.args(["--offline", "check", "--hide-inclusion-graph"]);
                command.args(["bans", "licenses", "sources"]);
                step::loud(&mut command)?;
            }
            advisories(&deny)
        });
    }

    fn report(self, total: Duration) -> Result<()> {
        println!("\n== result ==");
        let mut failed = Vec::new();
        for (name, duration, result) in &self.steps {
            let (mark, what) = match result {
                Ok(proof) => ("ok  ", proof.clone()),
                Err(error) => {
                    failed.push(*name);
                    let reason = format!("{error:#}");
                    ("FAIL", reason.lines().next().unwrap_or_default().to_owned())
                }
            };
            println!("{mark} {name:<14} {:>12}  {what}", step::time(*duration));
        }
        println!("in {}", step::time(total));
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

/// Formatter and linter, which a minimal rustup leaves out.
fn components() -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let version = host::cargo().args([command, "--version"]).output();
        if version.is_ok_and(|output| output.status.success()) {
            continue;
        }
        let why = format!("installing {component}, which stable Rust has as a component");
        let mut rustup = Command::new("rustup");
        step::quiet("rustup", &why, rustup.args(["component", "add", component]))?;
    }
    Ok(())
}

/// The agent's build script passes the eBPF crate's warnings on, and cargo repeats them even
/// when it has nothing to build.
fn data_plane() -> Result<()> {
    let warnings: Vec<String> = build::programs()?
        .into_iter()
        .filter(|line| line.starts_with("warning: egress-agent@"))
        .collect();
    if !warnings.is_empty() {
        bail!("the eBPF crate has warnings:\n{}", warnings.join("\n"));
    }
    Ok(())
}

/// As a user would check them.
fn policies() -> Result<()> {
    let files = host::files()?;
    if !files.iter().any(|file| file.starts_with("policies")) {
        bail!("there is no policy in policies/");
    }
    let mut agent = Command::new(host::target().join("debug/egress-agent"));
    agent.current_dir(host::workspace());
    step::loud(agent.args(["check", "policies"]))
}

/// A cargo-deny, installed if there is none.
fn cargo_deny() -> Result<PathBuf> {
    let tools = toolchain::tools(host::workspace());
    let own = tools.join("bin/cargo-deny");
    let home = toolchain::cargo_home().map(|home| home.join("bin/cargo-deny"));
    let found = [Some(own.clone()), home, host::program("cargo-deny")];
    if let Some(program) = found.into_iter().flatten().find(|program| works(program)) {
        return Ok(program);
    }
    let why = "building the check of dependencies, some minutes beside the rest";
    setup::install_tool(&tools, "cargo-deny", CARGO_DENY, why)?;
    Ok(own)
}

fn works(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

fn deny_on(deny: &Path, manifest: &str) -> Command {
    let mut command = Command::new(deny);
    command
        .current_dir(host::workspace())
        .args(["--manifest-path", manifest, "--config", "deny.toml"])
        .env(
            "CARGO",
            env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        );
    command
}

/// Known vulnerabilities, where their database can be fetched. Answers what was proven.
fn advisories(deny: &Path) -> Result<String> {
    let own = "licences, sources and bans are in order";
    let fetch = step::quiet(
        "advisories",
        "fetching the database of known vulnerabilities",
        deny_on(deny, "Cargo.toml")
            .args(["fetch", "db"])
            .env("GIT_TERMINAL_PROMPT", "0"),
    );
    if let Err(error) = fetch {
        println!("advisories: NOT CHECKED, since their database could not be fetched: {error:#}");
        return Ok(format!("{own}; advisories NOT CHECKED (no database)"));
    }
    for manifest in MANIFESTS {
        let mut command = deny_on(deny, manifest);
        command.args(["--offline", "check", "advisories"]);
        step::loud(&mut command)?;
    }
    Ok(format!("{own}; no known vulnerability"))
}
