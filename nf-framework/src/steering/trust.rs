//! Whether a device spreads packets as it was told: watched for as long as it does.

/// Packets that may have been in a queue before the device was told: DPDK counts the descriptors of
/// a queue in 16 bits.
const UNTOLD: u32 = 1 << 16;
/// Packets checked then, and afterwards one in so many.
const CHECKED: u32 = 1024;

/// What is known of the device at the end of one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// Nothing: every packet's owner is found here.
    None,
    /// It has been told, and so far brought here what belongs here.
    Watched {
        /// Packets to be looked at before the first that is not.
        at_first: u32,
        /// Packets until the next that is.
        until_next: u32,
    },
}

impl Trust {
    /// In a device that has been told and has a queue for each worker.
    pub(crate) fn new() -> Self {
        Self::Watched { at_first: UNTOLD + CHECKED, until_next: CHECKED - 1 }
    }

    /// In a device that was started, and has been told or not.
    pub(crate) fn after_start(told: bool) -> Self {
        if told { Self::new() } else { Self::None }
    }

    /// Whether the next packet can be believed to be where it belongs without looking.
    #[inline]
    pub(crate) fn believes(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::Watched { at_first: 0, until_next: until_next @ 0 } => {
                *until_next = CHECKED - 1;
                false
            }
            Self::Watched { at_first: 0, until_next } => {
                *until_next -= 1;
                true
            }
            Self::Watched { at_first, .. } => {
                *at_first -= 1;
                false
            }
        }
    }

    /// A packet that was looked at belongs elsewhere. Returns whether that was the end of trust.
    pub(crate) fn was_misled(&mut self) -> bool {
        let end = matches!(self, Self::Watched { at_first, .. } if *at_first < CHECKED);
        if end {
            *self = Self::None;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_looked_at_at_first_and_then_one_in_1024() {
        let mut trust = Trust::new();
        let looked_at: Vec<u32> = (0..68 * 1024).filter(|_| !trust.believes()).collect();
        let expected: Vec<u32> = (0..65 * 1024).chain([66 * 1024 - 1, 67 * 1024 - 1, 68 * 1024 - 1]).collect();
        assert_eq!(looked_at, expected);
        let mut trust = Trust::None;
        assert!((0..12 * 1024).all(|_| !trust.believes()) && !trust.was_misled());
    }

    #[test]
    fn a_packet_from_before_the_device_was_told_says_nothing_and_any_later_one_ends_trust() {
        let mut trust = Trust::new();
        for _ in 0..1 << 16 {
            assert!(!trust.believes() && !trust.was_misled());
        }
        assert!(!trust.believes() && trust.was_misled());
        assert_eq!(trust, Trust::None);
        assert!(!trust.was_misled(), "once");
    }
}
