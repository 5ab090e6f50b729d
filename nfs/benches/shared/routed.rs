//! Packets for a router to forward, and the neighbours that it forwards them to.
//!
//! Packets circulate through net_ring: what leaves by a port comes back by it. [`Around`] stands
//! around the router, where a NIC would be. At first neighbours say who they are, by requests of
//! ARP or Neighbor Discovery that the router answers. From then on every packet that leaves is
//! given the headers of the next one to come in there: other destination, hops, addresses.

use anyhow::{Context as _, ensure};
use dpdk_rs::Mbuf;
use nf_framework::headers::Headers;
use nf_framework::testing::Frame;
use nf_framework::{Batch, Budget, Context, Direction, DropReason, Forwarding, RouterConfig, Verdict};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Octets of a packet, without the checksum behind it.
pub(crate) const FRAME: usize = 64;
/// Next hops on each side.
const NEXT_HOPS: u32 = 4;

/// Where packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Destinations {
    /// Behind so many routes, through few next hops. Half of them are inside.
    V4(u32),
    V6(u32),
    /// To so many neighbours themselves.
    Neighbours(u32),
}

/// What packets come in on one side.
#[derive(Clone)]
pub(crate) struct Flow {
    frame: [u8; FRAME],
    /// Where the part of the destination stands that differs, and what makes up for it in checksums.
    place: usize,
    complements: [usize; 2],
    destinations: Arc<[Destination]>,
    hellos: Arc<[Vec<u8>]>,
    router: [u8; 6],
}

#[derive(Clone, Copy)]
struct Destination {
    part: [u8; 4],
    complement: [u8; 2],
}

impl Destination {
    fn new(part: u32) -> Self {
        let sum = (part >> 16) + (part & 0xffff);
        let sum = (sum & 0xffff) + (sum >> 16);
        let [.., high, low] = (!sum).to_be_bytes();
        Self { part: part.to_be_bytes(), complement: [high, low] }
    }
}

impl Flow {
    /// What one of the neighbours on this side says first.
    pub(crate) fn hello(&self, number: usize) -> Option<&[u8]> {
        self.hellos.get(number).map(Vec::as_slice)
    }

    /// Writes the headers of a packet.
    #[inline]
    pub(crate) fn write(&self, number: usize, to: &mut [u8]) {
        let (Some(to), Some(destination)) = (to.first_chunk_mut::<FRAME>(), self.destinations.get(number)) else {
            return;
        };
        *to = self.frame;
        to[self.place..self.place + 4].copy_from_slice(&destination.part);
        for place in self.complements {
            to[place..place + 2].copy_from_slice(&destination.complement);
        }
    }

    /// Makes a packet of the first of them out of one with anything in it.
    pub(crate) fn fill(&self, number: usize, packet: &mut Mbuf) -> bool {
        let fits = packet.set_contents(&self.frame);
        self.write(number % self.destinations.len().max(1), packet.data_mut());
        fits
    }

    /// Those of its packets that a worker has.
    pub(crate) fn only(&self, mut keep: impl FnMut(&mut [u8]) -> bool) -> Self {
        let mut frame = [0; FRAME];
        let kept = (0..self.destinations.len()).filter(|number| {
            self.write(*number, &mut frame);
            keep(&mut frame)
        });
        Self { destinations: kept.map(|number| self.destinations[number]).collect(), ..self.clone() }
    }

    fn verify(&self) -> anyhow::Result<()> {
        for number in [0, 1, self.destinations.len() - 1] {
            let mut frame = [0; FRAME];
            self.write(number, &mut frame);
            let headers = Headers::parse(&mut frame).context("frames to be routed")?;
            headers.verify_checksums().context("frames to be routed")?;
        }
        Ok(())
    }
}

/// A router and its traffic, by side: inside, outside.
#[derive(Clone)]
pub(crate) struct Routed {
    pub(crate) config: RouterConfig,
    pub(crate) flows: [Flow; 2],
}

const SIDES: [(u32, &str, Direction); 2] = [(0, "inside", Direction::Outbound), (1, "outside", Direction::Inbound)];

pub(crate) fn own_v4(side: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0001 | (side << 16))
}

pub(crate) fn own_v6(side: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(side) << 80 | 1)
}

/// A neighbour on a side, and its MAC address.
pub(crate) fn neighbour_v4(side: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((0x0a00_0200 + number) | (side << 16))
}

pub(crate) fn neighbour_v6(side: u32, number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(own_v6(side).to_bits() + 0x1_0000 + u128::from(number))
}

pub(crate) fn mac(side: u32, number: u32) -> [u8; 6] {
    let [.., high, low] = number.to_be_bytes();
    [2, 0, 0, u8::from(side == 1), high, low]
}

/// What a neighbour says so that the router knows it: it asks for the router's address.
pub(crate) fn hello(v4: bool, side: u32, number: u32) -> Vec<u8> {
    let mac = mac(side, number);
    if v4 {
        return Frame::new().ethernet(mac, [0xff; 6]).arp_request(neighbour_v4(side, number), own_v4(side)).build();
    }
    Frame::new().ethernet(mac, [0xff; 6]).neighbour_solicitation(neighbour_v6(side, number), own_v6(side)).build()
}

/// The routes' places, far from each other and in no order.
fn scattered(number: u32) -> u32 {
    const PLACES: u32 = 1 << 17;
    number.wrapping_mul(0x9e37_79b1) % PLACES
}

impl Routed {
    /// For a router with these MAC addresses.
    pub(crate) fn new(to: Destinations, router: [[u8; 6]; 2]) -> anyhow::Result<Self> {
        let v4 = !matches!(to, Destinations::V6(_));
        let mut text = "[neighbours]\nnew_per_second = 1048576\nanswers_per_second = 1048576\n".to_owned();
        for (side, name, _) in SIDES {
            let own = if v4 { format!("{}/16", own_v4(side)) } else { format!("{}/64", own_v6(side)) };
            writeln!(text, "[interfaces.{name}]\nside = \"{name}\"\naddresses = [\"{own}\"]")?;
        }
        // By side: the parts of destinations there.
        let mut parts: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
        let mut neighbours = NEXT_HOPS;
        match to {
            Destinations::V4(routes) => {
                for number in 0..routes {
                    let (side, network) = (number >> 3 & 1, 0x2000_0000 + (scattered(number) << 12));
                    let length = [24, 24, 24, 24, 24, 22, 20, 28][number as usize % 8];
                    let via = neighbour_v4(side, number >> 4 & (NEXT_HOPS - 1));
                    writeln!(text, "[[routes]]\nto = \"{}/{length}\"\nvia = \"{via}\"", Ipv4Addr::from_bits(network))?;
                    parts[side as usize].push(network + 5);
                }
            }
            Destinations::V6(routes) => {
                for number in 0..routes {
                    let (side, part) = (number >> 3 & 1, scattered(number) << 15);
                    let length = [48, 48, 48, 48, 48, 40, 44, 64][number as usize % 8];
                    let network = Ipv6Addr::from_bits(0x2a00_u128 << 112 | u128::from(part) << 80);
                    let via = neighbour_v6(side, number >> 4 & (NEXT_HOPS - 1));
                    writeln!(text, "[[routes]]\nto = \"{network}/{length}\"\nvia = \"{via}\"")?;
                    parts[side as usize].push(part);
                }
            }
            Destinations::Neighbours(count) => {
                neighbours = count / 2;
                for (side, ..) in SIDES {
                    // An odd step through a power of two.
                    let numbers = (0..neighbours).map(|number| number.wrapping_mul(0x9e37_79b1) % neighbours);
                    parts[side as usize] = numbers.map(|number| neighbour_v4(side, number).to_bits()).collect();
                }
            }
        }
        let config = toml::from_str(&text).context("the router's configuration")?;
        let flow = |side: u32| {
            let source = Frame::new().ethernet(mac(side, 0), router[side as usize]);
            let (built, place, complements) = if v4 {
                let frame = source.ipv4(neighbour_v4(side, 0), [0; 4]).identification(0).udp(1000, 443);
                (frame.payload(&[0; FRAME - 42]).build(), 30, [18, 42])
            } else {
                let far = Ipv6Addr::from_bits(0x2a00_u128 << 112 | 5);
                let frame = source.ipv6(neighbour_v6(side, 0), far).udp(1000, 443);
                (frame.payload(&[0; FRAME - 62]).build(), 40, [62, 62])
            };
            let mut frame = [0; FRAME];
            frame.copy_from_slice(&built);
            let destinations = parts[1 - side as usize].iter().copied().map(Destination::new).collect();
            let hellos = (0..neighbours).map(|number| hello(v4, side, number)).collect();
            Flow { frame, place, complements, destinations, hellos, router: router[side as usize] }
        };
        let flows = [flow(0), flow(1)];
        for flow in &flows {
            ensure!(!flow.destinations.is_empty(), "no destinations");
            flow.verify()?;
        }
        Ok(Self { config, flows })
    }
}

/// What is done with packets that leave, when they have their next headers.
pub(crate) trait Keep: 'static {
    /// Of the packets that come in on this side: 0 is inside.
    fn exchange(&mut self, side: usize, packet: &mut Mbuf);
}

/// Nothing.
impl Keep for () {
    #[inline]
    fn exchange(&mut self, _: usize, _: &mut Mbuf) {}
}

/// Packets that go round on each side at least once before the router sees any.
const FRESH: usize = 2048;

/// Stands around what forwards.
pub(crate) struct Around<K> {
    inner: Box<dyn Forwarding>,
    sides: [Side; 2],
    keep: K,
    /// Whether there are neighbours that say who they are.
    speaks: bool,
    /// Whether the router knows its links, as it does from its first tick on.
    ticked: bool,
    /// Whether it knows its neighbours.
    ready: bool,
    /// Whether the time of the router stands still from then on.
    still: bool,
}

struct Side {
    flow: Flow,
    next: usize,
    said: usize,
    answered: usize,
    fresh: usize,
}

impl Side {
    #[inline]
    fn number(&mut self) -> usize {
        let number = self.next;
        self.next = if number + 1 == self.flow.destinations.len() { 0 } else { number + 1 };
        number
    }

    fn is_ready(&self) -> bool {
        self.fresh >= FRESH && self.answered >= self.flow.hellos.len()
    }
}

impl<K: Keep> Around<K> {
    /// `speaks`: whether there are neighbours that say who they are, as a router needs them.
    pub(crate) fn new(inner: Box<dyn Forwarding>, flows: &[Flow; 2], speaks: bool, keep: K) -> Self {
        let side = |flow: &Flow| {
            // Without a router they have spoken.
            let spoken = if speaks { 0 } else { flow.hellos.len() };
            Side { flow: flow.clone(), next: 0, said: spoken, answered: spoken, fresh: 0 }
        };
        Self {
            inner,
            sides: [side(&flows[0]), side(&flows[1])],
            keep,
            speaks,
            ticked: false,
            ready: false,
            still: false,
        }
    }

    /// The same, with a router that no more ticks reach once it knows its neighbours. They do not answer, so it
    /// would ask and forget them, and what that takes of each packet goes by how slow the machine is.
    #[allow(dead_code, reason = "what is timed is to have its ticks")]
    pub(crate) fn still(self) -> Self {
        Self { still: true, ..self }
    }

    /// Neighbours speak; everything else goes back to where it came from.
    #[cold]
    fn introduce(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let back = Verdict::Send(cx.port_towards(cx.direction().reversed()));
        let side = &mut self.sides[of(cx.direction())];
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let to = packet.data().first_chunk::<6>().copied().unwrap_or_default();
            if to[0] & 1 == 1 {
                // What the router itself has announced, from a pool that goes with it.
                batch.decide(slot, Verdict::Drop(DropReason::POLICY));
                continue;
            }
            side.answered += usize::from(to != side.flow.router);
            if self.ticked
                && let Some(hello) = side.flow.hellos.get(side.said)
            {
                side.said += 1;
                assert!(packet.set_contents(hello), "a packet has no room for a hello");
                continue;
            }
            let number = side.number();
            assert!(side.flow.fill(number, packet), "a packet has no room for a frame");
            side.fresh += 1;
            batch.decide(slot, back);
        }
        self.inner.ingress(batch, cx);
        self.ready = self.ticked && self.sides.iter().all(Side::is_ready);
    }
}

fn of(direction: Direction) -> usize {
    usize::from(direction == Direction::Inbound)
}

impl<K: Keep> Forwarding for Around<K> {
    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if !self.ready {
            return self.introduce(batch, cx);
        }
        // As drivers do, and a router itself: else a base would wait for each of them when it is written.
        if !self.speaks {
            batch.prefetch();
        }
        self.inner.ingress(batch, cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let slots = batch.undecided();
        self.inner.egress(batch, cx);
        if !self.ready {
            return;
        }
        let sent = Verdict::Send(cx.exit());
        let index = of(cx.direction().reversed());
        let side = &mut self.sides[index];
        for slot in slots {
            if batch.verdict(slot) != sent {
                continue;
            }
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let number = side.number();
            side.flow.write(number, packet.data_mut());
            self.keep.exchange(index, packet);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.ticked = true;
        if !(self.still && self.ready) {
            self.inner.tick(cx, budget);
        }
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        self.inner.stop(cx);
    }

    fn held(&self) -> usize {
        self.inner.held()
    }
}
