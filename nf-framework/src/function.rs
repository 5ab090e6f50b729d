//! The traits that a network function is written against.
//!
//! A function is two objects. The **instance** handles packets: there is one for each
//! worker, made on its lcore, and nothing is shared. It implements [`PacketFunction`] (a
//! verdict per packet, what most people write) or [`NetworkFunction`] (a batch at a time).
//! The **control object** implements [`Function`]: it turns a configuration into a policy,
//! makes the instances and hands them each new policy. [`App`](crate::App) makes one from
//! a closure for functions that need no more.

use crate::batch::Batch;
use crate::classifier::Prefix;
use crate::context::Context;
use crate::counters::{Counter, Gauge, Occupancy};
use crate::direction::Direction;
use crate::next_hop::NextHops;
use crate::operate::Topic;
use crate::registry::Registry;
use crate::report::BackendReport;
use crate::steering::{Affinity, Steering, Tuple};
use crate::trace::{Note, TracedPacket};
use crate::verdict::{DropReason, TooManyDropReasons, Verdict};
use dpdk_rs::{Lcore, Mbuf, Memory, Mempool};
use serde::de::DeserializeOwned;
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

/// How much housekeeping one tick may do: so many table entries looked at, or the like; 128 in a
/// tick, of which there are some ten thousand per second.
/// What is left waits for the next tick, so that packets never wait long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget(pub u32);

/// Handles packets a batch at a time. One instance per worker, made on its lcore; it need
/// not be `Send`. It reads no clock, no file and no socket: time comes in by the context.
pub trait NetworkFunction: Any {
    /// Writes verdicts on the packets that are undecided. What it leaves undecided goes on
    /// to the next function.
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>);

    /// Housekeeping, called every so many bursts and microseconds, under full load too:
    /// expiry, timers, what is held. Does at most `budget` and leaves the rest.
    fn tick(&mut self, _cx: &mut Context<'_>, _budget: Budget) {}

    /// How many packets it holds, taken out of batches and not given back yet.
    fn held(&self) -> usize {
        0
    }

    /// How many sessions it has that end by themselves: connections, mappings. A program that
    /// is drained waits for them. Asked at every tick, so it is a number at hand.
    fn sessions(&self) -> u64 {
        0
    }

    /// What decided about a packet that is being [traced](crate::TraceRequest), in a few words: its session, its rule.
    /// Asked after `batch` has had the packet, by itself; what was changed and what became of it is written down
    /// anyway. While nothing is traced it is never called.
    fn trace_note(&mut self, _packet: &mut TracedPacket<'_>, _cx: &Context<'_>, _note: &mut Note) {}
}

/// Handles one packet after the other. Every `PacketFunction` is a [`NetworkFunction`].
///
/// ```
/// use nf_framework::{Context, DropReason, Mbuf, PacketFunction, Verdict};
///
/// /// Lets nothing through that is longer than so many bytes.
/// struct LengthLimit(usize);
///
/// impl PacketFunction for LengthLimit {
///     fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
///         if packet.len() > self.0 { Verdict::Drop(DropReason::POLICY) } else { Verdict::Next }
///     }
/// }
/// ```
pub trait PacketFunction: Any {
    /// The verdict on one packet, which may be changed on the way.
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict;

    /// As [`NetworkFunction::tick`].
    fn tick(&mut self, _cx: &mut Context<'_>, _budget: Budget) {}

    /// As [`NetworkFunction::sessions`].
    fn sessions(&self) -> u64 {
        0
    }

    /// As [`NetworkFunction::trace_note`].
    fn trace_note(&mut self, _packet: &mut TracedPacket<'_>, _cx: &Context<'_>, _note: &mut Note) {}
}

impl<T: PacketFunction> NetworkFunction for T {
    #[inline]
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        batch.each(|packet| self.packet(packet, cx));
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        PacketFunction::tick(self, cx, budget);
    }

    fn sessions(&self) -> u64 {
        PacketFunction::sessions(self)
    }

    fn trace_note(&mut self, packet: &mut TracedPacket<'_>, cx: &Context<'_>, note: &mut Note) {
        PacketFunction::trace_note(self, packet, cx, note);
    }
}

/// Why an instance could not be made; any error will do.
pub type SetupError = Box<dyn std::error::Error + Send + Sync>;

/// A value of a configuration that has the right type and makes no sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The key within the function's table, such as `rate` or `pool.first`.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl Invalid {
    /// This key's value is wrong, for this reason.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// Something that is right, and that who wrote it should know: a rule that never decides, a limit that is never reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The key within the function's table, such as `rules[3]`.
    pub key: String,
    /// What there is to know of it, in a sentence without a full stop.
    pub message: String,
}

impl Finding {
    /// This is to be known of this key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// Where a function sends packets on its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    /// The key in the function's table by which it has the address, such as `servers[1].address`.
    pub key: String,
    /// The address that has to be found.
    pub address: IpAddr,
    /// Whether it has to be a neighbour, as packets go to its MAC address.
    pub on_link: bool,
}

/// What a file held that a function's table names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileContent {
    /// The key of the file in the function's table, such as `sets.blocked.file`.
    pub key: String,
    /// Of all that was read: another one means that the file has changed.
    pub digest: u64,
    /// What was read, in a few words for the log, such as `3 prefixes`.
    pub summary: String,
}

/// The control object of a function: one per program. It lives off the data path, where
/// sockets, clocks and memory may be used.
pub trait Function: Send + Sync + 'static {
    /// The function's table in the configuration file.
    type Config: DeserializeOwned;
    /// What instances work by: validated, prepared, shared by all workers, never changed.
    type Policy: Send + Sync + 'static;
    /// What handles packets.
    type Instance: NetworkFunction;

    /// The function's name, which is also its table's in the configuration file.
    fn name(&self) -> &str;

    /// Validates a configuration and prepares the policy that it asks for: at the start, and
    /// when a reload finds that the function's table has changed, or may find that one of its
    /// [files](Function::files) has.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the key; the error that is shown adds file and line.
    fn policy(&self, config: Self::Config) -> Result<Self::Policy, Invalid>;

    /// What whoever wrote the function's table should know of it, though nothing is wrong: a rule that an earlier one
    /// leaves nothing, a pool that nobody uses. Each is a warning with file and line, at the start, by `--check` and at a
    /// reload that changes the policy. It says nothing that is not so for sure.
    fn lint(&self, policy: &Self::Policy) -> Vec<Finding> {
        let _ = policy;
        Vec::new()
    }

    /// What there is to say, for `--explain`, of a packet that is the first one this function sees, beyond what its
    /// [trace](NetworkFunction::trace_note) tells: which rules were asked, and why they do not decide. `frame` is the
    /// packet as it comes to this function, a copy. The text may have several lines.
    fn explain(&self, policy: &Self::Policy, frame: &mut [u8], direction: Direction) -> Option<String> {
        let _ = (policy, frame, direction);
        None
    }

    /// What files that the table names held when this policy was made of them. If there are any, each
    /// reload prepares a policy, and it takes over if the table or what one of them holds is another.
    fn files(&self, policy: &Self::Policy) -> Vec<FileContent> {
        let _ = policy;
        Vec::new()
    }

    /// Which packets each instance needs to see together, under this policy. It is settled when
    /// the program starts and a later policy does not change it.
    fn affinity(&self, _policy: &Self::Policy) -> Affinity {
        Affinity::Any
    }

    /// Prepares the policy that takes over from the running one, when the function's table has
    /// changed. The place to refuse what cannot change while instances run (the capacity of a
    /// table that they made), or to take over large parts that stay the same. Unless written,
    /// any policy can follow any other.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the key; the running policy then stays in force.
    fn replace(&self, config: Self::Config, running: &Self::Policy) -> Result<Self::Policy, Invalid> {
        let _ = running;
        self.policy(config)
    }

    /// Prepares the policy that takes over from the running one for a reason of the function's own: a
    /// server has gone, a time has come. `None` if nothing has changed. Called on the control thread,
    /// some fifty times a second, so it only looks; who waits for a network does so on a thread of
    /// his own. What it returns is built and handed to the instances like a reload's.
    fn tend(&self, running: &Self::Policy) -> Option<Self::Policy> {
        let _ = running;
        None
    }

    /// Builds what a policy needs of DPDK, such as a [`Classifier`](crate::Classifier), which the
    /// policy keeps in a [`OnceLock`](std::sync::OnceLock). Called off the data path, once DPDK
    /// runs and before any instance sees the policy; packets flow meanwhile if it is a later one.
    /// Called again for a policy that was checked before the start, or is published again: what is
    /// built then stays.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way: the program then does not start, or the running policy stays
    /// in force.
    fn build(&self, policy: &Self::Policy, memory: &Memory) -> Result<(), SetupError> {
        let _ = (policy, memory);
        Ok(())
    }

    /// Bytes that one instance takes from the EAL's memory (hugepages), such as its
    /// [`FlowTable`](crate::FlowTable); `--check` shows them.
    fn memory(&self, policy: &Self::Policy) -> usize {
        let _ = policy;
        0
    }

    /// The addresses that this function takes packets for under this policy: of services, of a
    /// pool that it translates to. The [router](crate::RouterConfig) answers for them in its
    /// neighbours' ARP and Neighbor Discovery and announces them when they come, and sends packets
    /// for them through the chain; what no function decides about or redirects is dropped as
    /// `no-listener`. What functions themselves send to one turns at the end of the chain and comes back
    /// through it, once. They may be the router's own; a configuration in which one is a next router's, or the
    /// first or last of an interface's network, is refused.
    fn addresses(&self, policy: &Self::Policy) -> Vec<Prefix> {
        let _ = policy;
        Vec::new()
    }

    /// The key in the function's table by which it has one of its [addresses](Function::addresses), such as
    /// `pools[0].addresses[1]`, for what there is to say of it; the table as a whole unless written.
    fn address_key(&self, policy: &Self::Policy, address: IpAddr) -> String {
        let _ = (policy, address);
        String::new()
    }

    /// Functions that this one is meant to stand inside of in a chain, since it is to see the addresses that hosts have
    /// there. A warning names a chain that has it elsewhere.
    fn inside_of(&self) -> &[&str] {
        &[]
    }

    /// Where this function sends packets whatever their destination is. A warning names those that the router's
    /// configuration has no way to, unless the kernel may have one.
    fn destinations(&self, policy: &Self::Policy) -> Vec<Destination> {
        let _ = policy;
        Vec::new()
    }

    /// The servers that this function gives work to under this policy, each service and name once: metrics show which of
    /// them are up. Called on the control thread for each scrape.
    fn backends(&self, policy: &Self::Policy) -> Vec<BackendReport> {
        let _ = policy;
        Vec::new()
    }

    /// What people and programs can ask of this function while it runs, and tell it to do, by the admin door:
    /// `/v1/functions/NAME/TOPIC`.
    fn topics(&self) -> Vec<Topic<Self>>
    where
        Self: Sized,
    {
        Vec::new()
    }

    /// Makes the instance for a worker, on that worker's lcore.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way; the program then does not start.
    fn instance(&self, policy: Arc<Self::Policy>, worker: &mut WorkerSetup) -> Result<Self::Instance, SetupError>;

    /// Hands an instance a new policy, between two bursts; its state stays. The old one is
    /// freed on the control thread, which keeps it until every instance has let it go.
    fn adopt(instance: &mut Self::Instance, policy: Arc<Self::Policy>);
}

/// What an instance is made with: who it works for, and its counters and drop reasons.
#[derive(Clone, Debug)]
pub struct WorkerSetup {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    pub(crate) lcore: Option<Lcore>,
    /// The function that is being set up.
    pub(crate) function: String,
    pub(crate) pool: Mempool,
    pub(crate) registry: Arc<Registry>,
    pub(crate) steering: Option<Arc<Steering>>,
    /// Whether packets come from capture files.
    pub(crate) offline: bool,
}

impl WorkerSetup {
    /// Where functions can send packets to whatever their destination. To be kept by an instance
    /// whose policies name others later.
    #[must_use]
    pub fn next_hops(&self) -> NextHops {
        self.registry.next_hops.clone()
    }

    /// Which worker this is, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The lcore; `None` in a test.
    #[must_use]
    pub fn lcore(&self) -> Option<Lcore> {
        self.lcore
    }

    /// The pool that this worker receives into.
    #[must_use]
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// Memory for this worker's tables.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.pool.memory()
    }

    /// Whether the packets come from capture files, on their time, and nobody is out there (`--replay`): an instance
    /// then asks nobody anything and leaves files that belong to a running program alone, such as its log.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Who owns which packets; `None` if this worker gets all packets, or any.
    #[must_use]
    pub fn steering(&self) -> Option<&Arc<Steering>> {
        self.steering.as_ref()
    }

    /// Whether packets of this tuple that come in at the entrance of this direction are
    /// handled by this worker. A function that gives flows addresses or ports of its own
    /// takes such as are.
    #[must_use]
    pub fn owns(&self, direction: Direction, tuple: &Tuple) -> bool {
        self.steering.as_ref().is_none_or(|steering| steering.owner(direction, tuple) == self.index)
    }

    /// A counter of this function on this worker; shown as the sum over all workers. Asked for
    /// again, by an instance that takes over from another, it goes on where it stands.
    #[must_use]
    pub fn counter(&mut self, name: &str) -> Counter {
        Counter::of(self.registry.counter(&self.function, name, self.index))
    }

    /// A gauge of this function on this worker: what there is now, set by [`NetworkFunction::tick`]; shown as the sum
    /// over all workers.
    #[must_use]
    pub fn gauge(&mut self, name: &str) -> Gauge {
        Gauge::of(self.registry.gauge(&self.function, name, self.index))
    }

    /// How full a table of this function is on this worker, so that it can be told in time that it will be full; for a
    /// [`FlowTable`](crate::FlowTable) by its [`show`](crate::FlowTable::show), for others set by
    /// [`NetworkFunction::tick`].
    ///
    /// ```
    /// use nf_framework::{FlowTable, HashKey, SetupError, WorkerSetup};
    ///
    /// fn flows(worker: &mut WorkerSetup) -> Result<FlowTable<[u8; 16], u64>, SetupError> {
    ///     let mut flows = FlowTable::with_capacity(&worker.memory(), 100_000, HashKey::random())?;
    ///     flows.show(worker.occupancy("flows"));
    ///     Ok(flows)
    /// }
    /// ```
    #[must_use]
    pub fn occupancy(&mut self, table: &str) -> Occupancy {
        Occupancy::of(self.registry.room(&self.function, table, self.index))
    }

    /// A reason of this function's own to drop packets; the same on every worker.
    ///
    /// # Errors
    ///
    /// When a program has more than [`DropReasons::CAPACITY`](crate::DropReasons::CAPACITY).
    pub fn drop_reason(&mut self, name: &str, help: &str) -> Result<DropReason, TooManyDropReasons> {
        self.registry.drop_reasons.register(name, help)
    }
}
