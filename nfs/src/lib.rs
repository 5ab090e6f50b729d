//! Network functions, each a control object with a configuration table of its own, to be
//! put into chains by `nf-chain` or by a program of yours.
//!
//! Today there are [`nat`], a NAT44, [`firewall`], a stateful firewall, and two small ones, [`monitor`] and
//! [`rate_limit`]. The load balancer is being built.
#![forbid(unsafe_code)]

pub mod firewall;
pub mod monitor;
pub mod nat;
pub mod rate_limit;
