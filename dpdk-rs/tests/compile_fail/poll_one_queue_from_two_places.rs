//! Two exclusive borrows of one receive queue.
use dpdk_rs::{Burst, RxQueue};

fn both(queue: &mut RxQueue, first: &mut Burst, second: &mut Burst) {
    let one = &mut *queue;
    let two = &mut *queue;
    one.receive(first);
    two.receive(second);
}

fn main() {}
