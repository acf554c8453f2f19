//! What keys of a policy open beyond its destinations, in words. Pure.

use super::model::{Policy, Processes};

/// One sentence for each such key.
pub fn all(policy: &Policy) -> Vec<String> {
    let Some(run) = &policy.run else {
        return Vec::new();
    };
    let host = (run.processes == Processes::Host).then(|| PROCESSES.to_owned());
    let devices = run.devices.iter().map(|path| {
        format!(
            "run.devices hands the connector {}: what a device leads to is outside the boundary \
             (networks, other machines, what a user types)",
            path.display()
        )
    });
    host.into_iter().chain(devices).collect()
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
