//! Destination NAT and full NAT: RFC 3022, RFC 5508 section 4, RFC 6864, and the PROXY protocol, version 2.

use super::bench::{
    ACK, Bench, FIN, NEXT, R, R6, ROUTER, RST, SYN, VIP, VIP6, X, X6, backend, backend6, config, dropped, from_outside,
    from_outside6, mac, packet, service, went_to, with_balancer, with_balancer_between,
};
use nf_framework::Direction;
use nf_framework::headers::{Headers, TcpFlags};
use nf_framework::testing::{Frame, Outcome, Trial};
use nfs::load_balancer::Order;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
const DATA: TcpFlags = TcpFlags(TcpFlags::PSH.0 | TcpFlags::ACK.0);
/// Our own towards backends.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);
const HOPS: u8 = 63;

/// A service of either family with the one backend 11, on its port 8080.
fn text(mode: &str, protocol: &str, more: &str) -> String {
    let mut text = format!("source_addresses = [\"{OWN}\", \"{OWN6}\"]\n");
    for (name, vip, to) in
        [("four", IpAddr::from(VIP), IpAddr::from(backend(11))), ("six", VIP6.into(), backend6(11).into())]
    {
        text.push_str(&format!(
            "[[services]]\nname = \"{name}\"\naddress = \"{vip}\"\nport = 80\nprotocol = \"{protocol}\"\nmode = \"{mode}\"\n\
             {more}\n[[services.backends]]\naddress = \"{to}\"\nport = 8080\n"
        ));
    }
    text
}

/// Who sends and receives, in one of the families.
#[derive(Clone, Copy)]
struct Hosts {
    client: IpAddr,
    service: IpAddr,
    own: IpAddr,
    backend: IpAddr,
    router: IpAddr,
}

const FAMILIES: [Hosts; 2] = [
    Hosts {
        client: IpAddr::V4(X),
        service: IpAddr::V4(VIP),
        own: IpAddr::V4(OWN),
        backend: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11)),
        router: IpAddr::V4(R),
    },
    Hosts {
        client: IpAddr::V6(X6),
        service: IpAddr::V6(VIP6),
        own: IpAddr::V6(OWN6),
        backend: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 11)),
        router: IpAddr::V6(R6),
    },
];

fn ip(frame: Frame, source: IpAddr, destination: IpAddr) -> Frame {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => frame.ipv4(source, destination).dont_fragment(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => frame.ipv6(source, destination),
        _ => panic!("two families"),
    }
}

impl Hosts {
    /// From outside to here.
    fn asks(&self, source: IpAddr) -> Frame {
        ip(Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0), source, self.service)
    }

    /// As it comes to the backend.
    fn asked(&self, source: IpAddr) -> Frame {
        ip(Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(11).0), source, self.backend).time_to_live(HOPS)
    }

    /// Of the backend's.
    fn answers(&self, destination: IpAddr) -> Frame {
        ip(Frame::new().ethernet(mac(11).0, Trial::INSIDE_MAC.0), self.backend, destination)
    }

    /// As it comes to the client.
    fn answered(&self) -> Frame {
        ip(Frame::new().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0), self.service, self.client).time_to_live(HOPS)
    }
}

/// From inside.
fn back(bench: &mut Bench, frame: &Frame) -> Outcome {
    bench.trial.send(Direction::Outbound, &[frame.build()])
}

/// The source port of the one packet that came to a backend.
fn source_port(outcome: &Outcome) -> u16 {
    assert_eq!((outcome.inside.len(), outcome.outside.len()), (1, 0), "{outcome:?}");
    let mut frame = outcome.inside[0].clone();
    let headers = Headers::parse(&mut frame).unwrap();
    assert_eq!(headers.verify_checksums(), Ok(()));
    headers.transport.ports().unwrap().0
}

/// What makes a packet of a frame and two ports.
type Kind = fn(Frame, u16, u16) -> Frame;
const UDP: Kind = |frame, from, to| frame.udp(from, to).payload(b"what is it");
const NO_CHECKSUM: Kind = |frame, from, to| frame.udp(from, to).without_udp_checksum();
const TCP: Kind = |frame, from, to| frame.tcp(from, to).flags(SYN).tcp_options(&[2, 4, 5, 180]);

#[test]
fn l10_destination_nat_changes_the_destination_there_and_the_source_back() {
    for (protocol, kinds) in [("udp", &[UDP, NO_CHECKSUM][..]), ("tcp", &[TCP])] {
        with_balancer(&text("nat", protocol, ""), move |bench| {
            for hosts in FAMILIES {
                for (kind, port) in kinds.iter().zip(40_000..) {
                    if hosts.client.is_ipv6() && port > 40_000 {
                        continue;
                    }
                    for _ in 0..3 {
                        let out = bench.client(&kind(hosts.asks(hosts.client), port, 80));
                        assert_eq!(out.inside, [kind(hosts.asked(hosts.client), port, 8080).build()], "{out:?}");
                        let out = back(bench, &kind(hosts.answers(hosts.client), 8080, port));
                        assert_eq!(out.outside, [kind(hosts.answered(), 80, port).build()], "{out:?}");
                    }
                }
            }
        });
    }
}

#[test]
fn l10_full_nat_changes_both_ends_both_ways() {
    for (protocol, kind) in [("udp", UDP), ("tcp", TCP)] {
        with_balancer(&text("full-nat", protocol, ""), move |bench| {
            for hosts in FAMILIES {
                let mut seen = BTreeSet::new();
                for port in 40_000..40_040 {
                    let out = bench.client(&kind(hosts.asks(hosts.client), port, 80));
                    let own = source_port(&out);
                    assert!(seen.insert(own) && (1024..61_000).contains(&own), "{own}");
                    assert_eq!(out.inside, [kind(hosts.asked(hosts.own), own, 8080).build()]);
                    let out = back(bench, &kind(hosts.answers(hosts.own), 8080, own));
                    assert_eq!(out.outside, [kind(hosts.answered(), 80, port).build()], "{out:?}");
                    // The same port again.
                    assert_eq!(source_port(&bench.client(&kind(hosts.asks(hosts.client), port, 80))), own);
                }
                let nobodys = (1024..61_000).find(|port| !seen.contains(port)).unwrap();
                let out = back(bench, &kind(hosts.answers(hosts.own), 8080, nobodys));
                assert_eq!(dropped(&out), "lb-no-connection");
            }
        });
    }
}

#[test]
fn l06_a_connection_found_in_its_midst_goes_on_by_destination_nat_and_not_by_full_nat() {
    for (mode, passes) in [("nat", true), ("full-nat", false)] {
        with_balancer(&text(mode, "tcp", ""), move |bench| {
            for hosts in FAMILIES {
                let out = bench.client(&hosts.asks(hosts.client).tcp(40_000, 80).flags(DATA).payload(b"more"));
                if passes {
                    let expected = hosts.asked(hosts.client).tcp(40_000, 8080).flags(DATA).payload(b"more");
                    assert_eq!(out.inside, [expected.build()]);
                } else {
                    assert_eq!(dropped(&out), "lb-no-connection");
                }
            }
            assert_eq!(bench.connections(), if passes { 2 } else { 0 });
        });
    }
}

#[test]
fn l06_a_backend_keeps_its_connections_alive_and_gives_its_ports_back() {
    with_balancer(&text("full-nat", "udp", ""), |bench| {
        for hosts in FAMILIES {
            let own = source_port(&bench.client(&UDP(hosts.asks(hosts.client), 40_000, 80)));
            // As if only the backend spoke, for longer than a client may be silent.
            for _ in 0..3 {
                bench.pass(80);
                let out = back(bench, &UDP(hosts.answers(hosts.own), 8080, own));
                assert_eq!(out.outside, [UDP(hosts.answered(), 80, 40_000).build()], "{out:?}");
            }
            for _ in 0..3 {
                bench.pass(80);
            }
            let out = back(bench, &UDP(hosts.answers(hosts.own), 8080, own));
            assert_eq!(dropped(&out), "lb-no-connection");
        }
        assert_eq!(bench.connections(), 0);
    });
}

#[test]
fn l06_a_connection_is_established_when_its_backend_has_answered() {
    for mode in ["nat", "full-nat"] {
        with_balancer(&format!("timeouts.syn = 5\n{}", text(mode, "tcp", "")), move |bench| {
            for hosts in FAMILIES {
                let seen = if mode == "nat" { hosts.client } else { hosts.own };
                for (port, is_answered) in [(40_000, false), (40_001, true)] {
                    let asks = |flags| hosts.asks(hosts.client).tcp(port, 80).flags(flags);
                    let own = source_port(&bench.client(&asks(SYN)));
                    if is_answered {
                        back(bench, &hosts.answers(seen).tcp(8080, own).flags(SYN_ACK));
                    }
                    for flags in [ACK, DATA] {
                        source_port(&bench.client(&asks(flags)));
                    }
                }
            }
            bench.pass(6);
            bench.pass(1);
            assert_eq!(bench.connections(), 2, "{mode}");
        });
    }
}

#[test]
fn l06_a_connection_from_its_midst_is_established_when_its_backend_knows_it() {
    for (answer, left) in [(ACK, 1), (RST, 0)] {
        with_balancer(&format!("timeouts = {{ syn = 5, closing = 5 }}\n{}", text("nat", "tcp", "")), move |bench| {
            let hosts = FAMILIES[0];
            bench.client(&hosts.asks(X.into()).tcp(40_000, 80).flags(ACK));
            back(bench, &hosts.answers(X.into()).tcp(8080, 40_000).flags(answer));
            bench.pass(6);
            bench.pass(1);
            assert_eq!(bench.connections(), left, "{answer:?}");
        });
    }
}

#[test]
fn l08_connections_that_move_are_counted_where_they_are_translated() {
    for protocol in ["tcp", "udp"] {
        with_balancer(&service("nat", &format!("protocol = \"{protocol}\""), &[11, 12]), move |bench| {
            let send = |bench: &mut Bench, port| {
                let frame = from_outside(X, VIP);
                let frame = if protocol == "udp" { frame.udp(port, 80) } else { frame.tcp(port, 80).flags(ACK) };
                went_to(&bench.client(&frame))
            };
            let of_11 = (1000..1040).filter(|port| send(bench, *port) == 11).count();
            bench.command(|instance| instance.order("web", "10.0.0.11", Order::Down)).unwrap();
            assert!(bench.tend());
            assert!((1000..1040).all(|port| send(bench, port) == 12));
            assert_eq!(bench.counter("connections-moved"), of_11 as u64, "{protocol}");
        });
    }
}

#[test]
fn l06_datagrams_that_were_answered_once_make_room_for_clients_and_exchanges_do_not() {
    let own = "source_addresses = [\"10.0.0.2\"]\nconnections = 256\ninsertions_per_second = 1000000";
    for mode in ["nat", "full-nat"] {
        with_balancer(&format!("{own}\n{}", service(mode, "protocol = \"udp\"", &[11])), move |bench| {
            let exchange = |bench: &mut Bench, from: Ipv4Addr, port: u16| {
                let outcome = bench.client(&from_outside(from, VIP).udp(port, 80));
                let [asked] = &*outcome.inside else { return false };
                let to = <[u8; 4]>::try_from(&asked[26..30]).unwrap();
                let answer = Frame::new().ethernet(mac(11).0, Trial::INSIDE_MAC.0).ipv4(backend(11), to);
                let answer = answer.udp(80, u16::from_be_bytes([asked[34], asked[35]]));
                assert_eq!(back(bench, &answer).outside.len(), 1);
                true
            };
            for port in 1000..1050 {
                assert!(exchange(bench, X, port) && exchange(bench, X, port));
            }
            // A name server answers everybody.
            let flood = |bench: &mut Bench, from: u32| {
                (from..from + 800).filter(|of| exchange(bench, Ipv4Addr::from_bits(0x0b00_0000 + of), 5000)).count()
            };
            let first = flood(bench, 0);
            assert!(first > 700, "{mode}: {first} of 800 were served");
            let then = flood(bench, 800);
            assert!(then > 700, "{mode}: {then} of 800 were served");
            bench.reload(config(&format!("{own}\n{}", service(mode, "protocol = \"udp\"", &[12])))).unwrap();
            for port in 1000..1050 {
                assert_eq!(went_to(&bench.client(&from_outside(X, VIP).udp(port, 80))), 11, "{mode}");
            }
        });
    }
}

#[test]
fn l06_a_reset_of_the_backends_ends_a_connection_sooner() {
    with_balancer(
        &text("nat", "tcp", "")
            .replace("[[services]]\nname = \"four\"", "timeouts = { closing = 5 }\n[[services]]\nname = \"four\""),
        |bench| {
            let hosts = FAMILIES[0];
            bench.client(&hosts.asks(X.into()).tcp(40_000, 80).flags(SYN));
            back(bench, &hosts.answers(X.into()).tcp(8080, 40_000).flags(SYN_ACK));
            bench.client(&hosts.asks(X.into()).tcp(40_000, 80).flags(ACK));
            let out = back(bench, &hosts.answers(X.into()).tcp(8080, 40_000).flags(RST));
            assert_eq!(out.outside, [hosts.answered().tcp(80, 40_000).flags(RST).build()]);
            assert_eq!(bench.connections(), 1);
            bench.pass(4);
            bench.pass(4);
            assert_eq!(bench.connections(), 0);
        },
    );
}

#[test]
fn l06_the_proxy_protocol_tells_the_backend_who_the_client_is() {
    with_balancer(&text("full-nat", "tcp", "proxy_protocol = true"), |bench| {
        for hosts in FAMILIES {
            let (mut header, length) =
                (b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(), if hosts.client.is_ipv4() { 28 } else { 52 });
            match (hosts.client, hosts.service) {
                (IpAddr::V4(client), IpAddr::V4(service)) => {
                    header.extend([0x11, 0, 12]);
                    header.extend([client.octets(), service.octets()].concat());
                }
                (IpAddr::V6(client), IpAddr::V6(service)) => {
                    header.extend([0x21, 0, 36]);
                    header.extend([client.octets(), service.octets()].concat());
                }
                _ => panic!("two families"),
            }
            header.extend([0x9c, 0x40, 0, 80]);
            let asks = |number, flags| hosts.asks(hosts.client).tcp(40_000, 80).sequence_number(number).flags(flags);
            let out = bench.client(&asks(1000, SYN));
            let own = source_port(&out);
            let asked = |number, flags| hosts.asked(hosts.own).tcp(own, 8080).sequence_number(number).flags(flags);
            let answers = |to, flags| {
                hosts.answers(hosts.own).tcp(8080, own).sequence_number(500).acknowledgment_number(to).flags(flags)
            };
            let answered = |to, flags| {
                hosts.answered().tcp(80, 40_000).sequence_number(500).acknowledgment_number(to).flags(flags)
            };
            assert_eq!(out.inside, [asked(1000 - length, SYN).build()]);
            let out = back(bench, &answers(1001 - length, SYN_ACK));
            assert_eq!(out.outside, [answered(1001, SYN_ACK).build()], "{out:?}");
            // In the place of the acknowledgment, and before the first byte when that comes again.
            let introduction = asked(1001 - length, DATA).acknowledgment_number(501).payload(&header).build();
            let out = bench.client(&asks(1001, ACK).acknowledgment_number(501));
            assert_eq!(out.inside, std::slice::from_ref(&introduction), "{out:?}");
            let first = |frame: Frame| frame.acknowledgment_number(501).payload(b"GET / HTTP/1.0");
            let out = bench.client(&first(asks(1001, DATA)));
            assert_eq!(out.inside, [first(asked(1001, DATA)).build()]);
            let out = bench.client(&first(asks(1001, DATA)));
            assert_eq!(out.inside, [introduction, first(asked(1001, DATA)).build()]);
            let out = back(bench, &answers(1001 - length, ACK).tcp_options(&[1, 1, 5, 10, 0, 0, 3, 233, 0, 0, 3, 240]));
            assert_eq!(out.outside, [answered(1001, ACK).tcp_options(&[1; 12]).build()]);
            let out = back(bench, &answers(1015, ACK));
            assert_eq!(out.outside, [answered(1015, ACK).build()]);
            // From now on nothing is added.
            let out = bench.client(&first(asks(1001, DATA)));
            assert_eq!(out.inside, [first(asked(1001, DATA)).build()]);
        }
    });
}

#[test]
fn l08_full_nat_resets_what_it_cannot_move() {
    let addresses = |number| [IpAddr::from(backend(number)), backend6(number).into()];
    let two =
        addresses(11).into_iter().zip(addresses(12)).fold(text("full-nat", "tcp", ""), |text, (first, second)| {
            let of = |address| format!("address = \"{address}\"\nport = 8080\n");
            text.replace(&of(first), &format!("{}[[services.backends]]\n{}", of(first), of(second)))
        });
    with_balancer(&two, move |bench| {
        for (hosts, (place, name)) in FAMILIES.into_iter().zip([(0, "four"), (1, "six")]) {
            let segment = |flags| hosts.asks(hosts.client).tcp(40_000, 80).flags(flags);
            let number = bench.backend_of(&segment(SYN));
            let address = SocketAddr::new(addresses(number)[place], 8080).to_string();
            bench.command(|instance| instance.order(name, &address, Order::Down)).unwrap();
            assert!(bench.tend());
            let more = segment(DATA).acknowledgment_number(501).tcp_options(&[1; 4]).payload(b"more");
            let out = bench.client(&more);
            assert_eq!(dropped(&out), "lb-no-connection");
            let reset = hosts.answered().time_to_live(64).tcp(80, 40_000).sequence_number(501).flags(RST).window(0);
            assert_eq!(out.outside, [reset.build()]);
            assert_eq!(bench.client(&more).outside.len(), 0, "it is over, and nobody is told twice");
            assert_eq!(bench.backend_of(&segment(SYN)), if number == 11 { 12 } else { 11 });
        }
    });
}

/// A service of QUIC with backends 11 to 14.
fn quic(mode: &str, hash: &str) -> String {
    let more = format!("hash = \"{hash}\"\nprotocol = \"udp\"\nport = 443");
    let mut text = format!("source_addresses = [\"{OWN}\"]\ntimeouts = {{ udp = 20 }}\n{}", service(mode, &more, &[]));
    for number in 11..=14 {
        text.push_str(&format!("[[services.backends]]\naddress = \"{}\"\n", backend(number)));
        if hash == "quic" {
            text.push_str(&format!("server_id = \"00{number:02x}\"\n"));
        }
    }
    text
}

/// A packet of the client's that names a backend.
fn names(number: u8) -> Frame {
    from_outside(X, VIP).udp(1000, 443).payload(&[0x40, 0x07, 0, number, 1, 2, 3, 4, 5])
}

#[test]
fn l09_a_quic_connection_that_another_backend_takes_over_is_translated_for_that_one() {
    for (mode, to) in [("nat", X), ("full-nat", OWN)] {
        for before in ["quic", "tuple"] {
            with_balancer(&quic(mode, before), move |bench| {
                // Nobody is named, or nobody listens to it.
                let initial =
                    from_outside(X, VIP).udp(1000, 443).payload(&[0xc0, 0, 0, 0, 1, 8, 7, 0, 13, 1, 2, 3, 4, 5]);
                bench.backend_of(&initial);
                bench.reload(config(&quic(mode, "quic"))).unwrap();
                for number in [11, 12, 13, 14, 11] {
                    for _ in 0..2 {
                        let asked = bench.client(&names(number));
                        assert_eq!(went_to(&asked), number, "{mode}");
                        let answer =
                            Frame::new().ethernet(mac(number).0, Trial::INSIDE_MAC.0).ipv4(backend(number), to);
                        let answered = back(bench, &UDP(answer, 443, source_port(&asked)));
                        assert_eq!(answered.outside[0][26..34], [VIP.octets(), X.octets()].concat(), "{mode}");
                    }
                }
                assert_eq!(bench.connections(), 1);
                bench.pass(21);
                bench.pass(21);
                assert_eq!(bench.connections(), 0);
                // Nothing is left in the way of another connection with any of them.
                (11..=14).for_each(|number| assert_eq!(bench.backend_of(&names(number)), number, "{mode}"));
            });
        }
    }
}

#[test]
fn l14_the_proxy_protocols_header_is_a_packet_of_its_own_before_fragments() {
    with_balancer(&text("full-nat", "tcp", "proxy_protocol = true"), |bench| {
        for hosts in FAMILIES {
            let (header, length) = if hosts.client.is_ipv4() { (20, 28) } else { (40, 52) };
            let asks = |number| {
                let frame = Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0);
                let frame = match (hosts.client, hosts.service) {
                    (IpAddr::V4(client), IpAddr::V4(service)) => frame.ipv4(client, service).identification(5),
                    _ => ip(frame, hosts.client, hosts.service),
                };
                frame.tcp(40_000, 80).sequence_number(number)
            };
            let own = source_port(&bench.client(&asks(1000).flags(SYN)));
            let answer = hosts.answers(hosts.own).tcp(8080, own).sequence_number(500);
            back(bench, &answer.acknowledgment_number(1001 - length).flags(SYN_ACK));
            // The acknowledgment was lost.
            let first = asks(1001).acknowledgment_number(501).flags(DATA).payload(&[7; 600]);
            let out = bench.burst(&first.build_fragments(400));
            assert_eq!(out.inside.len(), 3, "{out:?}");
            let mut whole = out.inside[0].clone();
            let parsed = Headers::parse(&mut whole).unwrap();
            assert_eq!((parsed.network.fragment(), parsed.verify_checksums()), (None, Ok(())));
            assert_eq!(parsed.payload.len(), usize::try_from(length).unwrap());
            assert!(parsed.payload.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
            assert_eq!(whole[14 + header + 4..][..4], (1001 - length).to_be_bytes());
            // In whichever order.
            let fragments: BTreeSet<_> = out.inside[1..]
                .iter()
                .map(|fragment| {
                    let of = Headers::parse(&mut fragment.clone()).unwrap().network.fragment().unwrap();
                    (of.identification, of.more, of.offset)
                })
                .collect();
            let (identification, ..) = *fragments.first().unwrap();
            assert_eq!(fragments, [(identification, true, 0), (identification, false, 400)].into());
        }
    });
}

#[test]
fn l06_a_connection_has_the_proxy_protocol_as_its_service_had_when_it_began() {
    let with = |is_on: bool| {
        let own = format!("source_addresses = [\"{OWN}\"]");
        format!("{own}\n{}", service("full-nat", &format!("proxy_protocol = {is_on}"), &[11]))
    };
    for (before, behind) in [(true, 28), (false, 0)] {
        with_balancer(&with(before), move |bench| {
            let asks = |number, flags| {
                from_outside(X, VIP).tcp(1000, 80).sequence_number(number).acknowledgment_number(501).flags(flags)
            };
            let number = |out: &Outcome| {
                assert_eq!(out.inside.len(), 1, "{out:?}");
                u32::from_be_bytes(out.inside[0][38..42].try_into().unwrap())
            };
            let asked = bench.client(&asks(1000, SYN));
            assert_eq!(number(&asked), 1000 - behind);
            bench.reload(config(&with(!before))).unwrap();
            assert_eq!(number(&bench.client(&asks(1000, SYN))), 1000 - behind, "that it sends again");
            let answer = Frame::new().ethernet(mac(11).0, Trial::INSIDE_MAC.0).ipv4(backend(11), OWN);
            let answer = answer.tcp(80, source_port(&asked)).acknowledgment_number(1001 - behind).flags(SYN_ACK);
            let answered = back(bench, &answer);
            assert_eq!(answered.outside[0][42..46], 1001_u32.to_be_bytes());
            let first = bench.client(&asks(1001, ACK));
            assert_eq!(number(&first), 1001 - behind);
            assert_eq!(first.inside[0].len(), 54 + usize::try_from(behind).unwrap(), "the header, or nothing");
        });
    }
}

#[test]
fn l12_errors_are_translated_with_what_they_quote_both_ways() {
    for (mode, is_full) in [("nat", false), ("full-nat", true)] {
        with_balancer(&text(mode, "udp", ""), move |bench| {
            for hosts in FAMILIES {
                let seen = if is_full { hosts.own } else { hosts.client };
                let own = source_port(&bench.client(&UDP(hosts.asks(hosts.client), 40_000, 80)));
                let error = |frame: Frame, quoted: &Frame| {
                    let frame =
                        if hosts.client.is_ipv4() { frame.icmp(3, 3, [0; 4]) } else { frame.icmpv6(1, 4, [0; 4]) };
                    frame.payload(&packet(quoted))
                };
                let about = |source, destination, from, to| UDP(ip(Frame::new(), source, destination), from, to);
                // Of a router on the way to the client, about what the backend sent.
                let quoted = about(hosts.service, hosts.client, 80, 40_000);
                let out = bench.client(&error(hosts.asks(hosts.router), &quoted));
                let quoted = about(hosts.backend, seen, 8080, own);
                let sender = if is_full { hosts.own } else { hosts.router };
                assert_eq!(out.inside, [error(hosts.asked(sender), &quoted).build()], "{out:?}");
                // Of the backend, about what the client sent.
                let quoted = about(seen, hosts.backend, own, 8080);
                let out = back(bench, &error(hosts.answers(seen), &quoted));
                let quoted = about(hosts.client, hosts.service, 40_000, 80);
                assert_eq!(out.outside, [error(hosts.answered(), &quoted).build()], "{out:?}");
                // One with a wrong checksum.
                let mut wrong = error(hosts.answers(seen), &about(seen, hosts.backend, own, 8080)).build();
                *wrong.last_mut().unwrap() ^= 1;
                let out = bench.trial.send(Direction::Outbound, &[wrong]);
                assert_eq!(dropped(&out), "lb-icmp-checksum");
                let mut wrong =
                    error(hosts.asks(hosts.router), &about(hosts.service, hosts.client, 80, 40_000)).build();
                *wrong.last_mut().unwrap() ^= 1;
                assert_eq!(dropped(&bench.burst(&[wrong])), "lb-icmp-checksum");
                // About what nobody has.
                let out =
                    bench.client(&error(hosts.asks(hosts.router), &about(hosts.service, hosts.client, 80, 40_001)));
                assert_eq!(dropped(&out), "lb-no-connection");
            }
        });
    }
}

#[test]
fn l14_fragments_are_translated_as_their_first_one_both_ways() {
    with_balancer(&text("full-nat", "udp", ""), |bench| {
        let payload: Vec<u8> = (0..2500_u16).map(|byte| byte.to_le_bytes()[0]).collect();
        let asks = Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(X, VIP).identification(9);
        let mut sent = asks.udp(40_000, 80).payload(&payload).build_fragments(1000);
        sent.swap(0, 1);
        let mut came = bench.burst(&sent).inside;
        came.sort_by_key(|frame| u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff);
        assert_eq!(came.len(), 3);
        let number = u16::from_be_bytes([came[0][18], came[0][19]]);
        let own = u16::from_be_bytes([came[0][34], came[0][35]]);
        let asked = Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(11).0).ipv4(OWN, backend(11)).time_to_live(HOPS);
        let expected = asked.identification(number.into()).udp(own, 8080).payload(&payload).build_fragments(1000);
        assert_eq!(came, expected);
        let answers = Frame::new().ethernet(mac(11).0, Trial::INSIDE_MAC.0).ipv4(backend(11), OWN).identification(9);
        let sent = answers.udp(8080, own).payload(&payload).build_fragments(1000);
        let mut came = bench.trial.send(Direction::Outbound, &sent).outside;
        came.sort_by_key(|frame| u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff);
        let number = u16::from_be_bytes([came[0][18], came[0][19]]);
        let answered = Frame::new().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0).ipv4(VIP, X).time_to_live(HOPS);
        let expected = answered.identification(number.into()).udp(80, 40_000).payload(&payload).build_fragments(1000);
        assert_eq!(came, expected);
    });
}

#[test]
fn l08_connections_of_a_backend_that_is_gone_stay_and_new_ones_go_elsewhere() {
    let with = |numbers: &[u8]| format!("source_addresses = [\"{OWN}\"]\n{}", service("full-nat", "", numbers));
    with_balancer(&with(&[11, 12]), move |bench| {
        let before = bench.connect(40_000..40_060);
        bench.reload(super::bench::config(&with(&[12]))).unwrap();
        for (port, number) in &before {
            let frame = from_outside(X, VIP).tcp(*port, 80).flags(ACK);
            assert_eq!(bench.backend_of(&frame), *number, "port {port}");
        }
        assert!(before.iter().any(|(_, number)| *number == 11));
        for (_, number) in bench.connect(41_000..41_040) {
            assert_eq!(number, 12);
        }
    });
}

#[test]
fn l10_ports_towards_a_backend_run_out_and_are_free_again() {
    let text = text("full-nat", "udp", "").replace(
        "source_addresses",
        "connections = 100000\ninsertions_per_second = 4000000\ntimeouts = { udp = 20 }\nsource_addresses",
    );
    with_balancer(&text, |bench| {
        let mut refused = 0;
        for host in 0..16_u8 {
            for port in (4096..8192_u16).step_by(64) {
                let from = Ipv4Addr::new(192, 0, 2, host);
                let frames: Vec<_> =
                    (port..port + 64).map(|port| UDP(from_outside(from, VIP), port, 80).build()).collect();
                let out = bench.burst(&frames);
                refused += out.dropped.get("lb-ports-exhausted").copied().unwrap_or(0);
            }
        }
        // A sample of the ports is looked at for each, so a few are left.
        let connections = bench.connections();
        assert_eq!(connections + refused, 65_536);
        assert!((57_000..=59_977).contains(&connections), "{connections}");
        for _ in 0..3 {
            bench.pass(30);
        }
        while bench.connections() > 0 {
            bench.pass(1);
        }
        assert_eq!(bench.client(&UDP(from_outside(X, VIP), 5000, 80)).inside.len(), 1);
    });
}

#[test]
fn l10_two_services_of_one_backend_do_not_share_a_clients_port_by_destination_nat() {
    let other = Ipv4Addr::new(203, 0, 113, 81);
    let second = service("nat", "protocol = \"udp\"", &[11]).replace("web", "other").replace("113.80", "113.81");
    let both = format!("{}{second}", service("nat", "protocol = \"udp\"", &[11]));
    with_balancer(&both, move |bench| {
        assert_eq!(bench.client(&UDP(from_outside(X, VIP), 40_000, 80)).inside.len(), 1);
        // The backend could not be told apart whom it answers.
        assert_eq!(dropped(&bench.client(&UDP(from_outside(X, other), 40_000, 80))), "lb-ports-exhausted");
        assert_eq!(bench.client(&UDP(from_outside(X, other), 40_001, 80)).inside.len(), 1);
    });
}

#[test]
fn l10_what_has_no_ports_goes_by_destination_nat_and_not_by_full_nat() {
    for (mode, passes) in [("nat", true), ("full-nat", false)] {
        let text = format!(
            "source_addresses = [\"{OWN}\"]\n[[services]]\nname = \"all\"\naddress = \"{VIP}\"\nprotocol = \"any\"\n\
             mode = \"{mode}\"\n[[services.backends]]\naddress = \"{}\"\n",
            backend(11)
        );
        with_balancer(&text, move |bench| {
            let out = bench.client(&from_outside(X, VIP).protocol(47).payload(&[7; 40]));
            if passes {
                let hosts = FAMILIES[0];
                assert_eq!(out.inside, [hosts.asked(X.into()).protocol(47).payload(&[7; 40]).build()]);
                let out = back(bench, &hosts.answers(X.into()).protocol(47).payload(&[8; 40]));
                assert_eq!(out.outside, [hosts.answered().protocol(47).payload(&[8; 40]).build()]);
            } else {
                assert_eq!(dropped(&out), "lb-not-translated");
            }
        });
    }
}

#[test]
fn one_armed_answers_find_back_by_full_nat_on_one_worker_and_not_by_destination_nat() {
    // Backends and clients on one side.
    let router = ROUTER
        .replace("side = \"inside\"\naddresses = [\"10.0.0.1/16\"", "side = \"inside\"\naddresses = [\"10.99.0.1/24\"")
        .replace("addresses = [\"198.51.100.1/24\"", "addresses = [\"198.51.100.1/24\", \"10.0.0.1/16\"");
    for (mode, passes) in [("full-nat", true), ("nat", false)] {
        with_balancer_between(&router, &text(mode, "udp", ""), move |bench| {
            let hello = Frame::new().ethernet(mac(11).0, [0xff; 6]).arp_request(backend(11), [10, 0, 0, 1]);
            bench.burst(&[hello.build()]);
            let asked = bench.client(&UDP(from_outside(X, VIP), 40_000, 80));
            assert_eq!(asked.outside.len(), 1, "{asked:?}");
            let port = u16::from_be_bytes([asked.outside[0][34], asked.outside[0][35]]);
            let to = if passes { OWN } else { X };
            let from = Frame::new().ethernet(mac(11).0, Trial::OUTSIDE_MAC.0).ipv4(backend(11), to);
            let answered = bench.client(&UDP(from, 8080, port));
            match (passes, bench.workers) {
                (false, _) => assert_eq!(dropped(&answered), "same-side"),
                (true, 1) => assert_eq!(answered.outside[0][26..34], [VIP.octets(), X.octets()].concat()),
                // Its worker is that of the backend's port, as if that were a client's: the right one by chance.
                (true, _) => {}
            }
        });
    }
}

#[test]
fn l15_what_backends_send_of_their_own_is_left_alone() {
    with_balancer(&text("nat", "tcp", ""), |bench| {
        let hosts = FAMILIES[0];
        let out = back(bench, &hosts.answers(X.into()).tcp(50_000, 443).flags(SYN));
        let expected =
            ip(Frame::new().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0), hosts.backend, X.into()).time_to_live(HOPS);
        assert_eq!(out.outside, [expected.tcp(50_000, 443).flags(SYN).build()]);
        let six = from_outside6(X6, backend6(11)).tcp(1, 2).flags(FIN);
        assert_eq!(bench.client(&six).inside.len(), 1);
    });
}

#[test]
fn a_flood_of_beginnings_keeps_no_client_out_and_leaves_nothing_behind() {
    let own = "source_addresses = [\"10.0.0.2\", \"10.0.0.3\"]\nconnections = 1024\ninsertions_per_second = 1000000";
    for mode in ["nat", "full-nat"] {
        with_balancer(&format!("{own}\n{}", service(mode, "", &[11, 12, 13])), move |bench| {
            // Of packets that say that they go on, too.
            let flood = |bench: &mut Bench, burst: u32| {
                let source = |number| Ipv4Addr::from_bits(0x0b00_0000 + burst * 64 + number);
                let all = |flags: TcpFlags| {
                    (0..64).map(move |number| from_outside(source(number), VIP).tcp(5000, 80).flags(flags).build())
                };
                let served = bench.burst(&all(SYN).collect::<Vec<_>>()).inside.len();
                for flags in [ACK, DATA, FIN] {
                    bench.burst(&all(flags).collect::<Vec<_>>());
                }
                served
            };
            // Once there is no more room, for a few of a hundred in a table so small.
            let served: usize = (0..100).map(|burst| flood(bench, burst)).sum();
            assert!(served > 6200, "{served} of 6400");
            let send = |bench: &mut Bench, port, flags| bench.client(&from_outside(X, VIP).tcp(port, 80).flags(flags));
            let mut came = Vec::new();
            for port in 1000..1100 {
                if let [asked] = &*send(bench, port, SYN).inside {
                    let to = <[u8; 4]>::try_from(&asked[26..30]).unwrap();
                    let answer =
                        Frame::new().ethernet(mac(asked[5]).0, Trial::INSIDE_MAC.0).ipv4(backend(asked[5]), to);
                    let port_there = u16::from_be_bytes([asked[34], asked[35]]);
                    back(bench, &answer.tcp(80, port_there).flags(SYN_ACK));
                    came.push((port, went_to(&send(bench, port, ACK))));
                }
            }
            assert!(came.len() > 90, "{} of 100", came.len());
            for burst in 100..200 {
                flood(bench, burst);
            }
            for (port, backend) in came {
                assert_eq!(went_to(&send(bench, port, ACK)), backend, "what goes on stays");
            }
            // All of it passes, and three quarters of the table have room as at first.
            while bench.connections() > 0 {
                bench.pass(200);
            }
            let refused: u64 = (2000..2768)
                .flat_map(|port| [send(bench, port, SYN), send(bench, port, ACK)])
                .map(|outcome| outcome.dropped.values().sum::<u64>())
                .sum();
            assert_eq!(refused, 0);
        });
    }
}
