//! A load balancer of layer 4: service addresses, each with backends behind it.

mod health;

pub use health::*;
