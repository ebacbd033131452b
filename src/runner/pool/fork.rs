//! Has workers forked: whether what isolates them here is enough, and how they reach the network.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use crate::clock::Entropy;
use crate::domain::{StepError, Tier};
use crate::egress::Gate;
use crate::runner::debug::Debugger;
use crate::runner::jail::Jail;
use crate::runner::jail::posture::Posture;
use crate::runner::limits::ForkLimits;
use crate::runner::protocol::Task;
use crate::runner::worker::Worker;
use crate::runner::zygote::{Order, WayOut};
use crate::runner::{BundleRef, RunnerError};

/// The version of Landlock from which it can say which ports may be connected to.
const LANDLOCK_WITH_PORTS: u32 = 4;

impl Shared {
    /// Has a worker forked, if what is in force here is enough for it.
    pub(super) async fn fork(
        &self,
        task: Task,
        bundle: &BundleRef,
        module: Option<&str>,
        limits: ForkLimits,
        (jail, minimum): (&Jail, Tier),
        debugged: bool,
    ) -> Result<Worker, NoFork> {
        let environment = &bundle.environment;
        let zygote = self.zygote(environment).await?;
        let mut way = Way::None;
        // Otherwise nothing depends on it, and the order need not wait for the zygote.
        if minimum > Tier::Process || jail.network {
            let Some(posture) = zygote.posture().await else {
                return Err(self.why_lost(environment, "the zygote is gone".into()).into());
            };
            if let Some(error) = posture.refusal(minimum) {
                return Err(NoFork::Refused(Box::new(error)));
            }
            if jail.network && posture.is_said {
                way = Self::way_out(&posture)?;
            }
        }
        let paths = self.paths(environment);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let order = Order {
            id,
            task,
            bundle,
            module,
            scratch: self.scratch.of_worker(id),
            limits,
            jail,
            paths: &paths,
            way_out: match &way {
                Way::None => WayOut::None,
                Way::Asked { local } => WayOut::Asked { local: *local },
                Way::Proxy(gate) => WayOut::Proxy(gate.proxy().unwrap_or_default()),
            },
            debug: self
                .settings
                .debugger
                .as_deref()
                .filter(|_| debugged)
                .map(Debugger::workspace),
        };
        let forked = Worker::fork(zygote, Arc::clone(&self.clock), &self.meter, &order);
        let mut worker = forked.map_err(|error| {
            NoFork::Lost(RunnerError::NoWorker {
                reason: error.to_string(),
            })
        })?;
        if let Way::Proxy(gate) = way {
            worker.gate = Some(gate);
        }
        Ok(worker)
    }

    /// How a worker that may use the network reaches it. Where nothing is closed, nothing is opened either.
    fn way_out(posture: &Posture) -> Result<Way, NoFork> {
        let has_network = !posture.has("network_namespace");
        let proxied = posture.has("landlock") && posture.landlock_abi >= LANDLOCK_WITH_PORTS && has_network;
        if let Some(error) = posture.refusal_of_network(proxied) {
            return Err(NoFork::Refused(Box::new(error)));
        }
        if posture.has("network_notify") {
            let local = posture.has("mount_namespace") && !has_network;
            return Ok(Way::Asked { local });
        }
        if !proxied {
            return Ok(Way::None);
        }
        let password = u128::from_ne_bytes(Entropy::System.bytes());
        match Gate::by_proxy(&format!("{password:032x}")) {
            Ok(gate) => Ok(Way::Proxy(gate)),
            Err(error) => Err(RunnerError::NoWorker {
                reason: format!("there is no port for its proxy: {error}"),
            }
            .into()),
        }
    }
}

/// How a worker reaches the network.
#[derive(Debug)]
enum Way {
    /// Not at all, or by nobody's leave.
    None,
    /// Its `connect()` is answered.
    Asked {
        /// Its `AF_UNIX` connections are made.
        local: bool,
    },
    /// It is told of a proxy of its own.
    Proxy(Gate),
}

/// Why there is no worker.
#[derive(Debug)]
pub(super) enum NoFork {
    /// There is too little isolation for it.
    Refused(Box<StepError>),
    /// Try again.
    Lost(RunnerError),
}

impl From<RunnerError> for NoFork {
    fn from(error: RunnerError) -> Self {
        Self::Lost(error)
    }
}
