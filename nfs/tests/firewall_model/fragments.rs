//! Virtual reassembly: later fragments learn what the first one says, and wait for it.

use super::bytes::{Broken, Ip, Link, Piece, TCP, UDP, be16};
use super::{Nanoseconds, SECOND, Side};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the first fragment says that later ones do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Ports(u16, u16),
    /// Of an ICMP query.
    Identifier(u16),
    Nothing,
}

const TIMEOUT: Nanoseconds = 2 * SECOND;
/// Fragments of one packet.
const MOST: usize = 64;

/// Side, tags, source, destination, identification, protocol of IPv4.
type Key = (Side, Vec<u16>, IpAddr, IpAddr, u32, u8);

#[derive(Debug, Default)]
struct Datagram {
    since: Nanoseconds,
    pieces: Vec<(usize, usize)>,
    length: Option<usize>,
    said: Option<Said>,
    given_up: Option<&'static str>,
    waiting: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(crate) struct Fragments {
    datagrams: BTreeMap<Key, Datagram>,
}

/// What becomes of an arriving frame: those that go on, in order, with what their first fragment says; and the
/// reasons of those that do not.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Looked {
    pub(crate) on: Vec<(Vec<u8>, Option<Said>)>,
    pub(crate) dropped: Vec<&'static str>,
}

/// What a first fragment says; nothing if not all of its headers is there.
fn said(ip: &Ip) -> Option<Said> {
    let message = &ip.message;
    let ports = || Said::Ports(be16(message, 0), be16(message, 2));
    match ip.protocol {
        // An offset that no header has is for others to refuse.
        TCP => (message.len() >= 20 && usize::from(message[12] >> 4) * 4 <= message.len()).then(ports),
        UDP => (message.len() >= 8).then(ports),
        _ if ip.is_icmp() => {
            let queries: &[u8] = if ip.is_six() { &[128, 129] } else { &[0, 8, 13, 14] };
            let identifier = |message: &[u8]| Said::Identifier(be16(message, 4));
            let said = |message| if queries.contains(&ip.message[0]) { identifier(message) } else { Said::Nothing };
            (message.len() >= 8).then(|| said(message))
        }
        _ => Some(Said::Nothing),
    }
}

impl Fragments {
    /// Datagrams of which not all has come.
    pub(crate) fn open(&self) -> usize {
        self.datagrams.len()
    }

    pub(crate) fn held(&self) -> usize {
        self.datagrams.values().map(|datagram| datagram.waiting.len()).sum()
    }

    /// When something of what is here runs out.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Nanoseconds> {
        self.datagrams.values().map(|datagram| datagram.since + TIMEOUT)
    }

    /// Returns how many packets waited in vain.
    pub(crate) fn expire(&mut self, now: Nanoseconds) -> usize {
        let before = self.held();
        self.datagrams.retain(|_, datagram| now < datagram.since + TIMEOUT);
        before - self.held()
    }

    pub(crate) fn look_at(&mut self, side: Side, frame: &[u8], link: &Link, now: Nanoseconds) -> Looked {
        let on = |said| Looked { on: vec![(frame.to_vec(), said)], dropped: Vec::new() };
        let drop = |reason| Looked { on: Vec::new(), dropped: vec![reason] };
        let ip = match (link.ether_type, Ip::read(&frame[link.start..], link.ether_type == 0x86dd)) {
            (0x0800, Ok(ip)) | (0x86dd, Ok(ip)) => ip,
            (0x86dd, Err(Broken::FirstFragment)) => return drop("fragment-headers"),
            _ => return on(None),
        };
        let Some(Piece { identification, offset: start, more }) = ip.piece else { return on(None) };
        let behind = if ip.is_six() && start == 0 { behind_fragment_header(&ip) } else { ip.message.len() };
        let end = start + behind;
        if behind == 0 || more && !behind.is_multiple_of(8) || ip.before + end > 0xffff {
            return drop("fragment-length");
        }
        if start == 8 && ip.protocol == TCP {
            return drop("fragment-headers");
        }
        let first = match start {
            0 => match said(&ip) {
                Some(said) => Some(said),
                None => return drop("fragment-headers"),
            },
            _ => None,
        };
        let protocol = if ip.is_six() { 0 } else { ip.protocol };
        let key = (side, link.tags.clone(), ip.source, ip.destination, identification, protocol);
        let datagram =
            self.datagrams.entry(key.clone()).or_insert_with(|| Datagram { since: now, ..Datagram::default() });
        if let Some(reason) = datagram.given_up {
            return drop(reason);
        }
        let last = !more;
        let pieces = &datagram.pieces;
        if pieces.contains(&(start, end)) && last == (datagram.length == Some(end)) {
            return drop("fragment-duplicate");
        }
        let overlaps = pieces.iter().any(|&(from, to)| start < to && from < end);
        let beyond = datagram.length.is_some_and(|length| end > length || last && end != length);
        let short = last && pieces.iter().any(|&(_, to)| to > end);
        let reason = match () {
            () if overlaps || beyond || short => Some("fragment-overlap"),
            () if pieces.len() == MOST => Some("fragment-many"),
            () => None,
        };
        if let Some(reason) = reason {
            datagram.given_up = Some(reason);
            let waited = datagram.waiting.drain(..).count();
            return Looked { on: Vec::new(), dropped: vec![reason; waited + 1] };
        }
        datagram.pieces.push((start, end));
        if last {
            datagram.length = Some(end);
        }
        datagram.said = datagram.said.or(first);
        let Some(said) = datagram.said else {
            datagram.waiting.push(frame.to_vec());
            return Looked::default();
        };
        let mut looked = on(Some(said));
        looked.on.extend(datagram.waiting.drain(..).map(|frame| (frame, Some(said))));
        let come: usize = datagram.pieces.iter().map(|(start, end)| end - start).sum();
        if datagram.length == Some(come) {
            self.datagrams.remove(&key);
        }
        looked
    }
}

/// Octets of an IPv6 packet behind its fragment header.
fn behind_fragment_header(ip: &Ip) -> usize {
    ip.whole.len() - 40 - ip.before - 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall_model::bytes::link;

    fn fragment(offset: u8, more: bool) -> Vec<u8> {
        let more = if more { 0x20 } else { 0 };
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([0x45, 0, 0, 36, 1, 2, more, offset / 8, 64, UDP, 0, 0, 10, 0, 0, 1, 8, 8, 8, 8]);
        frame.extend([0x04, 0, 0, 53, 0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame
    }

    #[test]
    fn later_fragments_wait_for_the_first_one_and_an_overlap_ends_them_all() {
        let (first, second, third) = (fragment(0, true), fragment(16, true), fragment(32, false));
        let mut fragments = Fragments::default();
        let mut look = |frame: &[u8]| fragments.look_at(Side::Inside, frame, &link(frame).unwrap(), 0);
        assert_eq!(look(&third), Looked::default());
        let said = Some(Said::Ports(0x400, 53));
        assert_eq!(look(&first).on, [(first.clone(), said), (third.clone(), said)]);
        assert_eq!(look(&first).dropped, ["fragment-duplicate"]);
        assert_eq!(look(&second).on, [(second.clone(), said)]);
        assert_eq!(look(&third), Looked::default(), "all of it has come, and this is of another");
        assert_eq!(look(&fragment(24, true)).dropped, ["fragment-overlap"; 2]);
        assert_eq!((fragments.open(), fragments.expire(TIMEOUT), fragments.open()), (1, 0, 0));
    }
}
