//! Network functions on DPDK: the traits to write one against, and all that they share.
#![forbid(unsafe_code)]

mod app;
mod batch;
mod chain;
pub mod config;
mod context;
mod counters;
mod forwarding;
mod function;
pub mod headers;
mod mailbox;
mod report;
mod runtime;
pub mod testing;
mod time;
mod verdict;
mod worker;

pub use app::App;
pub use batch::{Batch, Slots};
pub use chain::{Chain, Then};
pub use context::{Context, Direction, Position};
pub use counters::Counter;
pub use forwarding::{Forwarding, Wire};
pub use function::{Budget, Function, Invalid, NetworkFunction, PacketFunction, SetupError, WorkerSetup};
pub use mailbox::WorkerStopped;
pub use report::{Balance, CounterReport, DropReport, FunctionReport, PortReport, Report};
pub use runtime::{CommandError, Control, ForwardingKind, Loaded, PortsConfig, Runtime, RuntimeConfig, RuntimeError};
pub use time::Instant;
pub use verdict::{DropReason, DropReasons, PortIx, TooManyDropReasons, Verdict};

pub use dpdk_rs::{Lcore, Mbuf, Mempool};
