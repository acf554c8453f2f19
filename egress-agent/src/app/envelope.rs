//! What a run has besides where requests are judged.

use std::{ffi::OsString, net::Ipv4Addr, sync::Arc};

use egress_common::abi::map;
use egress_envelope::{
    judge::{Mode, OnViolation},
    secret::Own,
    shape::{Noted, Shape, UNVERSIONED, sentence},
};
use tokio::sync::{mpsc, watch};

use super::{Run, RunError, violation};
use crate::{
    dns::{
        Carrier,
        inspected::{Inspected, Rules},
        stand::Learn,
    },
    envelope::{
        self, Envelope, Judged, Told,
        shapes::{Keeper, Shapes},
    },
    event::model::{self, Body},
    forward::Range,
    host::Cgroup,
    instance::DataPlane,
    kernel::instance::Instance,
    launch::{Spec, env, stdio::Tap, trust},
    policy::model::Policy,
    reload::{Live, say},
    scan::{pinned, secret},
};

/// The envelope proxy's id in the data plane of a `run`.
const PROCESS: u32 = 2;
/// Names that may wait to be learned.
const WAITING: usize = 64;

/// An envelope proxy before it runs.
pub(super) struct Judging {
    range: Range,
    cgroup: Cgroup,
    inspected: Arc<Inspected>,
    learn: mpsc::Receiver<Learn>,
}

impl Judging {
    /// What a policy that judges requests needs before the data plane is loaded; `None`: it judges
    /// none.
    pub(super) fn prepare(policy: &Policy, instance: &Instance) -> Result<Option<Self>, RunError> {
        if policy.inspected().next().is_none() {
            return Ok(None);
        }
        let range = Range::claim().map_err(RunError::Range)?;
        let (told, learn) = mpsc::channel(WAITING);
        Ok(Some(Self {
            inspected: Arc::new(Inspected::new(policy, range.net(), told, PROCESS)),
            cgroup: instance.envelope()?,
            range,
            learn,
        }))
    }

    /// Where its addresses begin.
    pub(super) fn net(&self) -> Ipv4Addr {
        self.range.net()
    }

    /// What the connector's names need.
    pub(super) fn carrier(&self) -> Carrier {
        Carrier::Envelope(Arc::clone(&self.inspected))
    }

    /// Lets the proxy into the data plane, which is not attached yet, and the connector to it.
    pub(super) fn admit(
        &self,
        live: &mut Live,
        plane: &DataPlane,
        instance: &Instance,
    ) -> Result<(), RunError> {
        live.admit_envelope(PROCESS, &self.cgroup)?;
        Ok(plane.plane().attach_proxy(instance.connector().path())?)
    }

    /// Starts the proxy.
    pub(super) async fn start(self, run: &Run, instance: &Instance) -> Result<Working, RunError> {
        let (tap, tapped) = envelope::tap();
        let rules = self.inspected.rules();
        let version = version(&run.command);
        let (keeper, first) = keeper(&run.policy, &version);
        let start = envelope::Start {
            cgroup_procs: self.cgroup.path().join("cgroup.procs"),
            listener: instance.pins().map(map::FORWARDER),
            net: self.range.net(),
            roots: trust::of_host(&run.caller_env),
            operator: operator(run),
            secrets: secrets(run),
            baseline: keeper.baseline(),
            version,
            learn: self.learn,
            rules: rules.clone(),
            tapped,
        };
        let (envelope, ca_pem) = Envelope::start(start).await?;
        Ok(Working {
            envelope,
            ca_pem,
            tap: Some(tap),
            rules,
            keeper,
            first,
            _range: self.range,
        })
    }
}

/// What the operator wrote: values of the environment that is passed on, and the program's
/// arguments.
fn operator(run: &Run) -> Vec<String> {
    let values = environment(run).into_iter().map(|(_, value)| value);
    let arguments = run.command.iter().skip(1).cloned();
    let texts = values
        .chain(arguments)
        .filter_map(|text| text.into_string().ok());
    texts.collect()
}

/// Values of the environment that is passed on and that look like secrets, each as a whole and by
/// its parts: a password out of an address, the lines of what has several.
fn secrets(run: &Run) -> Vec<Own> {
    let mut own = Vec::new();
    for (name, value) in environment(run) {
        let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) else {
            continue;
        };
        let texts = secret::texts(&name, &value);
        own.extend(texts.into_iter().map(|text| Own {
            name: name.clone(),
            text,
        }));
    }
    own
}

/// The environment that is passed on.
fn environment(run: &Run) -> Vec<(OsString, OsString)> {
    let block = run.policy.run.as_ref().and_then(|run| run.env.as_ref());
    env::build(block, run.caller_env.iter().cloned(), &[], &[])
}

/// Who keeps what requests are made of, and why it is not kept.
fn keeper(policy: &Policy, version: &str) -> (Keeper, Option<String>) {
    let mut rules = policy.inspected();
    if !rules.any(|(_, _, inspect)| inspect.shape != Shape::Off) {
        return (Keeper::nobody(), None);
    }
    let shapes = Shapes::open(&policy.connector);
    match shapes.and_then(|shapes| Keeper::start(shapes, version.to_owned())) {
        Ok(keeper) => (keeper, None),
        Err(error) => {
            let told = format!(
                "what requests are made of is not kept, and where “shape: enforce” stands all of \
                 them are refused: {error}"
            );
            (Keeper::nobody(), Some(told))
        }
    }
}

/// The version of the package that a command line starts, where that is written there.
fn version(command: &[OsString]) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let origin = pinned::origin(&words);
    let package = origin.packages.iter().find(|package| package.pinned);
    let version = package.and_then(|package| package.spec.strip_prefix(package.name.as_str()));
    let version = version.map(|rest| rest.trim_start_matches(['@', '=']));
    version
        .filter(|version| !version.is_empty())
        .unwrap_or(UNVERSIONED)
        .to_owned()
}

/// An envelope proxy at work.
pub(super) struct Working {
    envelope: Envelope,
    /// Its authority, for the connector's trust.
    ca_pem: String,
    /// Reads along; taken when the connector starts.
    tap: Option<Tap>,
    rules: watch::Receiver<Rules>,
    /// Keeps what requests are made of.
    keeper: Keeper,
    /// What is to be told before anything else.
    first: Option<String>,
    _range: Range,
}

impl Working {
    /// Prepares the connector: whom it trusts. Answers who reads along what its client says.
    pub(super) fn equip(&mut self, run: &Run, spec: &mut Spec) -> Option<Tap> {
        let program = run.command.first().map(OsString::as_os_str);
        spec.trust = Some(trust::plan(self.ca_pem.clone(), &mut spec.env, program));
        self.tap.take()
    }

    /// The next thing to be told of the proxy. Safe to cancel.
    pub(super) async fn told(&mut self) -> Told {
        if let Some(first) = self.first.take() {
            return Told::Warning(first);
        }
        self.envelope.next().await
    }

    /// What is left to be told.
    pub(super) fn last(&mut self) -> Option<Told> {
        let left = self.envelope.last();
        left.or_else(|| self.keeper.finish().map(Told::Warning))
    }

    /// What is to become of the connector for what it tried, and why.
    pub(super) fn violation(&self, told: &Told) -> Option<(OnViolation, String)> {
        let Told::Operation(judged) = told else {
            return None;
        };
        let rules = self.rules.borrow();
        violation::of(rules.get(&judged.name)?, judged)
    }

    /// As a line of the stream.
    pub(super) fn body(&self, told: Told, connector: &str, instance: &str) -> Body {
        let reports = match &told {
            Told::Operation(judged) => {
                let rules = self.rules.borrow();
                let inspect = rules.get(&judged.name);
                inspect.is_some_and(|inspect| inspect.mode == Mode::Report)
            }
            Told::Warning(_) => false,
        };
        if let Told::Operation(judged) = &told
            && let Some(noted) = &judged.operation.shape
        {
            self.keeper.note(Noted::clone(noted));
        }
        body(told, connector, instance, reports)
    }
}

/// As a line of the stream. `reports`: refusals are not carried out.
pub(super) fn body(told: Told, connector: &str, instance: &str, reports: bool) -> Body {
    match told {
        Told::Warning(line) => say::warning(connector, instance, "envelope", line),
        Told::Operation(judged) => {
            Body::Operation(operation(connector, instance, reports, *judged))
        }
    }
}

fn operation(connector: &str, instance: &str, reports: bool, judged: Judged) -> model::Operation {
    let Judged {
        name,
        port,
        operation,
        refusals,
        status,
    } = judged;
    let verdict = match (refusals.is_empty(), reports) {
        (true, _) => model::Operation::PASSED,
        (false, true) => model::Operation::WOULD_REFUSE,
        (false, false) => model::Operation::REFUSED,
    };
    let (tool, call) = match operation.call {
        Some(call) => (Some(call.tool), call.id.map(|id| id.to_string())),
        None => (None, None),
    };
    let recipients = operation
        .recipients
        .into_iter()
        .map(super::origin::recipient);
    let new = operation.shape.filter(|noted| !noted.learned);
    let new = new.map(|noted| news(&noted)).unwrap_or_default();
    model::Operation {
        connector: connector.to_owned(),
        instance: instance.to_owned(),
        verdict: verdict.to_owned(),
        name,
        port,
        operation: operation.id,
        method: operation.method,
        path: operation.path,
        tool,
        call,
        recipients: recipients.collect(),
        refusals: refusals
            .into_iter()
            .map(|refusal| model::OperationRefusal {
                message: refusal.to_string(),
                reason: super::origin::name(&refusal.reason),
                place: refusal.place,
                value: refusal.value,
            })
            .collect(),
        headers: operation.headers,
        body: operation.body,
        status,
        new,
    }
}

/// What was new in a request, in sentences.
fn news(noted: &Noted) -> Vec<String> {
    let Noted {
        operation,
        new,
        before,
        version,
        ..
    } = noted;
    let new = new.iter();
    new.map(|thing| sentence(thing, operation, *before, version))
        .collect()
}
