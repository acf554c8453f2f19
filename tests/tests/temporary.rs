//! The temporary folder, which a connector shares with its caller: files for the client, links,
//! sockets of its own, and nobody who calls in.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::chown, net::UnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Confined, policy, unconfined},
    kernel::lacks,
    process::{self, Outcome},
    world::{USER, World},
};

/// The first kernel that asks programs about unix sockets.
const HOOKS: (u32, u32) = (6, 7);
const RULES: &str = "unix sockets by name";
const STEP: Duration = Duration::from_secs(30);

/// A caller with a folder for temporary files.
struct Caller {
    world: World,
    folder: PathBuf,
    script: String,
}

impl Caller {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let script = world.path("temporary.py");
        fs::write(&script, include_str!("../fixtures/temporary.py"))?;
        let folder = world.path("of-the-caller");
        fs::create_dir(&folder)?;
        chown(&folder, Some(USER), Some(USER))?;
        Ok(Self {
            script: script.display().to_string(),
            folder,
            world,
        })
    }

    fn start(&self, words: &[&str]) -> Result<Confined> {
        let mut line = vec!["/usr/bin/python3", &self.script];
        line.extend(words);
        self.world
            .agent(policy("temporary", &[]))
            .env("TMPDIR", &self.folder.display().to_string())
            .start(&line)
    }

    /// Something that runs outside as a user, in the caller's own view of the file system.
    fn outside(&self, user: u32, words: &[&str]) -> Result<Outcome> {
        let mut command = self.world.command("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={user}"))
            .args(["--clear-groups", "--"])
            .args(words);
        process::run(command, STEP)
    }

    fn reads(&self, path: &str) -> Result<String> {
        let outcome = self.outside(USER, &["cat", path])?;
        ensure!(outcome.ok(), "{path} cannot be read: {outcome:?}");
        Ok(outcome.text())
    }
}

/// The rest of a line that the connector printed.
fn said(confined: &mut Confined, word: &str) -> Result<String> {
    confined.printed(word, STEP)?;
    let out = String::from_utf8_lossy(&confined.agent.stdout()).into_owned();
    let line = out.lines().find_map(|line| line.strip_prefix(word));
    Ok(line.context("no line")?.to_owned())
}

/// While the connector lives, and after its end.
#[test]
fn a_client_opens_what_the_server_left() -> Result<()> {
    let caller = Caller::new()?;
    let mut confined = caller.start(&["leave"])?;
    let first = said(&mut confined, "path ")?;
    ensure!(
        Path::new(&first).starts_with(&caller.folder),
        "{first} is not in {}",
        caller.folder.display()
    );
    ensure!(caller.reads(&first)? == "first of the server");
    writeln!(confined.agent.stdin()?)?;
    let report = confined.wait()?;
    ensure!(report.outcome.ok(), "{report}");
    let second = report.text();
    let second = second
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("path "));
    let second = second.context("no second file")?;
    for (path, text) in [(first.as_str(), "first"), (second, "second")] {
        ensure!(caller.reads(path)? == format!("{text} of the server"));
        // What is left is the caller's, who may remove it.
        let removed = caller.outside(USER, &["rm", path])?;
        ensure!(removed.ok(), "{removed:?}");
    }
    Ok(())
}

/// A folder in which nothing was left is gone with the connector.
#[test]
fn nothing_stays_of_an_empty_folder() -> Result<()> {
    let caller = Caller::new()?;
    for words in [["links"], ["sockets"]] {
        let report = caller.start(&words)?.wait()?;
        ensure!(report.outcome.ok(), "{report}");
    }
    let report = caller
        .world
        .agent(policy("temporary", &[]))
        .env("TMPDIR", &caller.folder.display().to_string())
        .run(&["/bin/sh", "-c", "rm -r \"$(mktemp -d)\""])?;
    ensure!(report.outcome.ok(), "{report}");
    let left: Vec<_> = fs::read_dir(&caller.folder)?.flatten().collect();
    // That of the virtual environment, which nobody removed.
    ensure!(unconfined() || left.len() == 1, "{left:?}");
    Ok(())
}

#[test]
fn links_are_followed_there() -> Result<()> {
    let caller = Caller::new()?;
    let report = caller.start(&["links"])?.wait()?;
    report.ensure_printed("the environment runs")
}

#[test]
fn sockets_of_its_own_work_there() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let caller = Caller::new()?;
    let report = caller.start(&["sockets"])?.wait()?;
    report.ensure_printed("multiprocessing works")?;
    report.ensure_nothing_denied()
}

/// Neither its own user nor root; and nobody brings a socket in by another name.
#[test]
fn nobody_calls_in() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let caller = Caller::new()?;
    let mut confined = caller.start(&["listen"])?;
    let path = said(&mut confined, "socket ")?;
    let call = "import socket, sys\n\
                caller = socket.socket(socket.AF_UNIX)\n\
                caller.connect(sys.argv[1])\n\
                print(caller.recv(100).decode())";
    for user in [USER, 0] {
        let called = caller.outside(user, &["python3", "-c", call, &path])?;
        ensure!(
            called.text() != "answered" && called.stderr.contains("PermissionError"),
            "user {user} called in: {called:?}"
        );
    }
    let folder = Path::new(&path).parent().context("no folder")?;
    let stranger = caller.folder.join("stranger");
    let _stranger = UnixListener::bind(&stranger)?;
    chown(&stranger, Some(USER), Some(USER))?;
    let (stranger, inside) = (
        stranger.display().to_string(),
        folder.join("stranger").display().to_string(),
    );
    for words in [
        ["ln", &stranger, &inside],
        ["mv", &stranger, &inside],
        ["touch", &inside, &inside],
    ] {
        let tried = caller.outside(USER, &words)?;
        ensure!(!tried.ok(), "{words:?} succeeded: {tried:?}");
    }
    writeln!(confined.agent.stdin()?)?;
    let report = confined.wait()?;
    ensure!(report.outcome.ok(), "{report}");
    Ok(())
}

/// The folder's path can be led elsewhere by whoever owns the one above it; addresses in it
/// still lead to the connector's own sockets.
#[test]
fn its_path_leads_to_no_other_socket() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let caller = Caller::new()?;
    let above = caller.world.path("stranger");
    fs::create_dir(&above)?;
    let stranger = above.join("socket");
    let _stranger = UnixListener::bind(&stranger)?;
    chown(&stranger, Some(USER), Some(USER))?;
    // The world's folder is root's: one more of the user's, which can be renamed.
    let inner = caller.folder.join("inner");
    fs::create_dir(&inner)?;
    chown(&inner, Some(USER), Some(USER))?;
    let report = caller
        .world
        .agent(policy("temporary", &[]))
        .env("TMPDIR", &inner.display().to_string())
        .limit(agent::LIMIT)
        .run(&[
            "/usr/bin/python3",
            &caller.script,
            "exchange",
            &stranger.display().to_string(),
        ])?;
    report.ensure_printed("refused")
}
