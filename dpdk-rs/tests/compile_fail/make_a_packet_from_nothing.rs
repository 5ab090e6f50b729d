//! Packets come from pools, queues and rings.
use dpdk_rs::Mbuf;
use std::ptr::NonNull;

fn main() {
    let _ = Mbuf(NonNull::dangling());
}
