//! One process: the use cases as in production over its own wire to storage, with what the Functions host does to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::link::Link;
use super::random::Random;
use super::runner::{Manners, SimRunner};
use super::scenario::Settings;
use super::site::Site;
use super::slip::SIGNING;
use crate::boot;
use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::domain::{Limits, Secret, SecurityProfile};
use crate::egress::Egress;
use crate::secrets::keyring::Keyring;
use crate::store::envelope::SigningKey;
use crate::store::fault::{Faulty, Plan};
use crate::store::key::Queue;
use crate::store::port::{Message, Ports};
use crate::store::repo::secrets::Secrets;
use crate::usecase::deliver::{self, From, deliver};
use crate::usecase::{Bounds, CodeSource, Context, Parts, tick};

/// For how long the host hides a message that it hands out; not configurable there.
const HIDDEN: Duration = Duration::from_secs(600);
/// How long an invocation waits for its work, as in `host/`.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long after a host has received a message it hands it out at the latest.
pub(super) const HANDED_OUT_WITHIN: Duration = Duration::from_secs(300);
/// `batchSize` of `host.json`.
const BATCH: usize = 8;
/// `maxPollingInterval` of `host.json`.
const POLL: Duration = Duration::from_secs(2);
/// `visibilityTimeout` of `host.json`: how long a message rests that has failed.
const RESTS: Duration = Duration::from_secs(5);
/// `maxDequeueCount` of `host.json`.
const MAX_DEQUEUE_COUNT: u32 = 5;
/// How long a process that is told to stop is let.
const GRACE: Duration = Duration::from_secs(10);
/// What secrets are sealed with: 32 bytes in base64.
const SEALING: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// A folder below the system's temporary one, in which each simulation of a test has a workspace. Removed when dropped.
#[derive(Debug)]
pub struct Ground {
    home: PathBuf,
    config: Arc<Config>,
    lots: AtomicU64,
}

/// The workspace of one simulation, and the copies that its processes make of it. Removed when dropped.
#[derive(Debug)]
pub struct Lot<'a> {
    ground: &'a Ground,
    home: PathBuf,
}

impl Ground {
    /// A new one.
    ///
    /// # Panics
    /// When the temporary folder can't be written.
    #[must_use]
    pub fn new() -> Self {
        let random = Entropy::System.bytes::<8>().map(|byte| format!("{byte:02x}")).concat();
        let home = std::env::temp_dir().join(format!("weft-sim-{random}"));
        std::fs::create_dir_all(&home).expect("the temporary folder can be written");
        let config = Arc::new(Config::for_testing(&home));
        Self {
            home,
            config,
            lots: AtomicU64::new(0),
        }
    }

    /// A workspace with these files, by their paths, beside its one module.
    ///
    /// # Panics
    /// When the temporary folder can't be written.
    #[must_use]
    pub fn lot(&self, files: &[(String, String)]) -> Lot<'_> {
        let home = self.home.join(self.lots.fetch_add(1, Ordering::Relaxed).to_string());
        let workspace = home.join("workspace");
        std::fs::create_dir_all(workspace.join("workflows")).expect("the temporary folder can be written");
        let module = ("workflows/sim.py".to_owned(), "# simulated\n".to_owned());
        for (path, text) in files.iter().chain([&module]) {
            std::fs::write(workspace.join(path), text).expect("the temporary folder can be written");
        }
        Lot { ground: self, home }
    }
}

impl Lot<'_> {
    fn code(&self, clock: Arc<dyn Clock>) -> CodeSource {
        CodeSource {
            workspace: self.home.join("workspace"),
            bundles: self.home.join("bundles"),
            fetched: boot::fetched(&self.ground.config),
            environments: Arc::new(boot::environments(&self.ground.config, clock)),
            live: false,
            strict: false,
        }
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What is left behind is in the temporary folder.
        drop(std::fs::remove_dir_all(&self.home));
    }
}

impl Drop for Lot<'_> {
    fn drop(&mut self) {
        // The rest goes with the ground.
        drop(std::fs::remove_dir_all(&self.home));
    }
}

/// Who hands messages out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// As the Functions host does.
    Functions,
    /// As `weft dev` does.
    Dev,
    /// Nobody.
    None,
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Where it stands.
    pub site: Arc<Site>,
    /// Its use cases.
    pub cx: Arc<Context>,
    ports: Ports,
}

impl Process {
    /// Starts one.
    ///
    /// # Panics
    /// When its workspace can't be read.
    #[must_use]
    pub fn start(
        lot: &Lot<'_>,
        site: Arc<Site>,
        storage: Ports,
        manners: Arc<Manners>,
        settings: &Settings,
        host: Host,
    ) -> Self {
        let wire = Link::ports(site.clone(), storage);
        let befalls = site.clone();
        let plan = Plan::Custom(Box::new(move |moment| befalls.befalls(moment)));
        let (ports, faults) = Faulty::wrap(wire, plan);
        site.connected(faults);
        let clock: Arc<dyn Clock> = Arc::new(site.clock.clone());
        let seed = site.random().next();
        let entropy = Arc::new(Entropy::seeded(seed));
        let keys = Keyring::parse(&Secret::value(SEALING)).expect("a good key");
        let secrets = Secrets::new(ports.clone(), entropy.clone(), keys, None);
        let cx = Arc::new(Context::new(Parts {
            ports: ports.clone(),
            runner: Arc::new(SimRunner::new(site.clone(), manners)),
            clock: clock.clone(),
            entropy,
            bounds: Bounds {
                concurrent_runs: settings.concurrent_runs,
                profile: SecurityProfile::Elevated,
                attempt: Limits {
                    wall_ms: u64::try_from(settings.step_limit.as_millis()).unwrap_or(u64::MAX),
                    ..Limits::default()
                },
                run: settings.run_limit,
                driver: settings.driver,
                hand_off: Some(settings.hand_off),
                wait: (Duration::from_secs(60), Duration::from_secs(220)),
                cache: (1_000, Duration::from_secs(30 * 86_400)),
                save_logs: true,
                record: crate::usecase::recording::Record::Off,
                network: None,
            },
            code: lot.code(clock),
            signing: SigningKey::new(&SIGNING),
            secrets: Some(Arc::new(secrets)),
            inherited_secrets: Vec::new(),
            egress: Egress::default(),
        }));
        load(&cx);
        site.say("starts");
        let process = Self { site, cx, ports };
        match host {
            Host::Functions => {
                for (queue, from) in [
                    (Queue::Runs, From::Runs),
                    (Queue::Attempts, From::Attempts),
                    (Queue::RunsPoison, From::RunsPoison),
                    (Queue::AttemptsPoison, From::AttemptsPoison),
                ] {
                    process.while_alive(process.listener(queue, from).listen());
                }
                process.while_alive(ticks(process.cx.clone(), process.site.clone()));
            }
            Host::Dev => {
                process.while_alive(deliver::consume(process.cx.clone()));
                process.while_alive(ticks(process.cx.clone(), process.site.clone()));
            }
            Host::None => {}
        }
        process
    }

    fn listener(&self, queue: Queue, from: From) -> Listener {
        Listener {
            site: self.site.clone(),
            cx: self.cx.clone(),
            ports: self.ports.clone(),
            queue,
            from,
        }
    }

    fn while_alive(&self, work: impl Future<Output = ()> + Send + 'static) {
        let dead = self.site.dead.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = dead.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Tells it to stop, as SIGTERM does, and kills it when it has, or has not in time.
    pub async fn stop(&self) {
        self.site.say("is told to stop");
        self.site.world.met("fault: stopped");
        // A process that hangs is killed.
        let _ = tokio::time::timeout(GRACE, self.cx.leave()).await;
        self.site.kill();
    }
}

/// Reads the workspace before the simulation goes on: real files take real time, which must not be seen in virtual time.
fn load(cx: &Arc<Context>) {
    let cx = cx.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime can be made");
        runtime
            .block_on(cx.catalogs.current())
            .expect("the workspace can be read")
    })
    .join()
    .expect("the workspace is read without a panic");
}

/// The timer of the host, every minute.
async fn ticks(cx: Arc<Context>, site: Arc<Site>) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        site.thawed().await;
        match tick::tick(&cx).await {
            Ok(_) => {}
            Err(error) => site.say(&format!("could not tick: {error}")),
        }
    }
}

/// The host's listener of one queue. It dies with the process, as the real one does with the machine.
#[derive(Debug, Clone)]
struct Listener {
    site: Arc<Site>,
    cx: Arc<Context>,
    ports: Ports,
    queue: Queue,
    from: From,
}

impl Listener {
    async fn listen(self) {
        let name = self.queue.name();
        loop {
            self.ports.queues.sent_here(&name).await;
            // It looks every now and then; of several hosts, whichever looks first is the one.
            let late = self.site.random().between(Duration::from_millis(1), POLL);
            tokio::time::sleep(late).await;
            self.site.thawed().await;
            let Ok(messages) = self.ports.queues.receive(&name, BATCH, HIDDEN).await else {
                continue;
            };
            for message in messages {
                let (listener, dead) = (self.clone(), self.site.dead.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = dead.cancelled() => {}
                        () = listener.handle(message) => {}
                    }
                });
            }
        }
    }

    async fn handle(self, message: Message) {
        let queues = &self.ports.queues;
        let name = self.queue.name();
        let (late, twice) = {
            let mut random = self.site.random();
            let foul = self.site.world.is_foul();
            // A host that is busy, or was, hands a message out long after it has received it.
            let late = if foul && random.per_mille(20) {
                random.between(Duration::from_secs(1), HANDED_OUT_WITHIN)
            } else {
                Duration::ZERO
            };
            (late, foul && random.per_mille(20))
        };
        if !late.is_zero() {
            self.site.world.met("fault: handed out late");
        }
        tokio::time::sleep(late).await;
        self.site.thawed().await;
        if message.dequeue_count > MAX_DEQUEUE_COUNT {
            return self.poison(&message).await;
        }
        let mut receipt = message.receipt.clone();
        let delivered_at = self.cx.clock.now();
        if twice {
            // Delivered at least once is what is promised.
            let (cx, from, text) = (self.cx.clone(), self.from, message.text.clone());
            self.site.say("a message is handed out twice");
            self.site.world.met("fault: handed out twice");
            tokio::spawn(async move { drop(deliver(&cx, from, &text, delivered_at, Some(PATIENCE)).await) });
        }
        let mut work = Box::pin(deliver(
            &self.cx,
            self.from,
            &message.text,
            delivered_at,
            Some(PATIENCE),
        ));
        let outcome = loop {
            match tokio::time::timeout(HIDDEN / 2, &mut work).await {
                Ok(outcome) => break outcome,
                Err(_) => {
                    if let Ok(newer) = queues.extend(&name, &receipt, HIDDEN).await {
                        receipt = newer;
                    }
                }
            }
        };
        self.site.say(&format!(
            "handled message {} of {name}: {outcome:?}",
            message.receipt.id
        ));
        // Whatever of this fails, the message comes again when it isn't hidden any more.
        match outcome {
            Ok(_) => drop(queues.delete(&name, &receipt).await),
            Err(_) if message.dequeue_count >= MAX_DEQUEUE_COUNT => {
                self.poison(&Message {
                    receipt,
                    ..message.clone()
                })
                .await;
            }
            Err(_) => drop(queues.extend(&name, &receipt, RESTS).await),
        }
    }

    async fn poison(&self, message: &Message) {
        let poison = match self.queue {
            Queue::Runs => Queue::RunsPoison.name(),
            Queue::Attempts => Queue::AttemptsPoison.name(),
            // The host would make a queue that nobody listens to, which would be a message lost.
            Queue::RunsPoison | Queue::AttemptsPoison => {
                self.site.say("gives up a message that was quarantined already");
                let queue = self.queue.name();
                return drop(self.ports.queues.delete(&queue, &message.receipt).await);
            }
        };
        self.site.say(&format!("quarantines message {}", message.receipt.id));
        self.site.world.met("fault: quarantined");
        let sent = self.ports.queues.send(&poison, &message.text, Duration::ZERO).await;
        if sent.is_ok() {
            drop(self.ports.queues.delete(&self.queue.name(), &message.receipt).await);
        }
    }
}

/// A random sequence of a process that was started somewhere for the so-manieth time.
#[must_use]
pub fn random_of(seed: u64, slot: usize, generation: u64) -> Random {
    Random::of(seed, &format!("process {slot} {generation}"))
}
