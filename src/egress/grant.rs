//! What one attempt may reach and what it has used of it. Everything that is connected for a worker is connected here.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Egress;
use super::address::Opened;
use super::limits::EgressLimits;
use super::names::{Names, is_placeholder};
use super::policy::{Policy, Refusal, Target};
use super::resolver::{Resolver, Unresolved};
use crate::domain::{Network, NetworkUse};
use crate::error::Finding;

/// How long connecting may take, over all addresses of a name.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long one address may take where there are others.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(3);
/// How many addresses of a name are tried.
const ADDRESSES: usize = 8;
/// How many hosts that were reached, and how many that were refused, are told one by one.
const NOTICES: usize = 100;

/// What the run's log should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A host and port was connected to for the first time, as `api.example.com:443`.
    Reached(String),
    /// A connection was refused; each target once.
    Refused(Refusal),
    /// An entry of the allow list that can't be read, and allows nothing.
    Mistake(Finding),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may not be.
    Refused(Refusal),
    /// The other side does not want it.
    ConnectionRefused,
    /// Nobody answered in time.
    TimedOut,
    /// There is no way there, or the name has no address.
    Unreachable,
}

/// What a name stands for inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// This placeholder.
    Up(IpAddr),
    /// It may not be reached.
    Refused,
    /// It does not exist.
    Missing,
    /// It could not be found out.
    Failed,
}

/// Traffic in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the worker.
    Sent,
    /// To the worker.
    Received,
}

#[derive(Debug, Default)]
struct Tally {
    open: u32,
    used: NetworkUse,
    hosts: BTreeMap<String, NetworkUse>,
    refused: HashSet<String>,
    /// The limit that ended the traffic, told once.
    over: bool,
}

/// What one attempt may reach. [`Grant::close`] ends all of its connections.
#[derive(Debug)]
pub struct Grant {
    policy: Policy,
    limits: EgressLimits,
    opened: Opened,
    resolver: Resolver,
    names: Mutex<Names>,
    tally: Mutex<Tally>,
    left: AtomicU64,
    notices: mpsc::UnboundedSender<Notice>,
    closed: CancellationToken,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Ticket {
    grant: Arc<Grant>,
    host: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Grant {
    pub(super) fn new(egress: &Egress, network: &Network) -> (Arc<Self>, mpsc::UnboundedReceiver<Notice>) {
        let (policy, mistakes) = Policy::read(network);
        let (notices, received) = mpsc::unbounded_channel();
        for mistake in mistakes.into_iter().take(NOTICES) {
            let _ = notices.send(Notice::Mistake(mistake));
        }
        let grant = Self {
            policy,
            limits: egress.limits,
            opened: egress.opened.clone(),
            resolver: egress.resolver.clone(),
            names: Mutex::default(),
            tally: Mutex::default(),
            left: AtomicU64::new(egress.limits.bytes),
            notices,
            closed: CancellationToken::new(),
        };
        (Arc::new(grant), received)
    }

    /// Ends every connection; there will be no other.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Fires when everything has to end.
    pub(super) const fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// What has been used so far.
    #[must_use]
    pub fn used(&self) -> NetworkUse {
        lock(&self.tally).used
    }

    /// What has been used so far, by `host:port`.
    #[must_use]
    pub fn used_by_host(&self) -> Vec<(String, NetworkUse)> {
        let tally = lock(&self.tally);
        tally.hosts.iter().map(|(host, used)| (host.clone(), *used)).collect()
    }

    /// Whether a name may be looked up; a refusal is counted when it is.
    #[must_use]
    pub fn may_look_up(&self, name: &str) -> bool {
        Target::parse(name).is_some_and(|target| self.policy.admits_host(&target).is_ok())
    }

    /// The placeholder of a name that may be reached. The name is resolved only to find out whether it exists: the addresses
    /// are forgotten, and asked for again when it is connected to.
    pub async fn look_up(&self, name: &str) -> Looked {
        let Some(Target::Name(name)) = Target::parse(name) else {
            return Looked::Missing;
        };
        if let Err(refusal) = self.policy.admits_host(&Target::Name(name.clone())) {
            self.refuse(refusal);
            return Looked::Refused;
        }
        match self.resolver.resolve(&name).await {
            Ok(_) => {}
            Err(Unresolved::Missing) => return Looked::Missing,
            Err(Unresolved::Failed) => return Looked::Failed,
        }
        match lock(&self.names).address_of(&name) {
            Some(address) => Looked::Up(address.into()),
            None => {
                let reason = "this attempt has looked up too many names".to_owned();
                self.refuse(Refusal {
                    target: name,
                    reason,
                    hint: None,
                });
                Looked::Refused
            }
        }
    }

    /// Connects to what a worker has called by its address: a placeholder, or a literal.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(self: &Arc<Self>, to: SocketAddr) -> Result<(TcpStream, Ticket), Failure> {
        let address = to.ip().to_canonical();
        let name = lock(&self.names).name_of(address).map(str::to_owned);
        let target = match name {
            Some(name) => Target::Name(name),
            None if is_placeholder(address) => return Err(Failure::Unreachable),
            None => Target::Address(address),
        };
        self.reach(&target, to.port()).await
    }

    /// Connects to a host: by policy, then by address.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn reach(self: &Arc<Self>, target: &Target, port: u16) -> Result<(TcpStream, Ticket), Failure> {
        if let Err(refusal) = self.policy.admits(target, port) {
            return Err(self.refuse(refusal));
        }
        let host = format!("{target}:{port}");
        let ticket = self.admit(&host)?;
        let connecting = async {
            let addresses = match target {
                Target::Address(address) => vec![*address],
                Target::Name(name) => self.resolver.resolve(name).await.map_err(|_| Failure::Unreachable)?,
            };
            self.connect_to_one_of(&addresses, port, &host).await
        };
        let stream = tokio::select! {
            () = self.closed.cancelled() => {
                let reason = "the attempt is over or has used up its traffic".to_owned();
                return Err(self.refuse(Refusal { target: host, reason, hint: None }));
            }
            connected = tokio::time::timeout(CONNECT_PATIENCE, connecting) => connected.map_err(|_| Failure::TimedOut)??,
        };
        self.reached(&host);
        Ok((stream, ticket))
    }

    /// Connects to the first that answers of the addresses that may be reached. What is judged here is what is connected to.
    async fn connect_to_one_of(&self, addresses: &[IpAddr], port: u16, host: &str) -> Result<TcpStream, Failure> {
        let mut refused = None;
        let good: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| SocketAddr::new(address.to_canonical(), port))
            .filter(|address| match self.opened.admit(*address) {
                Ok(()) => true,
                Err(why) => {
                    refused = Some(why);
                    false
                }
            })
            .take(ADDRESSES)
            .collect();
        if let (true, Some(why)) = (good.is_empty(), refused) {
            return Err(self.refuse(Refusal {
                target: host.to_owned(),
                reason: format!("it is {why}, which no step may reach"),
                hint: (why == super::address::Refused::Private)
                    .then(|| "an operator can open private networks with `WEFT_EGRESS_PRIVATE`".to_owned()),
            }));
        }
        let mut failure = Failure::Unreachable;
        let last = Instant::now() + CONNECT_PATIENCE;
        for (place, address) in good.iter().enumerate() {
            let patience = if place + 1 == good.len() {
                last.saturating_duration_since(Instant::now())
            } else {
                ADDRESS_PATIENCE
            };
            failure = match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // An address of this machine that is not a private one leads back to it all the same.
                    let own = stream.local_addr().is_ok_and(|local| local.ip() == address.ip());
                    if own && !self.opened.admits_own(*address) {
                        return Err(self.refuse(Refusal {
                            target: host.to_owned(),
                            reason: "it is the machine that runs this step, which no step may reach".to_owned(),
                            hint: None,
                        }));
                    }
                    return Ok(stream);
                }
                Ok(Err(error)) => match error.kind() {
                    io::ErrorKind::ConnectionRefused => Failure::ConnectionRefused,
                    io::ErrorKind::TimedOut => Failure::TimedOut,
                    _ => Failure::Unreachable,
                },
                Err(_) => Failure::TimedOut,
            };
        }
        Err(failure)
    }

    /// Room for one more connection.
    fn admit(self: &Arc<Self>, host: &str) -> Result<Ticket, Failure> {
        let over = {
            let mut tally = lock(&self.tally);
            let limits = &self.limits;
            if self.closed.is_cancelled() {
                Some("the attempt is over or has used up its traffic".to_owned())
            } else if tally.used.connections >= u64::from(limits.connections) {
                let most = limits.connections;
                Some(format!(
                    "the attempt has made {most} connections (`WEFT_EGRESS_CONNECTIONS`)"
                ))
            } else if tally.open >= limits.open {
                let most = limits.open;
                Some(format!("the attempt has {most} connections open (`WEFT_EGRESS_OPEN`)"))
            } else {
                tally.open += 1;
                tally.used.connections += 1;
                None
            }
        };
        match over {
            None => Ok(Ticket {
                grant: Arc::clone(self),
                host: host.to_owned(),
            }),
            Some(reason) => Err(self.refuse(Refusal {
                target: host.to_owned(),
                reason,
                hint: None,
            })),
        }
    }

    fn reached(&self, host: &str) {
        let mut tally = lock(&self.tally);
        let known = tally.hosts.len();
        let used = tally.hosts.entry(host.to_owned()).or_default();
        used.connections += 1;
        if used.connections == 1 && known < NOTICES {
            let _ = self.notices.send(Notice::Reached(host.to_owned()));
        }
    }

    fn refuse(&self, refusal: Refusal) -> Failure {
        let mut tally = lock(&self.tally);
        tally.used.refused += 1;
        if tally.refused.len() < NOTICES && tally.refused.insert(refusal.target.clone()) {
            let _ = self.notices.send(Notice::Refused(refusal.clone()));
        }
        Failure::Refused(refusal)
    }

    /// Says once that all traffic has ended, and ends it.
    fn overdraw(&self, host: &str) {
        let first = !std::mem::replace(&mut lock(&self.tally).over, true);
        if first {
            let most = self.limits.bytes;
            let _ = self.notices.send(Notice::Refused(Refusal {
                target: host.to_owned(),
                reason: format!(
                    "the attempt has sent and received {most} bytes, which is its limit (`WEFT_EGRESS_BYTES`)"
                ),
                hint: None,
            }));
            lock(&self.tally).used.refused += 1;
        }
        self.close();
    }
}

impl Ticket {
    /// Whose connection this is.
    pub(super) const fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Counts traffic before it is passed on.
    ///
    /// # Errors
    /// When the attempt's limit is passed; all of its connections have been ended then.
    pub(super) fn spend(&self, direction: Direction, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        let enough = self
            .grant
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok();
        if !enough {
            self.grant.overdraw(&self.host);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut tally = lock(&self.grant.tally);
        let add = |used: &mut NetworkUse| match direction {
            Direction::Sent => used.bytes_sent += bytes,
            Direction::Received => used.bytes_received += bytes,
        };
        add(&mut tally.used);
        if let Some(used) = tally.hosts.get_mut(&self.host) {
            add(used);
        }
        Ok(())
    }
}

impl Ticket {
    /// Sends on what was read before anything was passed on.
    pub(super) async fn send(&self, outside: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.spend(Direction::Sent, bytes.len())?;
        outside.write_all(bytes).await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.grant.tally).open -= 1;
    }
}
