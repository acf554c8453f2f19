//! The tools of a desktop session keep working inside: ssh with a connection that it shares, git
//! over it, gpg and its agent, Java, a shell with job control. None of them reaches a stranger.

use std::{fs, os::unix::fs::chown, path::PathBuf};

use anyhow::Result;
use egress_tests::{
    agent::{self, policy},
    event::Denial,
    programs,
    ssh::Ssh,
    token,
    urls::{Urls, stranger_heard_nothing},
    world::{USER, World},
    zone,
};

const ALLOW: [&str; 2] = ["allowed.example:443", "allowed.example:80"];

/// The second session goes over the first one's connection; a repository is fetched over it, too.
#[test]
fn ssh_shares_a_connection() -> Result<()> {
    let world = World::new()?;
    let server = Ssh::start(&world)?;
    let config = server.config(&format!(
        "IdentityFile {}/key\nControlMaster auto\nControlPath ${{TMPDIR}}/cm-%C\n\
         ControlPersist 60",
        server.client().display()
    ))?;
    let mark = token::new();
    let repository = repository(&world, &mark)?;
    let script = format!(
        r#"
        ssh="ssh -F {config}"
        $ssh allowed.example 'echo $SSH_CONNECTION' >first && echo connected
        $ssh -O check allowed.example 2>&1 | grep -o 'Master running'
        $ssh allowed.example 'echo $SSH_CONNECTION' >second
        cmp first second && echo shared
        GIT_SSH_COMMAND="$ssh" git clone -q ssh://allowed.example{repository} clone &&
            cat clone/mark
        $ssh {stranger} true || echo "stranger refused $?"
        $ssh -O exit allowed.example 2>&1
        "#,
        config = config.display(),
        repository = repository.display(),
        stranger = zone::STRANGER,
    );
    let report =
        world
            .agent(policy("ssh", &["allowed.example:22"]))
            .run(&["/bin/bash", "-c", &script])?;
    for line in ["connected", "Master running", "shared", &mark] {
        report.ensure_printed(line)?;
    }
    if !agent::unconfined() {
        report.ensure_printed("stranger refused 255")?;
        report.ensure_denied(&Denial::of_address(zone::STRANGER).port(22))?;
        world.fence()?;
        anyhow::ensure!(
            world.packets(zone::STRANGER)?.is_empty(),
            "the stranger got packets: {report}"
        );
    }
    Ok(())
}

/// A bare repository of the ssh server's user, in which a file holds the mark.
fn repository(world: &World, mark: &str) -> Result<PathBuf> {
    let folder = world.path("repository");
    let script = r#"
        set -e
        export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
        git init -q -b main "$1/work"
        cd "$1/work"
        echo "$2" >mark
        git add .
        git -c user.name=test -c user.email=test@allowed.example commit -q -m first
        git clone -q --bare . ../work.git
        chown -R "$3" ../work.git
    "#;
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "repository"]).arg(&folder);
    command.arg(mark).arg((USER - 1).to_string());
    egress_tests::process::must(command, std::time::Duration::from_secs(60))?;
    Ok(folder.join("work.git"))
}

/// The policy that is shipped, with another host and the user's own configuration file: the key is
/// the agent's alone, the host is known, and two clones share a connection.
#[test]
fn git_over_ssh_under_the_ready_policy() -> Result<()> {
    let world = World::new()?;
    let server = Ssh::start(&world)?;
    let keys = egress_tests::ssh::Agent::start(&world, &server.client().join("key"))?;
    let config = server.config("IdentityFile none")?;
    let mark = token::new();
    let repository = repository(&world, &mark)?;
    let ready = include_str!("../../policies/git-ssh.yaml");
    let ready = ready
        .replace("github.com", "allowed.example")
        .replace("\"ssh -o", &format!("\"ssh -F {} -o", config.display()));
    let script = format!(
        r#"
        git clone -q git+ssh://allowed.example{0} one && cat one/mark
        $GIT_SSH_COMMAND -O check allowed.example 2>&1 | grep -o 'Master running'
        git clone -q ssh://allowed.example{0} two && cmp one/mark two/mark && echo again
        git clone -q ssh://{1}{0} three || echo "stranger refused $?"
        $GIT_SSH_COMMAND -O exit allowed.example 2>&1
        "#,
        repository.display(),
        zone::STRANGER,
    );
    let socket = keys.socket().display().to_string();
    let words = ["/bin/bash", "-c", &script];
    let report = world
        .agent(ready.clone())
        .env("SSH_AUTH_SOCK", &socket)
        .run(&words)?;
    for line in [&mark, "Master running", "again"] {
        report.ensure_printed(line)?;
    }
    if agent::unconfined() {
        return Ok(());
    }
    report.ensure_printed("stranger refused 128")?;
    report.ensure_denied(&Denial::of_address(zone::STRANGER).port(22))?;
    let stopped = report.events.last().map(|event| event.line.clone());
    let connections = "\"rule\":\"allowed.example:22/tcp\",\"connections\":1,";
    anyhow::ensure!(
        stopped.is_some_and(|line| line.contains(connections)),
        "one connection for both: {report}"
    );
    let told = |topic: &str, text: &str| {
        let mut events = report.events.iter();
        events.any(|event| event.line.contains(topic) && event.line.contains(text))
    };
    anyhow::ensure!(told("\"topic\":\"open\"", "an ssh agent"), "{report}");
    // Without an agent in the session it starts, says so, and there is no key.
    let report = world.agent(ready).run(&words)?;
    let unset = report.events.iter().any(|event| {
        event.line.contains("\"topic\":\"session\"") && event.line.contains("SSH_AUTH_SOCK")
    });
    anyhow::ensure!(unset && !report.text().contains(&mark), "{report}");
    Ok(())
}

/// A host that is not known is remembered in the caller's own file.
#[test]
fn ssh_remembers_a_host() -> Result<()> {
    let world = World::new()?;
    let server = Ssh::start(&world)?;
    let at = server.client().display().to_string();
    let config = server.config(&format!("IdentityFile {at}/key"))?;
    let script = format!(
        "ssh='ssh -F {config} -o UserKnownHostsFile={at}/new'; \
         $ssh -o StrictHostKeyChecking=yes allowed.example true || echo unknown $?; \
         $ssh -o StrictHostKeyChecking=accept-new allowed.example echo first; \
         $ssh -o StrictHostKeyChecking=yes allowed.example echo second",
        config = config.display(),
    );
    let report = world
        .agent(policy("ssh", &["allowed.example:22"]))
        .run(&["/bin/sh", "-c", &script])?;
    for line in ["unknown 255", "first", "second"] {
        report.ensure_printed(line)?;
    }
    report.ensure_nothing_denied()
}

/// The agent of the caller's session, at the path that a rule names, signs; the key is nowhere
/// else.
#[test]
fn ssh_asks_a_permitted_agent() -> Result<()> {
    let world = World::new()?;
    let server = Ssh::start(&world)?;
    let keys = egress_tests::ssh::Agent::start(&world, &server.client().join("key"))?;
    let config = server.config("IdentityFile none")?;
    let line = format!("ssh -F {} allowed.example echo signed", config.display());
    let rule = format!("\n  - unix: {}\n", keys.socket().display());
    let rules = policy("ssh", &["allowed.example:22"]);
    let socket = keys.socket().display().to_string();
    let report = world
        .agent(rules.trim_end().to_owned() + &rule)
        .env("SSH_AUTH_SOCK", &socket)
        .run(&["/bin/sh", "-c", &line])?;
    report.ensure_printed("signed")?;
    report.ensure_nothing_denied()?;
    if agent::unconfined() {
        return Ok(());
    }
    // Without the rule the agent is out of reach, and so is the key.
    let report = world
        .agent(rules)
        .env("SSH_AUTH_SOCK", &socket)
        .run(&["/bin/sh", "-c", &line])?;
    anyhow::ensure!(report.code() == 255, "{report}");
    let refused = report
        .denials()
        .into_iter()
        .any(|event| event.reason.as_deref() == Some("unix-path") && event.line.contains(&socket));
    anyhow::ensure!(refused, "{report}");
    Ok(())
}

/// A key is made and used by the agent that gpg starts, over a socket in its folder.
#[test]
fn gpg_starts_its_agent() -> Result<()> {
    let world = World::new()?;
    let urls = Urls::fresh();
    let script = r#"
        set -e
        export GNUPGHOME="$TMPDIR/gnupg"; mkdir -m 700 "$GNUPGHOME"
        gpg --batch --quiet --passphrase '' --quick-gen-key test@allowed.example ed25519 sign never
        echo text | gpg --batch --quiet --clearsign >signed
        gpg --batch --quiet --verify signed 2>&1 | grep -q 'Good signature'
        gpg-connect-agent --no-autostart 'getinfo pid' /bye | grep -q '^OK'
        there=$(curl -sS "$STRANGER" 2>&1 >/dev/null) && there=REACHED || there=EPERM
        echo "gpg $(curl -sS "$PERMITTED" | grep -o '"ok":true' | sed 's/.*/ok/') $there"
        gpgconf --kill all
    "#;
    let report = urls
        .to(world.agent(policy("gpg", &ALLOW)))
        .env("TMPDIR", &temporary(&world)?)
        .run(&["/bin/bash", "-c", script])?;
    urls.held(&world, &report, &["gpg"])
}

/// Threads, a child, and a unix socket in the temporary folder.
#[test]
fn java_at_work() -> Result<()> {
    programs::build_java_work()?;
    let world = World::new()?;
    let urls = Urls::fresh();
    let plain = format!("http://allowed.example/{}", urls.permitted_token());
    let report = urls
        .to(world.agent(policy("java", &ALLOW)))
        .env("PLAIN", &plain)
        .env("TMPDIR", &temporary(&world)?)
        .run(&[
            "/bin/sh",
            "-c",
            "exec java -XX:TieredStopAtLevel=1 -cp \"$CLIENTS/java-work\" Work",
        ])?;
    let helpers = ["main", "thread-1", "thread-2", "child", "socket"];
    urls.held(&world, &report, &helpers)
}

/// Jobs that are stopped, continued and interrupted at a terminal of the shell's own.
#[test]
fn a_shell_with_job_control() -> Result<()> {
    let world = World::new()?;
    let script = world.path("job_control.py");
    fs::write(
        &script,
        include_str!("../fixtures/must_work/job_control.py"),
    )?;
    let urls = Urls::fresh();
    let report = urls
        .to(world.agent(policy("shell", &ALLOW)))
        .run(&["/usr/bin/python3", &script.display().to_string()])?;
    urls.held(&world, &report, &["jobs"])?;
    stranger_heard_nothing(&world, urls.stranger_token())
}

/// A temporary folder of the caller's, as the value of `TMPDIR`.
fn temporary(world: &World) -> Result<String> {
    let folder = world.path("tmp");
    fs::create_dir(&folder)?;
    chown(&folder, Some(USER), Some(USER))?;
    Ok(folder.display().to_string())
}
