//! A model of the firewall and of what stands before it, in plain maps and rows of octets: it shares no code
//! with what it judges.

pub(crate) mod bytes;
pub(crate) mod fragments;
pub(crate) mod generator;
pub(crate) mod model;
pub(crate) mod proxy;
#[path = "../nat_model/random.rs"]
pub(crate) mod random;
pub(crate) mod setting;
pub(crate) mod tcp;

/// Of virtual time.
pub(crate) type Nanoseconds = u64;
pub(crate) const SECOND: Nanoseconds = 1_000_000_000;
pub(crate) const MILLISECOND: Nanoseconds = 1_000_000;

/// Where a packet comes in or leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    Inside,
    Outside,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Inside => Self::Outside,
            Self::Outside => Self::Inside,
        }
    }
}
