//! Finds and reads configurations, each as the user whose home it lies in.
//!
//! Root reads a home with the rights of its user, so that no link in it leads to what that user
//! could not read. The way is gone on held descriptors, only regular files are opened, and no
//! more than [`MAX_BYTES`] are read. Nothing is started, written or asked.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use egress_sys::as_user;
use nix::unistd::geteuid;

use super::{
    client::{self, CLIENTS, Client},
    form::{self, Form, Unread},
    node::Node,
};
use crate::host::{
    User, calling_user,
    trust::Way,
    user::{self, UserError},
};

/// Bytes of a configuration at most. Claude Code keeps its history beside the servers.
pub const MAX_BYTES: u64 = 32 << 20;
/// Entries of a folder, and projects of a user, at most.
const MAX_ENTRIES: usize = 1_000;

/// One configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where, as it was found.
    pub path: PathBuf,
    /// Who reads it.
    pub client: Client,
    /// It holds in one project's folder alone.
    pub project: bool,
    /// Whose it is.
    pub user: User,
    /// What is in it.
    pub tree: Result<Node, Unread>,
    /// Who else could change it.
    pub others: Option<String>,
}

/// The configurations of this host's users: of all for root, otherwise the caller's own, and
/// those of the folder the caller is in.
pub fn on_host() -> io::Result<Vec<Config>> {
    let mut found = Vec::new();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.filter(|home| home.is_absolute());
    if geteuid().is_root() {
        let mut users = users()?;
        if let Some(home) = home
            && let Some(owner) = owner_of(&home)
        {
            add(&mut users, User { home, ..owner });
        }
        for user in users {
            found.extend(of_user(&user, None)?);
        }
    } else {
        let own = calling_user().map_err(io::Error::other)?;
        let home = home.unwrap_or_else(|| own.home.clone());
        let user = User { home, ..own };
        found.extend(of_user(&user, std::env::current_dir().ok().as_deref())?);
    }
    let root = user::resolve("0").map_err(io::Error::other)?;
    for client in &CLIENTS {
        let files = client
            .host
            .iter()
            .map(|file| (PathBuf::from(file), *client));
        found.extend(files.filter_map(|(file, client)| read(&file, client, &root)));
    }
    Ok(found)
}

/// One configuration that the caller names. Without the rights of root it is the caller's,
/// otherwise that of whom the file belongs to.
pub fn named(path: &Path) -> io::Result<Config> {
    let client = client::of(&path.to_string_lossy());
    let way = Way::open(path)?;
    let user = if geteuid().is_root() {
        user::resolve(&way.owner().to_string()).unwrap_or(nobody(way.owner()))
    } else {
        calling_user().map_err(io::Error::other)?
    };
    Ok(config(path, client, &user, Ok(way)))
}

/// The configurations below a user's home, those of the projects that are named in them, and
/// those of one more folder.
pub fn of_user(user: &User, folder: Option<&Path>) -> io::Result<Vec<Config>> {
    let look = || below(user, folder);
    if geteuid().is_root() {
        return as_user(user.uid, user.gid, &user.groups, look);
    }
    Ok(look())
}

fn below(user: &User, folder: Option<&Path>) -> Vec<Config> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut look = |folder: &Path, pattern: &str, client: &Client, project| {
        let files = match expand(folder, pattern) {
            Ok(files) => files,
            Err((folder, why)) => {
                return vec![unread(&folder, *client, user, why)];
            }
        };
        let files = files.into_iter().filter(|file| seen.insert(file.clone()));
        let configs = files.filter_map(|file| read(&file, *client, user));
        configs
            .map(|config| Config { project, ..config })
            .collect::<Vec<_>>()
    };
    for client in &CLIENTS {
        for pattern in client::below_home(client) {
            found.extend(look(&user.home, &pattern, client, false));
        }
    }
    let mut projects: BTreeSet<PathBuf> = found.iter().flat_map(projects).collect();
    projects.extend(folder.map(Path::to_owned));
    for project in projects {
        for client in &CLIENTS {
            for pattern in client.project {
                found.extend(look(&project, pattern, client, true));
            }
        }
    }
    found
}

/// The folders that Claude Code has been used in.
fn projects(config: &Config) -> Vec<PathBuf> {
    if !config.client.keys.contains(&"projects/*/mcpServers") {
        return Vec::new();
    }
    let projects = config.tree.iter().filter_map(|tree| tree.get("projects"));
    projects
        .flat_map(Node::entries)
        .map(|entry| PathBuf::from(&entry.key))
        .filter(|path| path.is_absolute())
        .take(MAX_ENTRIES)
        .collect()
}

/// The files that a pattern stands for; `*` is one part of a path. Errors: the folder that nobody has
/// looked through, and why.
fn expand(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, (PathBuf, &'static str)> {
    let Some((before, after)) = pattern.split_once('*') else {
        return Ok(vec![folder.join(pattern)]);
    };
    let folder = folder.join(before);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(_) => return Err((folder, "its user may not look into it")),
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())),
    };
    let Ok(mut names) = entries.take(MAX_ENTRIES + 1).collect::<Result<Vec<_>, _>>() else {
        return Err((folder, "it cannot be looked through"));
    };
    if names.len() > MAX_ENTRIES {
        return Err((
            folder,
            "it has more than 1,000 entries, and none was looked at",
        ));
    }
    names.sort();
    let after = after.trim_start_matches('/');
    if after.is_empty() {
        let known = |path: &PathBuf| {
            let end = path.extension().and_then(OsStr::to_str);
            matches!(end, Some("json" | "jsonc" | "yaml" | "yml" | "toml"))
        };
        names.retain(known);
        return Ok(names);
    }
    Ok(names.into_iter().map(|name| name.join(after)).collect())
}

fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// `None`: there is no such file.
fn read(path: &Path, client: Client, user: &User) -> Option<Config> {
    match Way::open(path) {
        Err(error) if is_absent(&error) => None,
        way => Some(config(path, client, user, way)),
    }
}

/// Something that nobody could look at.
fn unread(path: &Path, client: Client, user: &User, why: &'static str) -> Config {
    Config {
        path: path.to_owned(),
        client,
        project: false,
        user: user.clone(),
        tree: Err(Unread { line: 1, why }),
        others: None,
    }
}

fn config(path: &Path, client: Client, user: &User, way: io::Result<Way>) -> Config {
    let others = way.as_ref().ok().and_then(|way| way.open_to_others(user));
    let form = Form::of(&path.to_string_lossy());
    let whole = |why| Unread { line: 1, why };
    let tree = way
        .map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => "its user may not read it",
            io::ErrorKind::IsADirectory => "it is no regular file",
            _ => "it cannot be opened",
        })
        .and_then(|way| text(way))
        .map_err(whole)
        .and_then(|text| form::read(form, &text));
    Config {
        tree,
        others: others.map(|found| found.to_string()),
        ..unread(path, client, user, "")
    }
}

fn text(mut way: Way) -> Result<String, &'static str> {
    let mut bytes = Vec::new();
    let read = way.file().take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|_| "it cannot be read")?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err("it is larger than 32 MiB");
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8")
}

/// Everybody with a home: of the user database's file, and of /home, where a directory
/// service keeps the names. A scan that leaves somebody out would look clean: what cannot be read
/// is an error, but for names that are none (`+` of NIS, a comment).
fn users() -> io::Result<Vec<User>> {
    let mut users: Vec<User> = Vec::new();
    let passwd = std::fs::read("/etc/passwd")?;
    for line in String::from_utf8_lossy(&passwd).lines() {
        let name = line.split(':').next().unwrap_or_default();
        match user::resolve(name) {
            Ok(user) => add(&mut users, user),
            Err(UserError::NoUser(_) | UserError::Spec(_)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    let homes = match std::fs::read_dir("/home") {
        Err(error) if is_absent(&error) => return Ok(users),
        homes => homes?,
    };
    for entry in homes {
        let home = entry?.path();
        if let Some(owner) = owner_of(&home) {
            add(&mut users, User { home, ..owner });
        }
    }
    Ok(users)
}

/// Adds who has a home that is nobody else's.
fn add(users: &mut Vec<User>, user: User) {
    let bare = user.home == Path::new("/");
    if !bare && users.iter().all(|other| other.home != user.home) {
        users.push(user);
    }
}

/// The owner of a folder; `None`: it is none.
fn owner_of(folder: &Path) -> Option<User> {
    let facts = std::fs::symlink_metadata(folder).ok()?;
    if !facts.is_dir() {
        return None;
    }
    let owner = user::resolve(&facts.uid().to_string());
    Some(owner.unwrap_or_else(|_| nobody(facts.uid())))
}

/// A user whom no database knows, with no group that could give rights.
fn nobody(uid: u32) -> User {
    User {
        name: None,
        uid,
        gid: 65534,
        groups: Vec::new(),
        home: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
        unanswered: None,
    }
}
