//! An IPv4 packet that is longer than its next link takes, as fragments.

use super::behind_tags;
use crate::headers::{EtherType, Ipv4Header, checksum};
use dpdk_rs::Mbuf;
use std::ops::Range;
use zerocopy::{FromBytes, IntoBytes};

/// Why a packet is not split.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Routers do not split other packets (RFC 8200 section 4.5), or its lengths cannot be believed.
    #[error("it is not an IPv4 packet that can be read")]
    NotIpv4,
    /// Its sender forbids it, and is to be told the MTU (RFC 1191).
    #[error("the packet's sender forbids that it is split")]
    DontFragment,
    /// Not even its headers and 8 octets fit.
    #[error("an MTU of {mtu} octets is too little for a header of {header} octets and 8 of the packet")]
    Mtu {
        /// As asked.
        mtu: usize,
        /// Octets in the packet's header.
        header: usize,
    },
    /// There was no packet to write a fragment into, or it was too small.
    #[error("there is no packet for another fragment, or it has no room for it")]
    NoPacket,
}

/// Writes the IPv4 packet in a frame as fragments of at most `mtu` octets, each with a copy of the
/// frame's Ethernet header and tags and of what is known of the packet, and returns how many. A
/// fragment is split like a whole packet (RFC 791 section 3.2); the identification stays the
/// packet's own (RFC 6864). Padding behind the packet goes.
///
/// Packets come from `allocate`, empty, and go to `to`, in order. What `packet` itself is good for
/// afterwards is the caller's matter.
///
/// # Errors
///
/// [`SplitError`]; only [`SplitError::NoPacket`] may come after some fragments have gone.
pub fn split_ipv4(
    packet: &Mbuf,
    mtu: usize,
    mut allocate: impl FnMut() -> Option<Mbuf>,
    mut to: impl FnMut(Mbuf),
) -> Result<usize, SplitError> {
    let frame = packet.data();
    let split = Split::new(frame, mtu)?;
    let mut count = 0;
    for Part { header, data } in split {
        let mut fragment = allocate().ok_or(SplitError::NoPacket)?;
        let data = frame.get(data).ok_or(SplitError::NotIpv4)?;
        for bytes in [split.ethernet, header.bytes(), data] {
            fragment.append(bytes.len()).ok_or(SplitError::NoPacket)?.copy_from_slice(bytes);
        }
        fragment.set_port(packet.port());
        fragment.set_annotation(packet.annotation());
        to(fragment);
        count += 1;
    }
    Ok(count)
}

/// Octets behind the header of the longest packet that fragments can make.
const LONGEST: usize = u16::MAX as usize;

/// The parts of a packet that are still to come.
#[derive(Clone, Copy, Debug)]
struct Split<'a> {
    /// Ethernet header and tags.
    ethernet: &'a [u8],
    /// Of the part that comes next.
    header: Header,
    /// For the parts behind the first: with the options that go into every fragment.
    later: Header,
    mtu: usize,
    /// Where in the frame the data is that is left.
    next: usize,
    end: usize,
    /// Whether fragments follow that are not of this packet.
    more: bool,
}

/// One fragment.
#[derive(Debug)]
struct Part {
    header: Header,
    /// Where in the frame its data is.
    data: Range<usize>,
}

/// A header with options.
#[derive(Clone, Copy, Debug)]
struct Header {
    fixed: Ipv4Header,
    bytes: [u8; 60],
    length: usize,
}

const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

impl<'a> Split<'a> {
    fn new(frame: &'a [u8], mtu: usize) -> Result<Self, SplitError> {
        let (ether_type, _, start) = behind_tags(frame).ok_or(SplitError::NotIpv4)?;
        let (ethernet, rest) = frame.split_at_checked(start).ok_or(SplitError::NotIpv4)?;
        let (fixed, _) = Ipv4Header::ref_from_prefix(rest).map_err(|_| SplitError::NotIpv4)?;
        let (length, total) = (fixed.header_length(), usize::from(fixed.total_length.get()));
        let sound = ether_type == EtherType::IPV4
            && fixed.version() == 4
            && (Ipv4Header::LENGTH..=total).contains(&length)
            && total <= rest.len()
            // Else its parts would come to stand before it (RFC 791 section 3.1).
            && usize::from(fixed.fragment_offset()) + total - length <= LONGEST;
        let options = rest.get(Ipv4Header::LENGTH..length).filter(|_| sound).ok_or(SplitError::NotIpv4)?;
        if fixed.dont_fragment() {
            return Err(SplitError::DontFragment);
        }
        if mtu < length + 8 {
            return Err(SplitError::Mtu { mtu, header: length });
        }
        let header = Header::new(*fixed, options);
        let later = Header::of_later(*fixed, options);
        let more = fixed.more_fragments();
        Ok(Self { ethernet, header, later, mtu, next: start + length, end: start + total, more })
    }
}

impl Iterator for Split<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if self.next >= self.end {
            return None;
        }
        let room = self.mtu - self.header.length;
        let left = self.end - self.next;
        let is_last = left <= room;
        let length = if is_last { left } else { room & !7 };
        let data = self.next..self.next + length;
        self.next = data.end;
        let mut header = std::mem::replace(&mut self.header, self.later);
        let place = header.fixed.flags_and_fragment_offset.get();
        // The units of 8 octets behind this part; what is longer than a packet can be is no packet.
        let behind = (place & OFFSET).wrapping_add(u16::try_from(length / 8).unwrap_or(OFFSET)) & OFFSET;
        self.header.fixed.flags_and_fragment_offset.set(place & !(OFFSET | MORE) | behind);
        let more = if is_last && !self.more { 0 } else { MORE };
        header.finish(place & !MORE | more, length);
        Some(Part { header, data })
    }
}

impl Header {
    /// `options` are at most 40 octets, as all are.
    fn new(fixed: Ipv4Header, options: &[u8]) -> Self {
        let mut bytes = [0; 60];
        bytes[Ipv4Header::LENGTH..].iter_mut().zip(options).for_each(|(to, from)| *to = *from);
        Self { fixed, bytes, length: Ipv4Header::LENGTH + options.len() }
    }

    /// With those options that say that they are to be copied (RFC 791 section 3.1), filled up with
    /// zeros to whole words. Behind one whose length cannot be believed there are no others.
    fn of_later(fixed: Ipv4Header, options: &[u8]) -> Self {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const COPIED: u8 = 0x80;
        let (mut kept, mut length, mut rest) = ([0; 40], 0, options);
        while let Some((&kind, behind)) = rest.split_first() {
            let octets = match (kind, behind.first()) {
                (END, _) => break,
                (NO_OPERATION, _) => 1,
                (_, Some(octets)) if *octets >= 2 => usize::from(*octets),
                _ => break,
            };
            let Some((option, after)) = rest.split_at_checked(octets) else { break };
            if kind & COPIED != 0
                && let Some(place) = kept.get_mut(length..length + octets)
            {
                place.copy_from_slice(option);
                length += octets;
            }
            rest = after;
        }
        Self::new(fixed, kept.get(..length.next_multiple_of(4)).unwrap_or(&kept))
    }

    /// Fills in what is this fragment's own.
    fn finish(&mut self, place: u16, data: usize) {
        let Self { fixed, bytes, length } = self;
        fixed.flags_and_fragment_offset.set(place);
        fixed.version_and_header_length = 0x40 | u8::try_from(*length / 4).unwrap_or(15);
        fixed.total_length.set(u16::try_from(*length + data).unwrap_or(u16::MAX));
        let options = bytes.get(Ipv4Header::LENGTH..*length).unwrap_or_default();
        fixed.header_checksum.set(checksum::ipv4_header(fixed, options));
        bytes[..Ipv4Header::LENGTH].copy_from_slice(fixed.as_bytes());
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;
    use crate::testing::{Frame, Lab, lab};
    use crate::{Annotation, Ports};
    use proptest::prelude::*;

    const A: [u8; 4] = [192, 0, 2, 1];
    const B: [u8; 4] = [198, 51, 100, 1];

    fn numbers(count: usize) -> Vec<u8> {
        (0..=255).cycle().take(count).collect()
    }

    /// The fragments of a frame as bytes.
    fn split(lab: &Lab<'_>, frame: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, SplitError> {
        let mut packet = lab.pool.alloc().unwrap();
        assert!(packet.set_contents(frame));
        let mut fragments = Vec::new();
        let count = split_ipv4(&packet, mtu, || lab.pool.alloc(), |fragment| fragments.push(fragment.data().to_vec()))?;
        assert_eq!(count, fragments.len());
        Ok(fragments)
    }

    #[test]
    fn n17_what_may_be_split_is_as_a_sender_with_that_mtu_would_have_sent_it() {
        lab(|lab| {
            let udp = || Frame::new().ipv4(A, B).identification(0x1234).udp(1000, 53).payload(&numbers(500));
            // description, packet, MTU, octets of data in each fragment but the last
            for (description, packet, mtu, size) in [
                ("UDP", udp(), 300, 280),
                ("a room that is no multiple of 8", udp(), 299, 272),
                ("the least MTU", udp(), 68, 48),
                ("8 octets at a time", udp(), 28, 8),
                ("TCP behind two tags", udp().service_vlan(5).vlan(6).tcp(1, 2), 200, 176),
                ("another hop count and class", udp().time_to_live(3).traffic_class(0xb9), 300, 280),
                ("padding is not carried on", Frame::new().ipv4(A, B).udp(1, 2).payload(&[1; 20]).pad_to(80), 44, 24),
            ] {
                // The builder of the tests fragments as well, and shares nothing with this.
                let expected: Vec<Vec<u8>> = packet.clone().pad_to(0).build_fragments(size);
                assert_eq!(split(lab, &packet.build(), mtu), Ok(expected), "{description}");
            }
        });
    }

    #[test]
    fn a_fragment_is_split_where_it_stands() {
        lab(|lab| {
            let packet = Frame::new().ipv4(A, B).identification(9).udp(1000, 53).payload(&numbers(500));
            let small = packet.build_fragments(80);
            let large = packet.build_fragments(240);
            let split: Vec<_> = large.iter().flat_map(|fragment| split(lab, fragment, 100).unwrap()).collect();
            assert_eq!(split, small);
        });
    }

    #[test]
    fn options_are_copied_as_they_ask_and_the_first_fragment_has_all() {
        lab(|lab| {
            const STAMP: [u8; 4] = [68, 4, 5, 0];
            const SECURITY: [u8; 4] = [130, 4, 7, 8];
            const ALERT: [u8; 4] = [148, 4, 0, 0];
            // description, options, those of later fragments
            for (description, options, later) in [
                ("not copied", &[STAMP][..].concat(), vec![]),
                ("copied", &ALERT.to_vec(), ALERT.to_vec()),
                ("one of three", &[STAMP, SECURITY, STAMP].concat(), SECURITY.to_vec()),
                ("behind fillers", &[&[1, 1, 1, 1][..], &SECURITY, &ALERT].concat(), [SECURITY, ALERT].concat()),
                ("filled up", &vec![131, 3, 4, 0], vec![131, 3, 4, 0]),
                (
                    "an odd length is filled up",
                    &[&[1, 131, 7, 4, 1, 2, 3][..], &[4, 0]].concat(),
                    vec![131, 7, 4, 1, 2, 3, 4, 0],
                ),
                ("behind the end there is nothing", &[&[0, 0, 0, 0][..], &ALERT].concat(), vec![]),
                ("a length that leads nowhere", &[&ALERT[..], &[130, 40, 0, 0]].concat(), ALERT.to_vec()),
                ("a length of 0", &[&[130, 0, 0, 0][..], &ALERT].concat(), vec![]),
                ("forty octets", &ALERT.repeat(10), ALERT.repeat(10)),
            ] {
                let packet = Frame::new().ipv4(A, B).ipv4_options(options).udp(1, 2).payload(&numbers(100));
                let mut fragments = split(lab, &packet.build(), 84).unwrap();
                assert!(fragments.len() > 1);
                for (number, fragment) in fragments.iter_mut().enumerate() {
                    let headers = Headers::parse(fragment).unwrap();
                    assert_eq!(headers.verify_checksums(), Ok(()), "{description}");
                    let crate::headers::Network::Ipv4 { options: found, .. } = headers.network else { panic!() };
                    let padded = [&options[..], &[0; 3]].concat()[..options.len().next_multiple_of(4)].to_vec();
                    assert_eq!(found.to_vec(), if number == 0 { padded } else { later.clone() }, "{description}");
                }
            }
        });
    }

    #[test]
    fn what_is_not_split_says_why() {
        lab(|lab| {
            let packet = || Frame::new().ipv4(A, B).udp(1, 2).payload(&[0; 100]);
            let mut long = packet().build();
            long[14 + 2] = 0x40;
            let mut version = packet().build();
            version[14] = 0x65;
            let mut header = packet().build();
            header[14] = 0x44;
            for (description, frame, mtu, error) in [
                ("do not fragment", packet().dont_fragment().build(), 68, SplitError::DontFragment),
                ("IPv6", Frame::new().ipv6([0; 16], [0; 16]).udp(1, 2).build(), 1280, SplitError::NotIpv4),
                ("ARP", Frame::new().arp_request(A, B).build(), 68, SplitError::NotIpv4),
                ("half an Ethernet header", vec![0; 9], 68, SplitError::NotIpv4),
                ("half an IPv4 header", packet().build()[..30].to_vec(), 68, SplitError::NotIpv4),
                ("a length beyond the frame", long, 68, SplitError::NotIpv4),
                ("another version", version, 68, SplitError::NotIpv4),
                ("a header that is none", header, 68, SplitError::NotIpv4),
                ("an MTU below 28", packet().build(), 27, SplitError::Mtu { mtu: 27, header: 20 }),
                (
                    "an MTU below its options",
                    packet().ipv4_options(&[1; 40]).build(),
                    67,
                    SplitError::Mtu { mtu: 67, header: 60 },
                ),
            ] {
                assert_eq!(split(lab, &frame, mtu), Err(error), "{description}");
            }
            let mut source = lab.pool.alloc().unwrap();
            assert!(source.set_contents(&packet().build()));
            let (mut two, mut went) = ([lab.pool.alloc(), lab.pool.alloc()].into_iter().flatten(), 0);
            let few = || two.next();
            assert_eq!(split_ipv4(&source, 68, few, |_| went += 1), Err(SplitError::NoPacket));
            assert_eq!(went, 2, "those that there were packets for");
            let full = || {
                let mut packet = lab.pool.alloc()?;
                let all = packet.tailroom();
                packet.append(all).map(drop)?;
                Some(packet)
            };
            assert_eq!(split_ipv4(&source, 68, full, |_| panic!("it is full")), Err(SplitError::NoPacket));
        });
    }

    #[test]
    fn what_is_known_of_a_packet_is_known_of_its_fragments() {
        lab(|lab| {
            let mut packet = lab.pool.alloc().unwrap();
            assert!(packet.set_contents(&Frame::new().ipv4(A, B).udp(1, 2).payload(&[0; 100]).build()));
            packet.set_port(dpdk_rs::PortId(7));
            let known = Annotation {
                ports: Some(Ports::Both(1, 2)),
                next_hop: Some(crate::NextHop(3)),
                ..Annotation::default()
            };
            known.write(&mut packet);
            let check = |fragment: Mbuf| assert_eq!((fragment.port().0, Annotation::of(&fragment)), (7, known));
            assert_eq!(split_ipv4(&packet, 68, || lab.pool.alloc(), check), Ok(3));
        });
    }

    proptest! {
        #[test]
        fn any_packet_is_whole_again_when_its_fragments_are_put_together(
            length in 9_usize..1400,
            mtu in 84_usize..700,
            options in prop::collection::vec(any::<u8>(), 0..=40),
            offset in 0_u16..100,
            more in any::<bool>(),
        ) {
            let length = if more { length.next_multiple_of(8) } else { length };
            let of = Frame::new().ipv4(A, B).ipv4_options(&options).protocol(17).payload(&numbers(length));
            let frame = of.fragment(8 * offset, more).build();
            lab(move |lab| {
                let fragments = split(lab, &frame, mtu).unwrap();
                let mut together = vec![None; length];
                let ends: Vec<bool> = fragments.iter().map(|fragment| {
                    let (header, packet) = (usize::from(fragment[14] & 15) * 4, &fragment[14..]);
                    assert!(packet.len() <= mtu);
                    assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
                    let sum: u32 = packet[..header].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
                    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
                    let place = u16::from_be_bytes([packet[6], packet[7]]);
                    let from = usize::from(place & 0x1fff) * 8 - 8 * usize::from(offset);
                    for (octet, to) in packet[header..].iter().zip(&mut together[from..]) {
                        assert_eq!(to.replace(*octet), None, "twice");
                    }
                    place & 0x2000 != 0
                }).collect();
                assert_eq!(together, numbers(length).into_iter().map(Some).collect::<Vec<_>>());
                assert!(ends[..ends.len() - 1].iter().all(|more| *more) && ends.last() == Some(&more));
            });
        }
    }
}
