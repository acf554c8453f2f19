//! Tests of the cgroup folder work; those that make groups need root and say so.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::process::{Child, Command, Stdio};

use super::*;

const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
    32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

fn only(text: &[u8]) -> Hierarchy {
    Hierarchy::candidates(text).into_iter().next().unwrap()
}

#[test]
fn hybrid_and_unified_mounts() {
    assert_eq!(only(HYBRID).mount(), Path::new("/sys/fs/cgroup/unified"));
    let unified = b"30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
    assert_eq!(only(unified).mount(), Path::new("/sys/fs/cgroup"));
    assert!(Hierarchy::candidates(b"31 23 0:28 / /sys rw - sysfs s rw\n").is_empty());
}

#[test]
fn the_whole_hierarchy_is_preferred() {
    let text = b"30 23 0:26 /some/part /mnt/part rw - cgroup2 none rw\n\
        31 23 0:26 / /mnt/whole rw - cgroup2 none rw\n";
    assert_eq!(only(text).mount(), Path::new("/mnt/whole"));
}

#[test]
fn depth_counts_from_the_true_root() {
    let part = only(b"30 23 0:26 /some/part /mnt/part rw - cgroup2 none rw\n");
    assert_eq!(part.cgroup("a/b").unwrap().level().unwrap(), 4);
    let inside = only(b"30 23 0:26 /../.. /mnt/part rw - cgroup2 none rw\n");
    assert!(matches!(
        inside.cgroup("a").unwrap().level(),
        Err(CgroupError::Namespace(_))
    ));
}

#[test]
fn names_stay_below_the_group() {
    let hierarchy = only(HYBRID);
    let group = hierarchy.cgroup("/egress-agent/x").unwrap();
    assert_eq!(
        group.path(),
        Path::new("/sys/fs/cgroup/unified/egress-agent/x")
    );
    for name in ["", ".", "..", "a/b", "cgroup.procs", "a\nb"] {
        assert!(
            matches!(group.child(name), Err(CgroupError::Name(_))),
            "{name:?}"
        );
    }
    assert!(hierarchy.cgroup("a/../../b").is_err());
}

#[test]
fn a_folder_that_is_gone_has_no_processes() {
    let folder = tempfile::tempdir().unwrap();
    let group = Cgroup {
        hierarchy: Hierarchy {
            mount: folder.path().to_owned(),
            root: "/".into(),
        },
        path: folder.path().join("x"),
    };
    assert!(!group.exists());
    assert!(!group.is_populated().unwrap());
    assert!(group.pids().unwrap().is_empty());
    group.remove().unwrap();
    assert!(matches!(group.id(), Err(CgroupError::Io { .. })));
}

/// A real group of this host, for tests that need root.
struct Real(Cgroup);

impl Real {
    fn new(name: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes a cgroup: run it as root"
        );
        let group = Hierarchy::find()
            .unwrap()
            .cgroup(format!("egress-agent-unit-{}-{name}", std::process::id()))
            .unwrap();
        group.create().unwrap();
        Self(group)
    }

    fn start(&self, group: &Cgroup) -> Child {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        if fs::write(group.path.join("cgroup.procs"), child.id().to_string()).is_err() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        child
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.0.exists() {
            self.0.kill_all(Duration::from_secs(5)).unwrap();
            self.0.remove().unwrap();
        }
    }
}

#[test]
fn life_of_a_group() {
    let real = Real::new("life");
    let group = &real.0;
    let below = group.child("below").unwrap();
    below.create().unwrap();
    assert!(matches!(below.create(), Err(CgroupError::Io { .. })));
    below.ensure().unwrap();
    assert_eq!(below.level().unwrap(), group.level().unwrap() + 1);
    assert_eq!(
        below.id().unwrap(),
        fs::metadata(&below.path).unwrap().ino()
    );
    let mut child = real.start(&below);
    assert_eq!(group.pids().unwrap(), [child.id()]);
    assert!(group.is_populated().unwrap());
    let stat = crate::host::Process::read(child.id()).unwrap();
    assert!(stat.cgroup.unwrap().ends_with("below"));
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    group.kill_all(Duration::from_secs(5)).unwrap();
    assert!(!reaper.join().unwrap().success());
    group.remove().unwrap();
    assert!(!group.exists());
    group.remove().unwrap();
}

#[test]
fn killing_one_by_one_where_the_kernel_has_no_file_for_it() {
    let real = Real::new("loop");
    let mut child = real.start(&real.0);
    real.0.write("cgroup.freeze", "1").unwrap();
    real.0.kill_each().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn the_agent_does_not_kill_itself() {
    let hierarchy = Hierarchy::find().unwrap();
    for group in [hierarchy.cgroup("").unwrap(), hierarchy.own().unwrap()] {
        assert!(matches!(
            group.kill_all(Duration::ZERO),
            Err(CgroupError::Own(_))
        ));
    }
}
