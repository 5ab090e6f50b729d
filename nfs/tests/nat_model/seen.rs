//! Which of the frames that left belong to which packet that came in: every packet carries a number.
//!
//! It stands in the last three octets of a packet. An ICMP error carries it behind its checksum, as
//! the packet that it quotes has one of its own; of an error that the router or the NAT has made
//! itself nothing stands there, and the packet that it quotes whole is the one that came in.

use crate::nat_model::Side;
use crate::nat_model::bytes::{ETHERNET, ICMP, Ip};
use std::collections::BTreeMap;

/// A packet's number, of 24 bits, never 0.
pub(crate) type Serial = u32;

pub(crate) const MOST: Serial = 0xff_ffff;

fn of_octets(octets: [u8; 3]) -> Serial {
    u32::from_be_bytes([0, octets[0], octets[1], octets[2]])
}

pub(crate) fn octets(serial: Serial) -> [u8; 3] {
    let [_, a, b, c] = serial.to_be_bytes();
    [a, b, c]
}

pub(crate) fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

fn at_the_end(packet: &[u8], length: usize) -> Option<Serial> {
    let end = packet.get(length.checked_sub(3)?..length)?;
    Some(of_octets([end[0], end[1], end[2]]))
}

/// The number that an IPv4 packet carries, and whether it is not that packet, but an error about it.
pub(crate) fn number(packet: &[u8]) -> Option<(Serial, bool)> {
    let ip = Ip::read(packet)?;
    let message = &packet[ip.header..ip.length];
    if ip.protocol == ICMP && ip.offset == 0 && message.len() >= 8 && is_error(message[0]) {
        let own = of_octets([message[4], message[6], message[7]]);
        if own != 0 {
            return Some((own, false));
        }
        let quoted = &message[8..];
        let (serial, _) = number(quoted)?;
        return Some((serial, true));
    }
    Some((at_the_end(packet, ip.length)?, false))
}

/// What left, by number.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// IPv4 packets as they left: those that came in, and errors about them.
    on: BTreeMap<Serial, Vec<(Side, Vec<u8>)>>,
    errors: BTreeMap<Serial, Vec<(Side, Vec<u8>)>>,
}

impl Seen {
    pub(crate) fn new<'a>(left: impl Iterator<Item = (Side, &'a Vec<u8>)>) -> Self {
        let mut seen = Self::default();
        for (side, frame) in left {
            if let Some(packet) = frame.get(ETHERNET..)
                && let Some((serial, error)) = number(packet)
            {
                let into = if error { &mut seen.errors } else { &mut seen.on };
                into.entry(serial).or_default().push((side, packet.to_vec()));
            }
        }
        seen
    }

    /// The packet of this number as it left.
    pub(crate) fn on(&self, serial: Serial) -> Option<&(Side, Vec<u8>)> {
        self.on.get(&serial)?.first()
    }

    /// Whether its sender was told that it may not pass.
    pub(crate) fn is_refused(&self, serial: Serial) -> bool {
        self.is_told(serial, [3, 13])
    }

    /// Whether it went on, if only until its hops ran out.
    pub(crate) fn went_on(&self, serial: Serial) -> bool {
        self.on.contains_key(&serial) || self.is_told(serial, [11, 0])
    }

    /// What said that nobody waits for it.
    pub(crate) fn refusal(&self, serial: Serial) -> Option<&(Side, Vec<u8>)> {
        let says = |packet: &[u8]| Ip::read(packet).is_some_and(|ip| packet[ip.header..].starts_with(&[3, 3]));
        self.errors.get(&serial)?.iter().find(|(_, packet)| says(packet))
    }

    fn is_told(&self, serial: Serial, what: [u8; 2]) -> bool {
        let says = |packet: &[u8]| Ip::read(packet).is_some_and(|ip| packet[ip.header..].starts_with(&what));
        self.errors.get(&serial).is_some_and(|errors| errors.iter().any(|(_, packet)| says(packet)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat_model::bytes::fill_checksums;

    fn packet(protocol: u8, message: &[u8]) -> Vec<u8> {
        let length = u8::try_from(20 + message.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 8, 8, 8, 8];
        packet.extend(message);
        fill_checksums(&mut packet);
        packet
    }

    #[test]
    fn a_packet_is_known_by_its_last_octets_an_error_by_its_own_and_a_made_one_by_what_it_quotes() {
        let udp = packet(17, &[0, 1, 0, 2, 0, 12, 0, 0, 9, 1, 2, 3]);
        assert_eq!(number(&udp), Some((0x01_0203, false)));
        let error = |rest: [u8; 4]| packet(1, &[&[3, 1, 0, 0], &rest[..], &udp].concat());
        assert_eq!(number(&error([4, 0, 5, 6])), Some((0x04_0506, false)));
        assert_eq!(number(&error([0; 4])), Some((0x01_0203, true)));
        let mut padded = udp.clone();
        padded.extend([0; 9]);
        assert_eq!(number(&padded), Some((0x01_0203, false)));
    }
}
