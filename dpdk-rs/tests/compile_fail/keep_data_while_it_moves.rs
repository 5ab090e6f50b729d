//! Bytes that are looked at stay where they are.
use dpdk_rs::Mbuf;

fn kept(packet: &mut Mbuf) -> u8 {
    let data = packet.data();
    packet.adj(1);
    data[0]
}

fn main() {}
