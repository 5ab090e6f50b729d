//! What a router is flooded with: packets that differ in whom they are from, or in whom they are to.

use crate::routed::{FRAME, hello, mac, neighbour_v4, neighbour_v6, own_v4, own_v6};
use anyhow::{Context as _, ensure};
use dpdk_rs::Mbuf;
use nf_framework::headers::Headers;
use nf_framework::testing::Frame;

/// How many different packets there are: that many neighbours have room in an IPv4 interface's prefix.
const PACKETS: u32 = 0xf000;
/// The first neighbour that is none of the next hops.
const FIRST: u32 = 8;

/// One flood, that comes in at the inside of a router.
#[derive(Clone)]
pub(crate) struct Flood {
    frame: Vec<u8>,
    /// Where the end of the address stands that differs, and where what makes up for it in checksums.
    place: usize,
    makes_up: &'static [usize],
}

impl Flood {
    /// Requests of ARP for the router's address, each from another neighbour.
    pub(crate) fn arp_requests() -> Self {
        let frame = Frame::new().ethernet(mac(0, 0), [0xff; 6]).arp_request(neighbour_v4(0, FIRST), own_v4(0));
        Self { frame: frame.pad_to(60).build(), place: 28, makes_up: &[] }
    }

    /// Neighbor solicitations for the router's address, each from another neighbour.
    pub(crate) fn solicitations() -> Self {
        Self { frame: hello(false, 0, FIRST), place: 34, makes_up: &[58] }
    }

    /// Neighbor advertisements that nobody asked for, each about another neighbour.
    pub(crate) fn advertisements(router: [u8; 6]) -> Self {
        let about = [&neighbour_v6(0, FIRST).octets()[..], &[2, 1], &mac(0, 0)].concat();
        let frame = Frame::new().ethernet(mac(0, 0), router).ipv6(neighbour_v6(0, FIRST), own_v6(0)).hop_limit(255);
        // Solicited, and in place of what is known.
        let frame = frame.icmpv6(136, 0, [0x60, 0, 0, 0]).payload(&about);
        Self { frame: frame.build(), place: 74, makes_up: &[60] }
    }

    /// No flood, but what a router is there for: packets to a neighbour outside.
    pub(crate) fn to_neighbour_v4(router: [u8; 6]) -> Self {
        let frame = Frame::new().ethernet(mac(0, 0), router).ipv4(neighbour_v4(0, FIRST), neighbour_v4(1, 0));
        let frame = frame.identification(0).udp(1000, 443).payload(&[0; 18]);
        Self { frame: frame.build(), place: 26, makes_up: &[18, 42] }
    }

    /// Packets to neighbours outside that there are not, each to another.
    pub(crate) fn to_nobody_v4(router: [u8; 6]) -> Self {
        let frame = Frame::new().ethernet(mac(0, 0), router).ipv4(neighbour_v4(0, FIRST), neighbour_v4(1, FIRST));
        let frame = frame.identification(0).udp(1000, 443).payload(&[0; 18]);
        Self { frame: frame.build(), place: 30, makes_up: &[18, 42] }
    }

    /// The same of IPv6.
    pub(crate) fn to_nobody_v6(router: [u8; 6]) -> Self {
        let frame = Frame::new().ethernet(mac(0, 0), router).ipv6(neighbour_v6(0, FIRST), neighbour_v6(1, FIRST));
        Self { frame: frame.udp(1000, 443).payload(&[0; 8]).build(), place: 50, makes_up: &[62] }
    }

    /// Fragments for a neighbour outside, each of another packet from another neighbour: first ones, or
    /// later ones.
    pub(crate) fn fragments_v4(router: [u8; 6], first: bool) -> Self {
        let frame = Frame::new().ethernet(mac(0, 0), router).ipv4(neighbour_v4(0, FIRST), neighbour_v4(1, 0));
        let frame = frame.identification(0).udp(1000, 443).payload(&[0; 32]);
        Self { frame: frame.build_fragments(24).swap_remove(usize::from(!first)), place: 26, makes_up: &[18] }
    }

    /// The same of IPv6.
    pub(crate) fn fragments_v6(router: [u8; 6], first: bool) -> Self {
        let frame = Frame::new().ethernet(mac(0, 0), router).ipv6(neighbour_v6(0, FIRST), neighbour_v6(1, 0));
        let frame = frame.identification(0).udp(1000, 443).payload(&[0; 32]);
        Self { frame: frame.build_fragments(24).swap_remove(usize::from(!first)), place: 34, makes_up: &[60] }
    }

    /// Makes one of its packets out of one with anything in it.
    pub(crate) fn fill(&self, number: usize, packet: &mut Mbuf) -> bool {
        let fits = packet.set_contents(&self.frame);
        self.vary(number, packet.data_mut());
        fits
    }

    fn vary(&self, number: usize, frame: &mut [u8]) {
        #[allow(clippy::cast_possible_truncation, reason = "less than the number of packets")]
        let number = (number % PACKETS as usize) as u32;
        let Some(place) = frame.get_mut(self.place..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
        let before = u32::from_be_bytes(*place);
        let after = before.wrapping_add(number);
        *place = after.to_be_bytes();
        let sum = |part: u32| (part >> 16) + (part & 0xffff);
        // The difference as checksums reckon, modulo 2^16 - 1.
        let difference = sum(before) + 2 * 0xffff - sum(after);
        let [.., high, low] = sum(sum(difference)).to_be_bytes();
        for place in self.makes_up {
            frame[*place..place + 2].copy_from_slice(&[high, low]);
        }
    }

    /// Whether its packets are what they are to be, and of another length than those that are forwarded.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.frame.len() != FRAME, "a flood of packets as long as others");
        for number in [0, 1, PACKETS as usize - 1] {
            let mut frame = self.frame.clone();
            self.vary(number, &mut frame);
            let headers = Headers::parse(&mut frame).context("a flood's packets")?;
            headers.verify_checksums().context("a flood's packets")?;
        }
        Ok(())
    }
}
