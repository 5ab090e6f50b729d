//! An lcore may outlast the scope's closure, so it cannot borrow from inside of it.
use dpdk_rs::{Eal, Lcore};

fn too_short(eal: &Eal, lcore: Lcore) {
    eal.scope(|scope| {
        let local = vec![1];
        let _ = scope.launch(lcore, || local.len());
    });
}

fn main() {}
