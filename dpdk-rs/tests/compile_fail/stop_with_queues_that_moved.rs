//! The port stops with all its queues, and a worker has them.
use dpdk_rs::{Burst, Eal, Lcore, Port, QueuePair};

fn stop(eal: &Eal, lcore: Lcore, port: Port, mut queues: Vec<QueuePair>) {
    eal.scope(|scope| {
        let _ = scope.launch(lcore, move || queues[0].rx.receive(&mut Burst::new()));
        let _ = port.stop(queues);
    });
}

fn main() {}
