//! The process beside a connector, where it needs one: the forwarder to a company's proxy, or the
//! envelope proxy. Never both: a policy that asks for both is not put in force.

use std::{future::pending, net::Ipv4Addr, sync::Arc};

use super::{
    Run, RunError,
    envelope::{self, Judging},
    proxy::{self, Through},
    violation,
};
use crate::{
    dns::{Carrier, Names},
    event::pump::Telling,
    grant::Keeper,
    instance::DataPlane,
    kernel::instance::Instance,
    launch::{Spec, stdio::Tap},
    policy::model::Policy,
    reload::Live,
};

/// Such a process before it runs.
pub(super) enum Beside {
    /// To a company's proxy.
    Through(Through),
    /// Requests are judged.
    Judging(Judging),
    /// The connector needs none.
    Nobody,
}

/// Such a process while it runs.
pub(super) enum Running {
    /// To a company's proxy.
    Through(proxy::Running),
    /// Requests are judged.
    Judging(envelope::Working),
    /// There is none.
    Nobody,
}

/// Something to be told of it.
pub(super) enum Told {
    /// Of the way to a company's proxy.
    Through(String),
    /// Of requests that are judged.
    Judging(crate::envelope::Told),
}

impl Beside {
    /// What a policy needs before the data plane is loaded.
    pub(super) fn prepare(policy: &Policy, instance: &Instance) -> Result<Self, RunError> {
        if let Some(through) = Through::prepare(policy, instance)? {
            return Ok(Self::Through(through));
        }
        let judging = Judging::prepare(policy, instance)?;
        Ok(judging.map_or(Self::Nobody, Self::Judging))
    }

    /// How many connectors the data plane has for it.
    pub(super) fn count(&self) -> u32 {
        u32::from(!matches!(self, Self::Nobody))
    }

    /// Where its addresses begin.
    pub(super) fn net(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Through(through) => Some(through.net()),
            Self::Judging(judging) => Some(judging.net()),
            Self::Nobody => None,
        }
    }

    /// What the connector's names need.
    pub(super) fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::Through(through) => Some(through.carrier()),
            Self::Judging(judging) => Some(judging.carrier()),
            Self::Nobody => None,
        }
    }

    /// Lets it into the data plane, which is not attached yet, and the connector to it.
    pub(super) fn admit(
        &self,
        live: &mut Live,
        plane: &DataPlane,
        instance: &Instance,
    ) -> Result<(), RunError> {
        match self {
            Self::Through(through) => through.admit(live, plane, instance),
            Self::Judging(judging) => judging.admit(live, plane, instance),
            Self::Nobody => Ok(()),
        }
    }

    /// Starts it.
    pub(super) async fn start(
        self,
        connector: u32,
        (run, instance): (&Run, &Instance),
        (names, keeper): (&Arc<Names>, &Arc<Keeper>),
    ) -> Result<Running, RunError> {
        Ok(match self {
            Self::Through(through) => {
                Running::Through(through.start(connector, instance, names, keeper).await?)
            }
            Self::Judging(judging) => Running::Judging(judging.start(run, instance).await?),
            Self::Nobody => Running::Nobody,
        })
    }
}

impl Running {
    /// Prepares the connector for it. Answers who reads along what its client says.
    pub(super) fn equip(&mut self, run: &Run, spec: &mut Spec) -> Option<Tap> {
        match self {
            Self::Judging(working) => working.equip(run, spec),
            Self::Through(_) | Self::Nobody => None,
        }
    }

    /// The next thing to be told of it. Safe to cancel.
    pub(super) async fn told(&mut self) -> Told {
        match self {
            Self::Through(running) => Told::Through(running.told().await),
            Self::Judging(working) => Told::Judging(working.told().await),
            Self::Nobody => pending().await,
        }
    }

    /// Says it, and does what has to be done for it.
    pub(super) fn tell(
        &self,
        told: Told,
        run: &Run,
        (instance, first): (&Instance, u32),
        stream: &Telling,
    ) {
        let (connector, name) = (&run.policy.connector, instance.name());
        match (self, told) {
            (Self::Judging(working), Told::Judging(told)) => {
                let violation = working.violation(&told);
                stream.say(working.body(told, connector, name));
                let done =
                    violation.and_then(|it| violation::carry_out(it, connector, (instance, first)));
                if let Some(line) = done {
                    stream.say(line);
                }
            }
            (_, Told::Judging(told)) => stream.say(envelope::body(told, connector, name, false)),
            (_, Told::Through(line)) => stream.say(proxy::body(line, connector, name)),
        }
    }

    /// Says what is left to be said.
    pub(super) fn last(&mut self, run: &Run, instance: (&Instance, u32), stream: &Telling) {
        loop {
            let told = match self {
                Self::Through(running) => running.last().map(Told::Through),
                Self::Judging(working) => working.last().map(Told::Judging),
                Self::Nobody => None,
            };
            let Some(told) = told else {
                return;
            };
            self.tell(told, run, instance, stream);
        }
    }
}
