//! What becomes of a packet.

use super::config::State;
use super::packet::Seen;
use nf_framework::DropReason;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Pass,
    Drop(DropReason),
    /// The rules are asked.
    Ask(Seen, State),
    /// It belongs to nothing, or to what is over; but a packet before it in the batch, which the rules are still to be
    /// asked about, may begin what it belongs to.
    Wait(Seen, DropReason),
}
