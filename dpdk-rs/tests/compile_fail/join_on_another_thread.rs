//! So does waiting for an lcore.
use dpdk_rs::{Eal, Lcore};

fn elsewhere(eal: &Eal, lcore: Lcore) {
    eal.scope(|scope| {
        if let Ok(join) = scope.launch(lcore, || ()) {
            let _ = scope.control("control", move || join.join().is_ok());
        }
    });
}

fn main() {}
