//! Programs that connectors are made of keep working, with everything they start, and none of
//! what they start reaches a stranger.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use egress_tests::{
    agent::{self, policy},
    event::Denial,
    postgres::Postgres,
    process::{self, must},
    programs,
    protocol::Request,
    token,
    urls::{Urls, stranger_heard_nothing},
    world::World,
    zone,
};

const ALLOW: [&str; 2] = ["allowed.example:443", "allowed.example:80"];
const STEP: Duration = Duration::from_secs(60);

/// A file for the connector, in a folder of its own.
fn file(world: &World, name: &str, text: &str) -> Result<PathBuf> {
    let folder = world.path("program");
    fs::create_dir(&folder)?;
    let file = folder.join(name);
    fs::write(&file, text)?;
    Ok(file)
}

fn text(path: impl Into<PathBuf>) -> String {
    path.into().display().to_string()
}

/// Children with IPC, a server's handle passed over it, a cluster, threads.
#[test]
fn node_with_worker_processes() -> Result<()> {
    let world = World::new()?;
    let script = file(
        &world,
        "workers.js",
        include_str!("../fixtures/must_work/workers.js"),
    )?;
    let urls = Urls::fresh();
    let agent = urls.to(world.agent(policy("node", &ALLOW)));
    let report = agent.run(&["node", &text(script)])?;
    let helpers = [
        "main",
        "fork-json",
        "fork-advanced",
        "handle",
        "cluster-1",
        "cluster-2",
        "thread",
        "spawn",
        "exec",
    ];
    urls.held(&world, &report, &helpers)
}

/// Pools, queues, pipes, managers, listeners, shared memory; forked, spawned and from a server.
#[test]
fn python_multiprocessing() -> Result<()> {
    let world = World::new()?;
    let script = file(
        &world,
        "workers.py",
        include_str!("../fixtures/must_work/workers.py"),
    )?;
    let urls = Urls::fresh();
    let agent = urls.to(world.agent(policy("python", &ALLOW)));
    let report = agent.run(&["/usr/bin/python3", &text(script)])?;
    let mut helpers: Vec<String> = [
        "manager",
        "memory",
        "listener-AF_UNIX",
        "listener-AF_INET",
        "executor",
        "remote",
        "asyncio",
    ]
    .map(str::to_owned)
    .to_vec();
    for method in ["fork", "spawn", "forkserver"] {
        helpers
            .extend(["pool-1", "pool-2", "queue", "pipe"].map(|kind| format!("{method}-{kind}")));
    }
    let helpers: Vec<&str> = helpers.iter().map(String::as_str).collect();
    urls.held(&world, &report, &helpers)
}

/// A pipeline of shells in which each part talks; files between them; a process in the
/// background.
#[test]
fn a_shell_pipeline() -> Result<()> {
    let world = World::new()?;
    let urls = Urls::fresh();
    let script = r#"
        set -o pipefail
        curl -sS "$PERMITTED" | tee >(wc -c >&2) | sed -n 's/.*"ok":true.*/ok/p' |
            while read -r word; do
                there=$(curl -sS "$STRANGER" 2>&1 >/dev/null) && there=REACHED
                case $there in *"not permitted"* | *"Couldn't connect"*) there=EPERM ;; esac
                echo "pipeline $word $there"
            done | sort | xargs -n 3 echo
        { curl -sS "$PERMITTED-2" >"$TMPDIR/answer" & } ; wait $!
        curl -sS "$STRANGER" 2>/dev/null & wait $! && there=REACHED || there=EPERM
        echo "background $(grep -o '"ok":true' "$TMPDIR/answer" | sed 's/.*/ok/') $there"
    "#;
    let agent = urls.to(world.agent(policy("shell", &ALLOW)));
    let report = agent.run(&["/bin/bash", "-c", script])?;
    urls.held(&world, &report, &["pipeline", "background"])
}

/// Static, with the resolver and the TLS of its own runtime.
#[test]
fn a_static_go_program() -> Result<()> {
    let program = programs::build_go_client()?;
    let world = World::new()?;
    let urls = Urls::fresh();
    let agent = urls.to(world.agent(policy("go", &ALLOW)));
    let name = program.file_name().context("no name")?.to_string_lossy();
    let report = agent.run(&["/bin/sh", "-c", &format!("exec \"$CLIENTS/{name}\"")])?;
    urls.held(&world, &report, &["go-0", "go-1", "go-2", "go-3"])
}

/// The smart protocol, over TLS whose authority only the world knows.
#[test]
fn git_clones_from_a_permitted_host() -> Result<()> {
    let world = World::new()?;
    let mark = token::new();
    world.ask(&Request::Repositories(repository(&world, &mark)?))?;
    let stranger = token::new();
    let script = format!(
        "git clone -q https://allowed.example/git/work.git clone && cat clone/mark && \
         git -C clone fetch -q --depth 1 origin main && echo fetched; \
         git clone -q https://giftshop.club/git/work.git by-name || echo name refused $?; \
         git clone -q http://{0}:9999/git/{stranger} by-address || echo address refused $?; \
         git clone -q git://{0}/work.git by-protocol || echo protocol refused $?",
        zone::STRANGER
    );
    let report = world
        .agent(policy("git", &ALLOW))
        .env("GIT_SSL_CAINFO", &text(world.dir().join("bundle.pem")))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .run(&["/bin/sh", "-c", &script])?;
    for line in [
        &mark,
        "fetched",
        "name refused 128",
        "address refused 128",
        "protocol refused 128",
    ] {
        report.ensure_printed(line)?;
    }
    stranger_heard_nothing(&world, &stranger)?;
    if !agent::unconfined() {
        report.ensure_denied(&Denial::of_name("giftshop.club"))?;
        for port in [9999, 9418] {
            report.ensure_denied(&Denial::of_address(zone::STRANGER).port(port))?;
        }
    }
    Ok(())
}

/// A folder of bare repositories: `work.git` has a few hundred files, and one with the mark.
fn repository(world: &World, mark: &str) -> Result<PathBuf> {
    let folder = world.path("repositories");
    let script = r#"
        set -e
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
        git init -q -b main "$1/work"
        cd "$1/work"
        for number in $(seq 300); do seq "$number" $((number * 20)) >"file-$number"; done
        echo "$2" >mark
        git add .
        git -c user.name=test -c user.email=test@allowed.example commit -q -m first
        git clone -q --bare . ../work.git
    "#;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, "repository"])
        .arg(&folder)
        .arg(mark);
    must(command, STEP)?;
    Ok(folder)
}

/// By the permitted path; not by another path of the same server, and not over TCP.
#[test]
fn psql_over_a_permitted_unix_socket() -> Result<()> {
    let world = World::new()?;
    let server = Postgres::start(&world)?;
    let permitted = server.folder("permitted");
    let rule = format!("\n  - unix: {}/.s.PGSQL.5432\n", permitted.display());
    let rules = policy("psql", &ALLOW).trim_end().to_owned() + &rule;
    let query = "select 'rows ' || count(*) from generate_series(1, 100000)";
    let places = [
        ("permitted", text(permitted)),
        ("other", text(server.folder("other"))),
        ("tcp", "127.0.0.1".to_owned()),
    ];
    let commands = places.map(|(label, host)| {
        let words = ["psql", "-X", "-A", "-t", "-U", "postgres", "-h", &host];
        let words = words.into_iter().chain(["-d", "postgres", "-c", query]);
        (label, words.map(str::to_owned).collect())
    });
    let done = world.agent(rules).attempts(&commands)?;
    let control = done.get("permitted")?;
    ensure!(
        control.code == 0 && control.output.contains("rows 100000"),
        "{control:?}"
    );
    for label in ["other", "tcp"] {
        let attempt = done.get(label)?;
        ensure!(
            attempt.code == 2 && attempt.output.contains("Operation not permitted"),
            "{attempt:?}"
        );
    }
    done.report
        .ensure_denied(&Denial::of_address(Ipv4Addr::LOCALHOST).port(5432))?;
    Ok(())
}

/// The connector waits on loopback, a browser outside calls in and gets its answer, and the code
/// is exchanged at the permitted host.
#[test]
fn a_local_oauth_call_back() -> Result<()> {
    let world = World::new()?;
    let urls = Urls::fresh();
    let script = file(
        &world,
        "callback.py",
        include_str!("../fixtures/must_work/callback.py"),
    )?;
    // On every address, as careless programs do: then others than the browser may call, too.
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let agent = urls.to(world.agent(policy("oauth", &ALLOW)));
        let mut confined = agent
            .env("LISTEN", listen)
            .start(&["/usr/bin/python3", &text(&script)])?;
        confined.printed("open ", agent::LIMIT)?;
        let said = String::from_utf8_lossy(&confined.agent.stdout()).into_owned();
        let port: u16 = said.trim().rsplit(' ').next().context("port")?.parse()?;
        if listen == "0.0.0.0" && !agent::unconfined() {
            let called = world.ask(&Request::Dial {
                from: zone::STRANGER.into(),
                to: SocketAddr::from((zone::HOST, port)),
                text: format!("GET /?code={} HTTP/1.0\r\n\r\n", urls.stranger_token()),
            });
            ensure!(called.is_err(), "a stranger was let in: {called:?}");
        }
        let code = token::new();
        let mut browser = world.command("curl");
        browser.args(["-sS", "--max-time", "30"]);
        browser.arg(format!("http://127.0.0.1:{port}/callback?code={code}"));
        let answer = process::run(browser, STEP)?;
        ensure!(
            answer.text() == "signed in, close this window",
            "{answer:?}; {}",
            confined.agent.stderr()
        );
        let report = confined.wait()?;
        let exchanged = world.requests()?.into_iter().any(|request| {
            request.line.ends_with(&urls.permitted_token()) && request.body.contains(&code)
        });
        ensure!(exchanged, "the code never came: {report}");
        urls.held(&world, &report, &["callback"])?;
    }
    Ok(())
}
