//! One connector in the foreground, with a data plane of its own.

use std::{ffi::OsString, path::PathBuf};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    beside::Beside,
    cautions::leftovers,
    fault::RunError,
    outside::{Order, Outside},
    session::{Session, session},
};
use crate::{
    event::{pump::PumpError, sink},
    exit,
    host::{
        User,
        inherited::Inherited,
        switch::{self, Step},
        trust::Changeable,
    },
    instance::DataPlane,
    kernel::{
        Settings,
        instance::Instance,
        leftovers::{Leftovers, clean_leftovers},
        load::Sizes,
        probe,
    },
    launch::{Callers, Cwd, Given, Signals},
    policy::{model::Policy, session, slots},
    reload::say,
};

/// What one run needs to know.
pub struct Run {
    /// The policy.
    pub policy: Policy,
    /// Whom the connector runs as.
    pub user: User,
    /// Program and arguments; not empty.
    pub command: Vec<OsString>,
    /// Why the policy is read once and never again: its own connector could change it.
    pub changeable: Option<Changeable>,
    /// What the caller's session says; the policy is settled by it.
    pub session: session::Session,
    /// Rules of the policy that it says nothing usable for, and why.
    pub unsettled: Vec<String>,
    /// What the agent inherited from its caller.
    pub inherited: Inherited,
    /// Where it begins; `None`: where the agent is.
    pub cwd: Option<Cwd>,
    /// Folders in which its program is looked for; `None`: those of its own `PATH`.
    pub search: Option<OsString>,
    /// The caller's environment.
    pub caller_env: Vec<(OsString, OsString)>,
    /// A further file for events.
    pub events: Option<PathBuf>,
    /// Start although a permitted name has no address now.
    pub start_unresolved: bool,
    /// Nothing is refused, whatever the policy says.
    pub audit: bool,
    /// Look at the policy file by itself, not on SIGHUP only.
    pub watch: bool,
    /// Show nothing on standard error but errors.
    pub quiet: bool,
    /// Colours on standard error.
    pub color: bool,
}

/// Runs a connector from beginning to end. Answers its exit code.
pub async fn run(run: Run) -> Result<u8, RunError> {
    // Before SIGHUP is listened to: whoever ignores it means to outlive the caller.
    let callers = Callers::find().map_err(RunError::Wait)?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Wait)?;
    let signals = Signals::listen().map_err(RunError::Wait)?;
    let (orders, mut outside) = Outside::new(|_| Ok(()));
    let listening = tokio::spawn(listen(orders, signals, hangup, callers));
    probe::check_host()?;
    switch::reached(Step::HostChecked);
    let cleaned = clean_leftovers()?;
    switch::reached(Step::LeftoversEnded);
    let instance = Instance::create(&run.policy.connector)?;
    switch::reached(Step::Created);
    let result = alone(&run, &instance, &cleaned, &mut outside).await;
    listening.abort();
    // Whatever happened inside, the end is the same. A failure of it keeps the boundary, and
    // does not hide how the connector ended.
    if let Err(error) = instance.kill().and_then(|()| instance.end()) {
        say::to_caller(format_args!("{error}; the next start tries again"));
    }
    result
}

/// Everything between the making and the ending of an instance.
async fn alone(
    run: &Run,
    instance: &Instance,
    cleaned: &Leftovers,
    outside: &mut Outside,
) -> Result<u8, RunError> {
    let beside = Beside::prepare(&run.policy, instance)?;
    let settings = Settings {
        connector_level: instance.connector().level()?,
        connectors: 1 + beside.count(),
        rules: slots::room(run.policy.rule_count()),
        proxy_net: beside.net(),
        sizes: Sizes::ONE,
    };
    let plane = DataPlane::load(&settings, instance.pins().clone(), usize::MAX)?;
    switch::reached(Step::Loaded);
    let leftovers = leftovers(cleaned).map(|told| ("leftovers", told));
    let it = Session {
        run,
        instance,
        place: plane.place(beside.count() > 0)?,
        beside,
        sinks: sinks(run, instance)?,
        told: leftovers.collect(),
        given: Given::default(),
    };
    let ended = session(it, outside).await;
    // With the data plane go all of its tables.
    drop((ended.live, plane));
    Ok(exit::of_child(ended.outcome?))
}

/// Where the lines of a run go.
fn sinks(run: &Run, instance: &Instance) -> Result<Vec<Box<dyn sink::Sink>>, PumpError> {
    let jsonl = sink::jsonl::Jsonl::start(&run.policy.connector, instance.name())?;
    let mut sinks: Vec<Box<dyn sink::Sink>> = vec![Box::new(jsonl)];
    if let Some(path) = &run.events {
        sinks.push(Box::new(sink::append::UserFile::open(path)?));
    }
    if !run.quiet {
        let terminal = sink::terminal::Terminal::start(std::io::stderr(), run.color);
        sinks.push(Box::new(terminal.map_err(PumpError::Thread)?));
    }
    Ok(sinks)
}

/// Signals and callers of this process, as orders.
async fn listen(
    orders: mpsc::Sender<Order>,
    mut signals: Signals,
    mut hangup: Signal,
    callers: Callers,
) {
    let mut watched = true;
    loop {
        let order = tokio::select! {
            signal = signals.next() => Order::Signal(signal),
            Some(()) = hangup.recv() => Order::Read,
            name = callers.gone(), if watched => {
                watched = false;
                Order::Gone(format!("{name}, which started the agent, is gone"))
            }
        };
        if orders.send(order).await.is_err() {
            return;
        }
    }
}
