//! What an lcore returns may borrow until the scope's end, and its join with it.
use dpdk_rs::{Eal, Lcore};

fn out(eal: &Eal, lcore: Lcore) {
    let join = eal.scope(|scope| scope.launch(lcore, || ()));
    drop(join);
}

fn main() {}
