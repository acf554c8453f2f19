//! Each connector lives apart: processes, limits, terminals and devices are its own, and it ends
//! with whoever started it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, Report, policy},
    event::Denial,
    process::{self, Running, patience},
    programs,
    world::{USER, World},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What a caller's end may take: two seconds are the connector's.
const FAREWELL: Duration = Duration::from_secs(4);
const HOST: &str = "run: { processes: host }\n";

fn bash(script: &str) -> [&str; 3] {
    ["/bin/bash", "-c", script]
}

fn run(world: &World, extra: &str, script: &str) -> Result<Report> {
    let policy = format!("{}{extra}", policy("apart", &[]));
    world.agent(policy).run(&bash(script))
}

/// What a program does with its own processes works as anywhere.
#[test]
fn own_processes_are_seen_signalled_and_limited() -> Result<()> {
    let world = World::new()?;
    let script = "set -e
        sleep 60 & child=$!
        kill -0 $child
        prlimit --pid $child --core=0:0 --nofile=50:50
        prlimit --pid $$ --nofile=60:60
        renice -n 3 -p $child >/dev/null
        taskset -p 1 $child >/dev/null
        ionice -c 3 -p $child
        grep -q sleep /proc/$child/comm
        ps -o pid=,comm= -e | sort -n | tr -s ' \n' ' '
        kill -TERM $child; wait $child || echo ended $?";
    let report = run(&world, "", script)?;
    report.ensure_printed("ended 143")?;
    report.ensure_printed("1 egress-init 2 bash 3 sleep")?;
    report.ensure_nothing_denied()
}

/// Process 1 is not the connector's: it cannot be ended, opened or limited to death unnoticed.
#[test]
fn the_init_is_out_of_reach() -> Result<()> {
    let world = World::new()?;
    let script = "for signal in KILL STOP TERM USR1; do kill -$signal 1 2>/dev/null; done
        for file in fd/0 fd/1 mem maps environ root/etc/passwd exe; do
            head -c 1 /proc/1/$file >/dev/null 2>&1 && echo opened $file
            (: >> /proc/1/$file) 2>/dev/null && echo opened $file to write
            readlink /proc/1/$file
        done
        grep -E '^(Uid|CapPrm|CapBnd):' /proc/1/status; echo still here; exit 9";
    for user in [USER.to_string(), "0".to_owned()] {
        let policy = policy("init", &[]);
        let report = world.agent(policy).user(Some(&user)).run(&bash(script))?;
        ensure!(report.code() == 9, "{user}: {report}");
        let text = report.text();
        ensure!(text.contains("still here"), "{user}: {report}");
        ensure!(
            !text.contains("opened") && !text.contains("pipe"),
            "{report}"
        );
        ensure!(
            text.contains("CapPrm:\t0000000000000000"),
            "{user}: {report}"
        );
    }
    Ok(())
}

/// There will be a thousand of them.
#[test]
fn the_init_is_small() -> Result<()> {
    let world = World::new()?;
    let mut confined = world
        .agent(policy("small", &[]))
        .start(&bash("echo up; read line"))?;
    confined.printed("up", agent::LIMIT)?;
    let events = confined.events()?;
    let started = events.iter().find(|event| event.kind == "started");
    let pid = started.and_then(|event| event.rest.get("pid"));
    let status = fs::read_to_string(format!("/proc/{}/status", pid.context("no pid")?))?;
    let init = number(&status, "PPid:")?;
    let memory = fs::read_to_string(format!("/proc/{init}/smaps_rollup"))?;
    let (rss, pss) = (number(&memory, "Rss:")?, number(&memory, "Pss:")?);
    ensure!(rss <= 2048 && pss <= 300, "{rss} KiB RSS, {pss} KiB PSS");
    let tasks = fs::read_dir(format!("/proc/{init}/task"))?.count();
    ensure!(tasks == 1, "{tasks} threads");
    Ok(())
}

fn number(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.context(key.to_owned())?.parse().context("no number")
}

/// Two connectors of one user know nothing of each other.
#[test]
fn two_connectors_do_not_see_each_other() -> Result<()> {
    let world = World::new()?;
    let mut one = world.agent(policy("one", &[])).start(&bash(
        "exec -a marked-process sleep 60 & echo up; read line",
    ))?;
    one.printed("up", agent::LIMIT)?;
    let look = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo looked";
    let other = run(&world, "", look)?;
    other.ensure_printed("looked")?;
    ensure!(!other.text().contains("marked-process"), "{other}");
    let host = run(&world, HOST, look)?;
    ensure!(
        host.text().contains("marked-process"),
        "the control sees it: {host}"
    );
    Ok(())
}

/// `run.processes: host`: shown as open; limits of others and, from Linux 6.12 on, signals stay
/// refused.
#[test]
fn the_hosts_processes_only_where_the_policy_asks() -> Result<()> {
    let world = World::new()?;
    let script = |pid: i32| {
        format!(
            "grep -q . /proc/{pid}/cmdline && echo seen
             prlimit --pid {pid} --core=0:0 2>/dev/null && echo limited
             kill -CONT {pid} 2>/dev/null && echo signalled
             ulimit -n 60 && sleep 60 & kill $! && echo own"
        )
    };
    let mut command = world.command("setpriv");
    let user = format!("--reuid={USER}");
    command.args([&user, "--clear-groups", "sleep", "60"]);
    let outsider = Running::start(command, agent::LIMIT)?;
    let pid = outsider.pid().as_raw();
    let report = run(&world, HOST, &script(pid))?;
    let text = report.text();
    ensure!(text.contains("seen") && text.contains("own"), "{report}");
    ensure!(!text.contains("limited"), "{report}");
    report.ensure_denied(&call("foreign-process", "prlimit64"))?;
    let layers = report.events.iter().find(|event| event.kind == "layers");
    let layers = layers.map(|event| event.line.clone()).unwrap_or_default();
    ensure!(layers.contains("\"layer\":\"processes\""), "{report}");
    let scoped = layers
        .split("missing")
        .next()
        .is_some_and(|it| it.contains("signal-scope"));
    ensure!(text.contains("signalled") != scoped, "{report}");
    let told = |topic: &str| report.events.iter().any(|event| event.line.contains(topic));
    ensure!(told("\"topic\":\"open\""), "{report}");

    let report = run(&world, "", &script(pid))?;
    ensure!(report.text().trim() == "own", "{report}");
    report.ensure_nothing_denied()?;
    let policy = format!("{}{HOST}require: [processes]\n", policy("apart", &[]));
    let report = world.agent(policy).run(&["true"])?;
    ensure!(report.code() == 125, "{report}");
    Ok(())
}

fn call(reason: &'static str, _name: &str) -> Denial {
    Denial::default().by(&["seccomp"]).because(&[reason])
}

/// Terminals, shared memory and the harmless devices are there; nothing else is.
#[test]
fn the_devices_are_few_and_work() -> Result<()> {
    let world = World::new()?;
    let script = "ls /dev | tr '\\n' ' '; echo
        head -c 8 /dev/urandom | wc -c; head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null
        echo y 2>/dev/full >/dev/full || echo full
        echo z > /dev/shm/own && cat /dev/shm/own /dev/fd/0 < /dev/shm/own
        /usr/bin/python3 -c 'import multiprocessing as m; print(m.Pool(2).map(abs, [-7, 8]))'";
    for user in [USER.to_string(), "0".to_owned()] {
        let agent = world.agent(policy("devices", &[])).user(Some(&user));
        let report = agent.run(&bash(script))?;
        let text = report.text();
        let first = text.lines().next().unwrap_or_default();
        let expected = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ";
        ensure!(first == expected, "{user}: {first}: {report}");
        for word in ["8\n", "00 00 00 00", "full", "z\nz\n", "[7, 8]"] {
            ensure!(text.contains(word), "{user}: no {word}: {report}");
        }
    }
    Ok(())
}

/// A shell with job control on a terminal of its own, as editors and agents start one.
#[test]
fn job_control_works_on_an_own_terminal() -> Result<()> {
    let world = World::new()?;
    let script = "import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv('/bin/bash', ['bash', '--norc', '-i'])
os.write(fd, b'tty; sleep 60 &\\njobs; fg %1\\n')
import time; time.sleep(1); os.write(fd, b'\\x1a'); time.sleep(1)
os.write(fd, b'jobs; bg; kill %1; echo done-$((40+2)); exit\\n')
said = b''
try:
    while True: said += os.read(fd, 4096)
except OSError: pass
sys.stdout.write(said.decode())";
    let report = world
        .agent(policy("terminal", &[]))
        .run(&["/usr/bin/python3", "-c", script])?;
    for word in ["/dev/pts/0", "Running", "Stopped", "done-42"] {
        ensure!(report.text().contains(word), "no {word}: {report}");
    }
    ensure!(!report.text().contains("no job control"), "{report}");
    Ok(())
}

/// A device that a policy names is there; nodes elsewhere cannot be opened.
#[test]
fn other_devices_only_where_the_policy_names_them() -> Result<()> {
    let world = World::new()?;
    let node = world.path("node");
    let mut command = world.command("mknod");
    command.args(["-m", "666"]).arg(&node).args(["c", "1", "5"]);
    process::must(command, Duration::from_secs(10))?;
    let script = format!(
        "head -c 1 {} >/dev/null 2>&1 && echo node; ls -d /dev/loop-control /dev/net 2>/dev/null; echo end",
        node.display()
    );
    let free = world
        .agent(policy("devices", &[]))
        .free()
        .run(&bash(&script))?;
    free.ensure_printed("node")?;
    let closed = run(&world, "", &script)?;
    ensure!(closed.text().trim() == "end", "{closed}");
    let given = run(&world, "run: { devices: [/dev/net] }\n", &script)?;
    ensure!(given.text().contains("/dev/net"), "{given}");
    let told = given
        .events
        .iter()
        .any(|event| event.line.contains("run.devices"));
    ensure!(told, "{given}");
    let missing = run(
        &world,
        "run: { devices: [/dev/no-such-device] }\n",
        "echo started",
    )?;
    ensure!(missing.code() == 125, "{missing}");
    ensure!(
        missing.outcome.stderr.contains("/dev/no-such-device"),
        "{missing}"
    );
    Ok(())
}

/// Whoever started the agent is killed; the server looks at neither its input nor its signals.
#[test]
fn nothing_outlives_its_caller() -> Result<()> {
    let world = World::alone()?;
    let deaf = "trap '' TERM INT HUP; echo up; while :; do sleep 0.2; done";
    // The agent's parent, and the parent of a shell that only waits for it.
    for line in ["\"$@\"; true", "bash -c '\"$@\"; true' shell \"$@\"; true"] {
        let client = client(&world, line, deaf)?;
        kill(client.pid(), Signal::SIGKILL)?;
        let end = Instant::now() + FAREWELL * patience();
        while agent_of(&world)?.is_some() {
            ensure!(
                Instant::now() < end,
                "{line}: the agent outlives its caller"
            );
            thread::sleep(Duration::from_millis(20));
        }
        drop(client);
        let left = world.processes()?;
        ensure!(left.is_empty(), "{line}: left: {left:?}");
    }
    // One that was told to outlive its caller does.
    let client = client(&world, "nohup \"$@\" 2>/dev/null; true", deaf)?;
    let agent = agent_of(&world)?.context("no agent")?;
    kill(client.pid(), Signal::SIGKILL)?;
    thread::sleep(FAREWELL);
    ensure!(agent_of(&world)? == Some(agent), "it ended with its caller");
    kill(agent, Signal::SIGKILL)?;
    Ok(())
}

fn client(world: &World, line: &str, server: &str) -> Result<Running> {
    let file = world.path("policy.yaml");
    fs::write(&file, policy("caller", &[]))?;
    let mut command = world.command("/bin/bash");
    command.args(["-c", line, "client"]).arg(programs::agent()?);
    command
        .args(["run", "--user", &USER.to_string(), "--policy"])
        .arg(&file);
    command.args(["--", "/bin/bash", "-c", server]);
    let client = Running::start(command, agent::LIMIT)?;
    let end = Instant::now() + agent::LIMIT;
    while !String::from_utf8_lossy(&client.stdout()).contains("up") {
        ensure!(
            Instant::now() < end,
            "it does not start: {}",
            client.stderr()
        );
        thread::sleep(Duration::from_millis(10));
    }
    Ok(client)
}

/// The agent that runs in the world, which has one at most.
fn agent_of(world: &World) -> Result<Option<Pid>> {
    Ok(world.processes()?.into_iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "egress-agent")
    }))
}

/// `stopped` has the code that the caller got.
#[test]
fn the_summary_has_the_callers_exit_code() -> Result<()> {
    let world = World::new()?;
    for (script, signal) in [
        ("exit 7", None),
        ("kill -TERM $$", Some(15)),
        ("kill -KILL $$", Some(9)),
        ("exec /no/such/program", None),
    ] {
        let report = run(&world, "", script)?;
        let stopped = report.events.last().context("no events")?;
        let exit = stopped.rest.get("exit").context("no exit")?;
        let of = |key: &str| exit.get(key).and_then(serde_json::Value::as_i64);
        ensure!(
            of("code") == Some(report.code().into()),
            "{script}: {report}"
        );
        ensure!(of("signal") == signal, "{script}: {report}");
    }
    let report = world
        .agent(policy("apart", &[]))
        .run(&["/no/such/program"])?;
    let stopped = report.events.last().context("no events")?;
    ensure!(
        report.code() == 127 && stopped.line.contains("\"code\":127"),
        "{report}"
    );
    Ok(())
}

/// A user whom no file of the host knows but its directory: here a record of systemd's, which root
/// alone reads, as others are asked for over sockets that a connector does not reach.
#[test]
fn a_user_of_a_directory_is_known_inside() -> Result<()> {
    const DIRECTORY: &str = r#"exec unshare --mount /bin/bash -c '
        set -e
        mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work
        mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
        sed -i "s/^\(passwd\|group\):.*/\1: files systemd/" /etc/nsswitch.conf
        mkdir /etc/userdb; umask 077
        echo "{\"userName\":\"dana\",\"uid\":70001,\"gid\":70002,\"homeDirectory\":\"/var/empty\",\"shell\":\"/bin/sh\"}" >/etc/userdb/dana.user
        echo "{\"groupName\":\"staff-x\",\"gid\":70002}" >/etc/userdb/staff-x.group
        ln -s dana.user /etc/userdb/70001.user; ln -s staff-x.group /etc/userdb/70002.group
        exec "$@"' directory "$@""#;
    let world = World::new()?;
    let script = "id -un; id -gn; whoami; getent passwd dana | cut -d: -f3-
        /usr/bin/python3 -c 'import os, pwd; print(pwd.getpwuid(os.getuid()).pw_dir)'
        ssh -G host >/dev/null && echo ssh knows
        grep -c . /etc/passwd; test -w /etc/passwd || echo read-only";
    let agent = world.agent(policy("directory", &[])).behind(DIRECTORY);
    let report = agent.user(Some("dana")).run(&bash(script))?;
    let entry = "70001:70002::/var/empty:/bin/sh";
    for line in ["dana\nstaff-x\ndana\n", entry, "ssh knows", "read-only"] {
        report.ensure_printed(line)?;
    }
    // Nobody else's view has changed.
    let host = fs::read_to_string("/etc/passwd")?;
    ensure!(!host.contains("dana"), "the host's file was changed");
    let lines = host.lines().count() + 1;
    report.ensure_printed(&format!("\n{lines}\n"))?;
    // By number, and one whom nobody knows.
    let agent = world.agent(policy("directory", &[])).behind(DIRECTORY);
    let report = agent.user(Some("70001")).run(&bash("id -un"))?;
    report.ensure_printed("dana")?;
    let agent = world.agent(policy("directory", &[]));
    let report = agent
        .user(Some("70009:70009"))
        .run(&bash("id -u; id -un"))?;
    ensure!(
        report.text() == "70009\n70009\n" || report.text() == "70009\n",
        "{report}"
    );
    Ok(())
}
