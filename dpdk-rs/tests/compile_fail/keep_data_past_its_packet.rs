//! The packet's bytes go with the packet.
use dpdk_rs::Mbuf;

fn kept(packet: Mbuf) -> u8 {
    let data = packet.data();
    drop(packet);
    data[0]
}

fn main() {}
