//! The same tests on this host's own kernel, for its column of the matrix.

use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use super::{cases::Case, files::HOW, verdict::Report};
use crate::host;

/// Runs them one after the other.
pub(crate) fn run(cases: &[Case]) -> Result<Report> {
    if !host::is_root() {
        bail!("--here runs the kernel tests themselves, as root");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    println!("\n== {}, this host ==", release.trim());
    let mut report = Report::default();
    report.line(&format!("@kernel {}", release.trim()));
    report.line(&format!("@lsm {}", modules.trim()));
    for case in cases {
        report.line(&format!("@begin {}", case.name));
        let started = Instant::now();
        let mut command = Command::new(&case.program);
        command
            .current_dir(host::workspace().join("tests"))
            .args(["--exact", &case.test])
            .args(HOW)
            .stdin(Stdio::null());
        let output = command.output().with_context(|| case.name.clone())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        for line in text.lines().chain(errors.lines()) {
            report.line(&format!("| {line}"));
        }
        // A filter that fits no test is content with nothing.
        let held = output.status.success() && text.contains("1 passed");
        let verdict = if held { "HELD" } else { "FAILED" };
        let ms = started.elapsed().as_millis();
        if let Some(case) = report.line(&format!("@end {} {verdict} {ms}", case.name)) {
            println!("{:10} {:>7} ms  {}", case.verdict, case.ms, case.name);
        }
    }
    report.line("@done");
    Ok(report)
}
