//! The two ways through a chain.

/// The way a packet goes through a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Direction {
    /// From inside to outside: the functions see it first to last.
    Outbound,
    /// From outside to inside: last to first.
    Inbound,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Outbound => Self::Inbound,
            Self::Inbound => Self::Outbound,
        }
    }
}
