//! What a run has besides where names go through a company's proxy.

use std::{net::Ipv4Addr, sync::Arc};

use egress_common::abi::map;
use tokio::{sync::mpsc, task::JoinHandle};

use super::RunError;
use crate::{
    dns::{Carrier, Names, proxied::Proxied, stand::Learn},
    event::model::Body,
    forward::{Forwarder, Range, Start, Whereabouts},
    grant::Keeper,
    host::Cgroup,
    instance::DataPlane,
    kernel::instance::Instance,
    policy::{model::Policy, proxy::Proxy},
    reload::{Live, say},
};

/// The forwarder's id in the data plane of a `run`.
const FORWARDER: u32 = 2;
/// Names that may wait to be learned, and places of the proxy that may wait to be told.
const WAITING: usize = 64;

/// A proxy before its forwarder runs.
pub(super) struct Through {
    proxy: Proxy,
    range: Range,
    cgroup: Cgroup,
    proxied: Arc<Proxied>,
    learn: mpsc::Receiver<Learn>,
}

impl Through {
    /// What the policy's proxy needs before the data plane is loaded; `None`: there is no proxy.
    pub(super) fn prepare(policy: &Policy, instance: &Instance) -> Result<Option<Self>, RunError> {
        let Some(proxy) = policy.through() else {
            return Ok(None);
        };
        let range = Range::claim().map_err(RunError::Range)?;
        let (told, learn) = mpsc::channel(WAITING);
        Ok(Some(Self {
            proxy: proxy.clone(),
            proxied: Arc::new(Proxied::new(proxy.clone(), range.net(), told)),
            cgroup: instance.forwarder()?,
            range,
            learn,
        }))
    }

    /// Where the forwarder's addresses begin.
    pub(super) fn net(&self) -> Ipv4Addr {
        self.range.net()
    }

    /// What the connector's names need.
    pub(super) fn carrier(&self) -> Carrier {
        Carrier::Proxy(Arc::clone(&self.proxied))
    }

    /// Lets the forwarder into the data plane, which is not attached yet, and the connector to it.
    pub(super) fn admit(
        &self,
        live: &mut Live,
        plane: &DataPlane,
        instance: &Instance,
    ) -> Result<(), RunError> {
        live.admit_forwarder(FORWARDER, &self.cgroup)?;
        Ok(plane.plane().attach_proxy(instance.connector().path())?)
    }

    /// Looks for the proxy and starts the forwarder. It fails where the connector could reach the
    /// proxy directly, and waits for a proxy that has no address now.
    pub(super) async fn start(
        self,
        connector: u32,
        instance: &Instance,
        names: &Arc<Names>,
        keeper: &Arc<Keeper>,
    ) -> Result<Running, RunError> {
        let (places, heard) = mpsc::channel(WAITING);
        let (tell, told) = mpsc::channel(WAITING);
        let whereabouts = Whereabouts {
            proxy: self.proxy.clone(),
            names: Arc::clone(names),
            proxied: Arc::clone(&self.proxied),
            keeper: Arc::clone(keeper),
            ids: (FORWARDER, connector),
            forwarder: places,
        };
        let policy = names.policy();
        let first = whereabouts.look(&policy).await;
        if let Err(fault @ crate::forward::Lookless::Passed(_)) = &first {
            return Err(RunError::Passed(fault.to_string()));
        }
        let start = Start {
            proxy: self.proxy,
            cgroup_procs: self.cgroup.path().join("cgroup.procs"),
            listener: instance.pins().map(map::FORWARDER),
            net: self.range.net(),
        };
        let forwarder = Forwarder::start(start, self.learn, heard, self.proxied).await?;
        Ok(Running {
            forwarder,
            told,
            looking: tokio::spawn(whereabouts.keep(first, tell)),
            _range: self.range,
        })
    }
}

/// A proxy while its forwarder runs.
pub(super) struct Running {
    forwarder: Forwarder,
    told: mpsc::Receiver<String>,
    looking: JoinHandle<()>,
    _range: Range,
}

impl Running {
    /// The next thing people should know of the proxy. Safe to cancel.
    pub(super) async fn told(&mut self) -> String {
        tokio::select! {
            Some(line) = self.told.recv() => line,
            line = self.forwarder.next() => line,
        }
    }

    /// What is left to be said.
    pub(super) fn last(&mut self) -> Option<String> {
        let told = self.told.try_recv().ok();
        told.or_else(|| self.forwarder.last())
    }
}

/// As a line of the stream.
pub(super) fn body(line: String, connector: &str, instance: &str) -> Body {
    say::warning(connector, instance, "proxy", line)
}

impl Drop for Running {
    fn drop(&mut self) {
        self.looking.abort();
    }
}
