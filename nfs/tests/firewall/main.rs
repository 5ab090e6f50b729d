//! The firewall, packet by packet, row by row: on one worker, and on two with every packet arriving at the wrong
//! one; as a wire, and between the two halves of a router.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod captured;
mod configuration;
mod cookies;
mod described;
mod explained;
mod fragments;
mod icmp;
mod limits;
mod log;
mod reasons;
mod reload;
mod routed;
mod rules;
mod tcp;
mod with_nat;
