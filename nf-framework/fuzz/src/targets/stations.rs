//! What stations beside the router say: the templates of frames.

use nf_framework::testing::{Frame, Trial};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A station on either side, the router beside it, and one beyond that.
struct Side {
    mac: [u8; 6],
    router_mac: [u8; 6],
    here: Ipv4Addr,
    own: Ipv4Addr,
    next: Ipv4Addr,
    far: Ipv4Addr,
    here6: Ipv6Addr,
    own6: Ipv6Addr,
    next6: Ipv6Addr,
    far6: Ipv6Addr,
}

fn side(outside: bool) -> Side {
    let (net4, far4) = if outside { ([198, 51, 100], [203, 0, 113]) } else { ([192, 0, 2], [172, 16, 0]) };
    let (net6, far6) = if outside { (2, 9) } else { (1, 0xa) };
    let v4 = |[a, b, c]: [u8; 3], last| Ipv4Addr::new(a, b, c, last);
    let v6 = |net, last| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, last);
    let last = if outside { 20 } else { 10 };
    Side {
        mac: [2, 0, 0, 0, 0, last],
        router_mac: if outside { Trial::OUTSIDE_MAC } else { Trial::INSIDE_MAC }.octets(),
        here: v4(net4, last),
        own: v4(net4, 1),
        next: v4(net4, 9),
        far: v4(far4, 7),
        here6: v6(net6, last.into()),
        own6: v6(net6, 1),
        next6: v6(net6, 9),
        far6: v6(far6, 7),
    }
}

/// How many kinds of messages about neighbours there are; they come first.
pub(super) const NEIGHBOURS: u8 = 10;
/// How many templates there are.
pub(super) const ALL: u8 = 36;

/// A message about neighbours, or a packet to a neighbour.
pub(super) fn about_neighbours(outside: bool, kind: u8, payload: &[u8]) -> Frame {
    template(outside, kind % (NEIGHBOURS + 4), &payload[..payload.len().min(48)])
}

/// One of all kinds.
pub(super) fn any(outside: bool, kind: u8, payload: &[u8]) -> Frame {
    template(outside, kind % ALL, payload)
}

fn template(outside: bool, kind: u8, payload: &[u8]) -> Frame {
    let (this, other) = (side(outside), side(!outside));
    let frame = || Frame::new().ethernet(this.mac, this.router_mac);
    let v4 = |to| frame().ipv4(this.here, to);
    let v6 = |to| frame().ipv6(this.here6, to);
    let quoted = |answered: Frame| answered.payload(b"answer").build()[14..].to_vec();
    match kind {
        0 => Frame::new().ethernet(this.mac, [0xff; 6]).arp_request(this.here, this.own),
        1 => solicitation(&this, this.own6, Some(this.mac)),
        2 => frame().arp_reply(this.here, this.own),
        3 => frame().arp_reply(this.next, this.own),
        4 => advertisement(&this, this.here6),
        5 => advertisement(&this, this.next6),
        6 => Frame::new().ethernet(this.mac, [0xff; 6]).arp_request(this.here, this.here),
        7 => solicitation(&this, this.own6, None),
        8 => Frame::new().ethernet(this.mac, [0xff; 6]).arp_request(this.next, this.here),
        9 => frame().ipv6(this.here6, all_nodes()).hop_limit(255).icmpv6(137, 0, [0; 4]).payload(&[0; 32]),
        10 => v4(other.here).udp(1000, 53).payload(payload),
        11 => v6(other.here6).udp(1000, 53).payload(payload),
        12 => v4(other.far).tcp(1000, 80).payload(payload),
        13 => v6(other.far6).tcp(1000, 80).payload(payload),
        14 => v4(this.own).icmp_echo_request(1, 2).payload(payload),
        15 => v6(this.own6).icmpv6_echo_request(1, 2).payload(payload),
        16 => v4(other.here).icmp_echo_request(1, 2).payload(payload),
        17 => v6(other.here6).icmpv6_echo_request(1, 2).payload(payload),
        18 => v4(other.here).icmp(3, 1, [0; 4]).payload(&quoted(frame().ipv4(other.here, this.here).udp(53, 1000))),
        19 => {
            v6(other.here6).icmpv6(1, 3, [0; 4]).payload(&quoted(frame().ipv6(other.here6, this.here6).udp(53, 1000)))
        }
        20 => v4(this.own).udp(1000, 33434).payload(payload),
        21 => v6(this.own6).udp(1000, 33434).payload(payload),
        22 => v4(other.far).time_to_live(1).udp(1000, 53).payload(payload),
        23 => v6(other.far6).hop_limit(1).udp(1000, 53).payload(payload),
        24 => v4([10, 2, 0, 1].into()).udp(1000, 53).payload(payload),
        25 => v4([203, 0, 114, 7].into()).udp(1000, 53).payload(payload),
        26 => v4([203, 0, 114, 7].into()).dont_fragment().udp(1000, 53).payload(payload),
        27 => v4(other.here).udp(1000, 53).payload(&payload[..payload.len().min(960)]).fragment(0, true),
        28 => v4(other.here).payload(&[&[7; 8], payload].concat()).protocol(17).fragment(960, false),
        29 => v6(other.here6).udp(1000, 53).payload(&payload[..payload.len().min(960)]).fragment(0, true),
        30 => v6(other.here6).payload(&[&[7; 8], payload].concat()).protocol(17).fragment(960, false),
        31 => v6(other.here6).extension(0, &[]).extension(60, &[1, 4, 0, 0, 0, 0]).udp(1, 2).payload(payload),
        32 => v4(other.here).ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0]).tcp(1000, 80).payload(payload),
        33 => v4([198, 51, 100, 77].into()).udp(53, 1000).payload(payload),
        34 => v4([10, 3, 0, 1].into()).icmp_echo_request(1, 2).payload(payload),
        _ => v6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)).udp(1000, 53).payload(payload),
    }
}

fn all_nodes() -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
}

/// Asks for an address, or with no MAC address of the sender's says that it wants to have it.
fn solicitation(this: &Side, target: Ipv6Addr, mac: Option<[u8; 6]>) -> Frame {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let mut message = target.octets().to_vec();
    message.extend(mac.into_iter().flat_map(|mac| [&[1, 1], &mac[..]].concat()));
    let source = if mac.is_some() { this.here6 } else { Ipv6Addr::UNSPECIFIED };
    let frame = Frame::new().ethernet(this.mac, [0x33, 0x33, 0xff, x, y, z]).ipv6(source, group);
    frame.hop_limit(255).icmpv6(135, 0, [0; 4]).payload(&message)
}

fn advertisement(this: &Side, target: Ipv6Addr) -> Frame {
    let message = [&target.octets()[..], &[2, 1], &this.mac].concat();
    let frame = Frame::new().ethernet(this.mac, this.router_mac).ipv6(target, this.own6);
    frame.hop_limit(255).icmpv6(136, 0, [0x60, 0, 0, 0]).payload(&message)
}
