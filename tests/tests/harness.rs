//! The embedded internet itself, without any agent.

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::{Result, ensure};
use egress_tests::{process, token, world::World, zone};

const LIMIT: Duration = Duration::from_secs(10);

fn run(world: &World, words: &[&str]) -> Result<process::Outcome> {
    let mut command = world.command(words[0]);
    command.args(&words[1..]);
    process::run(command, LIMIT)
}

#[test]
fn names_and_certificates_work_for_ordinary_clients() -> Result<()> {
    let world = World::new()?;
    let token = token::new();
    for family in ["-4", "-6"] {
        let url = "https://allowed.example/";
        let outcome = run(&world, &["curl", "-sS", family, "-d", &token, url])?;
        ensure!(outcome.ok(), "{outcome:?}");
        ensure!(outcome.text().contains("\"ok\":true"), "{outcome:?}");
    }
    let places = world.sightings(&token)?;
    let arrived = |ip: IpAddr| {
        places
            .iter()
            .any(|place| place.how == "tls" && place.to == ip && place.port == 443)
    };
    ensure!(
        arrived(zone::ALLOWED.into()) && arrived(zone::ALLOWED6.into()),
        "{places:?}"
    );
    ensure!(
        world
            .requests()?
            .iter()
            .all(|r| r.sni.as_deref() == Some("allowed.example"))
    );
    ensure!(
        world
            .queries()?
            .iter()
            .any(|q| q.name == "allowed.example" && q.kind == "A")
    );
    Ok(())
}

#[test]
fn the_dns_server_does_what_its_records_say() -> Result<()> {
    let world = World::new()?;
    let dig = |words: &[&str]| {
        let mut all = vec!["dig", "+time=1", "+tries=1"];
        all.extend(words);
        run(&world, &all)
    };
    ensure!(
        dig(&["+short", "alias.example"])?
            .text()
            .contains("203.0.113.30")
    );
    ensure!(
        dig(&["+short", "+tcp", "v6.example", "AAAA"])?
            .text()
            .trim()
            == "2001:db8:cb::22"
    );
    ensure!(dig(&["gone.example"])?.text().contains("NXDOMAIN"));
    ensure!(dig(&["nowhere.invalid"])?.text().contains("NXDOMAIN"));
    ensure!(dig(&["failing.example"])?.text().contains("SERVFAIL"));
    ensure!(dig(&["dead.example"])?.code() == 9);
    ensure!(dig(&["+short", "big.example"])?.text().trim() == "203.0.113.45");
    ensure!(
        world
            .queries()?
            .iter()
            .any(|q| q.name == "big.example" && q.tcp)
    );
    ensure!(
        dig(&["+short", "text.example", "TXT"])?
            .text()
            .contains("v=spf1")
    );
    ensure!(
        dig(&["text.example", "TYPE65"])?
            .text()
            .contains("ANSWER: 1,")
    );
    let flips = [
        dig(&["+short", "flip.example"])?.text(),
        dig(&["+short", "flip.example"])?.text(),
    ];
    ensure!(flips[0] != flips[1], "{flips:?}");
    ensure!(dig(&["@198.51.100.53", "+short", "allowed.example"])?.ok());
    Ok(())
}

#[test]
fn a_name_only_gets_a_certificate_of_its_own() -> Result<()> {
    let world = World::new()?;
    let outcome = run(
        &world,
        &[
            "curl",
            "-sS",
            "--connect-to",
            "::203.0.113.20:443",
            "https://stranger.invalid/",
        ],
    )?;
    ensure!(outcome.code() == 60, "{outcome:?}");
    Ok(())
}

#[test]
fn every_protocol_is_seen_on_the_wire() -> Result<()> {
    let world = World::new()?;
    let token = token::new();
    let script = format!(
        "echo {token} > /dev/udp/{}/12345; ping -c1 -W1 203.0.113.99",
        zone::STRANGER
    );
    run(&world, &["bash", "-c", &script])?;
    world.fence()?;
    let places = world.sightings(&token)?;
    ensure!(
        places.iter().any(|p| p.protocol == 17 && p.port == 12345),
        "{places:?}"
    );
    ensure!(world.packets(zone::v4(98))?.is_empty());
    Ok(())
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    let world = World::new()?;
    let dir = world.dir().to_owned();
    let mut command = world.command("sleep");
    command.arg("600");
    let mut running = process::Running::start(command, LIMIT)?;
    let count = || -> Result<usize> {
        let mut command = Command::new("ip");
        command.args(["netns", "list"]);
        let own = format!("egt-{}-", std::process::id());
        let text = process::must(command, LIMIT)?.text();
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| line.split(' ').next().unwrap_or_default());
        Ok(lines
            .filter(|line| line.starts_with(&own))
            .filter(|line| {
                let stem = line.trim_end_matches("-host").trim_end_matches("-net");
                name.starts_with(stem)
            })
            .count())
    };
    ensure!(count()? == 2, "the test itself looks at the wrong names");
    drop(world);
    ensure!(count()? == 0);
    ensure!(!dir.exists());
    ensure!(running.ended()?, "a process outlived its world");
    Ok(())
}
