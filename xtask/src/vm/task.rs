//! `cargo xtask vm`: the kernel tests on other kernels.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    cases::{self, Case},
    files::{self, Programs},
    here,
    kernel::{Kernel, Release},
    machine::Machine,
    matrix, results,
    verdict::Report,
};
use crate::{build, host, setup, step};

/// What `vm` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Boot this kernel image instead of Debian's
    #[arg(long, value_name = "FILE")]
    kernel: Vec<PathBuf>,
    /// Debian's kernels of these lines; without this and --kernel all
    #[arg(long, value_name = "LINE")]
    release: Vec<Release>,
    /// Only tests whose name contains one of these; also those that are left out otherwise
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// Stop a machine after so many minutes
    #[arg(long, value_name = "N", default_value_t = 20)]
    minutes: u64,
    /// More for the kernel's command line, such as lsm=landlock,yama; the results are not kept
    #[arg(long, value_name = "TEXT", default_value = "")]
    line: String,
    /// On this host's own kernel, without a machine
    #[arg(long)]
    here: bool,
    /// Write the tables of docs/kernels.md: everything that was measured, now and before
    #[arg(long)]
    write: bool,
    /// Keep the initial file systems, to boot them by hand
    #[arg(long)]
    keep: bool,
}

/// Longer lines of a failed case are cut; the log has them whole. Characters.
const WIDTH: usize = 400;

/// Where kernels, file systems and logs are kept.
pub(crate) fn folder() -> PathBuf {
    host::target().join("vm")
}

/// What is tried on every change: a permitted host is reached and a stranger refused, through
/// the door, by every hook, without the agent, after a reload; and the verifier there takes every
/// program.
const EVERY_TIME: [&str; 9] = [
    "bypass/streams",
    "bypass/datagrams",
    "bypass/other_sockets",
    "confinement/curl",
    "layers/layers_that_depend_on_the_kernel_alone_stand_from_their_release_on",
    "listen/a_permitted_caller_cannot_be_called",
    "names/any_server_over_any_transport_is_the_door",
    "outlives/a_killed_agent_leaves_its_connector_confined",
    "reload/a_removed_host_ends_its_flow_and_no_other",
];

/// The part of the matrix that every change must pass: the oldest kernel that is supported.
pub(crate) fn oldest() -> Result<String> {
    run(&Options {
        kernel: Vec::new(),
        release: vec![Release::V5_10],
        case: EVERY_TIME.map(str::to_owned).to_vec(),
        minutes: 10,
        line: String::new(),
        here: false,
        write: false,
        keep: false,
    })
}

/// Boots every kernel that is asked for, one after the other; the error names those on which
/// something did not hold. Answers what held.
pub(crate) fn run(options: &Options) -> Result<String> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the machines run this host's programs, and only x86_64 is known here");
    }
    setup::run(setup::Extent::Machines)?;
    build::programs()?;
    let cases = cases::all(&options.case)?;
    let mut reports = Vec::new();
    if options.here {
        let report = here::run(&cases)?;
        results::keep(&report)?;
        explain(&report, &cases, &folder());
        reports.push(report);
    }
    let programs = Programs::strip(&cases)?;
    for kernel in kernels(options)? {
        let report = boot(&kernel, &cases, &programs, options)?;
        // With another command line it is not the kernel as it comes.
        if options.line.is_empty() {
            results::keep(&report)?;
        }
        reports.push(report);
    }
    println!("\n{}", matrix::tables(&reports));
    if options.write {
        matrix::write()?;
    }
    let failed: Vec<&str> = reports
        .iter()
        .filter(|report| !holds(report, &cases))
        .map(|report| report.kernel.as_str())
        .collect();
    if !failed.is_empty() {
        println!("VERDICT FAILED");
        bail!("not everything held on: {}", failed.join(", "));
    }
    println!("VERDICT HELD");
    Ok(reports
        .iter()
        .map(Report::summary)
        .collect::<Vec<_>>()
        .join("; "))
}

fn kernels(options: &Options) -> Result<Vec<Kernel>> {
    let files = options.kernel.iter().map(|file| Kernel::file(file));
    let mut kernels = files.collect::<Result<Vec<_>>>()?;
    let all = options.release.is_empty() && kernels.is_empty() && !options.here;
    let releases = if all {
        &Release::ALL[..]
    } else {
        &options.release
    };
    for release in releases {
        kernels.push(release.get()?);
    }
    Ok(kernels)
}

/// One machine, from its file system to its report.
fn boot(kernel: &Kernel, cases: &[Case], programs: &Programs, options: &Options) -> Result<Report> {
    let place = folder().join("machines").join(&kernel.name);
    fs::create_dir_all(&place)?;
    let files = place.join("initramfs");
    files::image(kernel, cases, programs)?.write(&files)?;
    println!("\n== {} ==", kernel.name);
    let started = Instant::now();
    let machine = Machine {
        kernel: &kernel.image,
        files: &files,
        console: &place.join("console.log"),
        line: &options.line,
        limit: Duration::from_secs(options.minutes.saturating_mul(60)),
    };
    let mut report = Report::default();
    let mut log = File::create(place.join("report.log"))?;
    let ended = machine.run(|line| {
        // A log that cannot be written must not end the machine.
        writeln!(log, "{line}").unwrap_or_default();
        if line.starts_with("@kernel") {
            println!("{line}, up after {}", step::time(started.elapsed()));
        }
        if let Some(case) = report.line(line) {
            println!("{:10} {:>7} ms  {}", case.verdict, case.ms, case.name);
        }
    })?;
    if options.keep {
        println!("kept: {}", files.display());
    } else {
        fs::remove_file(&files)?;
    }
    let how = if ended { "ended" } else { "was stopped" };
    println!("the machine {how} after {}", step::time(started.elapsed()));
    explain(&report, cases, &place);
    Ok(report)
}

/// Prints what went wrong.
fn explain(report: &Report, cases: &[Case], place: &Path) {
    for fault in &report.faults {
        println!("fault: {fault}");
    }
    for case in report.cases.iter().filter(|case| !case.held()) {
        println!("\n-- {} {}", case.verdict, case.name);
        for line in case.output.iter().filter(|line| !line.is_empty()) {
            println!("   {}", line.chars().take(WIDTH).collect::<String>());
        }
    }
    if !report.done || report.cases.len() != cases.len() {
        println!("not every case was tried; the end of the console:");
        let console = fs::read(place.join("console.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        for line in lines
            .get(lines.len().saturating_sub(30)..)
            .unwrap_or_default()
        {
            println!("   {line}");
        }
    }
    println!("logs: {}", place.display());
}

fn holds(report: &Report, cases: &[Case]) -> bool {
    let all = report.done && report.faults.is_empty() && report.cases.len() == cases.len();
    all && report.cases.iter().all(super::verdict::Case::held)
}
