//! What keys of a policy open beyond its destinations, in words. Pure.

use super::{
    model::{Policy, Processes, Rule, Target},
    outside,
};

/// One sentence for each such key.
pub fn all(policy: &Policy) -> Vec<String> {
    let run = policy.run.iter();
    let host = run
        .clone()
        .filter(|run| run.processes == Processes::Host)
        .map(|_| PROCESSES.to_owned());
    let devices = run.flat_map(|run| &run.devices).map(|path| {
        format!(
            "run.devices hands the connector {}: what a device leads to is outside the boundary \
             (networks, other machines, what a user types)",
            path.display()
        )
    });
    let sockets = servers(policy).map(|(rule, server)| {
        format!(
            "rule {} leads to {}, which acts outside the boundary: {}, and no other rule limits \
             that",
            rule.id, server.what, server.acts
        )
    });
    host.chain(devices).chain(sockets).collect()
}

/// Rules for sockets of servers that act outside the boundary.
pub fn servers(policy: &Policy) -> impl Iterator<Item = (&Rule, &'static outside::Server)> {
    policy.allow.iter().filter_map(|rule| {
        let server = match &rule.target {
            Target::Unix(name) => outside::server(name),
            Target::Session(place) => place.server(),
            Target::Host(_) | Target::Cidr(_) => None,
        }?;
        Some((rule, server))
    })
}

const PROCESSES: &str = "run.processes: host lets the connector see the processes of its user, and \
    signal them before Linux 6.12: they can be made to act outside the boundary (SIGUSR1 opens the \
    debugger of a node process); take it out unless the connector is about processes";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::parse;

    #[test]
    fn both_keys_are_told() {
        let opened = |run: &str| {
            let text = format!("version: 1\nconnector: a\nrun: {{ {run} }}\n");
            parse(Path::new("a.yaml"), &text).map(|policy| super::all(&policy))
        };
        assert_eq!(opened("processes: own"), Ok(Vec::new()));
        let found = opened("processes: host, devices: [/dev/dri, /dev/kvm]");
        let found = found.unwrap_or_default();
        assert_eq!(found.len(), 3);
        assert!(found.iter().any(|line| line.contains("/dev/kvm")));
    }

    #[test]
    fn sockets_of_servers_that_act_outside_are_told() {
        let opened = |socket: &str| {
            let text = format!("version: 1\nconnector: a\nallow: [{{ unix: \"{socket}\" }}]\n");
            parse(Path::new("a.yaml"), &text).map(|policy| super::all(&policy))
        };
        for socket in [
            "/run/docker.sock",
            "@/tmp/.X11-unix/X0",
            "$SSH_AUTH_SOCK",
            "${DBUS_SESSION_BUS_ADDRESS}",
            "$XDG_RUNTIME_DIR/bus",
            "$HOME/.gnupg/S.gpg-agent",
        ] {
            let found = opened(socket).unwrap_or_default();
            assert!(
                matches!(found.as_slice(), [line] if line.contains("acts outside the boundary")),
                "{socket}: {found:?}"
            );
        }
        for socket in ["/run/postgresql/.s.PGSQL.5432", "$XDG_RUNTIME_DIR/own"] {
            assert_eq!(opened(socket), Ok(Vec::new()), "{socket}");
        }
    }

    #[test]
    fn only_devices_are_devices() {
        for (path, fault) in [
            ("/dev/kvm", None),
            ("/dev/disk/by-id/x", None),
            ("/dev/shm", None),
            ("/dev", Some("is not below /dev")),
            ("/etc/passwd", Some("is not below /dev")),
            ("kvm", Some("is not below /dev")),
            ("/dev/../etc", Some("shortest form")),
            ("/dev/kvm/", Some("shortest form")),
            ("/dev//kvm", Some("shortest form")),
            ("/dev/tty*", Some("pattern")),
            ("/dev/null", Some("in any case")),
            ("/dev/pts/3", Some("in any case")),
        ] {
            let text = format!("version: 1\nconnector: a\nrun:\n  devices: [\"{path}\"]\n");
            let found = parse(Path::new("a.yaml"), &text);
            match fault {
                None => assert!(found.is_ok(), "{path}: {found:?}"),
                Some(fault) => {
                    let said = found.err().map(|faults| faults.to_string());
                    assert!(said.is_some_and(|said| said.contains(fault)), "{path}");
                }
            }
        }
    }
}
