//! The compiler and the linker of the eBPF crate: which of this host's can do it.
//!
//! The one place that knows. `egress-agent/build.rs` includes this file as it is, so it has
//! no dependencies, and `setup` asks it what is still missing.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The variable that names the toolchain to take: `debian`, or a rustup toolchain.
pub(crate) const WISH: &str = "EGRESS_EBPF_TOOLCHAIN";

/// The LLVM that bpf-linker is built for. Bitcode of a newer one it cannot read.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// The release of bpf-linker that is known to work; later ones of the same line are taken.
pub(crate) const BPF_LINKER: (u32, u32, u32) = (0, 10, 3);

/// What brings a rustup toolchain that can: of a day when its LLVM was the linker's.
pub(crate) const FIX_RUSTUP: &str =
    "rustup toolchain install nightly-2026-05-20 --profile minimal --component rust-src";

/// What brings Debian's.
pub(crate) const FIX_DEBIAN: &str = "apt-get install rustc-web cargo-web rust-web-src";

/// What brings the linker.
pub(crate) const FIX_LINKER: &str = "cargo install bpf-linker --version 0.10.3 --locked";

/// A compiler that can build `core` for the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Toolchain {
    /// `debian`, or what rustup calls it.
    pub(crate) name: String,
    /// Its own cargo, not rustup's proxy.
    pub(crate) cargo: PathBuf,
    /// Its own compiler.
    pub(crate) rustc: PathBuf,
    /// Where its library's sources are.
    pub(crate) library: PathBuf,
    /// Whether it must be told to accept unstable options.
    pub(crate) bootstrap: bool,
    /// The compiler's release, for example `1.96.0`.
    pub(crate) release: String,
    /// Its LLVM, to be opened by the linker.
    pub(crate) llvm: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rustc {})", self.name, self.release)
    }
}

impl Toolchain {
    /// The toolchain that `wish` names, or else the first that can: a rustup nightly that
    /// has its library's sources, then Debian's packages. The error says what was looked at
    /// and how to mend it.
    pub(crate) fn find(wish: Option<&str>) -> Result<Self, String> {
        let mut faults = Vec::new();
        for name in candidates(wish) {
            match Self::examine(&name) {
                Ok(toolchain) => return Ok(toolchain),
                Err(fault) => faults.push(format!("  {name}: {fault}")),
            }
        }
        if faults.is_empty() {
            faults.push("  there is no rustup nightly and no compiler in /usr/bin".to_owned());
        }
        let faults = faults.join("\n");
        Err(format!(
            "no Rust toolchain here can build the eBPF programs:\n{faults}\n\
             One of these two commands brings one:\n  {FIX_RUSTUP}\n  {FIX_DEBIAN}\n\
             {WISH}=debian, or a rustup toolchain's name, chooses between several."
        ))
    }

    fn examine(name: &str) -> Result<Self, String> {
        let debian = name == "debian";
        let root = if debian {
            PathBuf::from("/usr")
        } else {
            rustup_root(name)?
        };
        let (cargo, rustc) = (root.join("bin/cargo"), root.join("bin/rustc"));
        for program in [&cargo, &rustc] {
            if !program.is_file() {
                return Err(format!("has no {}", program.display()));
            }
        }
        let library = root.join("lib/rustlib/src/rust");
        if !library.join("library/core/Cargo.toml").is_file() {
            return Err("has no sources of the core library".to_owned());
        }
        let (release, llvm_major) = versions(&rustc)?;
        if llvm_major > LLVM_MAJOR {
            return Err(format!(
                "its LLVM {llvm_major} is newer than bpf-linker's, {LLVM_MAJOR}"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            bootstrap: !release.contains("nightly"),
            llvm: llvm(&root)?,
            library,
            cargo,
            rustc,
            release,
        })
    }
}

/// Where a bpf-linker that fits is, looked for in `tools`, cargo's own folder and PATH.
pub(crate) fn bpf_linker(tools: &Path) -> Result<PathBuf, String> {
    let mut folders = vec![tools.join("bin")];
    folders.extend(cargo_home().map(|home| home.join("bin")));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let mut faults = Vec::new();
    for folder in folders {
        let program = folder.join("bpf-linker");
        if !program.is_file() {
            continue;
        }
        match run(Command::new(&program).arg("--version")) {
            Ok(text) if linker_fits(&text) => return Ok(program),
            Ok(text) => faults.push(format!("  {}: {}", program.display(), text.trim())),
            Err(fault) => faults.push(format!("  {fault}")),
        }
    }
    let (major, minor, patch) = BPF_LINKER;
    let seen = if faults.is_empty() {
        String::new()
    } else {
        format!("\nFound, but not fit:\n{}", faults.join("\n"))
    };
    Err(format!(
        "no bpf-linker {major}.{minor} from {major}.{minor}.{patch} on is in {}, cargo's \
         folder or PATH.{seen}\nThis command brings one:\n  {FIX_LINKER}",
        tools.join("bin").display()
    ))
}

/// Where cargo keeps what it fetches and installs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// The folder of tools that `setup` installs for this checkout alone.
pub(crate) fn tools(workspace: &Path) -> PathBuf {
    workspace.join("target/tools")
}

fn candidates(wish: Option<&str>) -> Vec<String> {
    // The same variable also carries "NAME (rustc RELEASE)" out of the build script.
    let wish = wish.and_then(|wish| wish.split_whitespace().next());
    if let Some(name) = wish {
        return vec![name.to_owned()];
    }
    let listed = run(Command::new("rustup").args(["toolchain", "list"]));
    let mut names: Vec<String> = listed
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .map(str::to_owned)
        .collect();
    if Path::new("/usr/bin/rustc").is_file() {
        names.push("debian".to_owned());
    }
    names
}

fn rustup_root(name: &str) -> Result<PathBuf, String> {
    let mut command = Command::new("rustup");
    command.args(["run", name, "rustc", "--print", "sysroot"]);
    Ok(PathBuf::from(run(&mut command)?.trim()))
}

/// The release of a compiler and the major version of its LLVM.
fn versions(rustc: &Path) -> Result<(String, u32), String> {
    let text = run(Command::new(rustc).arg("-vV"))?;
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let release = field("release: ").unwrap_or("unknown").to_owned();
    let llvm = field("LLVM version: ").and_then(|version| version.split('.').next()?.parse().ok());
    match llvm {
        Some(llvm) => Ok((release, llvm)),
        None => Err("does not say which LLVM it has".to_owned()),
    }
}

/// The shared LLVM below a toolchain's root. Rust's own builds keep it in `lib`, Debian in
/// the folder of the architecture.
fn llvm(root: &Path) -> Result<PathBuf, String> {
    let base = root.join("lib");
    let mut folders = vec![base.clone(), root.join("lib64")];
    for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with("-linux-gnu") {
            folders.push(entry.path());
        }
    }
    let starts = [
        format!("libLLVM.so.{LLVM_MAJOR}."),
        format!("libLLVM-{LLVM_MAJOR}"),
    ];
    for folder in &folders {
        for start in &starts {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with(start) && is_elf(&path) {
                    return Ok(path);
                }
            }
        }
    }
    Err(format!(
        "no shared LLVM {LLVM_MAJOR} was found below {}",
        base.display()
    ))
}

/// Rust's builds also have a linker script of that name, which cannot be opened.
fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = [0; 4];
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut start))
        .is_ok_and(|()| start == *b"\x7fELF")
}

fn linker_fits(version: &str) -> bool {
    let mut parts = version
        .trim()
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|part| part.parse::<u32>().ok());
    let (major, minor, patch) = BPF_LINKER;
    parts.next() == Some(Some(major))
        && parts.next() == Some(Some(minor))
        && parts.next().flatten().is_some_and(|own| own >= patch)
}

/// A program's standard output; an error when it cannot be started or fails.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name} cannot be started: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let reason = String::from_utf8_lossy(&output.stderr);
        let reason = reason
            .lines()
            .next()
            .unwrap_or("no reason given")
            .to_owned();
        Err(format!("{name} failed: {reason}"))
    }
}
