//! How far a TCP connection is, as far as RFC 5382 and RFC 7857 need it.

use super::policy::Timer;
use nf_framework::headers::TcpFlags;

/// Which way a segment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Out,
    In,
}

/// What was seen of a connection; its bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct TcpState(u8);

const SYN_OUT: u8 = 1;
const SYN_IN: u8 = 2;
const FIN_OUT: u8 = 4;
const FIN_IN: u8 = 8;
const RESET: u8 = 16;

impl TcpState {
    /// Flags that change something.
    pub(super) const SIGNALS: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0);

    /// Whether a reset was seen, so that any segment means something.
    #[inline]
    pub(super) fn is_reset(self) -> bool {
        self.0 & RESET != 0
    }

    /// Whether both sides have agreed on it.
    pub(super) fn is_open(self) -> bool {
        self.0 & (SYN_OUT | SYN_IN) == SYN_OUT | SYN_IN
    }

    fn is_ended(self) -> bool {
        self.0 & (FIN_OUT | FIN_IN) == FIN_OUT | FIN_IN
    }

    /// What is known after a segment.
    pub(super) fn after(self, flags: TcpFlags, way: Way) -> Self {
        if flags.contains(TcpFlags::RST) {
            return Self(self.0 | RESET);
        }
        let mut state = self.0;
        // RFC 7857 section 2.2: traffic behind a reset says that it was none.
        if way == Way::Out {
            state &= !RESET;
        }
        if flags.contains(TcpFlags::SYN) {
            // What goes out on a connection that is over begins a new one.
            if way == Way::Out && (self.is_ended() || self.is_reset()) {
                state = 0;
            }
            state |= match way {
                // It answers one that came in.
                Way::Out if flags.contains(TcpFlags::ACK) => SYN_OUT | SYN_IN,
                Way::Out => SYN_OUT,
                Way::In => SYN_IN,
            };
        }
        if flags.contains(TcpFlags::FIN) {
            state |= if way == Way::Out { FIN_OUT } else { FIN_IN };
        }
        Self(state)
    }

    pub(super) fn timer(self) -> Timer {
        if self.is_ended() || self.is_reset() {
            Timer::TcpClosing
        } else if self.is_open() {
            Timer::TcpEstablished
        } else {
            Timer::TcpOpening
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Timer::{TcpClosing as Closing, TcpEstablished as Established, TcpOpening as Opening};
    use Way::{In, Out};

    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;
    const FIN: TcpFlags = TcpFlags::FIN;
    const RST: TcpFlags = TcpFlags::RST;
    const SYN_ACK: TcpFlags = TcpFlags(SYN.0 | ACK.0);

    #[test]
    fn a_connection_is_timed_by_what_both_sides_have_said() {
        for (what, segments, expected) in [
            ("begun", &[(SYN, Out)][..], Opening),
            ("opened", &[(SYN, Out), (SYN_ACK, In)], Established),
            ("opened by both at once", &[(SYN, Out), (SYN, In), (SYN_ACK, Out), (SYN_ACK, In)], Established),
            ("opened from outside", &[(SYN_ACK, Out)], Established),
            ("without a beginning", &[(ACK, Out), (ACK, In)], Opening),
            ("half closed", &[(SYN, Out), (SYN_ACK, In), (FIN, Out)], Established),
            ("closed", &[(SYN, Out), (SYN_ACK, In), (FIN, Out), (FIN, In)], Closing),
            ("acknowledged after its end", &[(SYN, Out), (SYN_ACK, In), (FIN, In), (FIN, Out), (ACK, Out)], Closing),
            ("reset", &[(SYN, Out), (SYN_ACK, In), (RST, In)], Closing),
            ("going on behind a reset", &[(SYN, Out), (SYN_ACK, In), (RST, In), (ACK, Out)], Established),
            ("reset while it opens", &[(SYN, Out), (RST, In)], Closing),
            ("begun anew", &[(SYN, Out), (SYN_ACK, In), (FIN, In), (FIN, Out), (SYN, Out)], Opening),
            ("begun anew behind a reset", &[(SYN, Out), (SYN_ACK, In), (RST, In), (SYN, Out)], Opening),
        ] {
            let state = segments.iter().fold(TcpState::default(), |state, (flags, way)| state.after(*flags, *way));
            assert_eq!(state.timer(), expected, "{what}");
        }
    }
}
