//! What the benchmark compares with and no distribution packs, below one folder. What cannot be
//! installed is said, and missing in the tables.

use std::{fs, io::ErrorKind, path::Path, process::Command};

use anyhow::Result;

use crate::step;

/// The version that was compared.
const SRT: &str = "@anthropic-ai/sandbox-runtime@0.0.83";
/// sandbox-runtime asks for Node.js 22; the package brings one.
const NODE: &str = "node@22";
/// The version that was compared.
const MITMPROXY: &str = "mitmproxy==11.0.2";
/// The newest; its build downloads a JavaScript engine from github.com. Then the last without one.
const HTTPJAIL: [&str; 2] = ["0.6.2", "0.1.0"];

/// Installs what is not there.
pub(crate) fn install(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let npm = folder.join("npm");
    let mitm = folder.join("mitm");
    let cargo = folder.join("cargo");
    let here = |file: &Path| file.exists();
    if !here(&npm.join("node_modules/.bin/srt")) {
        let mut command = Command::new("npm");
        command.args(["install", "--no-fund", "--no-audit", "--prefix"]);
        attempt("srt", command.arg(&npm).args([SRT, NODE]));
    }
    // A virtual environment does not work where it was copied to.
    if !works(&mitm.join("bin/mitmdump")) {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(&mitm);
        let mut pip = Command::new(mitm.join("bin/pip"));
        pip.args(["install", "--quiet", MITMPROXY]);
        if attempt("mitmproxy", &mut venv) {
            attempt("mitmproxy", &mut pip);
        }
    }
    for version in HTTPJAIL {
        if here(&cargo.join("bin/httpjail")) {
            break;
        }
        let mut command = Command::new("cargo");
        command.args(["install", "httpjail", "--version", version, "--locked"]);
        command.arg("--root").arg(&cargo);
        command.arg("--target-dir").arg(folder.join("cargo-build"));
        command.current_dir(folder);
        attempt(&format!("httpjail {version}"), &mut command);
    }
    // Half a gigabyte, and of no use when it is installed or cannot be.
    fs::remove_dir_all(folder.join("cargo-build")).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error.into()),
    })
}

fn works(program: &Path) -> bool {
    let result = Command::new(program).arg("--version").output();
    result.is_ok_and(|output| output.status.success())
}

/// Whether it worked.
fn attempt(name: &str, command: &mut Command) -> bool {
    let result = step::quiet(name, "installing it, to compare with", command);
    if let Err(error) = &result {
        let text = format!("{error:#}");
        let why = text.lines().next().unwrap_or_default();
        println!("{name}: it is left out, the rest is compared: {why}");
    }
    result.is_ok()
}
