//! From "the policy may have changed" to the policy in force.

use std::{future::pending, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    fault::{Broken, Refused},
    plane::{Changed, Live},
    say,
    watch::Watch,
};
use crate::{
    dns::{self, Names, Prefetched},
    event::{
        model::{Body, PolicyChange},
        pump::Telling,
    },
    grant::Keeper,
    host::{User, layers::Layers, trust::Changeable},
    policy::{
        self, Faults, judged, load_traced,
        model::{Mode, Policy},
        proxy::{self, Choice},
        session::Session,
        tables::Memory,
    },
};

/// Running flows are looked through again so long after a change: a `connect()` may have
/// been approved under a rule in the moment in which it was switched off.
const AGAIN: Duration = Duration::from_millis(250);

/// What a reload works with.
pub struct Start {
    /// The policy in the data plane.
    pub live: Live,
    /// Who judges names.
    pub names: Arc<Names>,
    /// Who holds the grants.
    pub keeper: Arc<Keeper>,
    /// Where names go that are to be kept fresh.
    pub more: mpsc::Sender<Vec<Prefetched>>,
    /// Which layers hold.
    pub layers: Layers,
    /// Name of the instance.
    pub instance: String,
    /// The command line says that nothing is refused, whatever the file says.
    pub audit: bool,
    /// Why the file is not read again.
    pub changeable: Option<Changeable>,
    /// As whom the connector runs.
    pub user: User,
    /// What its caller's session said at the start.
    pub session: Session,
    /// Look at the file by itself.
    pub watch: bool,
}

/// Changes the policy of a running connector where it is asked to, and where its file changes.
pub struct Reload {
    start: Start,
    watch: Option<Watch>,
    reading: Option<Reading>,
    asked_again: bool,
    fetching: JoinSet<Vec<Body>>,
    again: Option<(Instant, Memory)>,
    /// Unix sockets that rules named at the start.
    held: Vec<String>,
}

/// A file that is being read.
struct Reading {
    task: JoinHandle<Result<Read, Faults>>,
    /// Somebody asked for it, and is told also that nothing has changed.
    asked: bool,
}

/// What became of reading the file.
enum Read {
    Policy(Box<Policy>, Vec<String>),
    /// The connector could have written it.
    Changeable(Changeable),
}

enum Turn {
    Seen,
    Read(Result<Read, Faults>),
    Again,
    Fetched(Vec<Body>),
}

impl Reload {
    /// Nothing has happened yet.
    pub fn new(start: Start) -> Self {
        let first = start.live.policy().allow.iter();
        let held = first.filter_map(|rule| rule.target.socket());
        let held = held.map(str::to_owned).collect();
        Self {
            watch: (start.watch && start.changeable.is_none())
                .then(|| Watch::new(&start.live.policy().source)),
            start,
            reading: None,
            asked_again: false,
            fetching: JoinSet::new(),
            again: None,
            held,
        }
    }

    /// Waits for the next thing to do and does it. Safe to cancel while it waits. An error
    /// means that the connector must not run on.
    pub async fn turn(&mut self, stream: &Telling) -> Result<(), Broken> {
        match self.next().await {
            Turn::Seen => self.read(false),
            Turn::Read(result) => return self.take(result, stream),
            Turn::Again => {
                if let Some((_, before)) = self.again.take() {
                    // What is left is refused; its program has to wait for its time-out.
                    let _hangs = self.start.live.end_flows(&self.start.keeper, &before);
                }
            }
            Turn::Fetched(bodies) => bodies.into_iter().for_each(|body| stream.say(body)),
        }
        Ok(())
    }

    /// Reads the policy again, and what the host's own files say of names and what they lead to.
    pub fn ask(&mut self, stream: &Telling) {
        self.start.names.news().ask_again();
        match &self.start.changeable {
            Some(found) => self.kept(&self.refusal(found), stream),
            None => self.read(true),
        }
    }

    /// The policy as it is in the data plane, for its end.
    pub fn into_live(self) -> Live {
        self.start.live
    }

    async fn next(&mut self) -> Turn {
        let again = self.again.as_ref().map(|(when, _)| *when);
        tokio::select! {
            () = seen(&mut self.watch) => Turn::Seen,
            result = read(&mut self.reading) => Turn::Read(result),
            () = due(again) => Turn::Again,
            Some(fetched) = self.fetching.join_next() => Turn::Fetched(fetched.unwrap_or_default()),
        }
    }

    /// Reads the file, away from the tasks that answer queries. While it is read already, it
    /// is read once more afterwards.
    fn read(&mut self, asked: bool) {
        if let Some(reading) = &mut self.reading {
            reading.asked |= asked;
            self.asked_again = true;
            return;
        }
        let path = self.start.live.policy().source.clone();
        let user = self.start.user.clone();
        let session = self.start.session.clone();
        self.reading = Some(Reading {
            task: tokio::task::spawn_blocking(move || read_trusted(&path, &user, &session)),
            asked,
        });
    }

    fn take(&mut self, result: Result<Read, Faults>, stream: &Telling) -> Result<(), Broken> {
        let asked = self.reading.take().is_some_and(|reading| reading.asked);
        if std::mem::take(&mut self.asked_again) {
            self.read(asked);
            return Ok(());
        }
        let (mut policy, unsettled) = match result {
            Ok(Read::Policy(policy, unsettled)) => (*policy, unsettled),
            Ok(Read::Changeable(found)) => {
                self.kept(&self.refusal(&found), stream);
                return Ok(());
            }
            Err(faults) => {
                self.kept(&say::faults(&faults), stream);
                return Ok(());
            }
        };
        self.unchangeable(&mut policy, stream);
        if let Some(way) = judged::unfit(&policy).or_else(|| self.way_round(&policy)) {
            self.kept(&way, stream);
            return Ok(());
        }
        if let Some(told) = self.unspeakable(&policy) {
            self.kept(&told, stream);
            return Ok(());
        }
        let live = &mut self.start.live;
        if !asked && live.is_whole() && policy == **live.policy() {
            return Ok(());
        }
        let late = policy.allow.iter().filter(|rule| {
            let name = rule.target.socket();
            name.is_some_and(|name| !self.held.iter().any(|held| held == name))
        });
        let late = late.map(|rule| {
            let told = format!(
                "rule {} names a unix socket that no rule named at the start: only the launcher \
                 can keep the connector from leading its path elsewhere, so it takes effect at the \
                 next start",
                rule.id
            );
            ("policy", told)
        });
        let unsettled = unsettled.into_iter().map(|told| ("session", told));
        for (topic, told) in unsettled.chain(late) {
            let (connector, instance) = (&live.policy().connector, &self.start.instance);
            stream.say(say::warning(connector, instance, topic, told));
        }
        let required = self.start.layers.require(&policy.require);
        let ready = required.map_err(Refused::from);
        let ready = match ready.and_then(|()| live.prepare(Arc::new(policy), &self.start.names)) {
            Ok(ready) => ready,
            Err(Refused::Faults(faults)) => {
                self.kept(&say::faults(&faults), stream);
                return Ok(());
            }
            Err(refused) => {
                self.kept(&refused.to_string(), stream);
                return Ok(());
            }
        };
        stream.learn(ready.rule_names());
        if let Some(inspected) = self.start.names.inspected() {
            inspected.judge_by(ready.policy());
        }
        match live.replace(ready, &self.start.names, &self.start.keeper) {
            Ok(changed) => self.done(changed, stream),
            Err(Broken::Open(error)) => return Err(Broken::Open(error)),
            Err(broken) => self.warn(
                format!(
                    "the new policy is in force only in part ({broken}): every rule is switched \
                     off, and the connector reaches nothing; send SIGHUP to try again, or \
                     restart it"
                ),
                stream,
            ),
        }
        Ok(())
    }

    /// A rule that judges a host which nobody here can speak for.
    fn unspeakable(&self, policy: &Policy) -> Option<String> {
        let name = match self.start.names.inspected() {
            Some(inspected) => inspected.foreign(policy),
            None => policy.inspected().next().map(|(_, name, _)| name),
        }?;
        Some(format!(
            "“inspect” for {name} is new, and the certificates that the connector trusts were made \
             at its start: restart the connector"
        ))
    }

    /// How a policy would let its connector reach the proxy directly.
    fn way_round(&self, policy: &Policy) -> Option<String> {
        let own = self.start.names.proxied()?.own();
        proxy::way_round(policy, &own)
    }

    /// Puts back what holds until the end of the run, and says so where the file differs.
    fn unchangeable(&self, policy: &mut Policy, stream: &Telling) {
        let old = self.start.live.policy();
        if self.start.audit {
            policy.mode = Mode::Audit;
        }
        if policy.connector != old.connector {
            let message = format!(
                "the name “{}” in the policy takes effect at the next start",
                policy.connector
            );
            self.warn(message, stream);
            policy.connector.clone_from(&old.connector);
        }
        let written = !matches!(policy.proxy, Choice::Caller);
        if written && policy.proxy != old.proxy {
            let message = "the new “proxy:” in the policy takes effect at the next start";
            self.warn(message.to_owned(), stream);
        }
        policy.proxy.clone_from(&old.proxy);
        if policy.run != old.run {
            let message = "the new “run:” in the policy takes effect at the next start";
            self.warn(message.to_owned(), stream);
        }
    }

    fn done(&mut self, changed: Changed, stream: &Telling) {
        let policy = self.start.live.policy();
        stream.say(Body::Policy(PolicyChange {
            connector: policy.connector.clone(),
            instance: self.start.instance.clone(),
            policy: Some(policy.source.display().to_string()),
            mode: say::mode_name(policy.mode).to_owned(),
            added: changed.added,
            removed: changed.removed,
        }));
        self.again = Some((Instant::now() + AGAIN, changed.before));
        let (policy, names) = (Arc::clone(policy), Arc::clone(&self.start.names));
        let (more, instance) = (self.start.more.clone(), self.start.instance.clone());
        self.fetching.spawn(async move {
            let fetched = dns::prefetch_for(&names, |slot| changed.slots.contains(&slot)).await;
            let unresolved = |name| say::unresolved(&policy, &instance, name);
            let unresolved = fetched.iter().filter_map(unresolved).collect();
            // The refresher is gone only when the run ends.
            let _at_the_end = more.send(fetched).await;
            unresolved
        });
    }

    fn refusal(&self, found: &Changeable) -> String {
        say::changeable(self.start.live.policy(), self.start.user.uid, found)
    }

    fn kept(&self, why: &str, stream: &Telling) {
        let message = format!("the policy was not replaced, the one before stays in force: {why}");
        self.warn(message, stream);
    }

    fn warn(&self, message: String, stream: &Telling) {
        let connector = &self.start.live.policy().connector;
        let instance = &self.start.instance;
        stream.say(say::warning(connector, instance, "policy", message));
    }
}

async fn seen(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => pending().await,
    }
}

/// Reads a policy that its own connector has no hand in.
fn read_trusted(path: &Path, user: &User, session: &Session) -> Result<Read, Faults> {
    let mut loaded = load_traced(path)?;
    match policy::changeable_by(&loaded, user)? {
        Some(found) => Ok(Read::Changeable(found)),
        None => {
            let unsettled = session.settle(&mut loaded.policy);
            Ok(Read::Policy(Box::new(loaded.policy), unsettled))
        }
    }
}

async fn read(reading: &mut Option<Reading>) -> Result<Read, Faults> {
    let Some(reading) = reading else {
        return pending().await;
    };
    match (&mut reading.task).await {
        Ok(result) => result,
        Err(error) => Err(policy::Fault::of_file(
            Path::new("policy"),
            format!("reading it failed: {error}"),
            "report this fault",
        )
        .into()),
    }
}

async fn due(again: Option<Instant>) {
    match again {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}
