//! Unix sockets: those of a policy and the connector's own, and no others, whatever they are
//! called.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use egress_tests::{
    agent::unconfined, attempts::Attempts, kernel::lacks, process::Running, token, world::World,
};

/// The first kernel that asks programs about unix sockets.
const HOOKS: (u32, u32) = (6, 7);
const RULES: &str = "unix sockets by name";
const LIMIT: Duration = Duration::from_secs(120);
const NOBODY: u32 = 65534;

/// Every way to the stranger's sockets. The last ones change what is there, and stand last.
const VECTORS: &[&str] = &[
    "stream",
    "dgram",
    "seqpacket",
    "abstract-stream",
    "abstract-dgram",
    "abstract-seqpacket",
    "dgram-sendto",
    "dgram-sendmsg",
    "dgram-other",
    "relative",
    "cwd",
    "fd",
    "root",
    "slashes",
    "symlink",
    "symlink-folder",
    "symlink-magic",
    "dotdot",
    "dotdot-hidden",
    "hard-link",
    "moved",
    "callback",
    "passed-on",
    "exchange-own",
    "exchange",
    "exchange-removed",
    "exchange-folder",
];
/// The same to sockets that the policy names.
const CONTROLS: &[&str] = &[
    "permitted-stream",
    "permitted-dgram",
    "permitted-seqpacket",
    "permitted-dgram-sendto",
    "permitted-dgram-sendmsg",
];
const ABSTRACT_CONTROLS: &[&str] = &["permitted-abstract-stream", "permitted-abstract-dgram"];

/// An accomplice outside, as the connector's own user, in a folder of that user.
struct Accomplice {
    folder: PathBuf,
    log: PathBuf,
    script: String,
    _server: Running,
}

impl Accomplice {
    fn start(world: &World, name: &str, uid: u32) -> Result<Self> {
        let outer = world.path(name);
        let folder = outer.join("in");
        let log = outer.join("log");
        let script = world.path("unix.py");
        fs::write(&script, include_str!("../fixtures/unix.py"))?;
        fs::create_dir_all(&folder)?;
        for path in [&outer, &folder] {
            chown(path, Some(uid), Some(uid))?;
        }
        let mut command = world.command("setpriv");
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={uid}"))
            .args(["--clear-groups", "--"])
            .args(["python3", &script.display().to_string(), "serve"])
            .args([&folder, &log]);
        let server = Running::start(command, LIMIT)?;
        let end = Instant::now() + Duration::from_secs(10);
        while !String::from_utf8_lossy(&server.stdout()).contains("serving") {
            ensure!(
                Instant::now() < end,
                "the accomplice says {}",
                server.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            folder,
            log,
            script: script.display().to_string(),
            _server: server,
        })
    }

    fn line(&self, vector: &str, token: &str) -> Vec<String> {
        let folder = self.folder.display().to_string();
        ["python3", &self.script, "try", vector, &folder, token]
            .map(str::to_owned)
            .to_vec()
    }

    fn has(&self, token: &str) -> Result<bool> {
        Ok(fs::read_to_string(&self.log)?.contains(token))
    }

    /// Rules for the sockets called `permitted`.
    fn policy(&self, abstracts: bool) -> String {
        let mut text = "version: 1\nconnector: unix\nmode: enforce\nallow:\n".to_owned();
        for letter in ["s", "d", "q"] {
            let path = self.folder.join(format!("permitted.{letter}"));
            text.push_str(&format!("  - unix: {}\n", path.display()));
            if abstracts {
                text.push_str(&format!("  - unix: \"@{}\"\n", path.display()));
            }
        }
        text
    }
}

/// What became of a try: vector, whether it arrived, what the program said.
type Fate = (&'static str, bool, String);

/// Tries every vector in one run.
fn tries(
    world: &World,
    accomplice: &Accomplice,
    policy: &str,
    user: u32,
    vectors: &[&'static str],
    free: bool,
) -> Result<(Vec<Fate>, Attempts)> {
    let tokens: Vec<String> = vectors.iter().map(|_| token::new()).collect();
    let commands: Vec<_> = vectors
        .iter()
        .zip(&tokens)
        .map(|(vector, token)| (*vector, accomplice.line(vector, token)))
        .collect();
    let agent = world.agent(policy).limit(LIMIT);
    let agent = agent.user(Some(&user.to_string()));
    let agent = if free { agent.free() } else { agent };
    let done = agent.attempts(&commands)?;
    thread::sleep(Duration::from_millis(200));
    let fates = vectors
        .iter()
        .zip(&tokens)
        .zip(&done.all)
        .map(|((vector, token), attempt)| {
            Ok((*vector, accomplice.has(token)?, attempt.output.clone()))
        })
        .collect::<Result<_>>()?;
    Ok((fates, done))
}

fn holds(scoped: bool, user: u32) -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::alone()?;
    let inside = Accomplice::start(&world, "inside", user)?;
    let mut policy = inside.policy(!scoped);
    if user == 0 {
        policy.push_str("run:\n  user: root\n");
    }
    let mut controls = CONTROLS.to_vec();
    if !scoped {
        controls.extend(ABSTRACT_CONTROLS);
    }
    let order: Vec<&'static str> = controls.iter().chain(VECTORS).copied().collect();
    let (confined, done) = tries(&world, &inside, &policy, user, &order, unconfined())?;
    let outside = Accomplice::start(&world, "outside", user)?;
    let (free, _) = tries(&world, &outside, &policy, user, VECTORS, true)?;
    let mut faults = Vec::new();
    for (vector, arrived, said) in &confined {
        if *arrived != controls.contains(vector) {
            faults.push(format!("{vector}: arrived: {arrived}, {said}"));
        }
    }
    for (vector, arrived, said) in &free {
        // Proves nothing where it does not work without the agent either.
        if !arrived {
            faults.push(format!("{vector} does not even work unconfined: {said}"));
        }
    }
    ensure!(faults.is_empty(), "{}\n{}", faults.join("\n"), done.report);
    Ok(())
}

#[test]
fn nothing_but_named_paths() -> Result<()> {
    holds(true, NOBODY)
}

#[test]
fn nothing_but_named_paths_as_root() -> Result<()> {
    holds(true, 0)
}

#[test]
fn nothing_but_named_paths_and_abstract_names() -> Result<()> {
    holds(false, NOBODY)
}

#[test]
fn programs_keep_their_own_sockets() -> Result<()> {
    keep_their_own(&["multiprocessing", "pair", "path", "abstract", "autobind"])
}

#[test]
fn node_keeps_its_own_sockets() -> Result<()> {
    keep_their_own(&["node"])
}

fn keep_their_own(what: &[&str]) -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::alone()?;
    let script = world.path("unix.py");
    fs::write(&script, include_str!("../fixtures/unix.py"))?;
    let script = script.display().to_string();
    let commands: Vec<_> = what
        .iter()
        .map(|what| {
            (
                *what,
                ["python3", &script, "own", what]
                    .map(str::to_owned)
                    .to_vec(),
            )
        })
        .collect();
    let policy = "version: 1\nconnector: unix\nmode: enforce\nallow: []\n";
    let done = world.agent(policy).limit(LIMIT).attempts(&commands)?;
    for attempt in &done.all {
        ensure!(attempt.output.contains("WORKS"), "{attempt:?}");
    }
    Ok(())
}

#[test]
fn a_denial_names_the_socket() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::alone()?;
    let accomplice = Accomplice::start(&world, "outside", NOBODY)?;
    let line = accomplice.line("stream", &token::new());
    let report = world.agent(accomplice.policy(false)).run(&line)?;
    let stranger = accomplice.folder.join("stranger.s").display().to_string();
    let found = report.denials().into_iter().any(|event| {
        event.layer.as_deref() == Some("unix")
            && event.reason.as_deref() == Some("unix-path")
            && event.protocol.as_deref() == Some("stream")
            && event.line.contains(&format!("\"path\":\"{stranger}\""))
    });
    ensure!(found, "{report}");
    Ok(())
}

/// A rule whose path the connector has led elsewhere before is no rule.
#[test]
fn a_rule_that_cannot_hold_is_refused() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::alone()?;
    let accomplice = Accomplice::start(&world, "outside", NOBODY)?;
    let link = accomplice.folder.join("link");
    symlink(accomplice.folder.join("stranger.s"), &link)?;
    for path in [link, accomplice.folder.join("missing")] {
        let report = world.agent(rule(&path)).run(&["true"])?;
        ensure!(
            report.code() == 125 && report.outcome.stderr.contains("cannot hold"),
            "{report}"
        );
    }
    Ok(())
}

fn rule(path: &Path) -> String {
    format!(
        "version: 1\nconnector: unix\nmode: enforce\nallow:\n  - unix: {}\n",
        path.display()
    )
}
