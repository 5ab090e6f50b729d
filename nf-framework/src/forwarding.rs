//! What stands around a chain and decides about packets that its functions let pass.

use crate::batch::Batch;
use crate::context::Context;
use crate::direction::Direction;
use crate::function::Budget;
use crate::trace::{Note, TracedPacket};
use crate::verdict::{PortIx, Verdict};
use std::any::Any;

/// Two halves around the chain. Without any, what no function decided about is dropped:
/// nothing forwards by default.
pub trait Forwarding: Any {
    /// Before anything else is done with a batch that has come in by the port at this direction's
    /// entrance: moves packets from outside into `inbound`, which is empty, where both ends of the chain
    /// are on this port.
    fn separate(&mut self, _batch: &mut Batch, _direction: Direction, _inbound: &mut Batch) {}

    /// Before the first function sees a batch that has come in by a port.
    fn ingress(&mut self, _batch: &mut Batch, _cx: &mut Context<'_>) {}

    /// After the last function, on what is still undecided.
    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>);

    /// What its first half (`true`) or its second says of a packet that is being traced, as
    /// [`NetworkFunction::trace_note`](crate::NetworkFunction::trace_note).
    fn trace_note(&mut self, _first: bool, _packet: &mut TracedPacket<'_>, _cx: &Context<'_>, _note: &mut Note) {}

    /// Frames that the kernel sends by a port of its own; they pass no function.
    fn host_sent(&mut self, _batch: &mut Batch, _port: PortIx) {}

    /// Housekeeping, as [`NetworkFunction::tick`](crate::NetworkFunction::tick).
    fn tick(&mut self, _cx: &mut Context<'_>, _budget: Budget) {}

    /// The program stops: drops what it holds, as `stopped`.
    fn stop(&mut self, _cx: &mut Context<'_>) {}

    /// How many packets it holds, taken out of batches and not given back yet.
    fn held(&self) -> usize {
        0
    }
}

/// Forwards like a cable: what came in on one side leaves, unchanged, on the other; on a
/// program with one port, by the port that it came in by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire;

impl Forwarding for Wire {
    #[inline]
    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        batch.decide_all(Verdict::Send(cx.exit()));
    }
}
