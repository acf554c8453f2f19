//! What to do about refusals for which a rule is no answer, or not the only one.

use egress_common::verdict::Reason;

/// A sentence for the line; `None`: the reason and the destination say enough.
pub(super) fn of(reason: Reason, path: Option<&str>) -> Option<&'static str> {
    Some(match reason {
        Reason::Namespace => {
            "no sandbox inside this one: switch the program's own off (--no-sandbox and the like; \
             docs/browsers.md); the boundary around it stays"
        }
        Reason::Interface => {
            "this host sends there by another interface now (ip route get): choose none, or mend \
             the route (docs/networks.md)"
        }
        Reason::ForeignAbi => "a 32-bit program, which was ended: use a 64-bit one",
        Reason::UnixBind => {
            "sockets can be made in $TMPDIR alone: tell the program another place (docs/policy.md, \
             Unix sockets)"
        }
        Reason::SniEncrypted => {
            "a browser sends this to every server: “ech: allow” on the rule, or its policy \
             EncryptedClientHelloEnabled: false (docs/browsers.md)"
        }
        Reason::UnixPath if path.is_some_and(is_directory) => {
            "the directory of users: the connector's own user is known inside without it; a rule \
             for it lets every name be looked up outside"
        }
        _ => return None,
    })
}

/// Sockets over which C libraries ask a directory for users and groups (sssd, systemd-userdb,
/// nslcd, winbind).
fn is_directory(path: &str) -> bool {
    [
        "/var/lib/sss/pipes/",
        "/run/systemd/userdb/",
        "/var/run/nslcd/",
        "/run/nslcd/",
        "/run/samba/winbindd/",
        "/var/run/samba/winbindd/",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_told_from_other_sockets() {
        let told = |path| of(Reason::UnixPath, Some(path)).is_some();
        assert!(
            told("/var/lib/sss/pipes/nss") && told("/run/systemd/userdb/io.systemd.Multiplexer")
        );
        assert!(!told("/run/dbus/system_bus_socket"));
        assert_eq!(of(Reason::NoRule, None), None);
    }
}
