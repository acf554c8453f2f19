//! What confinement costs: builds the agent as it is installed and measures it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{host, peers, report::Part, setup, step};

/// Where the tables stand.
const TABLES: Part = Part {
    document: "docs/benchmarks.md",
    begin: "<!-- measured: `cargo xtask bench --peers --growth --write` writes this part -->\n",
    end: "<!-- end of what was measured -->",
};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Interleaved rounds of each measurement [default: 15, with --quick 5]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where the numbers go as JSON [default: target/bench/bench.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A look within 40 seconds, not numbers to quote
    #[arg(long)]
    quick: bool,
    /// Only one part: cost, wall, names, denial, agent, burst, peers, beside or growth
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Fail where a bar does not hold
    #[arg(long)]
    check: bool,
    /// Also what others would be picked instead, installed where they are missing
    #[arg(long)]
    peers: bool,
    /// Also what packets and connects cost with more connectors, grants and CIDRs
    #[arg(long)]
    growth: bool,
    /// How far --growth goes with connectors [default: 1000, with --quick 10]
    #[arg(long, value_name = "N")]
    connectors: Option<u32>,
    /// Also what this build costs beside another build's agent, program by program
    #[arg(long, value_name = "AGENT")]
    beside: Option<PathBuf>,
    /// Put everything into docs/benchmarks.md, .json and .svg
    #[arg(long, requires = "peers", requires = "growth", conflicts_with = "only")]
    write: bool,
}

/// Sets up, builds optimised, and hands over to the tests crate's `bench` program, which runs
/// as root.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wants = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    let peers = (options.peers || options.only.as_deref() == Some("peers")) && wants("peers");
    setup::run(if peers {
        setup::Extent::Peers
    } else {
        setup::Extent::Everything
    })?;
    let programs = host::target().join("bench/peers");
    if peers {
        peers::install(&programs)?;
    }
    let mut cargo = host::cargo();
    cargo.args(["build", "--release"]);
    cargo.args(["--package", "egress-agent", "--package", "egress-tests"]);
    let why = "the agent and the measurements, optimised";
    step::quiet("build", why, &mut cargo)?;

    let default = host::target().join("bench").join("bench.json");
    let json = options.json.clone().unwrap_or(default);
    // Made here and not by root.
    if let Some(folder) = json.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut bench = host::as_root(host::target().join("release/bench"))?;
    bench.arg("--json").arg(&json);
    if let Some(rounds) = options.rounds {
        bench.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(only) = &options.only {
        bench.args(["--only", only]);
    }
    for (wanted, flag) in [(options.quick, "--quick"), (options.check, "--check")] {
        if wanted {
            bench.arg(flag);
        }
    }
    if peers {
        bench.arg("--peers").arg(&programs);
    }
    if options.growth {
        bench.arg("--growth");
    }
    if let Some(agent) = &options.beside {
        // It is started from another folder.
        let agent = fs::canonicalize(agent).with_context(|| agent.display().to_string())?;
        bench.arg("--beside").arg(agent);
    }
    if let Some(connectors) = options.connectors {
        bench.args(["--connectors", &connectors.to_string()]);
    }
    let written = host::target().join("bench/written");
    if options.write {
        // Made here and not by root.
        fs::create_dir_all(&written)?;
        // What an earlier run left would be taken for this one's.
        let _none = fs::remove_file(written.join(TABLES_FILE));
        bench.arg("--write").arg(&written);
    }
    let result = step::loud(&mut bench);
    // With bars that do not hold, too: the document says which.
    if options.write && written.join(TABLES_FILE).exists() {
        write(&json, &written)?;
    }
    result
}

/// Name of the file with the tables.
const TABLES_FILE: &str = "tables.md";

/// Puts the last run into the documents.
fn write(json: &Path, written: &Path) -> Result<()> {
    let docs = host::workspace().join("docs");
    fs::write(docs.join("benchmarks.json"), fs::read(json)?)?;
    let picture = written.join("chart.svg");
    fs::write(docs.join("benchmarks.svg"), fs::read(picture)?)?;
    TABLES.write(fs::read_to_string(written.join(TABLES_FILE))?.trim_end())
}
