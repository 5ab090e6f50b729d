//! What is fuzzed. A target is a file here and a line in [`ALL`]: `scripts/fuzz` finds it there, and
//! `tests/fuzz_regressions.rs` replays what has ever made it fail.

mod capture;
mod fragments;
mod headers;
mod links;
mod neighbours;
mod quoted;
mod router;
mod split;
mod stations;

use nf_framework::headers::Headers;
use nf_framework::testing::Frame;

/// One thing that any bytes are given to.
pub(crate) struct Target {
    /// As `scripts/fuzz` calls it, and the directory of its regressions.
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) about: &'static str,
    /// What mutations begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Panics when something does not hold.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const ALL: &[Target] = &[
    headers::TARGET,
    quoted::TARGET,
    fragments::TARGET,
    split::TARGET,
    neighbours::TARGET,
    router::TARGET,
    capture::TARGET,
];

const A4: [u8; 4] = [192, 0, 2, 1];
const B4: [u8; 4] = [198, 51, 100, 1];
const A6: [u16; 8] = [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1];
const B6: [u16; 8] = [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2];

/// Frames of every kind.
fn frames() -> Vec<Frame> {
    let (v4, v6) = (|| Frame::new().ipv4(A4, B4), || Frame::new().ipv6(A6, B6));
    vec![
        v4().udp(1000, 53).payload(b"hello"),
        v4().vlan(1).ipv4_options(&[148, 4, 0, 0, 1, 1, 68, 4]).udp(1000, 53).payload(b"hello"),
        v4().udp(1000, 53).payload(&[0; 16]).fragment(0, true),
        v4().service_vlan(1).vlan(2).tcp(1000, 80).tcp_options(&[1; 12]).payload(b"hello"),
        v4().tcp(1000, 80).payload(&[0; 12]).fragment(0, true),
        v4().icmp_echo_request(1, 2).payload(b"hello"),
        v4().protocol(47).payload(&[0; 8]),
        Frame::new().arp_request(A4, B4).pad_to(60),
        v6().udp(1000, 53).payload(b"hello"),
        v6().extension(0, &[]).extension(43, &[4, 1]).udp(1, 2).payload(&[0; 16]).fragment(0, true),
        v6().extension(51, &[0; 10]).udp(1, 2).payload(&[0; 16]).fragment(8, false),
        v6().extension(60, &[]).udp(1, 2).fragment(0, false),
        v6().tcp(1, 2).tcp_options(&[1; 40]),
        v6().icmpv6_echo_request(1, 2),
        v6().icmpv6(135, 0, [0; 4]).payload(&[0; 24]),
        Frame::new().ether_type(0x88cc).payload(b"hello"),
    ]
}

/// Makes the checksums right, so that what asks for that is got past.
fn repair(frame: &mut [u8]) {
    if let Ok(mut headers) = Headers::parse(frame) {
        headers.fill_checksums();
    }
}
