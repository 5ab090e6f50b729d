//! Health checks through the chain: over the data path, in each mode, with backends that answer or do not.

use super::bench::{
    ACK, Bench, NEXT, ROUTER, SYN, VIP, VIP6, backend, backend6, config, dropped, from_client, from_outside, here, mac,
    packet, service, went_to, with_balancer, with_balancer_between,
};
use nf_framework::Direction;
use nf_framework::Function;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::{Frame, Trial};
use nfs::load_balancer::{Config, Failure, HealthState, LoadBalancer, Order, Policy};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const PROBE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const PROBE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9);
const PROBES: &str =
    "probe_addresses = [\"10.0.0.9\", \"2001:db8:2::9\"]\nsource_addresses = [\"10.0.0.2\", \"2001:db8:2::2\"]\n";
const STEP: Duration = Duration::from_millis(50);

/// What a backend does about a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Serving,
    /// Its host is there, and nobody listens.
    Stopped,
    Silent,
}

/// Backends, by what they do and number, with the time that has passed.
struct Backends {
    now: Duration,
    is: Vec<(u8, Is)>,
    /// Every packet of a check that has come to one.
    seen: Vec<Probe>,
    /// Strangers send as much as they can before a backend answers.
    is_flooded: bool,
}

/// A packet of a check, as its backend got it.
#[derive(Clone, Debug)]
struct Probe {
    number: u8,
    /// Headers around the packet, in bytes.
    outer: usize,
    /// The packet itself, from its IP header on.
    packet: Vec<u8>,
}

impl Probe {
    fn of(frame: &[u8]) -> Option<Self> {
        let number = *frame.get(5)?;
        let mut packet = &frame[14..];
        // Tunnels: IP in IP, GRE, GUE.
        loop {
            let (header, protocol) = if packet[0] >> 4 == 4 { (20, packet[9]) } else { (40, packet[6]) };
            let inner = match protocol {
                4 | 41 => header,
                47 => header + 4,
                17 if u16::from_be_bytes([packet[header + 2], packet[header + 3]]) == 6080 => header + 8,
                _ => break,
            };
            packet = &packet[inner..];
        }
        let probe = Self { number, outer: frame.len() - 14 - packet.len(), packet: packet.to_vec() };
        (probe.source() == IpAddr::V4(PROBE) || probe.source() == IpAddr::V6(PROBE6)).then_some(probe)
    }

    fn address(&self, v4: usize, v6: usize) -> IpAddr {
        match self.packet[0] >> 4 {
            4 => <[u8; 4]>::try_from(&self.packet[v4..v4 + 4]).unwrap().into(),
            _ => <[u8; 16]>::try_from(&self.packet[v6..v6 + 16]).unwrap().into(),
        }
    }

    fn source(&self) -> IpAddr {
        self.address(12, 8)
    }

    fn destination(&self) -> IpAddr {
        self.address(16, 24)
    }

    fn payload(&self) -> &[u8] {
        &self.packet[if self.packet[0] >> 4 == 4 { 20 } else { 40 }..]
    }

    fn ports(&self) -> (u16, u16) {
        let payload = self.payload();
        (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]))
    }

    /// What its backend says to it, from the address that it stands for.
    fn answer(&self, is: Is) -> Option<Frame> {
        let from = match self.destination() {
            // Where only the code point says which address is meant.
            IpAddr::V4(_) if self.packet[1] >> 2 == 5 => VIP.into(),
            IpAddr::V6(_) if (self.packet[0] << 4 | self.packet[1] >> 4) >> 2 == 5 => VIP6.into(),
            address => address,
        };
        let frame = Frame::new().ethernet(mac(self.number).0, Trial::INSIDE_MAC.0);
        let frame = match (from, self.source()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => frame.ipv4(from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => frame.ipv6(from, to),
            _ => panic!("two families"),
        };
        let payload = self.payload();
        let (to, port) = self.ports();
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let protocol = if self.packet[0] >> 4 == 4 { self.packet[9] } else { self.packet[6] };
        match (is, protocol) {
            (Is::Silent, _) => None,
            (_, 1) => Some(Frame::icmp_echo_reply(frame, to_identifier(payload), 0).payload(&payload[8..])),
            (_, 58) => Some(Frame::icmpv6_echo_reply(frame, to_identifier(payload), 0).payload(&payload[8..])),
            (Is::Serving, 17) => Some(frame.udp(port, to).payload(b"pong")),
            (Is::Stopped, 17) if from.is_ipv4() => Some(frame.icmp(3, 3, [0; 4]).payload(&self.packet)),
            (Is::Stopped, 17) => Some(frame.icmpv6(1, 4, [0; 4]).payload(&self.packet)),
            (_, 6) => {
                let flags = TcpFlags(payload[13]);
                let frame = frame.tcp(port, to).window(1000);
                let is_syn = flags.contains(TcpFlags::SYN);
                let is_fin = flags.contains(TcpFlags::FIN);
                let next = number(4).wrapping_add(1);
                match is {
                    Is::Stopped if is_syn => {
                        Some(frame.flags(TcpFlags::RST.0 | TcpFlags::ACK.0).acknowledgment_number(next))
                    }
                    Is::Serving if is_syn => Some(
                        frame.flags(TcpFlags::SYN.0 | TcpFlags::ACK.0).sequence_number(7).acknowledgment_number(next),
                    ),
                    Is::Serving if is_fin => Some(
                        frame.flags(TcpFlags::FIN.0 | TcpFlags::ACK.0).sequence_number(8).acknowledgment_number(next),
                    ),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn to_identifier(echo: &[u8]) -> u16 {
    u16::from_be_bytes([echo[4], echo[5]])
}

impl Backends {
    fn new(is: &[(u8, Is)]) -> Self {
        Self { now: Duration::ZERO, is: is.to_vec(), seen: Vec::new(), is_flooded: false }
    }

    fn set(&mut self, number: u8, is: Is) {
        self.is.retain(|(of, _)| *of != number);
        self.is.push((number, is));
    }

    /// Lets time go by, in which checks are made and answered, and what they find takes effect.
    fn live(&mut self, bench: &mut Bench, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            bench.balancer.check(self.now);
            let mut frames = bench.trial.advance(STEP).inside;
            if self.now.as_millis().is_multiple_of(1000) || self.now >= end {
                frames.extend(bench.pass(0).inside);
            }
            frames.append(&mut bench.aside);
            let probes: Vec<_> = frames.iter().filter_map(|frame| Probe::of(frame)).collect();
            let is = |number| self.is.iter().find(|(of, _)| *of == number).map_or(Is::Silent, |(_, is)| *is);
            let answers: Vec<_> = probes.iter().filter_map(|probe| probe.answer(is(probe.number))).collect();
            let answers = answers.iter().map(Frame::build);
            let answers: Vec<_> = answers.chain(frames.iter().filter_map(|frame| here(frame))).collect();
            if self.is_flooded {
                flood(bench);
            }
            let outcome = bench.trial.send(Direction::Outbound, &answers);
            assert_eq!((outcome.consumed, &outcome.dropped), (answers.len() as u64, &Default::default()));
            self.seen.extend(probes);
            bench.aside.extend(outcome.inside);
            bench.balancer.check(self.now);
            bench.tend();
        }
    }
}

/// More than there is room for on the way to the checks, from outside.
fn flood(bench: &mut Bench) {
    for burst in 0..8 {
        let stranger = |number| from_outside(Ipv4Addr::new(192, 0, 2, number), PROBE);
        let frames: Vec<_> = (0..64).map(|number| stranger(number).udp(80, 61_000 + burst).build()).collect();
        let outcome = bench.burst(&frames);
        assert_eq!(outcome.dropped, [("lb-no-connection".to_owned(), 64)].into());
        // And errors that quote a check, as anybody may think it up.
        let check = |to| packet(&Frame::new().ipv4(PROBE, to).udp(61_000 + burst, 8080));
        let error = |number: u8, kind, code| {
            stranger(number).icmp(kind, code, [0; 4]).payload(&check(backend(11 + number % 2))).build()
        };
        let frames: Vec<_> = (0..32).flat_map(|number| [error(number, 11, 0), error(number, 3, 3)]).collect();
        let outcome = bench.burst(&frames);
        assert_eq!(outcome.dropped, [("no-listener".to_owned(), 64)].into());
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A service with a check, in front of backends.
fn checked(mode: &str, more: &str, health: &str, backends: &[u8]) -> String {
    let text = service(mode, &format!("{more}\nhealth = {{ {health} }}"), backends);
    format!("{PROBES}{text}")
}

const QUICK: &str = "kind = \"tcp\", interval = 1, timeout = 1, rise = 2, fall = 2, jitter = 0";

fn up(bench: &Bench) -> Vec<bool> {
    bench.balancer.health().iter().map(|health| health.state == HealthState::Up).collect()
}

/// The backends that new connections from these ports go to.
fn new(bench: &mut Bench, ports: std::ops::Range<u16>) -> BTreeSet<u8> {
    bench.connect(ports).into_iter().map(|(_, number)| number).collect()
}

#[test]
fn checks_go_the_way_of_clients_packets_in_each_mode() {
    // The mode, more for it, the headers around a packet in IPv4 and in IPv6, and whose port is asked.
    let cases = [
        ("dsr", "", 0, 0, 80),
        ("ipip", "", 20, 40, 80),
        ("gre", "", 24, 44, 80),
        ("gue", "", 28, 48, 80),
        ("dscp", "dscp = 5", 0, 0, 80),
        ("nat", "", 0, 0, 8080),
        ("full-nat", "", 0, 0, 8080),
    ];
    for (mode, more, outer4, outer6, port) in cases {
        let mut text = PROBES.to_owned();
        for (name, address, to) in [("four", IpAddr::V4(VIP), 0), ("six", IpAddr::V6(VIP6), 1)] {
            text.push_str(&format!(
                "[[services]]\nname = \"{name}\"\naddress = \"{address}\"\nport = 80\nmode = \"{mode}\"\n{more}\n\
                 health = {{ {QUICK} }}\n"
            ));
            for number in 11..=13 {
                let address = [IpAddr::V4(backend(number)), IpAddr::V6(backend6(number))][to];
                let port = if port == 80 { String::new() } else { format!("port = {port}") };
                text.push_str(&format!("[[services.backends]]\naddress = \"{address}\"\n{port}\n"));
            }
        }
        with_balancer(&text, move |bench| {
            let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Stopped)]);
            backends.live(bench, seconds(4));
            assert_eq!(up(bench), [true, false, false, true, false, false], "{mode}");
            let last: Vec<_> = bench.balancer.health().into_iter().map(|health| health.last).collect();
            let found = [Some(Ok(())), Some(Err(Failure::Refused)), Some(Err(Failure::Silent))];
            assert_eq!(last, [found.clone(), found].concat(), "{mode}");
            bench.pass(0);
            let is_nat = port != 80;
            for probe in &backends.seen {
                let is_v4 = probe.packet[0] >> 4 == 4;
                assert_eq!(probe.outer, if is_v4 { outer4 } else { outer6 }, "{mode}: {probe:?}");
                let own = if is_v4 { IpAddr::V4(backend(probe.number)) } else { backend6(probe.number).into() };
                let vip = if is_v4 { IpAddr::V4(VIP) } else { VIP6.into() };
                let to_itself = is_nat || mode == "dscp";
                assert_eq!(probe.destination(), if to_itself { own } else { vip }, "{mode}");
                assert_eq!(probe.ports().1, port, "{mode}");
            }
            assert_eq!(bench.counter("checks-failed"), bench.balancer.health_counters().failed, "{mode}");
            assert_eq!(bench.counter("check-packets-lost"), 0, "{mode}");
            let shown = bench.balancer.backends(&bench.running);
            let shown: Vec<_> = shown.iter().map(|backend| backend.is_up == Some(true)).collect();
            assert_eq!(shown, up(bench), "{mode}");
        });
    }
}

#[test]
fn one_armed_checks_leave_by_the_link_that_their_answers_come_by() {
    // Backends and clients on one side.
    let router = ROUTER
        .replace("side = \"inside\"\naddresses = [\"10.0.0.1/16\"", "side = \"inside\"\naddresses = [\"10.99.0.1/24\"")
        .replace("addresses = [\"198.51.100.1/24\"", "addresses = [\"198.51.100.1/24\", \"10.0.0.1/16\"");
    for (mode, more) in [("dsr", ""), ("ipip", ""), ("dscp", "dscp = 5"), ("nat", ""), ("full-nat", "")] {
        with_balancer_between(&router, &checked(mode, more, QUICK, &[11]), move |bench| {
            assert!(bench.balancer.tend(&bench.running).is_none());
            let hello = Frame::new().ethernet(mac(11).0, [0xff; 6]).arp_request(backend(11), [10, 0, 0, 1]).build();
            let mut now = Duration::ZERO;
            while now < seconds(2) {
                now += STEP;
                bench.balancer.check(now);
                let mut frames = bench.trial.advance(STEP).outside;
                frames.extend(bench.burst(std::slice::from_ref(&hello)).outside);
                let probes = frames.iter().filter_map(|frame| Probe::of(frame));
                let answer = |probe: Probe| Some(probe.answer(Is::Serving)?.ethernet(mac(11).0, Trial::OUTSIDE_MAC.0));
                let answers: Vec<_> = probes.filter_map(answer).map(|frame| frame.build()).collect();
                bench.burst(&answers);
            }
            bench.balancer.check(now);
            assert_eq!(up(bench), [true], "{mode}: {:?}", bench.balancer.health());
        });
    }
}

#[test]
fn other_kinds_of_checks_come_through() {
    let cases = [
        ("kind = \"icmp\", interval = 1, timeout = 1", [Ok(()), Ok(()), Err(Failure::Silent)]),
        (
            "kind = \"udp\", interval = 1, timeout = 1, send = \"ping\", expect = \"pong\"",
            [Ok(()), Err(Failure::Refused), Err(Failure::Silent)],
        ),
        ("kind = \"udp\", interval = 1, timeout = 0.5", [Ok(()), Err(Failure::Refused), Ok(())]),
    ];
    for (health, expected) in cases {
        for (vip, number) in [(IpAddr::V4(VIP), 0), (VIP6.into(), 1)] {
            let mut text = format!(
                "{PROBES}[[services]]\nname = \"web\"\naddress = \"{vip}\"\nport = 80\nprotocol = \"udp\"\nmode = \"ipip\"\n\
                 health = {{ {health} }}\n"
            );
            for backend in [11, 12, 13].map(|of| [IpAddr::V4(backend(of)), backend6(of).into()][number]) {
                text.push_str(&format!("[[services.backends]]\naddress = \"{backend}\"\n"));
            }
            let expected = expected.clone().map(Some);
            let expected: &'static [_] = Vec::leak(expected.to_vec());
            let health: &'static str = String::leak(health.to_owned());
            with_balancer(&text, move |bench| {
                let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Stopped)]);
                backends.live(bench, seconds(3));
                let last: Vec<_> = bench.balancer.health().into_iter().map(|health| health.last).collect();
                assert_eq!(last, expected, "{health} to {vip}: {:?}", bench.balancer.health());
            });
        }
    }
}

#[test]
fn l08_new_connections_leave_a_dead_backend_in_time_and_come_back() {
    with_balancer(&checked("dsr", "", QUICK, &[11, 12, 13]), |bench| {
        let mut backends = Backends::new(&[11, 12, 13].map(|number| (number, Is::Serving)));
        backends.live(bench, seconds(2));
        assert_eq!(new(bench, 1000..1060), [11, 12, 13].into());
        backends.set(12, Is::Silent);
        // Two checks that wait for a second each, the first of them after a second at most.
        let mut port = 2000;
        let mut last = Duration::ZERO;
        let dead = backends.now;
        while backends.now < dead + seconds(6) {
            backends.live(bench, Duration::from_millis(200));
            if new(bench, port..port + 40).contains(&12) {
                last = backends.now - dead;
            }
            port += 40;
        }
        assert!(last > seconds(1) && last <= Duration::from_millis(3200), "{last:?}");
        backends.set(12, Is::Serving);
        backends.live(bench, seconds(3));
        assert_eq!(new(bench, port..port + 60), [11, 12, 13].into());
    });
}

#[test]
fn l08_a_silent_backend_is_down_when_the_readme_says() {
    const FALL: u32 = 3;
    for (interval, timeout) in [(200, 2000), (1000, 2000), (2000, 2000), (2000, 500)] {
        let (interval, timeout) = (Duration::from_millis(interval), Duration::from_millis(timeout));
        with_balancer(&format!("{PROBES}{}", service("dsr", "", &[11, 12])), move |bench| {
            let (i, t) = (interval.as_secs_f64(), timeout.as_secs_f64());
            let health = format!("kind = \"tcp\", interval = {i}, timeout = {t}, fall = {FALL}, jitter = 10");
            bench.balancer.check(seconds(1));
            bench.reload(config(&checked("dsr", "", &health, &[11, 12]))).unwrap();
            bench.tend();
            let step = interval.mul_f64(1.1);
            let says = step + (FALL - 1) * step.max(timeout) + timeout;
            let mut passed = Duration::ZERO;
            while !bench.tend() {
                passed += Duration::from_millis(20);
                bench.balancer.check(seconds(1) + passed);
                assert!(passed <= says + Duration::from_millis(100), "{interval:?}, {timeout:?}");
            }
        });
    }
}

#[test]
fn l08_connections_of_a_dead_backend_move_or_end_and_no_others() {
    for on_backend_down in ["move", "drop"] {
        let more = format!("on_backend_down = \"{on_backend_down}\"");
        with_balancer(&checked("dsr", &more, QUICK, &[11, 12, 13]), move |bench| {
            let mut backends = Backends::new(&[11, 12, 13].map(|number| (number, Is::Serving)));
            backends.live(bench, seconds(2));
            let connections = bench.connect(1000..1060);
            backends.set(12, Is::Stopped);
            backends.live(bench, seconds(4));
            for (port, number) in connections {
                let outcome = bench.client(&from_client().tcp(port, 80).flags(ACK));
                match (number, on_backend_down) {
                    (12, "drop") => assert_eq!(dropped(&outcome), "lb-backend-down"),
                    (12, _) => assert_ne!(went_to(&outcome), 12),
                    _ => assert_eq!(went_to(&outcome), number),
                }
            }
        });
    }
}

#[test]
fn an_address_without_a_ready_backend_is_withdrawn_until_there_is_one() {
    let has_vip = |bench: &Bench| {
        let taken = bench.balancer.addresses(&bench.running);
        taken.iter().any(|prefix| prefix.address() == IpAddr::V4(VIP))
    };
    with_balancer(&checked("dsr", "when_empty = \"withdraw\"", QUICK, &[11, 12]), move |bench| {
        assert!(!has_vip(bench), "nothing is known yet");
        let mut backends = Backends::new(&[(12, Is::Serving)]);
        backends.live(bench, seconds(2));
        assert!(has_vip(bench));
        assert_eq!(new(bench, 1000..1020), [12].into());
        backends.set(12, Is::Stopped);
        backends.live(bench, seconds(4));
        assert!(!has_vip(bench));
    });
    // Others say so to clients.
    with_balancer(&checked("dsr", "", QUICK, &[11]), move |bench| {
        let mut backends = Backends::new(&[]);
        backends.live(bench, seconds(2));
        assert!(has_vip(bench));
        assert_eq!(dropped(&bench.client(&from_client().tcp(1000, 80).flags(SYN))), "lb-no-backend");
    });
}

#[test]
fn a_reload_costs_no_connection_and_gives_a_new_backend_none_before_its_first_check() {
    with_balancer(&service("dsr", "", &[11, 12]), |bench| {
        let connections = bench.connect(1000..1040);
        let still = |bench: &mut Bench, of: &[(u16, u8)]| {
            let of = of.to_vec();
            of.iter().all(|(port, number)| bench.backend_of(&from_client().tcp(*port, 80)) == *number)
        };
        // Checks begin: those that were in use stay so until they are known to be bad.
        let text = checked("dsr", "", QUICK, &[11, 12]).replace("source_addresses", "# source_addresses");
        bench.reload(config(&text)).unwrap();
        bench.tend();
        assert!(still(bench, &connections));
        assert_eq!(new(bench, 2000..2030), [11, 12].into());
        let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Serving)]);
        backends.live(bench, seconds(3));
        let text = checked("dsr", "", QUICK, &[11, 12, 13]).replace("source_addresses", "# source_addresses");
        bench.reload(config(&text)).unwrap();
        bench.tend();
        assert_eq!(new(bench, 3000..3030), [11, 12].into());
        backends.live(bench, seconds(3));
        assert_eq!(new(bench, 4000..4030), [11, 12].into());
        backends.set(13, Is::Serving);
        backends.live(bench, seconds(3));
        assert_eq!(new(bench, 5000..5060), [11, 12, 13].into());
        assert!(still(bench, &connections));
        // Checks end, and with them what they know.
        backends.set(12, Is::Stopped);
        backends.live(bench, seconds(4));
        assert_eq!(new(bench, 6000..6060), [11, 13].into());
        bench.reload(config(&service("dsr", "", &[11, 12, 13]))).unwrap();
        bench.tend();
        assert_eq!(new(bench, 7000..7060), [11, 12, 13].into());
        assert_eq!(bench.balancer.health(), []);
        assert!(still(bench, &connections));
    });
}

#[test]
fn a_backend_that_changes_with_its_service_is_taken_to_be_as_it_was() {
    let nat = |port: u16| {
        let of = |number| format!("address = \"{}\"\n", backend(number));
        [11, 12].iter().fold(checked("nat", "", QUICK, &[11, 12]), |text, number| {
            text.replace(&of(*number), &format!("{}port = {port}\n", of(*number)))
        })
    };
    let dsr = || checked("dsr", "", QUICK, &[11, 12]);
    for (what, from, to) in [
        ("the mode", dsr(), checked("ipip", "", QUICK, &[11, 12])),
        ("the name", dsr(), dsr().replace("\"web\"", "\"site\"")),
        ("the ports", nat(8080), nat(8081)),
    ] {
        let to: &'static str = to.leak();
        with_balancer(&from, move |bench| {
            let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Stopped)]);
            backends.live(bench, seconds(3));
            bench.reload(config(to)).unwrap();
            assert_eq!(new(bench, 1000..1030), [11].into(), "{what}");
        });
    }
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    with_balancer(&checked("dsr", "", QUICK, &[11, 12]), |bench| {
        let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Stopped)]);
        backends.live(bench, seconds(3));
        let other = "[[services]]\nname = \"bad\"\naddress = \"224.0.0.1\"\nmode = \"dsr\"\nbackends = []\n";
        let unchecked = format!("{PROBES}{}{other}", service("dsr", "", &[11, 12]));
        let refused = bench.reload(config(&unchecked)).unwrap_err();
        assert_eq!(refused.key, "services[1].address");
        assert!(!bench.tend());
        assert_eq!(new(bench, 1000..1030), [11].into());
    });
}

#[test]
fn a_backend_that_comes_back_gets_its_share_bit_by_bit() {
    with_balancer(&checked("dsr", "", &format!("{QUICK}, slow_start = 20"), &[11, 12]), |bench| {
        let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Serving)]);
        backends.live(bench, seconds(2));
        let mut port = 1000;
        let mut share = |bench: &mut Bench| {
            port += 500;
            bench.connect(port - 500..port).iter().filter(|(_, number)| *number == 12).count()
        };
        let whole = share(bench);
        assert!((200..300).contains(&whole), "{whole}");
        backends.set(12, Is::Stopped);
        backends.live(bench, seconds(4));
        assert_eq!(share(bench), 0);
        backends.set(12, Is::Serving);
        while !up(bench)[1] {
            backends.live(bench, STEP);
        }
        // One part of eleven, then one of three, then half.
        let mut shares = vec![share(bench)];
        for _ in 0..2 {
            backends.live(bench, seconds(11));
            shares.push(share(bench));
        }
        assert!((20..80).contains(&shares[0]), "{shares:?}");
        assert!((120..215).contains(&shares[1]), "{shares:?}");
        assert!((200..300).contains(&shares[2]), "{shares:?}");
    });
}

#[test]
fn a_backend_that_lets_connections_fail_goes_down_by_the_traffic_alone() {
    let health = format!("{QUICK}, passive = {{ failed = 50, least = 10, window = 5 }}");
    let text = format!("timeouts = {{ syn = 2 }}\n{}", checked("dsr", "", &health, &[11, 12, 13]));
    with_balancer(&text, |bench| {
        let mut backends = Backends::new(&[11, 12, 13].map(|number| (number, Is::Serving)));
        backends.live(bench, seconds(3));
        // Its kernel answers checks, and clients wait in vain.
        for port in 1000..1100 {
            let frame = from_client().tcp(port, 80);
            if bench.backend_of(&frame.clone().flags(SYN)) != 12 {
                bench.backend_of(&frame.flags(ACK));
            }
        }
        backends.live(bench, seconds(6));
        assert_eq!(up(bench), [true, false, true]);
        let health = bench.balancer.health().remove(1);
        assert!(health.held_for.is_some() && health.last == Some(Ok(())), "{health:?}");
        backends.live(bench, seconds(8));
        assert_eq!(up(bench), [true; 3]);
    });
}

#[test]
fn a_backend_that_refuses_connections_goes_down_where_its_answers_come_this_way() {
    let health = format!("{QUICK}, passive = {{ failed = 50, least = 10, window = 5 }}");
    for mode in ["nat", "full-nat"] {
        with_balancer(&checked(mode, "", &health, &[11, 12, 13]), |bench| {
            let mut backends = Backends::new(&[11, 12, 13].map(|number| (number, Is::Serving)));
            backends.live(bench, seconds(3));
            for port in 1000..1100 {
                let asked = bench.client(&from_client().tcp(port, 80).flags(SYN));
                let number = went_to(&asked);
                let asked = &asked.inside[0];
                let (to, port) =
                    ([asked[26], asked[27], asked[28], asked[29]], u16::from_be_bytes([asked[34], asked[35]]));
                let flags = if number == 12 { TcpFlags::RST } else { TcpFlags::SYN };
                let answer = Frame::new().ethernet(mac(number).0, Trial::INSIDE_MAC.0).ipv4(backend(number), to);
                let answer = answer.tcp(80, port).flags(flags.0 | TcpFlags::ACK.0).build();
                assert_eq!(bench.trial.send(Direction::Outbound, &[answer]).outside.len(), 1);
            }
            // Before any of them has ended.
            backends.live(bench, seconds(6));
            assert_eq!(up(bench), [true, false, true]);
        });
    }
}

#[test]
fn a_flood_for_the_probe_address_takes_no_backend_down() {
    with_balancer(&checked("nat", "", QUICK, &[11, 12]), |bench| {
        let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Serving)]);
        backends.is_flooded = true;
        backends.live(bench, seconds(6));
        assert_eq!(up(bench), [true, true]);
        assert_eq!(bench.counter("check-packets-lost"), 0);
    });
}

#[test]
fn what_comes_long_after_a_check_is_for_none_whoever_it_is_from() {
    let often = "kind = \"udp\", answer = true, interval = 0.05, timeout = 1";
    with_balancer(&checked("nat", "protocol = \"udp\"", often, &[11]), |bench| {
        let mut backends = Backends::new(&[(11, Is::Serving)]);
        backends.live(bench, seconds(5));
        assert!(up(bench)[0] && bench.balancer.health_counters().checks > 40);
        // Somebody outside says that he is who was asked.
        let frame = |port| Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(backend(11), PROBE).udp(80, port);
        let frames: Vec<_> = (61_000..61_040).map(|port| frame(port).build()).collect();
        let dropped = bench.burst(&frames).dropped;
        assert!(dropped.get("lb-no-connection").is_some_and(|count| *count >= 20), "{dropped:?}");
    });
}

#[test]
fn what_is_for_no_check_is_no_check() {
    with_balancer(&checked("dsr", "", QUICK, &[11]), |bench| {
        let from = || Frame::new().ethernet(mac(12).0, Trial::INSIDE_MAC.0).ipv4(backend(12), PROBE);
        for (what, frame, reason) in [
            ("another port", from().tcp(80, 60_999), "lb-no-connection"),
            ("another port of UDP", from().udp(80, 62_000), "lb-no-connection"),
            ("another protocol", from().protocol(132).payload(&[0; 20]), "lb-no-connection"),
            ("a port by which nobody was asked", from().tcp(80, 61_500).flags(SYN), "lb-no-connection"),
        ] {
            let outcome = bench.trial.send(Direction::Outbound, &[frame.build()]);
            assert_eq!(dropped(&outcome), reason, "{what}");
        }
    });
}

#[test]
fn what_is_wrong_with_checks_is_said_by_its_key() {
    let policy = |text: &str| -> Result<Policy, (String, String)> {
        let config: Config = config(text);
        LoadBalancer::new().policy(config).map_err(|invalid| (invalid.key, invalid.message))
    };
    let probes = |text: &str| checked("dsr", "", QUICK, &[11]).replace(PROBES, text);
    let cases = [
        (probes(""), "services[0].health", "need an IPv4 address to be sent from"),
        (probes("probe_addresses = [\"2001:db8:2::9\"]\n"), "services[0].health", "need an IPv4 address"),
        (probes("probe_addresses = [\"10.0.0.9\", \"10.0.0.8\"]\n"), "probe_addresses[1]", "second of its family"),
        (
            probes("probe_addresses = [\"10.0.0.9\"]\nsource_addresses = [\"10.0.0.9\"]\n"),
            "probe_addresses[0]",
            "stands in source_addresses",
        ),
        (checked("dsr", "", "kind = \"tcp\", fall = 0", &[11]), "services[0].health.fall", "0 is not from 1"),
        (checked("dsr", "", QUICK, &[11]).replace("port = 80", ""), "services[0].health.port", "has no port"),
    ];
    for (text, key, message) in cases {
        let (found, said) = policy(&text).unwrap_err();
        assert_eq!(found, key, "{text}");
        assert!(said.contains(message), "{said}");
    }
    let echo = checked("dsr", "", "kind = \"icmp\"", &[11]).replace("port = 80", "");
    assert!(policy(&echo).is_ok());
}

#[test]
fn backends_are_shown_as_their_checks_say_whatever_people_want() {
    with_balancer(&checked("ipip", "", QUICK, &[11, 12]), |bench| {
        let mut backends = Backends::new(&[(11, Is::Serving), (12, Is::Stopped)]);
        backends.live(bench, seconds(4));
        let shown = |bench: &Bench| {
            let of = bench.balancer.backends(&bench.running).into_iter();
            of.map(|of| (of.service, of.name, of.is_up, of.connections)).collect::<Vec<_>>()
        };
        let of = |number: u8, is_up, connections| {
            ("web".to_owned(), IpAddr::V4(backend(number)).to_string(), is_up, connections)
        };
        assert_eq!(shown(bench), [of(11, Some(true), 0), of(12, Some(false), 0)]);
        bench.connect(1000..1010);
        assert_eq!(shown(bench), [of(11, Some(true), 10), of(12, Some(false), 0)]);
        // Who puts one down wants no alert for it.
        bench.command(|instance| instance.order("web", "10.0.0.11", Order::Down)).unwrap();
        bench.tend();
        assert_eq!(shown(bench)[0], of(11, Some(true), 10));
        // One that nobody checks is neither; one that is gone is not shown, though it has connections.
        bench.reload(config(&format!("{PROBES}{}", service("ipip", "", &[12])))).unwrap();
        assert_eq!(shown(bench), [of(12, None, 0)]);
    });
}
