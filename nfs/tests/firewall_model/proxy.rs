//! Connections that begin by a SYN cookie, seen from outside. Which number a cookie is nobody knows but the firewall: it
//! is taken as it comes, once all else about its segment is right. What has to follow from it is known here.

use super::bytes::{Ip, Link, TCP, adjusted, around, be16, be32, checksum, pseudo_header};
use super::tcp::{ACK, SYN, Segment, Tcp};
use super::{Nanoseconds, SECOND, Side};
use std::net::IpAddr;

/// A cookie is good to the end of the period behind its own.
pub(crate) const PERIOD: Nanoseconds = 64 * SECOND;
/// What a client is told, whatever its server will say.
const TOLD_SCALE: u8 = 7;
const TOLD_MSS: u16 = 1460;
const LONGER_V6: u16 = 20;

/// What a cookie keeps of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) mss: u16,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
}

/// One that the firewall has given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cookie {
    pub(crate) number: u32,
    pub(crate) made: Nanoseconds,
    pub(crate) offer: Offer,
    /// Where its client is.
    pub(crate) side: Side,
}

/// Of a connection that began by one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxy {
    pub(crate) cookie: u32,
    /// How far the server's numbers are ahead of those that the client is told.
    pub(crate) ahead: u32,
    pub(crate) offer: Offer,
}

/// A segment that the firewall makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made<'a> {
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
}

impl Offer {
    /// Of a SYN: its size is rounded down, and a scale is 14 at most (RFC 7323 section 2.3).
    pub(crate) fn of(message: &[u8], six: bool) -> Self {
        let sizes: [u16; 4] = if six { [1220, 1360, 1420, 1440] } else { [536, 1300, 1440, 1460] };
        let (mut mss, mut sack) = (0, false);
        let options = &message[20..usize::from(message[12] >> 4) * 4];
        let mut at = 0;
        while at < options.len() && options[at] != 0 {
            if options[at] == 1 {
                at += 1;
                continue;
            }
            let length = usize::from(options.get(at + 1).copied().unwrap_or(0));
            let Some(option) = (length >= 2).then(|| options.get(at..at + length)).flatten() else { break };
            match option {
                [2, 4, high, low] => mss = u16::from_be_bytes([*high, *low]),
                [4, 2] => sack = true,
                _ => {}
            }
            at += length;
        }
        let scale = Segment::read(message, false).scale.map(|scale| scale.min(14));
        let mss = sizes.into_iter().rev().find(|size| *size <= mss).unwrap_or(sizes[0]);
        Self { mss, scale, sack }
    }

    fn options(self) -> Vec<u8> {
        let [high, low] = self.mss.to_be_bytes();
        let sack: &[u8] = if self.sack { &[1, 1, 4, 2] } else { &[] };
        let scale = self.scale.map_or_else(Vec::new, |scale| vec![1, 3, 3, scale]);
        [&[2, 4, high, low], sack, &scale].concat()
    }

    fn told_scale(self) -> u32 {
        if self.scale.is_some() { TOLD_SCALE.into() } else { 0 }
    }

    /// The answer to a SYN, by a cookie.
    pub(crate) fn answer(self, syn: &Segment, number: u32, packet: (&[u8], &Link, &Ip)) -> Option<Vec<u8>> {
        let mss = TOLD_MSS - if packet.2.is_six() { LONGER_V6 } else { 0 };
        let options = Self { mss, scale: self.scale.map(|_| TOLD_SCALE), ..self }.options();
        let acknowledgment = syn.sequence.wrapping_add(1);
        say(packet, true, Made { sequence: number, acknowledgment, flags: SYN | ACK, window: 0, options: &options })
    }
}

impl Cookie {
    pub(crate) fn is_good(&self, now: Nanoseconds) -> bool {
        now / PERIOD - self.made / PERIOD <= 1
    }

    /// The SYN that its client has sent, by its acknowledgment of the cookie.
    pub(crate) fn syn(&self, returned: &Segment) -> Segment {
        Segment {
            flags: SYN,
            sequence: returned.sequence.wrapping_sub(1),
            window: scaled(returned.window, self.offer.scale.unwrap_or(0).into(), 0),
            data: 0,
            scale: self.offer.scale,
            sacked: None,
            ..*returned
        }
    }
}

impl Proxy {
    /// The SYN to the server.
    pub(crate) fn ask(&self, tcp: &Tcp, packet: (&[u8], &Link, &Ip)) -> Option<Vec<u8>> {
        let client = &tcp.sides[0];
        let options = self.offer.options();
        let window = u16::try_from(client.window).unwrap_or(u16::MAX);
        let sequence = client.first.wrapping_sub(1);
        say(packet, false, Made { sequence, acknowledgment: 0, flags: SYN, window, options: &options })
    }

    /// The acknowledgment of the server's SYN.
    pub(crate) fn acknowledgment(&self, tcp: &Tcp, sequence: u32, syn: &Segment) -> Made<'static> {
        let window = u16::try_from(tcp.sides[0].window >> tcp.scale(0)).unwrap_or(u16::MAX);
        Made { sequence, acknowledgment: syn.sequence.wrapping_add(1), flags: ACK, window, options: &[] }
    }

    /// What says to the client that its server is there: a window.
    pub(crate) fn opening(&self, tcp: &Tcp, syn: &Segment) -> Made<'static> {
        Made { flags: ACK, window: scaled(syn.window, 0, self.offer.told_scale()), ..self.for_client(tcp) }
    }

    /// With the numbers that the client expects of its server's first segment.
    pub(crate) fn for_client(self, tcp: &Tcp) -> Made<'static> {
        let (sequence, acknowledgment) = (self.cookie.wrapping_add(1), tcp.sides[0].first);
        Made { sequence, acknowledgment, flags: 0, window: 0, options: &[] }
    }

    /// A segment of a side as the other one is to see it.
    pub(crate) fn renumbered(&self, tcp: &Tcp, of: usize, packet: (&[u8], &Link, &Ip)) -> Vec<u8> {
        let message = &packet.2.message;
        let (mut new, window) = (message.clone(), be16(message, 14));
        let mut add = |at: usize, number: u32| {
            new[at..at + 4].copy_from_slice(&be32(message, at).wrapping_add(number).to_be_bytes());
        };
        let window = if of == 0 {
            if message[13] & ACK != 0 {
                add(8, self.ahead);
                for edge in edges(message) {
                    add(edge, self.ahead);
                }
            }
            scaled(window, self.offer.scale.unwrap_or(0).into(), tcp.scale(0))
        } else {
            add(4, self.ahead.wrapping_neg());
            scaled(window, tcp.scale(1), self.offer.told_scale())
        };
        new[14..16].copy_from_slice(&window.to_be_bytes());
        with_message(packet, new)
    }

    /// An ICMP error to the server: what it quotes has numbers that the client was told.
    pub(crate) fn renumbered_error(&self, packet: (&[u8], &Link, &Ip)) -> Vec<u8> {
        let mut new = packet.2.message.clone();
        let about = Ip::quoted(&new[8..], packet.2.is_six()).expect("it was looked at");
        let at = 8 + about.whole.len() - about.message.len();
        let before = new[at + 4..at + 8].to_vec();
        let after = be32(&before, 0).wrapping_add(self.ahead).to_be_bytes();
        new[at + 4..at + 8].copy_from_slice(&after);
        if about.message.len() >= 18 {
            let sum = adjusted(be16(&new, at + 16), &before, &after);
            new[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        }
        with_message(packet, new)
    }
}

/// Where the edges of SACK blocks are in a segment: RFC 2018 section 3.
fn edges(message: &[u8]) -> Vec<usize> {
    let end = usize::from(message[12] >> 4) * 4;
    let (mut at, mut edges) = (20, Vec::new());
    while at < end && message[at] != 0 {
        if message[at] == 1 {
            at += 1;
            continue;
        }
        let length = if at + 1 < end { usize::from(message[at + 1]) } else { 0 };
        if length < 2 || at + length > end {
            break;
        }
        if message[at] == 5 {
            edges.extend((at + 2..at + length - 3).step_by(4));
        }
        at += length;
    }
    edges
}

/// A packet with another message of the same length. Of a fragment nobody has all that its checksum is of: that changes by
/// what has changed.
fn with_message((frame, link, ip): (&[u8], &Link, &Ip), mut message: Vec<u8>) -> Vec<u8> {
    let at = if ip.protocol == TCP { 16 } else { 2 };
    let sum = if ip.piece.is_some() {
        let sum = be16(&message, at);
        // All of a header stands at even places, and data is as it was.
        let header = usize::from(message[12] >> 4) * 4;
        adjusted(sum, &ip.message[..header], &message[..header])
    } else {
        message[at..at + 2].fill(0);
        let is_v4_icmp = ip.protocol != TCP && !ip.is_six();
        let pseudo =
            if is_v4_icmp { Vec::new() } else { pseudo_header(ip.source, ip.destination, ip.protocol, message.len()) };
        checksum(&[&pseudo[..], &message].concat())
    };
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let start = link.start + ip.whole.len() - ip.message.len();
    [&frame[..start], &message, &frame[start + message.len()..]].concat()
}

/// A segment of the firewall's, to who sent a packet or where that goes; nothing unless it goes from host to host.
pub(crate) fn say((frame, link, ip): (&[u8], &Link, &Ip), back: bool, made: Made<'_>) -> Option<Vec<u8>> {
    let is_host = match ip.destination {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_multicast(),
    };
    if !is_host || ip.source.is_unspecified() || frame[0] & 1 == 1 {
        return None;
    }
    let (one, other) = (&ip.message[..2], &ip.message[2..4]);
    let mut message = if back { [other, one] } else { [one, other] }.concat();
    message.extend(made.sequence.to_be_bytes());
    message.extend(made.acknowledgment.to_be_bytes());
    let words = u8::try_from(5 + made.options.len() / 4).expect("a few");
    message.extend([words << 4, made.flags]);
    message.extend(made.window.to_be_bytes());
    message.extend([0; 4]);
    message.extend(made.options);
    Some(around((frame, link, ip), back, TCP, message))
}

/// A window field for who shifts it by another scale than its sender.
fn scaled(window: u16, from: u32, to: u32) -> u16 {
    u16::try_from(u64::from(window) << from >> to).unwrap_or(u16::MAX)
}
