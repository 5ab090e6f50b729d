//! Network functions, each a control object with a configuration table of its own, to be
//! put into chains by `nf-chain` or by a program of yours.
//!
//! Today there are [`nat`], a NAT44, [`load_balancer`], [`firewall`], a stateful firewall, and two small ones,
//! [`monitor`] and [`rate_limit`].
#![forbid(unsafe_code)]
#![warn(clippy::print_stderr, clippy::print_stdout, reason = "they panic where nothing can be written")]

pub mod ctl;
pub mod door;
pub mod firewall;
mod identification;
mod json_log;
pub mod load_balancer;
pub mod monitor;
pub mod nat;
mod random;
pub mod rate_limit;
mod rewrite;
pub mod top;
