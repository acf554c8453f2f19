//! A machine in qemu, with two serial ports: one for the kernel's console, which goes to a
//! file, one for what `vm-init` reports.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// The tests' programs are in memory twice while they are unpacked.
const MEMORY: &str = "3072";
/// `panic=-1`: a machine that panics ends at once. `console`: where the kernel's own output goes.
const KERNEL_LINE: &str = "console=ttyS0 loglevel=4 panic=-1 rdinit=/init";

/// What is booted.
pub(crate) struct Machine<'a> {
    /// Kernel image.
    pub(crate) kernel: &'a Path,
    /// Initial file system.
    pub(crate) files: &'a Path,
    /// Where the console's output goes.
    pub(crate) console: &'a Path,
    /// More for the kernel's command line.
    pub(crate) line: &'a str,
    /// The machine is stopped after this time.
    pub(crate) limit: Duration,
}

impl Machine<'_> {
    /// Boots it and hands over each line that is reported, until it ends. Answers whether it
    /// ended by itself.
    pub(crate) fn run(&self, mut report: impl FnMut(&str)) -> Result<bool> {
        let mut child = self
            .command()
            .spawn()
            .with_context(|| format!("{QEMU} cannot be started"))?;
        let output = child.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let end = Instant::now() + self.limit;
        let ended = loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => report(line.trim_end_matches('\r')),
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        if !ended {
            child.kill()?;
        }
        child.wait()?;
        drop(lines);
        drop(reader.join());
        Ok(ended)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(QEMU);
        // Software emulation everywhere: what is measured is the kernel, not the host's.
        command
            .args([
                "-M",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
            ])
            .args([
                "-m",
                MEMORY,
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
            ])
            .args(["-nic", "none", "-device", "virtio-rng-pci"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.files)
            .args(["-append", &format!("{KERNEL_LINE} {}", self.line)])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}
