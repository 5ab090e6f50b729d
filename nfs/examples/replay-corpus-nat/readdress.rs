//! The addresses and ports of captured packets, read and written; for functions that answer by what they have seen.
#![allow(dead_code, reason = "each subject uses what it needs")]

use nf_framework::Direction;
use nf_framework::headers::{Headers, checksum};
use nf_framework::testing::Trial;
use std::net::IpAddr;

/// Protocol, address, port (or the identifier of an ICMP query).
pub(crate) type Endpoint = (u8, IpAddr, u16);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    fn other(self) -> Self {
        if self == Self::Source { Self::Destination } else { Self::Source }
    }
}

/// A frame for the router that stands on this side, if it was for one station.
pub(crate) fn to_router(frame: &[u8], direction: Direction) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(station) = frame.first_chunk_mut().filter(|station: &&mut [u8; 6]| station[0] & 1 == 0) {
        *station = if direction == Direction::Outbound { Trial::INSIDE_MAC } else { Trial::OUTSIDE_MAC }.0;
    }
    frame
}

const IP: usize = 14;

/// An end of a packet, if it says at which port.
pub(crate) fn endpoint(frame: &[u8], end: End) -> Option<Endpoint> {
    let place = Place::of(frame, IP, end)?;
    place.port?;
    Some(place.read(frame))
}

/// An end of the exchange that a packet belongs to, at port 0 where it does not say: of an ICMP error that of what it
/// quotes, which went the other way.
pub(crate) fn party(frame: &[u8], end: End) -> Option<Endpoint> {
    let outer = Place::of(frame, IP, end)?;
    Some(outer.quoted(frame, end).unwrap_or(outer).read(frame))
}

/// Where an end of a packet stands.
struct Place {
    is_v6: bool,
    protocol: u8,
    address: usize,
    port: Option<usize>,
    behind: usize,
}

impl Place {
    /// Of the packet that begins at this octet.
    fn of(frame: &[u8], ip: usize, end: End) -> Option<Self> {
        let is_source = end == End::Source;
        let (is_v6, protocol, address, behind, is_first) = match (frame.get(12..IP)?, frame.get(ip)? >> 4) {
            ([0x08, 0x00], 4) => {
                let head = frame.get(ip..ip + 20)?;
                let is_first = head[6] & 0x1f == 0 && head[7] == 0;
                let behind = ip + usize::from(head[0] & 15) * 4;
                (false, head[9], ip + if is_source { 12 } else { 16 }, behind, is_first)
            }
            // What has extension headers has no ports here.
            ([0x86, 0xdd], 6) => {
                let head = frame.get(ip..ip + 40)?;
                (true, head[6], ip + if is_source { 8 } else { 24 }, ip + 40, true)
            }
            _ => return None,
        };
        if frame.len() < behind + 8 {
            return None;
        }
        let port = match (protocol, frame[behind]) {
            _ if !is_first => None,
            (6 | 17, _) => Some(if is_source { behind } else { behind + 2 }),
            (1, 0 | 8 | 13 | 14) if !is_v6 => Some(behind + 4),
            (58, 128 | 129) if is_v6 => Some(behind + 4),
            _ => None,
        };
        Some(Self { is_v6, protocol, address, port, behind })
    }

    /// The other end of what an ICMP error quotes.
    fn quoted(&self, frame: &[u8], end: End) -> Option<Self> {
        let is_error = match (self.is_v6, self.protocol) {
            (false, 1) => matches!(frame[self.behind], 3 | 4 | 5 | 11 | 12),
            (true, 58) => matches!(frame[self.behind], 1..=4),
            _ => false,
        };
        Self::of(frame, self.behind + 8, end.other()).filter(|_| is_error)
    }

    fn read(&self, frame: &[u8]) -> Endpoint {
        let octet = |index| frame[self.address + index];
        let address: IpAddr = match self.is_v6 {
            true => std::array::from_fn::<_, 16, _>(octet).into(),
            false => std::array::from_fn::<_, 4, _>(octet).into(),
        };
        (self.protocol, address, self.port.map_or(0, |at| u16::from_be_bytes([frame[at], frame[at + 1]])))
    }

    fn write(&self, frame: &mut [u8], (_, address, port): Endpoint) {
        match (address, self.is_v6) {
            (IpAddr::V4(address), false) => frame[self.address..self.address + 4].copy_from_slice(&address.octets()),
            (IpAddr::V6(address), true) => frame[self.address..self.address + 16].copy_from_slice(&address.octets()),
            _ => return,
        }
        if let Some(at) = self.port {
            frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
    }
}

/// Writes an end of a packet, and of what an ICMP error quotes; whether there was something to write.
/// Checksums that were right are right again.
pub(crate) fn readdress(frame: &mut [u8], end: End, to: impl Fn(Endpoint) -> Option<Endpoint>) -> bool {
    let Some(outer) = Place::of(frame, IP, end) else { return false };
    let right = Headers::parse(frame).is_ok_and(|headers| headers.verify_checksums().is_ok());
    let quoted = outer.quoted(frame, end);
    let Some(new) = to(quoted.as_ref().unwrap_or(&outer).read(frame)) else { return false };
    outer.write(frame, new);
    if let Some(quoted) = quoted {
        quoted.write(frame, new);
        if !quoted.is_v6 {
            fill_header_checksum(frame, outer.behind + 8, quoted.behind);
        }
    }
    if !outer.is_v6 {
        fill_header_checksum(frame, IP, outer.behind);
    }
    if right && let Ok(mut headers) = Headers::parse(frame) {
        headers.fill_checksums();
    }
    true
}

fn fill_header_checksum(frame: &mut [u8], from: usize, to: usize) {
    frame[from + 10..from + 12].fill(0);
    let sum = checksum::checksum(&frame[from..to]);
    frame[from + 10..from + 12].copy_from_slice(&sum.to_be_bytes());
}
