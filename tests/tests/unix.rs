//! Unix sockets: those of a policy and the connector's own, and no others, whatever they are
//! called.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    agent::{Report, unconfined},
    attempts::Attempts,
    kernel::lacks,
    process::Running,
    token,
    world::World,
};
use nix::sys::signal::Signal;

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

/// Makes sockets at the given places, `@` for an abstract one; says what came of each.
const BINDS: &str = r#"
import os, socket, sys
for place in sys.argv[1:]:
    place = place.replace("{TMPDIR}", os.environ["TMPDIR"])
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        sock = socket.socket(socket.AF_UNIX, kind)
        try:
            sock.bind("\0" + place[1:] if place[0] == "@" else place)
            print("made", place)
            if place[0] != "@": os.unlink(place)
        except OSError as error: print(error.errno, place)
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    print("made", kind.name)
"#;
const MADE: &[&str] = &["{TMPDIR}/own", "/run/egress-agent/own", "@own"];

/// The kernel tells nobody that Landlock refused. Names of every length, since a filter sees no
/// more of an address than that: those of 14, 26 and 10 letters are as long as addresses of IPv4,
/// IPv6 and netlink.
#[test]
fn a_refused_socket_of_its_own_is_a_line() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::new()?;
    let folder = world.path("outside");
    fs::create_dir(&folder)?;
    chown(&folder, Some(NOBODY), Some(NOBODY))?;
    let mut refused: Vec<String> = [10, 14, 26, 60]
        .map(|length| {
            format!("/tmp/{:x<60}", token::new())
                .chars()
                .take(length)
                .collect()
        })
        .to_vec();
    refused.push(folder.join("s").display().to_string());
    refused.push(format!("../tmp/{}", token::new()));
    let run = |agent: egress_tests::agent::Agent<'_>| {
        let mut words = vec!["/bin/sh", "-c", "cd /tmp && exec python3 \"$@\"", "binds"];
        words.extend(["-c", BINDS]);
        words.extend(MADE);
        words.extend(refused.iter().map(String::as_str));
        agent.run(&words)
    };
    let policy = "version: 1\nconnector: unix\nallow: []\n";
    let report = run(world.agent(policy))?;
    let text = report.text();
    ensure!(text.matches("made ").count() == 8, "{report}");
    for place in &refused {
        ensure!(
            text.matches(&format!("13 {place}\n")).count() == 2,
            "{place}: {report}"
        );
        ensure!(lines(&report, "denied", place) == 1, "{place}: {report}");
    }
    ensure!(report.denials().len() == refused.len(), "{report}");
    let stopped = report.events.last().context("no events")?;
    let counted = stopped.number("denied", "unix-bind");
    ensure!(counted == 2 * refused.len() as u64, "{report}");

    let report = run(world.agent(policy).option("--audit"))?;
    let all = 2 * refused.len() + 8;
    ensure!(report.text().matches("made ").count() == all, "{report}");
    for place in &refused {
        ensure!(
            lines(&report, "would-deny", place) == 1,
            "{place}: {report}"
        );
    }
    Ok(())
}

/// Lines about a socket that was to be made at a place.
fn lines(report: &Report, kind: &str, place: &str) -> usize {
    let path = format!("\"path\":\"{place}\"");
    let events = report.events.iter().filter(|event| event.kind == kind);
    events
        .filter(|event| event.reason.as_deref() == Some("unix-bind"))
        .filter(|event| event.layer.as_deref() == Some("unix") && event.line.contains(&path))
        .count()
}

/// A session's sockets are reached by the variables that name them, where they are the user's own.
#[test]
fn sockets_of_the_callers_session() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::new()?;
    let accomplice = Accomplice::start(&world, "session", NOBODY)?;
    let folder = accomplice.folder.display().to_string();
    let at = |name: &str| format!("{folder}/{name}");
    let permitted = at("permitted.s");
    let bus = format!("unix:path=/no/such;unix:path={permitted},guid=12");
    let abstract_bus = format!("unix:abstract={permitted},guid=12");
    let (ssh, session) = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS");
    let runtime = ("$XDG_RUNTIME_DIR/permitted.s", "XDG_RUNTIME_DIR");
    let hooked = !lacks((6, 12), "abstract sockets of others");
    for (socket, variable, value, vector) in [
        ("$SSH_AUTH_SOCK", ssh, &permitted, "permitted-stream"),
        ("${SSH_AUTH_SOCK}", ssh, &permitted, "permitted-stream"),
        (
            "$DBUS_SESSION_BUS_ADDRESS",
            session,
            &bus,
            "permitted-stream",
        ),
        (runtime.0, runtime.1, &folder, "permitted-stream"),
        (
            "$DBUS_SESSION_BUS_ADDRESS",
            session,
            &abstract_bus,
            "permitted-abstract-stream",
        ),
    ] {
        if vector.contains("abstract") && !hooked {
            continue;
        }
        let token = token::new();
        let report = world
            .agent(session_rule(socket))
            .env(variable, value)
            .run(&accomplice.line(vector, &token))?;
        thread::sleep(Duration::from_millis(200));
        ensure!(accomplice.has(&token)?, "{socket} as {value}: {report}");
        report.ensure_nothing_denied()?;
        // What it leads to is permitted, and nothing beside it.
        let token = token::new();
        let other = if vector.contains("abstract") {
            "abstract-stream"
        } else {
            "stream"
        };
        let report = world
            .agent(session_rule(socket))
            .env(variable, value)
            .run(&accomplice.line(other, &token))?;
        ensure!(!accomplice.has(&token)?, "{socket} as {value}: {report}");
    }
    // The connector finds the session's folder by the variable.
    let report = world
        .agent(session_rule(runtime.0))
        .env(runtime.1, &folder)
        .run(&["/bin/sh", "-c", "echo \"<$XDG_RUNTIME_DIR>\""])?;
    report.ensure_printed(&format!("<{folder}>"))
}

/// A caller may be less trusted than the policy: what it names counts only where it is the user's.
#[test]
fn a_caller_gains_no_socket_of_somebody_else() -> Result<()> {
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::new()?;
    let accomplice = Accomplice::start(&world, "session", NOBODY)?;
    let roots = world.path("roots");
    let listener = UnixListener::bind(&roots)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&roots, fs::Permissions::from_mode(0o666))?;
    let engine = accomplice.folder.join("docker.sock");
    let engine_listener = UnixListener::bind(&engine)?;
    engine_listener.set_nonblocking(true)?;
    chown(&engine, Some(NOBODY), Some(NOBODY))?;
    let link = accomplice.folder.join("link");
    symlink(&roots, &link)?;
    let text = |path: &Path| path.display().to_string();
    let around = format!("{}/in/../../roots", text(&world.path("session")));
    for (value, user, why) in [
        (Some(text(&roots)), NOBODY, "belongs to user 0"),
        (Some(text(&link)), NOBODY, "symbolic link"),
        (Some(around), NOBODY, "no normal path"),
        (Some(text(&engine)), NOBODY, "a container engine"),
        (
            Some(text(&accomplice.folder.join("none"))),
            NOBODY,
            "is not there",
        ),
        (Some(text(&roots)), 0, "takes no path from its caller"),
        (None, NOBODY, "env_keep"),
    ] {
        let mut policy = session_rule("$SSH_AUTH_SOCK");
        policy.push_str(
            "run: { user: \"{user}\" }\n"
                .replace("{user}", &user.to_string())
                .as_str(),
        );
        let mut agent = world.agent(policy).user(Some(&user.to_string()));
        if let Some(value) = &value {
            agent = agent.env("SSH_AUTH_SOCK", value);
        }
        let report = agent.run(&[
            "python3",
            "-c",
            "import os, socket
try: socket.socket(socket.AF_UNIX).connect(os.environ.get('SSH_AUTH_SOCK', '/none'))
except OSError as error: print('refused', error.errno)
else: print('REACHED')
print('goes on')",
        ])?;
        report.ensure_printed("goes on")?;
        ensure!(!report.text().contains("REACHED"), "{value:?}: {report}");
        let told = report
            .events
            .iter()
            .any(|event| event.line.contains("\"topic\":\"session\"") && event.line.contains(why));
        ensure!(told, "{why}: {report}");
    }
    for listener in [listener, engine_listener] {
        ensure!(listener.accept().is_err(), "somebody called");
    }
    Ok(())
}

/// The launcher holds in place what leads to a rule's socket. For one that comes later nobody does:
/// it waits for the next start, and the stream says so.
#[test]
fn a_rule_that_comes_later_waits_for_the_next_start() -> Result<()> {
    const CONNECTOR: &str = "
import os, socket, sys
folder, word = sys.argv[1:]
print('up', flush=True); sys.stdin.readline()
os.unlink(f'{folder}/permitted.s')
os.symlink(f'{folder}/stranger.s', f'{folder}/permitted.s')
for name in ('permitted.s', 'permitted.q'):
    try:
        kind = socket.SOCK_STREAM if name[-1] == 's' else socket.SOCK_SEQPACKET
        with socket.socket(socket.AF_UNIX, kind) as out:
            out.connect(f'{folder}/{name}'); out.send(word.encode()); print('REACHED')
    except OSError as error: print('refused', error.errno)
";
    if lacks(HOOKS, RULES) {
        return Ok(());
    }
    let world = World::new()?;
    let accomplice = Accomplice::start(&world, "later", NOBODY)?;
    let folder = accomplice.folder.display().to_string();
    let token = token::new();
    let file = world.path("policy.yaml");
    // The control: a rule of the start comes back under another id, and holds.
    let first = session_rule(&format!("{folder}/permitted.q"));
    fs::write(&file, &first)?;
    let words = ["python3", "-c", CONNECTOR, &folder, &token];
    let mut confined = world.agent("").start_with_file(&file, &words)?;
    confined.printed("up", LIMIT)?;
    fs::write(
        &file,
        format!("{first}    id: again\n  - unix: {folder}/permitted.s\n"),
    )?;
    if !unconfined() {
        confined.agent.signal(Signal::SIGHUP)?;
    }
    let end = Instant::now() + Duration::from_secs(10);
    while !unconfined()
        && !confined
            .events()?
            .iter()
            .any(|event| event.kind == "policy")
    {
        ensure!(Instant::now() < end, "the policy was not taken");
        thread::sleep(Duration::from_millis(20));
    }
    writeln!(confined.agent.stdin()?, "go")?;
    let report = confined.wait()?;
    ensure!(report.text() == "up\nrefused 1\nREACHED\n", "{report}");
    thread::sleep(Duration::from_millis(200));
    ensure!(accomplice.has(&token)?, "the control: {report}");
    let told = report.events.iter().filter(|event| {
        event.kind == "warning" && event.line.contains("takes effect at the next start")
    });
    let told: Vec<_> = told.collect();
    ensure!(
        matches!(told.as_slice(), [one] if one.line.contains("permitted.s")),
        "{report}"
    );
    Ok(())
}

fn session_rule(socket: &str) -> String {
    format!("version: 1\nconnector: unix\nmode: enforce\nallow:\n  - unix: {socket}\n")
}
