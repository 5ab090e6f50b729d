//! Network functions on DPDK: the traits to write one against, and all that they share.
//!
//! A network function is (state, packet, time) to verdict. It reads no clock, file or
//! socket, allocates nothing per packet and shares nothing with its siblings on other
//! lcores; this crate does the rest: arguments, configuration, ports, workers, counters.
//!
//! # A whole program
//!
//! `examples/port-block/main.rs`, with its test:
//!
//! ```no_run
#![doc = include_str!("../examples/port-block/main.rs")]
//! ```
//!
//! and its configuration, `examples/port-block/port-block.toml`:
//!
//! ```toml
#![doc = include_str!("../examples/port-block/port-block.toml")]
//! ```
//!
//! # Where to look
//!
//! - [`PacketFunction`] judges one packet after the other, [`NetworkFunction`] a [`Batch`];
//!   [`Function`] is the control object behind either, with configuration and live policy.
//! - [`Verdict`] and [`DropReason`] say what becomes of a packet; [`Context`] has the time,
//!   and the means to make, hold and resume packets.
//! - [`Chain`] puts functions between an inside and an outside end; [`Wire`] forwards what
//!   they let pass.
//! - [`Affinity`] says which packets a function needs to see on one worker; [`Steering`] brings
//!   them there.
//! - [`FlowTable`] keeps the state of flows, in fixed memory, looked up a burst at a time.
//! - [`Classifier`] finds the first of many rules that matches a packet, with sets of any size.
//! - [`RouterConfig`] is a router around the chain: addresses, routes, neighbours, ICMP.
//! - [`headers`] are views of a packet's bytes, with checksums; [`config`] reads TOML with
//!   errors that name file, line and key.
//! - [`App`] is the program around it all; [`Runtime`] the same without arguments and signals,
//!   of a [`Configuration`] that was validated as a whole.
//! - [`Control`] is a running program: counters, commands, new policies, reload, draining.
//! - [`capture`] reads and writes capture files; [`Described`] is a packet in words, [`terms`] are the words.
//! - [`doctor`] says what is wrong with a machine before DPDK is to blame.
//! - [`testing`] runs functions on real packets without a NIC, root or hugepages.
//!
//! # What it does not do yet
//!
//! Two ports at most. No multicast, and no routing protocol.
#![forbid(unsafe_code)]
#![warn(clippy::print_stderr, clippy::print_stdout, reason = "they panic where nothing can be written")]

mod annotation;
mod app;
mod batch;
mod berth;
pub mod capture;
mod chain;
mod changes;
mod classifier;
pub mod config;
mod context;
mod counters;
mod crash;
mod described;
mod direction;
pub mod doctor;
mod eal_arguments;
mod flow_table;
mod forwarding;
mod fragments;
mod function;
pub mod headers;
mod icmp;
mod idle;
mod kernel;
mod logging;
mod mailbox;
mod neighbours;
mod next_hop;
mod offline;
mod operate;
mod partial_checksums;
mod port_link;
mod position;
mod registry;
mod report;
mod router;
mod runtime;
mod service;
mod steering;
mod table;
pub mod terms;
pub mod testing;
mod time;
mod token_bucket;
mod trace;
mod verdict;
mod worker;
mod worker_port;

pub use annotation::Annotation;
pub use app::App;
pub use batch::{Batch, Slots};
pub use chain::{Chain, Then};
pub use changes::{Change, Changes};
pub use classifier::{
    AddressSet, Addresses, Classifier, ClassifierError, FlagsMatch, IcmpMatch, InvalidPrefix, IpFamily, Key, Prefix,
    Rule, RuleFault, RuleIndex,
};
pub use context::Context;
pub use counters::{Counter, Gauge, Occupancy};
pub use crash::CrashReports;
pub use described::{AskedPackets, Described, InvalidDescription, NoPackets};
pub use direction::Direction;
pub use flow_table::{
    Class, Deadline, Entry, FlowKey, FlowTable, FlowTableCounters, FlowTableError, Full, Handle, Insertion, Removal,
    Removed,
};
pub use forwarding::{Forwarding, Wire};
pub use fragments::{FragmentsConfig, SplitError, split_ipv4};
pub use function::{
    Budget, Destination, FileContent, Finding, Function, Invalid, NetworkFunction, PacketFunction, SetupError,
    WorkerSetup,
};
pub use icmp::IcmpError;
pub use idle::Idle;
pub use kernel::{
    KernelAddress, KernelError, KernelFollower, KernelInterface, KernelNextHop, KernelRoute, KernelState,
};
pub use mailbox::WorkerStopped;
pub use neighbours::{DuplicateAddress, Neighbour, NeighbourConfig, NeighbourCounters, NeighbourState, NeighbourTable};
pub use next_hop::{NextHop, NextHops, TooManyNextHops};
pub use offline::is_inside;
pub use operate::{AdminConfig, AdminDoor, AdminError, NoParameters, Piece, SocketError, Topic};
pub use position::Position;
pub use registry::TableReport;
pub use report::{
    BackendReport, Balance, CounterReport, DropReport, FunctionReport, PortReport, Report, WorkReport, WorkerReport,
};
pub use router::{InterfaceAddress, InterfaceConfig, Refuse, RouteConfig, RouterConfig, RouterError, Side};
pub use runtime::{
    AdminOrder, Check, CommandError, Configuration, Control, Drained, ForwardingKind, Functions, InUse, Loaded,
    PortsConfig, RebuildError, Reload, ReloadError, ReloadOrder, Runtime, RuntimeConfig, RuntimeError, SteeringKind,
};
pub use steering::{Affinity, AffinityConflict, Ports, Steering, Tuple};
pub use table::Table;
pub use time::Instant;
pub use token_bucket::{TokenBucket, TokenLevel, TokenRate};
pub use trace::{
    DropsError, DropsRequest, DropsWritten, Note, Step, Trace, TraceError, TraceRequest, TracedPacket, Traces, Tracing,
};
pub use verdict::{DropReason, DropReasons, PortIx, TooManyDropReasons, Verdict};

pub use dpdk_rs::{AclAlgorithm, ChecksumStatus, HashKey, HugeSlice, Lcore, Mbuf, Memory, Mempool, prefetch};
