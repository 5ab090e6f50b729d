//! What a worker writes down of a packet that is being traced: plain numbers and bytes, made into words elsewhere.

use super::Note;
use crate::annotation::Annotation;
use crate::direction::Direction;
use crate::next_hop::NextHop;
use crate::position::Position;
use crate::verdict::{DropReason, PortIx, Verdict};
use dpdk_rs::{Mbuf, Ticks};

/// One thing that happened to a packet.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Ticks,
    pub(crate) worker: usize,
    /// Which packet, among those that there are at the same time.
    pub(crate) packet: usize,
    pub(crate) what: What,
    /// As the packet was then.
    pub(crate) look: Look,
    pub(crate) note: Note,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// It came in by a port.
    Arrived(PortIx),
    /// A worker takes it through the chain from here.
    Enters(Position),
    /// A part of the chain has seen it.
    Seen(Place, Direction, Fate),
    /// It was made, by a function that had the other packet in hand.
    Made { by: usize, position: Position },
    /// It is through.
    Left(Fate),
}

/// A part of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Ingress,
    Function(usize),
    Egress,
}

/// What became of a packet, in a part of the chain or behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Next,
    Send(PortIx),
    Turn,
    Drop(DropReason),
    /// It was taken, and goes on from here.
    Resumed(Position),
    Consumed,
    HandedOver,
    /// It was taken, and nothing else is known.
    Held,
    Sent(PortIx),
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Next => Self::Next,
            Verdict::Send(port) => Self::Send(port),
            Verdict::Turn => Self::Turn,
            Verdict::Drop(reason) => Self::Drop(reason),
        }
    }
}

/// What is kept of a packet's bytes: all headers that are understood, as a rule.
pub(crate) const KEPT: usize = 128;

/// A packet at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Look {
    pub(crate) bytes: [u8; KEPT],
    pub(crate) length: usize,
    /// A tag that is beside the bytes.
    pub(crate) vlan: Option<u16>,
    pub(crate) next_hop: Option<NextHop>,
}

impl Look {
    pub(crate) fn at(packet: &Mbuf) -> Self {
        let data = packet.data();
        let mut bytes = [0; KEPT];
        bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        Self { bytes, length: data.len(), vlan: packet.vlan_beside(), next_hop: Annotation::of(packet).next_hop }
    }

    /// The packet's bytes, with zeros for those that were not kept.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; self.length];
        frame.iter_mut().zip(&self.bytes).for_each(|(to, from)| *to = *from);
        frame
    }
}
