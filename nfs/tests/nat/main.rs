//! The NAT, packet by packet, row by row, through a chain with a router: on one worker, and on two with
//! every packet arriving at the wrong one.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod bursts;
mod checksums;
mod configuration;
mod filtering;
mod fragments;
mod hairpin;
mod hops_and_sizes;
mod icmp;
mod limits;
mod log;
mod mapping;
mod queries;
mod reasons;
mod reload;
mod router_address;
mod statics;
mod tcp;
mod timers;
