//! The short way: packets in which nothing new happens, of connections that are known.
//!
//! They are looked up a burst at a time, and each entry is looked at once. Whatever else there is, the long way
//! ([`WorkerState::closer`]) knows, and does the same with these.

use super::config::Mode;
use super::connections::{Connection, Connections, Stage};
use super::counters::OfWorker;
use super::encapsulate::{mark_usual_v4, mark_usual_v6};
use super::flow::{Flow, Head, KeyV4, KeyV6, usual_v4, usual_v6};
use super::flow_hash::FlowHash;
use super::instance::{Instance, WorkerState};
use super::policy::{Found, Policy, Timer, Way};
use super::scratch::{Looked, MOST, Scratch, Step};
use super::translate::{Answer, Translation};
use crate::identification::Identifications;
use crate::rewrite::{write_usual_flow_v4, write_usual_flow_v6};
use nf_framework::{Annotation, Batch, Deadline, FlowKey, FlowTable, Handle, Mbuf, NextHop, Slots};
use std::net::IpAddr;

/// One of the two families.
trait Family {
    type Key: FlowKey;
    fn connections(connections: &mut Connections) -> (&mut FlowTable<Self::Key, Connection>, &OfWorker);
    /// Which of these keys are answers of backends.
    fn find_answers(translation: &Translation, keys: &[Self::Key], found: &mut [Option<Handle>]);
    fn answer(translation: &Translation, handle: Handle) -> Option<&Answer<Self::Key>>;
    /// Whether a usual packet may change what is known of its connection.
    fn signals(frame: &[u8]) -> bool;
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
}

struct Ipv4;
struct Ipv6;

impl Family for Ipv4 {
    type Key = KeyV4;

    #[inline(always)]
    fn connections(connections: &mut Connections) -> (&mut FlowTable<KeyV4, Connection>, &OfWorker) {
        (&mut connections.v4, &connections.backends)
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
    fn signals(frame: &[u8]) -> bool {
        usual_v4(frame).is_none_or(|(_, head)| head.signals)
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
}

impl Family for Ipv6 {
    type Key = KeyV6;

    #[inline(always)]
    fn connections(connections: &mut Connections) -> (&mut FlowTable<KeyV6, Connection>, &OfWorker) {
        (&mut connections.v6, &connections.backends)
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
    fn signals(frame: &[u8]) -> bool {
        usual_v6(frame).is_none_or(|(_, head)| head.signals)
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

/// What became of the usual packets of a burst.
#[derive(Default)]
struct Sorted {
    /// Of no connection.
    unknown: Slots,
    /// For the ends of tunnels.
    tunnelled: Slots,
    /// To be addressed to their backends.
    addressed: Slots,
    /// They need a closer look.
    others: Slots,
}

impl Instance {
    /// Sends the usual packets of a batch on their way; the others come back.
    #[inline]
    pub(super) fn usual(&mut self, batch: &mut Batch) -> Slots {
        let Some(mut scratch) = self.scratch.take() else { return batch.undecided() };
        let (mut v4, mut v6, mut others) = (Slots::default(), Slots::default(), Slots::default());
        let (mut count_v4, mut count_v6) = (0, 0);
        for (slot, packet) in batch.undecided_packets() {
            if let Some((key, head)) = usual_v4(packet.data()) {
                (scratch.v4.keys[count_v4 % MOST], scratch.v4.heads[count_v4 % MOST]) = (key, head);
                count_v4 += 1;
                v4.insert(slot);
            } else if let Some((key, head)) = usual_v6(packet.data()) {
                (scratch.v6.keys[count_v6 % MOST], scratch.v6.heads[count_v6 % MOST]) = (key, head);
                count_v6 += 1;
                v6.insert(slot);
            } else {
                others.insert(slot);
            }
        }
        let Scratch { v4: of_v4, v6: of_v6, found, steps } = &mut *scratch;
        if count_v4 > 0 {
            self.of_family::<Ipv4>(batch, (v4, count_v4.min(MOST)), of_v4, (found, steps), &mut others);
        }
        if count_v6 > 0 {
            self.of_family::<Ipv6>(batch, (v6, count_v6.min(MOST)), of_v6, (found, steps), &mut others);
        }
        self.scratch = Some(scratch);
        others
    }

    /// Usual packets of known connections go to their backends, and those that answer them to their clients.
    fn of_family<F: Family>(
        &mut self,
        batch: &mut Batch,
        (slots, count): (Slots, usize),
        Looked { keys, heads }: &mut Looked<F::Key>,
        (found, steps): (&mut [Option<Handle>; MOST], &mut [Step; MOST]),
        others: &mut Slots,
    ) {
        let WorkerState { connections, translation, deadlines, .. } = &mut self.state;
        let policy = &*self.policy;
        let next_hops = policy.next_hops.get().map_or(&[][..], |all| all);
        let burst = Burst { policy, ways: &policy.ways, next_hops, deadlines };
        let (table, backends) = F::connections(connections);
        table.lookup_batch(&keys[..count], &mut found[..count]);
        let mut sorted = burst.sort(batch, slots, (&heads[..count], &found[..count]), steps, (table, backends));
        burst.tunnel::<F>(batch, &mut sorted, (keys, heads, steps), (backends, &mut translation.identifications));
        burst.address::<F>(batch, &mut sorted, (keys, heads, steps), (backends, translation));
        if sorted.unknown.count() > 0 {
            let mut unknown = 0;
            for index in (0..count).filter(|index| found[*index].is_none()) {
                keys[unknown] = keys[index];
                unknown += 1;
            }
            burst.unknown::<F>(batch, &mut sorted, (&mut keys[..unknown], found), (table, translation));
        }
        sorted.others.for_each(|slot| others.insert(slot));
    }
}

impl Burst<'_> {
    /// Looks at the entries of connections, and sends what goes by a MAC address on its way.
    // Never: in a function of its own, the loop has all registers.
    #[inline(never)]
    fn sort<K: FlowKey>(
        &self,
        batch: &mut Batch,
        slots: Slots,
        (heads, found): (&[Head], &[Option<Handle>]),
        steps: &mut [Step; MOST],
        (table, backends): (&mut FlowTable<K, Connection>, &OfWorker),
    ) -> Sorted {
        let mut sorted = Sorted::default();
        let packets = batch.packets_in(slots).zip(heads.iter().zip(found));
        for (number, ((slot, packet), (head, found))) in (0..).zip(packets) {
            let Some(handle) = *found else {
                sorted.unknown.insert(slot);
                continue;
            };
            let Some(mut entry) = table.entry_mut(handle) else {
                sorted.others.insert(slot);
                continue;
            };
            let Connection { backend, stage, timer, .. } = *entry.value;
            let way = self.ways.get(usize::from(backend));
            let (Some(way), Some(deadline)) = (
                way.filter(|way| way.is_usual && stage == Stage::Established && !head.signals),
                self.deadlines.get(timer as usize),
            ) else {
                sorted.others.insert(slot);
                continue;
            };
            entry.touch(*deadline);
            if way.mode == Mode::Dsr {
                let next_hop = self.next_hops.get(usize::from(backend)).copied().flatten();
                Annotation { next_hop, may_turn: true, ..Annotation::default() }.write(packet);
                backends.sent(backend, head.length.into());
                continue;
            }
            steps[slot % MOST] = Step { connection: *entry.value, number };
            if way.tunnel.is_some() {
                packet.prefetch_headroom();
                sorted.tunnelled.insert(slot);
            } else {
                sorted.addressed.insert(slot);
            }
        }
        sorted
    }

    /// Puts packets into the tunnels to their backends.
    #[inline(never)]
    fn tunnel<F: Family>(
        &self,
        batch: &mut Batch,
        sorted: &mut Sorted,
        (keys, heads, steps): (&[F::Key; MOST], &[Head; MOST], &[Step; MOST]),
        (backends, identifications): (&OfWorker, &mut Identifications),
    ) {
        for (slot, packet) in batch.packets_in(sorted.tunnelled) {
            let Step { connection: Connection { backend, .. }, number } = steps[slot % MOST];
            let (key, length) = (&keys[usize::from(number) % MOST], heads[usize::from(number) % MOST].length);
            let entered = self.ways.get(usize::from(backend)).is_some_and(|way| match &way.tunnel {
                Some(tunnel) if length <= way.largest || tunnel.may_split() => {
                    tunnel.enter(packet, length.into(), F::hash(&self.policy.hash, key), identifications)
                }
                _ => false,
            });
            if !entered {
                sorted.others.insert(slot);
                continue;
            }
            packet.set_marked(true);
            Annotation { may_turn: true, ..Annotation::default() }.write(packet);
            backends.sent(backend, length.into());
        }
    }

    /// Addresses packets to their backends.
    #[inline(never)]
    fn address<F: Family>(
        &self,
        batch: &mut Batch,
        sorted: &mut Sorted,
        (keys, heads, steps): (&[F::Key; MOST], &[Head; MOST], &[Step; MOST]),
        (backends, translation): (&OfWorker, &mut Translation),
    ) {
        for (slot, packet) in batch.packets_in(sorted.addressed) {
            let Step { connection, number } = &steps[slot % MOST];
            let (key, head) = (&keys[usize::from(*number) % MOST], &heads[usize::from(*number) % MOST]);
            let way = self.ways.get(usize::from(connection.backend));
            if way.and_then(|way| self.readdress::<F>(packet, key, way, connection, translation)).is_none() {
                sorted.others.insert(slot);
                continue;
            }
            Annotation { may_turn: true, ..Annotation::default() }.write(packet);
            backends.sent(connection.backend, head.length.into());
        }
    }

    /// Nothing if a packet needs a closer look; it is unchanged then.
    #[inline(always)]
    fn readdress<F: Family>(
        &self,
        packet: &mut Mbuf,
        key: &F::Key,
        way: &Way,
        connection: &Connection,
        translation: &mut Translation,
    ) -> Option<()> {
        match way.mode {
            Mode::Dscp => {
                F::write(packet.data_mut(), &F::to(key, (way.address, None))?, None);
                F::mark(packet.data_mut(), way.dscp);
            }
            Mode::Nat if connection.is_translated() && connection.is_introduced() => {
                F::write(packet.data_mut(), &F::to(key, (way.address, way.port))?, None);
            }
            Mode::FullNat if connection.is_translated() && connection.is_introduced() => {
                let source = (self.policy.source_address(connection.source)?, connection.port);
                let flow = F::from(&F::to(key, (way.address, way.port))?, source)?;
                F::write(packet.data_mut(), &flow, Some(&mut translation.identifications));
            }
            _ => return None,
        }
        Some(())
    }

    /// Usual packets of no connection: answers of backends go to their clients, and what is for nobody here goes on.
    #[inline(never)]
    fn unknown<F: Family>(
        &self,
        batch: &mut Batch,
        sorted: &mut Sorted,
        (keys, found): (&mut [F::Key], &mut [Option<Handle>; MOST]),
        (table, translation): (&mut FlowTable<F::Key, Connection>, &mut Translation),
    ) {
        F::find_answers(translation, keys, found);
        let (mut answering, mut count) = (Slots::default(), 0);
        for (number, slot) in sorted.unknown.enumerate() {
            let handle = found.get(number).copied().flatten();
            match handle.and_then(|handle| F::answer(translation, handle)) {
                Some(answer) if answer.introduction.is_over() => {
                    keys[count] = answer.of;
                    count += 1;
                    answering.insert(slot);
                }
                Some(_) => sorted.others.insert(slot),
                None if keys.get(number).is_some_and(|key| self.is_for_nobody(&F::flow(key))) => {}
                None => sorted.others.insert(slot),
            }
        }
        table.lookup_batch(&keys[..count], found);
        for ((slot, packet), (of, found)) in batch.packets_in(answering).zip(keys.iter().zip(found)) {
            let goes = found.is_some_and(|handle| self.answer::<F>(packet, of, handle, (table, translation)));
            if !goes {
                sorted.others.insert(slot);
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
        (table, translation): (&mut FlowTable<F::Key, Connection>, &mut Translation),
    ) -> bool {
        let Some(mut entry) = table.entry_mut(handle) else { return false };
        let connection = *entry.value;
        if connection.stage != Stage::Established || !connection.is_answered() || F::signals(packet.data()) {
            return false;
        }
        let Some(deadline) = self.deadlines.get(connection.timer as usize) else { return false };
        entry.touch(*deadline);
        F::write(packet.data_mut(), &F::reversed(of), Some(&mut translation.identifications));
        Annotation { may_turn: true, ..Annotation::default() }.write(packet);
        true
    }
}
