//! From what somebody asks the daemon to start to what is started: whose rights, which program,
//! which environment.
//!
//! As a rule the connector runs as whoever asks, and then command, environment, working directory
//! and search path are that user's own business. Where the policy names another user, they are not:
//! nothing of the caller's that could choose what that user runs is taken over.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
};

use super::Run;
use crate::{
    control::{Exec, Peer, protocol::Text},
    exit,
    host::{
        User,
        user::{self, with_rights},
    },
    launch::{Cwd, pinned::is_loader},
    policy::{
        judged, load,
        model::Policy,
        proxy::{Choice, VARIABLES},
        session::Session,
    },
    reload::say,
};

use super::policies::Known;

/// Where programs of another user are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of the caller's environment, what another user's connector gets without being asked.
const HARMLESS: [&str; 4] = ["TERM", "LANG", "LC_ALL", "TZ"];
/// Why nothing is started: the exit code, and what to say.
pub(super) type Refusal = (u8, String);

/// What is to be started. Blocks: it asks the user database, and looks at the policy's file.
pub(super) fn prepare(known: &Known, peer: &Peer, exec: Exec) -> Result<Run, Refusal> {
    let refuse = |message: String| (exit::AGENT_FAILED, message);
    let mut policy = known.loaded.policy.clone();
    let inherited = exec.inherited.within(peer.pid).ok_or_else(|| {
        refuse("the limits of the calling process cannot be read; start it again".to_owned())
    })?;
    let caller_env: Vec<_> = exec
        .env
        .into_iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let command: Vec<OsString> = exec.command.into_iter().map(text).collect();
    let user = whom(&policy, peer).map_err(refuse)?;
    let is_other = user.uid != peer.uid;
    let command = program(&policy, command, is_other).map_err(refuse)?;
    let changeable = load::changeable_by(&known.loaded, &user);
    match changeable {
        Ok(None) => {}
        Ok(Some(found)) => return Err(refuse(say::unguarded(&policy, user.uid, &found))),
        Err(faults) => return Err(refuse(faults.to_string())),
    }
    beside(&mut policy, &caller_env).map_err(refuse)?;
    let caller_env = if is_other {
        strangers(&policy, caller_env)
    } else {
        caller_env
    };
    let session = Session::of(&user, |name| {
        let own = caller_env.iter().find(|(other, _)| other == name);
        own.filter(|_| !is_other).map(|(_, value)| value.clone())
    });
    let unsettled = session.settle(&mut policy);
    let search = caller_env.iter().find(|(name, _)| name == "PATH");
    let search = search.map_or_else(|| OsString::from(PATH), |(_, value)| value.clone());
    let cwd = (!is_other).then(|| Cwd {
        path: PathBuf::from(text(exec.cwd)),
        is: exec.cwd_is,
    });
    Ok(Run {
        policy,
        cwd: Some(cwd.unwrap_or_else(Cwd::root)),
        search: Some(search),
        user,
        command,
        // A policy that its connector could change is refused above.
        changeable: None,
        session,
        unsettled,
        inherited,
        caller_env,
        events: None,
        start_unresolved: false,
        audit: false,
        watch: false,
        quiet: true,
        color: false,
    })
}

/// As whom the connector runs: as the policy says, or else as the caller; nobody chooses.
fn whom(policy: &Policy, peer: &Peer) -> Result<User, String> {
    let named = policy.run.as_ref().and_then(|run| run.user.as_deref());
    match named {
        Some(spec) => user::resolve(spec).map_err(|error| error.to_string()),
        None if peer.uid == 0 => Err(format!(
            "the connector would run as root; call `egress-agent exec` as an ordinary user, or say \
             as whom it runs with `run: {{ user: NAME }}` in {}",
            policy.source.display()
        )),
        None => Ok(with_rights(peer.uid, peer.gid, &peer.groups)),
    }
}

/// Program and arguments: the policy's, where it has some.
fn program(policy: &Policy, asked: Vec<OsString>, is_other: bool) -> Result<Vec<OsString>, String> {
    let file = policy.source.display();
    let run = policy.run.as_ref();
    let own: Vec<OsString> = run
        .map(|run| run.command.iter().map(OsString::from).collect())
        .unwrap_or_default();
    match (own.is_empty(), asked.is_empty()) {
        (false, false) if own != asked => Err(format!(
            "the policy says what “{}” runs ({file}, run.command): leave out what stands behind --",
            policy.connector
        )),
        (false, _) => Ok(own),
        (true, false) if is_other => Err(format!(
            "“{}” runs as another user, so its policy has to say what it runs: add run.command to \
             {file}",
            policy.connector
        )),
        (true, false) => Ok(asked),
        (true, true) => Err(format!(
            "nothing to start: give a command after --, or add run.command to {file}"
        )),
    }
}

/// What needs a process beside the connector needs a data plane of its own.
fn beside(policy: &mut Policy, env: &[(OsString, OsString)]) -> Result<(), String> {
    let name = &policy.connector;
    let own = "needs a data plane of its own, which the daemon does not give; start it with `sudo \
               egress-agent run`";
    if policy.inspected().next().is_some() {
        return Err(format!("“{name}” has rules with `inspect:` and {own}"));
    }
    if policy.proxy == Choice::Caller {
        let proxied = |name: &OsStr| VARIABLES.iter().any(|variable| name == *variable);
        let set = env
            .iter()
            .any(|(name, value)| proxied(name) && !value.is_empty());
        if set {
            return Err(format!(
                "HTTPS_PROXY is set, and a connector behind a proxy {own}; or write “proxy: off” \
                 into its policy"
            ));
        }
        policy.proxy = Choice::Off;
    }
    if policy.through().is_some() {
        return Err(format!("“{name}” has a `proxy:` and {own}"));
    }
    judged::unfit(policy).map_or(Ok(()), Err)
}

/// What another user's connector gets of the caller's environment.
fn strangers(policy: &Policy, env: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let block = policy.run.as_ref().and_then(|run| run.env.as_ref());
    let passed = |name: &str| match block {
        Some(block) => block.pass.iter().any(|pass| pass == name),
        None => HARMLESS.contains(&name),
    };
    let mut kept: Vec<_> = env
        .into_iter()
        .filter(|(name, _)| !is_loader(name) && name != "PATH")
        .filter(|(name, value)| {
            let name = name.to_str().filter(|name| passed(name));
            name.is_some_and(|name| !HARMLESS.contains(&name) || is_plain(name, value))
        })
        .collect();
    kept.push(("PATH".into(), PATH.into()));
    kept
}

/// Whether a locale, terminal or time zone is only named, and no file of the caller's.
fn is_plain(name: &str, value: &OsStr) -> bool {
    let Some(value) = value.to_str() else {
        return false;
    };
    let path = match name {
        "TZ" => value.starts_with([':', '/']) || value.contains(".."),
        _ => value.contains('/'),
    };
    !path && !value.contains(['%', '\n'])
}

fn text(text: Text) -> OsString {
    OsString::from_vec(text.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_user_gets_names_no_file() {
        for (name, value) in [
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "C"),
            ("TERM", "xterm-256color"),
            ("TZ", "Europe/Berlin"),
        ] {
            assert!(is_plain(name, OsStr::new(value)), "{name}={value}");
        }
        for (name, value) in [
            ("LANG", "../../tmp/evil"),
            ("LC_ALL", "/tmp/evil"),
            ("TERM", "/tmp/x"),
            ("TZ", ":/home/bob/zone"),
            ("TZ", "/home/bob/zone"),
            ("TZ", "Europe/../../../tmp/zone"),
            ("LANG", "%s"),
        ] {
            assert!(!is_plain(name, OsStr::new(value)), "{name}={value}");
        }
    }
}
