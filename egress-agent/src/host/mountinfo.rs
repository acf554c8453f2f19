//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount<'a> {
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of this mount, with commas between, for example `rw,nosuid`.
    pub options: &'a [u8],
    /// Type of the file system, for example `cgroup2`.
    pub fs_type: &'a [u8],
}

/// The mounts of a mountinfo text, in its order; lines that cannot be read are left out.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(line)
}

/// `36 35 98:0 ROOT POINT OPTIONS [TAG…] - TYPE SOURCE SUPER`: any number of tags, so the
/// type is found behind the lone hyphen.
fn line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = path(fields.nth(3)?);
    let point = path(fields.next()?);
    let options = fields.next()?;
    fields.find(|&field| field == b"-")?;
    Some(Mount {
        root,
        point,
        options,
        fs_type: fields.next()?,
    })
}

/// Blank, tab, line end and backslash are written as a backslash and three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_escapes() {
        let text = b"41 31 0:38 / /sys/fs/cgroup/my\\040cg rw,relatime shared:9 master:1 - cgroup2 none rw\n\
            42 1 0:1 /a\\134b /x rw - ext4 /dev/x rw\n\
            short line\n\n43 1 0:1 / /no-hyphen rw\n";
        let found: Vec<_> = parse(text).collect();
        assert_eq!(
            found,
            [
                Mount {
                    root: "/".into(),
                    point: "/sys/fs/cgroup/my cg".into(),
                    options: b"rw,relatime",
                    fs_type: b"cgroup2"
                },
                Mount {
                    root: "/a\\b".into(),
                    point: "/x".into(),
                    options: b"rw",
                    fs_type: b"ext4"
                },
            ]
        );
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(path(b"/a\\04"), PathBuf::from("/a\\04"));
        assert_eq!(path(b"/a\\"), PathBuf::from("/a\\"));
        assert_eq!(path(b"/\\777"), PathBuf::from("/\\777"));
    }
}
