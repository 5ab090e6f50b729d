//! Between the two halves of a router.

use super::bench::{A, ACK, Bench, OUT, RST, SYN, SYN_ACK, X, config, tcp};
use nf_framework::Direction;
use nf_framework::headers::{Headers, MacAddress, Network, Transport};
use nf_framework::testing::{Frame, Outcome, Trial, lab};

const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["192.168.0.1/16"]
[interfaces.wan]
side = "outside"
addresses = ["203.0.113.254/24"]
"#;
const OF_A: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xa]);
const OF_X: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xc]);

fn from_inside(frame: Frame) -> Frame {
    frame.ethernet(OF_A.0, Trial::INSIDE_MAC.0)
}

fn from_outside(frame: Frame) -> Frame {
    frame.ethernet(OF_X.0, Trial::OUTSIDE_MAC.0)
}

/// Makes the hosts known to the router.
fn introduce(bench: &mut Bench) {
    let hello = |mac: MacAddress, address, router: [u8; 4]| {
        Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).arp_request(address, router).build()
    };
    bench.send(Direction::Outbound, &[hello(OF_A, A, [192, 168, 0, 1])]);
    bench.send(Direction::Inbound, &[hello(OF_X, X, [203, 0, 113, 254])]);
    bench.pass(3);
}

fn with_routed(text: &'static str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    for workers in [1, 2] {
        lab(move |lab| {
            let mut bench = Bench::new(lab, workers, config(text), Some(ROUTER));
            introduce(&mut bench);
            test(&mut bench);
            bench.pass(10);
            bench.trial.check_for_leaks();
        });
    }
}

fn one(frames: &[Vec<u8>]) -> Vec<u8> {
    assert_eq!(frames.len(), 1, "{frames:?}");
    frames[0].clone()
}

#[test]
fn a_packet_is_altered_in_its_hops_and_stations_alone() {
    with_routed(OUT, |bench| {
        let frame = |flags| tcp(A, X, 4000, 80, flags).sequence_number(999);
        let sent = bench.send(Direction::Outbound, &[from_inside(frame(SYN)).build()]);
        let expected = frame(SYN).ethernet(Trial::OUTSIDE_MAC.0, OF_X.0).time_to_live(63).build();
        assert_eq!(sent.outside, [expected]);
        let answer = tcp(X, A, 80, 4000, SYN_ACK).sequence_number(4999).acknowledgment_number(1000);
        let back = bench.send(Direction::Inbound, &[from_outside(answer.clone()).build()]);
        assert_eq!(back.inside, [answer.ethernet(Trial::INSIDE_MAC.0, OF_A.0).time_to_live(63).build()]);
        let Outcome { dropped, inside, .. } =
            bench.send(Direction::Inbound, &[from_outside(tcp(X, A, 80, 4001, SYN)).build()]);
        assert_eq!((dropped["firewall-default"], inside.len()), (1, 0));
    });
}

#[test]
fn who_is_rejected_is_told_by_way_of_the_router() {
    with_routed("default = \"reject\"", |bench| {
        let syn = from_outside(tcp(X, A, 1000, 80, SYN).sequence_number(77));
        let mut frame = one(&bench.send(Direction::Inbound, &[syn.build()]).outside);
        assert_eq!((&frame[..6], &frame[6..12]), (&OF_X.0[..], &Trial::OUTSIDE_MAC.0[..]));
        let headers = Headers::parse(&mut frame).unwrap();
        assert_eq!(headers.verify_checksums(), Ok(()));
        let (Network::Ipv4 { header: ip, .. }, Transport::Tcp { header, .. }) = (&headers.network, &headers.transport)
        else {
            panic!("no TCP")
        };
        assert_eq!((ip.source, ip.destination), (A.octets(), X.octets()));
        assert_eq!((header.flags.0 & RST, header.acknowledgment_number.get()), (RST, 78));
    });
}

#[test]
fn a_rule_asks_for_the_interface_of_a_router_by_its_vlan() {
    const GUESTS: &str = "[interfaces.guests]\nside = \"inside\"\nvlan = 10\naddresses = [\"172.16.0.1/16\"]\n";
    const RULES: &str = "[[rules]]\nname = \"web\"\nvlans = 10\nprotocol = \"tcp\"\ndestination_ports = 80\naction = \
                         \"accept\"\n[[rules]]\nname = \"lan\"\nfrom = \"inside\"\nvlans = 0\naction = \"accept\"\n";
    for workers in [1, 2] {
        let router = format!("{ROUTER}{GUESTS}");
        lab(move |lab| {
            let mut bench = Bench::new(lab, workers, config(RULES), Some(&router));
            introduce(&mut bench);
            let guest = [172, 16, 0, 9];
            let station = MacAddress([2, 0, 0, 0, 0, 0xe]);
            let hello = Frame::new().vlan(10).ethernet(station.0, MacAddress::BROADCAST.0);
            bench.send(Direction::Outbound, &[hello.arp_request(guest, [172, 16, 0, 1]).build()]);
            let of_guest = || Frame::new().vlan(10).ethernet(station.0, Trial::INSIDE_MAC.0).ipv4(guest, X);
            for (frame, passes) in [
                (of_guest().tcp(4000, 80).flags(SYN).sequence_number(999), true),
                (of_guest().tcp(4000, 22).flags(SYN), false),
                (of_guest().udp(5000, 53), false),
                (from_inside(Frame::new().ipv4(A, X).udp(5000, 53)), true),
                (from_inside(tcp(A, X, 4000, 22, SYN)), true),
            ] {
                let sent = bench.send(Direction::Outbound, &[frame.build()]);
                assert_eq!((sent.outside.len(), sent.dropped.len()), if passes { (1, 0) } else { (0, 1) }, "{sent:?}");
            }
            // What comes back to the guest has its tag.
            let back = Frame::new().ipv4(X, guest).tcp(80, 4000).flags(SYN_ACK).sequence_number(4999);
            let back = bench.send(Direction::Inbound, &[from_outside(back.acknowledgment_number(1000)).build()]);
            assert_eq!(one(&back.inside)[12..16], [0x81, 0, 0, 10]);
            // Other rules judge it by the VLAN that it came in by, from either end.
            for (rules, passes) in [(RULES.to_owned(), true), (RULES.replace("10", "11"), false)] {
                bench.reload(&format!("live = \"rejudge\"\n{rules}")).unwrap();
                let sent = Frame::new().ipv4(X, guest).tcp(80, 4000).flags(SYN_ACK).sequence_number(4999);
                let sent = bench.send(Direction::Inbound, &[from_outside(sent.acknowledgment_number(1000)).build()]);
                assert_eq!(sent.dropped.contains_key("firewall-rejudged"), !passes, "{sent:?}");
                assert_eq!(sent.inside.len(), usize::from(passes), "{sent:?}");
            }
            bench.pass(10);
            bench.trial.check_for_leaks();
        });
    }
}

#[test]
fn the_routers_own_errors_are_related() {
    // Its second half says that a packet is too big after the firewall has let it through.
    let router = ROUTER.replace("side = \"outside\"", "side = \"outside\"\nmtu = 1280");
    lab(move |lab| {
        let mut bench = Bench::new(lab, 1, config(OUT), Some(&router));
        introduce(&mut bench);
        let big = Frame::new().ipv4(A, X).dont_fragment().udp(5000, 53).payload(&[1; 1300]);
        let sent = bench.send(Direction::Outbound, &[from_inside(big).build()]);
        assert_eq!(sent.dropped.keys().collect::<Vec<_>>(), ["too-big"]);
        let mut told = one(&sent.inside);
        let headers = Headers::parse(&mut told).unwrap();
        assert!(matches!(&headers.transport, Transport::Icmp(icmp) if (icmp.message_type.0, icmp.code) == (3, 4)));
    });
}

#[test]
fn f15_cookies_go_by_way_of_the_router() {
    const RULES: &str = "[[rules]]\nfrom = \"outside\"\naction = \"accept\"\nsyn_cookies = \"always\"\n";
    with_routed(RULES, |bench| {
        let client = |flags| from_outside(tcp(X, A, 1000, 80, flags).sequence_number(77));
        let seen = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            let headers = Headers::parse(&mut frame).unwrap();
            assert_eq!(headers.verify_checksums(), Ok(()));
            let Transport::Tcp { header, .. } = &headers.transport else { panic!("no TCP") };
            (header.flags.0, header.sequence_number.get(), header.acknowledgment_number.get())
        };
        let answer = one(&bench.send(Direction::Inbound, &[client(SYN).build()]).outside);
        assert_eq!((&answer[..6], &answer[6..12]), (&OF_X.0[..], &Trial::OUTSIDE_MAC.0[..]));
        let (flags, cookie, _) = seen(&answer);
        assert_eq!(flags, SYN_ACK);
        let number = |add: u32| cookie.wrapping_add(add);
        let ack = |add| client(ACK).sequence_number(78).acknowledgment_number(number(add));
        let syn = one(&bench.send(Direction::Inbound, &[ack(1).build()]).inside);
        assert_eq!((&syn[..6], &syn[6..12]), (&OF_A.0[..], &Trial::INSIDE_MAC.0[..]));
        assert_eq!(seen(&syn), (SYN, 77, 0));
        let server = |flags| from_inside(tcp(A, X, 80, 1000, flags).sequence_number(4999).acknowledgment_number(78));
        let opened = bench.send(Direction::Outbound, &[server(SYN_ACK).build()]);
        let (to_server, to_client) = (one(&opened.inside), one(&opened.outside));
        assert_eq!((&to_server[..6], &to_client[..6]), (&OF_A.0[..], &OF_X.0[..]));
        assert_eq!((seen(&to_server), seen(&to_client)), ((ACK, 78, 5000), (ACK, number(1), 78)));
        let data = one(&bench.send(Direction::Inbound, &[ack(1).payload(b"GET /").build()]).inside);
        assert_eq!((seen(&data), data[22]), ((ACK, 78, 5000), 63));
        let answer = server(ACK).sequence_number(5000).acknowledgment_number(83).payload(b"200");
        let answer = one(&bench.send(Direction::Outbound, &[answer.build()]).outside);
        assert_eq!((seen(&answer), answer[22]), ((ACK, number(1), 83), 63));
    });
}
