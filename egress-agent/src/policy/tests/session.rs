//! What a session's variables come to.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

use super::*;
use crate::policy::parse;

fn user() -> User {
    User {
        name: None,
        uid: 4711,
        gid: 4711,
        groups: Vec::new(),
        home: "/nowhere".into(),
        shell: "/bin/sh".into(),
        unanswered: None,
    }
}

fn policy(socket: &str) -> Result<Policy, String> {
    let text = format!("version: 1\nconnector: a\nallow: [{{ unix: '{socket}' }}]\n");
    parse(Path::new("a.yaml"), &text).map_err(|faults| faults.to_string())
}

/// What a rule leads to with a value of its variable, or what is said of it.
fn settled(socket: &str, value: Option<&str>, user: &User) -> Result<String, String> {
    let mut policy = policy(socket)?;
    let session = Session::of(user, |name| {
        value.filter(|_| socket.contains(name)).map(OsString::from)
    });
    let said = session.settle(&mut policy);
    let rule = policy.allow.first().ok_or("no rule")?;
    match rule.target.socket() {
        Some(name) => Ok(name.to_owned()),
        None => Err(said.concat()),
    }
}

#[test]
fn what_can_be_written() {
    for good in [
        "$SSH_AUTH_SOCK",
        "${SSH_AUTH_SOCK}",
        "$DBUS_SESSION_BUS_ADDRESS",
        "$XDG_RUNTIME_DIR/bus",
        "${XDG_RUNTIME_DIR}/gnupg/S.gpg-agent",
        "$HOME/.gnupg/S.gpg-agent",
    ] {
        let policy = policy(good);
        let rule = policy.as_ref().ok().and_then(|policy| policy.allow.first());
        let id = format!("unix:{}", good.replace(['{', '}'], ""));
        // Nothing before it is settled.
        assert!(
            rule.is_some_and(|rule| rule.id == id && rule.target.socket().is_none()),
            "{good}: {policy:?}"
        );
    }
    for (bad, fault) in [
        ("$SSH_AUTH_SOCK/x", "more behind"),
        ("${SSH_AUTH_SOCK", ""),
        ("$XDG_RUNTIME_DIR", "names no socket"),
        ("$XDG_RUNTIME_DIR/", "no normal path"),
        ("$XDG_RUNTIME_DIR/../x", "no normal path"),
        ("$XDG_RUNTIME_DIR/*", "pattern"),
        ("$XDG_RUNTIME_DIRx/bus", "no variable"),
        ("$UID/bus", "XDG_RUNTIME_DIR"),
        ("$DOCKER_HOST", "no variable"),
        ("$", "no variable"),
        ("/run/user/$UID/bus", "variable in it"),
        ("~/.ssh/agent", "$HOME"),
        ("/tmp/ssh-*/agent.*", "$SSH_AUTH_SOCK"),
        ("/tmp/ssh-[ab]/agent", "pattern"),
        ("@/tmp/dbus-?", "pattern"),
    ] {
        let said = policy(bad).err();
        assert!(
            said.as_ref().is_some_and(|said| said.contains(fault)) || fault.is_empty(),
            "{bad}: {said:?}"
        );
    }
    let denied = "version: 1\nconnector: a\ndeny: [{ unix: $SSH_AUTH_SOCK }]\n";
    assert!(parse(Path::new("a.yaml"), denied).is_err());
}

#[test]
fn what_does_not_count_permits_nothing_and_says_why() {
    let ssh = |value| settled("$SSH_AUTH_SOCK", value, &user()).err();
    for (value, why) in [
        (None, "env_keep"),
        (Some(""), "is empty"),
        (Some("agent"), "no absolute path"),
        (Some("/tmp/../run/docker.sock"), "no normal path"),
        (Some("/tmp//agent"), "no normal path"),
        (Some("/tmp/a\nb"), "control character"),
        (Some("/tmp/ssh-*/agent"), "pattern"),
        (Some("/run/docker.sock"), "container engine"),
        (Some("/no/such/agent"), "is not there"),
    ] {
        let said = ssh(value);
        assert!(
            said.as_ref().is_some_and(|said| said.contains(why)),
            "{value:?}: {said:?}"
        );
    }
    let long = format!("/{}", "x".repeat(107));
    assert!(ssh(Some(&long)).is_some_and(|said| said.contains("107")));
    let root = User { uid: 0, ..user() };
    let said = settled("$SSH_AUTH_SOCK", Some("/run/x"), &root).err();
    assert!(said.is_some_and(|said| said.contains("root")));
}

#[test]
fn addresses_of_a_bus() {
    let names = |text| bus_sockets(text).collect::<Vec<_>>();
    let path = |name: &str| Ok(name.to_owned());
    assert_eq!(
        names("unix:path=/run/user/1/bus,guid=0123"),
        [path("/run/user/1/bus")]
    );
    assert_eq!(
        names("tcp:host=a,port=1;unix:guid=1,abstract=/tmp/dbus-a;unix:path=%2ftmp%2Fb"),
        [path("@/tmp/dbus-a"), path("/tmp/b")]
    );
    assert_eq!(names("unix:dir=/tmp;autolaunch:;unixexec:path=/bin/sh"), []);
    assert!(names("unix:path=/a%2").iter().all(Result::is_err));
    assert!(names("unix:path=/a%zz").iter().all(Result::is_err));
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

#[test]
fn a_socket_of_the_users_is_what_it_leads_to() -> std::io::Result<()> {
    let folder = std::env::temp_dir().canonicalize()?;
    let folder = Folder(folder.join(format!("settle-{}", std::process::id())));
    fs::create_dir(&folder.0)?;
    let uid = nix::unistd::geteuid().as_raw();
    if uid == 0 {
        std::os::unix::fs::chown(&folder.0, Some(4711), Some(4711))?;
    }
    let at = |name: &str| folder.0.join(name).display().to_string();
    for name in ["agent", "docker.sock"] {
        let _bound = UnixListener::bind(at(name))?;
        if uid == 0 {
            std::os::unix::fs::chown(at(name), Some(4711), Some(4711))?;
        }
    }
    symlink(at("agent"), at("link"))?;
    let user = User {
        uid: if uid == 0 { 4711 } else { uid },
        home: folder.0.clone(),
        ..user()
    };
    let agent = at("agent");
    assert_eq!(
        settled("$SSH_AUTH_SOCK", Some(&agent), &user),
        Ok(agent.clone())
    );
    let bus = format!("unix:path=/no/such;unix:path={agent},guid=1");
    let found = settled("$DBUS_SESSION_BUS_ADDRESS", Some(&bus), &user);
    assert_eq!(found, Ok(agent.clone()));
    let runtime = folder.0.display().to_string();
    let found = settled("$XDG_RUNTIME_DIR/agent", Some(&runtime), &user);
    assert_eq!(found, Ok(agent.clone()));
    assert_eq!(settled("$HOME/agent", None, &user), Ok(agent));
    let link = settled("$SSH_AUTH_SOCK", Some(&at("link")), &user).err();
    assert!(link.is_some_and(|said| said.contains("symbolic link")));
    let engine = settled("$SSH_AUTH_SOCK", Some(&at("docker.sock")), &user).err();
    assert!(engine.is_some_and(|said| said.contains("container engine")));
    // Where a rule says it, it is the policy's word.
    let engine = settled("$XDG_RUNTIME_DIR/docker.sock", Some(&runtime), &user);
    assert_eq!(engine, Ok(at("docker.sock")));
    let stranger = User {
        uid: user.uid + 1,
        ..user
    };
    let said = settled("$SSH_AUTH_SOCK", Some(&at("agent")), &stranger).err();
    assert!(said.is_some_and(|said| said.contains("belongs to user")));
    Ok(())
}
