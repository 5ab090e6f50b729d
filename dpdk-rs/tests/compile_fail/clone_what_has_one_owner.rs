//! None of these can be cloned.
use dpdk_rs::{Burst, Consumer, Eal, Mbuf, Port, Producer, QueuePair, RxQueue, TxQueue};

fn cloned<T: Clone>() {}

fn main() {
    cloned::<Mbuf>();
    cloned::<Burst>();
    cloned::<RxQueue>();
    cloned::<TxQueue>();
    cloned::<QueuePair>();
    cloned::<Port>();
    cloned::<Producer>();
    cloned::<Consumer>();
    cloned::<Eal>();
}
