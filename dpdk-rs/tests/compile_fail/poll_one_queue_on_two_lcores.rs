//! One receive queue borrowed by the closures of two lcores.
use dpdk_rs::{Burst, Eal, Lcore, RxQueue};

fn both(eal: &Eal, lcores: &[Lcore], queue: &mut RxQueue) {
    eal.scope(|scope| {
        for lcore in lcores {
            let _ = scope.launch(*lcore, || queue.receive(&mut Burst::new()));
        }
    });
}

fn main() {}
