//! ICMP errors, Neighbor Discovery and RFC 4890: rows F10 and F12.

use super::bench::{A, A6, B, OUT, R, R6, X, X6, Y, denied, packet, tcp, v4, v6, with_firewall};

#[test]
fn f10_an_error_passes_as_related_to_a_live_connection() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.out(&v4(A, X).icmp_echo_request(7, 1)), Ok(()));
        assert_eq!(bench.out(&v6(A6, X6).udp(5000, 53)), Ok(()));
        let udp = packet(&v4(A, X).udp(5000, 53));
        let ping = packet(&v4(A, X).icmp_echo_request(7, 1));
        let data = packet(&tcp(A, X, 4000, 80, super::bench::ACK).sequence_number(1000));
        let error = |about: &[u8]| v4(R, A).icmp(3, 1, [0; 4]).payload(about);
        for (what, frame) in [
            ("UDP", error(&udp)),
            ("no more than it must", error(&udp[..28])),
            ("a ping", error(&ping)),
            ("TCP", error(&data)),
            ("time exceeded", v4(R, A).icmp(11, 0, [0; 4]).payload(&udp)),
            ("too big", v4(R, A).icmp(3, 4, [0, 0, 5, 0]).payload(&data)),
            ("too big in IPv6", v6(R6, A6).icmpv6(2, 0, [0, 0, 5, 0]).payload(&packet(&v6(A6, X6).udp(5000, 53)))),
        ] {
            assert_eq!(bench.back(&frame), Ok(()), "{what}");
        }
        // From inside about what came from outside.
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()));
        assert_eq!(bench.out(&v4(A, X).icmp(3, 3, [0; 4]).payload(&packet(&v4(X, A).udp(53, 5000)))), Ok(()));
        let unrelated = |frame: &nf_framework::testing::Frame| frame.clone();
        for (what, frame) in [
            ("another host", error(&packet(&v4(A, Y).udp(5000, 53)))),
            ("another port", error(&packet(&v4(A, X).udp(5001, 53)))),
            ("the opposite direction", error(&packet(&v4(X, A).udp(53, 5000)))),
            ("to somebody else", v4(R, B).icmp(3, 1, [0; 4]).payload(&udp)),
            ("a number that was never sent", error(&packet(&tcp(A, X, 4000, 80, 16).sequence_number(900_000)))),
            ("nothing", error(&[])),
            ("ports cut off", error(&udp[..22])),
        ] {
            assert_eq!(bench.back(&unrelated(&frame)), denied("unrelated"), "{what}");
        }
        // A redirect is no error about a connection.
        assert_eq!(bench.back(&v4(R, A).icmp(5, 1, [10, 0, 0, 1]).payload(&udp)), denied("default"));
        let mut broken = error(&udp).build();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(bench.goes(nf_framework::Direction::Inbound, broken), denied("checksum"));
        let whole = v4(R, A).icmp(3, 1, [0; 4]).payload(&[0; 100]);
        let parts = bench.send(nf_framework::Direction::Inbound, &whole.build_fragments(64));
        assert!(parts.inside.is_empty() && parts.dropped.keys().all(|reason| reason.starts_with("firewall-")));
    });
}

#[test]
fn f10_an_error_neither_prolongs_nor_ends_anything() {
    with_firewall(OUT, |bench| {
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.pass(20);
        let error = v4(R, A).icmp(3, 1, [0; 4]).payload(&packet(&v4(A, X).udp(5000, 53)));
        assert_eq!(bench.back(&error), Ok(()));
        assert_eq!(bench.connections(), 1);
        bench.pass(11);
        assert_eq!(bench.back(&error), denied("unrelated"));
    });
}

#[test]
fn f10_rules_may_say_otherwise_of_errors() {
    let text = format!(
        "{OUT}[[rules]]\nstate = \"related\"\nprotocol = \"icmp\"\nicmp = \"3/4\"\naction = \"accept\"\nlimit = {{ \
         connections_per_second = 1, burst = 2 }}\n[[rules]]\nstate = \"related\"\naction = \"drop\"\n"
    );
    with_firewall(&text, |bench| {
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        let about = packet(&v4(A, X).udp(5000, 53));
        let mut too_big = || bench.back(&v4(R, A).icmp(3, 4, [0, 0, 5, 0]).payload(&about));
        assert_eq!(too_big(), Ok(()));
        let first: Vec<_> = (0..3).map(|_| too_big()).collect();
        assert_eq!(first.last(), Some(&denied("rate-limit")));
        assert_eq!(bench.back(&v4(R, A).icmp(3, 1, [0; 4]).payload(&about)), denied("denied"));
    });
}

#[test]
fn f12_neighbor_discovery_is_never_blocked_on_its_link() {
    with_firewall("", |bench| {
        for kind in 133..=137 {
            let frame = |hops| v6(A6, X6).hop_limit(hops).icmpv6(kind, 0, [0; 4]).payload(&[0; 16]);
            assert_eq!(bench.out(&frame(255)), Ok(()), "{kind}");
            assert_eq!(bench.back(&frame(255)), Ok(()), "{kind}");
            assert_eq!(bench.back(&frame(254)), denied("neighbor-discovery"), "{kind}");
        }
        let listener = |hops| v6([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), X6).hop_limit(hops).icmpv6(143, 0, [0; 4]);
        assert_eq!(bench.out(&listener(1)), Ok(()));
        assert_eq!(bench.out(&listener(2)), denied("default"));
        assert_eq!(bench.connections(), 0);
    });
}

#[test]
fn f12_what_rfc_4890_wants_to_pass_does_so_behind_the_rules() {
    let echo = |six: bool| if six { v6(X6, A6).icmpv6_echo_request(1, 1) } else { v4(X, A).icmp_echo_request(1, 1) };
    with_firewall("", move |bench| {
        assert_eq!(bench.back(&echo(true)), Ok(()));
        assert_eq!(bench.out(&v6(A6, X6).icmpv6_echo_reply(1, 1)), Ok(()));
        assert_eq!(bench.back(&v6(X6, A6).icmpv6(144, 0, [0; 4])), Ok(()));
        assert_eq!(bench.back(&v6(X6, A6).icmpv6(139, 0, [0; 4])), denied("default"));
        assert_eq!(bench.back(&echo(false)), denied("default"), "of ICMP in IPv4 it says nothing");
    });
    with_firewall("rfc4890 = false", move |bench| assert_eq!(bench.back(&echo(true)), denied("default")));
    with_firewall("[[rules]]\nprotocol = \"icmpv6\"\naction = \"drop\"", move |bench| {
        assert_eq!(bench.back(&echo(true)), denied("denied"));
    });
}

#[test]
fn f12_extension_headers_hide_nothing() {
    const WEB: &str = "[[rules]]\nprotocol = \"tcp\"\ndestination_ports = 80\naction = \"accept\"";
    with_firewall(WEB, |bench| {
        let syn = |port| v6(X6, A6).tcp(1000, port).flags(super::bench::SYN);
        for protocol in [0, 60, 43, 51] {
            // A routing header without stops to come, and an authentication header of the least length.
            let data = [0_u8; 6];
            assert_eq!(bench.back(&syn(81).extension(protocol, &data)), denied("default"), "{protocol}");
            assert_eq!(bench.back(&syn(80).extension(protocol, &data)), Ok(()), "{protocol}");
        }
        // One stop to come: where it goes is not what the header says.
        assert_eq!(bench.back(&syn(80).extension(43, &[0, 1, 0, 0, 0, 0])), denied("source-route"));
        let routed = tcp(X, A, 1000, 80, super::bench::SYN).ipv4_options(&[131, 7, 4, 10, 0, 0, 1]);
        assert_eq!(bench.back(&routed), denied("source-route"));
        // An atomic fragment is a whole packet: RFC 6946.
        assert_eq!(bench.back(&syn(80).fragment(0, false)), Ok(()));
    });
}

#[test]
fn addresses_that_nobody_sends_from_are_dropped() {
    with_firewall("[[rules]]\naction = \"accept\"", |bench| {
        assert_eq!(bench.out(&v4([224, 0, 0, 1].into(), X).udp(1, 2)), denied("address"));
        assert_eq!(bench.out(&v4(X, X).udp(1, 1)), denied("address"));
        assert_eq!(bench.out(&v6(X6, X6).udp(1, 2)), denied("address"));
        // As hosts ask for an address: RFC 2131 section 4.1.
        assert_eq!(bench.out(&v4([0; 4].into(), [255; 4].into()).udp(68, 67)), Ok(()));
    });
}
