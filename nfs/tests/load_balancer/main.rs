//! The load balancer, packet by packet, row by row, through a chain with a router: on one worker, and on two with every
//! packet arriving at the wrong one.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bench;
mod change;
mod configuration;
mod health;
mod icmp;
mod many;
mod modes;
mod reasons;
mod selection;
mod translation;
