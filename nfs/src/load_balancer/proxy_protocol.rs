//! Who the client is, told to a backend that does not see its address: the PROXY protocol, version 2 (the
//! specification of HAProxy, sections 2.2 and 2.3), as the first bytes of a connection.
//!
//! The header gets its place in the sequence numbers **before** the client's first byte: the SYN goes to the
//! backend with a number that is smaller by the header's length. So from the moment on that the backend has
//! acknowledged the header both sides count alike, and no number, no acknowledgment and no SACK block of an
//! established connection is ever changed. Until then
//!
//! - the acknowledgment of the SYN alone is told to the client as that of its SYN, without the SACK blocks
//!   beside it: what is missing before them is the header, which the client knows nothing of;
//! - the client's acknowledgment of the backend's SYN, if it has no data, becomes the header, so that a header that is
//!   lost is asked for again by the backend's SYN;
//! - the client's first byte goes behind the header if that was not sent yet, and when it comes a second time;
//! - data that came with a SYN (RFC 7413) is cut off, and the client sends it again.

use nf_framework::Mbuf;
use nf_framework::headers::{
    ChecksumUpdate, EthernetHeader, Headers, IpProtocol, Ipv4Header, Ipv6Header, Network, TcpFlags, TcpHeader,
    Transport,
};
use std::net::IpAddr;

/// How far a connection's header is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Introduction {
    /// The number of the client's first byte.
    first: u32,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// The backend has it, or is to have none.
    #[default]
    Over,
    /// The client's SYN was seen.
    Begun,
    /// The header was sent.
    Sent,
    /// The client's first byte was, too.
    Followed,
}

/// What is to be done with a segment of the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It goes on as it is now.
    Pass,
    /// The header goes in its place: [`replace`].
    Replace,
    /// The header goes before it: [`precede`].
    Precede,
}

/// A header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    bytes: [u8; LONGEST],
    length: usize,
}

/// Octets: signature, version and command, family and protocol, length; then addresses and ports.
const START: usize = 16;
const LENGTH_V4: usize = START + 12;
const LENGTH_V6: usize = START + 36;
const LONGEST: usize = LENGTH_V6;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection on somebody's behalf.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

impl Header {
    /// Of a connection from a client to a service, both of one family.
    pub(super) fn new(client: (IpAddr, u16), service: (IpAddr, u16)) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        let (family, length) = match (client.0, service.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes[START..START + 4].copy_from_slice(&source.octets());
                bytes[START + 4..START + 8].copy_from_slice(&destination.octets());
                (TCP_OVER_IPV4, LENGTH_V4)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes[START..START + 16].copy_from_slice(&source.octets());
                bytes[START + 16..START + 32].copy_from_slice(&destination.octets());
                (TCP_OVER_IPV6, LENGTH_V6)
            }
            _ => return None,
        };
        bytes[..12].copy_from_slice(&SIGNATURE);
        bytes[12] = PROXY;
        bytes[13] = family;
        bytes[15] = u8::try_from(length - START).unwrap_or(0);
        bytes[length - 4..length - 2].copy_from_slice(&client.1.to_be_bytes());
        bytes[length - 2..length].copy_from_slice(&service.1.to_be_bytes());
        Some(Self { bytes, length })
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Introduction {
    /// Whether nothing is left to be done, as in a connection without a header.
    #[inline]
    pub(super) fn is_over(self) -> bool {
        self.stage == Stage::Over
    }

    /// Of a connection that begins with this SYN of the client's, which [`of_client`](Self::of_client) is to see
    /// next. `None` if it is no SYN.
    pub(super) fn begun_by(packet: &mut Mbuf) -> Option<Self> {
        let headers = Headers::parse(packet.data_mut()).ok()?;
        let Transport::Tcp { header, .. } = &headers.transport else { return None };
        let first = header.sequence_number.get().wrapping_add(1);
        header.flags.contains(TcpFlags::SYN).then_some(Self { first, stage: Stage::Begun })
    }

    /// A segment of the client's is on its way to the backend.
    pub(super) fn of_client(&mut self, packet: &mut Mbuf) -> Step {
        if self.is_over() {
            return Step::Pass;
        }
        let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return Step::Pass };
        let (place, has_data) = (self.place(&headers.network), !headers.payload.is_empty());
        let Transport::Tcp { header, .. } = &mut headers.transport else { return Step::Pass };
        let (old, flags) = (header.sequence_number.get(), header.flags);
        let from_first = old.wrapping_sub(self.first).cast_signed();
        if flags.contains(TcpFlags::SYN) {
            if from_first == -1 {
                write_sequence_number(header, place.wrapping_sub(1));
                if has_data && is_sound(packet) {
                    carry(packet, &[]);
                }
            }
            return Step::Pass;
        }
        if !flags.contains(TcpFlags::ACK) {
            // A reset that answers the backend's SYN has the number that was acknowledged there: RFC 9293 section
            // 3.10.7.1.
            if flags.contains(TcpFlags::RST) && from_first == 0 {
                write_sequence_number(header, place);
            }
            return Step::Pass;
        }
        let says_more = has_data || flags.intersects(TcpFlags(TcpFlags::FIN.0 | TcpFlags::RST.0));
        match (from_first, self.stage) {
            (1.., _) => Step::Pass,
            (0, Stage::Sent) if says_more => {
                self.stage = Stage::Followed;
                Step::Pass
            }
            (0, _) if says_more => {
                self.stage = Stage::Followed;
                Step::Precede
            }
            (_, Stage::Begun) => {
                self.stage = Stage::Sent;
                Step::Replace
            }
            _ => Step::Replace,
        }
    }

    /// A segment of the backend's is on its way to the client.
    pub(super) fn of_backend(&mut self, packet: &mut Mbuf) {
        if self.is_over() {
            return;
        }
        let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return };
        let place = self.place(&headers.network);
        let Transport::Tcp { header, options } = &mut headers.transport else { return };
        if !header.flags.contains(TcpFlags::ACK) {
            return;
        }
        let acknowledged = header.acknowledgment_number.get();
        if acknowledged.wrapping_sub(self.first).cast_signed() >= 0 {
            self.stage = Stage::Over;
        } else if acknowledged.wrapping_sub(place).cast_signed() >= 0 {
            header.acknowledgment_number.set(self.first);
            let update = ChecksumUpdate::new().replace_u32(acknowledged, self.first);
            blank_selective_acknowledgments(options, update).apply(&mut header.checksum);
        }
    }

    /// Makes a segment of the client's the header's. False, and nothing is done, if it is not sound, or there is no
    /// room.
    pub(super) fn replace(self, packet: &mut Mbuf, header: &Header) -> bool {
        is_sound(packet) && self.put(packet, header)
    }

    fn put(self, packet: &mut Mbuf, header: &Header) -> bool {
        if !make_whole(packet) {
            return false;
        }
        {
            let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
            let place = self.place(&headers.network);
            let Transport::Tcp { header, .. } = &mut headers.transport else { return false };
            header.sequence_number.set(place);
            header.flags = TcpFlags::ACK | TcpFlags::PSH;
            header.urgent_pointer.set(0);
        }
        carry(packet, header.bytes())
    }

    /// Makes a new packet the one before a segment of the client's. False if that is not sound, or there is no room.
    pub(super) fn precede(self, segment: &mut Mbuf, header: &Header, packet: &mut Mbuf) -> bool {
        is_sound(segment) && packet.set_contents(segment.data()) && self.put(packet, header)
    }

    /// The number of the header's first byte.
    fn place(self, network: &Network<'_>) -> u32 {
        let length = if matches!(network, Network::Ipv6 { .. }) { LENGTH_V6 } else { LENGTH_V4 };
        self.first.wrapping_sub(u32::try_from(length).unwrap_or(0))
    }
}

/// Whether a packet may get new checksums: a wrong one stays wrong.
fn is_sound(packet: &mut Mbuf) -> bool {
    Headers::parse(packet.data_mut()).is_ok_and(|headers| headers.verify_checksums().is_ok())
}

/// Makes a first fragment a packet that is no fragment, and has none of IPv6's extension headers; what it carries and its
/// checksums are to be written then. False if that cannot be.
fn make_whole(packet: &mut Mbuf) -> bool {
    const DONT_FRAGMENT: u16 = 0x4000;
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
    if headers.network.fragment().is_none() {
        return true;
    }
    let ip = size_of::<EthernetHeader>() + size_of_val(&*headers.vlan);
    match &mut headers.network {
        Network::Ipv4 { header, .. } => {
            header.flags_and_fragment_offset.set(DONT_FRAGMENT);
            true
        }
        Network::Ipv6 { header, extensions } => {
            let (length, start) = (extensions.len(), ip + Ipv6Header::LENGTH);
            header.next_header = IpProtocol::TCP;
            let carried = usize::from(header.payload_length.get()).checked_sub(length);
            let Some(carried) = carried.and_then(|carried| u16::try_from(carried).ok()) else { return false };
            header.payload_length.set(carried);
            packet.data_mut().copy_within(start + length.., start);
            packet.trim(length)
        }
        _ => false,
    }
}

fn write_sequence_number(header: &mut TcpHeader, new: u32) {
    let update = ChecksumUpdate::new().replace_u32(header.sequence_number.get(), new);
    header.sequence_number.set(new);
    update.apply(&mut header.checksum);
}

/// Puts this in the place of what a segment carries, and lengths and checksums right. False, and nothing is done, if
/// there is no room.
pub(super) fn carry(packet: &mut Mbuf, data: &[u8]) -> bool {
    let (had, room) = (packet.len(), packet.tailroom());
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return false };
    let ip = size_of::<EthernetHeader>() + size_of_val(&*headers.vlan);
    let network = match &headers.network {
        Network::Ipv4 { options, .. } => Ipv4Header::LENGTH + options.len(),
        Network::Ipv6 { extensions, .. } => Ipv6Header::LENGTH + extensions.len(),
        _ => return false,
    };
    let Transport::Tcp { header, .. } = &headers.transport else { return false };
    let start = ip + network + header.header_length();
    let has = start + data.len();
    let Ok(length) = u16::try_from(has - ip) else { return false };
    if has > had + room {
        return false;
    }
    match &mut headers.network {
        Network::Ipv4 { header, .. } => header.total_length.set(length),
        Network::Ipv6 { header, .. } => header.payload_length.set(length.saturating_sub(40)),
        _ => return false,
    }
    // What followed the packet in the frame goes, too.
    let fits = if has > had { packet.append(has - had).is_some() } else { packet.trim(had - has) };
    if let Some(place) = packet.data_mut().get_mut(start..) {
        place.copy_from_slice(data);
    }
    if let Ok(mut headers) = Headers::parse(packet.data_mut()) {
        headers.fill_checksums();
    }
    fits
}

/// Writes no-operations over SACK blocks: RFC 2018 section 3.
fn blank_selective_acknowledgments(options: &mut [u8], mut update: ChecksumUpdate) -> ChecksumUpdate {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const SACK: u8 = 5;
    let mut at = 0;
    loop {
        let length = match options.get(at..) {
            Some([NO_OPERATION, ..]) => 1,
            None | Some([END, ..] | [_, 0 | 1, ..] | [] | [_]) => return update,
            Some([_, length, ..]) => usize::from(*length),
        };
        if options.get(at) == Some(&SACK) {
            for (place, octet) in options.iter_mut().enumerate().skip(at).take(length) {
                // A checksum is over words from even places.
                let word = |octet| if place % 2 == 0 { u16::from_be_bytes([octet, 0]) } else { u16::from(octet) };
                update = update.replace_u16(word(*octet), word(NO_OPERATION));
                *octet = NO_OPERATION;
            }
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::testing::{Frame, lab};
    use std::net::{Ipv4Addr, Ipv6Addr};

    const CLIENT: u16 = 40_000;
    const SERVICE: u16 = 443;
    /// The header's length in each family.
    const FAMILIES: [(bool, u32); 2] = [(false, 28), (true, 52)];
    /// The number of the client's SYN, whose first byte is the last number before they begin again.
    const SYN: u32 = u32::MAX - 1;
    const ACK: TcpFlags = TcpFlags::ACK;
    const DATA: TcpFlags = TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0);
    const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    const RST_ACK: TcpFlags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);
    const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

    /// A segment of the client's, with a number behind its SYN's.
    fn client(v6: bool, behind: u32, flags: TcpFlags) -> Frame {
        let frame = if v6 {
            Frame::new().ipv6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2])
        } else {
            Frame::new().ipv4([192, 0, 2, 1], [10, 0, 0, 2]).dont_fragment()
        };
        let frame = frame.tcp(CLIENT, SERVICE).sequence_number(SYN.wrapping_add(behind)).flags(flags);
        if flags == TcpFlags::SYN { frame } else { frame.acknowledgment_number(777) }
    }

    /// A segment of the backend's, that acknowledges a number behind that of the client's SYN.
    fn backend(v6: bool, behind: u32, flags: TcpFlags) -> Frame {
        let frame = if v6 {
            Frame::new().ipv6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 2], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
        } else {
            Frame::new().ipv4([10, 0, 0, 2], [192, 0, 2, 1]).dont_fragment()
        };
        frame.tcp(SERVICE, CLIENT).sequence_number(776).acknowledgment_number(SYN.wrapping_add(behind)).flags(flags)
    }

    fn header(v6: bool) -> Header {
        let (source, destination): (IpAddr, IpAddr) = if v6 {
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into())
        } else {
            (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(203, 0, 113, 80).into())
        };
        Header::new((source, CLIENT), (destination, SERVICE)).unwrap()
    }

    /// As the specification draws it in section 2.2.
    fn header_bytes(v6: bool) -> Vec<u8> {
        let mut bytes = vec![0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21];
        if v6 {
            bytes.extend([0x21, 0, 36]);
            bytes.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
            bytes.extend(Ipv6Addr::LOCALHOST.octets());
        } else {
            bytes.extend([0x11, 0, 12, 192, 0, 2, 1, 203, 0, 113, 80]);
        }
        bytes.extend([0x9c, 0x40, 0x01, 0xbb]);
        bytes
    }

    /// One connection under test.
    struct Connection {
        introduction: Introduction,
        packet: Mbuf,
        other: Mbuf,
        v6: bool,
    }

    impl Connection {
        /// What goes to the backend when the client sends this.
        fn sends(&mut self, frame: &Frame) -> Vec<Vec<u8>> {
            assert!(self.packet.set_contents(&frame.build()));
            let step = self.introduction.of_client(&mut self.packet);
            match step {
                Step::Pass => vec![self.packet.data().to_vec()],
                Step::Replace => {
                    assert!(self.introduction.replace(&mut self.packet, &header(self.v6)));
                    vec![self.packet.data().to_vec()]
                }
                Step::Precede => {
                    assert!(self.introduction.precede(&mut self.packet, &header(self.v6), &mut self.other));
                    vec![self.other.data().to_vec(), self.packet.data().to_vec()]
                }
            }
        }

        /// What the client gets when the backend sends this.
        fn answers(&mut self, frame: &Frame) -> Vec<u8> {
            assert!(self.packet.set_contents(&frame.build()));
            self.introduction.of_backend(&mut self.packet);
            self.packet.data().to_vec()
        }
    }

    /// Runs a test in both families, on a connection whose SYN has passed.
    fn begun(test: impl Fn(&mut Connection, u32) + Send + Sync + 'static) {
        lab(move |lab| {
            for (v6, length) in FAMILIES {
                let (mut packet, other) = (lab.pool.alloc().unwrap(), lab.pool.alloc().unwrap());
                assert!(packet.set_contents(&client(v6, 0, TcpFlags::SYN).build()));
                let introduction = Introduction::begun_by(&mut packet).unwrap();
                let mut connection = Connection { introduction, packet, other, v6 };
                let syn = client(v6, 0, TcpFlags::SYN);
                let expected = client(v6, 0_u32.wrapping_sub(length), TcpFlags::SYN);
                // Each time that it comes.
                for _ in 0..2 {
                    assert_eq!(connection.sends(&syn), [expected.build()]);
                }
                test(&mut connection, length);
            }
        });
    }

    /// The segment with the header, made of one of the client's.
    fn introducing(v6: bool, length: u32) -> Frame {
        client(v6, 1_u32.wrapping_sub(length), DATA).payload(&header_bytes(v6))
    }

    #[test]
    fn a_header_is_as_the_specification_draws_it() {
        for v6 in [false, true] {
            assert_eq!(header(v6).bytes(), header_bytes(v6));
        }
        let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        assert_eq!(Header::new((v4, 1), (v6, 2)), None);
    }

    #[test]
    fn an_acknowledged_header_leaves_every_number_as_it_is() {
        begun(|connection, length| {
            let v6 = connection.v6;
            let syn_ack =
                connection.answers(&backend(v6, 1_u32.wrapping_sub(length), SYN_ACK).tcp_options(&TIMESTAMPS));
            assert_eq!(syn_ack, backend(v6, 1, SYN_ACK).tcp_options(&TIMESTAMPS).build());
            // Padded, as it comes over Ethernet.
            let ack = client(v6, 1, ACK).tcp_options(&TIMESTAMPS).pad_to(80);
            assert_eq!(connection.sends(&ack), [introducing(v6, length).tcp_options(&TIMESTAMPS).build()]);
            let data = client(v6, 1, DATA).payload(b"GET /");
            assert_eq!(connection.sends(&data), [data.build()]);
            let more = client(v6, 6, DATA).payload(b" HTTP/1.0");
            assert_eq!(connection.sends(&more), [more.build()]);
            assert!(!connection.introduction.is_over());
            let acknowledgment = backend(v6, 1, ACK);
            assert_eq!(connection.answers(&acknowledgment), acknowledgment.build());
            assert!(connection.introduction.is_over());
            // Whatever comes now.
            for frame in [data, client(v6, 1, ACK), client(v6, 0, TcpFlags::SYN)] {
                assert_eq!(connection.sends(&frame), [frame.build()]);
            }
            let blocks = backend(v6, 0, ACK).tcp_options(&[1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 20]);
            assert_eq!(connection.answers(&blocks), blocks.build());
        });
    }

    #[test]
    fn the_header_goes_before_the_first_byte_and_again_when_that_comes_again() {
        begun(|connection, length| {
            let v6 = connection.v6;
            let data = client(v6, 1, DATA).tcp_options(&TIMESTAMPS).payload(b"GET /");
            let both = [introducing(v6, length).tcp_options(&TIMESTAMPS).build(), data.build()];
            for _ in 0..3 {
                assert_eq!(connection.sends(&data), both);
            }
            // With an acknowledgment of its own before it, only from the second time on.
            let behind = client(v6, 6, ACK);
            assert_eq!(connection.sends(&behind), [behind.build()]);
        });
        begun(|connection, length| {
            let v6 = connection.v6;
            // That of a SYN that is asked for again.
            for _ in 0..2 {
                assert_eq!(connection.sends(&client(v6, 1, ACK)), [introducing(v6, length).build()]);
            }
            let fin = client(v6, 1, TcpFlags(TcpFlags::FIN.0 | ACK.0));
            assert_eq!(connection.sends(&fin), [fin.build()]);
            assert_eq!(connection.sends(&fin), [introducing(v6, length).build(), fin.build()]);
        });
    }

    #[test]
    fn a_backend_without_the_header_acknowledges_nothing_but_the_syn() {
        begun(|connection, length| {
            let v6 = connection.v6;
            let data = client(v6, 1, DATA).payload(b"GET /");
            connection.sends(&data);
            let place = 1_u32.wrapping_sub(length);
            // It has the data without the header: options, and what the client sees of them.
            let blocks = [5, 10, 0, 0, 0, 9, 0xab, 0xcd, 0xef, 20];
            for (before, behind) in [(&[1, 1][..], &[][..]), (&[1], &[0]), (&[], &[1, 1]), (&TIMESTAMPS, &[1, 0])] {
                let with = |blocks: &[u8]| [before, blocks, behind].concat();
                let answer = backend(v6, place, ACK).tcp_options(&with(&blocks));
                let expected = backend(v6, 1, ACK).tcp_options(&with(&[1; 10]));
                assert_eq!(connection.answers(&answer), expected.build());
            }
            // Half of the header, and what it cannot have got.
            assert_eq!(connection.answers(&backend(v6, place.wrapping_add(10), ACK)), backend(v6, 1, ACK).build());
            let nonsense = backend(v6, place.wrapping_sub(1), ACK);
            assert_eq!(connection.answers(&nonsense), nonsense.build());
            let refused = connection.answers(&backend(v6, place, RST_ACK));
            assert_eq!(refused, backend(v6, 1, RST_ACK).build());
            let reset = backend(v6, place, TcpFlags::RST);
            assert_eq!(connection.answers(&reset), reset.build(), "it acknowledges nothing");
            assert!(!connection.introduction.is_over());
        });
    }

    #[test]
    fn a_reset_has_the_number_that_the_backend_waits_for() {
        begun(|connection, length| {
            let v6 = connection.v6;
            let reset = client(v6, 1, TcpFlags::RST);
            assert_eq!(connection.sends(&reset), [client(v6, 1_u32.wrapping_sub(length), TcpFlags::RST).build()]);
            let reset = client(v6, 1, RST_ACK);
            assert_eq!(connection.sends(&reset), [introducing(v6, length).build(), reset.build()]);
            let elsewhere = client(v6, 100, TcpFlags::RST);
            assert_eq!(connection.sends(&elsewhere), [elsewhere.build()]);
        });
    }

    #[test]
    fn data_of_a_syn_is_cut_off_and_what_stands_before_the_first_byte_becomes_the_header() {
        begun(|connection, length| {
            let v6 = connection.v6;
            let syn = client(v6, 0, TcpFlags::SYN).payload(b"GET /").pad_to(100);
            let bare = client(v6, 0_u32.wrapping_sub(length), TcpFlags::SYN);
            assert_eq!(connection.sends(&syn), [bare.build()]);
            let keep_alive = client(v6, 0, ACK).payload(b"?");
            assert_eq!(connection.sends(&keep_alive), [introducing(v6, length).build()]);
            let another = client(v6, 5000, TcpFlags::SYN);
            assert_eq!(connection.sends(&another), [another.build()], "of another connection");
        });
    }

    #[test]
    fn what_is_not_sound_is_not_made_right() {
        begun(|connection, length| {
            let v6 = connection.v6;
            let mut frame = client(v6, 1, ACK).payload(b"GET /").build();
            *frame.last_mut().unwrap() ^= 1;
            assert!(connection.packet.set_contents(&frame));
            assert!(!connection.introduction.replace(&mut connection.packet, &header(v6)));
            assert!(!connection.introduction.precede(&mut connection.packet, &header(v6), &mut connection.other));
            assert_eq!(connection.packet.data(), frame);
            let mut syn = client(v6, 0, TcpFlags::SYN).payload(b"GET /").build();
            *syn.last_mut().unwrap() ^= 1;
            assert!(connection.packet.set_contents(&syn));
            assert_eq!(connection.introduction.of_client(&mut connection.packet), Step::Pass);
            assert_eq!(connection.packet.len(), syn.len(), "of length {length}");
            assert!(!is_sound(&mut connection.packet));
        });
    }

    #[test]
    fn nothing_but_a_syn_begins() {
        lab(|lab| {
            let mut packet = lab.pool.alloc().unwrap();
            for frame in [client(false, 1, ACK), Frame::new().ipv4([1; 4], [2; 4]).udp(1, 2)] {
                assert!(packet.set_contents(&frame.build()));
                assert_eq!(Introduction::begun_by(&mut packet), None);
            }
            let mut none = Introduction::default();
            assert!(packet.set_contents(&client(false, 0, TcpFlags::SYN).build()));
            assert_eq!(none.of_client(&mut packet), Step::Pass);
            none.of_backend(&mut packet);
            assert_eq!(packet.data(), client(false, 0, TcpFlags::SYN).build());
        });
    }
}
