//! The short way: packets in which nothing new happens, of connections that are known.
//!
//! They are looked up a burst at a time, and each entry is looked at once. Whatever else there is, the long way
//! ([`Instance::closer`]) knows, and does the same with these.

use super::config::Mode;
use super::connections::{Connection, Connections, Stage};
use super::encapsulate::{mark_usual_v4, mark_usual_v6};
use super::flow::{Flow, KeyV4, KeyV6, usual_flags_v4, usual_flags_v6, usual_v4, usual_v6};
use super::instance::Instance;
use super::policy::{Found, Policy, Timer, Way};
use super::select::FlowHash;
use super::translate::{Answer, Translation};
use crate::identification::Identifications;
use crate::rewrite::{write_usual_flow_v4, write_usual_flow_v6};
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::{Annotation, Batch, Deadline, FlowKey, FlowTable, Handle, Mbuf, NextHop, Slots};
use std::net::IpAddr;

/// Of a batch; kept, as to clear it each time takes a while.
#[derive(Debug)]
pub(super) struct Scratch {
    v4: [KeyV4; MOST],
    v6: [KeyV6; MOST],
    found: [Option<Handle>; MOST],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { v4: [KeyV4::default(); MOST], v6: [[0; 40]; MOST], found: [None; MOST] }
    }
}

/// As many as a batch has slots.
const MOST: usize = 64;

/// Flags that change what is known of a connection.
const SIGNALS: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0);

/// One of the two families.
trait Family {
    type Key: FlowKey;
    fn connections(connections: &mut Connections) -> &mut FlowTable<Self::Key, Connection>;
    /// Which of these keys are answers of backends.
    fn find_answers(translation: &Translation, keys: &[Self::Key], found: &mut [Option<Handle>]);
    fn answer(translation: &Translation, handle: Handle) -> Option<&Answer<Self::Key>>;
    fn flags(frame: &[u8]) -> TcpFlags;
    fn protocol(key: &Self::Key) -> IpProtocol;
    fn hash(hash: &FlowHash, key: &Self::Key) -> u64;
    fn flow(key: &Self::Key) -> Flow;
    /// The other direction.
    fn reversed(key: &Self::Key) -> Self::Key;
    /// With another source, or another destination; nothing if that is of the other family.
    fn from(key: &Self::Key, source: (IpAddr, u16)) -> Option<Self::Key>;
    fn to(key: &Self::Key, destination: (IpAddr, Option<u16>)) -> Option<Self::Key>;
    /// Makes a usual packet one of another flow.
    fn write(frame: &mut [u8], flow: &Self::Key, identifications: Option<&mut Identifications>);
    /// Writes a code point.
    fn mark(frame: &mut [u8], code_point: u8);
    /// Octets of a usual packet.
    fn length(frame: &[u8]) -> usize;
}

struct Ipv4;
struct Ipv6;

impl Family for Ipv4 {
    type Key = KeyV4;

    #[inline(always)]
    fn connections(connections: &mut Connections) -> &mut FlowTable<KeyV4, Connection> {
        &mut connections.v4
    }

    #[inline(always)]
    fn find_answers(translation: &Translation, keys: &[KeyV4], found: &mut [Option<Handle>]) {
        find(&translation.v4, keys, found);
    }

    #[inline(always)]
    fn answer(translation: &Translation, handle: Handle) -> Option<&Answer<KeyV4>> {
        Some(translation.v4.entry(handle)?.1)
    }

    #[inline(always)]
    fn flags(frame: &[u8]) -> TcpFlags {
        usual_flags_v4(frame)
    }

    #[inline(always)]
    fn protocol(key: &KeyV4) -> IpProtocol {
        IpProtocol(key[12])
    }

    #[inline(always)]
    fn hash(hash: &FlowHash, key: &KeyV4) -> u64 {
        hash.v4(key)
    }

    #[inline]
    fn flow(key: &KeyV4) -> Flow {
        Flow::of_v4(key)
    }

    #[inline(always)]
    fn reversed(&[a, b, c, d, e, f, g, h, i, j, k, l, rest @ ..]: &KeyV4) -> KeyV4 {
        let [m, n, o, p] = rest;
        [e, f, g, h, a, b, c, d, k, l, i, j, m, n, o, p]
    }

    #[inline(always)]
    fn from(key: &KeyV4, (address, port): (IpAddr, u16)) -> Option<KeyV4> {
        let IpAddr::V4(address) = address else { return None };
        let mut key = *key;
        key[..4].copy_from_slice(&address.octets());
        key[8..10].copy_from_slice(&port.to_be_bytes());
        Some(key)
    }

    #[inline(always)]
    fn to(key: &KeyV4, (address, port): (IpAddr, Option<u16>)) -> Option<KeyV4> {
        let IpAddr::V4(address) = address else { return None };
        let mut key = *key;
        key[4..8].copy_from_slice(&address.octets());
        if let Some(port) = port {
            key[10..12].copy_from_slice(&port.to_be_bytes());
        }
        Some(key)
    }

    #[inline(always)]
    fn write(frame: &mut [u8], flow: &KeyV4, identifications: Option<&mut Identifications>) {
        let Some(ends) = flow.first_chunk() else { return };
        write_usual_flow_v4(frame, *ends, identifications);
    }

    #[inline(always)]
    fn mark(frame: &mut [u8], code_point: u8) {
        mark_usual_v4(frame, code_point);
    }

    #[inline(always)]
    fn length(frame: &[u8]) -> usize {
        frame.first_chunk::<18>().map_or(0, |head| usize::from(u16::from_be_bytes([head[16], head[17]])))
    }
}

impl Family for Ipv6 {
    type Key = KeyV6;

    #[inline(always)]
    fn connections(connections: &mut Connections) -> &mut FlowTable<KeyV6, Connection> {
        &mut connections.v6
    }

    #[inline(always)]
    fn find_answers(translation: &Translation, keys: &[KeyV6], found: &mut [Option<Handle>]) {
        find(&translation.v6, keys, found);
    }

    #[inline(always)]
    fn answer(translation: &Translation, handle: Handle) -> Option<&Answer<KeyV6>> {
        Some(translation.v6.entry(handle)?.1)
    }

    #[inline(always)]
    fn flags(frame: &[u8]) -> TcpFlags {
        usual_flags_v6(frame)
    }

    #[inline(always)]
    fn protocol(key: &KeyV6) -> IpProtocol {
        IpProtocol(key[36])
    }

    #[inline(always)]
    fn hash(hash: &FlowHash, key: &KeyV6) -> u64 {
        hash.v6(key)
    }

    #[inline]
    fn flow(key: &KeyV6) -> Flow {
        Flow::of_v6(key)
    }

    #[inline(always)]
    fn reversed(key: &KeyV6) -> KeyV6 {
        let mut reversed = *key;
        reversed[..16].copy_from_slice(&key[16..32]);
        reversed[16..32].copy_from_slice(&key[..16]);
        reversed[32..34].copy_from_slice(&key[34..36]);
        reversed[34..36].copy_from_slice(&key[32..34]);
        reversed
    }

    #[inline(always)]
    fn from(key: &KeyV6, (address, port): (IpAddr, u16)) -> Option<KeyV6> {
        let IpAddr::V6(address) = address else { return None };
        let mut key = *key;
        key[..16].copy_from_slice(&address.octets());
        key[32..34].copy_from_slice(&port.to_be_bytes());
        Some(key)
    }

    #[inline(always)]
    fn to(key: &KeyV6, (address, port): (IpAddr, Option<u16>)) -> Option<KeyV6> {
        let IpAddr::V6(address) = address else { return None };
        let mut key = *key;
        key[16..32].copy_from_slice(&address.octets());
        if let Some(port) = port {
            key[34..36].copy_from_slice(&port.to_be_bytes());
        }
        Some(key)
    }

    #[inline(always)]
    fn write(frame: &mut [u8], flow: &KeyV6, _: Option<&mut Identifications>) {
        let Some(ends) = flow.first_chunk() else { return };
        write_usual_flow_v6(frame, *ends);
    }

    #[inline(always)]
    fn mark(frame: &mut [u8], code_point: u8) {
        mark_usual_v6(frame, code_point);
    }

    #[inline(always)]
    fn length(frame: &[u8]) -> usize {
        frame.first_chunk::<20>().map_or(0, |head| 40 + usize::from(u16::from_be_bytes([head[18], head[19]])))
    }
}

fn find<K: FlowKey, V: Default>(table: &FlowTable<K, V>, keys: &[K], found: &mut [Option<Handle>]) {
    // As where nothing is translated.
    if table.is_empty() {
        found.fill(None);
    } else {
        table.lookup_batch(keys, found);
    }
}

/// What is the same for all packets of a burst.
struct Burst<'a> {
    policy: &'a Policy,
    ways: &'a [Way],
    next_hops: &'a [Option<NextHop>],
    deadlines: &'a [Deadline; Timer::COUNT],
}

impl Instance {
    /// Sends the usual packets of a batch on their way; the others come back.
    #[inline]
    pub(super) fn usual(&mut self, batch: &mut Batch) -> Slots {
        let Some(mut scratch) = self.scratch.take() else { return batch.undecided() };
        let Scratch { v4: keys_v4, v6: keys_v6, found } = &mut *scratch;
        let (mut v4, mut v6, mut others) = (Slots::default(), Slots::default(), Slots::default());
        let (mut count_v4, mut count_v6) = (0, 0);
        for (slot, packet) in batch.undecided_packets() {
            if let Some(key) = usual_v4(packet.data()) {
                keys_v4[count_v4 % MOST] = key;
                count_v4 += 1;
                v4.insert(slot);
            } else if let Some(key) = usual_v6(packet.data()) {
                keys_v6[count_v6 % MOST] = key;
                count_v6 += 1;
                v6.insert(slot);
            } else {
                others.insert(slot);
            }
        }
        if count_v4 > 0 {
            self.of_family::<Ipv4>(batch, (v4, &mut others), &mut keys_v4[..count_v4.min(MOST)], found);
        }
        if count_v6 > 0 {
            self.of_family::<Ipv6>(batch, (v6, &mut others), &mut keys_v6[..count_v6.min(MOST)], found);
        }
        self.scratch = Some(scratch);
        others
    }

    /// Usual packets of known connections go to their backends; the others are left.
    #[inline(never)]
    fn of_family<F: Family>(
        &mut self,
        batch: &mut Batch,
        (slots, others): (Slots, &mut Slots),
        keys: &mut [F::Key],
        found: &mut [Option<Handle>; MOST],
    ) {
        let Self { policy, connections, translation, deadlines, identification, .. } = self;
        F::connections(connections).lookup_batch(keys, found);
        let next_hops = policy.next_hops.get().map_or(&[][..], |all| all);
        let burst = Burst { policy, ways: &policy.ways, next_hops, deadlines };
        let (mut unknown, mut count) = (Slots::default(), 0);
        for (index, ((slot, packet), found)) in batch.packets_in(slots).zip(&*found).enumerate() {
            let (Some(key), Some(handle)) = (keys.get(index), found) else {
                unknown.insert(slot);
                if let Some(key) = keys.get(index).copied() {
                    keys[count] = key;
                    count += 1;
                }
                continue;
            };
            if !burst.request::<F>(packet, key, *handle, (connections, translation, identification)) {
                others.insert(slot);
            }
        }
        if count > 0 {
            burst.unknown::<F>(batch, (unknown, others), &mut keys[..count], found, (connections, translation));
        }
    }
}

impl Burst<'_> {
    /// Sends a usual packet of a connection in which nothing new happens to its backend; whether that was all.
    #[inline(always)]
    fn request<F: Family>(
        &self,
        packet: &mut Mbuf,
        key: &F::Key,
        handle: Handle,
        (connections, translation, identification): (&mut Connections, &mut Translation, &mut u16),
    ) -> bool {
        let Some(mut entry) = F::connections(connections).entry_mut(handle) else { return false };
        let connection = *entry.value;
        let signals = F::protocol(key) == IpProtocol::TCP && F::flags(packet.data()).intersects(SIGNALS);
        if connection.stage != Stage::Established || signals {
            return false;
        }
        let slot = usize::from(connection.backend);
        let Some(way) = self.ways.get(slot).filter(|way| way.is_usual) else { return false };
        let length = F::length(packet.data());
        let mut annotation = Annotation { may_turn: true, ..Annotation::default() };
        match (way.mode, &way.tunnel) {
            (Mode::Dsr, _) => annotation.next_hop = self.next_hops.get(slot).copied().flatten(),
            (Mode::Dscp, _) => {
                let Some(flow) = F::to(key, (way.address, None)) else { return false };
                F::write(packet.data_mut(), &flow, None);
                F::mark(packet.data_mut(), way.dscp);
            }
            (Mode::Nat | Mode::FullNat, _) => {
                let is_introduced = !way.proxy_protocol || connection.is_introduced();
                if !connection.is_translated() || !is_introduced {
                    return false;
                }
                let Some(mut flow) = F::to(key, (way.address, way.port)) else { return false };
                let mut identifications = None;
                if way.mode == Mode::FullNat {
                    let source = translation.source_address(&connection);
                    let source = source.and_then(|address| F::from(&flow, (address, connection.port)));
                    let Some(source) = source else { return false };
                    flow = source;
                    identifications = Some(&mut translation.identifications);
                }
                F::write(packet.data_mut(), &flow, identifications);
            }
            (_, Some(tunnel)) => {
                if length > usize::from(way.largest) && !tunnel.may_split() {
                    return false;
                }
                *identification = identification.wrapping_add(1);
                if !tunnel.enter(packet, length, F::hash(&self.policy.hash, key), *identification) {
                    return false;
                }
                packet.set_marked(true);
            }
            (_, None) => return false,
        }
        annotation.write(packet);
        if let Some(deadline) = self.deadlines.get(connection.timer as usize) {
            entry.touch(*deadline);
        }
        connections.backends.sent(connection.backend, length);
        true
    }

    /// Usual packets of no connection: answers of backends go to their clients, and what is for nobody here goes on.
    #[inline(never)]
    fn unknown<F: Family>(
        &self,
        batch: &mut Batch,
        (slots, others): (Slots, &mut Slots),
        keys: &mut [F::Key],
        found: &mut [Option<Handle>; MOST],
        (connections, translation): (&mut Connections, &mut Translation),
    ) {
        F::find_answers(translation, keys, found);
        let (mut answering, mut count) = (Slots::default(), 0);
        for (index, slot) in slots.enumerate() {
            let handle = found.get(index).copied().flatten();
            match handle.and_then(|handle| F::answer(translation, handle)) {
                Some(answer) if answer.introduction.is_over() => {
                    keys[count] = answer.of;
                    count += 1;
                    answering.insert(slot);
                }
                Some(_) => others.insert(slot),
                None if keys.get(index).is_some_and(|key| self.is_for_nobody(&F::flow(key))) => {}
                None => others.insert(slot),
            }
        }
        F::connections(connections).lookup_batch(&keys[..count], found);
        for ((slot, packet), (of, found)) in batch.packets_in(answering).zip(keys.iter().zip(found)) {
            let goes = found.is_some_and(|handle| self.answer::<F>(packet, of, handle, (connections, translation)));
            if !goes {
                others.insert(slot);
            }
        }
    }

    /// Whether a flow has nothing to do with the load balancer, as far as its addresses say.
    fn is_for_nobody(&self, flow: &Flow) -> bool {
        let to = self.policy.find(flow.destination, flow.protocol, flow.destination_port);
        to == Found::Nobody && !self.policy.probes.has(flow.destination)
    }

    /// Sends a usual packet of a backend's to the client that it answers, if nothing new happens by it.
    #[inline(always)]
    fn answer<F: Family>(
        &self,
        packet: &mut Mbuf,
        of: &F::Key,
        handle: Handle,
        (connections, translation): (&mut Connections, &mut Translation),
    ) -> bool {
        let Some(mut entry) = F::connections(connections).entry_mut(handle) else { return false };
        let connection = *entry.value;
        let signals = F::protocol(of) == IpProtocol::TCP && F::flags(packet.data()).intersects(SIGNALS);
        if connection.stage != Stage::Established || signals {
            return false;
        }
        let Some(deadline) = self.deadlines.get(connection.timer as usize) else { return false };
        entry.touch(*deadline);
        F::write(packet.data_mut(), &F::reversed(of), Some(&mut translation.identifications));
        Annotation { may_turn: true, ..Annotation::default() }.write(packet);
        true
    }
}
