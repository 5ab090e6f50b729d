//! A queue that threads share cannot be polled.
use dpdk_rs::{Burst, RxQueue, TxQueue};

fn shared(rx: &RxQueue, tx: &TxQueue, burst: &mut Burst) {
    rx.receive(burst);
    tx.send(burst);
}

fn main() {}
