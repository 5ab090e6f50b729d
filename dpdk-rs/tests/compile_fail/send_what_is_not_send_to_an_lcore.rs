//! An lcore is another thread.
use dpdk_rs::{Eal, Lcore};
use std::rc::Rc;

fn shared(eal: &Eal, lcore: Lcore, count: Rc<u32>) {
    eal.scope(|scope| {
        let _ = scope.launch(lcore, move || *count);
    });
}

fn main() {}
