//! The links around a router, for targets that give it sequences of frames: stations that send, and a
//! judge of all that leaves, who reads it by the numbers that stand in the frames and knows the
//! network from a list.

use super::repair;
use nf_framework::testing::{Frame, Lab, Outcome, Trial, honest_checksum};
use nf_framework::{Affinity, Chain, Direction, FragmentsConfig, WorkerSetup};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What one byte of an input chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) workers: u16,
    pub(super) one_armed: bool,
    pub(super) functions: bool,
    /// Whether devices do what they can.
    pub(super) offloads: bool,
}

/// An interface: its side, its VLAN, its addresses with their prefixes, its MTU.
struct Interface {
    outside: bool,
    vlan: Option<u16>,
    own: [&'static str; 2],
    mtu: usize,
}

const LAN: Interface = Interface { outside: false, vlan: None, own: ["192.0.2.1/24", "2001:db8:1::1/64"], mtu: 1500 };
const LAN_10: Interface =
    Interface { outside: false, vlan: Some(10), own: ["192.0.3.1/24", "2001:db8:3::1/64"], mtu: 1500 };
const WAN: Interface = Interface { outside: true, vlan: None, own: ["198.51.100.1/24", "2001:db8:2::1/64"], mtu: 1400 };
const WAN_20: Interface = Interface { outside: true, vlan: Some(20), own: ["198.51.101.1/24", ""], mtu: 576 };
const WAN_30: Interface = Interface { vlan: Some(30), ..WAN };

const TWO_PORTS: &[Interface] = &[LAN, LAN_10, WAN, WAN_20];
const ONE_PORT: &[Interface] = &[LAN, LAN_10, WAN_30, WAN_20];

/// Where packets go that are not a neighbour's; the second network's stations differ.
const ROUTES: [&[(&str, &str)]; 2] = [
    &[
        ("203.0.113.0/24", "198.51.100.9"),
        ("203.0.114.0/24", "198.51.101.9"),
        ("172.16.0.0/12", "192.0.3.9"),
        ("2001:db8:9::/48", "2001:db8:2::9"),
        ("2001:db8:a::/48", "2001:db8:3::9"),
    ],
    &[("203.0.113.0/24", "198.51.101.9"), ("172.16.0.0/12", "192.0.2.9"), ("2001:db8:9::/48", "2001:db8:2::a")],
];
const REFUSED: [(&str, &str); 3] =
    [("10.1.0.0/16", "blackhole"), ("10.2.0.0/16", "prohibited"), ("10.3.0.0/16", "unreachable")];

/// Errors in a second, of each worker.
const ERRORS: u32 = 20;
/// Packets that wait for neighbours, and for fragments at each worker.
const WAITING: i64 = 8;
const FRAGMENTS: FragmentsConfig = FragmentsConfig { timeout: 1, datagrams: 64, held: 64 };

/// The configuration of a network.
fn text(interfaces: &[Interface], routes: &[(&str, &str)]) -> String {
    let mut text = format!("icmp_errors_per_second = {ERRORS}\n[neighbours]\ncapacity = 16\nwaiting = {WAITING}\n");
    text += "reachable_seconds = 5\nunused_seconds = 20\n";
    for (number, interface) in interfaces.iter().enumerate() {
        let side = if interface.outside { "outside" } else { "inside" };
        let own: Vec<_> = interface.own.into_iter().filter(|own| !own.is_empty()).collect();
        let _ = writeln!(text, "[interfaces.i{number}]\nside = {side:?}\naddresses = {own:?}\nmtu = {}", interface.mtu);
        let _ = interface.vlan.map(|vlan| writeln!(text, "vlan = {vlan}"));
    }
    for (to, via) in routes {
        let _ = writeln!(text, "[[routes]]\nto = {to:?}\nvia = {via:?}");
    }
    for (to, refuse) in REFUSED {
        let _ = writeln!(text, "[[routes]]\nto = {to:?}\nrefuse = {refuse:?}");
    }
    text
}

/// An IP packet that came in.
struct Came {
    /// As it was, without what lies behind it.
    ip: Vec<u8>,
    outside: bool,
    /// By a frame for a group of stations.
    to_group: bool,
    /// Whether something has left for it.
    answered: bool,
}

/// What left, as IP.
struct Left<'a> {
    ip: &'a [u8],
    outside: bool,
    interface: usize,
    destination: [u8; 6],
}

pub(super) struct Links {
    pub(super) trial: Trial,
    setup: Setup,
    interfaces: &'static [Interface],
    /// The routes in force, and those before while packets of then may wait.
    routes: usize,
    earlier_too: bool,
    came: Vec<Came>,
    /// All frames, with their sides.
    frames: Vec<(bool, Vec<u8>)>,
    held: i64,
    errors: u32,
    time: Duration,
    /// ARP requests and neighbour solicitations to all: when, for whom, by which interface.
    pub(super) questions: Vec<(Duration, usize, IpAddr)>,
    /// ARP replies and advertisements that were asked for.
    pub(super) answers: u32,
}

impl Links {
    pub(super) fn new(lab: &Lab<'_>, setup: Setup, mut functions: impl FnMut(&mut WorkerSetup) -> Chain) -> Self {
        let make = |worker: &mut WorkerSetup| if setup.functions { functions(worker) } else { Chain::new() };
        let trial = match setup.workers {
            1 => lab.trial(make),
            workers => lab.trial_at_wrong_workers(workers, Affinity::Flow, make),
        };
        let trial = if setup.functions { trial.with_fragments(FRAGMENTS) } else { trial };
        let trial = if setup.offloads { trial.with_offloads(honest_checksum) } else { trial };
        let interfaces = if setup.one_armed { ONE_PORT } else { TWO_PORTS };
        let text = text(interfaces, ROUTES[0]);
        let trial = match setup.one_armed {
            true => trial.with_router_on_one_port(&text, &["198.51.100.77"]),
            false => trial.with_router(&text, &["198.51.100.77"]),
        };
        let mut links = Self {
            trial,
            setup,
            interfaces,
            routes: 0,
            earlier_too: false,
            came: Vec::new(),
            frames: Vec::new(),
            held: 0,
            errors: 0,
            time: Duration::ZERO,
            questions: Vec::new(),
            answers: 0,
        };
        links.pass(Duration::ZERO);
        links
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.time += time;
        let outcome = self.trial.advance(time);
        self.judge(&outcome);
    }

    /// A frame comes in.
    pub(super) fn send(&mut self, outside: bool, frame: Vec<u8>) {
        let by_outside = outside && !self.setup.one_armed;
        let from_outside =
            self.interface_of(by_outside, &frame).map_or(outside, |index| self.interfaces[index].outside);
        if let Some(ip) = ip_of(&frame).and_then(whole) {
            let to_group = frame[0] & 1 != 0;
            self.came.push(Came { ip: ip.to_vec(), outside: from_outside, to_group, answered: false });
        }
        self.frames.push((from_outside, frame.clone()));
        let direction = if by_outside { Direction::Inbound } else { Direction::Outbound };
        let outcome = self.trial.send(direction, &[frame]);
        self.judge(&outcome);
    }

    /// Other routes.
    pub(super) fn reload(&mut self) {
        self.routes = 1 - self.routes;
        self.earlier_too = true;
        self.trial.reload_router(&text(self.interfaces, ROUTES[self.routes]), &["198.51.100.77"]);
    }

    /// Whether everything has come to an end when nothing has come for long.
    pub(super) fn finish(mut self) {
        // A neighbour is asked three times, and so is the one that is told that it was in vain.
        for _ in 0..12 {
            self.pass(Duration::from_millis(1010));
        }
        assert_eq!(self.held, 0, "nothing waits for ever");
        self.trial.check_for_leaks();
    }

    fn judge(&mut self, outcome: &Outcome) {
        self.held += outcome.held;
        let workers = i64::from(self.setup.workers);
        assert!((0..=WAITING + workers * 64).contains(&self.held), "{} are held", self.held);
        for (outside, frames) in [(false, &outcome.inside), (true, &outcome.outside)] {
            frames.iter().for_each(|frame| self.left(outside, frame));
        }
        // A tenth at once, and then the rate.
        let allowed = f64::from(self.setup.workers) * f64::from(ERRORS) * (0.1 + self.time.as_secs_f64()) + 1.0;
        assert!(f64::from(self.errors) <= allowed, "{} errors in {:?}", self.errors, self.time);
        self.earlier_too &= self.held > 0;
    }

    /// The interface of a frame at a port.
    fn interface_of(&self, port_outside: bool, frame: &[u8]) -> Option<usize> {
        let tag = match frame.get(12..16) {
            Some([0x81, 0x00, high, low]) => Some(u16::from_be_bytes([*high, *low]) & 0xfff).filter(|vlan| *vlan != 0),
            _ => None,
        };
        let on_port = |interface: &Interface| self.setup.one_armed || interface.outside == port_outside;
        self.interfaces.iter().position(|interface| interface.vlan == tag && on_port(interface))
    }

    fn left(&mut self, port_outside: bool, frame: &[u8]) {
        assert!(!(port_outside && self.setup.one_armed), "there is no such port");
        let index = self.interface_of(port_outside, frame).expect("it leaves by an interface");
        let interface = &self.interfaces[index];
        let mac = if port_outside { Trial::OUTSIDE_MAC } else { Trial::INSIDE_MAC }.octets();
        assert_eq!(frame[6..12], mac, "the source is the interface's");
        let rest = if interface.vlan.is_some() { &frame[16..] } else { &frame[12..] };
        let destination = *frame.first_chunk().expect("a destination");
        let left = |ip| Left { ip, outside: interface.outside, interface: index, destination };
        match rest {
            [0x08, 0x06, arp @ ..] => self.left_arp(index, arp, &mac),
            [0x08, 0x00, ip @ ..] => self.left_v4(&left(ip)),
            [0x86, 0xdd, ip @ ..] => self.left_v6(&left(ip)),
            _ => panic!("what is not IP leaves: {rest:?}"),
        }
    }

    fn left_arp(&mut self, index: usize, arp: &[u8], mac: &[u8]) {
        assert_eq!((&arp[..6], &arp[8..14]), (&[0, 1, 8, 0, 6, 4][..], mac));
        let [sender, target] = [14, 24].map(|at| Ipv4Addr::from(*arp[at..].first_chunk::<4>().expect("an address")));
        assert!(self.is_own(sender.into()), "{sender} is ours");
        match arp[7] {
            1 if sender == target => {}
            1 => self.asked(index, target.into()),
            2 => self.answers += 1,
            other => panic!("operation {other}"),
        }
    }

    fn asked(&mut self, index: usize, target: IpAddr) {
        assert!(!self.is_own(target), "we know where {target} is");
        let near = self.interfaces[index].own.iter().any(|own| contains(own, target));
        let link_local = matches!(target, IpAddr::V6(target) if target.is_unicast_link_local());
        assert!(near || link_local, "{target} is on the link");
        self.questions.push((self.time, index, target));
    }

    fn left_v4(&mut self, left: &Left<'_>) {
        let ip = left.ip;
        let (header, total) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
        assert!(ip[0] >> 4 == 4 && header >= 20 && (header..=ip.len()).contains(&total), "a packet of IPv4");
        assert_eq!(sum(&ip[..header]), 0xffff, "its header checksum");
        // An echo reply is as long as its request, which came by the same link.
        let fits = total <= self.interfaces[left.interface].mtu;
        assert!(fits || ip[9] == 1 && ip[header] == 0 && self.is_ours(ip), "{total} octets");
        assert!(!matches!(ip[12], 0 | 127 | 224..) && !matches!(ip[16], 0 | 127 | 224..), "addresses of hosts");
        let ip = &ip[..total];
        let left = &Left { ip, ..*left };
        if self.passed_on(left, |ip| (ip[8], [&ip[..8], &[0], &ip[9..10], &[0, 0], &ip[12..]].concat())) {
            return;
        }
        let is_fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
        if is_fragment && self.is_part_of_what_came(ip) {
            return self.went_its_way(left, address(ip));
        }
        assert!(self.is_own(Ipv4Addr::from(*ip[12..].first_chunk::<4>().expect("a source")).into()), "{ip:?}");
        assert_eq!((ip[9], ip[8], header), (1, 64, 20), "the router says ICMP: {ip:?}");
        let message = &ip[20..];
        assert_eq!(sum(message), 0xffff, "its checksum");
        match message[0] {
            0 => self.echoed(|came| {
                let back = || came[12..16] == ip[16..20] && came[16..20] == ip[12..16];
                came[0] >> 4 == 4 && came[9] == 1 && back() && came.ends_with(&message[4..])
            }),
            3 | 11 => {
                assert!(total <= 576);
                let quoted = &message[8..];
                // RFC 1812 section 4.3.2.7.
                let error = quoted[9] == 1 && matches!(quoted[usize::from(quoted[0] & 15) * 4], 3 | 4 | 5 | 11 | 12);
                assert!(!error, "an error about an error");
                assert!(quoted[6] & 0x1f == 0 && quoted[7] == 0, "about a later fragment");
                assert_eq!(quoted[12..16], ip[16..20], "it goes to the sender");
                self.complained(left, quoted);
            }
            other => panic!("ICMP type {other}"),
        }
    }

    fn left_v6(&mut self, left: &Left<'_>) {
        let ip = left.ip;
        let total = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        assert!(ip[0] >> 4 == 6 && total <= ip.len(), "a packet of IPv6");
        let fits = total <= self.interfaces[left.interface].mtu;
        assert!(fits || ip[6] == 58 && ip[40] == 129 && self.is_ours(ip), "{total} octets");
        let ip = &ip[..total];
        let left = &Left { ip, ..*left };
        if self.passed_on(left, |ip| (ip[7], [&ip[..7], &[0], &ip[8..]].concat())) {
            let groups = ip[8] == 0xff || ip[24] == 0xff;
            let link_local = [8, 24].into_iter().any(|at| ip[at] == 0xfe && ip[at + 1] & 0xc0 == 0x80);
            return assert!(!groups && !link_local, "of and for hosts, beyond the link");
        }
        assert_eq!(ip[6], 58, "the router says ICMPv6: {ip:?}");
        let message = &ip[40..];
        let pseudo = [&ip[8..40], &u32::try_from(message.len()).expect("short").to_be_bytes(), &[0, 0, 0, 58]].concat();
        assert_eq!(sum(&[&pseudo, message].concat()), 0xffff, "its checksum");
        let from = Ipv6Addr::from(*ip[8..].first_chunk::<16>().expect("a source"));
        let ours = self.is_own(from.into()) || from.is_unicast_link_local();
        let target = || Ipv6Addr::from(*message[8..].first_chunk::<16>().expect("a target"));
        match message[0] {
            135 if from.is_unspecified() => {}
            135 => {
                assert!(ours && ip[7] == 255);
                if ip[24] == 0xff {
                    self.asked(left.interface, target().into());
                }
            }
            136 => {
                assert!(ours && ip[7] == 255 && (self.is_own(target().into()) || target().is_unicast_link_local()));
                self.answers += u32::from(message[4] & 0x40 != 0);
            }
            129 => self.echoed(|came| {
                let back = || came[8..24] == ip[24..40] && came[24..40] == ip[8..24];
                came[0] >> 4 == 6 && back() && came.ends_with(&message[4..])
            }),
            1..=3 => {
                assert!(ours && ip[7] == 64 && total <= 1280);
                let quoted = &message[8..];
                // RFC 4443 section 2.4 (e).
                assert!(!(quoted[6] == 58 && (quoted[40] < 128 || quoted[40] == 137)), "an error about an error");
                assert_eq!(quoted[8..24], ip[24..40], "it goes to the sender");
                self.complained(left, quoted);
            }
            other => panic!("ICMPv6 type {other}"),
        }
    }

    /// Whether a packet came in like this, but for one hop. If so, it has gone the right way, once.
    fn passed_on(&mut self, left: &Left<'_>, parts: impl Fn(&[u8]) -> (u8, Vec<u8>)) -> bool {
        let (hops, rest) = parts(left.ip);
        let like_this = |came: &Came| {
            came.ip.len() == left.ip.len() && came.ip[0] == left.ip[0] && !came.answered && !came.to_group && {
                let (before, same) = parts(&came.ip);
                before == hops.wrapping_add(1) && same == rest
            }
        };
        let across = |came: &Came| !self.setup.functions || came.outside != left.outside;
        let Some(came) = self.came.iter().position(|came| like_this(came) && across(came)) else { return false };
        assert!(hops > 0);
        self.came[came].answered = true;
        self.went_its_way(left, address(left.ip));
        true
    }

    /// By the interface of its route, to a station that somebody has told of.
    fn went_its_way(&self, left: &Left<'_>, destination: IpAddr) {
        let routes = [self.routes, 1 - self.routes];
        let routes = &routes[..if self.earlier_too { 2 } else { 1 }];
        let right = routes.iter().any(|routes| self.way(ROUTES[*routes], destination) == Some(left.interface));
        assert!(right, "to {destination} by interface {}", left.interface);
        assert!(left.destination[0] & 1 == 0, "to a group");
        let told = self.frames.iter().any(|(outside, frame)| {
            *outside == left.outside && frame.windows(6).any(|octets| octets == left.destination)
        });
        assert!(told, "{:x?} is nobody", left.destination);
    }

    fn way(&self, routes: &[(&str, &str)], destination: IpAddr) -> Option<usize> {
        let near = |address| {
            self.interfaces.iter().position(|interface| interface.own.iter().any(|own| contains(own, address)))
        };
        let route = || routes.iter().find(|(to, _)| contains(to, destination));
        near(destination).or_else(|| near(route()?.1.parse().expect("an address")))
    }

    fn is_part_of_what_came(&self, part: &[u8]) -> bool {
        let header = |ip: &[u8]| usize::from(ip[0] & 15) * 4;
        let place = |ip: &[u8]| usize::from(u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff) * 8;
        let data = &part[header(part)..];
        self.came.iter().any(|came| {
            let ip = &came.ip;
            let same = ip[0] >> 4 == 4 && ip[4..6] == part[4..6] && ip[9] == part[9] && ip[12..20] == part[12..20];
            let within = || {
                let from = place(part).checked_sub(place(ip))? + header(ip);
                ip.get(from..from + data.len())
            };
            same && ip[8] == part[8].wrapping_add(1) && ip[6] & 0x40 == 0 && within() == Some(data)
        })
    }

    /// An answer to something that came.
    fn echoed(&mut self, asked: impl Fn(&[u8]) -> bool) {
        let came = self.came.iter_mut().find(|came| !came.answered && asked(&came.ip));
        came.expect("an echo was asked for").answered = true;
    }

    fn complained(&mut self, left: &Left<'_>, quoted: &[u8]) {
        self.errors += 1;
        let functions = self.setup.functions;
        let came = self.came.iter_mut().find(|came| {
            // Not about what came to a group.
            let may = !came.answered && !came.to_group && (!functions || came.outside == left.outside);
            may && came.ip.starts_with(quoted)
        });
        came.expect("the quoted packet came, as it is quoted, from where the error goes").answered = true;
    }

    /// Whether a packet comes from the router.
    fn is_ours(&self, ip: &[u8]) -> bool {
        match ip[0] >> 4 {
            4 => self.is_own(Ipv4Addr::from(*ip[12..].first_chunk::<4>().expect("a source")).into()),
            _ => {
                let source = Ipv6Addr::from(*ip[8..].first_chunk::<16>().expect("a source"));
                self.is_own(source.into()) || source.is_unicast_link_local()
            }
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let own = |own: &&str| own.split('/').next().is_some_and(|own| own.parse() == Ok(address));
        address == IpAddr::from([198, 51, 100, 77])
            || self.interfaces.iter().any(|interface| interface.own.iter().any(&own))
    }
}

fn address(ip: &[u8]) -> IpAddr {
    match ip[0] >> 4 {
        4 => Ipv4Addr::from(*ip[16..].first_chunk::<4>().expect("a destination")).into(),
        _ => Ipv6Addr::from(*ip[24..].first_chunk::<16>().expect("a destination")).into(),
    }
}

fn contains(prefix: &str, address: IpAddr) -> bool {
    let Some((first, length)) = prefix.split_once('/') else { return false };
    let length: u32 = length.parse().expect("a length");
    match (first.parse().expect("an address"), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => (first.to_bits() ^ address.to_bits()).leading_zeros() >= length,
        (IpAddr::V6(first), IpAddr::V6(address)) => (first.to_bits() ^ address.to_bits()).leading_zeros() >= length,
        _ => false,
    }
}

/// The sum of RFC 1071, with its complement in it all ones.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum
}

/// What lies behind the Ethernet header and its tag.
fn ip_of(frame: &[u8]) -> Option<&[u8]> {
    let rest = match frame.get(12..)? {
        [0x81, 0x00, _, _, rest @ ..] => rest,
        rest => rest,
    };
    match rest {
        [0x08, 0x00, ip @ ..] | [0x86, 0xdd, ip @ ..] => Some(ip),
        _ => None,
    }
}

/// A packet without what lies behind it.
fn whole(ip: &[u8]) -> Option<&[u8]> {
    match ip.first()? >> 4 {
        4 if ip.len() >= 20 => ip.get(..usize::from(u16::from_be_bytes([ip[2], ip[3]]))).filter(|ip| ip.len() >= 20),
        6 if ip.len() >= 40 => ip.get(..40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))),
        _ => None,
    }
}

/// What happens next, from an input.
pub(super) enum Step {
    Frame { outside: bool, frame: Vec<u8> },
    Time(Duration),
    Reload,
}

/// Takes a step off an input. Its first byte says what it is: time from 0xc0 on, and new routes with
/// 0xff. Of a frame, bit 0 of it is the side, bit 1 says that checksums are repaired, bits 2 and 3 are
/// the VLAN, and bits 4 and 5, if all ones, that the frame itself follows behind its length. Otherwise
/// there are a template, the length of its payload in units of 48, a number of bytes to be overwritten,
/// and these with their places.
pub(super) fn step(bytes: &mut &[u8], template: fn(bool, u8, &[u8]) -> Frame) -> Option<Step> {
    let what = byte(bytes)?;
    if what == 0xff {
        return Some(Step::Reload);
    }
    if what >= 0xc0 {
        let millis = [20, 150, 1000, 1010, 5000, 20_000][usize::from(what) % 6];
        return Some(Step::Time(Duration::from_millis(millis)));
    }
    let outside = what & 1 != 0;
    let mut frame = if what & 0x30 == 0x30 {
        let length = usize::from(byte(bytes)?).min(bytes.len());
        let (frame, rest) = bytes.split_at(length);
        *bytes = rest;
        frame.to_vec()
    } else {
        let (kind, units, changes) = (byte(bytes)?, byte(bytes)?, byte(bytes)?);
        let frame = template(outside, kind, &[7; 48 * 40][..48 * usize::from(units % 40)]);
        let tag = match (what >> 2) & 3 {
            0 | 1 => None,
            2 => Some(if outside { 20 } else { 10 }),
            _ => Some(30),
        };
        let mut frame = tag.into_iter().fold(frame, Frame::vlan).build();
        for _ in 0..changes % 8 {
            let (place, value) = (usize::from(byte(bytes)?), byte(bytes)?);
            if let Some(octet) = frame.get_mut(place) {
                *octet = value;
            }
        }
        frame
    };
    if what & 2 != 0 {
        repair(&mut frame);
    }
    Some(Step::Frame { outside, frame })
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}
