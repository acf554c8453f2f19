//! Servers on this host that act outside the boundary for whoever calls them: one list. Pure.

/// What kind of server it is, and what it does for its callers.
#[derive(PartialEq, Eq, Debug)]
pub struct Server {
    /// What it is.
    pub what: &'static str,
    /// What it does outside.
    pub acts: &'static str,
    /// The last parts of its paths; `*` at the end of a part stands for any rest of it, and alone
    /// for any part.
    paths: &'static [&'static str],
}

/// The server behind a unix socket's path or abstract name (`@name`), as far as its name tells.
pub fn server(name: &str) -> Option<&'static Server> {
    let parts: Vec<&str> = name.trim_start_matches('@').split('/').collect();
    SERVERS
        .iter()
        .copied()
        .find(|server| server.paths.iter().any(|path| ends_with(&parts, path)))
}

/// Whether the last parts of a path are these.
fn ends_with(parts: &[&str], pattern: &str) -> bool {
    let wanted: Vec<&str> = pattern.split('/').collect();
    let Some(last) = parts.len().checked_sub(wanted.len()) else {
        return false;
    };
    let parts = parts.iter().skip(last);
    parts
        .zip(&wanted)
        .all(|(part, wanted)| match wanted.strip_suffix('*') {
            Some(start) => part.starts_with(start),
            None => part == wanted,
        })
}

/// Keeper of keys for ssh.
pub const SSH_AGENT: &Server = &Server {
    what: "an ssh agent",
    acts: "it signs in to hosts with the user's keys, for whatever the connector asks",
    paths: &[
        "ssh-*/agent.*",
        "ssh-agent*",
        "agent.sock",
        "keyring/ssh",
        "gcr/ssh",
        "keyring/.ssh",
        "S.gpg-agent.ssh",
        "openssh_agent",
        ".ssh/agent*",
        "yubikey-agent/*",
    ],
};

/// A session's message bus.
pub const SESSION_BUS: &Server = &Server {
    what: "a session's message bus",
    acts: "services behind it start programs, open web pages and read the user's secrets",
    paths: &["user/*/bus", "dbus-*", "dbus-1/*", "at-spi/*", "ibus/*"],
};

/// The more special ones first.
const SERVERS: &[&Server] = &[
    &Server {
        what: "a container engine",
        acts: "it starts containers with networks and files of the host, as root for most engines",
        paths: &[
            "docker.sock",
            "docker-*.sock",
            "docker.raw.sock",
            "podman.sock",
            "podman/*",
            "containerd.sock*",
            "containerd/*",
            "containerd/*/*",
            "containerd-shim/*",
            "crio.sock",
            "crio/*",
            "cri-dockerd.sock",
            "dockershim.sock",
            "buildkitd.sock",
            "buildkit/*",
            "buildx/*",
            "nerdctl/*",
            "kubelet.sock",
        ],
    },
    &Server {
        what: "a manager of virtual machines or system containers",
        acts: "it starts machines with networks and disks of the host",
        paths: &[
            "libvirt/*",
            "libvirt-sock*",
            "virt*",
            "lxd/*",
            "lxd-user/*",
            "lxd.socket",
            "incus/*",
            "incus-user/*",
            "incus.socket",
            "multipass_socket",
            "firecracker.socket",
        ],
    },
    &Server {
        what: "a manager of packages",
        acts: "it fetches and installs programs, as root",
        paths: &[
            "snapd.socket",
            "snapd-snap.socket",
            "snapd.sock",
            "nix/daemon-socket/socket",
            "daemon-socket/*",
        ],
    },
    &Server {
        what: "the log of the host",
        acts: "it passes what is written on to wherever logs go, other hosts included",
        paths: &[
            "systemd/journal/*",
            "systemd/journal.*",
            "dev/log",
            "rsyslog/*",
        ],
    },
    &Server {
        what: "a resolver of the host",
        acts: "it looks up names outside, whatever rules say, and a name carries data",
        paths: &[
            "nscd/socket",
            "resolve/io.systemd.Resolve*",
            "resolve.hook/*",
            "avahi-daemon/socket",
            "mdnsd",
            "sss/pipes/*",
            "pipes/nss",
        ],
    },
    &Server {
        what: "the system's manager of services",
        acts: "it starts programs outside, and takes users' sessions and machines in and out",
        paths: &[
            "systemd/private",
            "systemd/notify",
            "systemd/*",
            "io.systemd.*",
            "cgroups-agent",
        ],
    },
    &Server {
        what: "the system's message bus",
        acts: "services behind it start programs, mount disks and change the network",
        paths: &["system_bus_socket", "dbus/*"],
    },
    SESSION_BUS,
    SSH_AGENT,
    &Server {
        what: "an agent of GnuPG",
        acts: "it signs and decrypts with the user's keys, and its dirmngr asks key servers",
        paths: &[
            "S.gpg-agent*",
            "S.scdaemon*",
            "S.keyboxd*",
            "S.dirmngr*",
            "S.uiserver",
        ],
    },
    &Server {
        what: "a keeper of secrets",
        acts: "it hands out passwords and keys of the user",
        paths: &[
            "keyring/*",
            "gcr/*",
            "kwallet*",
            "kwalletd*",
            "keepassxc*",
            "org.keepassxc.KeePassXC.BrowserServer",
            ".1password/*",
            "1Password*",
            "op-daemon.sock",
            "bitwarden*",
            "gssproxy*",
            "krb5kdc*",
            ".heim_org.h5l.kcm-socket",
            "vault-agent*",
            "spire-agent/*",
            "p11-kit/*",
            "pcscd/*",
            "pcscd.comm",
        ],
    },
    &Server {
        what: "a display",
        acts: "who reaches it reads what is typed and shown, and types for the user",
        paths: &[
            ".X11-unix/*",
            "wayland-*",
            "gdm/*",
            ".ICE-unix/*",
            "sway-ipc.*",
            "i3/ipc-socket.*",
        ],
    },
    &Server {
        what: "a server of sound and pictures",
        acts: "it records the microphone and the screen, and plays over the network",
        paths: &["pulse/*", "pulse-*/native", "pipewire-*"],
    },
    &Server {
        what: "an open ssh connection",
        acts: "it logs in to that host, and opens tunnels from there",
        paths: &[".ssh/*", "cm-*", "ssh_mux_*", "ssh_control_*"],
    },
    &Server {
        what: "a terminal or editor of the user",
        acts: "it runs commands outside",
        paths: &[
            "tmux-*/*",
            "S-*/*",
            "screens/*",
            "emacs/*",
            "emacs*/server",
            "nvim*/*",
            "nvim.*",
            "kitty*",
            "wezterm/*",
            "vscode-*",
            "zellij*/*",
        ],
    },
    &Server {
        what: "a server of the host's network",
        acts: "it opens tunnels and sends for its callers, outside",
        paths: &[
            "tailscaled.sock",
            "tailscale/*",
            "mullvad-vpn",
            "wpa_supplicant/*",
            "NetworkManager/*",
            "openvswitch/*",
            "frr/*",
            "cups.sock",
            "cups/*",
            "postfix/*",
            "tor/*",
            "gvfsd/*",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_servers_are_known_wherever_they_lie() {
        for (name, what) in [
            ("/run/docker.sock", "engine"),
            ("/var/run/docker.sock", "engine"),
            ("/run/user/1000/docker.sock", "engine"),
            ("/home/me/.docker/run/docker.sock", "engine"),
            ("/run/user/1000/podman/podman.sock", "engine"),
            ("/run/containerd/containerd.sock", "engine"),
            ("/run/crio/crio.sock", "engine"),
            ("/run/buildkit/buildkitd.sock", "engine"),
            ("@/containerd-shim/abc", "engine"),
            ("/run/systemd/private", "services"),
            ("/run/systemd/notify", "services"),
            ("/run/user/1000/systemd/private", "services"),
            ("/run/systemd/journal/stdout", "log"),
            ("/run/dbus/system_bus_socket", "system's message bus"),
            ("/run/user/1000/bus", "session's message bus"),
            ("@/tmp/dbus-Xy12", "session's message bus"),
            ("/tmp/.X11-unix/X0", "display"),
            ("@/tmp/.X11-unix/X0", "display"),
            ("/run/user/1000/wayland-0", "display"),
            ("/tmp/ssh-XX9f/agent.4711", "ssh agent"),
            ("/run/user/1000/keyring/ssh", "ssh agent"),
            ("/home/me/.ssh/agent.sock", "ssh agent"),
            ("/run/user/1000/gnupg/S.gpg-agent", "GnuPG"),
            ("/run/user/1000/gnupg/d.abc/S.gpg-agent.ssh", "ssh agent"),
            ("/run/user/1000/keyring/control", "secrets"),
            ("/run/snapd.socket", "packages"),
            ("/run/libvirt/libvirt-sock", "machines"),
            ("/run/libvirt/virtqemud-sock", "machines"),
            ("/var/lib/lxd/unix.socket", "machines"),
            ("/var/lib/incus/unix.socket", "machines"),
            ("/run/user/1000/pulse/native", "sound"),
            ("/run/user/1000/pipewire-0", "sound"),
            ("/run/systemd/resolve/io.systemd.Resolve", "resolver"),
            ("/tmp/tmux-1000/default", "terminal"),
            ("/home/me/.ssh/cm-0123", "ssh connection"),
        ] {
            let found = server(name).map(|server| server.what);
            assert!(
                found.is_some_and(|found| found.contains(what)),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn services_of_their_own_are_none() {
        for name in [
            "/run/postgresql/.s.PGSQL.5432",
            "/run/mysqld/mysqld.sock",
            "/run/redis/redis.sock",
            "/srv/app/server.sock",
            "@app",
            "/",
            "",
        ] {
            assert_eq!(server(name), None, "{name}");
        }
    }
}
