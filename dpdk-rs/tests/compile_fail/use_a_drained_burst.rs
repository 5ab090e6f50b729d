//! A burst is not touched while it is drained.
use dpdk_rs::Burst;

fn drained(burst: &mut Burst) {
    for packet in burst.drain() {
        let _ = burst.push(packet);
    }
}

fn main() {}
