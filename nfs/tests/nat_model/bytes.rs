//! IPv4 packets as rows of octets: read, rewritten, and summed up whole.

use std::net::Ipv4Addr;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Octets of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

pub(crate) fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

/// What an IPv4 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    /// Octets of the header, and of the whole packet.
    pub(crate) header: usize,
    pub(crate) length: usize,
    pub(crate) identification: u16,
    pub(crate) dont_fragment: bool,
    pub(crate) more: bool,
    /// In octets.
    pub(crate) offset: usize,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

impl Ip {
    /// The header that these octets begin with. Its length field is not compared with anything.
    pub(crate) fn header(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 15) * 4;
        if packet[0] >> 4 != 4 || header < 20 || packet.len() < header {
            return None;
        }
        let place = be16(packet, 6);
        Some(Self {
            header,
            length: be16(packet, 2).into(),
            identification: be16(packet, 4),
            dont_fragment: place & 0x4000 != 0,
            more: place & 0x2000 != 0,
            offset: usize::from(place & 0x1fff) * 8,
            ttl: packet[8],
            protocol: packet[9],
            source: address(packet, 12),
            destination: address(packet, 16),
        })
    }

    /// The header of a packet that is here whole, maybe with padding behind it.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        Self::header(packet).filter(|ip| ip.header <= ip.length && ip.length <= packet.len())
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.more || self.offset != 0
    }

    /// RFC 6864: nobody needs its identification.
    pub(crate) fn is_atomic(&self) -> bool {
        self.dont_fragment && !self.is_fragment()
    }
}

/// The one's complement sum of octets, as an integer that is equal to it modulo 65535.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from));
    words.sum()
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

/// Where the checksum stands in a transport header.
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        ICMP => Some(2),
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    }
}

/// The checksum that a transport message should have; what stands in its place does not count.
pub(crate) fn transport_checksum(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> u16 {
    let mut message = message.to_vec();
    if let Some(at) = checksum_at(protocol).filter(|at| at + 2 <= message.len()) {
        put16(&mut message, at, 0);
    }
    let mut pseudo = Vec::new();
    if protocol != ICMP {
        pseudo.extend(source.octets());
        pseudo.extend(destination.octets());
        pseudo.extend([0, protocol]);
        pseudo.extend(u16::try_from(message.len()).expect("a packet has 16 bits of length").to_be_bytes());
    }
    let sum = !fold(sum(&pseudo) + sum(&message));
    if protocol == UDP && sum == 0 { 0xffff } else { sum }
}

/// Fills in the header checksum, whole.
pub(crate) fn fill_header_checksum(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    put16(packet, 10, 0);
    let sum = checksum(&packet[..header]);
    put16(packet, 10, sum);
}

/// Fills in the header's and the transport's checksum of a whole packet.
pub(crate) fn fill_checksums(packet: &mut [u8]) {
    fill_header_checksum(packet);
    let ip = Ip::read(packet).expect("a packet in the making");
    if let Some(at) = checksum_at(ip.protocol).map(|at| ip.header + at).filter(|at| at + 2 <= ip.length) {
        let sum = transport_checksum(ip.protocol, ip.source, ip.destination, &packet[ip.header..ip.length]);
        put16(packet, at, sum);
    }
}

/// What is written over in a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) destination_port: Option<u16>,
    pub(crate) identification: Option<u16>,
    /// A larger maximum segment size becomes this one.
    pub(crate) mss: Option<u16>,
}

/// Writes a change into a packet, or as much of one as an error quotes. A transport checksum that
/// was right is right again, computed whole; one that was wrong, or covers what is not here, is off
/// by as much as before.
pub(crate) fn rewrite(packet: &mut [u8], change: Change) {
    let ip = Ip::header(packet).expect("only what is IPv4 is rewritten");
    let end = ip.length.min(packet.len());
    let before = packet.to_vec();
    if let Some(source) = change.source {
        packet[12..16].copy_from_slice(&source.octets());
    }
    if let Some(destination) = change.destination {
        packet[16..20].copy_from_slice(&destination.octets());
    }
    if let Some(identification) = change.identification {
        put16(packet, 4, identification);
    }
    fill_header_checksum(packet);
    if ip.offset != 0 || end < ip.header {
        return;
    }
    let message = &mut packet[ip.header..end];
    match ip.protocol {
        TCP | UDP => {
            if let Some(port) = change.source_port {
                put16(message, 0, port);
            }
            if let Some(port) = change.destination_port {
                put16(message, 2, port);
            }
        }
        ICMP => {
            if let Some(identifier) = change.source_port.or(change.destination_port) {
                put16(message, 4, identifier);
            }
        }
        _ => {}
    }
    if let (TCP, Some(most)) = (ip.protocol, change.mss) {
        clamp_mss(message, most);
    }
    let Some(at) = checksum_at(ip.protocol).filter(|at| at + 2 <= message.len()) else { return };
    let old = be16(message, at);
    if ip.protocol == UDP && old == 0 {
        return;
    }
    let whole = |packet: &[u8]| {
        let ip = Ip::header(packet).expect("as above");
        u64::from(transport_checksum(ip.protocol, ip.source, ip.destination, &packet[ip.header..end]))
    };
    let (was, is) = (whole(&before), whole(packet));
    let covered = if ip.protocol == ICMP { ip.header } else { 12 };
    if before[covered..end] == packet[covered..end] {
        return;
    }
    // Modulo 65535, in which 0xffff is 0: a checksum is never the former but for UDP's, never 0.
    let new = (u64::from(old) + is + 0xffff - was) % 0xffff;
    let new = if ip.protocol == UDP && new == 0 { 0xffff } else { new };
    put16(packet, ip.header + at, u16::try_from(new).expect("a remainder"));
}

/// Where the value of the MSS option of a TCP SYN stands.
pub(crate) fn mss_at(message: &[u8]) -> Option<usize> {
    let end = usize::from(message.get(12)? >> 4) * 4;
    let mut at = 20;
    while at < end.min(message.len()) {
        match message[at] {
            0 => return None,
            1 => at += 1,
            kind => {
                let length = usize::from(*message.get(at + 1)?);
                if length < 2 || at + length > end || at + length > message.len() {
                    return None;
                }
                if kind == 2 {
                    return (length == 4).then_some(at + 2);
                }
                at += length;
            }
        }
    }
    None
}

fn clamp_mss(message: &mut [u8], most: u16) {
    const SYN: u8 = 2;
    if message.get(13).is_some_and(|flags| flags & SYN != 0)
        && let Some(at) = mss_at(message)
        && be16(message, at) > most
    {
        put16(message, at, most);
    }
}

/// As people read them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a frame says, in a line.
pub(crate) fn describe(frame: &[u8]) -> String {
    let Some(packet) = frame.get(ETHERNET..) else { return format!("{} octets", frame.len()) };
    let Some(ip) = Ip::read(packet) else { return format!("no IPv4: {} octets", frame.len()) };
    let message = &packet[ip.header..ip.length];
    let mut text = format!(
        "{} > {} protocol {} ttl {} id {:#06x}{}",
        ip.source,
        ip.destination,
        ip.protocol,
        ip.ttl,
        ip.identification,
        if ip.dont_fragment { " DF" } else { "" }
    );
    if ip.is_fragment() {
        text += &format!(" fragment {}+{}{}", ip.offset, message.len(), if ip.more { " more" } else { "" });
    }
    if ip.offset == 0 && message.len() >= 8 {
        text += &match ip.protocol {
            TCP if message.len() >= 14 => {
                format!(" TCP {} > {} flags {:#04x}", be16(message, 0), be16(message, 2), message[13])
            }
            UDP => format!(" UDP {} > {}", be16(message, 0), be16(message, 2)),
            ICMP => format!(" ICMP {}/{} identifier {}", message[0], message[1], be16(message, 4)),
            _ => String::new(),
        };
        if ip.protocol == ICMP
            && matches!(message[0], 3 | 4 | 5 | 11 | 12)
            && let Some(quoted) = message.get(8..)
            && let Some(quoted_ip) = Ip::header(quoted)
        {
            let ports = quoted.get(quoted_ip.header..quoted_ip.header + 8);
            let ports = ports.map_or_else(String::new, |ports| format!(" {ports:?}"));
            let Ip { source, destination, protocol, .. } = quoted_ip;
            text += &format!(" about [{source} > {destination} protocol {protocol}{ports}]");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 section 3.
    #[test]
    fn a_checksum_is_the_complement_of_the_sum() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
    }

    fn udp() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 1, 2, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 8, 8, 8, 8];
        packet.extend([0x04, 0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
        fill_checksums(&mut packet);
        packet
    }

    #[test]
    fn a_right_checksum_stays_right_a_wrong_one_wrong_by_as_much_and_none_none() {
        let change = Change {
            source: Some(Ipv4Addr::new(203, 0, 113, 1)),
            source_port: Some(40_000),
            identification: Some(7),
            ..Change::default()
        };
        let mut expected = udp();
        put16(&mut expected, 4, 7);
        expected[12..16].copy_from_slice(&[203, 0, 113, 1]);
        put16(&mut expected, 20, 40_000);
        fill_checksums(&mut expected);
        let mut rewritten = udp();
        rewrite(&mut rewritten, change);
        assert_eq!(rewritten, expected);

        let (right, mut wrong) = (be16(&expected, 26), udp());
        let off = be16(&wrong, 26).wrapping_add(5);
        put16(&mut wrong, 26, off);
        rewrite(&mut wrong, change);
        assert_eq!(u32::from(be16(&wrong, 26)) % 0xffff, (u32::from(right) + 5) % 0xffff);

        let mut none = udp();
        put16(&mut none, 26, 0);
        rewrite(&mut none, change);
        assert_eq!(be16(&none, 26), 0);
    }

    #[test]
    fn a_later_fragment_keeps_its_data() {
        let mut fragment = udp();
        put16(&mut fragment, 6, 1);
        let data = fragment[20..].to_vec();
        rewrite(&mut fragment, Change { source_port: Some(1), ..Change::default() });
        assert_eq!(fragment[20..], data);
    }

    #[test]
    fn the_mss_of_a_syn_is_found_behind_other_options_and_only_made_smaller() {
        let mut message = vec![0; 28];
        message[12] = 7 << 4;
        message[13] = 2;
        message[20..28].copy_from_slice(&[1, 1, 2, 4, 5, 0xb4, 0, 0]);
        for (most, expected) in [(1400, 1400), (1460, 1460), (9000, 1460)] {
            let mut message = message.clone();
            clamp_mss(&mut message, most);
            assert_eq!(be16(&message, 24), expected);
        }
        message[13] = 16;
        clamp_mss(&mut message, 1000);
        assert_eq!(be16(&message, 24), 1460, "no SYN");
    }
}
