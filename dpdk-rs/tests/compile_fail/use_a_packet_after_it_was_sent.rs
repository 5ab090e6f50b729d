//! A packet that was sent belongs to the device.
use dpdk_rs::{Mbuf, TxQueue};

fn after(queue: &mut TxQueue, mut packet: Mbuf) {
    let _ = queue.send_one(packet);
    packet.data_mut()[0] = 0;
}

fn main() {}
