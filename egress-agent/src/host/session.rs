//! Whether what a session's environment names is a socket of a user's.
//!
//! The names come from whoever started the agent. So they count only where they lead, over no link,
//! to a socket that the connector's own user has: nobody gains one of root's or of others by them.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::socket_peercred,
};

/// Looks at a path without calling at the socket. Errors say why it does not count.
pub fn socket_of(path: &Path, uid: u32) -> Result<(), String> {
    let real = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        _ => format!("cannot be looked at: {error}"),
    })?;
    if real != path {
        return Err(format!(
            "is reached over a symbolic link: name what it leads to, {}",
            real.display()
        ));
    }
    let found = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !found.file_type().is_socket() {
        return Err("is no unix socket".to_owned());
    }
    owned(found.uid(), uid)
}

/// Whether a folder is a user's, and nobody else may put sockets there.
pub fn folder_of(path: &Path, uid: u32) -> Result<(), String> {
    let found =
        fs::symlink_metadata(path).map_err(|error| format!("cannot be looked at: {error}"))?;
    if !found.is_dir() {
        return Err("is no folder".to_owned());
    }
    if found.mode() & 0o022 != 0 {
        return Err("can be written by others".to_owned());
    }
    owned(found.uid(), uid)
}

/// Asks the kernel who listens at an abstract name, in this network namespace. For that the socket
/// is called, and the call ended at once.
pub fn abstract_socket_of(name: &str, uid: u32) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::CONNREFUSED => "is not there".to_owned(),
        rustix::io::Errno::AGAIN => "does not answer".to_owned(),
        error => format!("cannot be called: {error}"),
    };
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    connect(&socket, &address).map_err(failed)?;
    let peer = socket_peercred(&socket).map_err(failed)?;
    owned(peer.uid.as_raw(), uid)
}

fn owned(owner: u32, uid: u32) -> Result<(), String> {
    if owner == uid {
        return Ok(());
    }
    Err(format!(
        "belongs to user {owner}, not to user {uid}, as whom the connector runs (a socket of \
         somebody else's has to be named by its path)"
    ))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at its first fault")]
mod tests {
    use std::{
        os::{
            linux::net::SocketAddrExt as _,
            unix::{
                fs::symlink,
                net::{SocketAddr, UnixListener},
            },
        },
        path::PathBuf,
    };

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().canonicalize().unwrap();
        let folder = folder.join(format!("session-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_socket_of_the_users_counts_and_nothing_else() {
        let folder = folder("path");
        let uid = nix::unistd::geteuid().as_raw();
        let socket = folder.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink(&socket, folder.join("link")).unwrap();
        symlink(&folder, folder.join("around")).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        let said = |path: &str, uid| socket_of(&folder.join(path), uid).err().unwrap_or_default();
        assert_eq!(said("socket", uid), "");
        assert!(said("socket", uid + 1).contains("belongs to user"));
        assert!(said("link", uid).contains("symbolic link"));
        assert!(said("around/socket", uid).contains("symbolic link"));
        assert!(said("file", uid).contains("no unix socket"));
        assert!(said("missing", uid).contains("not there"));
        assert_eq!(folder_of(&folder, uid), Ok(()));
        assert!(folder_of(&folder, uid + 1).is_err());
        assert!(folder_of(&socket, uid).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn who_listens_at_an_abstract_name_is_asked() {
        let uid = nix::unistd::geteuid().as_raw();
        let name = format!("session-test-{}", std::process::id());
        let absent = abstract_socket_of(&name, uid).err().unwrap_or_default();
        assert!(absent.contains("not there"), "{absent}");
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        assert_eq!(abstract_socket_of(&name, uid), Ok(()));
        assert!(abstract_socket_of(&name, uid + 1).is_err());
    }
}
