//! Virtual reassembly: later fragments learn what the first one says, and wait for it.

use crate::nat_model::bytes::{ICMP, Ip, TCP, UDP, be16};
use crate::nat_model::{Nanoseconds, SECOND, Side};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What stands in the first fragment: both ports, or an identifier twice; nothing if the packet has
/// neither.
pub(crate) type Ports = Option<(u16, u16)>;

const TIMEOUT: Nanoseconds = 2 * SECOND;

type Key = (Side, Ipv4Addr, Ipv4Addr, u16, u8);

#[derive(Debug, Default)]
struct Datagram {
    since: Nanoseconds,
    pieces: Vec<(usize, usize)>,
    length: Option<usize>,
    ports: Option<Ports>,
    given_up: bool,
    waiting: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(crate) struct Fragments {
    datagrams: BTreeMap<Key, Datagram>,
}

/// What becomes of an arriving frame: frames that go on, in order and with what their first fragment
/// says, and how many are dropped under which reason.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) on: Vec<(Vec<u8>, Ports)>,
    pub(crate) dropped: Vec<&'static str>,
}

/// What the first fragment says, or nothing if not all of its header is there.
fn ports(protocol: u8, data: &[u8]) -> Option<Ports> {
    let enough = match protocol {
        TCP => data.len() >= 20 && usize::from(data[12] >> 4) * 4 <= data.len(),
        UDP | ICMP => data.len() >= 8,
        _ => return Some(None),
    };
    if !enough {
        return None;
    }
    match protocol {
        ICMP => Some(matches!(data[0], 0 | 8 | 13 | 14).then(|| (be16(data, 4), be16(data, 4)))),
        _ => Some(Some((be16(data, 0), be16(data, 2)))),
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

    pub(crate) fn look_at(&mut self, side: Side, packet: &[u8], now: Nanoseconds) -> Looked {
        let on = |packet: &[u8], ports| Looked { on: vec![(packet.to_vec(), ports)], dropped: Vec::new() };
        let drop = |reason| Looked { on: Vec::new(), dropped: vec![reason] };
        let Some(ip) = Ip::read(packet).filter(Ip::is_fragment) else { return on(packet, None) };
        let data = &packet[ip.header..ip.length];
        let (start, end) = (ip.offset, ip.offset + data.len());
        if data.is_empty() || (ip.more && !data.len().is_multiple_of(8)) || ip.header + end > 0xffff {
            return drop("fragment-length");
        }
        if start == 8 && ip.protocol == TCP {
            return drop("fragment-headers");
        }
        let first = if start == 0 {
            match ports(ip.protocol, data) {
                Some(ports) => Some(ports),
                None => return drop("fragment-headers"),
            }
        } else {
            None
        };
        let key = (side, ip.source, ip.destination, ip.identification, ip.protocol);
        let datagram = self.datagrams.entry(key).or_insert_with(|| Datagram { since: now, ..Datagram::default() });
        if datagram.given_up {
            return drop("fragment-overlap");
        }
        let pieces = &datagram.pieces;
        if pieces.contains(&(start, end)) && ip.more == (datagram.length != Some(end)) {
            return drop("fragment-duplicate");
        }
        let last = !ip.more;
        let overlaps = pieces.iter().any(|&(from, to)| start < to && from < end);
        let beyond = datagram.length.is_some_and(|length| end > length || (last && end != length));
        let short = last && pieces.iter().any(|&(_, to)| to > end);
        if overlaps || beyond || short {
            datagram.given_up = true;
            let waited = datagram.waiting.drain(..).count();
            return Looked { on: Vec::new(), dropped: vec!["fragment-overlap"; waited + 1] };
        }
        datagram.pieces.push((start, end));
        if last {
            datagram.length = Some(end);
        }
        datagram.ports = datagram.ports.or(first);
        let Some(ports) = datagram.ports else {
            datagram.waiting.push(packet.to_vec());
            return Looked::default();
        };
        let mut looked = on(packet, ports);
        looked.on.extend(datagram.waiting.drain(..).map(|packet| (packet, ports)));
        let come: usize = datagram.pieces.iter().map(|(start, end)| end - start).sum();
        if datagram.length == Some(come) {
            self.datagrams.remove(&key);
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: u8, more: bool) -> Vec<u8> {
        let more = if more { 0x20 } else { 0 };
        let mut packet = vec![0x45, 0, 0, 36, 1, 2, more, offset / 8, 64, UDP, 0, 0, 10, 0, 0, 1, 8, 8, 8, 8];
        packet.extend([0x04, 0, 0, 53, 0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        packet
    }

    #[test]
    fn later_fragments_wait_for_the_first_one_and_leave_behind_it() {
        let (first, second, third) = (fragment(0, true), fragment(16, true), fragment(32, false));
        let mut fragments = Fragments::default();
        let mut look = |packet: &[u8]| fragments.look_at(Side::Inside, packet, 0);
        assert!(look(&third).on.is_empty());
        let ports = Some((0x400, 53));
        assert_eq!(look(&first).on, [(first.clone(), ports), (third.clone(), ports)]);
        assert_eq!(look(&first).dropped, ["fragment-duplicate"]);
        assert_eq!(look(&second).on, [(second.clone(), ports)]);
        assert_eq!(fragments.open(), 0, "all of it has come");
    }

    #[test]
    fn an_overlap_ends_the_datagram_and_time_does_so_too() {
        let mut fragments = Fragments::default();
        assert!(fragments.look_at(Side::Inside, &fragment(16, true), 0).on.is_empty());
        let overlap = fragments.look_at(Side::Inside, &fragment(24, false), 0);
        assert_eq!(overlap.dropped, ["fragment-overlap"; 2]);
        assert_eq!(fragments.look_at(Side::Inside, &fragment(0, true), 0).dropped, ["fragment-overlap"]);
        assert!(
            fragments.look_at(Side::Outside, &fragment(8, true), 0).on.is_empty(),
            "another side, another datagram"
        );
        assert_eq!((fragments.expire(TIMEOUT - 1), fragments.expire(TIMEOUT)), (0, 1));
        assert_eq!(fragments.open(), 0);
    }
}
