//! A stopped port is gone.
use dpdk_rs::{Port, QueuePair};

fn after(port: Port, queues: Vec<QueuePair>) {
    let _ = port.stop(queues);
    let _ = port.stats();
}

fn main() {}
