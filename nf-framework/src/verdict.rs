//! What becomes of a packet, and why.

use std::sync::{Mutex, PoisonError};

/// A port's place among the ports of a program (not DPDK's number).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PortIx(pub u16);

/// What a function says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// Nothing: the next function sees it.
    Next,
    /// It leaves by this port; no other function sees it.
    Send(PortIx),
    /// It comes in again from the chain's other end (hairpin); no other function of this
    /// pass sees it.
    Turn,
    /// It is freed and counted under this reason.
    Drop(DropReason),
}

/// Why a packet was dropped: an index into the program's [`DropReasons`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DropReason(u16);

impl DropReason {
    /// No function decided and nothing forwards what is undecided: fail closed.
    pub const UNDECIDED: Self = Self(0);
    /// The port took nothing more: its transmit queue is full, or its link is down.
    pub const TX_FULL: Self = Self(1);
    /// A function sent it to a port that the program does not have.
    pub const NO_SUCH_PORT: Self = Self(2);
    /// More packets were emitted and resumed than wait at once.
    pub const PENDING_FULL: Self = Self(3);
    /// It turned twice: a hairpin that leads to itself.
    pub const TURNED_TWICE: Self = Self(4);
    /// It arrived in several segments or with shared data.
    pub const NOT_ONE_SEGMENT: Self = Self(5);
    /// It was still waiting to go on when the program stopped.
    pub const STOPPED: Self = Self(6);
    /// A function's rules forbid it.
    pub const POLICY: Self = Self(7);
    /// A function emitted it without data.
    pub const EMPTY: Self = Self(8);
    /// The port's driver would not send it, and sent what was behind it: too long for the
    /// port, or too short.
    pub const TX_REFUSED: Self = Self(9);
    /// The worker that owns it, or that has a queue to send it by, is behind: the ring to that
    /// worker is full.
    pub const HAND_OVER_FULL: Self = Self(10);
    /// It would have begun a session while the program is being drained; for functions to
    /// use ([`Context::draining`](crate::Context::draining)).
    pub const DRAINING: Self = Self(11);
    /// A function that a new configuration replaced held it, or functions passed it to each
    /// other without end when their policies changed.
    pub const RELOADED: Self = Self(12);
    /// A first fragment without all its headers (RFC 1858, RFC 7112), or TCP data where its header
    /// should be (RFC 3128).
    pub const FRAGMENT_HEADERS: Self = Self(13);
    /// A fragment that is empty, no multiple of 8 octets and not the last, or beyond the longest
    /// packet.
    pub const FRAGMENT_LENGTH: Self = Self(14);
    /// It overlaps another fragment of its packet, or they tell different lengths: all that still
    /// comes of the packet is dropped (RFC 5722).
    pub const FRAGMENT_OVERLAP: Self = Self(15);
    /// The same fragment was here before.
    pub const FRAGMENT_DUPLICATE: Self = Self(16);
    /// Its packet has more fragments than are kept track of.
    pub const FRAGMENT_MANY: Self = Self(17);
    /// There is no room for one more packet in fragments, or to hold one more fragment.
    pub const FRAGMENTS_FULL: Self = Self(18);
    /// It was held for the first fragment of its packet, which did not come in time.
    pub const FRAGMENT_EXPIRED: Self = Self(19);

    /// The place of its counter.
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The reasons that the framework knows without being told, in the order of the constants.
const BUILT_IN: [(&str, &str); 20] = [
    ("undecided", "no function decided, and nothing forwards what is undecided"),
    ("tx-full", "the port took nothing more: its transmit queue is full, or its link is down"),
    ("no-such-port", "a function sent it to a port that the program does not have"),
    ("pending-full", "more packets were emitted and resumed than wait at once"),
    ("turned-twice", "a hairpin led to itself"),
    ("not-one-segment", "arrived in several segments or with shared data"),
    ("stopped", "was still waiting to go on when the program stopped"),
    ("policy", "a function's rules forbid it"),
    ("empty", "a function emitted it without data"),
    ("tx-refused", "the port's driver would not send it: too long for the port, or too short"),
    ("hand-over-full", "the worker that it was to be handed over to is behind: the ring to that worker is full"),
    ("draining", "no new sessions: the program is draining"),
    ("reloaded", "was held by a function, or went round between functions, that a reload changed"),
    ("fragment-headers", "a first fragment without all its headers, or TCP data where its header should be"),
    ("fragment-length", "a fragment that is empty, no multiple of 8 octets, or beyond the longest packet"),
    ("fragment-overlap", "overlaps another fragment of its packet, or they tell different lengths"),
    ("fragment-duplicate", "the same fragment was here before"),
    ("fragment-many", "its packet has more fragments than are kept track of"),
    ("fragments-full", "no room for one more packet in fragments, or to hold one more fragment"),
    ("fragment-expired", "was held for the first fragment of its packet, which did not come in time"),
];

/// The drop reasons of a program: those of the framework and those that functions register
/// while they are set up.
#[derive(Debug)]
pub struct DropReasons(Mutex<Vec<(String, String)>>);

impl DropReasons {
    /// The framework's own; a program has one table, so that a reason means the same everywhere.
    pub(crate) fn built_in() -> Self {
        Self(Mutex::new(BUILT_IN.map(|(name, help)| (name.to_owned(), help.to_owned())).to_vec()))
    }
}

impl DropReasons {
    /// How many there may be in one program.
    pub const CAPACITY: usize = 128;

    /// The reason of this name, registered if it is new. The name is how it is shown
    /// (`port-blocked`), the help says when it happens.
    ///
    /// # Errors
    ///
    /// When a program has more than [`DropReasons::CAPACITY`].
    pub fn register(&self, name: &str, help: &str) -> Result<DropReason, TooManyDropReasons> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = reasons.iter().position(|(known, _)| known == name).unwrap_or(reasons.len());
        if index >= Self::CAPACITY {
            return Err(TooManyDropReasons { name: name.to_owned() });
        }
        if index == reasons.len() {
            reasons.push((name.to_owned(), help.to_owned()));
        }
        u16::try_from(index).map(DropReason).map_err(|_| TooManyDropReasons { name: name.to_owned() })
    }

    /// Name and help of each, by index.
    #[must_use]
    pub fn list(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// More drop reasons than there are counters for.
#[derive(Debug, thiserror::Error)]
#[error("no room for the drop reason {name:?}: a program may have {}", DropReasons::CAPACITY)]
pub struct TooManyDropReasons {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_their_own_line() {
        let reasons = DropReasons::built_in();
        for (reason, name) in [
            (DropReason::UNDECIDED, "undecided"),
            (DropReason::TX_FULL, "tx-full"),
            (DropReason::NO_SUCH_PORT, "no-such-port"),
            (DropReason::PENDING_FULL, "pending-full"),
            (DropReason::TURNED_TWICE, "turned-twice"),
            (DropReason::NOT_ONE_SEGMENT, "not-one-segment"),
            (DropReason::STOPPED, "stopped"),
            (DropReason::POLICY, "policy"),
            (DropReason::EMPTY, "empty"),
            (DropReason::TX_REFUSED, "tx-refused"),
            (DropReason::HAND_OVER_FULL, "hand-over-full"),
            (DropReason::DRAINING, "draining"),
            (DropReason::RELOADED, "reloaded"),
        ] {
            assert_eq!(reasons.register(name, "").unwrap(), reason);
        }
    }

    #[test]
    fn a_name_is_registered_once_and_the_table_is_bounded() {
        let reasons = DropReasons::built_in();
        let first = reasons.register("mine", "help").unwrap();
        assert_eq!(reasons.register("mine", "other help").unwrap(), first);
        for index in reasons.list().len()..DropReasons::CAPACITY {
            reasons.register(&format!("reason-{index}"), "").unwrap();
        }
        assert!(reasons.register("one-more", "").is_err());
        assert_eq!(reasons.register("mine", "").unwrap(), first);
    }
}
