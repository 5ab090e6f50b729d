//! A packet is freed once.
use dpdk_rs::Mbuf;

fn twice(packet: Mbuf) {
    drop(packet);
    drop(packet);
}

fn main() {}
