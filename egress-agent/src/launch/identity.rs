//! Who the connector's user is, for programs inside that ask (getpwuid(3)): ssh, git and others end
//! where nobody knows.
//!
//! Users of a directory are known to its client alone (sssd, systemd-userdb, nslcd), which is asked
//! over a unix socket that a connector does not reach: it would look up whatever name it is given,
//! outside. So where `/etc/passwd` and `/etc/group` have no entry of the user's, the connector sees
//! them with the one that the agent found.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{Gid, Group},
};

use super::mounts::{MountError, change, failed};
use crate::host::User;

/// A file, and the line that it lacks.
pub type Entry = (String, String);

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Where the files are written, below a mount that nobody else sees and that goes again.
const STAGING: &str = "/tmp";

/// The entries that the files of this host lack. A user whom no database knows has none.
pub fn missing(user: &User) -> Vec<Entry> {
    let Some(name) = &user.name else {
        return Vec::new();
    };
    let group = Group::from_gid(Gid::from_raw(user.gid)).ok().flatten();
    let (home, shell) = (user.home.display(), user.shell.display());
    let lines = [
        (
            PASSWD,
            user.uid,
            Some(format!(
                "{name}:x:{}:{}::{home}:{shell}",
                user.uid, user.gid
            )),
        ),
        (
            GROUP,
            user.gid,
            group.map(|group| format!("{}:x:{}:", group.name, user.gid)),
        ),
    ];
    let lacks = |(file, number, line): (&str, u32, Option<String>)| {
        let line = line.filter(|line| !line.contains(char::is_control))?;
        let text = fs::read(file).ok()?;
        (!has(&text, number)).then(|| (file.to_owned(), line))
    };
    lines.into_iter().filter_map(lacks).collect()
}

/// Whether a line of passwd(5) or group(5) has a number: the third field of both.
fn has(text: &[u8], number: u32) -> bool {
    let number = number.to_string();
    text.split(|&byte| byte == b'\n').any(|line| {
        let field = line.split(|&byte| byte == b':').nth(2);
        field == Some(number.as_bytes())
    })
}

/// Puts the files with their further lines in the place of the host's, in this process's own mount
/// namespace. Needs CAP_SYS_ADMIN.
pub fn show(entries: &[Entry]) -> Result<(), MountError> {
    if entries.is_empty() {
        return Ok(());
    }
    let what = "show the connector who its user is";
    let at = Path::new(STAGING);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("egress-agent"),
        at,
        Some("tmpfs"),
        flags,
        Some("mode=0755"),
    )
    .map_err(|error| failed(what, error))?;
    for (number, (file, line)) in entries.iter().enumerate() {
        let copy = at.join(number.to_string());
        with_line(file, line, &copy).map_err(|error| failed(what, error))?;
        change(Some(&copy), file, MsFlags::MS_BIND).map_err(|error| failed(what, error))?;
    }
    umount2(at, MntFlags::MNT_DETACH).map_err(|error| failed(what, error))
}

fn with_line(file: &str, line: &str, copy: &Path) -> io::Result<()> {
    let mut text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        found => found?,
    };
    if text.last().is_some_and(|&byte| byte != b'\n') {
        text.push(b'\n');
    }
    text.extend(line.as_bytes());
    text.push(b'\n');
    fs::write(copy, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_field_is_the_number() {
        let text = b"root:x:0:0::/root:/bin/sh\nme:x:1000:7::/:/bin/sh\nodd\n";
        assert!(has(text, 0) && has(text, 1000));
        assert!(!has(text, 7) && !has(text, 100) && !has(b"", 0));
    }

    #[test]
    fn who_has_no_name_and_who_is_in_the_files_needs_none() {
        let user = |name: Option<&str>, uid| User {
            name: name.map(str::to_owned),
            uid,
            gid: uid,
            groups: Vec::new(),
            home: "/".into(),
            shell: "/bin/sh".into(),
            unanswered: None,
        };
        assert_eq!(missing(&user(None, 70_001)), []);
        assert_eq!(missing(&user(Some("root"), 0)), []);
        let found = missing(&user(Some("dana"), 70_001));
        let line = "dana:x:70001:70001::/:/bin/sh".to_owned();
        assert_eq!(found, [(PASSWD.to_owned(), line)]);
        assert_eq!(missing(&user(Some("da\nna"), 70_001)), []);
    }
}
