//! Keeps packages that are installed meanwhile from starting their services.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::host;

/// Asked by every Debian package before it starts something (invoke-rc.d(8)); 101 forbids it.
const FILE: &str = "/usr/sbin/policy-rc.d";
/// Removes the file when standard input ends: also when this process is killed.
const KEEPER: &str = r#"trap "" INT TERM HUP
printf '#!/bin/sh\nexit 101\n' >"$1" && chmod 755 "$1" || { rm -f "$1"; exit 1; }
echo forbidden
read -r line
rm -f "$1""#;

/// For as long as it lives. A host that has a policy of its own keeps it.
pub(crate) struct Asleep {
    keeper: Option<Child>,
}

impl Asleep {
    /// Forbids starts.
    pub(crate) fn begin() -> Result<Self> {
        let needed = !Path::new(FILE).exists() && host::program("apt-get").is_some();
        if !needed {
            return Ok(Self { keeper: None });
        }
        let mut command = host::as_root("sh")?;
        command.args(["-c", KEEPER, "sh", FILE]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("sh")?;
        let mut said = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        // From here on it is ended in any case.
        let this = Self {
            keeper: Some(child),
        };
        ensure!(said == "forbidden\n", "cannot write {FILE}");
        eprintln!("services: none of what is installed now is started");
        Ok(this)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        drop(keeper.stdin.take());
        match keeper.wait() {
            Ok(status) if status.success() => {}
            other => eprintln!("remove {FILE} yourself: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::process::Command;

    use super::*;

    /// It says nothing and ends; whoever waits for its word goes on.
    #[test]
    fn a_file_that_cannot_be_written_holds_nobody_up() {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh", "/proc/no-such-folder/policy"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert_eq!(said, "");
        drop(keeper.stdin.take());
        assert!(!keeper.wait().unwrap().success());
    }

    /// The one who holds its standard input is killed and cannot tidy up.
    #[test]
    fn nothing_stays_when_the_task_is_killed() {
        let name = format!("egress-policy-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let mut task = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(&file)
            .stdin(task.stdout.take().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        assert_eq!(said, "forbidden\n");
        assert!(file.exists());
        task.kill().unwrap();
        task.wait().unwrap();
        assert!(keeper.wait().unwrap().success());
        assert!(!file.exists());
    }
}
