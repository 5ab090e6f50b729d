//! TCP connections from outside that nobody inside waits for: RFC 5382 REQ-4.
//!
//! Their sender is told after six seconds and not before, as the inside host may be about to begin the
//! same connection, and then the answer would end it. So the SYN is held meanwhile; as few are as
//! help honest hosts, and a flood of others goes without an answer.

use super::flow::FlowTuple;
use super::reasons::{Reasons, UNSOLICITED_SYN};
use nf_framework::{Context, Direction, IcmpError, Instant, Mbuf, Note};
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// RFC 5382 REQ-4.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);
/// For each worker.
pub(super) const MOST: usize = 64;

/// What comes of one that is held, for a trace.
pub(super) fn note(cx: &Context<'_>, note: &mut Note) -> fmt::Result {
    let seconds = PATIENCE.as_secs();
    write!(note, "until a host inside begins it, {seconds} s at most; then drop {UNSOLICITED_SYN}")?;
    if cx.can_refuse() {
        write!(note, "; ICMP port unreachable after {seconds} s")?;
    }
    Ok(())
}

/// One worker's.
#[derive(Debug)]
pub(super) struct Unsolicited {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    packet: Mbuf,
    flow: FlowTuple,
    until: Instant,
}

impl Unsolicited {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(MOST) }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    /// Holds one.
    pub(super) fn hold(&mut self, packet: Mbuf, flow: FlowTuple, now: Instant) {
        self.waiting.push_back(Waiting { packet, flow, until: now + PATIENCE });
    }

    /// Forgets those that the inside host answers to by a SYN of its own, given as it leaves.
    pub(super) fn begun(&mut self, out: &FlowTuple, reasons: &Reasons, cx: &mut Context<'_>) {
        let is_the_same = |held: &FlowTuple| {
            (held.source, held.source_port) == (out.destination, out.destination_port)
                && (held.destination, held.destination_port) == (out.source, out.source_port)
        };
        for _ in 0..self.waiting.len() {
            let Some(held) = self.waiting.pop_front() else { break };
            if is_the_same(&held.flow) {
                cx.drop_held(held.packet, reasons.unsolicited_syn);
            } else {
                self.waiting.push_back(held);
            }
        }
    }

    /// Tells the senders of those that have waited for long enough.
    pub(super) fn tick(&mut self, reasons: &Reasons, cx: &mut Context<'_>) {
        while let Some(held) = self.waiting.pop_front_if(|held| held.until <= cx.now()) {
            // Its sender may be one of ours, by its external address: then the error turns.
            let from = held.flow.destination.into();
            cx.refuse_as(from, &held.packet, IcmpError::PortUnreachable, Direction::Inbound);
            cx.drop_held(held.packet, reasons.unsolicited_syn);
        }
    }
}
