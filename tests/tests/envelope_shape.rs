//! What requests are made of is kept, what is new in one is told or refused, and the operator has
//! the last word.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use egress_tests::{event::Event, process, shell::Shell, world::World};
use serde_json::Value;

const API: &str = "api.postmarkapp.com";
const LIMIT: Duration = Duration::from_secs(10);
/// Requests from which an operation is learned.
const LEARNED: usize = 20;

fn policy(shape: &str) -> String {
    format!(
        "version: 1\nconnector: shaped\nallow:\n  - host: {API}\n    ports: [443]\n    inspect:\n      \
         recipients: any\n      shape: {shape}\n      operations:\n        - {{ id: send, method: \
         POST, path: /email, body: json, recipients: {{ mail: [/To, /Bcc] }} }}\n"
    )
}

/// State of its own in the place of the host's.
fn world() -> Result<World> {
    let world = World::new()?;
    let mut mount = world.command("mount");
    mount.args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib"]);
    ensure!(process::run(mount, LIMIT)?.ok());
    Ok(world)
}

fn shape(world: &World, arguments: &[&str]) -> Result<(i32, String)> {
    let arguments = [&["shape", "shaped"], arguments].concat();
    let said = process::run(world.agent_command(&arguments)?, LIMIT)?;
    Ok((said.code(), said.text() + &said.stderr))
}

/// The status of a mail with these fields.
fn send(shell: &mut Shell, fields: &str, options: &str) -> Result<String> {
    let said = shell.run(&format!(
        "curl -sS --max-time 20 -o /dev/null -w '%{{http_code}}' {options} -H 'Content-Type: \
         application/json' -d '{{\"To\":\"a@b.example\"{fields}}}' https://{API}/email"
    ))?;
    Ok(said.text)
}

fn waited<T>(mut look: impl FnMut() -> Result<Option<T>>, what: &str) -> Result<T> {
    let end = Instant::now() + process::patient(LIMIT);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn told(shell: &Shell, text: &str) -> Result<Event> {
    let look = || {
        let events = shell.confined.events()?;
        Ok(events.into_iter().find(|event| event.line.contains(text)))
    };
    waited(look, text)
}

#[test]
fn what_is_new_is_told_kept_and_accepted() -> Result<()> {
    let world = world()?;
    let mut shell = world.agent(policy("report")).shell()?;
    for _ in 0..LEARNED {
        ensure!(send(&mut shell, "", "")? == "200");
    }
    let learned = shell.confined.events()?;
    ensure!(learned.iter().all(|event| event.rest.get("new").is_none()));
    let bcc = ",\"Bcc\":\"c@d.example\"";
    ensure!(send(&mut shell, bcc, "")? == "200");
    let said = format!("/Bcc is new: {LEARNED} requests of operation send never had it");
    let event = told(&shell, &said)?;
    ensure!(
        event.rest.get("verdict") == Some(&Value::from("passed")),
        "{}",
        event.line
    );
    ensure!(send(&mut shell, "", "-H 'X-Odd: 1'")? == "200");
    told(&shell, "header x-odd is new")?;
    // It is kept, for another start of the connector as well.
    let kept = || {
        let (code, text) = shape(&world, &[])?;
        Ok((code == 1 && text.contains(&said) && text.contains("x-odd")).then_some(text))
    };
    let text = waited(kept, "it is not kept")?;
    ensure!(text.contains("send: 22 requests"), "{text}");
    shell.end()?;
    let mode = process::run(
        {
            let mut stat = world.command("stat");
            stat.args(["-c", "%U %a", "/var/lib/egress-agent/shapes/shaped.json"]);
            stat
        },
        LIMIT,
    )?;
    ensure!(mode.text().trim() == "root 600", "{}", mode.text());

    // What is known passes where shapes hold, what is new does not, and nothing is learned.
    let mut shell = world.agent(policy("enforce")).shell()?;
    ensure!(send(&mut shell, "", "")? == "200");
    for _ in 0..2 {
        ensure!(send(&mut shell, bcc, "")? == "403");
        ensure!(send(&mut shell, "", "-H 'X-Odd: 1'")? == "403");
    }
    let event = told(&shell, "new-shape")?;
    ensure!(event.line.contains("never had it"), "{}", event.line);
    let (code, json) = shape(&world, &["-o", "json"])?;
    let json: Value = serde_json::from_str(&json)?;
    let send_of = &json["operations"][0];
    ensure!(code == 1 && send_of["requests"] == 22, "{json}");
    ensure!(send_of["new"]["/Bcc"]["before"] == LEARNED, "{json}");

    // Accepted, it passes without a new start.
    ensure!(shape(&world, &["--accept"])?.0 == 0);
    let passes = || Ok((send(&mut shell, bcc, "")? == "200").then_some(()));
    waited(passes, "it is accepted and refused")?;
    // Forgotten, nothing of it passes.
    ensure!(shape(&world, &["send", "--forget"])?.0 == 0);
    let refused = || Ok((send(&mut shell, "", "")? == "403").then_some(()));
    waited(refused, "it is forgotten and passes")?;
    ensure!(shape(&world, &[])?.1.contains("nothing is known"));
    Ok(())
}

#[test]
fn a_state_that_cannot_be_read_refuses_where_shapes_hold() -> Result<()> {
    let world = world()?;
    let mut spoil = world.command("/bin/sh");
    spoil.args(["-c", "mkdir -p /var/lib/egress-agent/shapes && echo x > /var/lib/egress-agent/shapes/shaped.json"]);
    ensure!(process::run(spoil, LIMIT)?.ok());
    for (mode, expected) in [("enforce", "403"), ("report", "200"), ("off", "200")] {
        let mut shell = world.agent(policy(mode)).shell()?;
        ensure!(send(&mut shell, "", "")? == expected, "{mode}");
        let events = shell.confined.events()?;
        let warned = events
            .iter()
            .any(|event| event.line.contains("is not kept"));
        ensure!(warned == (mode != "off"), "{mode}");
    }
    let (code, text) = shape(&world, &[])?;
    ensure!(code != 0 && text.contains("remove it"), "{text}");
    Ok(())
}
