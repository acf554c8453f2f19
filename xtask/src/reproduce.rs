//! Whether the eBPF object comes out the same, byte for byte, wherever it is built.
//!
//! The agent's own build script builds it twice from clean copies of this checkout, in folders
//! of different names and lengths and with different ways to cargo's home, and both are compared
//! with the object that the agent here embeds.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{host, setup, step, toolchain};

/// What the object's source is made of, relative to the workspace.
const PARTS: [&str; 4] = ["egress-ebpf", "egress-common", "egress-init", "Cargo.toml"];
/// The folders of the copies: names that no path of the other's length could stand for.
const FOLDERS: [&str; 2] = ["a", "another-place/with a longer name"];

/// Builds and compares; the error names what differs.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Extent::Build)?;
    let (script, own) = own_build()?;
    let embedded = fs::read(&own).with_context(|| own.display().to_string())?;
    for folder in FOLDERS {
        let place = host::target().join("reproduce").join(folder);
        let object = build_in(&place, &script)?;
        let built = fs::read(&object).with_context(|| object.display().to_string())?;
        if built != embedded {
            let at = built
                .iter()
                .zip(&embedded)
                .position(|(one, other)| one != other);
            bail!(
                "{} and {} differ: {} and {} bytes, first at {at:?}",
                object.display(),
                own.display(),
                built.len(),
                embedded.len()
            );
        }
        println!(
            "reproduce: the same {} bytes in {}",
            built.len(),
            place.display()
        );
    }
    println!("reproduce: the eBPF object is the same in every folder");
    Ok(())
}

/// Builds the agent here. Answers its build script's program and the object it embeds.
fn own_build() -> Result<(PathBuf, PathBuf)> {
    let mut cargo = host::cargo();
    // The same selection of packages as everywhere else, so that it is built already.
    cargo.args(["build", "--workspace", "--bins"]);
    step::quiet("build", "the agent, whose object is compared", &mut cargo)?;
    let output = cargo
        .arg("--message-format=json")
        .output()
        .context("cargo cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|message: &Value| {
            let id = message["package_id"].as_str().unwrap_or_default();
            id.contains("/egress-agent#")
        })
        .collect();
    let script = messages
        .iter()
        .find(|message| text_at(message, "/target/kind/0") == "custom-build")
        .map(|message| text_at(message, "/filenames/0"));
    let out = messages
        .iter()
        .find(|message| message["reason"] == "build-script-executed")
        .and_then(|message| message["out_dir"].as_str());
    match (script, out) {
        (Some(script), Some(out)) => Ok((script.into(), Path::new(out).join("egress-ebpf"))),
        _ => bail!("cargo does not say where the agent's build script and its output are"),
    }
}

/// The text at a place of a document (RFC 6901); empty where there is none.
fn text_at<'a>(document: &'a Value, place: &str) -> &'a str {
    let found = document.pointer(place).and_then(Value::as_str);
    found.unwrap_or_default()
}

/// Runs the build script on a clean copy. Answers the object.
fn build_in(place: &Path, script: &Path) -> Result<PathBuf> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| place.display().to_string())?;
    }
    let parts = host::files()?.into_iter();
    for file in parts.filter(|file| PARTS.iter().any(|part| file.starts_with(part))) {
        let to = place.join(&file);
        let folder = to.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::copy(host::workspace().join(&file), &to).with_context(|| to.display().to_string())?;
    }
    let manifest = place.join("egress-agent");
    let out = place.join("target/out");
    for folder in [&manifest, &out] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // The script takes the nearest folder with this mark for cargo's, where others share what
    // they have built already.
    fs::write(place.join("target/CACHEDIR.TAG"), "").context("CACHEDIR.TAG")?;
    symlink(
        toolchain::tools(host::workspace()),
        place.join("target/tools"),
    )
    .context("tools")?;
    let home = toolchain::cargo_home().context("cargo has no home")?;
    let other_home = place.join("home of cargo");
    symlink(home, &other_home).context("cargo's home")?;
    let mut command = Command::new(script);
    command
        .current_dir(&manifest)
        .env("CARGO_MANIFEST_DIR", &manifest)
        .env("OUT_DIR", &out)
        .env("CARGO_HOME", &other_home)
        .env(
            "RUSTC",
            env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()),
        )
        .env(
            "TARGET",
            format!("{}-unknown-linux-{}", env::consts::ARCH, libc()),
        )
        .env("CARGO_CFG_TARGET_ENV", libc())
        .env("CARGO_CFG_TARGET_ENDIAN", endian())
        .env("CARGO_CFG_TARGET_ARCH", env::consts::ARCH);
    let why = format!("the eBPF object in {}", place.display());
    step::quiet("reproduce", &why, &mut command)?;
    Ok(out.join("egress-ebpf"))
}

fn libc() -> &'static str {
    if cfg!(target_env = "musl") {
        "musl"
    } else {
        "gnu"
    }
}

fn endian() -> &'static str {
    if cfg!(target_endian = "big") {
        "big"
    } else {
        "little"
    }
}
