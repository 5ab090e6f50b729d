//! What the door answers, as far as programs here read it. What an older program does not say is empty, and what
//! a newer one says beyond this is left out: `nf-ctl --json` has all of it.

use super::human::link_speed;
use serde::Deserialize;
use serde_json::value::RawValue;

/// `/v1/program`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Program {
    /// What it is called.
    pub name: String,
    /// Its version, and DPDK's.
    pub version: String,
    /// The version of the DPDK that it runs on.
    pub dpdk: Option<String>,
    /// Its process.
    pub pid: u32,
    /// How long it has run.
    pub uptime_seconds: f64,
    /// The policies that every worker works by.
    pub generation: u64,
    /// How many workers it has.
    pub workers: u64,
    /// Whether it forwards.
    pub ready: bool,
    /// Whether it begins nothing new.
    pub draining: bool,
    /// Its configuration file.
    pub config: Option<String>,
}

/// `/v1/stats`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its functions, from inside to outside.
    pub functions: Vec<ChainRow>,
    /// Why packets were dropped.
    pub drops: Vec<Drop>,
    /// The functions' own counters.
    pub counters: Vec<Counter>,
    /// The functions' own gauges.
    pub gauges: Vec<Counter>,
    /// How full its tables are.
    pub tables: Vec<Occupancy>,
    /// Its workers.
    pub workers: Vec<Worker>,
    /// How often a packet went from one worker to another.
    pub handed_over: u64,
    /// Where all packets went.
    pub balance: Balance,
    /// The policies that every worker works by.
    pub generation: u64,
}

/// One of `/v1/ports`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Port {
    /// What it is called.
    pub name: String,
    /// `inside` or `outside`; nothing of the only port, and of one that leads to the kernel.
    pub side: Option<String>,
    /// Packets that workers received from it.
    pub received: u64,
    /// Packets that it took from workers.
    pub sent: u64,
    /// Workers that found its device to spread packets otherwise than it was told.
    pub misled: u64,
    /// How often its link went down.
    pub link_downs: u64,
    /// How often it was built anew.
    pub resets: u64,
    /// How often its device went away.
    pub removals: u64,
    /// Whether it is down, to be built anew.
    pub down: bool,
    /// What its device says of the link.
    pub link: Option<Link>,
    /// What its device has counted.
    pub device: Option<Device>,
}

impl Port {
    /// Its link in one word: `25G` or `up`, `down`, `gone` with its device, or `unknown`.
    #[must_use]
    pub fn link_state(&self) -> String {
        match (&self.link, self.down) {
            (_, true) => "gone".to_owned(),
            (None, _) => "unknown".to_owned(),
            (Some(link), _) if !link.up => "down".to_owned(),
            (Some(link), _) => link.speed_mbps.filter(|mbps| *mbps > 0).map_or("up".to_owned(), link_speed),
        }
    }
}

/// A port's link.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Megabits per second, if that is known.
    pub speed_mbps: Option<u64>,
}

/// What a port's device has counted.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that nobody took from the device in time.
    pub rx_missed: u64,
    /// Broken packets.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets for which there was no mbuf.
    pub rx_no_mbuf: u64,
}

/// One of `/v1/workers`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its number.
    pub worker: u64,
    /// Its lcore.
    pub lcore: Option<u64>,
    /// Its CPU.
    pub cpu: Option<u64>,
    /// Packets that it received from ports.
    pub received: u64,
    /// Packets that ports took from it.
    pub sent: u64,
    /// Packets that it handed to other workers.
    pub handed_over: u64,
    /// How often it looked at its ports.
    pub rounds: u64,
    /// How often it found nothing there.
    pub idle_rounds: u64,
    /// Cycles of the time stamp counter in rounds with packets.
    pub busy_cycles: u64,
    /// And in those without.
    pub idle_cycles: u64,
    /// The share of its time since the start in which it had no packets, 0 to 1.
    pub idle_share: f64,
}

/// One of `/v1/chain`, or one of the functions in `/v1/stats`, which has less.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChainRow {
    /// Which function; in brackets what stands around them.
    #[serde(alias = "name")]
    pub function: String,
    /// The worker that it is of, unless it is of all.
    pub worker: Option<u64>,
    /// How often it was called.
    pub calls: Option<u64>,
    /// With how many packets.
    pub packets: Option<u64>,
    /// And how many cycles of the time stamp counter that took.
    pub cycles: Option<u64>,
    /// Packets that it was shown.
    pub seen: Option<u64>,
    /// Packets that it left to the next one.
    pub passed: Option<u64>,
    /// Packets that it sent itself.
    pub sent: Option<u64>,
    /// Packets that it dropped.
    pub dropped: Option<u64>,
    /// Packets that it took out of their batch.
    pub taken: Option<u64>,
    /// Packets that it holds.
    pub held: Option<u64>,
    /// Sessions that it has.
    pub sessions: Option<u64>,
}

impl ChainRow {
    /// Packets that it was called with.
    #[must_use]
    pub fn shown(&self) -> Option<u64> {
        self.packets.or(self.seen)
    }
}

/// One reason for drops.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Drop {
    /// Its name.
    pub reason: String,
    /// When it happens.
    pub help: String,
    /// How often it did.
    pub count: u64,
}

/// A counter of a function's own, or a gauge.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counter {
    /// Whose.
    pub function: String,
    /// What it is called.
    pub name: String,
    /// What it stands at.
    pub value: u64,
}

/// How full a table is, on one worker if it is of one.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Occupancy {
    /// Whose.
    pub function: String,
    /// What it is called.
    pub table: String,
    /// The worker that has it, unless all share it.
    pub worker: Option<u64>,
    /// What is in it.
    pub entries: u64,
    /// What there is room for.
    pub limit: u64,
}

impl Occupancy {
    /// How full it is: 1 is full, and a table that takes some more can be above. `None` where there is no room at all.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share is shown")]
    pub fn share(&self) -> Option<f64> {
        (self.limit > 0).then(|| self.entries as f64 / self.limit as f64)
    }
}

/// Where all packets went.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// From ports.
    pub received: u64,
    /// Made by functions.
    pub originated: u64,
    /// To ports.
    pub sent: u64,
    /// All reasons together.
    pub dropped: u64,
    /// Kept for good by functions.
    pub consumed: u64,
    /// On their way.
    pub held: u64,
}

/// What `/v1/trace` answers.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Traces {
    /// In the order in which they came.
    #[serde(alias = "traces")]
    pub packets: Vec<Trace>,
    /// Steps that there was no room for.
    pub lost: u64,
}

/// A packet on its way.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Trace {
    /// From 1.
    pub number: u64,
    /// As it came in.
    pub packet: String,
    /// Of one that a function made: the packet that it had in hand then.
    pub made_for: Option<u64>,
    /// What happened to it.
    pub steps: Vec<Step>,
}

/// One thing that happened to a packet.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Since it came in.
    pub nanoseconds: u64,
    /// The function, or what the packet does.
    pub place: String,
    /// What was decided.
    pub verdict: String,
    /// What decided it, as the function says.
    pub note: String,
    /// What was changed.
    pub changes: Vec<String>,
}

/// One of `/v1/functions`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FunctionTopics {
    /// What the function is called.
    pub name: String,
    /// What it can be asked.
    pub topics: Vec<Topic>,
}

/// What a function can be asked, or told.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Topic {
    /// What it is called.
    pub name: String,
    /// `list`, `state` or `order`.
    pub kind: String,
    /// What it is about.
    pub help: String,
    /// What can be said with it.
    pub parameters: Vec<Parameter>,
}

/// A parameter of a topic.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Parameter {
    /// What it is called.
    pub name: String,
    /// What it means.
    pub help: String,
}

/// A piece of a list; the items as they came.
#[derive(Debug, Default, Deserialize)]
pub struct Page {
    /// So many of them.
    pub items: Vec<Box<RawValue>>,
    /// Where the next piece begins, if there is one.
    #[serde(default)]
    pub next: Option<String>,
}
