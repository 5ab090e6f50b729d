//! ICMP for service addresses: rows L11 and L12.

use super::bench::{
    R, R6, SYN, VIP, VIP6, X, X6, backend, backend6, dropped, from_client, from_outside, from_outside6, mac, packet,
    service, went_to, with_balancer,
};
use nf_framework::testing::{Frame, Trial};

#[test]
fn l11_echo_to_a_service_address_is_answered() {
    let text = format!(
        "{}[[services]]\nname = \"six\"\naddress = \"{VIP6}\"\nmode = \"dsr\"\nbackends = [{{ address = \"{}\" }}]",
        service("dsr", "", &[11]),
        backend6(11)
    );
    with_balancer(&text, |bench| {
        let answer = Frame::new().ethernet(Trial::OUTSIDE_MAC.0, super::bench::NEXT.0);
        let outcome = bench.client(&from_client().icmp_echo_request(7, 8).payload(b"hello"));
        let expected = answer.clone().ipv4(VIP, X).dont_fragment().icmp_echo_reply(7, 8).payload(b"hello");
        assert_eq!(outcome.outside, [expected.build()]);
        let outcome = bench.client(&from_outside6(X6, VIP6).hop_limit(3).icmpv6_echo_request(7, 8).payload(b"hello"));
        assert_eq!(outcome.outside, [answer.ipv6(VIP6, X6).icmpv6_echo_reply(7, 8).payload(b"hello").build()]);
        let mut broken = from_client().icmp_echo_request(7, 8).payload(b"hello").build();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(dropped(&bench.burst(&[broken])), "lb-icmp-checksum");
        assert_eq!(bench.connections(), 0);
    });
}

#[test]
fn l12_an_error_about_what_a_backend_sent_goes_to_it() {
    let text = format!(
        "{}[[services]]\nname = \"six\"\naddress = \"{VIP6}\"\nmode = \"dsr\"\nbackends = [{{ address = \"{}\" }}, \
         {{ address = \"{}\" }}, {{ address = \"{}\" }}]",
        service("dsr", "", &[11, 12, 13, 14]),
        backend6(11),
        backend6(12),
        backend6(13),
    );
    with_balancer(&text, |bench| {
        for port in 1000..1040 {
            let number = bench.backend_of(&from_client().tcp(port, 80).flags(SYN));
            let answer = Frame::new().ipv4(VIP, X).dont_fragment().tcp(80, port).payload(&[1; 1400]);
            for (what, kind, code, rest) in [
                ("too big", 3, 4, [0, 0, 5, 0]),
                ("nobody is there", 3, 1, [0; 4]),
                ("it has gone too far", 11, 0, [0; 4]),
            ] {
                let quoted = &packet(&answer)[..28];
                let error = from_outside(R, VIP).icmp(kind, code, rest).payload(quoted);
                assert_eq!(went_to(&bench.client(&error)), number, "{what}");
            }
            // And of a flow that is not known.
            let error = |port| {
                from_outside(R, VIP)
                    .icmp(3, 4, [0, 0, 5, 0])
                    .payload(&packet(&Frame::new().ipv4(VIP, X).tcp(80, port))[..28])
            };
            let number = bench.backend_of(&error(port + 1000));
            assert_eq!(bench.backend_of(&from_client().tcp(port + 1000, 80)), number);
            let number = bench.backend_of(&from_outside6(X6, VIP6).tcp(port, 80).flags(SYN));
            let quoted = packet(&Frame::new().ipv6(VIP6, X6).tcp(80, port).payload(&[1; 100]));
            let error = from_outside6(R6, VIP6).icmpv6(2, 0, [0, 0, 5, 0]).payload(&quoted);
            assert_eq!(bench.backend_of(&error), number);
        }
    });
}

#[test]
fn l12_it_goes_as_the_packets_of_its_flow_do_and_as_it_is() {
    with_balancer(&service("ipip", "", &[11]), |bench| {
        bench.backend_of(&from_client().tcp(1000, 80).flags(SYN));
        let answer = Frame::new().ipv4(VIP, X).tcp(80, 1000).payload(&[1; 1400]);
        let error = from_outside(R, VIP).icmp(3, 4, [0, 0, 5, 0]).payload(&packet(&answer)[..500]);
        let outcome = bench.client(&error);
        assert_eq!(outcome.inside[0][34..], packet(&error));
        // By the tunnel of its flow.
        let outer = outcome.inside[0][26..30].to_vec();
        assert_eq!(bench.client(&from_client().tcp(1000, 80)).inside[0][26..30], outer);
    });
    with_balancer(&service("dscp", "dscp = 4", &[11]), |bench| {
        let answer = packet(&Frame::new().ipv4(VIP, X).tcp(80, 1000));
        let error = from_outside(R, VIP).icmp(3, 4, [0, 0, 5, 0]).payload(&answer);
        let expected = Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(11).0).ipv4(R, backend(11)).dont_fragment();
        let expected = expected.time_to_live(63).traffic_class(16).icmp(3, 4, [0, 0, 5, 0]).payload(&answer);
        assert_eq!(bench.client(&error).inside, [expected.build()]);
    });
}

#[test]
fn other_icmp_for_a_service_address_is_dropped() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        let of = |from, to| packet(&Frame::new().ipv4(from, to).tcp(80, 1000));
        for (what, frame) in [
            ("a timestamp", from_client().icmp(13, 0, [0; 4]).payload(&[0; 12])),
            ("a redirect", from_client().icmp(5, 1, [10, 0, 0, 1]).payload(&of(VIP, X))),
            ("an answer", from_client().icmp_echo_reply(1, 1)),
            ("an error about nothing", from_client().icmp(3, 4, [0; 4])),
            (
                "an error about what another has sent",
                from_outside(R, VIP).icmp(3, 4, [0; 4]).payload(&of(backend(11), X)),
            ),
            (
                "an error about no service",
                from_outside(R, VIP).icmp(3, 4, [0; 4]).payload(&packet(&Frame::new().ipv4(VIP, X).tcp(81, 1000))),
            ),
            (
                "an error about an answer to an echo",
                from_outside(R, VIP)
                    .icmp(3, 4, [0; 4])
                    .payload(&packet(&Frame::new().ipv4(VIP, X).icmp_echo_reply(1, 1))),
            ),
        ] {
            assert_eq!(dropped(&bench.client(&frame)), "lb-icmp", "{what}");
        }
        let long = Frame::new().ethernet(super::bench::NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(X, VIP);
        let parts = long.icmp_echo_request(1, 1).payload(&[0; 100]).build_fragments(64);
        assert_eq!(bench.burst(&parts).dropped["lb-icmp"], 2, "an echo request in parts");
    });
}
