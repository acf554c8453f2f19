//! Whole lines of one file that is still being written.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::libc::{ELOOP, O_NOFOLLOW, O_NONBLOCK};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A line longer than this is passed over.
const MAX_LINE: usize = 1 << 20;

/// Which file, whatever it is called now: device and inode. Both stay taken while the file
/// is open.
pub type FileId = (u64, u64);

/// A file and how far it has been read.
#[derive(Debug)]
pub struct Reader {
    file: File,
    id: FileId,
    offset: u64,
    buffer: Vec<u8>,
    taken: usize,
    /// Bytes behind `taken` that hold no line end.
    searched: usize,
    /// Inside a line that is too long.
    passing: bool,
    passed: u64,
}

impl Reader {
    /// Opens a regular file. `None`: it is not there, or no regular file.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(O_NOFOLLOW | O_NONBLOCK)
            .open(path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A link, which the agent never makes.
            Err(error) if error.raw_os_error() == Some(ELOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Ok(None);
        }
        Ok(Some(Self {
            id: (facts.dev(), facts.ino()),
            file,
            offset: 0,
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
            passing: false,
            passed: 0,
        }))
    }

    /// Which file this is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Lines passed over because they are too long, since this was last asked.
    pub fn take_passed(&mut self) -> u64 {
        std::mem::take(&mut self.passed)
    }

    /// The next whole line without its line end. `None`: no further one is there yet; what
    /// there is of it is kept until the rest comes.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let rest = self.buffer.get(self.taken..).unwrap_or_default();
            let fresh = rest.get(self.searched..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|&byte| byte == b'\n') {
                let end = self.searched + end;
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.taken += end + 1;
                self.searched = 0;
                if std::mem::take(&mut self.passing) {
                    self.passed += 1;
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = rest.len();
            if self.searched > MAX_LINE {
                self.passing = true;
                self.restart();
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK, 0);
        let fresh = self.buffer.get_mut(kept..).unwrap_or_default();
        let read = match self.file.read_at(fresh, self.offset) {
            Ok(read) => read,
            Err(error) => {
                self.buffer.truncate(kept);
                return Err(error);
            }
        };
        self.buffer.truncate(kept + read);
        self.offset += u64::try_from(read).unwrap_or(0);
        if read == 0 && self.file.metadata()?.len() < self.offset {
            // Somebody emptied it: what comes now is new from the first byte.
            self.passing = false;
            self.restart();
            return self.refill();
        }
        Ok(read)
    }

    /// Drops what is kept of a line.
    fn restart(&mut self) {
        self.buffer.clear();
        self.taken = 0;
        self.searched = 0;
    }

    /// One read after a truncation, without looking for another one.
    fn refill(&mut self) -> io::Result<usize> {
        self.buffer.resize(CHUNK, 0);
        let read = self.file.read_at(&mut self.buffer, 0)?;
        self.buffer.truncate(read);
        self.offset = u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn all(reader: &mut Reader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn partial_lines_wait_for_their_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut file = File::create(&path).unwrap();
        let mut reader = Reader::open(&path).unwrap().unwrap();
        assert!(all(&mut reader).is_empty());
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(all(&mut reader), ["one"]);
        assert!(all(&mut reader).is_empty());
        file.write_all(b"o\n\nthree\nfo").unwrap();
        assert_eq!(all(&mut reader), ["two", "", "three"]);
        file.write_all(b"ur\n").unwrap();
        assert_eq!(all(&mut reader), ["four"]);
    }

    #[test]
    fn a_file_that_is_emptied_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "old line\nhalf").unwrap();
        let mut reader = Reader::open(&path).unwrap().unwrap();
        assert_eq!(all(&mut reader), ["old line"]);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(all(&mut reader), ["new"]);
    }

    #[test]
    fn lines_without_end_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let long = vec![b'x'; 3 * MAX_LINE];
        std::fs::write(&path, [b"a\n", &long[..], b"\nb\n"].concat()).unwrap();
        let mut reader = Reader::open(&path).unwrap().unwrap();
        assert_eq!(all(&mut reader), ["a", "b"]);
        assert_eq!((reader.take_passed(), reader.take_passed()), (1, 0));
        assert!(reader.buffer.capacity() < 3 * MAX_LINE);
    }

    #[test]
    fn only_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Reader::open(folder.path()).unwrap().is_none());
        assert!(Reader::open(&folder.path().join("none")).unwrap().is_none());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(Reader::open(&link).unwrap().is_none());
    }

    proptest! {
        /// However the writes are cut, the lines are those of the whole.
        #[test]
        fn cuts_do_not_matter(pieces in proptest::collection::vec("[a-c\n]{0,9}", 0..20)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x");
            let mut file = File::create(&path).unwrap();
            let mut reader = Reader::open(&path).unwrap().unwrap();
            let mut found = Vec::new();
            for piece in &pieces {
                file.write_all(piece.as_bytes()).unwrap();
                found.extend(all(&mut reader));
            }
            let whole = pieces.concat();
            let ended = whole.rfind('\n').map_or("", |end| &whole[..end]);
            let expected: Vec<_> = if whole.contains('\n') {
                ended.split('\n').map(str::to_owned).collect()
            } else {
                Vec::new()
            };
            prop_assert_eq!(found, expected);
        }
    }
}
