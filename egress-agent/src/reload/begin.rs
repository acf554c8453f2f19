//! How a connector comes into a data plane, and how it leaves it.

use std::{collections::BTreeSet, sync::Arc};

use egress_common::{abi::RULE_OWN, grant::Connector, unix::UnixGrant};

use super::{
    fault::{Refused, StartError},
    own::Own,
    plane::{Live, RESERVED, connector},
};
use crate::{
    dns::Door,
    host::Cgroup,
    instance::{Need, Place},
    policy::{
        change::{Installed, Step, change},
        compile::{Tables, compile_at},
        model::Policy,
        slots::Slots,
    },
};

impl Live {
    /// Writes the first policy into a data plane. The connector's processes are to join below
    /// `cgroup`, and none is there yet. Nothing of it is left in the tables after an error.
    pub fn start(
        place: Place,
        cgroup: Cgroup,
        door: &Door,
        policy: Arc<Policy>,
        own: &Own,
    ) -> Result<Self, StartError> {
        let id = place.id();
        let mut slots = Slots::new(place.numbers());
        let numbers = slots.assign(&policy).map_err(Refused::from)?;
        let compiled = compile_at(&policy, id, &numbers).map_err(Refused::from);
        let tables = match compiled {
            Ok(tables) => tables,
            Err(refused) => {
                place.give_back(slots.all())?;
                return Err(refused.into());
            }
        };
        let mut live = Self {
            switches: place.plane().switches(),
            judged: Vec::new(),
            cgroup,
            id,
            place,
            folder: own.folder(id),
            record: connector(door, &policy, own),
            slots,
            installed: Installed::default(),
            policy,
            tables,
            unix: BTreeSet::new(),
            whole: true,
        };
        match live.begin() {
            Ok(()) => Ok(live),
            Err(error) => {
                live.close()?;
                Err(error)
            }
        }
    }

    /// Writes the first policy, and lets the connector in last.
    fn begin(&mut self) -> Result<(), StartError> {
        let unix = self.tables.unix.clone();
        self.place
            .hold(self.need(unix.len()))
            .map_err(Refused::from)?;
        for slot in RESERVED {
            self.switches.set_rule(slot, 0, true, 0)?;
        }
        let steps = change(&self.installed, &self.tables).map_err(Refused::from)?;
        for step in steps.steps() {
            self.carry_out(step)?;
        }
        for (key, grant) in unix {
            self.unix.insert(key);
            self.switches.set_unix(&key, &grant)?;
        }
        if let Some(key) = self.folder {
            let grant = UnixGrant {
                rule: RULE_OWN,
                effect: UnixGrant::ALLOW,
            };
            self.switches.set_unix(&key, &grant)?;
        }
        self.switches.set_connector(self.id, &self.record)?;
        Ok(self.place.enter(&self.cgroup, self.id)?)
    }

    /// What is in the tables now and what is to come need together; `unix`: names of unix sockets.
    pub(super) fn need(&self, unix: usize) -> Need {
        let judged = self.policy.inspected().count();
        Need {
            prefixes: self.tables.prefixes.len(),
            names: self.tables.names.len().saturating_add(judged),
            unix: unix.saturating_add(1),
        }
    }

    /// Lets a process beside the connector in, whose processes are to join `cgroup`.
    pub(super) fn enter(&mut self, id: u32, cgroup: &Cgroup) -> Result<(), StartError> {
        Ok(self.place.enter(cgroup, id)?)
    }

    /// Takes everything of the connector's out of the tables and gives its numbers to whoever
    /// comes next. No process and no socket of it may be left. After an error nobody gets them,
    /// and what is left permits nothing.
    pub fn close(mut self) -> Result<(), StartError> {
        let nobody = Connector {
            mode: 0,
            ..self.record
        };
        self.switches.set_connector(self.id, &nobody)?;
        if let Some(beside) = self.place.beside() {
            self.switches.set_connector(beside, &nobody)?;
        }
        for (rule, flags) in self.installed.on.clone() {
            self.carry_out(&Step::Off(rule, flags))?;
        }
        let empty = Tables {
            connector: self.id,
            rules: Vec::new(),
            prefixes: Vec::new(),
            names: Vec::new(),
            unix: Vec::new(),
        };
        let steps = change(&self.installed, &empty).map_err(Refused::from)?;
        for step in steps.steps() {
            self.carry_out(step)?;
        }
        for (bits, key) in std::mem::take(&mut self.judged) {
            self.switches.delete_name(bits, &key)?;
        }
        for key in self.unix.iter().chain(&self.folder) {
            self.switches.delete_unix(key)?;
        }
        self.place.plane().routes().clear(self.id)?;
        Ok(self.place.give_back(self.slots.all())?)
    }
}
