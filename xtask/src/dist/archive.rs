//! Builds the agent as it is shipped and packs it; the same checkout and tools give the same
//! bytes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::bill;
use crate::{host, setup, step, toolchain};

/// What is packed besides the program and the bill of materials.
const DOCUMENTS: [&str; 4] = ["CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md"];
/// Folders that are packed.
const FOLDERS: [&str; 2] = ["docs", "policies"];

/// Builds, packs, sums up.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Extent::Build)?;
    let home = host::target().join("dist");
    let program = build(&home.join("build"))?;
    let commit = Commit::read()?;
    let bill = bill::write(&commit.time)?;

    let name = format!(
        "egress-agent-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        env::consts::ARCH
    );
    let stage = home.join(&name);
    lay_out(&stage, &program, &bill)?;
    works(&stage)?;
    let archive = pack(&home, &name, &commit)?;
    let bill_file = format!("{name}.cdx.json");
    fs::write(home.join(&bill_file), &bill).context("the bill of materials")?;
    let sums = sums(&home, &[archive.as_str(), &bill_file])?;
    println!("{sums}");
    println!("dist: {} of {} in {}", archive, commit.name, home.display());
    if commit.changed {
        println!("dist: the checkout holds changes that are not committed");
    }
    Ok(())
}

/// The commit that is packed: its time is that of every packed file.
struct Commit {
    name: String,
    /// RFC 3339.
    time: String,
    seconds: u64,
    changed: bool,
}

impl Commit {
    fn read() -> Result<Self> {
        let text = git(&[
            "log",
            "-1",
            "--format=%h %ct %cd",
            "--date=format-local:%FT%TZ",
        ])?;
        let mut words = text.split_whitespace();
        let (Some(name), Some(seconds), Some(time)) = (words.next(), words.next(), words.next())
        else {
            bail!("git does not say which commit this is");
        };
        Ok(Self {
            name: name.to_owned(),
            time: time.to_owned(),
            seconds: seconds.parse().context("the time of the commit")?,
            changed: !git(&["status", "--porcelain"])?.trim().is_empty(),
        })
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(host::workspace()).args(arguments);
    let output = git.env("TZ", "UTC").output().context("git")?;
    if !output.status.success() {
        bail!(
            "git {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds without this host's folders in the program, which panics and errors would name.
fn build(folder: &Path) -> Result<PathBuf> {
    let mut cargo = host::cargo();
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "egress-agent",
        ])
        .args([
            "--bin",
            "egress-agent",
            "--config",
            "profile.release.strip=\"symbols\"",
        ])
        .arg("--target-dir")
        .arg(folder)
        .env("CARGO_ENCODED_RUSTFLAGS", remapped()?.join("\x1f"));
    step::quiet(
        "build",
        "the agent as it is shipped, some minutes",
        &mut cargo,
    )?;
    Ok(folder.join("release/egress-agent"))
}

fn remapped() -> Result<Vec<String>> {
    let home = toolchain::cargo_home().context("cargo has no home")?;
    let folders = [(host::workspace(), "."), (&home, "cargo")];
    let options = folders.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    Ok(options.to_vec())
}

/// Everything in its place, readable by all and writable by its owner.
fn lay_out(stage: &Path, program: &Path, bill: &str) -> Result<()> {
    if stage.exists() {
        fs::remove_dir_all(stage).with_context(|| stage.display().to_string())?;
    }
    let packed = |file: &PathBuf| {
        DOCUMENTS.iter().any(|document| file == Path::new(document))
            || FOLDERS.iter().any(|folder| file.starts_with(folder))
    };
    for file in host::files()?.iter().filter(|file| packed(file)) {
        put(&host::workspace().join(file), &stage.join(file))?;
    }
    put(program, &stage.join("egress-agent"))?;
    fs::write(stage.join("sbom.cdx.json"), bill).context("the bill of materials")
}

fn put(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file is in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The packed program starts, and takes the packed policies.
fn works(stage: &Path) -> Result<()> {
    for arguments in [&["--version"][..], &["check", "policies"]] {
        let mut agent = Command::new(stage.join("egress-agent"));
        step::loud(agent.current_dir(stage).args(arguments))?;
    }
    Ok(())
}

/// Packs with sorted names, one owner and one time. Answers the archive's name.
fn pack(home: &Path, name: &str, commit: &Commit) -> Result<String> {
    let tar = format!("{name}.tar");
    let archive = format!("{tar}.gz");
    drop(fs::remove_file(home.join(&archive)));
    let mut pack = Command::new("tar");
    pack.current_dir(home)
        .args([
            "--create",
            "--sort=name",
            "--format=gnu",
            "--mode=u=rwX,go=rX",
        ])
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", commit.seconds))
        .args(["--file", &tar, name]);
    step::quiet("pack", &format!("packing {archive}"), &mut pack)?;
    let mut press = Command::new("gzip");
    press.current_dir(home).args(["--best", "--no-name", &tar]);
    step::quiet("pack", "pressing it", &mut press)?;
    Ok(archive)
}

/// Writes `SHA256SUMS` beside the files. Answers its text.
fn sums(home: &Path, files: &[&str]) -> Result<String> {
    let mut sum = Command::new("sha256sum");
    let output = sum.current_dir(home).args(files).output();
    let output = output.context("sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.lines().count() != files.len() {
        bail!(
            "sha256sum failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::write(home.join("SHA256SUMS"), &text).context("SHA256SUMS")?;
    Ok(text.trim_end().to_owned())
}
