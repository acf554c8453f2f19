//! What the agent inherits from its caller does not end it, and the connector gets it back.

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{self, Report, policy},
    faults::{Tries, rules},
    leftovers::Leftovers,
    world::World,
    zone,
};

/// What a program sees of it, on one line.
const SEEN: &str = "python3 -c 'import os, resource as r, signal as s\n\
    names = [n for n in dir(r) if n.startswith(\"RLIMIT_\") and n != \"RLIMIT_OFILE\"]\n\
    state = open(\"/proc/self/status\").read().split(\"\\n\")\n\
    signals = [l.replace(\"\\t\", \"\") for l in state if l[:6] in (\"SigBlk\", \"SigIgn\")]\n\
    mask = os.umask(0)\n\
    print([(n, r.getrlimit(getattr(r, n))) for n in names], signals, oct(mask), os.nice(0))'";

/// A line of the caller's shell before the agent starts.
const CALLERS: [(&str, &str); 8] = [
    ("nothing", "true"),
    ("small files", "ulimit -f 64"),
    (
        "soft limits",
        "ulimit -S -n 100 -s 4096 -u 4000 -i 100 -l 64 -c 10",
    ),
    ("a mask of files", "umask 0777"),
    (
        "nohup, and children that are not waited for",
        "trap '' HUP CHLD INT QUIT",
    ),
    ("ignored signals", "trap '' USR1 USR2 ALRM XFSZ XCPU TERM"),
    ("another priority", "renice -n 7 $$ >/dev/null"),
    (
        "a folder that is gone",
        "mkdir /tmp/gone-$$ && cd /tmp/gone-$$ && rmdir /tmp/gone-$$",
    ),
];

/// Puts a line before the agent, by a language that leaves signals as they are.
fn behind(line: &str) -> String {
    format!("{line}; exec \"$@\"")
}

#[test]
fn the_connector_has_what_its_caller_gave() -> Result<()> {
    let world = World::new()?;
    for (what, line) in CALLERS {
        let script = format!("exec {SEEN}");
        let words = ["/bin/bash", "-c", &script];
        let confined = world
            .agent(policy("inherited", &[]))
            .behind(&behind(line))
            .run(&words)?;
        let free = world
            .agent(policy("inherited", &[]))
            .free()
            .behind(&behind(line))
            .run(&words)?;
        ensure!(free.outcome.ok(), "{what}: {free}");
        ensure!(confined.outcome.ok(), "{what}: {confined}");
        ensure!(
            confined.text() == free.text(),
            "{what}: {}\nwithout the agent: {}",
            confined.text(),
            free.text()
        );
    }
    Ok(())
}

/// Blocked signals, which no shell can set, and a timer that is running out.
#[test]
fn blocked_signals_and_timers_end_nobody() -> Result<()> {
    let world = World::new()?;
    let line = "exec python3 -c 'import os, signal, sys\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1, 40])\n\
        signal.setitimer(signal.ITIMER_REAL, 1)\n\
        signal.setitimer(signal.ITIMER_PROF, 0.05)\n\
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)\n\
        os.execvp(sys.argv[1], sys.argv[1:])' \"$@\"";
    let report = world.agent(policy("inherited", &[])).behind(line).run(&[
        "/usr/bin/python3",
        "-c",
        "import time; time.sleep(2); print(open('/proc/self/status').read())",
    ])?;
    ensure!(report.outcome.ok(), "{report}");
    // 40 is bit 39; TERM, CHLD, USR1 are 15, 17, 10.
    ensure!(
        report.text().contains("SigBlk:\t0000008000014200"),
        "{report}"
    );
    Ok(())
}

/// So many refusals that the agent's own files are full.
fn noisy(world: &World, line: &str) -> Result<Report> {
    let script = format!(
        "for n in $(seq 3000); do (exec 3<>/dev/tcp/{}/$((10000 + n))) 2>/dev/null; done; \
         getent hosts allowed.example >/dev/null && echo still resolves",
        zone::STRANGER
    );
    world
        .agent(policy("inherited", &["allowed.example:80"]))
        .behind(&behind(line))
        .run(&["/bin/bash", "-c", &script])
}

/// The agent outlives a limit that it may not lift: every refusal is counted, and what found no
/// room is said.
#[test]
fn files_that_may_not_grow_end_nobody() -> Result<()> {
    let world = World::new()?;
    let report = noisy(&world, "ulimit -f 16; exec 2>/dev/null")?;
    ensure!(report.code() == 0, "{report}");
    report.ensure_printed("still resolves")?;
    let report = noisy(&world, "ulimit -f 16; exec 2>\"$(mktemp)\"")?;
    report.ensure_printed("still resolves")?;
    // Control: without the limit all is written.
    let report = noisy(&world, "true")?;
    let last = report.events.last().map(|event| event.line.clone());
    let last = last.unwrap_or_default();
    ensure!(last.contains("\"stopped\""), "{last}");
    Ok(())
}

/// What cannot be lifted and would end the agent is refused before anything starts.
#[test]
fn limits_that_would_end_the_agent_start_nothing() -> Result<()> {
    let world = World::alone()?;
    let before = Leftovers::now()?;
    for (limit, option) in [
        ("-t 5", "-t"),
        ("-v 300000", "-v"),
        ("-d 60000", "-d"),
        ("-s 256", "-s"),
    ] {
        let tries = Tries::default();
        // A process with the right to do so lifts them.
        let drop = "exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource";
        let line = format!("ulimit {limit}; {drop} \"$@\"");
        let report = tries.run(world.agent(rules()).behind(&line))?;
        ensure!(report.code() == 125, "{limit}: {report}");
        let says = format!("ulimit {option}");
        ensure!(report.outcome.stderr.contains(&says), "{limit}: {report}");
        tries.held(&world)?;
        before.ensure_nothing_new()?;
    }
    // Control: the soft limits alone are lifted.
    let line = "ulimit -S -t 5 -v 300000 -d 60000 -s 256; exec \"$@\"";
    let report = world
        .agent(policy("inherited", &[]))
        .behind(line)
        .limit(agent::LIMIT)
        .run(&["/bin/bash", "-c", "ulimit -t -v -d -s | tr -dc '0-9\\n'"])?;
    ensure!(report.code() == 0, "{report}");
    Ok(())
}
