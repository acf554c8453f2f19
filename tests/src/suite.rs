//! The command line of the stand-alone bypass suite.

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{
    layers,
    probe::{self, Vector},
    stage::Stage,
    vectors::{Row, Verdict, Wrap, all_of, summary, table, try_some},
    world::World,
};

const HELP: &str = "\
bypass-suite: tries every known way out of an egress confinement, with proof of delivery

usage: bypass-suite [OPTIONS]

  --wrap 'LAUNCHER --'  the confinement to try, put in front of a command and read by /bin/sh as
                        root; {user} becomes the user's number, {policy} the path of a policy of
                        egress-agent. Without --wrap: egress-agent from the same folder. With
                        --wrap '': nothing; nearly everything must then be DELIVERED.
  --keeps-user          the launcher does not change the user: do it behind it, with setpriv
  --without LAYER       egress-agent as tests build it, without this layer (more with commas)
  --layers FILE         egress-agent as tests build it: finds by taking layers away which of them
                        stop which vector, and writes the table as Markdown; as root only
                        vectors that need root
  --user WHO            unprivileged, root or both (default: unprivileged)
  --only PATTERN        only vectors whose name or family contains it; repeatable
  --json FILE           the rows as a JSON array, too
  --list                what would be tried
  --help                this text

The launcher must permit TCP and UDP to 203.0.113.20 and 2001:db8:cb::20, ports 9001 and 9999,
the names allowed.example, small-window.example and *.ingest.sentry.io with TCP port 443, and
nothing else. They exist only in the network namespace in which it is started.

Verdicts:
  DELIVERED       the token arrived at a receiver that is not declared
  OPEN LIMIT      the same, for a way that no filter of network traffic can see; listed apart
  BLOCKED         it arrived without the confinement, and did not with it
  NOT APPLICABLE  this kernel or this user does not have that way
  UNPROVEN        it did not arrive even without the confinement: the vector proves nothing

In front of the user stands + where the same way to a declared address worked (the control), and
! where it did not.

Exit code: 0 if nothing was DELIVERED and every control arrived; 1 otherwise; 2 usage. It needs
root, iproute2, util-linux and a cgroup2 mount, and touches only namespaces of its own.
";

struct Options {
    wrap: Wrap,
    users: Vec<bool>,
    only: Vec<String>,
    json: Option<String>,
    layers: Option<String>,
    list: bool,
}

/// Runs it. Whether nothing was delivered and every control was.
pub fn main(arguments: &[String]) -> Result<bool> {
    if arguments
        .iter()
        .any(|word| word == "--help" || word == "-h")
    {
        print!("{HELP}");
        return Ok(true);
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("bypass-suite: {error:#}; see --help");
            std::process::exit(2);
        }
    };
    let chosen: Vec<(&'static str, &'static Vector)> = probe::FAMILIES
        .iter()
        .flat_map(all_of)
        .filter(|(family, vector)| options.wants(family, vector))
        .collect();
    if options.list {
        for (family, vector) in &chosen {
            println!("{family:24} {:26} {}", vector.name, vector.about);
        }
        return Ok(true);
    }
    if chosen.is_empty() {
        bail!("no vector fits; --list names them");
    }
    if let Some(file) = options.layers {
        let mut all = Vec::new();
        for as_root in options.users {
            let who = if as_root { "root" } else { "user" };
            let mut said = |layer: &str| println!("{who}: without {layer}, and with it alone");
            // Root is tried where an ordinary user does not have the way.
            let wanted = |(_, vector): &&(&str, &Vector)| !as_root || vector.root;
            let some = chosen.iter().filter(wanted).copied().collect();
            all.extend(layers::measure(some, as_root, &mut said)?);
        }
        fs::write(&file, layers::markdown(&all)).context(file)?;
        return Ok(true);
    }
    let start = Instant::now();
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    let mut rows: Vec<Row> = Vec::new();
    for as_root in options.users {
        let some = try_some(&world, &stage, &options.wrap, chosen.clone(), as_root)?;
        print!("{}", table(&some));
        rows.extend(some);
    }
    if let Some(file) = options.json {
        let all: Vec<_> = rows.iter().map(Row::json).collect();
        fs::write(&file, serde_json::to_string_pretty(&all)? + "\n").context(file)?;
    }
    print!("{}", summary(&rows));
    println!("{} rows in {:.0?}", rows.len(), start.elapsed());
    let delivered = rows.iter().any(|row| row.verdict() == Verdict::Delivered);
    Ok(!delivered && rows.iter().all(Row::control_arrived))
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            wrap: Wrap::Agent,
            users: vec![false],
            only: Vec::new(),
            json: None,
            layers: None,
            list: false,
        };
        let mut words = arguments.iter();
        let mut keeps = false;
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .cloned()
                    .with_context(|| format!("{word} what?"))
            };
            match word.as_str() {
                "--wrap" => {
                    let line = value()?;
                    options.wrap = if line.trim().is_empty() {
                        Wrap::Free
                    } else {
                        Wrap::Command {
                            line,
                            keeps_user: false,
                        }
                    };
                }
                "--layers" => options.layers = Some(value()?),
                "--without" => options.wrap = Wrap::Without(value()?),
                "--keeps-user" => keeps = true,
                "--user" => {
                    options.users = match value()?.as_str() {
                        "unprivileged" => vec![false],
                        "root" => vec![true],
                        "both" => vec![false, true],
                        other => bail!("{other:?} is no user: unprivileged, root or both"),
                    };
                }
                "--only" => options.only.push(value()?),
                "--json" => options.json = Some(value()?),
                "--list" => options.list = true,
                other => bail!("{other:?} is no option"),
            }
        }
        if let Wrap::Command { keeps_user, .. } = &mut options.wrap {
            *keeps_user = keeps;
        }
        Ok(options)
    }

    fn wants(&self, family: &str, vector: &Vector) -> bool {
        let fits = |word: &String| vector.name.contains(word) || family.contains(word);
        self.only.is_empty() || self.only.iter().any(fits)
    }
}
