//! Fuzzing: builds the targets of `fuzz/`, runs each for some minutes, says what was done and
//! found.
//!
//! The compiler is the one of the rest of the build, told to accept the sanitizer's option
//! (`RUSTC_BOOTSTRAP`), so that no nightly is needed; stable brings the sanitizer's library.

use std::{
    fs,
    io::Write as _,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{host, setup, step, toolchain};

/// The release of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// Longest that one input may take: far above what any takes, even on a busy machine.
const SLOW: Duration = Duration::from_secs(60);
/// Longest input.
const LONGEST: usize = 4096;

/// What `fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes for each target
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// Only this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Targets side by side
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,
}

impl Options {
    /// Every target, long enough to see that it runs.
    pub(crate) fn smoke() -> Self {
        Self {
            minutes: 0.1,
            target: None,
            jobs: NonZeroUsize::MIN,
        }
    }
}

/// How a target's run ended.
#[derive(Clone, Debug, Default)]
struct Outcome {
    target: String,
    executions: u64,
    /// Inputs that were kept because they reach something new, earlier runs' included.
    corpus: usize,
    /// Something was found, or it did not run to its end.
    failed: bool,
}

/// Sets up, builds, runs the targets.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets = chosen(options.target.as_deref())?;
    let programs = build()?;
    // From the end: each worker takes the last that is left.
    let left = Mutex::new(targets.into_iter().rev().collect::<Vec<_>>());
    let worker = || {
        let mut outcomes = Vec::new();
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match next {
                Some(target) => outcomes.push(one(&programs, &target, options.minutes)?),
                None => return anyhow::Ok(outcomes),
            }
        }
    };
    let mut outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.get())
            .map(|_| scope.spawn(worker))
            .collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker broke off"),
        });
        results.collect::<Result<Vec<_>>>()
    })?
    .concat();
    outcomes.sort_by(|one, other| one.target.cmp(&other.target));
    report(&outcomes)
}

fn chosen(wish: Option<&str>) -> Result<Vec<String>> {
    let all: Vec<String> = host::below(&host::workspace().join("fuzz/targets"))
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    match wish {
        None => Ok(all),
        Some(wish) if all.iter().any(|name| name == wish) => Ok(vec![wish.to_owned()]),
        Some(wish) => bail!("there is no target {wish}; there are {}", all.join(", ")),
    }
}

/// Builds every target with the address sanitizer. Answers the folder of the programs.
fn build() -> Result<PathBuf> {
    setup::run(setup::Extent::Fuzzer)?;
    let tools = toolchain::tools(host::workspace());
    let cargo_fuzz = tools.join("bin/cargo-fuzz");
    if !cargo_fuzz.is_file() {
        let why = "building the driver of the fuzzer, a minute or more";
        setup::install_tool(&tools, "cargo-fuzz", CARGO_FUZZ, why)?;
    }
    let folder = home();
    let mut command = Command::new(cargo_fuzz);
    command
        .current_dir(host::workspace())
        .args(["fuzz", "build", "--fuzz-dir", "fuzz", "--target-dir"])
        .arg(&folder)
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS");
    step::quiet("build", "the fuzzer's targets, some minutes", &mut command)?;
    let built = folder.join(triple()?).join("release");
    if !built.is_dir() {
        bail!("cargo-fuzz did not build into {}", built.display());
    }
    Ok(built)
}

/// Everything that is not committed.
fn home() -> PathBuf {
    host::target().join("fuzz")
}

/// What the compiler calls this host.
fn triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("the compiler does not say what this host is")
}

/// Runs one target over its seeds and what earlier runs kept.
fn one(programs: &Path, target: &str, minutes: f64) -> Result<Outcome> {
    let own = home().join("run").join(target);
    let corpus = own.join("corpus");
    let found = own.join("found");
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let fuzz = host::workspace().join("fuzz");
    let mut command = Command::new(programs.join(target));
    command
        .arg(&corpus)
        .arg(fuzz.join("seeds").join(target))
        .arg(format!("-max_total_time={:.0}", (minutes * 60.0).max(1.0)))
        .arg(format!("-timeout={}", SLOW.as_secs()))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-rss_limit_mb=2048"]);
    let dictionary = fuzz.join("dictionaries").join(target);
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // Real inputs that lie elsewhere in the checkout.
    let more = match target {
        "policy" => Some("policies"),
        "hello" => Some("tests/corpus/hello"),
        _ => None,
    };
    command.args(more.map(|folder| host::workspace().join(folder)));
    println!("{target}: running for {minutes} min");
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("the target {target} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let log = own.join("log");
    fs::write(&log, said.as_bytes()).with_context(|| log.display().to_string())?;
    let outcome = Outcome {
        target: target.to_owned(),
        executions: executions(&said),
        corpus: host::below(&corpus).len(),
        failed: !output.status.success(),
    };
    println!(
        "{target}: {} executions, {} inputs kept{}",
        outcome.executions,
        outcome.corpus,
        if outcome.failed { ", FAILED" } else { "" }
    );
    if outcome.failed {
        show(target, &said, &found);
    }
    std::io::stdout().flush().context("standard output")?;
    Ok(outcome)
}

/// What libFuzzer says at its end, or in its last line where it did not come to it.
fn executions(said: &str) -> u64 {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let stated = said
        .lines()
        .find_map(|line| number(line.strip_prefix("stat::number_of_executed_units:")?));
    let last = || {
        let lines = said.lines().rev();
        lines
            .filter_map(|line| number(line.strip_prefix('#')?.split_whitespace().next()?))
            .next()
    };
    stated.or_else(last).unwrap_or(0)
}

/// The end of what a failed target said, and where its input is.
fn show(target: &str, said: &str, found: &Path) {
    let telling = |line: &&str| !line.starts_with('#') && !line.starts_with("stat::");
    let lines: Vec<&str> = said.lines().filter(telling).collect();
    for line in lines.iter().skip(lines.len().saturating_sub(40)) {
        println!("  {line}");
    }
    println!(
        "{target}: the input is in {}; mend the fault and commit the input, made small, as a \
         seed: fuzz/seeds/{target}/",
        found.display()
    );
}

fn report(outcomes: &[Outcome]) -> Result<()> {
    println!(
        "\n{:<12} {:>14} {:>12}  result",
        "target", "executions", "kept inputs"
    );
    for outcome in outcomes {
        let result = if outcome.failed {
            "FAILED"
        } else {
            "no finding"
        };
        println!(
            "{:<12} {:>14} {:>12}  {result}",
            outcome.target, outcome.executions, outcome.corpus
        );
    }
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.failed || outcome.executions == 0)
        .map(|outcome| outcome.target.as_str())
        .collect();
    if !failed.is_empty() {
        bail!(
            "not every target held, or not every one ran: {}",
            failed.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_counted_from_either_end() {
        let whole =
            "#2\tINITED cov: 7\n#99\tDONE\nstat::number_of_executed_units: 1234\nstat::x: 1";
        assert_eq!(executions(whole), 1234);
        assert_eq!(
            executions("#2\tINITED cov: 7\n#65536\tpulse cov: 9\nthread panicked"),
            65_536
        );
        assert_eq!(executions(""), 0);
    }
}
