//! Firewall and NAT in one chain, the firewall inside: it knows hosts by their inside addresses, and sees what
//! turns at the NAT in both passes.

use super::bench::{A, A6, ACK, B, RST, SYN, SYN_ACK, X, X6, Y, config};
use nf_framework::headers::{Headers, MacAddress, Network, Transport};
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Affinity, Chain, Direction, Function, WorkerSetup};
use nfs::firewall::Firewall;
use nfs::nat::Nat;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["192.168.0.1/16"]
[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24"]
[[routes]]
to = "0.0.0.0/0"
via = "198.51.100.2"
"#;

/// One address for all, and one of its ports for a server.
const NAT: &str = r#"
sessions = 4096
[[pools]]
addresses = ["198.51.100.100"]
[[forward]]
protocol = "tcp"
outside = "198.51.100.100"
ports = "8080"
to = ["192.168.1.20:80"]
"#;
/// A server, or a host with an address of its own, for each of some ports: those are of one worker as often as of another
/// one than its host. What is not translated besides.
fn static_mappings() -> String {
    let mut text = "sessions = 4096\nipv6 = \"forward\"\nexclude = [\"203.0.113.240/28\"]\n".to_owned();
    text += "[[pools]]\naddresses = [\"198.51.100.100\"]\n";
    text += "[[one_to_one]]\ninside = \"192.168.2.0/29\"\noutside = \"198.51.100.104/29\"\n";
    for number in 0..8 {
        let (port, server) = (8000 + 100 * u16::from(number), server(number));
        text += &format!(
            "[[forward]]\nprotocol = \"tcp\"\noutside = \"{P}\"\nports = \"{port}\"\nto = [\"{server}:80\"]\n"
        );
    }
    text
}

fn server(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 100 + number)
}

fn own(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 2, number)
}

const P: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const NEXT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
/// On the way to others.
const R: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
const HOPS: u8 = 64;

const OUT: &str = super::bench::OUT;

struct Bench {
    trial: Trial,
}

fn mac(host: Ipv4Addr) -> MacAddress {
    let [.., c, d] = host.octets();
    MacAddress([2, 0, 0, 1, c, d])
}

/// On one worker, and on two with every packet at the wrong one.
fn with_both(rules: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    for workers in [1, 2] {
        run(workers, rules, test);
    }
}

fn run(workers: u16, rules: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    run_with(workers, NAT.to_owned(), rules, test);
}

fn run_with(workers: u16, nat: String, rules: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    let config = config(rules);
    lab(move |lab| {
        let mut bench = Bench::new(lab, workers, &nat, config);
        test(&mut bench);
        bench.trial.advance(Duration::from_secs(10));
        bench.trial.check_for_leaks();
    });
}

impl Bench {
    fn on_a_wire(lab: &Lab<'_>, workers: u16, of_nat: &str, config: nfs::firewall::Config) -> Self {
        let nat = Nat::new();
        let of_nat = Arc::new(nat.policy(toml::from_str(of_nat).unwrap()).unwrap());
        let policy = Arc::new(Firewall.policy(config).unwrap());
        Firewall.build(&policy, &lab.eal.memory()).unwrap();
        let chain = |worker: &mut WorkerSetup| -> Chain {
            let firewall = Firewall.instance(Arc::clone(&policy), worker).unwrap();
            Chain::from(firewall).then(nat.instance(Arc::clone(&of_nat), worker).unwrap())
        };
        // As a program has it.
        let affinities = [("firewall", Firewall.affinity(&policy)), ("nat", nat.affinity(&of_nat))];
        let affinity = Affinity::compose(affinities).unwrap();
        let trial = match workers {
            1 => lab.trial(chain).with_fragments(Default::default()),
            _ => lab.trial_at_wrong_workers(workers, affinity, chain),
        };
        Self { trial }
    }

    fn new(lab: &Lab<'_>, workers: u16, of_nat: &str, config: nfs::firewall::Config) -> Self {
        let nat = Nat::new();
        let addresses = nat.addresses(&nat.policy(toml::from_str(of_nat).unwrap()).unwrap());
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let Self { trial } = Self::on_a_wire(lab, workers, of_nat, config);
        let mut bench = Self { trial: trial.with_router(ROUTER, &addresses) };
        bench.trial.advance(Duration::ZERO);
        let hello = |mac: MacAddress, address: Ipv4Addr, router: [u8; 4]| {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).arp_request(address, router).build()
        };
        let hosts = [A, B].into_iter().chain((0..8).flat_map(|number| [server(number), own(number)]));
        let hosts: Vec<_> = hosts.map(|host| hello(mac(host), host, [192, 168, 0, 1])).collect();
        bench.trial.send(Direction::Outbound, &hosts);
        bench.trial.send(Direction::Inbound, &[hello(NEXT, [198, 51, 100, 2].into(), [198, 51, 100, 1])]);
        for _ in 0..2 {
            bench.trial.advance(Duration::from_secs(3));
        }
        bench
    }

    /// A packet of an inside host, or one from outside.
    fn out(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Outbound, &[frame.build()])
    }

    fn back(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Inbound, &[frame.build()])
    }

    /// The external port of a host's UDP port.
    fn mapped(&mut self, host: Ipv4Addr, port: u16) -> u16 {
        let sent = self.out(&from(host, X).udp(port, 53));
        assert_eq!(sent.outside.len(), 1, "{sent:?}");
        ports(&sent.outside[0]).0
    }
}

fn from(host: Ipv4Addr, to: Ipv4Addr) -> Frame {
    Frame::new().ethernet(mac(host).0, Trial::INSIDE_MAC.0).ipv4(host, to).dont_fragment()
}

fn from_outside(host: Ipv4Addr) -> Frame {
    from_outside_to(host, P)
}

fn from_outside_to(host: Ipv4Addr, to: Ipv4Addr) -> Frame {
    Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(host, to).dont_fragment()
}

/// As it comes to an inside host.
fn inside(source: Ipv4Addr, host: Ipv4Addr) -> Frame {
    Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(host).0).ipv4(source, host).dont_fragment().time_to_live(HOPS - 1)
}

fn ports(frame: &[u8]) -> (u16, u16) {
    let mut frame = frame.to_vec();
    let headers = Headers::parse(&mut frame).unwrap();
    assert_eq!(headers.verify_checksums(), Ok(()));
    headers.transport.ports().unwrap()
}

/// Why the one packet was dropped, where nothing left.
fn dropped(outcome: &Outcome) -> &str {
    assert_eq!((outcome.dropped.len(), outcome.inside.len() + outcome.outside.len()), (1, 0), "{outcome:?}");
    outcome.dropped.keys().next().unwrap()
}

#[test]
fn replies_pass_and_what_the_nat_alone_would_let_in_does_not() {
    with_both(OUT, |bench| {
        let port = bench.mapped(A, 5000);
        let reply = bench.back(&from_outside(X).udp(53, port).payload(b"it"));
        assert_eq!(reply.inside, [inside(X, A).udp(53, 5000).payload(b"it").build()]);
        // The mapping is open for everybody, RFC 4787 REQ-8; the firewall is not.
        assert_eq!(dropped(&bench.back(&from_outside(Y).udp(53, port))), "firewall-default");
        let syn = bench.out(&from(A, X).tcp(4000, 80).flags(SYN).sequence_number(999));
        let port = ports(&syn.outside[0]).0;
        let answer = from_outside(X).tcp(80, port).flags(SYN_ACK).sequence_number(4999).acknowledgment_number(1000);
        assert_eq!(bench.back(&answer).inside.len(), 1);
        let data = |sequence| from(A, X).tcp(4000, 80).sequence_number(sequence).acknowledgment_number(5000);
        assert_eq!(bench.out(&data(1000)).outside.len(), 1);
        assert_eq!(dropped(&bench.out(&data(2_000_000).payload(b"x"))), "firewall-tcp-window");
        let reset = from_outside(X).tcp(80, port).flags(RST).sequence_number(5042);
        assert_eq!(dropped(&bench.back(&reset)), "firewall-tcp-reset");
    });
}

#[test]
fn errors_are_related_by_inside_addresses() {
    with_both(OUT, |bench| {
        let sent = bench.out(&from(A, X).udp(5000, 53));
        let quoted = &sent.outside[0][14..];
        let told = bench.back(&from_outside(R).icmp(3, 4, [0, 0, 5, 0]).payload(quoted));
        assert_eq!(told.inside.len(), 1, "{told:?}");
        let mut frame = told.inside[0].clone();
        let mut headers = Headers::parse(&mut frame).unwrap();
        let quoted = headers.quoted().unwrap();
        let Network::Ipv4 { header, .. } = &quoted.network else { panic!("IPv4") };
        assert_eq!((header.source, quoted.transport.ports()), (A.octets(), Some((5000, 53))));
        // The mapping is there, but a connection with this host is not.
        let other = Frame::new().ipv4(P, Y).udp(ports(&sent.outside[0]).0, 53).build()[14..].to_vec();
        let unrelated = bench.back(&from_outside(R).icmp(3, 1, [0; 4]).payload(&other));
        assert!(["firewall-unrelated", "nat-no-session"].contains(&dropped(&unrelated)), "{unrelated:?}");
    });
}

#[test]
fn what_turns_is_seen_on_its_way_out_and_on_its_way_in() {
    // Nothing may begin outside, and what comes back from the NAT's address comes from there.
    with_both(OUT, |bench| {
        let of_b = bench.mapped(B, 6000);
        assert_eq!(dropped(&bench.out(&from(A, P).udp(5000, of_b))), "firewall-default");
    });
    let rules = format!(
        "{OUT}[[rules]]\nfrom = \"outside\"\nsource = \"{P}\"\ndestination = \"192.168.0.0/16\"\naction = \"accept\"\n"
    );
    with_both(&rules, |bench| {
        let of_b = bench.mapped(B, 6000);
        let question = bench.out(&from(A, P).udp(5000, of_b).payload(b"question"));
        let of_a = ports(&question.inside[0]).0;
        assert_eq!(question.inside, [inside(P, B).udp(of_a, 6000).payload(b"question").build()]);
        let answer = bench.out(&from(B, P).udp(6000, of_a).payload(b"answer"));
        assert_eq!(answer.inside, [inside(P, A).udp(of_b, 5000).payload(b"answer").build()]);
        // TCP in all its states, twice through the firewall each.
        let of_b = ports(&bench.out(&from(B, X).tcp(6001, 80).flags(SYN)).outside[0]).0;
        let syn = bench.out(&from(A, P).tcp(5001, of_b).flags(SYN).sequence_number(999));
        let of_a = ports(&syn.inside[0]).0;
        let answer = from(B, P).tcp(6001, of_a).flags(SYN_ACK).sequence_number(4999).acknowledgment_number(1000);
        assert_eq!(bench.out(&answer).inside.len(), 1);
        let data = from(A, P).tcp(5001, of_b).flags(ACK).sequence_number(1000).acknowledgment_number(5000);
        assert_eq!(bench.out(&data.clone().payload(b"data")).inside.len(), 1);
        assert_eq!(dropped(&bench.out(&data.sequence_number(900_000))), "firewall-tcp-window");
    });
}

#[test]
fn a_rule_lets_in_what_the_nat_forwards_to_a_server() {
    const WEB: &str = "destination = \"192.168.1.20\"\nprotocol = \"tcp\"\ndestination_ports = 80\n";
    let rule = |action: &str| format!("[[rules]]\nfrom = \"outside\"\n{WEB}action = \"{action}\"\n");
    let syn = || from_outside(X).tcp(4000, 8080).flags(SYN).sequence_number(76);
    with_both(&rule("accept"), move |bench| {
        let came = bench.back(&syn());
        assert_eq!(came.inside, [inside(X, B).tcp(4000, 80).flags(SYN).sequence_number(76).build()]);
        let answer = from(B, X).tcp(80, 4000).flags(SYN_ACK).sequence_number(4999).acknowledgment_number(77);
        let sent = bench.out(&answer);
        assert_eq!(sent.outside.len(), 1, "{sent:?}");
        assert_eq!(ports(&sent.outside[0]), (8080, 4000));
    });
    with_both("", move |bench| assert_eq!(dropped(&bench.back(&syn())), "firewall-default"));
    // Whoever is rejected is told from the address that it wrote to.
    with_both(&rule("reject"), move |bench| {
        let told = bench.back(&syn());
        assert_eq!((told.inside.len(), told.outside.len()), (0, 1), "{told:?}");
        let mut frame = told.outside[0].clone();
        let headers = Headers::parse(&mut frame).unwrap();
        assert_eq!(headers.verify_checksums(), Ok(()));
        let (Network::Ipv4 { header: ip, .. }, Transport::Tcp { header, .. }) = (&headers.network, &headers.transport)
        else {
            panic!("TCP")
        };
        assert_eq!((ip.source, ip.destination), (P.octets(), X.octets()));
        assert_eq!((header.source_port.get(), header.acknowledgment_number.get()), (8080, 77));
    });
}

/// Flags, sequence number and acknowledgment number.
fn numbers(frame: &[u8]) -> (u8, u32, u32) {
    let mut frame = frame.to_vec();
    let headers = Headers::parse(&mut frame).unwrap();
    assert_eq!(headers.verify_checksums(), Ok(()));
    let Transport::Tcp { header, .. } = &headers.transport else { panic!("TCP") };
    (header.flags.0, header.sequence_number.get(), header.acknowledgment_number.get())
}

#[test]
fn f15_cookies_go_through_the_nat_like_the_packets_of_both_ends() {
    let rules = "[[rules]]\nfrom = \"inside\"\naction = \"accept\"\nsyn_cookies = \"always\"\n";
    with_both(rules, |bench| {
        let syn = bench.out(&from(A, X).tcp(4000, 80).flags(SYN).sequence_number(76));
        assert_eq!((syn.inside.len(), syn.outside.len()), (1, 0), "{syn:?}");
        let (flags, cookie, _) = numbers(&syn.inside[0]);
        assert_eq!(flags, SYN_ACK);
        let ack = from(A, X).tcp(4000, 80).flags(ACK).sequence_number(77).acknowledgment_number(cookie.wrapping_add(1));
        let syn = bench.out(&ack);
        assert_eq!((syn.inside.len(), numbers(&syn.outside[0])), (0, (SYN, 76, 0)));
        let port = ports(&syn.outside[0]).0;
        let answer = from_outside(X).tcp(80, port).flags(SYN_ACK).sequence_number(4999).acknowledgment_number(77);
        let opened = bench.back(&answer);
        assert_eq!(numbers(&opened.outside[0]), (ACK, 77, 5000));
        assert_eq!(numbers(&opened.inside[0]), (ACK, cookie.wrapping_add(1), 77));
        let data = bench.out(&ack.payload(b"question"));
        assert_eq!(numbers(&data.outside[0]), (ACK, 77, 5000));
        let answer = from_outside(X).tcp(80, port).flags(ACK).sequence_number(5000).acknowledgment_number(85);
        let answer = bench.back(&answer.payload(b"answer"));
        assert_eq!(numbers(&answer.inside[0]), (ACK, cookie.wrapping_add(1), 85));
    });
    let rules = "[[rules]]\nfrom = \"outside\"\ndestination = \"192.168.1.20\"\nprotocol = \"tcp\"\ndestination_ports = \
                 80\naction = \"accept\"\nsyn_cookies = \"always\"\n";
    run(1, rules, |bench| {
        let client = |flags| from_outside(X).tcp(4000, 8080).flags(flags).sequence_number(76);
        let answer = bench.back(&client(SYN));
        assert_eq!((answer.inside.len(), ports(&answer.outside[0])), (0, (8080, 4000)), "{answer:?}");
        let (flags, cookie, _) = numbers(&answer.outside[0]);
        assert_eq!(flags, SYN_ACK);
        let ack = client(ACK).sequence_number(77).acknowledgment_number(cookie.wrapping_add(1));
        let syn = bench.back(&ack);
        assert_eq!((numbers(&syn.inside[0]), ports(&syn.inside[0])), ((SYN, 76, 0), (4000, 80)));
        let answer = from(B, X).tcp(80, 4000).flags(SYN_ACK).sequence_number(4999).acknowledgment_number(77);
        let opened = bench.out(&answer);
        assert_eq!(numbers(&opened.inside[0]), (ACK, 77, 5000));
        assert_eq!(
            (numbers(&opened.outside[0]), ports(&opened.outside[0])),
            ((ACK, cookie.wrapping_add(1), 77), (8080, 4000))
        );
        assert_eq!(numbers(&bench.back(&ack.payload(b"question")).inside[0]), (ACK, 77, 5000));
    });
}

#[test]
fn fragments_go_through_both() {
    with_both(OUT, |bench| {
        let whole = Frame::new().ethernet(mac(A).0, Trial::INSIDE_MAC.0).ipv4(A, X).identification(7).udp(5000, 53);
        let mut parts = whole.payload(&[1; 100]).build_fragments(32);
        parts.reverse();
        let sent = bench.trial.send(Direction::Outbound, &parts);
        assert_eq!((sent.outside.len(), sent.dropped.len()), (parts.len(), 0));
        let port = bench.mapped(A, 5000);
        let back = Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(X, P).identification(9).udp(53, port);
        let back = bench.trial.send(Direction::Inbound, &back.payload(&[2; 100]).build_fragments(32));
        assert_eq!((back.inside.len(), back.dropped.len()), (4, 0), "{back:?}");
    });
}

/// Packets for a static mapping find a worker by its port, and the inside host's by its address: often another one, where
/// the firewall has them both.
#[test]
fn connections_by_static_mappings_are_followed_both_ways_on_many_workers() {
    const IN: &str = "[[rules]]\nfrom = \"outside\"\nprotocol = \"tcp\"\ndestination_ports = 80\naction = \"accept\"\n";
    for workers in [1, 2, 3] {
        run_with(workers, static_mappings(), &format!("{OUT}{IN}"), move |bench| {
            let mut crossed = [0; 2];
            for number in 0..8 {
                let (external, port) = (Ipv4Addr::new(198, 51, 100, 104 + number), 8000 + 100 * u16::from(number));
                for (host, to, port) in [(server(number), P, port), (own(number), external, 80)] {
                    let outside =
                        |flags, sequence| from_outside_to(X, to).tcp(4000, port).flags(flags).sequence_number(sequence);
                    let answer = |flags, sequence| from(host, X).tcp(80, 4000).flags(flags).sequence_number(sequence);
                    let before = bench.trial.report().handed_over;
                    let came = bench.back(&outside(SYN, 999));
                    assert_eq!(came.inside, [inside(X, host).tcp(4000, 80).flags(SYN).sequence_number(999).build()]);
                    let handed_over = bench.trial.report().handed_over - before;
                    crossed[usize::from(handed_over > 1)] += 1;
                    let sent = bench.out(&answer(SYN_ACK, 4999).acknowledgment_number(1000));
                    assert_eq!((sent.outside.len(), ports(&sent.outside[0])), (1, (port, 4000)), "{sent:?}");
                    assert_eq!(bench.back(&outside(ACK, 1000).acknowledgment_number(5000)).inside.len(), 1);
                    let data = bench.out(&answer(ACK, 5000).acknowledgment_number(1000).payload(b"data"));
                    assert_eq!(data.outside.len(), 1);
                    let error = from_outside_to(R, to).icmp(3, 4, [0, 0, 5, 0]).payload(&data.outside[0][14..]);
                    assert_eq!(bench.back(&error).inside.len(), 1, "it is related");
                    assert_eq!(dropped(&bench.back(&outside(ACK, 900_000))), "firewall-tcp-window");
                }
                // What the host itself begins: replies come by its port, which nobody has chosen.
                let sent = bench.out(&from(own(number), X).udp(5000 + port, 53));
                assert_eq!(ports(&sent.outside[0]), (5000 + port, 53));
                let reply = from_outside_to(X, external).udp(53, 5000 + port);
                assert_eq!(bench.back(&reply).inside.len(), 1);
                assert_eq!(
                    dropped(&bench.back(&from_outside_to(Y, external).udp(53, 5000 + port))),
                    "firewall-default"
                );
                // And in fragments, of which the first comes last.
                let whole = Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(X, external);
                let mut parts = whole.identification(7).udp(53, 5000 + port).payload(&[1; 100]).build_fragments(32);
                parts.reverse();
                let came = bench.trial.send(Direction::Inbound, &parts);
                assert_eq!((came.inside.len(), came.dropped.len()), (parts.len(), 0), "{came:?}");
            }
            assert!(
                if workers == 1 { crossed == [16, 0] } else { crossed.iter().all(|count| *count > 0) },
                "{crossed:?}"
            );
        });
    }
}

#[test]
fn an_inside_host_finds_a_server_by_its_external_port_on_many_workers() {
    let rules = format!("{OUT}[[rules]]\nfrom = \"outside\"\nsource = \"{P}\"\naction = \"accept\"\n");
    for workers in [1, 2, 3] {
        run_with(workers, static_mappings(), &rules, move |bench| {
            for number in 0..8 {
                let (host, port) = (server(number), 8000 + 100 * u16::from(number));
                let syn = bench.out(&from(A, P).tcp(4000, port).flags(SYN).sequence_number(999));
                let of_a = ports(&syn.inside[0]).0;
                let answer = from(host, P).tcp(80, of_a).flags(SYN_ACK).sequence_number(4999);
                let back = bench.out(&answer.acknowledgment_number(1000));
                assert_eq!((back.inside.len(), ports(&back.inside[0])), (1, (port, 4000)), "{back:?}");
                let data = from(A, P).tcp(4000, port).flags(ACK).sequence_number(1000).acknowledgment_number(5000);
                assert_eq!(bench.out(&data.payload(b"data")).inside.len(), 1);
            }
        });
    }
}

#[test]
fn what_goes_untranslated_is_followed_both_ways_on_many_workers() {
    const Z: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 241);
    for workers in [1, 2, 3] {
        run_with(workers, static_mappings(), OUT, |bench| {
            for port in (5000..5400).step_by(50) {
                let sent = bench.out(&from(A, Z).udp(port, 53));
                assert_eq!(ports(&sent.outside[0]), (port, 53));
                let back = |from| from_outside_to(from, A).udp(53, port);
                assert_eq!(bench.back(&back(Z)).inside, [inside(Z, A).udp(53, port).build()]);
                let other = Ipv4Addr::new(203, 0, 113, 242);
                assert_eq!(dropped(&bench.back(&back(other))), "firewall-default");
            }
        });
        // IPv6, which the NAT lets alone.
        lab(move |lab| {
            let mut bench = Bench::on_a_wire(lab, workers, &static_mappings(), config(OUT));
            for port in (5000..5400).step_by(50) {
                let sent = Frame::new().ipv6(A6, X6).udp(port, 53);
                assert_eq!(bench.out(&sent).outside, [sent.build()]);
                let reply = Frame::new().ipv6(X6, A6).udp(53, port);
                assert_eq!(bench.back(&reply).inside, [reply.build()]);
                assert_eq!(dropped(&bench.back(&Frame::new().ipv6(X6, A6).udp(54, port))), "firewall-default");
            }
            bench.trial.check_for_leaks();
        });
    }
}
