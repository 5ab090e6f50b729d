//! What stands in the way of a connection that rules accept.

/// Why a connection does not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Full,
    SourceLimit,
    SourcesFull,
    EmbryonicLimit,
}
