//! Where packets of many flows come from, and how they become whole again.
//!
//! At either end of the chain stands an [`End`], which writes headers of the flow that is next
//! into packets. On net_ring it does so as they leave, when the function between has brought
//! their line into the cache anyway: what leaves by a port comes back by it, the same packet,
//! with what was written. On net_null it does so as they arrive, which leaves their headers hot.
//!
//! net_ring's own rings hold a thousand packets each, all of which stay in cache. More of them
//! come into rotation by a store at each end: for each packet that leaves another one goes, the
//! one that has been there longest, and so it is as cold as from a NIC with long rings.

use crate::ours::{RING, made, start_ports, stop_ports};
use crate::statistics::Random;
use crate::testpmd::DESCRIPTORS;
use anyhow::{Context as _, ensure};
use dpdk_rs::{Burst, Eal, Mbuf, Mempool, MempoolConfig};
use nf_framework::headers::Headers;
use nf_framework::testing::Frame;
use nf_framework::{Affinity, Batch, Budget, Context, Direction, Loaded, NetworkFunction};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// Octets of a packet, without the checksum behind it.
pub(crate) const FRAME: usize = 64;
const SERVER: [u8; 4] = [192, 0, 2, 1];
const SERVICE: u16 = 443;

/// Flow `number`'s client: an address in 10/8, and a port. Up to 2^22 of them share the half of the
/// address that frames do not change.
pub(crate) fn client(number: u32) -> ([u8; 4], u16) {
    let low = number >> 6;
    let port = 1024 + (number & 63) * 997;
    ((0x0a00_0000 | low).to_be_bytes(), u16::try_from(port).unwrap_or(u16::MAX))
}

/// What flow `number` is known by, in both directions.
pub(crate) type Key = [u8; 16];

pub(crate) fn key(number: u32) -> Key {
    let (address, port) = client(number);
    key_of(address, SERVER, port, SERVICE)
}

/// The key of these addresses and ports, of inside and outside.
#[inline]
pub(crate) fn key_of(inside: [u8; 4], outside: [u8; 4], inside_port: u16, outside_port: u16) -> Key {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&inside);
    key[4..8].copy_from_slice(&outside);
    key[8..10].copy_from_slice(&inside_port.to_be_bytes());
    key[10..12].copy_from_slice(&outside_port.to_be_bytes());
    key[12] = 17;
    key
}

/// Which flows packets are of, in what order: all of them once, in an order that no prefetcher
/// guesses, and again.
#[derive(Clone)]
pub(crate) enum Flows {
    /// So many, a power of two up to 2^22.
    All(u32),
    /// Those on a list, whose length is a power of two.
    Listed(Arc<[u32]>),
}

impl Flows {
    #[inline]
    fn nth(&self, position: u32) -> u32 {
        match self {
            Self::All(count) => permuted(position, *count),
            Self::Listed(list) => list[permuted(position, u32::try_from(list.len()).unwrap_or(1)) as usize],
        }
    }
}

/// A permutation of the numbers below `count`, a power of two: each step can be undone.
#[inline]
fn permuted(position: u32, count: u32) -> u32 {
    let mask = count - 1;
    let x = position.wrapping_mul(0x9e37_79b1) & mask;
    let x = x ^ (x >> (count.trailing_zeros() / 2 + 1));
    x.wrapping_mul(0x85eb_ca6b) & mask
}

/// Frames of UDP over IPv4 with right checksums. What differs between flows is made up for, in
/// the identification and in the payload, so that no checksum does.
#[derive(Clone)]
struct Template {
    frame: [u8; FRAME],
    /// Where the client's port and the low half of its address stand.
    address: usize,
    port: usize,
    /// Instead of the client's own.
    externals: Option<Externals>,
}

/// What stands for clients where their packets come back: the low half of an address in 198.18/16,
/// and a port, by flow.
#[derive(Clone)]
pub(crate) struct Externals(Arc<[([u8; 2], u16)]>);

impl Externals {
    pub(crate) fn new(all: impl Iterator<Item = (Ipv4Addr, u16)>) -> Self {
        Self(all.map(|(address, port)| (address.octets()[2..].try_into().unwrap_or_default(), port)).collect())
    }
}

impl Template {
    const IDENTIFICATION: usize = 18;
    const PAYLOAD: usize = 42;

    fn new(direction: Direction, externals: Option<Externals>) -> Self {
        let (client, service) = (if externals.is_some() { [198, 18, 0, 0] } else { [10, 0, 0, 0] }, SERVICE);
        let (frame, address, port) = match direction {
            Direction::Outbound => (Frame::new().ipv4(client, SERVER).udp(0, service), 28, 34),
            Direction::Inbound => (Frame::new().ipv4(SERVER, client).udp(service, 0), 32, 36),
        };
        let built = frame.identification(0).payload(&[0; FRAME - Self::PAYLOAD]).build();
        let mut frame = [0; FRAME];
        frame.copy_from_slice(&built);
        Self { frame, address, port, externals }
    }

    #[inline]
    fn write(&self, number: u32, to: &mut [u8]) {
        let Some(to) = to.first_chunk_mut::<FRAME>() else { return };
        let (low, port) = match &self.externals {
            Some(externals) => externals.0[number as usize],
            None => {
                let (address, port) = client(number);
                ([address[2], address[3]], port)
            }
        };
        *to = self.frame;
        let mut put = |at: usize, bytes: [u8; 2]| to[at..at + 2].copy_from_slice(&bytes);
        put(self.address, low);
        put(self.port, port.to_be_bytes());
        put(Self::IDENTIFICATION, low.map(|byte| !byte));
        put(Self::PAYLOAD, low.map(|byte| !byte));
        put(Self::PAYLOAD + 2, port.to_be_bytes().map(|byte| !byte));
    }

    /// That the checksums of what it writes are right.
    fn verify(&self) -> anyhow::Result<()> {
        for number in [0, 1, 77, 65_535, (1 << 22) - 1] {
            let mut frame = [0; FRAME];
            self.write(number, &mut frame);
            let headers = Headers::parse(&mut frame).context("the source's frames")?;
            headers.verify_checksums().context("the source's frames")?;
        }
        Ok(())
    }
}

/// Something that instances take from and put back to, so that it outlives a worker.
pub(crate) struct Shelf<T>(Arc<Mutex<Option<T>>>);

impl<T> Shelf<T> {
    pub(crate) fn new(thing: T) -> Self {
        Self(Arc::new(Mutex::new(Some(thing))))
    }

    /// For something that is still to be made.
    pub(crate) fn empty() -> Self {
        Self(Arc::default())
    }

    /// Something that will be put here.
    pub(crate) fn lend(&self, thing: T) -> Lent<T> {
        Lent { thing: Some(thing), shelf: self.clone() }
    }

    /// `None` while another has it.
    pub(crate) fn take(&self) -> Option<Lent<T>> {
        let thing = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        thing.map(|thing| Lent { thing: Some(thing), shelf: self.clone() })
    }
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What was taken from a shelf; goes back there when dropped.
pub(crate) struct Lent<T> {
    thing: Option<T>,
    shelf: Shelf<T>,
}

impl<T> Lent<T> {
    #[inline]
    pub(crate) fn get(&mut self) -> Option<&mut T> {
        self.thing.as_mut()
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        *self.shelf.0.lock().unwrap_or_else(PoisonError::into_inner) = self.thing.take();
    }
}

/// Packets that wait for their turn.
pub(crate) struct Store {
    packets: Vec<Mbuf>,
    /// The one that has been there longest.
    oldest: usize,
    /// The place in the order of flows, kept from slice to slice.
    position: u32,
}

impl Store {
    /// Takes a packet, and gives the one that has been here longest.
    #[inline]
    pub(crate) fn exchange(&mut self, packet: &mut Mbuf) {
        if let Some(oldest) = self.packets.get_mut(self.oldest) {
            std::mem::swap(packet, oldest);
            self.oldest = if self.oldest + 1 == self.packets.len() { 0 } else { self.oldest + 1 };
        }
    }
}

/// When an end writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    Arriving,
    /// It asks for the lines of packets as they arrive, as drivers and functions do: else a base
    /// would wait for each of them, and cost more than with a function.
    Leaving,
    /// Packets rotate, and nobody touches what is in them.
    Never,
}

/// Stands at one end of the chain and writes the headers of the packets that come in there.
pub(crate) struct End {
    /// The way of the packets that come in there.
    entrance: Direction,
    when: When,
    template: Template,
    flows: Flows,
    store: Lent<Store>,
    /// Packets still to arrive that another run has written.
    stale: usize,
    /// All packets are of clients to the server, whichever end they come in by; what a function puts before one, or
    /// notes beside it, goes when it leaves.
    of_clients: bool,
}

impl End {
    pub(crate) fn new(entrance: Direction, when: When, flows: Flows, store: Lent<Store>) -> Self {
        Self { entrance, when, template: Template::new(entrance, None), flows, store, stale: 0, of_clients: false }
    }

    /// With packets of clients alone, whichever end they come in by.
    pub(crate) fn of_clients(self) -> Self {
        let template = Template::new(Direction::Outbound, None);
        Self { template, of_clients: true, ..self.anew(None) }
    }

    /// With packets for what stands for their clients, if that is given; and what other runs have left
    /// is written anew as it arrives. (One ring may have all that circulates.)
    pub(crate) fn anew(mut self, externals: Option<Externals>) -> Self {
        let waiting = self.store.get().map_or(0, |store| store.packets.len());
        Self { template: Template::new(self.entrance, externals), stale: waiting + CIRCULATING as usize, ..self }
    }

    #[cold]
    fn renew(&mut self, batch: &mut Batch) {
        let Some(store) = self.store.get() else { return };
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            self.template.write(self.flows.nth(store.position), packet.data_mut());
            store.position = store.position.wrapping_add(1);
            self.stale = self.stale.saturating_sub(1);
        }
    }
}

impl NetworkFunction for End {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let arriving = cx.direction() == self.entrance;
        if arriving && self.when == When::Leaving {
            batch.prefetch();
            if self.stale > 0 {
                self.renew(batch);
            }
        }
        if arriving != (self.when == When::Arriving) {
            return;
        }
        let Some(store) = self.store.get() else { return };
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            if self.of_clients {
                strip(packet);
            }
            if self.when != When::Never {
                self.template.write(self.flows.nth(store.position), packet.data_mut());
                store.position = store.position.wrapping_add(1);
            }
            store.exchange(packet);
        }
    }
}

/// Takes off what came before a frame, and beside it.
#[inline]
fn strip(packet: &mut Mbuf) {
    let _ = packet.adj(packet.len().saturating_sub(FRAME));
    packet.set_annotation(None);
    packet.set_marked(false);
}

/// An instance that outlives the worker that it works for.
pub(crate) struct Kept<I>(pub(crate) Lent<I>);

impl<I: NetworkFunction> NetworkFunction for Kept<I> {
    #[inline]
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if let Some(instance) = self.0.get() {
            instance.batch(batch, cx);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        if let Some(instance) = self.0.get() {
            instance.tick(cx, budget);
        }
    }
}

/// What a chain has of an instance that waits on a shelf.
pub(crate) fn kept<I: NetworkFunction + Send>(name: &'static str, shelf: &Shelf<I>) -> Vec<Loaded> {
    let shelf = shelf.clone();
    vec![made(name, Affinity::Any, move |_| Ok(Kept(shelf.take().ok_or("another worker has the instance")?)))]
}

/// Packets in all rings of the pair, at the start.
pub(crate) const CIRCULATING: u32 = 2 * PER_RING;
const PER_RING: u32 = 28 * 32;

/// What the packets of our side's net_ring pair and of the stores come from.
pub(crate) struct Circulation {
    pool: Mempool,
    /// The ports ask for one whose packets hold a frame of any length. They take none of it.
    unused: Mempool,
    queues: u16,
}

impl Circulation {
    /// Bytes that a packet has room for: few, so that many fit. What comes through the cache with a
    /// packet is the lines that are used, not its room.
    const ROOM: u16 = 128;

    /// A pool with room for what is in the rings of so many queues, and for so many more.
    pub(crate) fn new(eal: &Eal, more: u32, queues: u16) -> anyhow::Result<Self> {
        for direction in [Direction::Outbound, Direction::Inbound] {
            Template::new(direction, None).verify()?;
        }
        let least = 2 * 2 * u32::from(queues * DESCRIPTORS) + 64;
        let size = (CIRCULATING + more).next_multiple_of(1024);
        let config = MempoolConfig { size, data_room: Self::ROOM, ..MempoolConfig::default() };
        let pool = Mempool::new(eal, "circulating", config)?;
        let size = least.next_multiple_of(1024);
        let unused = Mempool::new(eal, "unused", MempoolConfig { size, ..MempoolConfig::default() })?;
        Ok(Self { pool, unused, queues })
    }

    /// Puts so many bursts into the ring of every queue.
    pub(crate) fn fill(&self, eal: &Eal, bursts: u32) -> anyhow::Result<()> {
        let mut ports = start_ports(eal, RING, &self.unused, self.queues)?;
        let mut burst = Burst::new();
        let mut number = 0;
        for ((_, queues), direction) in ports.iter_mut().zip([Direction::Outbound, Direction::Inbound]) {
            let template = Template::new(direction, None);
            for queue in queues {
                for _ in 0..bursts {
                    ensure!(self.pool.alloc_bulk(&mut burst), "the pool of circulating packets is too small");
                    for packet in burst.iter_mut() {
                        fill(packet, &template, number)?;
                        number = (number + 1) % 1024;
                    }
                    queue.tx.send(&mut burst);
                    ensure!(burst.is_empty(), "a ring is full");
                }
            }
        }
        stop_ports(ports)
    }

    /// Empties the rings.
    pub(crate) fn drain(&self, eal: &Eal) -> anyhow::Result<()> {
        let mut ports = start_ports(eal, RING, &self.unused, self.queues)?;
        let mut burst = Burst::new();
        for queue in ports.iter_mut().flat_map(|(_, queues)| queues) {
            while queue.rx.receive(&mut burst) > 0 {
                burst.clear();
            }
        }
        stop_ports(ports)
    }

    /// As many bursts in each ring as hot packets have.
    pub(crate) const HOT: u32 = PER_RING / 32;

    /// Stores for both ends that bring so many packets into rotation, those of the rings included.
    pub(crate) fn stores(&self, rotating: u32) -> anyhow::Result<[Shelf<Store>; 2]> {
        let templates = [Direction::Outbound, Direction::Inbound].map(|direction| Template::new(direction, None));
        self.stores_of(rotating, |side, number, packet| fill(packet, &templates[side], number % 1024).is_ok())
    }

    /// The same of other packets, which `fill` writes by side and number, if there is room.
    pub(crate) fn stores_of(
        &self,
        rotating: u32,
        fill: impl Fn(usize, u32, &mut Mbuf) -> bool,
    ) -> anyhow::Result<[Shelf<Store>; 2]> {
        let make = |side| -> anyhow::Result<_> {
            let mut packets = Vec::new();
            for number in 0..rotating.saturating_sub(CIRCULATING) / 2 {
                let mut packet = self.pool.alloc().context("the pool of circulating packets is too small")?;
                ensure!(fill(side, number, &mut packet), "a packet has no room for a frame");
                packets.push(packet);
            }
            // Not in the order of their addresses.
            Random(2).shuffle(&mut packets);
            Ok(Shelf::new(Store { packets, oldest: 0, position: 0 }))
        };
        Ok([make(0)?, make(1)?])
    }

    pub(crate) fn unused(&self) -> &Mempool {
        &self.unused
    }
}

/// Stores without packets, for a source that does not keep any.
pub(crate) fn no_stores() -> [Shelf<Store>; 2] {
    [(); 2].map(|()| Shelf::new(Store { packets: Vec::new(), oldest: 0, position: 0 }))
}

fn fill(packet: &mut Mbuf, template: &Template, number: u32) -> anyhow::Result<()> {
    ensure!(packet.set_contents(&template.frame), "a packet has no room for a frame");
    template.write(number, packet.data_mut());
    Ok(())
}
