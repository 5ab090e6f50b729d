//! A packet is in one burst.
use dpdk_rs::{Burst, Mbuf};

fn both(packet: Mbuf, first: &mut Burst, second: &mut Burst) {
    let _ = first.push(packet);
    let _ = second.push(packet);
}

fn main() {}
