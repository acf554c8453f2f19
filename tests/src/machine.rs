//! The first process of a machine in which `cargo xtask vm` runs the kernel tests on another
//! kernel. It makes the machine look like a host, runs what the file `/plan` lists, and reports
//! on the second serial port.
//!
//! A line of the plan is `module FILE`, or `case NAME SECONDS PROGRAM ARGUMENT…`. Reported are
//! `@kernel RELEASE` and `@lsm MODULES`, the active security modules; for each case `@begin NAME`, its output behind `| `, and `@end NAME`
//! with `HELD`, `FAILED` or `TIMEOUT` and the milliseconds it took; `@fault` with anything that
//! went wrong outside of cases; last `@done`.

use std::{
    env,
    fs::{self, File},
    io::Write,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    libc::RLIM_INFINITY,
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        resource::{Resource, setrlimit},
        wait::{WaitStatus, wait},
    },
    unistd::Pid,
};

use crate::{modules, process};

const PLAN: &str = "/plan";
const REPORT: &str = "/dev/ttyS1";
/// Programs take about so many times longer in emulation than on the emulating host.
const PATIENCE: &str = "8";
/// The argument with which the first process starts itself again to do the work.
const WORKER: &str = "work";

/// Type, place, options. What a distribution's own first process mounts before anything else.
const MOUNTS: [(&str, &str, &str); 10] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", ""),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("securityfs", "/sys/kernel/security", ""),
];

/// The program. As the first process it only waits for what others leave behind, and ends the
/// machine when the worker has ended.
pub fn main() {
    if env::args().nth(1).as_deref() == Some(WORKER) {
        if let Err(error) = work() {
            report(&format!("@fault {error:#}"));
        }
        return;
    }
    let mut faults = Vec::new();
    for (kind, place, options) in MOUNTS {
        faults.extend(mount_one(kind, place, options).err());
    }
    // Before Linux 5.11 maps count against root's limit, and then nothing is left of the usual 64 KiB
    // for what a program of root's sends without a copy.
    let locked = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    faults.extend(locked.err().map(|error| anyhow!("memory to lock: {error}")));
    for fault in faults {
        report(&format!("@fault {fault:#}"));
    }
    match Command::new("/init").arg(WORKER).spawn() {
        Ok(worker) => reap(Pid::from_raw(worker.id().cast_signed())),
        Err(error) => report(&format!("@fault the worker: {error}")),
    }
    // The serial port sends what it has before the machine is off.
    thread::sleep(Duration::from_millis(200));
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    report(&format!("@fault power off: {error}"));
}

/// Waits for everything that ends until the worker does.
fn reap(worker: Pid) {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == worker => {
                return;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn work() -> Result<()> {
    let plan = fs::read_to_string(PLAN).context(PLAN)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    report(&format!("@kernel {}", release.trim()));
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    report(&format!("@lsm {}", modules.trim()));
    let expected = modules::of_kernel(release.trim(), modules.trim());
    for line in plan.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["module", file] => {
                if let Err(error) = load(file) {
                    report(&format!("@fault {file}: {error:#}"));
                }
            }
            ["case", name, seconds, program, arguments @ ..] => {
                case(
                    name,
                    Duration::from_secs(seconds.parse()?),
                    program,
                    arguments,
                    expected,
                );
            }
            _ => report(&format!("@fault the plan says {line:?}")),
        }
    }
    report("@done");
    Ok(())
}

/// Runs one case and reports it.
fn case(name: &str, limit: Duration, program: &str, arguments: &[&str], modules: &str) {
    report(&format!("@begin {name}"));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env(modules::VARIABLE, modules)
        .env("EGRESS_TEST_PATIENCE", PATIENCE);
    let (verdict, took) = match process::run(command, limit) {
        Ok(outcome) => {
            let output = format!("{}\n{}", outcome.text(), outcome.stderr);
            for line in output.lines() {
                report(&format!("| {line}"));
            }
            // A filter that fits no test is content with nothing.
            let ran = outcome.text().contains("1 passed");
            let verdict = match (outcome.timed_out, outcome.ok() && ran) {
                (true, _) => "TIMEOUT",
                (false, true) => "HELD",
                (false, false) => "FAILED",
            };
            (verdict, outcome.took)
        }
        Err(error) => {
            report(&format!("| {error:#}"));
            ("FAILED", Duration::ZERO)
        }
    };
    report(&format!("@end {name} {verdict} {}", took.as_millis()));
}

fn mount_one(kind: &str, place: &str, options: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| place.to_owned())?;
    match mount(
        Some(kind),
        place,
        Some(kind),
        MsFlags::empty(),
        Some(options),
    ) {
        // The kernel mounts some by itself.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot mount {kind} at {place}")),
    }
}

fn load(file: &str) -> Result<()> {
    let module = File::open(file)?;
    match finit_module(module, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes a line to the serial port, whole. There is nobody to tell if that fails.
fn report(line: &str) {
    if let Ok(mut port) = File::options().append(true).open(REPORT) {
        let _ = port.write_all(format!("{line}\n").as_bytes());
    }
}
