//! Which unix sockets the data plane takes for the connector's own.

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use egress_common::{
    abi::{OWN_TEMPORARY, UNIX_NAME_MAX, UNIX_NAME_ROOM},
    unix::UnixKey,
};

/// Which unix sockets are the connector's own, beside those in its private folder.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Abstract ones: the kernel itself keeps it from those of others.
    pub abstracts: bool,
    /// Those in the temporary folder, where the kernel leads them to a mount without links.
    pub temporary: Option<PathBuf>,
}

impl Own {
    /// The folder as a record. `None`: there is none, or its name leaves no room for a socket's.
    pub(super) fn folder(&self, connector: u32) -> Option<UnixKey> {
        let path = self.temporary.as_ref()?;
        let mut text = path.as_os_str().as_bytes().to_vec();
        text.push(b'/');
        // What an address is led to must not be longer than the address.
        if text.len() < OWN_TEMPORARY.len() || text.len() >= UNIX_NAME_MAX {
            return None;
        }
        let mut name = [0; UNIX_NAME_ROOM];
        for (to, from) in name.iter_mut().zip(&text) {
            *to = *from;
        }
        Some(UnixKey {
            connector,
            kind: UnixKey::FOLDER,
            len: u16::try_from(text.len()).ok()?,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &str) -> Option<UnixKey> {
        let own = Own {
            abstracts: false,
            temporary: Some(path.into()),
        };
        own.folder(7)
    }

    #[test]
    fn a_folder_is_its_path_with_a_slash() {
        let key = folder("/tmp/egress-abcdef/tmp");
        let text = b"/tmp/egress-abcdef/tmp/";
        assert!(key.is_some_and(|key| key.connector == 7
            && key.kind == UnixKey::FOLDER
            && usize::from(key.len) == text.len()
            && key.name.starts_with(text)));
    }

    /// An address must not grow when it is led to the other mount, nor be all folder.
    #[test]
    fn one_that_leaves_no_room_is_none() {
        assert_eq!(folder("/short"), None);
        assert_eq!(folder(&format!("/{}", "x".repeat(UNIX_NAME_MAX))), None);
        assert_eq!(Own::default().folder(7), None);
    }
}
