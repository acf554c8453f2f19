//! Archives as the kernel unpacks them at boot: the "newc" format of cpio(5), described in
//! Documentation/driver-api/early-userspace/buffer-format.rst.

use std::io::{self, Write};

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;
const END: &str = "TRAILER!!!";

/// An archive that is being written. Everything in it belongs to root.
pub(crate) struct Archive<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Nothing yet.
    pub(crate) fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    /// A folder; those around it have to come first. Paths have no leading `/`.
    pub(crate) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, 0, &[])
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK, 0, target.as_bytes())
    }

    /// A file with its permissions and the time it was changed, in seconds since 1970: Python
    /// compiles a library anew whose time is not the one it knows.
    pub(crate) fn file(
        &mut self,
        path: &str,
        mode: u32,
        time: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.entry(path, FILE | mode & 0o7777, time, bytes)
    }

    /// The mark of the end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(END, 0, 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &str, mode: u32, time: u32, bytes: &[u8]) -> io::Result<()> {
        self.inode = self.inode.saturating_add(1);
        let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let name = u32::try_from(path.len().saturating_add(1)).map_err(io::Error::other)?;
        // inode, mode, uid, gid, links, time, size, device twice two, name, check
        let fields = [self.inode, mode, 0, 0, 1, time, size, 0, 0, 0, 0, name, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(path);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(bytes)
    }

    /// Header with name, and content, each end on a multiple of 4.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(4) - bytes.len();
        self.to.write_all([0; 3].get(..rest).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_on_multiples_of_four() -> io::Result<()> {
        let mut archive = Archive::new(Vec::new());
        archive.folder("dev")?;
        archive.file("init", 0o755, 0, b"abcde")?;
        let bytes = archive.finish()?;
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        // 110 bytes of header, "dev" and its end: 114, so 2 more.
        assert_eq!(text.find("init"), Some(116 + 110));
        assert!(text.starts_with("07070100000001000041ed"));
        assert!(text.contains("000081ed"));
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"));
        Ok(())
    }
}
