//! `cargo xtask vm`: the kernel tests on other kernels.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    cases::{self, Case},
    image::Image,
    kernel::{Kernel, Release},
    machine::Machine,
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
    /// Only tests whose name contains this; also those that are left out otherwise
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Stop a machine after so many minutes
    #[arg(long, value_name = "N", default_value_t = 20)]
    minutes: u64,
    /// Keep the initial file systems, to boot them by hand
    #[arg(long)]
    keep: bool,
}

/// What a test may take in emulation. Seconds.
const CASE_SECONDS: u64 = 240;

/// Longer lines of a failed case are cut; the log has them whole. Characters.
const WIDTH: usize = 400;

/// What the tests start, in every machine.
const PROGRAMS: &[&str] = &[
    "bash",
    "sh",
    "busybox",
    "cat",
    "chmod",
    "cp",
    "curl",
    "cut",
    "date",
    "dig",
    "env",
    "false",
    "getent",
    "grep",
    "head",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "nsenter",
    "od",
    "printf",
    "ps",
    "python3",
    "readlink",
    "rm",
    "sed",
    "seq",
    "setpriv",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "timeout",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "unshare",
    "wc",
    "wget",
    "yes",
    "nice",
    "test",
    "expr",
    "dd",
    "cmp",
    "setsid",
    "tty",
];

/// Parts of a kernel that distributions build as modules: the wire between two namespaces, the
/// list of sockets and their end, and the protocols that the bypass suite tries.
const MODULES: &[&str] = &[
    "veth",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "mptcp_diag",
    "sctp",
    "vsock",
    "vsock_loopback",
    "tun",
    "virtio_rng",
];

/// Where kernels, file systems and logs are kept.
pub(crate) fn folder() -> PathBuf {
    host::target().join("vm")
}

/// Boots every kernel that is asked for, one after the other; the error names those on which
/// something did not hold.
pub(crate) fn run(options: &Options) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the machines run this host's programs, and only x86_64 is known here");
    }
    setup::run(setup::Extent::Machines)?;
    build::programs()?;
    let cases = cases::all(options.case.as_deref())?;
    let programs = Programs::strip(&cases)?;
    let mut reports = Vec::new();
    for kernel in kernels(options)? {
        reports.push((
            kernel.name.clone(),
            boot(&kernel, &cases, &programs, options)?,
        ));
    }
    println!("\n{}", matrix(&reports, &cases));
    let failed: Vec<&str> = reports
        .iter()
        .filter(|(_, report)| !holds(report, &cases))
        .map(|(name, _)| name.as_str())
        .collect();
    if !failed.is_empty() {
        println!("VERDICT FAILED");
        bail!("not everything held on: {}", failed.join(", "));
    }
    println!("VERDICT HELD");
    Ok(())
}

fn kernels(options: &Options) -> Result<Vec<Kernel>> {
    let files = options.kernel.iter().map(|file| Kernel::file(file));
    let mut kernels = files.collect::<Result<Vec<_>>>()?;
    let all = options.release.is_empty() && kernels.is_empty();
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
    image(kernel, cases, programs)?.write(&files)?;
    println!("\n== {} ==", kernel.name);
    let started = Instant::now();
    let machine = Machine {
        kernel: &kernel.image,
        files: &files,
        console: &place.join("console.log"),
        limit: Duration::from_secs(options.minutes.saturating_mul(60)),
    };
    let mut report = Report::default();
    let mut log = String::new();
    let ended = machine.run(|line| {
        let _ = writeln!(log, "{line}");
        if line.starts_with("@kernel") {
            println!("{line}, up after {}", step::time(started.elapsed()));
        }
        if let Some(case) = report.line(line) {
            println!("{:10} {:>7} ms  {}", case.verdict, case.ms, case.name);
        }
    })?;
    fs::write(place.join("report.log"), log)?;
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

/// Kernels by cases, and by the ways out on which they differ, for `docs/kernels.md`.
fn matrix(reports: &[(String, Report)], cases: &[Case]) -> String {
    let mut text = String::new();
    let names: Vec<&str> = reports
        .iter()
        .map(|(_, report)| report.kernel.as_str())
        .collect();
    let _ = writeln!(text, "| | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(reports.len()));
    for case in cases {
        let cell = |report: &Report| {
            let found = report.cases.iter().find(|one| one.name == case.name);
            found.map_or("not tried".to_owned(), |one| one.verdict.to_lowercase())
        };
        let cells: Vec<String> = reports.iter().map(|(_, report)| cell(report)).collect();
        let _ = writeln!(text, "| `{}` | {} |", case.name, cells.join(" | "));
    }
    let vectors: Vec<_> = reports.iter().map(|(_, report)| report.vectors()).collect();
    let all: BTreeSet<&str> = vectors.iter().flat_map(|one| one.keys().copied()).collect();
    let _ = writeln!(
        text,
        "\nways out tried: {}; those that are not blocked everywhere:",
        all.len()
    );
    for name in all {
        let cells: Vec<&str> = vectors
            .iter()
            .map(|one| one.get(name).copied().unwrap_or("not tried"))
            .collect();
        if cells.iter().any(|cell| *cell != "BLOCKED") {
            let _ = writeln!(text, "| `{name}` | {} |", cells.join(" | ").to_lowercase());
        }
    }
    text
}

/// The file system: everything below `usr` from this host, what is tested below `egress`.
fn image(kernel: &Kernel, cases: &[Case], programs: &Programs) -> Result<Image> {
    let mut image = Image::new();
    for program in PROGRAMS {
        image.program(program)?;
    }
    image.tree(Path::new("/usr/lib/python3.11"), "usr/lib/python3.11")?;
    for file in [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/ssl/openssl.cnf",
        "/etc/nsswitch.conf",
    ] {
        if Path::new(file).exists() {
            image.made(file.trim_start_matches('/'), 0o644, fs::read(file)?);
        }
    }
    image.made(
        "etc/passwd",
        0o644,
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    );
    image.made("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    image.made("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n");
    image.made("etc/resolv.conf", 0o644, "");
    image.link("etc/mtab", "/proc/self/mounts");

    for name in TESTED {
        image.copy(&programs.path(name), &format!("egress/debug/{name}"))?;
    }
    image.copy(&programs.path("vm-init"), "init")?;
    let mut plan = String::new();
    if let Some(modules) = &kernel.modules {
        for module in image.modules(modules, MODULES)? {
            let _ = writeln!(plan, "module {module}");
        }
    }
    for case in cases {
        let to = format!("egress/debug/deps/{}", case.suite);
        image.copy(&programs.path(&case.suite), &to)?;
        let _ = writeln!(
            plan,
            "case {} {CASE_SECONDS} /{to} --exact {} --nocapture --test-threads=1",
            case.name, case.test
        );
    }
    image.made("plan", 0o644, plan);
    Ok(image)
}

/// The programs under test, beside the test programs.
const TESTED: [&str; 3] = ["egress-agent", "embedded-internet", "probe"];

/// Built programs without the parts that only debuggers read, which are most of them.
struct Programs {
    folder: PathBuf,
}

impl Programs {
    fn strip(cases: &[Case]) -> Result<Self> {
        let folder = folder().join("programs");
        fs::create_dir_all(&folder)?;
        let debug = host::target().join("debug");
        let mut all: BTreeSet<(String, PathBuf)> = BTreeSet::new();
        for name in TESTED.into_iter().chain(["vm-init"]) {
            all.insert((name.to_owned(), debug.join(name)));
        }
        all.extend(
            cases
                .iter()
                .map(|case| (case.suite.clone(), case.program.clone())),
        );
        for (name, from) in all {
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(folder.join(name)).arg(from);
            let output = strip.output().context("strip (binutils)")?;
            if !output.status.success() {
                bail!("strip: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
        }
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
