//! Which backends are ready: checks that go over the data path itself, by the same way as clients' packets.
//!
//! `engine` is all of it but the clock: a check of a backend is a small TCP/IP stack with one socket, whose
//! packets a worker sends as if they were a client's, and which gets what comes back to a probe address. So a check
//! fails when clients' packets would not arrive either.

mod arrival;
mod awaited;
mod check;
mod config;
mod damping;
mod engine;
mod failure;
mod http;
mod judge;
mod passive;
mod probe;
mod slow_start;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod thread;
mod tls;
mod wanted;

pub(crate) use check::Check;
pub use config::{HealthConfig, HealthKind, PassiveConfig, Seconds};
pub use engine::{BackendHealth, HealthCounters};
pub(crate) use engine::{ProbeAddresses, Target};
pub use failure::Failure;
pub use judge::State;
pub(crate) use passive::Traffic;
pub(crate) use thread::{Door, Gauges, Health};
pub(crate) use wanted::{checks, targets};
