//! Where programs are found: those of this crate, the agent, and client libraries that are
//! installed into a cache once.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    process::{Outcome, must},
    world::PATH,
};

const INSTALL: Duration = Duration::from_secs(300);
/// The version the tests were written against.
const AXIOS: &str = "1.21.1";
/// The version the tests were written against.
const HTTPX: &str = "0.28.1";
const MCP_PYTHON: &str = include_str!("../fixtures/mcp/requirements.txt");
const MCP_NODE: &str = include_str!("../fixtures/mcp/package.json");
const MCP_NODE_LOCK: &str = include_str!("../fixtures/mcp/package-lock.json");
const TLS_NODE: &str = include_str!("../fixtures/tls/package.json");
const TLS_NODE_LOCK: &str = include_str!("../fixtures/tls/package-lock.json");
const BROWSERS: &str = include_str!("../fixtures/browsers/package.json");
const BROWSERS_LOCK: &str = include_str!("../fixtures/browsers/package-lock.json");
const JAVA_CLIENT: &str = include_str!("../fixtures/tls/Fetch.java");
const JAVA_WORK: &str = include_str!("../fixtures/must_work/Work.java");
/// The server that `npx` has in its cache; the version of `fixtures/mcp/package.json`.
pub const NPX_SERVER: &str = "@modelcontextprotocol/server-everything@2026.8.31";

/// The server that `uvx` has in its cache; the version of `fixtures/mcp/requirements.txt`.
pub const UVX_SERVER: &str = "mcp-server-fetch@2026.10.24";
/// The version the tests were written against.
const UV: &str = "0.13.8";

/// The folder of the built programs: that of the running one, or its parent for a test.
pub fn own_dir() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let mut folder = program.parent().context("no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("no folder")?;
    }
    Ok(folder.to_owned())
}

/// A program of this crate. Errors: it is not built.
pub fn own(name: &str) -> Result<PathBuf> {
    let path = own_dir()?.join(name);
    ensure!(
        path.exists(),
        "{} is not built: cargo build -p egress-tests",
        path.display()
    );
    Ok(path)
}

/// The agent: `EGRESS_AGENT`, or the one built beside the tests. Errors: there is none.
pub fn agent() -> Result<PathBuf> {
    if let Some(path) = env::var_os("EGRESS_AGENT") {
        return Ok(path.into());
    }
    let path = own_dir()?.join("egress-agent");
    ensure!(
        path.exists(),
        "{} is not built: cargo build -p egress-agent, or name another in EGRESS_AGENT",
        path.display()
    );
    Ok(path)
}

/// The agent with switches that take layers of the boundary away. Errors: it is not built.
pub fn agent_with_switches() -> Result<PathBuf> {
    let path = own_dir()?.join("egress-agent-switches");
    ensure!(
        path.exists(),
        "{} is not built: cargo build --workspace --bin egress-agent-switches --features \
         egress-agent/test-switches",
        path.display()
    );
    Ok(path)
}

/// The folder of the installed client libraries, beside the build.
pub fn cache_dir() -> Result<PathBuf> {
    let build = own_dir()?;
    let folder = build.parent().context("no folder")?.join("test-clients");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Installs axios for node and httpx for Python into the cache, at pinned versions, unless they
/// are there. Uses the machine's own npm and pip, outside every world.
pub fn install_clients() -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    once(&cache, &format!("axios-{AXIOS}"), || {
        let folder = cache.join("node");
        fs::create_dir_all(&folder)?;
        let mut npm = Command::new("npm");
        npm.current_dir(&folder)
            .args([
                "install",
                "--no-package-lock",
                "--no-save",
                "--ignore-scripts",
            ])
            .args(["--no-audit", "--no-fund", "--prefix", "."])
            .arg(format!("axios@{AXIOS}"));
        must(npm, INSTALL)
    })?;
    once(&cache, &format!("httpx-{HTTPX}"), || {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args([
            "--no-warn-script-location",
            "--root-user-action=ignore",
            "--upgrade",
        ])
        .arg("--target")
        .arg(cache.join("python"))
        .arg(format!("httpx=={HTTPX}"));
        must(pip, INSTALL)
    })
}

/// Compiles the statically linked musl client into the cache, for its own resolver: `fetch HOST
/// PORT PATH`. Errors: musl-gcc is missing (Debian: musl-tools).
pub fn build_musl_client() -> Result<()> {
    compile_c(
        "musl-gcc",
        &["-static"],
        "fetch",
        include_str!("../fixtures/fetch.c"),
    )
}

/// Compiles one program for each resolver library: `resolve-glibc`, `resolve-musl`,
/// `resolve-go` and class `Resolve` in `java-resolve` of the cache. Each takes names.
pub fn build_resolvers() -> Result<()> {
    let source = include_str!("../fixtures/networks/resolve.c");
    compile_c("cc", &[], "resolve-glibc", source)?;
    compile_c("musl-gcc", &["-static"], "resolve-musl", source)?;
    compile_go(
        "resolve-go",
        include_str!("../fixtures/networks/resolve.go"),
    )?;
    compile_java(
        "java-resolve",
        "Resolve",
        include_str!("../fixtures/networks/Resolve.java"),
    )
}

/// systemd-resolved, and the folder of the library that it needs, where that is not the machine's.
/// Debian's package takes the place of `/etc/resolv.conf` when it is installed, so it is only
/// unpacked, into the cache.
pub fn resolved() -> Result<(PathBuf, Option<PathBuf>)> {
    let installed = Path::new("/usr/lib/systemd/systemd-resolved");
    if installed.exists() {
        return Ok((installed.to_owned(), None));
    }
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    let folder = cache.join("resolved");
    let program = folder.join("lib/systemd/systemd-resolved");
    let program = || {
        [
            program.clone(),
            folder.join("usr/lib/systemd/systemd-resolved"),
        ]
        .into_iter()
        .find(|path| path.exists())
    };
    if program().is_none() {
        fs::create_dir_all(&folder)?;
        let mut apt = Command::new("apt-get");
        apt.current_dir(&folder).args([
            "download",
            "--quiet",
            "systemd-resolved",
            "libsystemd-shared",
        ]);
        must(apt, INSTALL).context(
            "systemd-resolved cannot be fetched; Debian: apt-get update, others: install it",
        )?;
        for entry in fs::read_dir(&folder)? {
            let package = entry?.path();
            if package.extension().is_some_and(|end| end == "deb") {
                let mut unpack = Command::new("dpkg");
                unpack.arg("-x").arg(&package).arg(&folder);
                must(unpack, INSTALL)?;
                fs::remove_file(&package)?;
            }
        }
    }
    let program = program().context("the package has no systemd-resolved")?;
    let library = folder.join("usr/lib/x86_64-linux-gnu/systemd");
    Ok((program, Some(library)))
}

fn compile_c(compiler: &str, options: &[&str], name: &str, source: &str) -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    let (from, to) = (cache.join(format!("{name}.c")), cache.join(name));
    if to.exists() && fs::read_to_string(&from).is_ok_and(|text| text == source) {
        return Ok(());
    }
    fs::write(&from, source)?;
    let mut command = Command::new(compiler);
    command
        .args(options)
        .args(["-O1", "-Wall", "-o"])
        .arg(&to)
        .arg(&from);
    must(command, INSTALL)
        .with_context(|| format!("{name} cannot be built; Debian: musl-tools, build-essential"))?;
    Ok(())
}

/// Builds a program for 32-bit x86 that needs no library, and answers its path.
pub fn build_32_bit(to: &Path) -> Result<String> {
    let source = to.with_extension("s");
    fs::write(&source, include_str!("../fixtures/hello32.s"))?;
    let object = to.with_extension("o");
    let mut assembler = Command::new("as");
    assembler.arg("--32").arg("-o").arg(&object).arg(&source);
    must(assembler, INSTALL).context("the 32-bit program cannot be built; Debian: binutils")?;
    let mut linker = Command::new("ld");
    linker.args(["-m", "elf_i386", "-o"]).arg(to).arg(&object);
    must(linker, INSTALL).context("the 32-bit program cannot be linked")?;
    Ok(to.display().to_string())
}

/// Installs releases of Node.js with other TLS libraries into `tls-node`, at the versions of
/// `fixtures/tls`, unless they are there.
pub fn install_node_releases() -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    once(&cache, &marked("tls-node", TLS_NODE_LOCK), || {
        locked_packages(&cache.join("tls-node"), TLS_NODE, TLS_NODE_LOCK)
    })
}

/// Installs the MCP servers that drive a browser into `browsers`, at the versions of
/// `fixtures/browsers`, unless they are there. The browser is the distribution's.
pub fn install_browsers() -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    once(&cache, &marked("browsers", BROWSERS_LOCK), || {
        locked_packages(&cache.join("browsers"), BROWSERS, BROWSERS_LOCK)
    })
}

/// What a lock file names, into a folder.
fn locked_packages(folder: &Path, package: &str, lock: &str) -> Result<Outcome> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("package.json"), package)?;
    fs::write(folder.join("package-lock.json"), lock)?;
    let mut npm = Command::new("npm");
    npm.current_dir(folder)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    must(npm, INSTALL)
}

/// Compiles a client in Java into `java` of the cache: class `Fetch`. Errors: there is no
/// compiler (Debian: default-jdk-headless).
pub fn build_java_client() -> Result<()> {
    compile_java("java", "Fetch", JAVA_CLIENT)
}

/// The same of a program with threads, children and sockets: class `Work` in `java-work`.
pub fn build_java_work() -> Result<()> {
    compile_java("java-work", "Work", JAVA_WORK)
}

fn compile_java(name: &str, class: &str, source: &str) -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    once(&cache, &marked(&format!("{name}-{class}"), source), || {
        let folder = cache.join(name);
        let file = folder.join(format!("{class}.java"));
        fs::create_dir_all(&folder)?;
        fs::write(&file, source)?;
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(&folder).arg(file);
        must(javac, INSTALL)
    })
}

/// Compiles the Go client into the cache, static, with Go's own resolver. Answers its path.
/// Errors: there is no Go (Debian: golang-go).
pub fn build_go_client() -> Result<PathBuf> {
    compile_go("fetch-go", include_str!("../fixtures/must_work/fetch.go"))
}

/// The same of the one that takes URLs as its arguments: `go-fetch` of the cache.
pub fn build_go_tls_client() -> Result<PathBuf> {
    compile_go("go-fetch", include_str!("../fixtures/tls/fetch.go"))
}

fn compile_go(name: &str, source: &str) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    let (from, to) = (cache.join(format!("{name}.go")), cache.join(name));
    if to.exists() && fs::read_to_string(&from).is_ok_and(|text| text == source) {
        return Ok(to);
    }
    fs::write(&from, source)?;
    let mut compiler = Command::new("go");
    compiler
        .env("CGO_ENABLED", "0")
        .env("GO111MODULE", "off")
        .env("GOCACHE", cache.join("go-build"))
        .args(["build", "-o"])
        .args([&to, &from]);
    must(compiler, INSTALL).context("the Go client cannot be built; Debian: golang-go")?;
    Ok(to)
}

fn lock_cache(cache: &Path) -> Result<Flock<fs::File>> {
    let file = fs::File::create(cache.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

/// Installs MCP servers and clients, at the versions of `fixtures/mcp`, unless they are there: a
/// Python environment in `mcp-python`, node packages in `mcp-node`, and in `mcp-npx` what `npx`
/// itself keeps of a server that it has started once.
pub fn install_mcp() -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    once(&cache, &marked("mcp-python", MCP_PYTHON), || {
        let folder = cache.join("mcp-python");
        let list = cache.join("mcp-requirements.txt");
        fs::write(&list, MCP_PYTHON)?;
        // The interpreter of the world's PATH; a caller's own may be out of the connector's reach.
        let mut venv = Command::new("python3");
        venv.env("PATH", PATH)
            .args(["-m", "venv", "--clear"])
            .arg(&folder);
        must(venv, INSTALL)?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--only-binary=:all:", "-r"])
            .arg(list);
        must(pip, INSTALL)
    })?;
    once(&cache, &marked("mcp-node", MCP_NODE_LOCK), || {
        locked_packages(&cache.join("mcp-node"), MCP_NODE, MCP_NODE_LOCK)
    })?;
    once(&cache, &marked("mcp-npx", NPX_SERVER), || {
        let mut npm = Command::new("npm");
        npm.args(["exec", "--yes", "--ignore-scripts", "--cache"])
            .arg(cache.join("mcp-npx"))
            .args(["--package", NPX_SERVER, "--", "true"]);
        must(npm, INSTALL)
    })
}

/// Installs uv into `uv`, and into `uvx` what it keeps of a server that it has started once, with
/// the dependencies of `fixtures/mcp`.
pub fn install_uvx() -> Result<()> {
    let cache = cache_dir()?;
    let _one = lock_cache(&cache)?;
    once(&cache, &marked("uvx", &format!("{UV}{MCP_PYTHON}")), || {
        let folder = cache.join("uv");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--upgrade"])
            .args([
                "--disable-pip-version-check",
                "--root-user-action=ignore",
                "--target",
            ])
            .arg(&folder)
            .arg(format!("uv=={UV}"));
        must(pip, INSTALL)?;
        let list = cache.join("uvx-requirements.txt");
        fs::write(&list, MCP_PYTHON)?;
        let mut uvx = Command::new(folder.join("bin/uvx"));
        uvx.env("PATH", PATH)
            .env("UV_CACHE_DIR", cache.join("uvx"))
            .args(["--no-config", "--no-managed-python", "--constraints"])
            .arg(&list)
            .args([UVX_SERVER, "--help"]);
        must(uvx, INSTALL)
    })
}

/// The name of an installation that has to be made again when what it is made from changes.
fn marked(name: &str, from: &str) -> String {
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    format!("{name}-{:016x}", hasher.finish())
}

fn once<T>(cache: &Path, name: &str, install: impl FnOnce() -> Result<T>) -> Result<()> {
    let done = cache.join(format!("{name}.done"));
    if !done.exists() {
        install().with_context(|| format!("cannot install {name}"))?;
        fs::write(done, "")?;
    }
    Ok(())
}
