//! A packet that was sent belongs to the device.
use dpdk_rs::{Mbuf, TxQueue};

fn twice(queue: &mut TxQueue, packet: Mbuf) {
    let _ = queue.send_one(packet);
    let _ = queue.send_one(packet);
}

fn main() {}
