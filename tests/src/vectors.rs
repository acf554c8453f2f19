//! Tries the vectors of [`crate::probe`] and tells from the receivers what became of them.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    agent::Agent,
    probe::{self, Job, Needs, Vector},
    process::Running,
    protocol::Request,
    token,
    world::World,
    zone,
};

const LIMIT: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(15);

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The token arrived at a stranger's.
    Delivered,
    /// It did not; this is what the program noticed.
    Blocked(String),
}

/// One vector: without the agent, under it, and under it to a declared address.
#[derive(Debug)]
pub struct Row {
    vector: &'static Vector,
    free: Fate,
    confined: Fate,
    control: Option<Fate>,
}

/// The policy of every probe: one declared address, TCP and UDP, and one declared name.
pub fn probe_policy(root: bool) -> String {
    let mut text = "version: 1\nconnector: probe\nmode: enforce\nallow:\n".to_owned();
    for prefix in [
        format!("{}/32", zone::ALLOWED),
        format!("\"{}/128\"", zone::ALLOWED6),
    ] {
        let _ = write!(
            text,
            "  - cidr: {prefix}\n    ports: [{}]\n    protocol: any\n",
            probe::PORT
        );
    }
    text.push_str("  - allowed.example:443\n");
    if root {
        text.push_str("run:\n  user: root\n");
    }
    text
}

/// Tries a family of vectors and fails, with the whole table, unless every one that works
/// without the agent is blocked by it and every control arrives.
pub fn try_all(world: &World, vectors: &'static [Vector]) -> Result<()> {
    let relay = start_relay(world, vectors)?;
    let mut rows = Vec::new();
    for root in [false, true] {
        for needs in [Needs::Nothing, Needs::Relay] {
            let wanted = |v: &&'static Vector| v.root == root && v.needs == needs;
            let group: Vec<&'static Vector> = vectors.iter().filter(wanted).collect();
            if !group.is_empty() {
                rows.extend(try_group(world, &group, root)?);
            }
        }
    }
    for vector in vectors {
        if matches!(vector.needs, Needs::TcpCall | Needs::UdpCall) {
            rows.push(Row {
                vector,
                free: try_call(world, vector, true)?,
                confined: try_call(world, vector, false)?,
                control: None,
            });
        }
    }
    drop(relay);
    println!("{}", table(&rows));
    let bad: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    ensure!(bad.is_empty(), "these do not hold:\n{}", table(bad));
    Ok(())
}

/// All vectors of a group in one run without the agent and one under it.
fn try_group(world: &World, group: &[&'static Vector], root: bool) -> Result<Vec<Row>> {
    let jobs =
        |job: fn(&str) -> Job| -> Vec<Job> { group.iter().map(|_| job(&token::new())).collect() };
    let (free, confined, control) = (
        jobs(Job::forbidden),
        jobs(Job::forbidden),
        jobs(Job::permitted),
    );
    let lines = |jobs: &[Job]| -> Vec<(&'static str, Vec<String>)> {
        let words = |(vector, job): (&&'static Vector, &Job)| {
            let mut words = vec![world.bin("probe")];
            words.extend(job.arguments(vector));
            (vector.name, words)
        };
        group.iter().zip(jobs).map(words).collect()
    };
    let start = |free: bool| -> Agent<'_> {
        let agent = world.agent(probe_policy(root)).limit(LIMIT);
        let agent = if root { agent.user(Some("0")) } else { agent };
        if free { agent.free() } else { agent }
    };
    let said_free = start(true).attempts(&lines(&free))?;
    let mut commands = lines(&confined);
    commands.extend(lines(&control));
    let said = start(false).attempts(&commands)?;
    world.fence()?;
    let rows = group.iter().enumerate().map(|(index, vector)| {
        let controlled = &said.all[group.len() + index];
        Ok(Row {
            vector,
            free: fate(world, &free[index], &said_free.all[index].output)?,
            confined: fate(world, &confined[index], &said.all[index].output)?,
            control: if vector.control {
                Some(control_fate(world, &control[index], &controlled.output)?)
            } else {
                None
            },
        })
    });
    rows.collect()
}

/// A vector that answers a stranger who calls.
fn try_call(world: &World, vector: &'static Vector, free: bool) -> Result<Fate> {
    let job = Job::forbidden(&token::new());
    let mut words = vec![world.bin("probe")];
    words.extend(job.arguments(vector));
    let agent = world.agent(probe_policy(false));
    let agent = if free { agent.free() } else { agent };
    let mut confined = agent.start(&words)?;
    confined.printed(probe::LISTENING, CALL)?;
    let text = String::from_utf8_lossy(&confined.agent.stdout()).into_owned();
    let port = text
        .lines()
        .find_map(|line| line.strip_prefix(probe::LISTENING));
    let port: u16 = port.context("no port")?.trim().parse()?;
    let to = SocketAddr::new(zone::HOST.into(), port);
    let text = "hello".to_owned();
    let request = match vector.needs {
        Needs::TcpCall => Request::Dial {
            from: zone::STRANGER.into(),
            to,
            text,
        },
        Needs::UdpCall => Request::Poke {
            from: SocketAddr::new(zone::STRANGER.into(), 7777),
            to,
            text,
        },
        Needs::Nothing | Needs::Relay => bail!("{} needs no call", vector.name),
    };
    // Under the agent the call itself may fail, which is one way of being blocked.
    let called = world.ask(&request);
    let report = confined.wait()?;
    world.fence()?;
    let noticed = match called {
        Ok(_) => report.text(),
        Err(error) => format!("{error:#}; {}", report.text()),
    };
    fate(world, &job, &noticed)
}

fn fate(world: &World, job: &Job, said: &str) -> Result<Fate> {
    let declared = [IpAddr::from(zone::ALLOWED), zone::ALLOWED6.into()];
    let places = world.sightings(&job.token)?;
    let stranger = places.iter().any(|place| !declared.contains(&place.to));
    Ok(if stranger {
        Fate::Delivered
    } else {
        Fate::Blocked(brief(said))
    })
}

fn control_fate(world: &World, job: &Job, said: &str) -> Result<Fate> {
    let declared = [IpAddr::from(zone::ALLOWED), zone::ALLOWED6.into()];
    let places = world.sightings(&job.token)?;
    let arrived = places.iter().any(|place| declared.contains(&place.to));
    Ok(if arrived {
        Fate::Delivered
    } else {
        Fate::Blocked(brief(said))
    })
}

fn brief(said: &str) -> String {
    let mut lines = said.lines().rev();
    lines
        .find(|line| !line.starts_with(probe::LISTENING))
        .unwrap_or("it said nothing")
        .to_owned()
}

impl Row {
    fn holds(&self) -> bool {
        let meaningful = self.free == Fate::Delivered || self.vector.optional;
        let control = self
            .control
            .as_ref()
            .is_none_or(|fate| *fate == Fate::Delivered);
        meaningful && self.confined != Fate::Delivered && control
    }

    /// `NOT APPLICABLE` where the way does not exist here even without the agent.
    fn verdict(&self) -> &'static str {
        match (&self.confined, &self.free) {
            (Fate::Delivered, _) => "DELIVERED",
            (Fate::Blocked(_), Fate::Delivered) => "BLOCKED",
            (Fate::Blocked(_), Fate::Blocked(_)) => "NOT APPLICABLE",
        }
    }
}

fn table<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let mut text = String::new();
    for row in rows {
        let control = match &row.control {
            None => "-".to_owned(),
            Some(Fate::Delivered) => "arrived".to_owned(),
            Some(Fate::Blocked(why)) => format!("MISSING ({why})"),
        };
        let noticed = match (&row.confined, &row.free) {
            (_, Fate::Blocked(why)) => format!("free: {why}"),
            (Fate::Blocked(why), _) => why.clone(),
            (Fate::Delivered, _) => String::new(),
        };
        let (verdict, name) = (row.verdict(), row.vector.name);
        let _ = writeln!(text, "{verdict:14} {name:24} control {control:8} {noticed}");
    }
    text
}

/// The accomplice outside, as long as the value lives.
fn start_relay(world: &World, vectors: &[Vector]) -> Result<Option<Running>> {
    if vectors.iter().all(|vector| vector.needs != Needs::Relay) {
        return Ok(None);
    }
    relay(world).map(Some)
}

/// An accomplice outside the confinement that passes on what it gets, as long as it lives.
pub fn relay(world: &World) -> Result<Running> {
    let mut command = world.command(world.bin("probe"));
    command.arg("relay");
    let mut relay = Running::start(command, LIMIT)?;
    let end = std::time::Instant::now() + CALL;
    while relay.stdout().is_empty() {
        ensure!(
            !relay.ended()? && std::time::Instant::now() < end,
            "no relay: {}",
            relay.stderr()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(relay)
}
