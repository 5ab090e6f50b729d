//! Load balancer.
#![allow(dead_code)]

mod proxy_protocol;
mod source_ports;
