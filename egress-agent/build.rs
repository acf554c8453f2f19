//! Builds the eBPF crate and lays its object into `OUT_DIR/egress-ebpf`, to be embedded; so is
//! the init of connectors, `OUT_DIR/egress-init`.
//!
//! By hand rather than with aya-build: that picks the toolchain through rustup alone, so a
//! host with both rustup and Debian's compiler could not use the latter, it hands the outer
//! build's wrappers on, and it has no way to add the path prefixes that make objects the
//! same in every folder.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::Toolchain;

/// The crate's binary, and the file's name in `OUT_DIR`.
const PROGRAM: &str = "egress-ebpf";
/// The same of the init.
const INIT: &str = "egress-init";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the crate is in no workspace")?;
    for path in [
        "egress-ebpf/src",
        "egress-ebpf/Cargo.toml",
        "egress-ebpf/Cargo.lock",
        "egress-common/src",
        "egress-common/Cargo.toml",
        "egress-init/src",
        "xtask/src/toolchain.rs",
        "egress-agent/build.rs",
    ] {
        println!("cargo:rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo:rerun-if-env-changed={}", toolchain::WISH);

    init(workspace, &out)?;
    let toolchain = Toolchain::find(env::var(toolchain::WISH).ok().as_deref())?;
    println!("cargo:rustc-env={}={toolchain}", toolchain::WISH);
    let linker = toolchain::bpf_linker(&toolchain::tools(workspace))?;

    let built = compile(workspace, &out, &toolchain, &linker)?;
    let object =
        fs::read(&built).map_err(|error| format!("{} cannot be read: {error}", built.display()))?;
    let stripped =
        strip(&object).map_err(|error| format!("{} is no object: {error}", built.display()))?;
    fs::write(out.join(PROGRAM), stripped)
        .map_err(|error| format!("the object cannot be written: {error}"))
}

/// Builds the init with the compiler alone: it is one crate without dependencies, and as small
/// as can be only without the C library's start-up code, which no profile leaves out.
fn init(workspace: &Path, out: &Path) -> Result<(), String> {
    let link = "-Wl,--build-id=none,-z,norelro,--gc-sections";
    let output = Command::new(variable("RUSTC")?)
        .args([
            "--edition=2024",
            "--crate-name=egress_init",
            "--crate-type=bin",
        ])
        .args(["--target", &variable("TARGET")?])
        .args(["-Copt-level=z", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Crelocation-model=static", "-Clink-arg=-nostartfiles"])
        .args(["-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        // For musl the compiler brings start-up code of its own.
        .args((variable("CARGO_CFG_TARGET_ENV")? == "musl").then_some("-Clink-self-contained=no"))
        .arg(format!("-Clink-arg={link}"))
        .arg(format!("--remap-path-prefix={}=.", workspace.display()))
        .arg("-o")
        .arg(out.join(INIT))
        .arg(workspace.join(INIT).join("src/main.rs"))
        .output()
        .map_err(|error| format!("the compiler cannot be started for the init: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("the init did not build:\n{said}"))
}

/// Runs the inner cargo. Answers where the object is.
fn compile(
    workspace: &Path,
    out: &Path,
    toolchain: &Toolchain,
    linker: &Path,
) -> Result<PathBuf, String> {
    let endian = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    let target = format!("{endian}-unknown-none");
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let arch = bpf_arch(&arch);
    let target_dir = target_root(out)
        .join("ebpf")
        .join(format!("{}-{arch}", toolchain.name));

    let mut cargo = Command::new(&toolchain.cargo);
    clear_outer_build(&mut cargo);
    cargo
        .current_dir(workspace.join("egress-ebpf"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "-Zbuild-std=core",
        ])
        // All bins: the comparison programs of `cargo xtask bench` lie beside, not embedded.
        .args(switches().then_some("--features=test-switches"))
        .args(["--bins", "--target", &target, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC", &toolchain.rustc)
        // Empty wins over a wrapper in the user's configuration.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, toolchain, arch))
        .env(
            format!(
                "CARGO_TARGET_{}_LINKER",
                target.to_uppercase().replace('-', "_")
            ),
            linker,
        )
        .env("LD_LIBRARY_PATH", llvm_folder(out, toolchain)?);
    if toolchain.bootstrap {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }

    let output = cargo
        .output()
        .map_err(|error| format!("{} cannot be started: {error}", toolchain.cargo.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "the eBPF programs did not build with {toolchain} and {}:\n{said}",
            linker.display()
        ));
    }
    for line in said.lines() {
        println!("cargo:warning={line}");
    }
    Ok(target_dir.join(target).join("release").join(PROGRAM))
}

/// Whether the data plane gets the switch that tests take a layer away with.
fn switches() -> bool {
    env::var_os("CARGO_FEATURE_TEST_SWITCHES").is_some()
}

/// Takes the DWARF sections out, which bpf-linker needs to write BTF and the kernel does
/// not. What is left is the same in every folder.
fn strip(object: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut builder = object::build::elf::Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    for symbol in &mut builder.symbols {
        symbol.name = without_crate_hash(symbol.name.as_slice()).into();
    }
    // LLVM keeps section names in the table of symbol names; the writer wants one of each.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = object::build::elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// A mangled name less the hash of its crate (`Cs…_`, Rust RFC 2603), into which cargo puts
/// the folder of the workspace. Nothing looks functions up by it.
fn without_crate_hash(name: &[u8]) -> Vec<u8> {
    let start = name.windows(2).position(|pair| pair == b"Cs");
    let (true, Some(start)) = (name.starts_with(b"_R"), start) else {
        return name.to_owned();
    };
    let (before, hash) = name.split_at(start + 1);
    let after = hash.iter().position(|&byte| byte == b'_');
    let after = after.and_then(|end| hash.get(end + 1..));
    [before, after.unwrap_or(hash)].concat()
}

/// Compiler options; those of aya-build, and the prefixes that keep this host's folders
/// out of the object (line information names source files).
fn flags(workspace: &Path, toolchain: &Toolchain, arch: &str) -> String {
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=.", workspace.display()),
        format!("--remap-path-prefix={}=rust", toolchain.library.display()),
    ];
    if let Some(home) = toolchain::cargo_home() {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.join("\x1f")
}

/// What the outer cargo, rustup and make say is about their build, not this one. Settings
/// of network, registries and output stay.
fn clear_outer_build(cargo: &mut Command) {
    let keep = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "RUSTUP_HOME",
    ];
    let drop = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_",
        "RUST_RECURSION_COUNT",
        "MAKEFLAGS",
        "MFLAGS",
        "LD_LIBRARY_PATH",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let kept = keep.iter().any(|start| text.starts_with(start));
        if !kept && drop.iter().any(|start| text.starts_with(start)) {
            cargo.env_remove(&name);
        }
    }
}

/// bpf-linker opens the first file called `libLLVM*` of a folder in LD_LIBRARY_PATH; Debian
/// keeps several versions side by side, so it gets a folder with one link.
fn llvm_folder(out: &Path, toolchain: &Toolchain) -> Result<PathBuf, String> {
    let folder = out.join("llvm");
    let link = folder.join("libLLVM.so");
    let made = fs::create_dir_all(&folder).and_then(|()| {
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(&toolchain.llvm, &link)
    });
    made.map_err(|error| format!("cannot make {}: {error}", link.display()))?;
    Ok(folder)
}

/// The folder of all of cargo's output, which cargo marks with a tag. There, every profile
/// finds `core` built already, which takes a minute; without it, `OUT_DIR` does as well.
fn target_root(out: &Path) -> &Path {
    out.ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out)
}

/// What the aya crates call an architecture.
fn bpf_arch(arch: &str) -> &str {
    if arch.starts_with("riscv64") {
        "riscv64"
    } else {
        arch
    }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
