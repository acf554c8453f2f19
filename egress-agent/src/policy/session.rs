//! Unix sockets whose place the caller's session says: `$SSH_AUTH_SOCK` and the like.
//!
//! A rule for one permits nothing until it is settled: until the value was read, found to be of the
//! right form, and to lead to a socket of the connector's own user.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
};

use super::{
    fault::{Complaint, quote},
    lower,
    model::{Policy, Target},
    outside::{self, SESSION_BUS, SSH_AGENT},
};
use crate::host::{User, session as found};

/// What a session says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variable {
    /// Path of an ssh agent's socket (ssh-agent(1)).
    SshAuthSock,
    /// The user's folder for sockets (XDG Base Directory Specification).
    XdgRuntimeDir,
    /// Addresses of the session's bus (D-Bus Specification, "Server Addresses").
    DbusSessionBusAddress,
    /// The home of the user as whom the connector runs, which the user database says and not the
    /// caller.
    Home,
}

/// A rule's socket: a variable and what comes behind its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    variable: Variable,
    /// Empty, or a normal path that begins with a slash.
    rest: String,
    /// Path, or `@` and an abstract name, once it is settled.
    pub found: Option<String>,
}

/// The values, and whose sockets count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    values: Vec<(Variable, OsString)>,
    uid: u32,
}

impl Variable {
    const ALL: [Self; 4] = [
        Self::SshAuthSock,
        Self::XdgRuntimeDir,
        Self::DbusSessionBusAddress,
        Self::Home,
    ];

    /// As the environment has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SshAuthSock => "SSH_AUTH_SOCK",
            Self::XdgRuntimeDir => "XDG_RUNTIME_DIR",
            Self::DbusSessionBusAddress => "DBUS_SESSION_BUS_ADDRESS",
            Self::Home => "HOME",
        }
    }

    /// Whether the value is a folder, and the rule says what in it.
    const fn is_folder(self) -> bool {
        matches!(self, Self::XdgRuntimeDir | Self::Home)
    }
}

impl Place {
    /// Reads `$NAME` or `${NAME}`, with a path behind it where the value is a folder.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        const HELP: &str = "write “$SSH_AUTH_SOCK”, “$DBUS_SESSION_BUS_ADDRESS”, \
                            “$XDG_RUNTIME_DIR/…”, “$HOME/…”, or the path itself";
        let name = text.trim_start_matches('$');
        let (name, rest) = match name.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => name.split_at(name.find('/').unwrap_or(name.len())),
        };
        let known = Variable::ALL.into_iter().find(|it| it.name() == name);
        let Some(variable) = known else {
            return Err(Complaint::new(
                format!(
                    "{} is no variable of a session that a rule can name",
                    quote(text)
                ),
                match name {
                    "UID" | "USER" => "write “$XDG_RUNTIME_DIR/…” for “/run/user/UID/…”",
                    "WAYLAND_DISPLAY" => "write “$XDG_RUNTIME_DIR/wayland-0”",
                    "DISPLAY" => "write “/tmp/.X11-unix/X0”",
                    _ => HELP,
                },
            ));
        };
        if variable.is_folder() {
            if !rest.starts_with('/') {
                return Err(Complaint::new(
                    format!("{} names no socket", quote(text)),
                    format!("write which one, such as “${}/name”", variable.name()),
                ));
            }
            lower::unix(rest)?;
        } else if !rest.is_empty() {
            return Err(Complaint::new(
                format!("{} has more behind the variable", quote(text)),
                format!(
                    "write “${}” alone: its value is the whole name",
                    variable.name()
                ),
            ));
        }
        Ok(Self {
            variable,
            rest: rest.to_owned(),
            found: None,
        })
    }

    /// The server behind it, where it is known to act outside the boundary.
    pub fn server(&self) -> Option<&'static outside::Server> {
        match self.variable {
            Variable::SshAuthSock => Some(SSH_AGENT),
            Variable::DbusSessionBusAddress => Some(SESSION_BUS),
            Variable::XdgRuntimeDir => outside::server(&format!("/run/user/0{}", self.rest)),
            Variable::Home => outside::server(&self.rest),
        }
    }

    /// What the value names, the first that counts; otherwise why none does.
    fn settle(&self, value: &OsStr, uid: u32) -> Result<String, String> {
        let value = value.to_str().ok_or("is no text in UTF-8")?;
        if value.is_empty() {
            return Err("is empty".to_owned());
        }
        if self.variable == Variable::DbusSessionBusAddress {
            let mut why = "names no unix socket".to_owned();
            for name in bus_sockets(value) {
                match name.and_then(|name| self.counts(name, uid)) {
                    Ok(name) => return Ok(name),
                    Err(error) => why = error,
                }
            }
            return Err(why);
        }
        if self.variable == Variable::XdgRuntimeDir {
            let folder = plain(value)?;
            found::folder_of(Path::new(&folder), uid).map_err(|why| format!("{folder} {why}"))?;
        }
        self.counts(format!("{}{}", value, self.rest), uid)
    }

    fn counts(&self, name: String, uid: u32) -> Result<String, String> {
        let name = plain(&name)?;
        let why = |why: String| format!("{name} {why}");
        if let Some(server) = outside::server(&name)
            && self.server() != Some(server)
        {
            return Err(why(format!(
                "is {}, which a rule has to name by its path",
                server.what
            )));
        }
        match name.strip_prefix('@') {
            Some(text) => found::abstract_socket_of(text, uid),
            None => found::socket_of(Path::new(&name), uid),
        }
        .map_err(why)?;
        Ok(name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}{}", self.variable.name(), self.rest)
    }
}

impl Session {
    /// That of the agent's caller, for a connector of a user.
    pub fn of(user: &User, value: impl Fn(&str) -> Option<OsString>) -> Self {
        let values = Variable::ALL.into_iter().filter_map(|variable| {
            let value = match variable {
                Variable::Home => Some(user.home.clone().into_os_string()),
                _ => value(variable.name()),
            };
            Some((variable, value?))
        });
        Self {
            values: values.collect(),
            uid: user.uid,
        }
    }

    /// Looks up what a policy's rules name. Answers what became of those that permit nothing.
    pub fn settle(&self, policy: &mut Policy) -> Vec<String> {
        let mut said = Vec::new();
        for rule in &mut policy.allow {
            let Target::Session(place) = &mut rule.target else {
                continue;
            };
            match self.look(place) {
                Ok(name) => place.found = Some(name),
                Err(why) => said.push(format!(
                    "rule {} permits nothing in this run: {why}",
                    rule.id
                )),
            }
        }
        said
    }

    fn look(&self, place: &Place) -> Result<String, String> {
        let name = place.variable.name();
        if self.uid == 0 {
            return Err(format!(
                "a connector that runs as root takes no path from its caller; write it in the \
                 place of ${name}"
            ));
        }
        let value = self.values.iter().find(|(it, _)| *it == place.variable);
        let Some((_, value)) = value else {
            return Err(format!(
                "{name} is not set. sudo takes it away unless it is told to keep it: `Defaults \
                 env_keep += \"{name}\"` in sudoers, or `sudo --preserve-env={name}`"
            ));
        };
        place
            .settle(value, self.uid)
            .map_err(|why| format!("the caller's {name}: {why}"))
    }

    /// The caller's `XDG_RUNTIME_DIR`, where rules of the policy name sockets in it: the connector
    /// looks for them by it.
    pub fn runtime_dir(policy: &Policy) -> Option<PathBuf> {
        policy.allow.iter().find_map(|rule| match &rule.target {
            Target::Session(Place {
                variable: Variable::XdgRuntimeDir,
                rest,
                found: Some(found),
            }) => found.strip_suffix(rest.as_str()).map(PathBuf::from),
            _ => None,
        })
    }
}

/// A socket's name as a policy may have it.
fn plain(name: &str) -> Result<String, String> {
    lower::unix(name).map_err(|complaint| complaint.message)
}

/// The unix sockets among a bus's addresses, in their order: `unix:path=…` and `unix:abstract=…`.
fn bus_sockets(addresses: &str) -> impl Iterator<Item = Result<String, String>> + '_ {
    let unix = addresses
        .split(';')
        .filter_map(|address| address.strip_prefix("unix:"));
    unix.filter_map(|pairs| {
        pairs
            .split(',')
            .find_map(|pair| match pair.split_once('=')? {
                ("path", value) => Some(unescaped(value)),
                ("abstract", value) => Some(unescaped(value).map(|name| format!("@{name}"))),
                _ => None,
            })
    })
}

/// A value of a bus's address without its escapes (`%2f`).
fn unescaped(value: &str) -> Result<String, String> {
    let bad = || format!("{} is no value of a bus's address", quote(value));
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| digit.map(char::from));
        let [Some(high), Some(low)] = digits.map(|digit| digit.and_then(|it| it.to_digit(16)))
        else {
            return Err(bad());
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
#[path = "tests/session.rs"]
mod tests;
