//! What is in a machine's file system: below `usr` programs of this host, below `egress` what
//! is tested, and the plan that `vm-init` follows.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    cases::Case,
    image::{Image, installed},
    kernel::Kernel,
    task::folder,
};
use crate::host;

/// How test programs are started. Those that ordinary runs ignore are for the machines.
pub(crate) const HOW: [&str; 3] = ["--include-ignored", "--nocapture", "--test-threads=1"];

/// What a test may take in emulation. Seconds.
const CASE_SECONDS: u64 = 480;
/// The same for those with every way out, some of which wait for seconds.
const SUITE_SECONDS: u64 = 3600;

/// What the tests start, in every machine.
const PROGRAMS: &str = "awk bash sh busybox capsh cat chmod cp curl cut date dig env false getent gnutls-cli grep \
    head id ionice ip kill ln ls mkdir mknod mount mv nohup nsenter od openssl printf prlimit ps \
    python3 readlink renice rm sed seq setarch setpriv setsid sleep sort ssh stat tail taskset \
    tc tee timeout touch tr true tty umount uname unshare wc wget whoami yes";

/// Parts of a kernel that distributions build as modules: the wire between two namespaces, the
/// list of sockets and their end, and what the bypass suite tries; a host would load most of
/// these when somebody asks for such a socket.
const MODULES: &str = "veth inet_diag tcp_diag udp_diag raw_diag unix_diag mptcp_diag sctp dccp_ipv4 dccp_ipv6 smc \
    vsock vsock_loopback tipc l2tp_ip l2tp_ip6 macvlan dummy tun sch_tbf overlay virtio_rng";

/// Files of this host that programs look for; one that is missing is not needed.
const SETTINGS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/etc/nsswitch.conf",
];

/// Names of users that no file has (nss-systemd(8)): it is loaded when somebody asks.
const DIRECTORY: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/libnss_systemd.so.2",
    "/usr/lib64/libnss_systemd.so.2",
];

const USERS: &str = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// The programs under test, beside the test programs.
const TESTED: [&str; 4] = [
    "egress-agent",
    "egress-agent-switches",
    "embedded-internet",
    "probe",
];
/// The machine's first process.
const INIT: &str = "vm-init";

/// Everything that a machine with this kernel gets.
pub(crate) fn image(kernel: &Kernel, cases: &[Case], programs: &Programs) -> Result<Image> {
    let mut image = Image::new();
    for program in PROGRAMS.split_whitespace() {
        image.program(program)?;
    }
    let library = python_library()?;
    image.tree(
        &library,
        library.display().to_string().trim_start_matches('/'),
    )?;
    for file in SETTINGS.iter().filter(|file| Path::new(file).exists()) {
        image.made(file.trim_start_matches('/'), 0o644, fs::read(file)?);
    }
    for library in DIRECTORY.iter().map(Path::new).filter(|it| it.exists()) {
        image.copy(
            library,
            library.display().to_string().trim_start_matches('/'),
        )?;
    }
    image.folder("mnt");
    image.made("etc/passwd", 0o644, USERS);
    image.made("etc/group", 0o644, GROUPS);
    image.made("etc/hosts", 0o644, HOSTS);
    image.made("etc/resolv.conf", 0o644, "");

    for name in TESTED {
        image.copy(&programs.path(name), &format!("egress/debug/{name}"))?;
    }
    for suite in cases
        .iter()
        .map(|case| &case.suite)
        .collect::<BTreeSet<_>>()
    {
        image.copy(&programs.path(suite), &suite_place(suite))?;
    }
    image.copy(&programs.path(INIT), "init")?;
    let mut plan = Vec::new();
    if let Some(folder) = &kernel.modules {
        let modules: Vec<&str> = MODULES.split_whitespace().collect();
        let files = image.modules(folder, &modules)?;
        plan.extend(files.iter().map(|file| format!("module {file}\n")));
    }
    plan.extend(cases.iter().map(planned));
    image.made("plan", 0o644, plan.concat());
    Ok(image)
}

fn planned(case: &Case) -> String {
    let Case {
        name, suite, test, ..
    } = case;
    let program = suite_place(suite);
    let seconds = if test.starts_with("every_way_out") {
        SUITE_SECONDS
    } else {
        CASE_SECONDS
    };
    format!(
        "case {name} {seconds} /{program} --exact {test} {}\n",
        HOW.join(" ")
    )
}

fn suite_place(suite: &str) -> String {
    format!("egress/debug/deps/{suite}")
}

/// Where this host's python3 has its library.
fn python_library() -> Result<PathBuf> {
    let code = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let python = installed("python3").context("the tests need python3")?;
    let output = Command::new(python).args(["-c", code]).output()?;
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

/// Built programs without the parts that only debuggers read, which are most of them.
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Makes copies of them all.
    pub(crate) fn strip(cases: &[Case]) -> Result<Self> {
        let folder = folder().join("programs");
        fs::create_dir_all(&folder)?;
        let debug = host::target().join("debug");
        let mut all: BTreeSet<(&str, PathBuf)> = BTreeSet::new();
        for name in TESTED.into_iter().chain([INIT]) {
            all.insert((name, debug.join(name)));
        }
        all.extend(
            cases
                .iter()
                .map(|case| (case.suite.as_str(), case.program.clone())),
        );
        for (name, from) in all {
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(folder.join(name)).arg(from);
            let output = strip.output().context("strip (binutils)")?;
            if !output.status.success() {
                bail!("strip: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
        }
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}
