//! The distribution's packages that the demo and the tests use, and what they are for.

use std::{fs, path::Path, process::Command};

use crate::host;

/// One need and the packages that meet it.
pub(crate) struct Package {
    /// What it is for.
    pub(crate) why: &'static str,
    /// Whether it is here.
    test: Test,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
}

enum Test {
    Program(&'static str),
    File(&'static str),
    Python(&'static str),
    /// A program in a folder below this one, a folder for each version, or on the path.
    Versions(&'static str, &'static str),
}

/// In the order in which they are named to the user.
const PACKAGES: &[Package] = &[
    Package {
        why: "the embedded internet's network namespaces",
        test: Test::Program("ip"),
        debian: "iproute2",
        fedora: "iproute",
        arch: "iproute2",
    },
    Package {
        why: "certificates for package managers",
        test: Test::File("/etc/ssl/certs/ca-certificates.crt"),
        debian: "ca-certificates",
        fedora: "ca-certificates",
        arch: "ca-certificates",
    },
    Package {
        why: "a client to confine",
        test: Test::Program("curl"),
        debian: "curl",
        fedora: "curl",
        arch: "curl",
    },
    Package {
        why: "a client to confine",
        test: Test::Program("wget"),
        debian: "wget",
        fedora: "wget",
        arch: "wget",
    },
    Package {
        why: "a TLS client to confine",
        test: Test::Program("openssl"),
        debian: "openssl",
        fedora: "openssl",
        arch: "openssl",
    },
    Package {
        why: "a TLS client to confine",
        test: Test::Program("gnutls-cli"),
        debian: "gnutls-bin",
        fedora: "gnutls-utils",
        arch: "gnutls",
    },
    Package {
        why: "a TLS client to confine, in Go",
        test: Test::Program("go"),
        debian: "golang-go",
        fedora: "golang",
        arch: "go",
    },
    Package {
        why: "a TLS client to confine, in Java",
        test: Test::Program("javac"),
        debian: "default-jdk-headless",
        fedora: "java-latest-openjdk-devel",
        arch: "jdk-openjdk",
    },
    Package {
        why: "a DNS client to confine",
        test: Test::Program("dig"),
        debian: "bind9-dnsutils",
        fedora: "bind-utils",
        arch: "bind",
    },
    Package {
        why: "a static client to confine",
        test: Test::Program("busybox"),
        debian: "busybox-static",
        fedora: "busybox",
        arch: "busybox",
    },
    Package {
        why: "a client that resolves names with musl, for the kernel tests",
        test: Test::Program("musl-gcc"),
        debian: "musl-tools",
        fedora: "musl-gcc",
        arch: "musl",
    },
    Package {
        why: "MCP servers written for Node.js",
        test: Test::Program("node"),
        debian: "nodejs",
        fedora: "nodejs",
        arch: "nodejs",
    },
    Package {
        why: "their packages",
        test: Test::Program("npm"),
        debian: "npm",
        fedora: "nodejs-npm",
        arch: "npm",
    },
    Package {
        why: "MCP servers and clients written in Python",
        test: Test::Program("python3"),
        debian: "python3",
        fedora: "python3",
        arch: "python",
    },
    Package {
        why: "their packages",
        test: Test::Python("import pip"),
        debian: "python3-pip",
        fedora: "python3-pip",
        arch: "python-pip",
    },
    Package {
        why: "their packages, in folders of their own",
        test: Test::Python("import venv, ensurepip"),
        debian: "python3-venv",
        fedora: "python3",
        arch: "python",
    },
    Package {
        why: "a host of repositories, and its client to confine",
        test: Test::Program("git"),
        debian: "git",
        fedora: "git",
        arch: "git",
    },
    Package {
        why: "a database behind a unix socket, and its client to confine",
        test: Test::Versions("/usr/lib/postgresql", "bin/initdb"),
        debian: "postgresql",
        fedora: "postgresql-server",
        arch: "postgresql",
    },
    Package {
        why: "a browser to confine, which an MCP server drives",
        test: Test::Program("chromium"),
        debian: "chromium",
        fedora: "chromium",
        arch: "chromium",
    },
    Package {
        why: "a host to log in to, and its client to confine",
        test: Test::File("/usr/sbin/sshd"),
        debian: "openssh-server",
        fedora: "openssh-server",
        arch: "openssh",
    },
    Package {
        why: "users of a directory",
        test: Test::Python("import ctypes; ctypes.CDLL('libnss_systemd.so.2')"),
        debian: "libnss-systemd",
        fedora: "systemd-libs",
        arch: "systemd-libs",
    },
    Package {
        why: "an agent that holds keys, to confine",
        test: Test::Program("gpg"),
        debian: "gnupg",
        fedora: "gnupg2",
        arch: "gnupg",
    },
    Package {
        why: "a client to confine that resolves names with Go",
        test: Test::Program("go"),
        debian: "golang-go",
        fedora: "golang",
        arch: "go",
    },
];

/// For other kernels, beside the others.
const MACHINES: &[Package] = &[
    Package {
        why: "machines with other kernels",
        test: Test::Program("qemu-system-x86_64"),
        debian: "qemu-system-x86",
        fedora: "qemu-system-x86-core",
        arch: "qemu-system-x86",
    },
    Package {
        why: "the kernels' modules, as they are packed",
        test: Test::Program("xz"),
        debian: "xz-utils",
        fedora: "xz",
        arch: "xz",
    },
];

/// What the benchmark compares with, beside the others.
const PEERS: &[Package] = &[
    Package {
        why: "a packet filter to compare with",
        test: Test::Program("nft"),
        debian: "nftables",
        fedora: "nftables",
        arch: "nftables",
    },
    Package {
        why: "a packet filter to compare with",
        test: Test::Program("iptables"),
        debian: "iptables",
        fedora: "iptables-nft",
        arch: "iptables-nft",
    },
    Package {
        why: "a proxy to compare with",
        test: Test::Program("squid"),
        debian: "squid",
        fedora: "squid",
        arch: "squid",
    },
    Package {
        why: "sandbox-runtime, to compare with",
        test: Test::Program("bwrap"),
        debian: "bubblewrap",
        fedora: "bubblewrap",
        arch: "bubblewrap",
    },
    Package {
        why: "sandbox-runtime, to compare with",
        test: Test::Program("socat"),
        debian: "socat",
        fedora: "socat",
        arch: "socat",
    },
    Package {
        why: "sandbox-runtime, to compare with",
        test: Test::Program("rg"),
        debian: "ripgrep",
        fedora: "ripgrep",
        arch: "ripgrep",
    },
];

/// For the fuzzer, without the others.
const FUZZER: &[Package] = &[Package {
    why: "the fuzzer's engine, which is written in C++",
    test: Test::Program("c++"),
    debian: "g++",
    fedora: "gcc-c++",
    arch: "gcc",
}];

impl Package {
    /// What is not here.
    pub(crate) fn missing() -> Vec<&'static Self> {
        PACKAGES.iter().filter(|package| !package.here()).collect()
    }

    /// What is not here, that of the benchmark's peers included.
    pub(crate) fn missing_for_peers() -> Vec<&'static Self> {
        let all = PACKAGES.iter().chain(PEERS);
        all.filter(|package| !package.here()).collect()
    }

    /// What is not here, that of other kernels included.
    pub(crate) fn missing_for_machines() -> Vec<&'static Self> {
        let all = PACKAGES.iter().chain(MACHINES);
        all.filter(|package| !package.here()).collect()
    }

    /// What of the fuzzer is not here.
    pub(crate) fn missing_for_fuzzer() -> Vec<&'static Self> {
        FUZZER.iter().filter(|package| !package.here()).collect()
    }

    /// What Debian and those like it call the package.
    pub(crate) fn debian(&self) -> &'static str {
        self.debian
    }

    /// The command that a user of this distribution would type for these packages.
    pub(crate) fn command(packages: &[&Self]) -> String {
        let distribution = host::distribution();
        let like = |name: &str| distribution.iter().any(|own| own == name);
        let (command, name): (_, fn(&Self) -> &'static str) = if like("fedora") || like("rhel") {
            ("dnf install", |package| package.fedora)
        } else if like("arch") {
            ("pacman -S", |package| package.arch)
        } else {
            ("apt-get install", |package| package.debian)
        };
        let mut names: Vec<_> = packages.iter().map(|package| name(package)).collect();
        names.dedup();
        format!("{command} {}", names.join(" "))
    }

    fn here(&self) -> bool {
        match self.test {
            Test::Program(name) => host::program(name).is_some(),
            Test::File(path) => Path::new(path).exists(),
            Test::Versions(folder, program) => {
                let name = program.rsplit('/').next().unwrap_or(program);
                let mut versions = fs::read_dir(folder).into_iter().flatten().flatten();
                host::program(name).is_some()
                    || versions.any(|version| version.path().join(program).exists())
            }
            Test::Python(code) => Command::new("python3")
                .args(["-c", code])
                .output()
                .is_ok_and(|output| output.status.success()),
        }
    }
}
