//! Packets with too few hops, and longer than the next link takes: RFC 4787 section 10, RFC 5508
//! sections 7.1 and 7.2.

use super::bench::{
    A, NEXT, P, ROUTER, X, dropped, from, from_outside, inside, mac, outside, packet, with_nat, with_nat_between,
};
use nf_framework::testing::{Frame, Trial};
use std::net::Ipv4Addr;

const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

/// Links of which the one on this side takes less than the other.
fn narrow(side: &str) -> String {
    let side = format!("side = \"{side}\"\n");
    ROUTER.replace(&side, &format!("{side}mtu = 1280\n"))
}

/// A host is told by the router at its own link.
fn told(host: Ipv4Addr) -> Frame {
    inside(LAN, host).time_to_live(64).traffic_class(0xc0)
}

#[test]
fn n29_a_hop_is_taken_off_and_who_has_none_left_is_told() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        for hops in [0, 1] {
            let sent = from(A, X).time_to_live(hops).udp(5000, 53).payload(b"far");
            let out = nat.out(&sent);
            assert_eq!(dropped(&out), "ttl-expired");
            assert_eq!(out.inside, [told(A).icmp(11, 0, [0; 4]).payload(&packet(&sent)).build()]);
            let sent = from_outside(X, P).time_to_live(hops).udp(53, port).payload(b"near");
            let back = nat.back(&sent);
            assert_eq!(dropped(&back), "ttl-expired");
            // RFC 5508 REQ-5: nothing inside has an address that means anything outside.
            let expected =
                outside(P, X).time_to_live(64).traffic_class(0xc0).icmp(11, 0, [0; 4]).payload(&packet(&sent));
            assert_eq!(back.outside, [expected.build()]);
        }
        let out = nat.out(&from(A, X).time_to_live(2).udp(5000, 53));
        assert_eq!(out.outside, [outside(P, X).time_to_live(1).udp(port, 53).build()]);
        let back = nat.back(&from_outside(X, P).time_to_live(2).udp(53, port));
        assert_eq!(back.inside, [inside(X, A).time_to_live(1).udp(53, 5000).build()]);
    });
}

#[test]
fn n17_what_may_not_be_fragmented_is_told_of_with_the_mtu() {
    with_nat_between(&narrow("outside"), "", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let sent = from(A, X).udp(5000, 53).payload(&[7; 1253]);
        let out = nat.out(&sent);
        assert_eq!(dropped(&out), "too-big");
        assert!(out.outside.is_empty());
        // 576 octets in all: RFC 1812 section 4.3.2.3.
        let about = &packet(&sent)[..576 - 28];
        assert_eq!(out.inside, [told(A).icmp(3, 4, [0, 0, 5, 0]).payload(about).build()]);
        // 1280 octets are none too many.
        let out = nat.out(&from(A, X).udp(5000, 53).payload(&[7; 1252]));
        assert_eq!(out.outside, [outside(P, X).udp(port, 53).payload(&[7; 1252]).build()]);
    });
    with_nat_between(&narrow("inside"), "", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let sent = from_outside(X, P).udp(53, port).payload(&[7; 1253]);
        let back = nat.back(&sent);
        assert_eq!(dropped(&back), "too-big");
        let about = &packet(&sent)[..576 - 28];
        let expected = outside(P, X).time_to_live(64).traffic_class(0xc0).icmp(3, 4, [0, 0, 5, 0]).payload(about);
        assert_eq!(back.outside, [expected.build()]);
    });
}

#[test]
fn n17_what_may_be_fragmented_is_in_order() {
    with_nat_between(&narrow("outside"), "", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let payload: Vec<u8> = (0..1400_u16).map(|byte| byte.to_le_bytes()[0]).collect();
        let bare = || Frame::new().ethernet(mac(A).0, Trial::INSIDE_MAC.0).ipv4(A, X).identification(77);
        let out = nat.out(&bare().udp(5000, 53).payload(&payload));
        let [first, _] = &out.outside[..] else { panic!("{out:?}") };
        let identification = u16::from_be_bytes([first[18], first[19]]);
        let whole = Frame::new()
            .ethernet(Trial::OUTSIDE_MAC.0, NEXT.0)
            .ipv4(P, X)
            .time_to_live(63)
            .identification(identification.into())
            .udp(port, 53)
            .payload(&payload);
        assert_eq!(out.outside, whole.build_fragments(1256));
    });
}
