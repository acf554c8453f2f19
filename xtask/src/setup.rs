//! Installs what is missing: compiler and linker of the eBPF programs, the clients that the
//! tests confine, a mounted BPF file system. Asks nothing and leaves alone what is there.

use std::{env, fs, path::Path, process::Command, thread};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    apt::{Apt, MIRROR},
    host,
    packages::Package,
    services, step,
    toolchain::{self, Toolchain},
};

/// Debian's compiler of a recent Rust, with the sources of its library.
const RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Where Debian's package leaves a trace that another one's compiler does not.
const WEB_DOCUMENTS: &str = "/usr/share/doc/rustc-web";

/// How much of it is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What a build needs.
    Build,
    /// That, and what the demo and the kernel tests need.
    Everything,
    /// That, and what other kernels are run with.
    Machines,
    /// What the demo and the tests need, and what the benchmark compares with.
    Peers,
    /// What a build of the fuzzer needs.
    Fuzzer,
}

/// Brings this host to where everything runs.
pub(crate) fn run(extent: Extent) -> Result<()> {
    let packages = match extent {
        Extent::Build => Vec::new(),
        Extent::Everything => Package::missing(),
        Extent::Machines => Package::missing_for_machines(),
        Extent::Peers => Package::missing_for_peers(),
        Extent::Fuzzer => Package::missing_for_fuzzer(),
    };
    // Packages would start a proxy, a database and an SSH server on this host.
    let _asleep = (!packages.is_empty())
        .then(services::Asleep::begin)
        .transpose()?;
    let tools = toolchain::tools(host::workspace());
    let no_compiler = compiler().is_err();
    let no_linker = toolchain::bpf_linker(&tools).is_err();

    // Downloads and unpacking on one side, compiling on the other: two cores suffice.
    thread::scope(|scope| {
        let linker = scope.spawn(|| {
            if no_linker {
                install_linker(&tools)
            } else {
                Ok(())
            }
        });
        let others = install_packages(&packages, no_compiler);
        let linker = linker
            .join()
            .map_err(|_| anyhow!("the installation of bpf-linker broke off"))?;
        others.and(linker)
    })?;

    let confines = matches!(
        extent,
        Extent::Everything | Extent::Machines | Extent::Peers
    );
    if confines && !host::has_bpffs()? {
        step::quiet(
            "bpffs",
            "mounting /sys/fs/bpf, where enforcement outlives the agent",
            host::as_root("mount")?.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]),
        )?;
    }

    let compiler = compiler().map_err(|fault| anyhow!(fault))?;
    let linker = toolchain::bpf_linker(&tools).map_err(|fault| anyhow!(fault))?;
    println!(
        "set-up: complete; eBPF programs are built by {compiler} and {}",
        linker.display()
    );
    Ok(())
}

/// Installs a tool of cargo's into `tools`, not optimised: on two cores that takes a minute
/// instead of four, and what the tools then do takes a second either way.
pub(crate) fn install_tool(tools: &Path, name: &str, version: &str, why: &str) -> Result<()> {
    let build = tools.join("build").join(name);
    step::quiet(
        name,
        why,
        Command::new("cargo")
            .args(["install", name, "--version", version, "--locked", "--root"])
            .arg(tools)
            .arg("--target-dir")
            .arg(&build)
            .current_dir(env::temp_dir())
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    )?;
    // Hundreds of megabytes that nothing needs any more.
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))
}

fn compiler() -> Result<Toolchain, String> {
    Toolchain::find(env::var(toolchain::WISH).ok().as_deref())
}

fn install_linker(tools: &Path) -> Result<()> {
    let (major, minor, patch) = toolchain::BPF_LINKER;
    install_tool(
        tools,
        "bpf-linker",
        &format!("{major}.{minor}.{patch}"),
        "building the linker of the eBPF programs, a minute or more",
    )
}

/// Where a compiler for the eBPF programs is to come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// One is here, or the user named one that set-up does not install.
    Nowhere,
    Apt,
    Rustup,
}

fn install_packages(packages: &[&Package], no_compiler: bool) -> Result<()> {
    let apt = host::program("apt-get").is_some();
    if !packages.is_empty() && !apt {
        bail!(
            "this host has no apt-get; install these packages and come back:\n  {}",
            Package::command(packages)
        );
    }
    for package in packages {
        println!("packages: {} for {}", package.debian(), package.why);
    }
    let wish = env::var(toolchain::WISH).ok();
    let may_apt = no_compiler && apt && wish.as_deref().is_none_or(|wish| wish == "debian");
    if !packages.is_empty() || may_apt {
        step::quiet(
            "packages",
            "fetching the distribution's list",
            host::as_root("apt-get")?.args(["update", "-q"]),
        )?;
    }
    let source = if may_apt && offers_rust() {
        Source::Apt
    } else if no_compiler && wish.is_none() {
        Source::Rustup
    } else {
        Source::Nowhere
    };
    let mut names: Vec<&str> = packages.iter().map(|package| package.debian()).collect();
    if source == Source::Apt {
        println!(
            "packages: {} for the eBPF programs",
            RUST_PACKAGES.join(" ")
        );
        names.extend(RUST_PACKAGES);
    }
    if !names.is_empty() {
        install(&names)?;
    }
    if source == Source::Rustup {
        install_nightly()?;
    }
    Ok(())
}

/// Never at the cost of something that somebody installed, and after whoever installs just now.
const GENTLY: [&str; 7] = [
    "-o",
    "DPkg::Lock::Timeout=300",
    "install",
    "-q",
    "--yes",
    "--no-remove",
    "--no-install-recommends",
];

/// Installs packages. A host that has one of a family's packages from Debian's backports takes
/// its relatives from there alone.
fn install(names: &[&str]) -> Result<()> {
    let mut plain = host::as_root("env")?;
    plain.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    plain.args(GENTLY).args(names);
    let why = format!("installing {}", names.join(" "));
    let Err(error) = step::quiet("packages", &why, &mut plain) else {
        return Ok(());
    };
    let Some(suite) = host::suite().filter(|_| host::distribution() == ["debian"]) else {
        return Err(error);
    };
    println!("packages: {suite} alone does not fit what is installed here");
    let backports = format!("{suite}-backports");
    let sources: String = [&suite, &format!("{suite}-updates"), &backports]
        .map(|suite| format!("deb {MIRROR} {suite} main\n"))
        .concat();
    let apt = Apt::installing(host::target().join("apt"), &sources)?;
    let mut update = apt.command("apt-get")?;
    let why = format!("fetching the list of {backports}");
    step::quiet("packages", &why, update.args(["update", "-q"])).context(error.to_string())?;
    let mut again = apt.command("apt-get")?;
    again.args(GENTLY).arg("--target-release").arg(&backports);
    let why = format!("installing {} from {backports}", names.join(" "));
    step::quiet("packages", &why, again.args(names)).context(error.to_string())?;
    Ok(())
}

/// Whether the distribution has a compiler that is new enough and would not push another
/// one out.
fn offers_rust() -> bool {
    let listed = Command::new("apt-cache")
        .args(["show", "rustc-web"])
        .output();
    let new_enough = listed.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("Version: 1."))
            .filter_map(|rest| rest.split('.').next()?.parse::<u32>().ok())
            .any(|minor| minor >= 88)
    });
    // A compiler that is there already, but lacks the sources, is the same package.
    let other = Path::new("/usr/bin/rustc").exists() && !Path::new(WEB_DOCUMENTS).exists();
    new_enough && !other
}

/// Brings rustup's; what is missing otherwise is said at the end of set-up.
fn install_nightly() -> Result<()> {
    let mut words = toolchain::FIX_RUSTUP.split_whitespace();
    let (Some(rustup), true) = (words.next(), host::program("rustup").is_some()) else {
        return Ok(());
    };
    let why = "installing a nightly with its library's sources, for the eBPF programs";
    step::quiet("rustup", why, Command::new(rustup).args(words)).map(drop)
}
