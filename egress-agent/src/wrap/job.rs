//! The whole way: each configuration's servers, their policies, and the file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use similar::TextDiff;

use super::{
    back::take,
    front::{Front, put},
    place::{Which, all},
    refused::Refused,
    starting,
    write::{Held, as_owner, create},
};
use crate::{
    host::User,
    policy::{self, model::Mode},
    scan::{
        find::Config,
        form::{self, Form},
        node::Node,
        pinned::origin,
        program::{base, understand},
        server::Server,
    },
};

/// Servers of one file at most: after each the file is read anew.
const MAX_SERVERS: usize = 500;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Servers by their names; none: all of them.
    pub servers: &'a [String],
    /// The connector's name, in place of the one made from the server's.
    pub name: Option<&'a str>,
    /// Folder of policies.
    pub policies: &'a Path,
    /// Change nothing.
    pub dry_run: bool,
}

/// What became of one server.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its name in the file.
    pub server: String,
    /// The connector's name.
    pub connector: Option<String>,
    /// What was done.
    pub outcome: Outcome,
    /// Its policy, where the agent was put in front.
    pub policy: Option<Made>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The agent is in front now.
    Wrapped,
    /// It is not any more. `false`: the layout is not the one from before.
    Unwrapped(bool),
    /// It was so already.
    Already,
    /// It is reached by its address, and nothing is started.
    Remote,
    /// Left as it is, and why.
    Left(String),
}

/// A server's policy.
#[derive(Clone, Debug)]
pub struct Made {
    /// The file.
    pub file: PathBuf,
    /// It was there before.
    pub kept: bool,
    /// Made from this ready policy.
    pub ready: Option<&'static str>,
    /// What was put there.
    pub mode: Mode,
}

/// What became of one file.
#[derive(Debug)]
pub struct FileDone {
    /// Servers, in the order of the file.
    pub servers: Vec<Done>,
    /// The change, as a unified diff; empty: none.
    pub diff: String,
    /// Why the file could not be written or read.
    pub failed: Option<String>,
}

/// Connectors' names of this call, with what each starts.
pub type Names = BTreeMap<String, String>;

/// Puts the agent in front of the servers of one file.
pub fn wrap(config: &Config, wanted: &Wanted<'_>, names: &mut Names) -> FileDone {
    change(config, wanted, |form, text, which, server| {
        front(form, text, which, server, wanted, names)
    })
}

/// Takes it away again.
pub fn unwrap(config: &Config, wanted: &Wanted<'_>) -> FileDone {
    change(config, wanted, |form, text, which, server| {
        let program = understand(&texts(server));
        let mut done = Done::of(server, Outcome::Already);
        if server.words.is_empty() {
            done.outcome = Outcome::Remote;
        } else if program.agent.is_some() {
            match take(form, text, which) {
                Ok(back) => {
                    done.outcome = Outcome::Unwrapped(back.exact);
                    done.connector = Some(back.connector);
                    *text = back.text;
                }
                Err(refused) => done.outcome = Outcome::Left(refused.to_string()),
            }
        }
        done
    })
}

impl Done {
    fn of(server: &Server, outcome: Outcome) -> Self {
        Self {
            server: server.name.clone(),
            connector: None,
            outcome,
            policy: None,
        }
    }
}

fn texts(server: &Server) -> Vec<String> {
    server.words.iter().map(|word| word.text.clone()).collect()
}

fn front(
    form: Form,
    text: &mut String,
    which: Which,
    server: &Server,
    wanted: &Wanted<'_>,
    names: &mut Names,
) -> Done {
    let words = texts(server);
    let program = understand(&words);
    let origin = origin(&program.words);
    let left = |why: &str| Done::of(server, Outcome::Left(why.to_owned()));
    if words.is_empty() {
        return Done::of(server, Outcome::Remote);
    }
    if program.agent.is_some() {
        return Done::of(server, Outcome::Already);
    }
    if origin.container {
        return left(
            "the server is a process of the container engine, which the agent here would not \
             confine; start the agent inside, or the server without a container",
        );
    }
    if let Some(first) = words
        .first()
        .filter(|word| matches!(base(word), "sudo" | "doas"))
    {
        let why = format!(
            "a confined program cannot raise its rights by {}; take it out of the command",
            base(first)
        );
        return left(&why);
    }
    let made = wanted.name.map(str::to_owned);
    let Some(connector) = made.or_else(|| starting::connector(&server.name)) else {
        return left("no name for a connector can be made of its name; give one with --name");
    };
    let starts = match origin.packages.first() {
        Some(package) => package.name.clone(),
        None => program
            .words
            .iter()
            .take(2)
            .map(|word| base(word))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let known = names
        .entry(connector.clone())
        .or_insert_with(|| starts.clone());
    if *known != starts {
        return left(&format!(
            "{connector} is the connector of another server; give this one a name with --name"
        ));
    }
    let front = Front {
        agent: "egress-agent",
        connector: &connector,
    };
    let new = match put(form, text, which, front) {
        Ok(new) => new,
        Err(refused) => return left(&refused.to_string()),
    };
    let shown = match origin.packages.first() {
        Some(package) => package.name.clone(),
        None => program
            .words
            .first()
            .map_or("", |word| base(word))
            .to_owned(),
    };
    let start = starting::policy(&connector, &shown, &program.words);
    match policy_of(&connector, start, wanted) {
        Ok(policy) => {
            *text = new;
            Done {
                connector: Some(connector),
                policy: Some(policy),
                ..Done::of(server, Outcome::Wrapped)
            }
        }
        Err(error) => left(&format!(
            "its policy cannot be written to {}: {error}; name a folder with --policies",
            wanted.policies.display()
        )),
    }
}

/// Makes a policy where the connector has none: before the agent asks for it.
fn policy_of(connector: &str, start: starting::Starting, wanted: &Wanted<'_>) -> io::Result<Made> {
    let mut made = Made {
        file: wanted.policies.join(format!("{connector}.yaml")),
        kept: false,
        ready: start.ready,
        mode: start.mode,
    };
    let there = wanted.policies.is_dir();
    if there && let Ok(found) = policy::find(wanted.policies, connector) {
        made.file.clone_from(&found.policy.source);
        made.kept = true;
        made.mode = found.policy.mode;
    } else if made.file.symlink_metadata().is_ok() {
        made.kept = true;
    } else if !wanted.dry_run {
        made.kept = !create(&made.file, &start.text)?;
    }
    if made.kept {
        made.ready = None;
    }
    Ok(made)
}

/// Changes one file, server by server, as the user it belongs to.
fn change(
    config: &Config,
    wanted: &Wanted<'_>,
    mut each: impl FnMut(Form, &mut String, Which, &Server) -> Done,
) -> FileDone {
    let mut done = FileDone {
        servers: Vec::new(),
        diff: String::new(),
        failed: None,
    };
    let result = read(config).and_then(|(held, form, tree)| {
        let before = held.text()?.to_owned();
        let mut text = before.clone();
        let mut servers = all(&tree, &config.client);
        servers.retain(|(_, server)| wants(wanted, &server.name));
        if servers.len() > MAX_SERVERS {
            return Err(io::Error::other(
                "it has more than 500 servers; name those that are meant",
            ));
        }
        for (which, server) in servers {
            done.servers.push(each(form, &mut text, which, &server));
        }
        if text == before {
            return Ok(());
        }
        let path = config.path.display().to_string();
        done.diff = TextDiff::from_lines(before.as_str(), text.as_str())
            .unified_diff()
            .header(&path, &path)
            .to_string();
        match wanted.dry_run {
            true => Ok(()),
            false => as_owner(&config.user, || held.replace(&text)),
        }
    });
    done.failed = result.err().map(|error| error.to_string());
    done
}

fn wants(wanted: &Wanted<'_>, server: &str) -> bool {
    wanted.servers.is_empty() || wanted.servers.iter().any(|name| name == server)
}

/// Reads a file to change it. Root changes nothing of its own that a link or folder of somebody
/// else's led to.
fn read(config: &Config) -> io::Result<(Held, Form, Node)> {
    let held = as_owner(&config.user, || Held::open(&config.path))?;
    if let Some(others) = theirs(&held, &config.user) {
        return Err(io::Error::other(format!(
            "{others}, and could lead root to another file; name the file itself"
        )));
    }
    let form = Form::of(&config.path.to_string_lossy());
    let tree = form::read(form, held.text()?).map_err(|unread| {
        let refused = Refused::Unread;
        io::Error::other(format!("{refused}: line {}: {}", unread.line, unread.why))
    })?;
    Ok((held, form, tree))
}

fn theirs(held: &Held, user: &User) -> Option<String> {
    let root = user.is_root() && nix::unistd::geteuid().is_root();
    let found = root.then(|| held.way().open_to_others(user)).flatten();
    found.map(|found| found.to_string())
}
