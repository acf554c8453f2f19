//! Texts of `/proc`, in which any program can stand with a name of its choice.

use std::os::unix::ffi::OsStrExt as _;

use egress_agent::host::{
    mountinfo,
    process::{self, Stat},
};

/// Total, and as a naive reading has it.
pub fn run(data: &[u8]) {
    let Some((&which, text)) = data.split_first() else {
        return;
    };
    match which % 4 {
        0 => mounts(text),
        1 => stat(text),
        2 => cgroup(text),
        _ => {
            let arguments = process::arguments(text);
            let longest = arguments.iter().map(String::len).max().unwrap_or(0);
            assert!(arguments.len() <= text.len() && longest <= 3 * text.len() + 3);
        }
    }
}

fn mounts(text: &[u8]) {
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let found: Vec<_> = mountinfo::parse(text).collect();
    assert!(found.len() <= lines.len());
    let types = lines.iter().filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let hyphen = fields.iter().skip(6).position(|field| *field == b"-")?;
        fields.get(6 + hyphen + 1).copied()
    });
    assert!(types.eq(found.iter().map(|mount| mount.fs_type)));
    for mount in &found {
        assert!(mount.point.as_os_str().as_bytes().len() <= text.len());
    }
}

fn stat(text: &[u8]) {
    let Some(stat) = Stat::parse(text) else {
        return;
    };
    // Nothing behind the name can look like one.
    let end = text.iter().rposition(|&byte| byte == b')').expect("an end");
    let behind = String::from_utf8(text[end + 1..].to_vec()).expect("numbers");
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    assert_eq!(fields[1].parse(), Ok(stat.ppid));
    assert_eq!(fields[19].parse(), Ok(stat.start_ticks));
}

fn cgroup(text: &[u8]) {
    let lines = text.split(|&byte| byte == b'\n');
    let own = lines
        .filter(|line| line.starts_with(b"0::"))
        .map(|line| &line[3..]);
    let found = process::cgroup_path(text);
    let found = found.as_ref().map(|path| path.as_os_str().as_bytes());
    assert_eq!(found, own.into_iter().next());
}
