//! Tries the vectors of [`crate::probe`] and tells from the receivers what became of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::{
    agent::{WITHOUT, unconfined},
    probe::{self, Company, Evidence, Family, Job, MARK, MULTIPATH_PORT, Needs, PORT, Vector},
    process::{Running, patience},
    programs,
    protocol::{Query, Request, Sighting},
    stage::Stage,
    token,
    world::{USER, World},
    zone,
};

const LIMIT: Duration = Duration::from_secs(150);
const CALL: Duration = Duration::from_secs(15);
/// The agent's exit code where it could not start the connector.
const FAILED: i32 = 125;
/// Vectors that run at the same time; most of them wait.
const WIDTH: usize = 12;
/// The same where everything is slow: they would take each other's time.
const WIDTH_SLOW: usize = 6;
/// What a dead program left in its sockets is sent again within this time (TCP's first
/// retransmissions), and the accomplices outside have passed on what they heard.
const AFTERMATH: Duration = Duration::from_millis(2500);
/// The digits of a token, see [`token::new`].
const TOKEN_DIGITS: usize = 24;
const MOMENT: Duration = Duration::from_millis(300);

/// How a battery of vectors is confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// Not at all.
    Free,
    /// By this project's agent, with [`probe_policy`].
    Agent,
    /// By the agent of test builds without some of its layers; commas between.
    Without(String),
    /// By a command line in front, for `/bin/sh`; `{user}` and `{policy}` are replaced.
    Command {
        /// The command line.
        line: String,
        /// It does not change the user: the battery does that itself, inside.
        keeps_user: bool,
    },
}

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The token arrived, here.
    Delivered(String),
    /// It did not; this is what the program noticed.
    Blocked(String),
    /// It did not, and was not tried: it could not be set up, or broke off.
    Untried(String),
}

/// What a row means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Verdict {
    /// The token got out.
    Delivered,
    /// It got out, as it does past everything that looks at network traffic; the suite says why.
    Limit,
    /// It got out only where nothing confined it.
    Blocked,
    /// This way does not exist here, for this user.
    NotApplicable,
    /// It did not get out even where nothing confined it, though it should; or under the confinement
    /// it was not tried to the end. The vector proves nothing.
    Unproven,
}

/// One vector for one user: unconfined, confined, and confined to a declared address.
#[derive(Debug)]
pub struct Row {
    /// Of [`probe::FAMILIES`].
    pub family: &'static str,
    /// The vector.
    pub vector: &'static Vector,
    /// Tried by root.
    pub as_root: bool,
    free: Fate,
    confined: Fate,
    control: Option<Fate>,
}

/// The policy of every probe: declared addresses, TCP and UDP, a declared name, and names whose
/// answers must not count.
pub fn probe_policy(root: bool) -> String {
    let mut text = "version: 1\nconnector: probe\nmode: enforce\nallow:\n".to_owned();
    for prefix in [
        format!("{}/32", zone::ALLOWED),
        format!("\"{}/128\"", zone::ALLOWED6),
    ] {
        let _ = write!(
            text,
            "  - cidr: {prefix}\n    ports: [{PORT}, {MULTIPATH_PORT}]\n    protocol: any\n"
        );
    }
    text.push_str("  - allowed.example:443\n  - \"*.ingest.sentry.io:443\"\n");
    text.push_str("  - small-window.example:443\n");
    let _ = write!(
        text,
        "  - \"*.{}:443\"\n  - {}:443\n",
        probe::ORDER,
        probe::KINDS
    );
    let _ = write!(
        text,
        "  - host: \"*.{}\"\n    ports: [{PORT}]\n    protocol: any\n",
        probe::BRIEF
    );
    for name in probe::REBINDING {
        let _ = write!(
            text,
            "  - host: {name}\n    ports: [{}, {PORT}]\n    protocol: any\n",
            probe::RELAY_PORT
        );
    }
    text.push_str("dns:\n  ttl: { floor: 1s, grace: 1s }\n");
    if root {
        text.push_str("run:\n  user: root\n");
    }
    text
}

/// Tries a family of vectors as both users under the agent; see `judge`.
pub fn try_family(name: &str) -> Result<()> {
    let families = probe::FAMILIES.iter().filter(|family| family.name == name);
    let mut rows = Vec::new();
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    for family in families {
        for as_root in [false, true] {
            rows.extend(try_some(
                &world,
                &stage,
                &Wrap::Agent,
                all_of(family),
                as_root,
            )?);
        }
    }
    ensure!(!rows.is_empty(), "no family {name}");
    judge(&rows)
}

/// Tries every family as one user under the agent, in one start but for the vectors that want
/// a start of their own; see `judge`.
pub fn try_all(as_root: bool) -> Result<()> {
    let world = World::new()?;
    let stage = Stage::new(&world)?;
    let vectors = probe::FAMILIES.iter().flat_map(all_of).collect();
    judge(&try_some(&world, &stage, &Wrap::Agent, vectors, as_root)?)
}

/// Prints the rows and fails, with the table of what does not hold, unless every vector that
/// works without the agent is blocked by it and every control arrived.
fn judge(rows: &[Row]) -> Result<()> {
    println!("{}{}", table(rows), summary(rows));
    let bad: Vec<&Row> = rows.iter().filter(|row| !row.holds()).collect();
    ensure!(bad.is_empty(), "these do not hold:\n{}", table(bad));
    Ok(())
}

/// The vectors of a family with its name.
pub fn all_of(family: &'static Family) -> Vec<(&'static str, &'static Vector)> {
    let pair = |vector| (family.name, vector);
    family.vectors.iter().map(pair).collect()
}

/// Tries vectors as one user: unconfined, confined, and the controls.
pub fn try_some(
    world: &World,
    stage: &Stage,
    wrap: &Wrap,
    vectors: Vec<(&'static str, &'static Vector)>,
    as_root: bool,
) -> Result<Vec<Row>> {
    let tries = |kind: fn(&str, &std::path::Path) -> Job| -> Vec<Try> {
        let one = |(_, vector): &(_, &'static Vector)| Try {
            vector,
            job: kind(&token::new(), stage.dir()),
            control: false,
        };
        vectors.iter().map(one).collect()
    };
    let (free, confined) = (tries(Job::forbidden), tries(Job::forbidden));
    let mut control = tries(Job::permitted);
    control.iter_mut().for_each(|one| one.control = true);
    let agents = matches!(wrap, Wrap::Agent | Wrap::Without(_));
    let has_control = |vector: &Vector| vector.control && (!agents || vector.control_is_known());
    let controlled = control.iter().filter(|one| has_control(one.vector));
    let suite = Suite {
        world,
        stage,
        as_root,
    };
    let free_fates = suite.carry_out(&Wrap::Free, &free.iter().collect::<Vec<_>>())?;
    let both: Vec<&Try> = confined.iter().chain(controlled).collect();
    let fates = suite.carry_out(wrap, &both)?;
    let of = |fates: &BTreeMap<String, Fate>, one: &Try| {
        let fate = fates.get(&one.job.token).cloned();
        fate.unwrap_or_else(|| Fate::Untried("it was not tried".to_owned()))
    };
    let rows = vectors
        .iter()
        .enumerate()
        .map(|(index, (family, vector))| Row {
            family,
            vector,
            as_root,
            free: of(&free_fates, &free[index]),
            confined: of(&fates, &confined[index]),
            control: has_control(vector).then(|| of(&fates, &control[index])),
        });
    Ok(rows.collect())
}

/// Names of the vectors that get out of a confinement.
pub fn delivered(
    world: &World,
    stage: &Stage,
    wrap: &Wrap,
    vectors: &[(&'static str, &'static Vector)],
    as_root: bool,
) -> Result<BTreeSet<&'static str>> {
    let tries: Vec<Try> = vectors
        .iter()
        .map(|(_, vector)| Try {
            vector,
            job: Job::forbidden(&token::new(), stage.dir()),
            control: false,
        })
        .collect();
    let suite = Suite {
        world,
        stage,
        as_root,
    };
    let fates = suite.carry_out(wrap, &tries.iter().collect::<Vec<_>>())?;
    let out = |one: &&Try| fates.get(&one.job.token).is_some_and(Fate::is_delivered);
    Ok(tries
        .iter()
        .filter(out)
        .map(|one| one.vector.name)
        .collect())
}

/// One vector with its token.
struct Try {
    vector: &'static Vector,
    job: Job,
    control: bool,
}

/// What every run of one user shares.
struct Suite<'w> {
    world: &'w World,
    stage: &'w Stage,
    as_root: bool,
}

impl Suite<'_> {
    /// Tries all, those that stay among others in one run, and looks what arrived.
    fn carry_out(&self, wrap: &Wrap, tries: &[&Try]) -> Result<BTreeMap<String, Fate>> {
        let queries = self.world.queries()?.len();
        let (alone, together): (Vec<&Try>, Vec<&Try>) =
            tries.iter().partition(|one| one.vector.company.is_alone());
        let mut callers = BTreeMap::new();
        let mut said = self.run(wrap, &together, &mut callers)?;
        for some in apart(alone) {
            said.extend(self.run(wrap, &some, &mut callers)?);
        }
        let free = *wrap == Wrap::Free || unconfined();
        // An orphan of a vector may be slow where everything is.
        let moment = MOMENT * patience();
        thread::sleep(if free { moment } else { AFTERMATH.max(moment) });
        self.world.fence()?;
        let asked = self.world.queries()?;
        let asked = &asked[queries..];
        let capitals = asked
            .iter()
            .any(|query| query.name.chars().any(char::is_uppercase));
        let mut fates = BTreeMap::new();
        for one in tries {
            let said = said.get(&one.job.token).cloned().unwrap_or_default();
            let mut places = self.world.sightings(&one.job.token)?;
            places.retain(|place| !is_complaint(place));
            let arrived = if one.control {
                places.iter().any(is_declared)
            } else {
                match one.vector.evidence {
                    Evidence::Stranger => !places.iter().all(is_declared),
                    Evidence::Anywhere => !places.is_empty(),
                    Evidence::Reached => said.starts_with(probe::REACHED),
                    Evidence::Capitals => capitals,
                    Evidence::Answered => match callers.get(&one.job.token) {
                        Some(caller) => !self.world.packets(*caller)?.is_empty(),
                        None => false,
                    },
                    Evidence::Order => is_spelled(asked, &one.job.token),
                }
            };
            let untried = said.starts_with(probe::UNTRIED);
            let fate = if arrived {
                Fate::Delivered(list(&places))
            } else if untried && one.vector.company != Company::Ending {
                Fate::Untried(said)
            } else {
                Fate::Blocked(said)
            };
            fates.insert(one.job.token.clone(), fate);
        }
        Ok(fates)
    }

    /// One start of the confinement. What each vector said, and who called it, by its token.
    fn run(
        &self,
        wrap: &Wrap,
        tries: &[&Try],
        callers: &mut BTreeMap<String, IpAddr>,
    ) -> Result<BTreeMap<String, String>> {
        if tries.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut running = Running::start(self.command(wrap, tries)?, LIMIT)?;
        let mut seen = 0;
        let mut said = BTreeMap::new();
        loop {
            let ended = running.ended()?;
            let out = running.stdout();
            let text = String::from_utf8_lossy(&out[seen..]).into_owned();
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            seen += whole;
            for line in text[..whole].lines() {
                let mut words = line.splitn(4, ' ');
                match [words.next(), words.next(), words.next(), words.next()] {
                    [Some(MARK), Some("said"), Some(token), rest] => {
                        said.insert(token.to_owned(), rest.unwrap_or_default().to_owned());
                    }
                    [Some(MARK), Some(probe::LISTENING), Some(token), Some(port)] => {
                        if let Some(caller) = self.call(tries, token, port)? {
                            callers.insert(token.to_owned(), caller);
                        }
                    }
                    _ => {}
                }
            }
            if ended {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let outcome = running.wait()?;
        ensure!(
            !said.is_empty() || all_alone(tries),
            "nothing was tried (code {}): {}{}",
            outcome.code(),
            outcome.text(),
            outcome.stderr
        );
        // A start that failed would look like a boundary that holds.
        ensure!(
            !(said.is_empty() && outcome.code() == FAILED),
            "it did not start: {}{}",
            outcome.text(),
            outcome.stderr
        );
        for one in tries {
            let how = || {
                let last = last_line(&outcome.stderr);
                format!("{} no word from it: {last}", probe::UNTRIED)
            };
            said.entry(one.job.token.clone()).or_insert_with(how);
        }
        Ok(said)
    }

    fn command(&self, wrap: &Wrap, tries: &[&Try]) -> Result<std::process::Command> {
        let user = if self.as_root { 0 } else { USER }.to_string();
        let stage = self.stage.dir().display().to_string();
        let probe = self.world.bin("probe");
        let mut command = self.world.command(&probe);
        command.args(["inherit", &stage]);
        if tries.iter().any(|one| one.vector.needs == Needs::Terminal) {
            command.args([&probe, "terminal", &user]);
        }
        let change_user = [
            "setpriv",
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--clear-groups",
            "--",
        ];
        let policy = self.world.path("policy.yaml");
        std::fs::write(&policy, probe_policy(self.as_root))?;
        match wrap {
            Wrap::Agent | Wrap::Without(_) if !unconfined() => {
                let agent = if let Wrap::Without(layers) = wrap {
                    command.env(WITHOUT, layers);
                    programs::agent_with_switches()?
                } else {
                    programs::agent()?
                };
                command.arg(agent).args(["run", "--policy"]);
                command.arg(&policy).arg("--events");
                command.arg(self.world.path("events.jsonl"));
                // The rebinding names have no address that counts.
                command.args(["--user", &user, "--start-unresolved", "--"]);
            }
            Wrap::Agent | Wrap::Without(_) | Wrap::Free => drop(command.args(change_user)),
            Wrap::Command { line, keeps_user } => {
                let line = line
                    .replace("{user}", &user)
                    .replace("{policy}", &policy.display().to_string());
                command.args(["/bin/sh", "-c", &format!("exec {line} \"$@\""), "wrap"]);
                if *keeps_user {
                    command.args(change_user);
                }
            }
        }
        let width = match patience() {
            _ if all_alone(tries) => 1,
            1 => WIDTH,
            _ => WIDTH_SLOW,
        };
        command.args([&probe, "battery", &stage, &width.to_string()]);
        for one in tries {
            let kind = if one.control {
                "permitted"
            } else {
                "forbidden"
            };
            command.arg(format!("{}:{kind}:{}", one.vector.name, one.job.token));
        }
        Ok(command)
    }

    /// A stranger calls a vector that listens; from an address of its own, if that is what counts.
    /// Under a confinement the call may fail, which is one way of being blocked.
    fn call(&self, tries: &[&Try], token: &str, port: &str) -> Result<Option<IpAddr>> {
        let Some(one) = tries.iter().find(|one| one.job.token == token) else {
            bail!("an unknown vector listens");
        };
        let port = port.trim().parse()?;
        let to = SocketAddr::new(zone::HOST.into(), port);
        let text = "hello".to_owned();
        let mut caller = None;
        let request = match one.vector.needs {
            Needs::TcpCall => Request::Dial {
                from: zone::STRANGER.into(),
                to,
                text,
            },
            Needs::Caller => Request::Knock {
                from: *caller.insert(fresh(false)),
                to,
            },
            Needs::Caller6 => Request::Knock {
                from: *caller.insert(fresh(true)),
                to: SocketAddr::new(zone::HOST6.into(), port),
            },
            Needs::UdpCall => Request::Poke {
                from: SocketAddr::new(zone::STRANGER.into(), 7777),
                to,
                text,
            },
            Needs::Nothing | Needs::Terminal => return Ok(None),
        };
        drop(self.world.ask(&request));
        Ok(caller)
    }
}

/// A stranger's address that nobody had before: so whatever arrives there is an answer.
fn fresh(six: bool) -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(100);
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    if six {
        let [a, b, c, d, e, f, g, _] = zone::STRANGER6.segments();
        return IpAddr::from([a, b, c, d, e, f, g, 0x1000 | u16::from(last)]);
    }
    let [a, b, c, _] = zone::STRANGER.octets();
    IpAddr::from([a, b, c, last.max(100)])
}

/// Whether the order of questions spells the beginning of a token's digits.
fn is_spelled(asked: &[Query], token: &str) -> bool {
    let digits = &token[token.len() - TOKEN_DIGITS..];
    let below = format!(".{}", probe::ORDER);
    let order = asked.iter().filter(|query| query.kind == "A");
    let order: String = order
        .filter_map(|query| query.name.strip_suffix(&below))
        .collect();
    let kinds = asked.iter().filter(|query| query.name == probe::KINDS);
    let kinds: String = kinds
        .map(|query| if query.kind == "AAAA" { '1' } else { '0' })
        .collect();
    let number = u32::from_str_radix(&digits[..probe::KINDS_DIGITS], 16);
    let bits = number.map(|number| format!("{number:032b}"));
    order.contains(digits) || bits.is_ok_and(|bits| kinds.contains(&bits))
}

fn all_alone(tries: &[&Try]) -> bool {
    tries.iter().all(|one| one.vector.company.is_alone())
}

/// Starts of their own for vectors that may ruin one. Where a start takes minutes those that only
/// might do so come one after the other in the same: what one of them opened, another would use.
/// Whoever shares a terminal is kept from those that end its other side.
fn apart(alone: Vec<&Try>) -> Vec<Vec<&Try>> {
    if patience() == 1 {
        return alone.into_iter().map(|one| vec![one]).collect();
    }
    let (ending, staying): (Vec<&Try>, Vec<&Try>) = alone
        .into_iter()
        .partition(|one| one.vector.company == Company::Ending);
    let (terminal, others): (Vec<&Try>, Vec<&Try>) = staying
        .into_iter()
        .partition(|one| one.vector.needs == Needs::Terminal);
    let mut starts = vec![terminal, others];
    for one in ending {
        match starts.get_mut(1) {
            Some(last) if last.iter().all(|one| one.vector.company != Company::Ending) => {
                last.push(one);
            }
            _ => starts.push(vec![one]),
        }
    }
    starts
}

/// A plain TCP or UDP packet, stream or request to an address and port of [`probe_policy`].
fn is_declared(place: &Sighting) -> bool {
    let addresses = [IpAddr::from(zone::ALLOWED), zone::ALLOWED6.into()];
    let ports = [PORT, MULTIPATH_PORT, 443];
    addresses.contains(&place.to)
        && ports.contains(&place.port)
        && [6, 17].contains(&place.protocol)
}

/// An ICMP error: the host's kernel quotes what came to a socket that is gone.
fn is_complaint(place: &Sighting) -> bool {
    matches!((place.protocol, place.port), (1, 3 | 11 | 12) | (58, 1..=4))
}

/// Where a token arrived that must not, at most three places of it.
fn list(places: &[Sighting]) -> String {
    let strange = places.iter().filter(|place| !is_declared(place));
    let texts = strange.map(|place| {
        let Sighting {
            how,
            protocol,
            to,
            port,
        } = place;
        format!("{how} {to} port {port} protocol {protocol}")
    });
    texts.take(3).collect::<Vec<_>>().join(", ")
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or("it said nothing")
}

impl Fate {
    fn is_delivered(&self) -> bool {
        matches!(self, Self::Delivered(_))
    }
}

impl Row {
    /// What the row means.
    pub fn verdict(&self) -> Verdict {
        let said_missing = |fate: &Fate| match fate {
            Fate::Blocked(why) => why.starts_with("NOT APPLICABLE"),
            Fate::Delivered(_) | Fate::Untried(_) => false,
        };
        match (&self.confined, &self.free) {
            (Fate::Delivered(_), _) if self.vector.excuse().is_none() => Verdict::Delivered,
            (Fate::Delivered(_), _) => Verdict::Limit,
            (Fate::Blocked(_), Fate::Delivered(_)) => Verdict::Blocked,
            (Fate::Untried(_), Fate::Delivered(_)) => Verdict::Unproven,
            _ if self.vector.optional || said_missing(&self.free) => Verdict::NotApplicable,
            _ if self.vector.root && !self.as_root => Verdict::NotApplicable,
            _ => Verdict::Unproven,
        }
    }

    /// Whether the control arrived; true where there is none.
    pub fn control_arrived(&self) -> bool {
        self.control.as_ref().is_none_or(Fate::is_delivered)
    }

    /// Whether nothing is wrong with it.
    pub fn holds(&self) -> bool {
        let fine = !matches!(self.verdict(), Verdict::Delivered | Verdict::Unproven);
        fine && self.control_arrived()
    }

    /// What the program noticed, or why it does not apply.
    pub fn noticed(&self) -> String {
        let text = match (&self.confined, &self.free, self.verdict()) {
            (_, _, Verdict::Limit) => self.vector.excuse().unwrap_or_default().to_owned(),
            (_, _, Verdict::NotApplicable) if self.vector.root && !self.as_root => {
                "needs root".to_owned()
            }
            (Fate::Untried(why), Fate::Delivered(_), _) => why.clone(),
            (
                _,
                Fate::Blocked(why) | Fate::Untried(why),
                Verdict::NotApplicable | Verdict::Unproven,
            ) => format!("unconfined: {why}"),
            (Fate::Blocked(why) | Fate::Untried(why), ..) => why.clone(),
            (Fate::Delivered(places), ..) => format!("{} · {places}", self.vector.about),
        };
        match &self.control {
            Some(Fate::Blocked(why) | Fate::Untried(why)) => {
                format!("{text} · CONTROL MISSING: {why}")
            }
            _ => text,
        }
    }

    /// As one JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "family": self.family,
            "vector": self.vector.name,
            "about": self.vector.about,
            "user": if self.as_root { "root" } else { "unprivileged" },
            "verdict": self.verdict(),
            "delivered_unconfined": self.free.is_delivered(),
            "control": self.control.as_ref().map(Fate::is_delivered),
            "noticed": self.noticed(),
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Delivered => "DELIVERED",
            Self::Limit => "OPEN LIMIT",
            Self::Blocked => "BLOCKED",
            Self::NotApplicable => "NOT APPLICABLE",
            Self::Unproven => "UNPROVEN",
        })
    }
}

/// The rows as text, grouped by family.
pub fn table<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let mut text = String::new();
    let mut family = "";
    for row in rows {
        if row.family != family {
            family = row.family;
            let _ = writeln!(text, "{family}");
        }
        let user = if row.as_root { "root" } else { "user" };
        let control = match &row.control {
            None => " ",
            Some(Fate::Delivered(_)) => "+",
            Some(Fate::Blocked(_) | Fate::Untried(_)) => "!",
        };
        let (verdict, name) = (row.verdict(), row.vector.name);
        let _ = writeln!(
            text,
            "  {verdict:14} {control} {user} {name:26} {}",
            row.noticed()
        );
    }
    text
}

/// One line of counts.
pub fn summary(rows: &[Row]) -> String {
    let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    let controls = rows.iter().filter(|row| row.control.is_some());
    let (arrived, missing): (Vec<&Row>, Vec<&Row>) =
        controls.partition(|row| row.control_arrived());
    format!(
        "{} delivered, {} open limits, {} blocked, {} not applicable, {} unproven; \
         controls: {} arrived, {} missing\n",
        count(Verdict::Delivered),
        count(Verdict::Limit),
        count(Verdict::Blocked),
        count(Verdict::NotApplicable),
        count(Verdict::Unproven),
        arrived.len(),
        missing.len()
    )
}

/// An accomplice outside the confinement that passes on what it gets, as long as it lives.
pub fn relay(world: &World) -> Result<Running> {
    let mut command = world.command(world.bin("probe"));
    command.arg("relay");
    let mut relay = Running::start(command, LIMIT)?;
    let end = Instant::now() + CALL * patience();
    while relay.stdout().is_empty() {
        ensure!(
            !relay.ended()? && Instant::now() < end,
            "no relay: {}",
            relay.stderr()
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(relay)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the vector `tcp4`, or of one that some kernels do not have.
    fn verdict(name: &str, free: Fate, confined: Fate) -> Verdict {
        let vector = probe::vector(name).expect("a vector");
        let row = Row {
            family: "streams",
            vector,
            as_root: false,
            free,
            confined,
            control: None,
        };
        row.verdict()
    }

    #[test]
    fn what_was_not_tried_is_not_blocked() {
        let out = || Fate::Delivered(String::new());
        let refused = || Fate::Blocked("REFUSED EPERM".to_owned());
        let untried = || Fate::Untried(format!("{} exit status: 101", probe::UNTRIED));
        for name in ["tcp4", "mptcp4"] {
            assert_eq!(verdict(name, out(), refused()), Verdict::Blocked);
            assert_eq!(verdict(name, out(), untried()), Verdict::Unproven);
            assert_eq!(verdict(name, out(), out()), Verdict::Delivered);
            assert_eq!(verdict(name, refused(), out()), Verdict::Delivered);
        }
        assert_eq!(verdict("tcp4", refused(), refused()), Verdict::Unproven);
        assert_eq!(verdict("tcp4", untried(), untried()), Verdict::Unproven);
    }

    #[test]
    fn an_order_of_questions_spells_a_token() {
        let token = "egt-0123456789abcdef01234567";
        let ask = |name: String, kind: &str| Query {
            name,
            kind: kind.to_owned(),
            server: zone::DNS,
            tcp: false,
        };
        let digits = |digits: &str| -> Vec<Query> {
            let name = |digit| format!("{digit}.{}", probe::ORDER);
            digits.chars().map(|digit| ask(name(digit), "A")).collect()
        };
        assert!(is_spelled(&digits("ff0123456789abcdef01234567"), token));
        assert!(!is_spelled(&digits("0123456789abcdef"), token));
        let kinds = |number: u32| -> Vec<Query> {
            let bits = format!("{number:032b}");
            let kind = |bit| if bit == '1' { "AAAA" } else { "A" };
            let one = |bit| ask(probe::KINDS.to_owned(), kind(bit));
            bits.chars().map(one).collect()
        };
        assert!(is_spelled(&kinds(0x0123_4567), token));
        assert!(!is_spelled(&kinds(0x1123_4567), token));
    }
}
