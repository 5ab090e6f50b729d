//! Marks of a classifier: from which side a packet comes, and whether it is a fragment.

use nf_framework::Direction;

const OUTBOUND: u8 = 1;
const INBOUND: u8 = 2;
const WHOLE: u8 = 4;
const FRAGMENT: u8 = 8;

/// Those that a packet has, or that a rule asks for where it asks for something.
#[inline]
pub(super) fn of(direction: Option<Direction>, fragment: Option<bool>) -> u8 {
    let side = direction.map_or(0, |direction| if direction == Direction::Inbound { INBOUND } else { OUTBOUND });
    side | fragment.map_or(0, |fragment| if fragment { FRAGMENT } else { WHOLE })
}
