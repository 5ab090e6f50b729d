//! Sends every packet back out of the port that it came in by, with its addresses swapped.
//!
//! reflect -l 0 --no-pci --vdev=net_tap0

use anyhow::Context;
use dpdk_rs::{Burst, Eal, Mempool, MempoolConfig, PortBuilder};

fn main() -> anyhow::Result<()> {
    env_logger::init();
    let (eal, _) = Eal::init(std::env::args())?;
    let pool = Mempool::new(&eal, "packets", MempoolConfig::default())?;
    let port = eal.ports().next().context("no port: give one by -a or --vdev")?;
    let (port, mut queues) = PortBuilder::new(&eal, port).pool(&pool).start()?;
    println!("reflecting on {}", port.name());

    let queue = &mut queues[0];
    let mut burst = Burst::new();
    loop {
        queue.rx.receive(&mut burst);
        for packet in burst.iter_mut() {
            if let Some(addresses) = packet.data_mut().first_chunk_mut::<12>() {
                addresses.rotate_left(6);
            }
        }
        queue.tx.send(&mut burst);
        burst.clear(); // what the full queue refused
    }
}
