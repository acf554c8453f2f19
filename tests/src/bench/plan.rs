//! The whole run, from arguments to report.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

use super::{
    agent, beside, burst, chart, cost, denial, document, growth, lane::PRIORITY, names, peers,
    report::Report, scene::Scene, server, wall, worker,
};

const USAGE: &str = "usage: bench [--rounds N] [--json FILE] [--quick] [--check] [--only PART] \
                     [--peers FOLDER] [--growth] [--connectors N] [--beside FILE] \
                     [--write FOLDER]";
const ROUNDS: usize = 15;
const QUICK_ROUNDS: usize = 5;
const CONNECTORS: u32 = 1000;
/// Whoever watches hears something this often.
const SAY_EVERY: Duration = Duration::from_secs(2);

type Part = fn(&mut Scene, &Extent, &mut Report) -> Result<()>;

/// In this order.
const PARTS: [(&str, Part); 9] = [
    ("cost", cost::measure),
    ("wall", wall::measure),
    ("names", names::measure),
    ("denial", denial::measure),
    ("agent", agent::measure),
    ("burst", burst::measure),
    ("peers", peers::measure),
    ("beside", beside::measure),
    ("growth", growth::measure),
];
/// Those that are measured only where they are asked for: they need more than this project.
const ASKED_FOR: [&str; 3] = ["peers", "growth", "beside"];

/// How much is measured.
pub(super) struct Extent {
    /// Interleaved rounds of each measurement.
    pub(super) rounds: usize,
    /// A look, not a measurement to quote.
    pub(super) quick: bool,
    /// Where the peers' programs are.
    pub(super) programs: PathBuf,
    /// How many connectors there are at most.
    pub(super) connectors: u32,
    /// Another build's agent, to measure beside this one's.
    pub(super) beside: Option<PathBuf>,
}

impl Extent {
    /// How often something is done in a round.
    pub(super) fn scale(&self, count: u32) -> u32 {
        if self.quick { count / 4 } else { count }
    }
}

/// What the program `bench` does. Whether it is content: `--check` was not given, or every bar
/// held.
pub fn main(arguments: &[String]) -> Result<bool> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", authority] => server::main(authority.as_ref()).map(|()| true),
        ["worker"] => worker::main(None).map(|()| true),
        ["worker", cgroup] => worker::main(Some(cgroup)).map(|()| true),
        ["first", to] => worker::first(to.parse::<SocketAddr>()?).map(|()| true),
        _ => measure(&Options::parse(&words)?),
    }
}

struct Options {
    extent: Extent,
    json: Option<PathBuf>,
    check: bool,
    only: Option<String>,
    write: Option<PathBuf>,
    more: Vec<&'static str>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self> {
        let (mut rounds, mut json, mut only) = (None, None, None);
        let (mut connectors, mut write, mut beside) = (None, None, None);
        let (mut quick, mut check) = (false, false);
        let (mut more, mut programs) = (Vec::new(), PathBuf::new());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match *word {
                "--rounds" => rounds = Some(value()?.parse().context(USAGE)?),
                "--json" => json = Some(value()?.into()),
                "--only" => only = Some((*value()?).to_owned()),
                "--quick" => quick = true,
                "--check" => check = true,
                "--write" => write = Some(value()?.into()),
                "--growth" => more.push("growth"),
                "--connectors" => connectors = Some(value()?.parse().context(USAGE)?),
                "--beside" => {
                    more.push("beside");
                    beside = Some(value()?.into());
                }
                "--peers" => {
                    more.push("peers");
                    programs = value()?.into();
                }
                _ => bail!("unknown argument {word}\n{USAGE}"),
            }
        }
        let rounds = rounds.unwrap_or(if quick { QUICK_ROUNDS } else { ROUNDS });
        ensure!(rounds > 0, "--rounds: at least one");
        let known = |only: &String| PARTS.iter().any(|(name, _)| only == name);
        ensure!(
            only.as_ref().is_none_or(known),
            "--only: no such part; there are {}",
            PARTS.map(|(name, _)| name).join(", ")
        );
        Ok(Self {
            extent: Extent {
                rounds,
                quick,
                programs,
                connectors: connectors.unwrap_or(if quick { 10 } else { CONNECTORS }),
                beside,
            },
            json,
            check,
            only,
            write,
            more,
        })
    }
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        match &self.only {
            Some(only) => only == part,
            None => !ASKED_FOR.contains(&part) || self.more.contains(&part),
        }
    }
}

fn measure(options: &Options) -> Result<bool> {
    let start = Instant::now();
    let extent = &options.extent;
    let mut report = Report::new(extent.rounds);
    hurry()?;
    eprintln!("setting up the embedded internet, the agent and the lanes");
    let mut scene = Scene::new()?;
    for (name, part) in PARTS {
        if options.wants(name) {
            part(&mut scene, extent, &mut report).context(name)?;
        }
    }
    drop(scene);
    if let Some(path) = &options.json {
        report.write(path)?;
        eprintln!("written: {}", path.display());
    }
    if let Some(folder) = &options.write {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("tables.md"), document::tables(&report))?;
        fs::write(folder.join("chart.svg"), chart::draw(&report))?;
    }
    eprintln!("measured in {} s", start.elapsed().as_secs());
    print!("{}", report.text());
    Ok(!options.check || report.held())
}

/// Puts everything that is measured, the servers and the agent included, before what else runs
/// on the machine: all lanes alike.
fn hurry() -> Result<()> {
    // SAFETY: setpriority(2) takes three numbers and no memory.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PRIORITY) };
    Errno::result(result).map(drop).context("setpriority")
}

/// Says now and then how far a measurement is.
pub(super) struct Progress {
    about: &'static str,
    rounds: usize,
    said: Instant,
}

impl Progress {
    pub(super) fn new(about: &'static str, rounds: usize) -> Self {
        eprintln!("{about}: {rounds} rounds");
        Self {
            about,
            rounds,
            said: Instant::now(),
        }
    }

    pub(super) fn round(&mut self, round: usize) {
        if self.said.elapsed() >= SAY_EVERY {
            eprintln!("{}: round {round} of {}", self.about, self.rounds);
            self.said = Instant::now();
        }
    }
}
