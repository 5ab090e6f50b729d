//! The queue went to the worker.
use dpdk_rs::{Burst, Eal, Lcore, QueuePair};

fn after(eal: &Eal, lcore: Lcore, mut pair: QueuePair) {
    eal.scope(|scope| {
        let _ = scope.launch(lcore, move || pair.rx.receive(&mut Burst::new()));
        pair.rx.receive(&mut Burst::new());
    });
}

fn main() {}
