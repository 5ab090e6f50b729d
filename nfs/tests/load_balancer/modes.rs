//! How packets reach backends, byte by byte: rows L10, L13, L14 and L15.

use super::bench::{
    ACK, Bench, R, ROUTER, SYN, VIP, VIP6, X, X6, backend, backend6, config, dropped, from_client, from_outside,
    from_outside6, mac, service, went_to, with_balancer, with_balancer_between,
};
use nf_framework::Direction;
use nf_framework::testing::{Frame, Outcome, Trial};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// A service of either family by this mode, with one backend.
fn one(mode: &str, ipv6: bool, to: IpAddr, more: &str) -> String {
    let address = if ipv6 { IpAddr::V6(VIP6) } else { IpAddr::V4(VIP) };
    format!(
        "[[services]]\nname = \"web\"\naddress = \"{address}\"\nprotocol = \"any\"\nmode = \"{mode}\"\n{more}\n\
         [[services.backends]]\naddress = \"{to}\"\n"
    )
}

/// The one frame that left by the inside port.
fn left(outcome: &Outcome) -> &[u8] {
    assert_eq!((outcome.outside.len(), outcome.inside.len()), (0, 1), "{outcome:?}");
    &outcome.inside[0]
}

/// Client's packets that a tunnel has to carry as they are.
fn packets(ipv6: bool) -> Vec<(&'static str, Frame)> {
    let client = || if ipv6 { from_outside6(X6, VIP6) } else { from_client() };
    let mut all = vec![
        ("a SYN", client().tcp(1000, 80).flags(SYN).traffic_class(0xb9)),
        ("what follows", client().tcp(1000, 80).flags(ACK).payload(&[7; 99]).traffic_class(0x02)),
        ("more of it", client().tcp(1000, 80).flags(ACK).payload(&[8; 1200])),
        ("UDP", client().udp(5000, 53).payload(b"who").hop_limit_of(ipv6, 3)),
        ("UDP once more", client().udp(5000, 53).payload(b"what").hop_limit_of(ipv6, 1)),
        ("another protocol", client().protocol(132).payload(&[1; 30])),
        ("one with padding", client().udp(5000, 53).pad_to(90)),
    ];
    if ipv6 {
        all.push(("one with an extension header", client().extension(60, &[1, 4, 0, 0, 0, 0]).udp(5000, 54)));
    } else {
        all.push(("one with options", client().ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0]).udp(5000, 54)));
    }
    all
}

trait Hops {
    fn hop_limit_of(self, ipv6: bool, hops: u8) -> Frame;
}

impl Hops for Frame {
    fn hop_limit_of(self, ipv6: bool, hops: u8) -> Frame {
        if ipv6 { self.hop_limit(hops) } else { self.time_to_live(hops) }
    }
}

/// The packet in a frame without padding.
fn inner(frame: &Frame) -> Vec<u8> {
    frame.clone().pad_to(0).build()[14..].to_vec()
}

/// The outer packet that there has to be around an inner one, but for what the flow decides, which is taken from what
/// was found.
fn outer(found: &[u8], to: IpAddr, protocol: u8, before: &[u8], packet: &[u8]) -> Vec<u8> {
    let class = if packet[0] >> 4 == 6 { packet[0] << 4 | packet[1] >> 4 } else { packet[1] };
    let frame = Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(11).0).traffic_class(class);
    let payload = [before, packet].concat();
    match to {
        IpAddr::V4(to) => {
            let source: [u8; 4] = found[26..30].try_into().unwrap();
            assert_eq!(source[..2], [10, 9], "of the prefix");
            frame.ipv4(source, to).dont_fragment().time_to_live(64).protocol(protocol).payload(&payload).build()
        }
        IpAddr::V6(to) => {
            let source: [u8; 16] = found[22..38].try_into().unwrap();
            assert_eq!(source[..8], [0x20, 1, 0xd, 0xb8, 0, 0x99, 0, 0], "of the prefix");
            let mut frame = frame.ipv6(source, to).hop_limit(64).protocol(protocol).payload(&payload).build();
            // The flow label.
            frame[15] |= found[15] & 0x0f;
            frame[16..18].copy_from_slice(&found[16..18]);
            frame
        }
    }
}

/// What stands between the headers, again with what the flow decides taken from what was found.
fn between(mode: &str, found: &[u8], to: IpAddr, packet: &[u8]) -> (u8, Vec<u8>) {
    let at = if to.is_ipv6() { 54 } else { 34 };
    let ipv6 = packet[0] >> 4 == 6;
    match mode {
        "ipip" => (if ipv6 { 41 } else { 4 }, vec![]),
        "gre" => (47, if ipv6 { vec![0, 0, 0x86, 0xdd] } else { vec![0, 0, 8, 0] }),
        _ => {
            assert!(u16::from_be_bytes([found[at], found[at + 1]]) >= 0xc000, "of the ports that nobody is given");
            let [high, low] = u16::try_from(8 + packet.len()).unwrap().to_be_bytes();
            // Port 6080, and no checksum.
            (17, vec![found[at], found[at + 1], 0x17, 0xc0, high, low, 0, 0])
        }
    }
}

/// Every packet comes to the backend in a tunnel as it was, with a right header around it.
fn carries(bench: &mut Bench, mode: &str, ipv6: bool, to: IpAddr) {
    for (what, frame) in packets(ipv6) {
        let outcome = bench.client(&frame);
        let (found, packet) = (left(&outcome), inner(&frame));
        let (protocol, before) = between(mode, found, to, &packet);
        assert_eq!(found, outer(found, to, protocol, &before, &packet), "{what} by {mode} to {to}");
    }
}

macro_rules! tunnels {
    ($($name:ident: $mode:literal, $ipv6:literal, $to:expr;)*) => {
        $(#[test]
        fn $name() {
            with_balancer(&one($mode, $ipv6, $to.into(), ""), |bench| carries(bench, $mode, $ipv6, $to.into()));
        })*
    };
}

tunnels! {
    l10_ip_in_ip_carries_the_packet_as_it_is: "ipip", false, backend(11);
    l10_ipv6_in_ipv6_carries_the_packet_as_it_is: "ipip", true, backend6(11);
    l10_ipv4_in_ipv6_carries_the_packet_as_it_is: "ipip", false, backend6(11);
    l10_ipv6_in_ipv4_carries_the_packet_as_it_is: "ipip", true, backend(11);
    l10_gre_in_ipv4_carries_the_packet_as_it_is: "gre", false, backend(11);
    l10_gre_in_ipv4_carries_ipv6_as_it_is: "gre", true, backend(11);
    l10_gre_in_ipv6_carries_the_packet_as_it_is: "gre", true, backend6(11);
    l10_gre_in_ipv6_carries_ipv4_as_it_is: "gre", false, backend6(11);
    l10_gue_in_ipv4_carries_the_packet_as_it_is: "gue", false, backend(11);
    l10_gue_in_ipv4_carries_ipv6_as_it_is: "gue", true, backend(11);
    l10_gue_in_ipv6_carries_the_packet_as_it_is: "gue", true, backend6(11);
    l10_gue_in_ipv6_carries_ipv4_as_it_is: "gue", false, backend6(11);
}

#[test]
fn l10_the_outer_source_is_the_flows_own_and_spreads() {
    for (mode, at) in [("ipip", 28..30), ("gue", 34..36)] {
        let text = format!("tunnel_sources = [\"10.9.0.0/16\"]\n{}", one(mode, false, backend(11).into(), ""));
        let at = (at.start, at.end);
        with_balancer(&text, move |bench| {
            let mut seen = std::collections::BTreeSet::new();
            for port in 1000..1064 {
                let entropy: Vec<_> = [SYN, ACK, ACK]
                    .map(|flags| left(&bench.client(&from_client().tcp(port, 80).flags(flags)))[at.0..at.1].to_vec())
                    .into();
                assert!(entropy.iter().all(|of| *of == entropy[0]), "one flow has one");
                seen.insert(entropy[0].clone());
            }
            assert!(seen.len() > 60, "{} of 64 differ", seen.len());
        });
    }
    // One address is one address.
    let text = format!("tunnel_sources = [\"10.9.8.7\"]\n{}", one("ipip", false, backend(11).into(), ""));
    with_balancer(&text, |bench| {
        for port in 1000..1010 {
            assert_eq!(left(&bench.client(&from_client().tcp(port, 80)))[26..30], [10, 9, 8, 7]);
        }
    });
}

#[test]
fn l10_direct_return_changes_the_mac_address_and_takes_a_hop() {
    for ipv6 in [false, true] {
        let to = if ipv6 { backend6(11).into() } else { backend(11).into() };
        with_balancer(&one("dsr", ipv6, to, ""), move |bench| {
            for (what, frame) in packets(ipv6).into_iter().filter(|(_, frame)| inner(frame)[7 + usize::from(!ipv6)] > 1)
            {
                let hops = inner(&frame)[7 + usize::from(!ipv6)];
                let expected = frame.clone().ethernet(Trial::INSIDE_MAC.0, mac(11).0).hop_limit_of(ipv6, hops - 1);
                assert_eq!(left(&bench.client(&frame)), expected.build(), "{what}");
            }
        });
    }
}

#[test]
fn l10_by_code_point_the_packet_goes_to_the_backends_address() {
    for ipv6 in [false, true] {
        let to = if ipv6 { backend6(11).into() } else { backend(11).into() };
        with_balancer(&one("dscp", ipv6, to, "dscp = 10"), move |bench| {
            let client = || {
                if ipv6 { from_outside6(X6, VIP6) } else { from_client() }
            };
            let came = |class: u8| {
                let frame = Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(11).0).traffic_class(class);
                let frame =
                    if ipv6 { frame.ipv6(X6, backend6(11)) } else { frame.ipv4(X, backend(11)).dont_fragment() };
                frame.hop_limit_of(ipv6, 63)
            };
            for (what, frame, expected) in [
                ("a SYN", client().tcp(1000, 80).flags(SYN), came(40).tcp(1000, 80).flags(SYN)),
                ("what follows", client().tcp(1000, 80).payload(&[7; 9]), came(40).tcp(1000, 80).payload(&[7; 9])),
                ("more", client().tcp(1000, 80).payload(&[8; 90]), came(40).tcp(1000, 80).payload(&[8; 90])),
                (
                    "congestion marks",
                    client().udp(1000, 53).traffic_class(0xfb).payload(&[1]),
                    came(43).udp(1000, 53).payload(&[1]),
                ),
                ("another protocol", client().protocol(132).payload(&[1; 9]), came(40).protocol(132).payload(&[1; 9])),
            ] {
                assert_eq!(left(&bench.client(&frame)), expected.build(), "{what}");
            }
        });
    }
    // UDP without a checksum stays so, and a backend may have a code point of its own.
    with_balancer(&format!("{}dscp = 9", one("dscp", false, backend(11).into(), "dscp = 10")), |bench| {
        let expected = Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(11).0).ipv4(X, backend(11)).dont_fragment();
        let expected = expected.time_to_live(63).traffic_class(36).udp(1, 2).without_udp_checksum();
        let outcome = bench.client(&from_client().udp(1, 2).without_udp_checksum());
        assert_eq!(left(&outcome), expected.build());
    });
}

#[test]
fn l13_who_sends_what_is_too_big_for_the_tunnel_is_told() {
    for (mode, to, overhead) in [
        ("ipip", IpAddr::V4(backend(11)), 20),
        ("gre", backend(11).into(), 24),
        ("gue", backend(11).into(), 28),
        ("ipip", backend6(11).into(), 40),
        ("gue", backend6(11).into(), 48),
    ] {
        let text = one(mode, false, to, "mtu = 1400");
        with_balancer(&text, move |bench| {
            // With the headers of IPv4 and TCP.
            let fits = |more: usize| from_client().tcp(1000, 80).payload(&vec![0; 1400 - overhead - 40 + more]);
            left(&bench.client(&fits(0)));
            left(&bench.client(&fits(0)));
            for _ in 0..2 {
                let outcome = bench.client(&fits(1));
                assert_eq!(dropped(&outcome), "lb-too-big");
                let mtu = u16::try_from(1400 - overhead).unwrap().to_be_bytes();
                let told = &outcome.outside[0];
                assert_eq!(told[14 + 16..14 + 20], X.octets(), "to the client");
                assert_eq!(told[34..36], [3, 4], "fragmentation needed");
                assert_eq!(told[40..42], mtu);
                assert_eq!(told[42..][..20], fits(1).build()[14..][..20], "it quotes what the client has sent");
            }
        });
    }
    // ICMPv6, packet too big.
    with_balancer(&one("ipip", true, backend6(11).into(), "mtu = 1400"), |bench| {
        let outcome = bench.client(&from_outside6(X6, VIP6).udp(1, 2).payload(&[0; 1361 - 48]));
        assert_eq!(dropped(&outcome), "lb-too-big");
        assert_eq!(outcome.outside[0][54..56], [2, 0]);
        assert_eq!(outcome.outside[0][58..62], 1360_u32.to_be_bytes());
    });
}

#[test]
fn l13_or_the_tunnel_of_ipv4_is_split() {
    with_balancer(&one("ipip", false, backend(11).into(), "too_big = \"fragment\""), |bench| {
        let frame = from_client().tcp(1000, 80).payload(&[5; 1460]);
        let mut identifications = Vec::new();
        for _ in 0..3 {
            let outcome = bench.client(&frame);
            assert_eq!((outcome.inside.len(), outcome.consumed, outcome.dropped.len()), (2, 1, 0), "{outcome:?}");
            let whole: Vec<_> = outcome.inside.iter().flat_map(|frame| frame[34..].to_vec()).collect();
            assert_eq!(whole, inner(&frame));
            identifications.push(outcome.inside[0][18..20].to_vec());
        }
        identifications.dedup();
        assert_eq!(identifications.len(), 3, "each packet has its own");
        // What fits goes whole.
        left(&bench.client(&from_client().tcp(1000, 80).payload(&[5; 1400])));
    });
    with_balancer(&one("ipip", false, backend6(11).into(), "too_big = \"fragment\""), |bench| {
        assert_eq!(dropped(&bench.client(&from_client().tcp(1000, 80).payload(&[5; 1460]))), "lb-too-big");
    });
}

#[test]
fn l13_no_two_packets_that_are_split_have_one_identification_whichever_worker_sends_them() {
    let text = format!(
        "tunnel_sources = [\"10.9.0.1\"]\n{}",
        one("ipip", false, backend(11).into(), "too_big = \"fragment\"")
    );
    with_balancer(&text, |bench| {
        let mut seen = BTreeSet::new();
        for port in 1000..1040 {
            // The second one of a connection that is known goes another way.
            for flags in [SYN, ACK, ACK] {
                let frame = from_client().tcp(port, 80).flags(flags).payload(&[5; 1460]);
                let outcome = bench.client(&frame);
                assert_eq!(outcome.inside.len(), 2, "{outcome:?}");
                assert_eq!(outcome.inside[0][18..20], outcome.inside[1][18..20]);
                assert!(seen.insert(outcome.inside[0][18..20].to_vec()), "port {port}");
            }
        }
    });
}

#[test]
fn l14_fragments_follow_their_first_one() {
    for mode in ["dsr", "ipip", "dscp"] {
        let more = if mode == "dscp" { "dscp = 1\nprotocol = \"udp\"" } else { "protocol = \"udp\"" };
        with_balancer(&service(mode, more, &[11, 12, 13, 14]), move |bench| {
            for port in 1000..1020 {
                // The same flow, whole.
                let number = bench.backend_of(&from_client().udp(port, 80));
                let frame = Frame::new().ethernet([2, 0, 0, 0, 0, 0x99], Trial::OUTSIDE_MAC.0).ipv4(X, VIP);
                let frame = frame.identification(port.into()).udp(port, 80).payload(&[3; 100]);
                let mut fragments = frame.build_fragments(64);
                // The later one comes first.
                fragments.reverse();
                let outcome = bench.burst(&fragments);
                assert_eq!((outcome.inside.len(), outcome.held), (2, 0), "{outcome:?}");
                assert!(outcome.inside.iter().all(|frame| frame[5] == number), "{number}: {outcome:?}");
                if mode == "ipip" {
                    for fragment in &outcome.inside {
                        assert!(fragments.iter().any(|sent| sent[14..] == fragment[34..]), "as it was");
                    }
                }
            }
        });
    }
}

#[test]
fn l15_what_is_for_nobody_here_passes_as_it_would_without() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        // To a host inside, and back; an ICMP error between others; the router's own echo.
        let frame = from_outside(X, backend(12)).udp(1, 2);
        assert_eq!(went_to(&bench.client(&frame)), 12);
        let error = from_outside(R, backend(12))
            .icmp(3, 1, [0; 4])
            .payload(&inner(&Frame::new().ipv4(backend(12), X).udp(1, 2)));
        assert_eq!(went_to(&bench.client(&error)), 12);
        let echo = from_outside(X, backend(12)).icmp_echo_request(1, 1);
        assert_eq!(went_to(&bench.client(&echo)), 12);
        let out = Frame::new().ethernet(mac(11).0, Trial::INSIDE_MAC.0).ipv4(VIP, X).tcp(80, 1000);
        let outcome = bench.trial.send(Direction::Outbound, &[out.build()]);
        assert_eq!((outcome.outside.len(), outcome.dropped.len()), (1, 0), "a backend that answers by this router");
        assert_eq!(bench.connections(), 0);
        // The router answers for the service's address.
        let ask = Frame::new()
            .ethernet([2, 0, 0, 0, 0, 0x99], [0xff; 6])
            .arp_request(Ipv4Addr::new(198, 51, 100, 2), Ipv4Addr::new(198, 51, 100, 1));
        assert_eq!(bench.client(&ask).outside.len(), 1);
    });
}

#[test]
fn l15_what_is_malformed_behind_its_addresses_is_dropped_where_it_is_for_here() {
    let own = Ipv4Addr::new(10, 0, 0, 200);
    with_balancer(&format!("source_addresses = [\"{own}\"]\n{}", service("dsr", "", &[11])), move |bench| {
        let broken = |to: Ipv4Addr| {
            let with = |frame: Frame, at: usize, octets: &[u8]| {
                let mut frame = frame.build();
                frame[at..at + octets.len()].copy_from_slice(octets);
                frame
            };
            let udp = || from_outside(X, to).udp(1, 80).payload(b"abc");
            [
                ("a TCP header of 8 octets", with(from_outside(X, to).tcp(1, 80).flags(SYN), 46, &[0x20])),
                ("UDP longer than its packet", with(udp(), 38, &[0xff, 0xff])),
                ("UDP shorter than its header", with(udp(), 38, &[0, 3])),
                ("3 octets of TCP", from_outside(X, to).protocol(6).payload(&[1, 2, 3]).build()),
            ]
        };
        for (what, frame) in broken(backend(12)) {
            assert_eq!(went_to(&bench.burst(&[frame])), 12, "{what}");
        }
        for (what, frame) in broken(VIP).into_iter().chain(broken(own)) {
            assert_eq!(dropped(&bench.burst(&[frame])), "malformed", "{what}");
        }
        let mut six = from_outside6(X6, backend6(12)).udp(1, 80).payload(b"abc").build();
        six[58..60].copy_from_slice(&[0, 3]);
        assert_eq!(went_to(&bench.burst(&[six])), 12);
    });
}

#[test]
fn one_armed_the_packet_leaves_by_the_link_that_it_came_by() {
    // Backends and clients on one side.
    let router = ROUTER
        .replace("side = \"inside\"\naddresses = [\"10.0.0.1/16\"", "side = \"inside\"\naddresses = [\"10.99.0.1/24\"");
    let router =
        router.replace("addresses = [\"198.51.100.1/24\"", "addresses = [\"198.51.100.1/24\", \"10.0.0.1/16\"");
    for mode in ["dsr", "ipip", "dscp"] {
        let more = if mode == "dscp" { "dscp = 1" } else { "" };
        with_balancer_between(&router, &service(mode, more, &[11]), move |bench| {
            let hello = Frame::new().ethernet(mac(11).0, [0xff; 6]).arp_request(backend(11), [10, 0, 0, 1]);
            bench.burst(&[hello.build()]);
            for flags in [SYN, ACK, ACK] {
                let outcome = bench.client(&from_client().tcp(1000, 80).flags(flags));
                assert_eq!((outcome.outside.len(), outcome.inside.len()), (1, 0), "{mode}: {outcome:?}");
                assert_eq!(outcome.outside[0][..6], mac(11).0);
            }
        });
    }
}

#[test]
fn a_tunnel_needs_a_source_of_its_family_and_room_for_what_all_links_take() {
    use nf_framework::Function as _;
    let balancer = nfs::load_balancer::LoadBalancer::new();
    let key = |text: &str| balancer.policy(config(text)).unwrap_err().key;
    let none = format!("tunnel_sources = []\n{}", one("ipip", false, backend(11).into(), ""));
    assert_eq!(key(&none), "services[0].backends[0].address");
    let six: IpAddr = backend6(11).into();
    let none = format!("tunnel_sources = [\"10.9.0.0/16\"]\n{}", one("gue", false, six, ""));
    assert_eq!(key(&none), "services[0].backends[0].address");
    assert_eq!(key(&one("gue", true, six, "mtu = 1327")), "services[0].mtu");
    assert!(balancer.policy(config(&one("gue", true, six, "mtu = 1328"))).is_ok());
}
