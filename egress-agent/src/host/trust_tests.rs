//! Tests of ways and of who can change what is on them.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::{
    fs::{self, Permissions},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    process::Command,
};

use nix::unistd::geteuid;

use super::*;

const UID: u32 = 4_000_001;
const GROUP: u32 = 4_000_002;

fn user() -> User {
    User {
        name: None,
        uid: UID,
        gid: UID,
        groups: vec![UID, GROUP],
        home: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
        unanswered: None,
    }
}

struct Place {
    base: tempfile::TempDir,
}

impl Place {
    /// `folder/below/policy.yaml`, everything root's.
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir_all(base.path().join("folder/below")).unwrap();
        let place = Self { base };
        fs::write(place.policy(), "version: 1").unwrap();
        for path in ["", "folder", "folder/below"] {
            place.mode(path, 0o755);
        }
        place.mode("folder/below/policy.yaml", 0o644);
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.base.path().join(path)
    }

    fn policy(&self) -> PathBuf {
        self.at("folder/below/policy.yaml")
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    fn own(&self, path: &str, uid: u32, gid: u32) {
        lchown_at(&self.at(path), uid, gid);
    }

    fn how(&self, path: &Path) -> Option<&'static str> {
        let way = Way::open(path).unwrap();
        way.changeable_by(&user()).unwrap().map(|found| found.how)
    }
}

fn lchown_at(path: &Path, uid: u32, gid: u32) {
    lchown(path, Some(uid), Some(gid)).unwrap();
}

fn is_root() -> bool {
    geteuid().is_root()
}

#[test]
fn what_is_roots_alone_is_nobody_elses() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    assert_eq!(place.how(&place.policy()), None);
    let mut way = Way::open(&place.policy()).unwrap();
    let mut text = String::new();
    way.file().read_to_string(&mut text).unwrap();
    assert_eq!(text, "version: 1");
    assert_eq!(way.path(), place.policy());
    // Folders that nobody else can even look into.
    place.mode("folder", 0o700);
    assert_eq!(place.how(&place.policy()), None);
}

#[test]
fn every_owner_and_mode_on_the_way_counts() {
    if !is_root() {
        return;
    }
    for path in ["folder", "folder/below", "folder/below/policy.yaml"] {
        let place = Place::new();
        place.own(path, UID, 0);
        assert_eq!(place.how(&place.policy()), Some("owns"), "{path}");
        place.own(path, 0, GROUP);
        assert_eq!(place.how(&place.policy()), None, "{path}");
        place.mode(path, 0o775);
        assert_eq!(place.how(&place.policy()), Some("may write to"), "{path}");
        place.own(path, 0, 0);
        assert_eq!(place.how(&place.policy()), None, "{path}: another group");
        place.mode(path, 0o777);
        assert_eq!(place.how(&place.policy()), Some("may write to"), "{path}");
    }
}

#[test]
fn in_a_sticky_folder_an_entry_is_its_owners() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.mode("folder", 0o1777);
    assert_eq!(place.how(&place.policy()), None);
    // A folder of the user's in it.
    place.own("folder/below", UID, 0);
    assert!(place.how(&place.policy()).is_some());
    // A link in it, whose target is root's.
    place.own("folder/below", 0, 0);
    symlink("below/policy.yaml", place.at("folder/link")).unwrap();
    assert_eq!(place.how(&place.at("folder/link")), None);
    place.own("folder/link", UID, 0);
    assert_eq!(place.how(&place.at("folder/link")), Some("may write to"));
}

#[test]
fn the_folder_of_every_link_counts() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.at("links")).unwrap();
    place.mode("links", 0o755);
    for target in [
        place.policy(),
        PathBuf::from("../folder/below/policy.yaml"),
        PathBuf::from("../folder/../folder/./below/policy.yaml"),
    ] {
        let link = place.at("links/policy.yaml");
        symlink(&target, &link).unwrap();
        assert_eq!(place.how(&link), None, "{target:?}");
        chown(place.at("links"), Some(UID), None).unwrap();
        assert_eq!(place.how(&link), Some("owns"), "{target:?}");
        chown(place.at("links"), Some(0), None).unwrap();
        fs::remove_file(&link).unwrap();
    }
    // A folder by a link.
    symlink("folder", place.at("links/up")).unwrap();
    symlink("../folder", place.at("links/good")).unwrap();
    assert_eq!(place.how(&place.at("links/good/below/policy.yaml")), None);
    assert!(Way::open(&place.at("links/up/below/policy.yaml")).is_err());
    symlink("loop", place.at("links/loop")).unwrap();
    assert!(Way::open(&place.at("links/loop")).is_err());
}

#[test]
fn access_control_lists_count() {
    if !is_root() {
        return;
    }
    for path in ["folder", "folder/below", "folder/below/policy.yaml"] {
        let place = Place::new();
        let set = Command::new("setfacl")
            .args(["-m", &format!("u:{UID}:rwx")])
            .arg(place.at(path))
            .status();
        // Without the tool, or on a file system without lists, there is nothing to see.
        if !set.is_ok_and(|status| status.success()) {
            return;
        }
        assert_eq!(place.how(&place.policy()), Some("may write to"), "{path}");
    }
}

#[test]
fn what_is_no_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        "/",
        "/dev/null",
        "/proc/self/fd/0",
        "/proc/self/exe",
        "/no/such/file",
    ] {
        assert!(Way::open(Path::new(path)).is_err(), "{path}");
    }
    assert!(Way::open(folder.path()).is_err());
    assert!(Way::open(&folder.path().join("x/../y")).is_err());
}

/// Root without capabilities owns what root owns.
#[test]
fn root_can_change_it() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let root = User { uid: 0, ..user() };
    let way = Way::open(&place.policy()).unwrap();
    assert!(way.changeable_by(&root).unwrap().is_some());
}
