//! `egress-agent exec`: what whoever may start a connector gets, and what nobody gets by it.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    agent::policy,
    daemon::{OTHER_USER, give, over_a_socket, own_policy},
    process::{Outcome, Running},
    world::{USER, World},
};

const ALLOWED: &str = "http://203.0.113.20:8080/";
const OTHER: &str = "http://203.0.113.21:8080/";

fn ended(command: std::process::Command) -> Result<Outcome> {
    Running::start(command, Duration::from_secs(30))?.wait()
}

#[test]
fn what_the_policy_permits_is_reached_and_nothing_else() -> Result<()> {
    let world = World::new()?;
    let text = own_policy("first", &["203.0.113.20:8080", "allowed.example:443"]);
    let daemon = world.daemon(&[("first", &text)])?;
    let mut shell = daemon.shell(USER, "first")?;
    ensure!(shell.reaches(ALLOWED)?);
    ensure!(!shell.reaches(OTHER)?);
    ensure!(shell.reaches("https://allowed.example/")?);
    ensure!(!shell.reaches("https://other.example/")?);
    ensure!(shell.end()? == 0);
    let said = daemon.exec(USER, "first", "exit 7")?;
    ensure!(said.code() == 7, "{said:?}");
    let said = daemon.exec(USER, "first", "kill -TERM $$")?;
    ensure!(said.code() == 128 + 15, "{said:?}");
    Ok(())
}

#[test]
fn only_those_whom_the_policy_names_start_it() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[
        ("named", &own_policy("named", &[])),
        ("nobody", &policy("nobody", &[])),
        (
            "grouped",
            &format!("{}groups: [\"{OTHER_USER}\"]\n", policy("grouped", &[])),
        ),
    ])?;
    for (uid, connector, may) in [
        (USER, "named", true),
        (OTHER_USER, "named", false),
        (USER, "nobody", false),
        (USER, "grouped", false),
        (OTHER_USER, "grouped", true),
    ] {
        let said = daemon.exec(uid, connector, "echo started")?;
        ensure!(
            said.text().contains("started") == may,
            "{uid} {connector}: {said:?}"
        );
        ensure!(
            (said.code() == 0) == may && (said.code() == 125) != may,
            "{said:?}"
        );
        ensure!(may || said.stderr.contains("may not start"), "{said:?}");
    }
    Ok(())
}

#[test]
fn nobody_chooses_as_whom_or_what_another_user_runs() -> Result<()> {
    let world = World::new()?;
    let fixed = format!(
        "{}run:\n  user: \"{OTHER_USER}\"\n  command: [bash, -c, 'id -u; echo path=$PATH pre=$LD_PRELOAD tz=$TZ']\n  env: {{ pass: [PATH, LD_PRELOAD, TZ] }}\n",
        own_policy("fixed", &[])
    );
    let open = format!(
        "{}run: {{ user: \"{OTHER_USER}\" }}\n",
        own_policy("open", &[])
    );
    let daemon = world.daemon(&[
        ("own", &own_policy("own", &[])),
        ("fixed", &fixed),
        ("open", &open),
    ])?;
    let said = daemon.exec(
        USER,
        "own",
        "id -u; id -G; cat /proc/self/status | grep ^Cap",
    )?;
    let text = said.text();
    ensure!(text.starts_with(&format!("{USER}\n{USER}\n")), "{said:?}");
    ensure!(
        text.lines()
            .skip(2)
            .all(|line| line.ends_with("0000000000000000")),
        "{text}"
    );

    // A `bash` of the caller's own, first on the caller's PATH.
    let folder = world.path("caller");
    fs::create_dir(&folder)?;
    let bash = folder.join("bash");
    fs::write(&bash, "#!/bin/sh\necho the callers own\n")?;
    fs::set_permissions(&bash, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let variables = [
        ("PATH", path.as_str()),
        ("TZ", "here"),
        ("LD_PRELOAD", "/nonexistent.so"),
    ];
    let call = |words: &[&str]| ended(daemon.command_with(USER, &variables, words)?);
    let said = call(&["exec", "own", "--", "bash"])?;
    ensure!(
        said.text().contains("the callers own"),
        "a control: {said:?}"
    );
    let said = call(&["exec", "fixed"])?;
    ensure!(
        said.text().starts_with(&format!("{OTHER_USER}\n")),
        "{said:?}"
    );
    ensure!(said.text().contains("pre= tz=here"), "{said:?}");
    ensure!(
        !said.text().contains("callers own") && !said.text().contains(&path),
        "{said:?}"
    );
    let said = call(&["exec", "fixed", "--", "/bin/sh"])?;
    ensure!(
        said.code() == 125 && said.stderr.contains("run.command"),
        "{said:?}"
    );
    let said = call(&["exec", "open", "--", "/usr/bin/id"])?;
    ensure!(
        said.code() == 125 && said.stderr.contains("run.command"),
        "{said:?}"
    );
    // Root chooses no command for anybody either, and nothing runs as root.
    let said = daemon.exec(0, "own", "id -u")?;
    ensure!(
        said.code() == 125 && said.stderr.contains("as root"),
        "{said:?}"
    );
    Ok(())
}

/// `LD_DEBUG_OUTPUT` (ld.so(8)) leaves a file of each program in which the loader sees it, which
/// belongs to whoever that program was then.
#[test]
fn the_callers_environment_acts_on_the_callers_programs_alone() -> Result<()> {
    let world = World::new()?;
    let listed = format!(
        "{}run: {{ env: {{ pass: [KEPT] }} }}\n",
        own_policy("listed", &[])
    );
    let daemon = world.daemon(&[("first", &own_policy("first", &[])), ("listed", &listed)])?;
    let folder = world.path("traces");
    fs::create_dir(&folder)?;
    give(&folder, USER)?;
    let traces = folder.join("trace").display().to_string();
    let variables = [
        ("LD_DEBUG", "files"),
        ("LD_DEBUG_OUTPUT", traces.as_str()),
        ("SSL_CERT_FILE", "/of/the/caller"),
    ];
    let words = ["exec", "first", "--", "/usr/bin/env"];
    let said = ended(daemon.command_with(USER, &variables, &words)?)?;
    ensure!(
        said.text().contains("SSL_CERT_FILE=/of/the/caller"),
        "{said:?}"
    );
    let owners: Vec<u32> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.metadata()?.uid()))
        .collect::<Result<_>>()?;
    ensure!(
        owners.len() >= 2,
        "client and connector at least: {owners:?}"
    );
    ensure!(owners.iter().all(|uid| *uid == USER), "{owners:?}");
    let variables = [("KEPT", "1"), ("LOST", "1")];
    let words = ["exec", "listed", "--", "/usr/bin/env"];
    let said = ended(daemon.command_with(USER, &variables, &words)?)?;
    ensure!(
        said.text().contains("KEPT=1") && !said.text().contains("LOST"),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn folder_mask_limits_and_streams_are_the_callers() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[("first", &own_policy("first", &[]))])?;
    let folder = world.path("here");
    fs::create_dir(&folder)?;
    give(&folder, USER)?;
    let agent = egress_tests::programs::agent()?;
    let line = format!(
        "cd {}; umask 027; ulimit -n 123; exec {} exec --socket {} first -- \
         /bin/bash -c 'pwd; umask; ulimit -Hn; ulimit -Sn; ulimit -Hn 1000 2>&1 | tail -c 24; \
         cat; echo err >&2'",
        folder.display(),
        agent.display(),
        daemon.socket().display()
    );
    let mut command = world.command("setpriv");
    command.args([
        &format!("--reuid={USER}"),
        "--clear-groups",
        "--",
        "/bin/bash",
        "-c",
        &line,
    ]);
    let mut running = Running::start(command, Duration::from_secs(30))?;
    running.stdin()?.write_all(b"\0in\n")?;
    let said = running.wait()?;
    let expected = format!("{}\n0027\n123\n123\n", folder.display());
    ensure!(said.text().starts_with(&expected), "{said:?}");
    ensure!(
        said.stdout.ends_with(b"\0in\n") && said.stderr == "err\n",
        "{said:?}"
    );

    // Where the client hands sockets, as node does, bytes pass and descriptors do not.
    let (mut child, mut socket) = over_a_socket(daemon.command(
        USER,
        &[
            "exec",
            "first",
            "--",
            "/bin/bash",
            "-c",
            "readlink /proc/self/fd/0 | cut -c1-5; cat",
        ],
    )?)?;
    socket.write_all(b"through")?;
    socket.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    ensure!(text == "pipe:\nthrough", "{text:?}");
    ensure!(child.wait()?.success());
    Ok(())
}

#[test]
fn a_policy_that_its_connector_could_change_starts_nothing() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[("first", &own_policy("first", &[]))])?;
    let file = daemon.write("first", &own_policy("first", &[]))?;
    give(&file, USER)?;
    let told = daemon.run(0, &["reload"])?;
    ensure!(told.ok(), "{told:?}");
    let said = daemon.exec(USER, "first", "echo started")?;
    ensure!(
        said.code() == 125 && said.stderr.contains("could change its policy"),
        "{said:?}"
    );
    ensure!(said.text().is_empty(), "{said:?}");
    give(&file, 0)?;
    ensure!(daemon.run(0, &["reload"])?.ok());
    let said = daemon.exec(USER, "first", "echo started")?;
    ensure!(said.ok(), "{said:?}");
    Ok(())
}

#[test]
fn a_person_is_told_what_to_do() -> Result<()> {
    let world = World::new()?;
    let inspected = format!(
        "{}allow:\n  - host: api.postmarkapp.com\n    ports: [443]\n    inspect: {{ service: postmark }}\n",
        own_policy("inspected", &[]).replace("allow: []\n", "")
    );
    let mut daemon = world.daemon(&[
        ("postmark", &own_policy("postmark", &[])),
        ("inspected", &inspected),
        ("broken", "version: 1\nconnector: broken\nalow: []\n"),
    ])?;
    for (words, code, says) in [
        (&["exec", "postmrk"][..], 125, "did you mean “postmark”?"),
        (&["exec", "postmark"], 125, "run.command"),
        (&["exec", "postmark", "--", "nosuch"], 127, "on your PATH"),
        (&["exec", "postmark", "--", "/nosuch"], 127, "/nosuch"),
        (
            &["exec", "postmark", "--", "/etc/passwd"],
            126,
            "/etc/passwd",
        ),
        (
            &["exec", "inspected", "--", "/bin/true"],
            125,
            "egress-agent run",
        ),
        (&["stop", "postmark"], 125, "egress-agent ps"),
        (&["reload"], 125, "only root"),
    ] {
        let said = daemon.run(USER, words)?;
        ensure!(
            said.code() == code && said.stderr.contains(says),
            "{words:?}: {said:?}"
        );
    }
    let said = daemon.run(0, &["status"])?;
    ensure!(
        said.code() == 1 && said.text().contains("broken.yaml"),
        "{said:?}"
    );
    let said = daemon.run(USER, &["status"])?;
    ensure!(said.ok() && !said.text().contains("broken"), "{said:?}");
    daemon.end(nix::sys::signal::Signal::SIGTERM)?;
    let said = daemon.run(USER, &["exec", "postmark", "--", "/bin/true"])?;
    ensure!(
        said.code() == 125 && said.stderr.contains("no daemon listens"),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn a_broken_file_keeps_the_policy_in_force_and_status_says_so() -> Result<()> {
    let world = World::new()?;
    let before = own_policy("first", &["203.0.113.20:8080"]);
    let daemon = world.daemon(&[("first", &before)])?;
    let mut shell = daemon.shell(USER, "first")?;
    ensure!(shell.reaches(ALLOWED)? && !shell.reaches(OTHER)?);
    daemon.write(
        "first",
        "version: 1\nconnector: first\nallow: [nonsense here]\n",
    )?;
    let said = daemon.run(0, &["reload", "first"])?;
    ensure!(
        said.code() == 125 && said.stderr.contains("stays in force"),
        "{said:?}"
    );
    ensure!(shell.reaches(ALLOWED)? && !shell.reaches(OTHER)?);
    let said = daemon.run(USER, &["status"])?;
    ensure!(
        said.code() == 1 && said.text().contains("fault: first"),
        "{said:?}"
    );
    ensure!(
        daemon.exec(USER, "first", "true")?.ok(),
        "the sound one starts"
    );
    daemon.write("first", &own_policy("first", &["203.0.113.21:8080"]))?;
    ensure!(daemon.run(0, &["reload", "first"])?.ok());
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !shell.reaches(OTHER)? {
        ensure!(
            std::time::Instant::now() < end,
            "the new policy is not in force"
        );
    }
    ensure!(!shell.reaches(ALLOWED)?);
    let said = daemon.run(USER, &["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    let first = status["connectors"].as_array().and_then(|all| all.first());
    ensure!(
        first.context("no connector")?["fault"].is_null(),
        "{status}"
    );
    Ok(())
}
