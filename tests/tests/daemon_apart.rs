//! Connectors that share a daemon never mix, and neither do their users.

use std::{
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    daemon::{OTHER_USER, Talk, own_policy, policy_for},
    programs,
    world::{USER, World},
};

const FIRST: &str = "http://203.0.113.20:8080/";
const SECOND: &str = "http://203.0.113.21:8080/";
const NAMED: &str = "https://allowed.example/";

fn eventually(mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if holds()? {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

#[test]
fn no_connector_has_what_another_is_granted() -> Result<()> {
    let world = World::new()?;
    let both = [USER, OTHER_USER];
    let daemon = world.daemon(&[
        (
            "first",
            &policy_for(
                "first",
                &both,
                &["203.0.113.20:8080", "allowed.example:443"],
            ),
        ),
        (
            "second",
            &policy_for("second", &both, &["203.0.113.21:8080"]),
        ),
    ])?;
    let mut first = daemon.shell(USER, "first")?;
    let mut second = daemon.shell(OTHER_USER, "second")?;
    let mut again = daemon.shell(OTHER_USER, "first")?;
    for _ in 0..2 {
        for (shell, may) in [(&mut first, true), (&mut second, false), (&mut again, true)] {
            ensure!(shell.reaches(FIRST)? == may && shell.reaches(SECOND)? != may);
        }
    }
    // Addresses from names: what one has just resolved is closed to the other.
    ensure!(first.reaches(NAMED)?);
    ensure!(!second.reaches(NAMED)?);
    ensure!(!second.reaches("-k https://203.0.113.20/")?);

    // A reload of one takes nothing from the other; what it had of names, it keeps.
    daemon.write(
        "second",
        &policy_for("second", &both, &["203.0.113.22:8080"]),
    )?;
    ensure!(daemon.run(0, &["reload", "second"])?.ok());
    ensure!(eventually(|| Ok(!second.reaches(SECOND)?))?);
    ensure!(second.reaches("http://203.0.113.22:8080/")?);
    ensure!(
        first.reaches("-k --resolve allowed.example:443:203.0.113.20 https://allowed.example/")?
    );
    ensure!(first.reaches(FIRST)? && again.reaches(FIRST)?);

    // One that ends leaves the next one nothing.
    ensure!(first.end()? == 0);
    daemon.wait_for(0, 2)?;
    let mut third = daemon.shell(USER, "second")?;
    ensure!(!third.reaches(FIRST)? && !third.reaches(SECOND)?);
    ensure!(!third.reaches("-k https://203.0.113.20/")?);
    Ok(())
}

#[test]
fn own_listeners_are_the_instances_own() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[("first", &policy_for("first", &[USER, OTHER_USER], &[]))])?;
    let mut one = daemon.shell(USER, "first")?;
    let mut other = daemon.shell(OTHER_USER, "first")?;
    one.say("python3 -m http.server --bind 127.0.0.1 7070 >/dev/null 2>&1 & sleep 0")?;
    let url = "http://127.0.0.1:7070/";
    ensure!(eventually(|| one.reaches(url))?, "its own");
    ensure!(!other.reaches(url)?, "that of another instance");
    Ok(())
}

#[test]
fn users_see_and_end_their_own() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[
        ("first", &policy_for("first", &[USER, OTHER_USER], &[])),
        ("second", &policy_for("second", &[USER, OTHER_USER], &[])),
    ])?;
    let mut mine = daemon.shell(USER, "first")?;
    let mut theirs = daemon.shell(OTHER_USER, "first")?;
    ensure!(!mine.reaches(FIRST)? && !theirs.reaches(SECOND)?);
    let name = |rows: &[serde_json::Value]| -> Result<String> {
        let row = rows.first().context("no row")?;
        Ok(row["instance"].as_str().context("no name")?.to_owned())
    };
    ensure!(daemon.ps(0)?.len() == 2);
    let (own, foreign) = (daemon.ps(USER)?, daemon.ps(OTHER_USER)?);
    ensure!(own.len() == 1 && foreign.len() == 1 && own != foreign);
    for what in [name(&foreign)?.as_str(), "second"] {
        let said = daemon.run(USER, &["stop", what])?;
        ensure!(said.code() == 125, "{said:?}");
    }
    ensure!(daemon.ps(0)?.len() == 2 && theirs.say("true")?.code == 0);

    // Events: by an instance, and never another one's.
    let events = |uid| -> Result<String> {
        let said = daemon.run(uid, &["events", "-o", "json"])?;
        ensure!(said.ok(), "{said:?}");
        Ok(said.text())
    };
    let seen = |text: &str, address| text.contains("denied") && text.contains(address);
    ensure!(eventually(|| Ok(seen(&events(USER)?, "203.0.113.20")))?);
    ensure!(eventually(|| Ok(seen(
        &events(OTHER_USER)?,
        "203.0.113.21"
    )))?);
    ensure!(!events(USER)?.contains(&name(&foreign)?));
    ensure!(!events(OTHER_USER)?.contains(&name(&own)?));
    let all = events(0)?;
    ensure!(all.contains(&name(&own)?) && all.contains(&name(&foreign)?));

    let said = daemon.run(USER, &["stop", "first"])?;
    ensure!(said.ok(), "{said:?}");
    ensure!(mine.wait()? == 128 + 15);
    ensure!(theirs.say("true")?.code == 0, "of the same connector");
    Ok(())
}

/// Whatever comes in over the socket, others are served, and the daemon lives.
#[test]
fn garbage_hurts_nobody() -> Result<()> {
    let world = World::new()?;
    let daemon = world.daemon(&[("first", &own_policy("first", &[]))])?;
    let pid = daemon.pid()?;
    let mut shell: Talk = daemon.shell(USER, "first")?;
    let exec = br#"{"exec":{"version":1,"connector":"first","command":["/bin/true"],"env":[],"cwd":"/","cwd_is":[0,0],"inherited":{"limits":[],"ignored":0,"blocked":0,"umask":0}}}"#;
    let framed = |text: &[u8]| {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&length[..], text].concat()
    };
    let deep = [b"{\"stop\":".to_vec(), vec![b'['; 100_000]].concat();
    let cases: Vec<Vec<u8>> = vec![
        vec![0xff; 64],
        u32::MAX.to_be_bytes().to_vec(),
        framed(b""),
        framed(b"nonsense"),
        framed(br#"{"exec":7}"#),
        framed(br#"{"signal":9}"#),
        framed(&deep),
        framed(br#"{"events":{"last":18446744073709551615,"follow":false}}"#),
        // Without its descriptors.
        framed(exec),
        [framed(br#""ps""#), vec![7; 4096]].concat(),
        framed(br#""ps""#)[..5].to_vec(),
    ];
    for case in &cases {
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // It may have closed before all is written.
        drop(stream.write_all(case));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let text = String::from_utf8_lossy(&answer);
        ensure!(!text.contains("\"started\":"), "{text}");
    }
    // More descriptors than any request has.
    let line = format!(
        "import socket,array,os\nfor n in (6,200):\n s=socket.socket(socket.AF_UNIX)\n s.connect({:?})\n \
         s.sendmsg([b'\\0\\0\\0\\4\"ps\"'],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array('i',[0]*n))])\n \
         d=s.recv(65536)\n assert b'failed' in d,d",
        daemon.socket().display().to_string()
    );
    let output = std::process::Command::new("python3")
        .args(["-c", &line])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    // Of a user who fills all places and says nothing, others are kept from nothing. What is beyond his
    // places is closed at once.
    let silent = format!(
        "import socket,sys\nall=[]\nfor n in range(400):\n s=socket.socket(socket.AF_UNIX)\n s.settimeout(1)\n \
         s.connect({:?})\n try: s.send(b'\\0\\0')\n except OSError: pass\n all.append(s)\nprint('there',flush=True)\n\
         sys.stdin.read()",
        daemon.socket().display().to_string()
    );
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", &silent])
        .uid(OTHER_USER)
        .gid(OTHER_USER);
    command.stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    let mut filler = command.spawn()?;
    let mut there = [0; 5];
    filler
        .stdout
        .as_mut()
        .context("no stdout")?
        .read_exact(&mut there)?;
    let start = Instant::now();
    ensure!(daemon.exec(USER, "first", "true")?.ok());
    daemon.wait_for(USER, 1)?;
    ensure!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    drop(filler.stdin.take());
    filler.kill()?;
    filler.wait()?;
    ensure!(shell.say("true")?.code == 0 && daemon.pid()? == pid);
    let open = || -> Result<usize> { Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count()) };
    let before = open()?;
    for _ in 0..20 {
        ensure!(daemon.exec(USER, "first", "true")?.ok());
    }
    ensure!(
        eventually(|| Ok(open()? <= before))?,
        "descriptors are left"
    );
    ensure!(programs::agent()?.exists());
    Ok(())
}
