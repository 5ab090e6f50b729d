//! One worker's part in steering: keeps what is its own and hands the rest over.

use super::Steering;
use super::links::hand_over;
use super::trust::Trust;
use super::tuple::Tuple;
use crate::batch::{Batch, Slots};
use crate::counters::{WorkerCounters, bump};
use crate::direction::Direction;
use crate::position::Position;
use dpdk_rs::{Burst, IpVersion, Mbuf, PortId, Producer};
use std::sync::Arc;

/// Sorts packets by their owners.
#[derive(Debug)]
pub(crate) struct Sorter {
    steering: Arc<Steering>,
    worker: usize,
    /// By owner; none to this worker.
    rings: Vec<Option<Producer>>,
    /// By owner, empty between batches.
    staged: Vec<Burst>,
    /// What is known of the devices at the inside and the outside end.
    trust: [Trust; 2],
}

impl Sorter {
    pub(crate) fn new(steering: Arc<Steering>, worker: usize, rings: Vec<Option<Producer>>, told: [bool; 2]) -> Self {
        let staged = rings.iter().map(|_| Burst::new()).collect();
        let trust = told.map(Trust::after_start);
        Self { steering, worker, rings, staged, trust }
    }

    /// The device at this end has been started again, and told again or not.
    pub(crate) fn trust_anew(&mut self, direction: Direction, told: bool) {
        self.trust[direction as usize] = Trust::after_start(told);
    }

    /// Hands over what belongs to others. The batch keeps the rest, in order.
    #[inline]
    pub(crate) fn sort(&mut self, batch: &mut Batch, direction: Direction, counters: &WorkerCounters) {
        batch.prefetch();
        let mut foreign = false;
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            if let Some(owner) = self.other_owner(packet, direction, counters)
                && let Some(packet) = batch.take(slot)
            {
                self.stage(owner, packet, Entrance::arriving(direction));
                foreign = true;
            }
        }
        if foreign {
            batch.close_ranks();
            self.flush(counters);
        }
    }

    /// Hands a packet over that turns back into the chain, if it belongs to another worker
    /// there; otherwise it comes back. [`Sorter::flush`] has to follow.
    pub(crate) fn turn(&mut self, mut packet: Mbuf, direction: Direction) -> Option<Mbuf> {
        match self.steering.owner_of_packet(direction, &mut packet) {
            Some(owner) if owner != self.worker => {
                self.stage(owner, packet, Entrance { turned: true, ..Entrance::arriving(direction) });
                None
            }
            _ => Some(packet),
        }
    }

    /// Hands over what belongs to others of packets that were made where they go in, as the router's
    /// errors are: it may be about a packet of another worker's. The batch keeps the rest, in order.
    #[cold]
    pub(crate) fn sort_made(&mut self, batch: &mut Batch, direction: Direction, counters: &WorkerCounters) {
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            if let Some(owner) = self.steering.owner_of_packet(direction, packet).filter(|&owner| owner != self.worker)
                && let Some(packet) = batch.take(slot)
            {
                self.stage(owner, packet, Entrance::made(direction));
            }
        }
        batch.close_ranks();
        self.flush(counters);
    }

    /// Hands over packets that a function has let go on and that belong to another worker behind it.
    #[cold]
    pub(crate) fn cross(&mut self, batch: &mut Batch, slots: Slots, position: Position, counters: &WorkerCounters) {
        let Some(entrance) = Entrance::behind(position) else { return };
        for slot in slots {
            let Some(tuple) = batch.packet_mut(slot).and_then(Tuple::of_packet) else { continue };
            // As a packet that comes in there, which goes the other way.
            let owner = self.steering.owner(position.direction.reversed(), &tuple.reversed());
            if owner != self.worker
                && let Some(packet) = batch.take(slot)
            {
                self.stage(owner, packet, entrance);
            }
        }
        self.flush(counters);
    }

    /// The owner of a packet that came in here, if that is somebody else.
    #[inline]
    fn other_owner(&mut self, packet: &mut Mbuf, direction: Direction, counters: &WorkerCounters) -> Option<usize> {
        let side = self.steering.side(direction);
        let trust = &mut self.trust[direction as usize];
        let expected = *trust != Trust::None && plain(packet.data()).is_some_and(|version| side.device_knows(version));
        if expected && trust.believes() {
            return None;
        }
        let owner = self.steering.owner_of_packet(direction, packet).filter(|&owner| owner != self.worker)?;
        if expected
            && trust.was_misled()
            && let Some(port) = counters.ports.get(direction as usize)
        {
            bump(&port.misled, 1);
        }
        Some(owner)
    }

    fn stage(&mut self, owner: usize, mut packet: Mbuf, entrance: Entrance) {
        entrance.write(&mut packet);
        if let Some(staged) = self.staged.get_mut(owner) {
            // As many as a batch has slots find room.
            drop(staged.push(packet));
        }
    }

    /// Puts what is staged into the rings.
    pub(crate) fn flush(&mut self, counters: &WorkerCounters) {
        for (staged, ring) in self.staged.iter_mut().zip(&mut self.rings) {
            if let (false, Some(ring)) = (staged.is_empty(), ring) {
                hand_over(ring, staged, counters);
            }
        }
    }
}

/// Where a packet on its way to its owner goes in there: its input side is preserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entrance {
    direction: Direction,
    turned: bool,
    /// It has been through the chain, and goes on behind it.
    leaves: bool,
    /// It came in by no port: it was made there.
    made: bool,
    /// The function that it goes on behind, by its place in the chain.
    behind: Option<u8>,
}

impl Entrance {
    /// DPDK counts ports up to RTE_MAX_ETHPORTS, which is far below these.
    const INBOUND: u16 = 1 << 14;
    const TURNED: u16 = 1 << 15;
    const LEAVES: u16 = 1 << 13;
    const MADE: u16 = 1 << 12;
    /// One more than the place of the function that it goes on behind.
    const BEHIND: u16 = 0x1f << Self::BEHIND_SHIFT;
    const BEHIND_SHIFT: u32 = 7;
    const ALL: u16 = Self::INBOUND | Self::TURNED | Self::LEAVES | Self::MADE | Self::BEHIND;
    /// What is left of a packet's port where it has none, for which DPDK sets all bits.
    const NO_PORT: u16 = !Self::ALL;

    /// Of a packet that has come in by a port.
    pub(crate) fn arriving(direction: Direction) -> Self {
        Self { direction, turned: false, leaves: false, made: false, behind: None }
    }

    /// Of a packet that goes on behind a function. None in a chain that is too long for that.
    pub(crate) fn behind(position: Position) -> Option<Self> {
        let place =
            u8::try_from(position.at).ok().filter(|place| u16::from(*place) < Self::BEHIND >> Self::BEHIND_SHIFT)?;
        Some(Self { turned: position.turned, behind: Some(place), ..Self::arriving(position.direction) })
    }

    /// Of a packet that all functions on its way have seen.
    pub(crate) fn leaving(direction: Direction) -> Self {
        Self { leaves: true, ..Self::arriving(direction) }
    }

    /// Of a packet that was made where it goes in.
    pub(crate) fn made(direction: Direction) -> Self {
        Self { made: true, ..Self::arriving(direction) }
    }

    /// Whether it has come in by a port and nobody has looked at it yet.
    #[inline]
    pub(crate) fn arrives(self) -> bool {
        !self.turned && !self.leaves && !self.made && self.behind.is_none()
    }

    /// Writes it beside the packet's port.
    pub(crate) fn write(self, packet: &mut Mbuf) {
        // A packet that a function made came in by no port: all bits are set.
        let mut port = packet.port().0 & !Self::ALL;
        port |= if self.direction == Direction::Inbound { Self::INBOUND } else { 0 };
        port |= if self.turned { Self::TURNED } else { 0 };
        port |= if self.leaves { Self::LEAVES } else { 0 };
        port |= if self.made { Self::MADE } else { 0 };
        port |= self.behind.map_or(0, |place| (u16::from(place) + 1) << Self::BEHIND_SHIFT);
        packet.set_port(PortId(port));
    }

    /// Of the first packet that is left.
    #[inline]
    pub(crate) fn of_first(burst: &Burst) -> Option<Self> {
        burst.iter().next().map(Self::read)
    }

    /// Reads it without taking it off.
    #[inline]
    pub(crate) fn read(packet: &Mbuf) -> Self {
        let port = packet.port().0;
        let direction = if port & Self::INBOUND == 0 { Direction::Outbound } else { Direction::Inbound };
        let is = |bit| port & bit != 0;
        let behind =
            u8::try_from((port & Self::BEHIND) >> Self::BEHIND_SHIFT).ok().and_then(|place| place.checked_sub(1));
        Self { direction, turned: is(Self::TURNED), leaves: is(Self::LEAVES), made: is(Self::MADE), behind }
    }

    /// Takes it off again.
    #[inline]
    pub(crate) fn erase(packet: &mut Mbuf) {
        let port = packet.port().0 & !Self::ALL;
        packet.set_port(PortId(if port == Self::NO_PORT { u16::MAX } else { port }));
    }

    /// The place in a chain of so many functions.
    pub(crate) fn position(self, functions: usize) -> Position {
        let place = if self.leaves { Position::exit } else { Position::entrance };
        let place = place(self.direction, functions);
        let at = self.behind.map_or(place.at, isize::from);
        Position { at, turned: self.turned, ..place }
    }
}

/// The version of an untagged IP packet with TCP or UDP in it, whole and without extension
/// headers: what every device hashes by addresses and ports.
#[inline]
fn plain(frame: &[u8]) -> Option<IpVersion> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let start: &[u8; 34] = frame.first_chunk()?;
    match (start[12], start[13]) {
        // Without options, which some devices stumble over. The fragment offset and MF are the 16
        // bits at 20, without their first two.
        (0x08, 0x00) => {
            let whole = start[20] & 0x3f == 0 && start[21] == 0;
            (start[14] == 0x45 && whole && matches!(start[23], TCP | UDP)).then_some(IpVersion::V4)
        }
        (0x86, 0xdd) => matches!(start[20], TCP | UDP).then_some(IpVersion::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::{Affinity, Links, connect};
    use crate::testing::{Frame, Lab, lab};
    use crate::verdict::DropReason;
    use dpdk_rs::RssTableSize;
    use std::num::NonZero;
    use std::sync::atomic::Ordering;

    fn steering() -> Arc<Steering> {
        let (workers, size) = (NonZero::new(2).unwrap(), RssTableSize::new(128).unwrap());
        Arc::new(Steering::new(Affinity::Flow, workers, size, 1).unwrap())
    }

    /// Frames of as many flows that belong to this worker.
    fn frames_of(owner: usize, count: usize, vlan: Option<u16>) -> Vec<Vec<u8>> {
        let steering = steering();
        let tagged = |port| {
            vlan.into_iter().fold(Frame::new(), Frame::vlan).ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(port, 53)
        };
        let frames = (1000..=u16::MAX).map(|port| tagged(port).build());
        let owned = |frame: &Vec<u8>| steering.owner_of_frame(Direction::Outbound, &mut frame.clone()) == Some(owner);
        frames.filter(owned).take(count).collect()
    }

    /// The sorter of the first of two workers, with its batch and counters, and the other's links.
    struct Bench<'a> {
        lab: &'a Lab<'a>,
        sorter: Sorter,
        batch: Batch,
        counters: WorkerCounters,
        other: Links,
    }

    impl<'a> Bench<'a> {
        fn new(lab: &'a Lab<'a>, name: &str, told: bool) -> Self {
            let mut links = connect(lab.eal, name, 2, (true, false), &[]).unwrap();
            let (other, own) = (links.pop().unwrap(), links.pop().unwrap());
            let (batch, counters) = (Batch::with_limit(64), WorkerCounters::new(2, 0));
            Self { lab, sorter: Sorter::new(steering(), 0, own.to_owner, [told; 2]), batch, counters, other }
        }

        /// The frames that stay.
        fn sort(&mut self, direction: Direction, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
            for frame in frames {
                let mut packet = self.lab.pool.alloc().unwrap();
                assert!(packet.set_contents(frame));
                packet.set_port(PortId(7));
                assert!(self.batch.push(packet).is_ok());
            }
            self.sorter.sort(&mut self.batch, direction, &self.counters);
            let mut left = Vec::new();
            self.batch.settle(|packet, _| left.push(packet.data().to_vec()));
            left
        }

        /// What the other worker gets.
        fn handed_over(&mut self) -> Vec<(PortId, Entrance, Vec<u8>)> {
            let (mut burst, mut all) = (Burst::with_limit(64), Vec::new());
            while self.other.as_owner[0].receive(&mut burst) > 0 {
                for mut packet in burst.drain() {
                    let entrance = Entrance::read(&packet);
                    Entrance::erase(&mut packet);
                    all.push((packet.port(), entrance, packet.data().to_vec()));
                }
                burst.reset();
            }
            all
        }

        fn misled(&self) -> u64 {
            self.counters.ports[0].misled.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn what_is_foreign_is_handed_over_with_its_side_and_its_port_and_the_rest_stays_in_order() {
        lab(|lab| {
            let mut bench = Bench::new(lab, "sorts", false);
            let (own, foreign) = (frames_of(0, 3, None), frames_of(1, 2, None));
            let no_owner = Frame::new().arp_request([192, 0, 2, 1], [192, 0, 2, 2]).build();
            let mixed = [&own[0], &foreign[0], &no_owner, &own[1], &foreign[1], &own[2]].map(Clone::clone);
            for direction in [Direction::Outbound, Direction::Inbound] {
                let left = bench.sort(direction, &mixed);
                assert_eq!(left, [&own[0], &no_owner, &own[1], &own[2]].map(Clone::clone));
                let entrance = Entrance::arriving(direction);
                let expected = foreign.iter().map(|frame| (PortId(7), entrance, frame.clone()));
                assert_eq!(bench.handed_over(), expected.collect::<Vec<_>>());
            }
            assert_eq!(bench.counters.handed_over.load(Ordering::Relaxed), 4);
        });
    }

    #[test]
    fn what_finds_no_room_in_the_ring_is_dropped_and_counted() {
        lab(|lab| {
            let mut bench = Bench::new(lab, "full", false);
            let foreign = frames_of(1, 60, None);
            for _ in 0..10 {
                assert!(bench.sort(Direction::Outbound, &foreign).is_empty());
            }
            let dropped = bench.counters.drops[DropReason::HAND_OVER_FULL.index()].load(Ordering::Relaxed);
            assert_eq!((bench.counters.handed_over.load(Ordering::Relaxed), dropped), (511, 89));
            assert_eq!(bench.handed_over().len(), 511);
        });
    }

    #[test]
    fn a_device_is_believed_until_it_brings_a_packet_that_belongs_elsewhere() {
        lab(|lab| {
            let mut bench = Bench::new(lab, "trust", true);
            let (own, foreign, tagged) = (frames_of(0, 64, None), frames_of(1, 1, None), frames_of(1, 1, Some(5)));
            let foreign_one = |frame: &dyn Fn(u8) -> Frame| {
                let frames = (1..=u8::MAX).map(|host| frame(host).build());
                let of_other =
                    |frame: &Vec<u8>| steering().owner_of_frame(Direction::Outbound, &mut frame.clone()) == Some(1);
                frames.filter(of_other).take(1).collect::<Vec<_>>()
            };
            let udp = |host| Frame::new().ipv4([10, 0, 0, host], [192, 0, 2, 1]).udp(1, 2).payload(&[0; 16]);
            let fragment = foreign_one(&|host| udp(host).fragment(0, true));
            let with_options = foreign_one(&|host| udp(host).ipv4_options(&[1; 4]));
            let mut left = |frames: &[Vec<u8>]| (bench.sort(Direction::Outbound, frames).len(), bench.misled());

            assert_eq!(left(&foreign), (0, 0), "it may have come before the device was told");
            for _ in 0..((1 << 16) + 1024) / 64 {
                assert_eq!(left(&own), (64, 0));
            }
            assert_eq!(left(&foreign), (1, 0), "nobody looks at it");
            assert_eq!(left(&tagged), (0, 0), "not every device hashes tagged packets so");
            assert_eq!(left(&fragment), (0, 0), "fragments go by their addresses");
            assert_eq!(left(&with_options), (0, 0), "nor packets with options");
            let mut passed = 0;
            while left(&foreign) == (1, 0) {
                passed += 1;
                assert!(passed < 1024, "one in 1024 is looked at");
            }
            assert_eq!(left(&foreign), (0, 1), "every packet is looked at from now on");
            assert_eq!(left(&own), (64, 1));
            assert_eq!(bench.handed_over().len(), 6);
        });
    }

    #[test]
    fn an_entrance_is_read_as_it_was_written_whatever_port_the_packet_has() {
        lab(|lab| {
            let mut packet = lab.pool.alloc().unwrap();
            // One that a function made has no port, which DPDK writes as all bits set.
            assert_eq!(packet.port(), PortId(u16::MAX));
            for (direction, turned) in [
                (Direction::Outbound, false),
                (Direction::Outbound, true),
                (Direction::Inbound, false),
                (Direction::Inbound, true),
            ] {
                let position = |at| Position { at, direction, turned };
                let behind = [0, 1, 30].map(|at| (Entrance::behind(position(at)).unwrap(), position(at)));
                let at_end = Position { turned, ..Position::entrance(direction, 40) };
                let whole = (Entrance { turned, ..Entrance::arriving(direction) }, at_end);
                for port in [PortId(u16::MAX), PortId(0), PortId(7)] {
                    for (entrance, position) in behind.into_iter().chain([whole]) {
                        packet.set_port(port);
                        entrance.write(&mut packet);
                        assert_eq!(Entrance::read(&packet), entrance, "{port:?}");
                        assert_eq!(entrance.position(40), position);
                        Entrance::erase(&mut packet);
                        assert_eq!(packet.port(), port);
                    }
                }
                assert_eq!([-1, 31, 300].map(|at| Entrance::behind(position(at))), [None; 3]);
            }
        });
    }

    #[test]
    fn no_device_is_believed_about_destinations_in_ipv6() {
        let (workers, size) = (NonZero::new(2).unwrap(), RssTableSize::new(128).unwrap());
        let steering = Steering::new(Affinity::InsideHost, workers, size, 1).unwrap();
        for (direction, version, known) in [
            (Direction::Outbound, IpVersion::V4, true),
            (Direction::Outbound, IpVersion::V6, true),
            (Direction::Inbound, IpVersion::V4, true),
            (Direction::Inbound, IpVersion::V6, false),
        ] {
            assert_eq!(steering.side(direction).device_knows(version), known, "{direction:?} {version:?}");
        }
    }
}
