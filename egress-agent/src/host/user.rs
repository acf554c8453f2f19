//! Whom a connector runs as.

use std::{
    ffi::{CString, OsStr, OsString},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    unistd::{Gid, Group, Uid, getegid, geteuid, getgid, getgrouplist, getgroups, getuid},
};

/// A user, with everything a process needs to become that user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Login name; `None` where the number has no passwd entry.
    pub name: Option<String>,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory; `/` where there is no passwd entry.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` where there is no passwd entry.
    pub shell: PathBuf,
    /// Why nobody knows whether there is an entry: what the user database answered.
    pub unanswered: Option<Errno>,
}

/// Why a user cannot be named.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such name.
    #[error(
        "there is no user named {0:?} on this host; create it (useradd --system {0}) or name another"
    )]
    NoUser(String),
    /// A number whose group nobody knows.
    #[error(
        "the user database does not answer for group {uid} ({error}), which could be somebody's; say which group is meant: {uid}:GID"
    )]
    GroupUnanswered {
        /// The number.
        uid: u32,
        /// The system's answer.
        error: Errno,
    },
    /// No such group.
    #[error("there is no group named {0:?} on this host; name another or give its number")]
    NoGroup(String),
    /// Not a name nor a number that can be a user.
    #[error("{0:?} is no user; write a login name, a number, or UID:GID")]
    Spec(String),
    /// A number without passwd entry whose group would be somebody's.
    #[error(
        "user {uid} has no passwd entry, and group {uid} exists as {group:?}; say which group is meant: {uid}:GID"
    )]
    Ambiguous {
        /// The number.
        uid: u32,
        /// The group that has the same number.
        group: String,
    },
    /// The user database cannot be read.
    #[error("the user database cannot be read ({what}): {error}; see nsswitch.conf(5)")]
    Database {
        /// What was looked up.
        what: String,
        /// The system's answer.
        error: Errno,
    },
}

impl User {
    /// Whether this user is root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The user that a policy names: `name`, `UID`, `name:group` or `UID:GID`.
///
/// With a group, that group is the only one. A number without passwd entry and without a
/// group gets the group of the same number, unless that number is an existing group, which
/// could give rights nobody meant to give.
pub fn resolve(spec: &str) -> Result<User, UserError> {
    let (who, group) = match spec.split_once(':') {
        Some((who, group)) => (who, Some(group)),
        None => (spec, None),
    };
    let bad = || UserError::Spec(spec.to_owned());
    if who.is_empty() || who.contains('\0') {
        return Err(bad());
    }
    let gid = group.map(|group| resolve_group(group, spec)).transpose()?;
    if let Some(uid) = number(who) {
        return by_number(uid.ok_or_else(bad)?, gid);
    }
    let entry = nix::unistd::User::from_name(who)
        .or_else(|error| absent(who, error))?
        .ok_or_else(|| UserError::NoUser(who.to_owned()))?;
    Ok(from_entry(entry, gid))
}

/// The user on whose behalf the agent was called: with root rights the one that sudo(8)
/// names in `SUDO_UID` and `SUDO_GID`, otherwise the real user of this process.
pub fn calling_user() -> Result<User, UserError> {
    let (uid, gid, from_sudo) = calling_ids(
        geteuid().as_raw(),
        (getuid().as_raw(), getgid().as_raw()),
        std::env::var_os("SUDO_UID"),
        std::env::var_os("SUDO_GID"),
    );
    let mut user = match entry(uid) {
        Ok(entry) => User {
            gid,
            groups: groups_of(&entry.name, gid),
            ..from_entry(entry, None)
        },
        Err(unanswered) => nameless(uid, gid, unanswered),
    };
    // A process that is not root cannot set its groups and keeps those it has.
    if !from_sudo && uid != 0 && geteuid().as_raw() != 0 {
        user.groups = own_groups();
    }
    Ok(user)
}

/// A user by number, with the groups that the kernel says a process of it has.
pub fn with_rights(uid: u32, gid: u32, groups: &[u32]) -> User {
    let mut user = match entry(uid) {
        Ok(entry) => from_entry(entry, Some(gid)),
        Err(unanswered) => nameless(uid, gid, unanswered),
    };
    user.groups = groups.to_vec();
    if !user.groups.contains(&gid) {
        user.groups.push(gid);
    }
    user
}

/// A user for people: by name, where there is one.
pub fn shown(uid: u32) -> String {
    let entry = entry(uid).ok();
    entry.map_or_else(|| uid.to_string(), |entry| entry.name)
}

/// The number of a user; `None`: there is none of that name.
pub fn user_number(name: &str) -> Option<u32> {
    if let Some(number) = number(name) {
        return number;
    }
    let entry = nix::unistd::User::from_name(name).ok()??;
    Some(entry.uid.as_raw())
}

/// The number of a group; `None`: there is none of that name.
pub fn group_number(name: &str) -> Option<u32> {
    if let Some(number) = number(name) {
        return number;
    }
    let entry = Group::from_name(name).ok()??;
    Some(entry.gid.as_raw())
}

/// Which ids the caller has, and whether they came from sudo. Anything but two plain
/// numbers in the two variables means that sudo did not set them.
fn calling_ids(
    euid: u32,
    real: (u32, u32),
    sudo_uid: Option<OsString>,
    sudo_gid: Option<OsString>,
) -> (u32, u32, bool) {
    let read = |value: Option<OsString>| {
        value
            .as_deref()
            .and_then(OsStr::to_str)
            .and_then(number)
            .flatten()
    };
    match (euid, read(sudo_uid), read(sudo_gid)) {
        (0, Some(uid), Some(gid)) => (uid, gid, true),
        _ => (real.0, real.1, false),
    }
}

fn by_number(uid: u32, gid: Option<u32>) -> Result<User, UserError> {
    let unanswered = match entry(uid) {
        Ok(entry) => return Ok(from_entry(entry, gid)),
        Err(unanswered) => unanswered,
    };
    if let Some(gid) = gid {
        return Ok(nameless(uid, gid, unanswered));
    }
    match Group::from_gid(Gid::from_raw(uid)) {
        Ok(Some(group)) => Err(UserError::Ambiguous {
            uid,
            group: group.name,
        }),
        Ok(None) => Ok(nameless(uid, uid, unanswered)),
        Err(error) if means_none(error) => Ok(nameless(uid, uid, unanswered)),
        Err(error) => Err(UserError::GroupUnanswered { uid, error }),
    }
}

/// The passwd entry of a number; the error says why there is none, where that is not certain: a
/// directory that does not answer must not keep a number from being a number.
fn entry(uid: u32) -> Result<nix::unistd::User, Option<Errno>> {
    match nix::unistd::User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(entry)) => Ok(entry),
        Ok(None) => Err(None),
        Err(error) => Err((!means_none(error)).then_some(error)),
    }
}

/// Answers that mean "no such entry", says getpwnam(3). `ENOENT` comes from a directory that is
/// installed and does not run.
fn means_none(error: Errno) -> bool {
    matches!(
        error,
        Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM
    )
}

fn resolve_group(group: &str, spec: &str) -> Result<u32, UserError> {
    if group.is_empty() || group.contains('\0') {
        return Err(UserError::Spec(spec.to_owned()));
    }
    if let Some(gid) = number(group) {
        return gid.ok_or_else(|| UserError::Spec(spec.to_owned()));
    }
    Group::from_name(group)
        .or_else(|error| absent(group, error))?
        .map(|found| found.gid.as_raw())
        .ok_or_else(|| UserError::NoGroup(group.to_owned()))
}

fn from_entry(entry: nix::unistd::User, gid: Option<u32>) -> User {
    let primary = entry.gid.as_raw();
    User {
        groups: match gid {
            Some(gid) => vec![gid],
            None => groups_of(&entry.name, primary),
        },
        gid: gid.unwrap_or(primary),
        uid: entry.uid.as_raw(),
        name: Some(entry.name),
        home: entry.dir,
        shell: entry.shell,
        unanswered: None,
    }
}

fn nameless(uid: u32, gid: u32, unanswered: Option<Errno>) -> User {
    User {
        name: None,
        uid,
        gid,
        groups: vec![gid],
        home: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
        unanswered,
    }
}

/// The groups of a login name. Where they cannot be found the primary one is left: fewer
/// rights, never more.
fn groups_of(name: &str, gid: u32) -> Vec<u32> {
    CString::new(name)
        .ok()
        .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
        .map(|groups| groups.iter().map(|group| group.as_raw()).collect())
        .unwrap_or_else(|| vec![gid])
}

fn own_groups() -> Vec<u32> {
    let primary = getegid().as_raw();
    let mut groups: Vec<u32> = getgroups()
        .unwrap_or_default()
        .iter()
        .map(|group| group.as_raw())
        .collect();
    if !groups.contains(&primary) {
        groups.insert(0, primary);
    }
    groups
}

/// `None`: not a number. `Some(None)`: a number that is no id (setresuid(2) reads the
/// highest one as "leave it").
fn number(text: &str) -> Option<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().ok().filter(|&id| id != u32::MAX))
}

fn absent<T>(what: &str, error: Errno) -> Result<Option<T>, UserError> {
    if means_none(error) {
        return Ok(None);
    }
    Err(UserError::Database {
        what: what.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;

    #[test]
    fn root_by_name_and_number() {
        for spec in ["root", "0", "0:0", "root:0"] {
            let user = resolve(spec).unwrap();
            assert_eq!((user.uid, user.gid), (0, 0), "{spec}");
            assert!(user.is_root());
            assert!(user.groups.contains(&0));
            assert_eq!(user.name.as_deref(), Some("root"));
        }
    }

    #[test]
    fn a_number_without_entry() {
        let user = resolve("3999999001").unwrap();
        assert_eq!((user.uid, user.gid), (3_999_999_001, 3_999_999_001));
        assert_eq!(user.name, None);
        assert_eq!(user.groups, [3_999_999_001]);
        let user = resolve("3999999001:7").unwrap();
        assert_eq!((user.gid, user.groups), (7, vec![7]));
    }

    #[test]
    fn a_directory_that_is_down_is_told_from_one_that_knows_nobody() {
        for error in [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM] {
            assert!(means_none(error), "{error}");
            assert!(absent::<()>("dana", error).is_ok_and(|none| none.is_none()));
        }
        for error in [
            Errno::EIO,
            Errno::EMFILE,
            Errno::EAGAIN,
            Errno::ECONNREFUSED,
        ] {
            assert!(!means_none(error), "{error}");
            assert!(absent::<()>("dana", error).is_err());
        }
    }

    #[test]
    fn not_a_user() {
        for spec in [
            "",
            ":",
            "x:",
            ":0",
            "4294967295",
            "99999999999",
            "0:4294967295",
        ] {
            assert!(
                matches!(resolve(spec), Err(UserError::Spec(_))),
                "{spec:?}: {:?}",
                resolve(spec)
            );
        }
        assert!(matches!(
            resolve("no-such-user-here"),
            Err(UserError::NoUser(_))
        ));
        assert!(matches!(resolve("-1"), Err(UserError::NoUser(_))));
        assert!(matches!(
            resolve("0:no-such-group-here"),
            Err(UserError::NoGroup(_))
        ));
    }

    #[test]
    fn sudo_is_believed_only_by_root_and_only_whole() {
        let some = |text: &str| Some(OsString::from(text));
        assert_eq!(
            calling_ids(0, (0, 0), some("1000"), some("100")),
            (1000, 100, true)
        );
        assert_eq!(
            calling_ids(5, (5, 6), some("1000"), some("100")),
            (5, 6, false)
        );
        for (uid, gid) in [
            ("1000", ""),
            ("x", "100"),
            ("-1", "100"),
            ("4294967295", "0"),
        ] {
            assert_eq!(calling_ids(0, (0, 0), some(uid), some(gid)), (0, 0, false));
        }
        assert_eq!(calling_ids(0, (0, 0), some("1000"), None), (0, 0, false));
    }

    #[test]
    fn the_caller_has_a_group() {
        let user = calling_user().unwrap();
        assert!(!user.groups.is_empty());
    }
}
