//! A pool of the router's own address, as where there is only one: what is the router's own stays so.

use super::bench::{A, B, X, from, from_outside, inside, left, outside, packet, with_nat};
use nf_framework::headers::TcpFlags;
use std::net::Ipv4Addr;

const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const TEXT: &str = "[[pools]]\naddresses = [\"198.51.100.1\"]";

#[test]
fn hosts_share_the_address_of_the_outer_interface() {
    with_nat(TEXT, |nat| {
        let out = nat.out(&from(A, X).udp(5000, 53).payload(b"question"));
        let port = left(&out).source_port;
        assert_eq!(out.outside, [outside(WAN, X).udp(port, 53).payload(b"question").build()]);
        let back = nat.back(&from_outside(X, WAN).udp(53, port).payload(b"answer"));
        assert_eq!(back.inside, [inside(X, A).udp(53, 5000).payload(b"answer").build()]);
        let syn = nat.out(&from(B, X).tcp(5000, 80).flags(TcpFlags::SYN));
        assert_eq!(left(&syn).source, WAN);
        // An error of the router itself, about a packet without hops.
        let sent = from(A, X).time_to_live(1).udp(5000, 53);
        let lan = Ipv4Addr::new(192, 168, 0, 1);
        let expected = inside(lan, A).time_to_live(64).traffic_class(0xc0).icmp(11, 0, [0; 4]).payload(&packet(&sent));
        assert_eq!(nat.out(&sent).inside, [expected.build()]);
        let sent = from_outside(X, WAN).time_to_live(1).udp(53, port);
        let expected = outside(WAN, X).time_to_live(64).traffic_class(0xc0).icmp(11, 0, [0; 4]).payload(&packet(&sent));
        assert_eq!(nat.back(&sent).outside, [expected.build()]);
    });
}

#[test]
fn servers_and_hosts_of_their_own_may_have_the_address_of_the_outer_interface() {
    const FORWARD: &str = "forward = [{ protocol = \"tcp\", outside = \"198.51.100.1\", ports = \"80\", \
                           to = [\"192.168.1.10:8080\"] }]";
    const ONE_TO_ONE: &str = "one_to_one = [{ inside = \"192.168.1.10\", outside = \"198.51.100.1\" }]";
    for (text, port) in [(FORWARD, 8080), (ONE_TO_ONE, 80)] {
        with_nat(text, move |nat| {
            let back = nat.back(&from_outside(X, WAN).tcp(5000, 80).flags(TcpFlags::SYN));
            assert_eq!(back.inside, [inside(X, A).tcp(5000, port).flags(TcpFlags::SYN).build()]);
            let out = nat.out(&from(A, X).tcp(port, 5000));
            assert_eq!(out.outside, [outside(WAN, X).tcp(80, 5000).build()]);
        });
    }
}
