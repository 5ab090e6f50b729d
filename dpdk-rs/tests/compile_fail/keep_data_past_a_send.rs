//! The packet's bytes go with the packet, also when a burst is sent.
use dpdk_rs::{Burst, TxQueue};

fn kept(queue: &mut TxQueue, burst: &mut Burst) -> u8 {
    let data = burst.packet(0).map(|packet| packet.data()).unwrap_or_default();
    queue.send(burst);
    data[0]
}

fn main() {}
