//! The way of packets through the chain: which part saw them, what it changed, and why it did what it did.
//!
//! A trace owns what it needs from the start: a filter, and room for so many events on each worker. It must not change
//! what becomes of packets: those that are traced go through the chain one at a time and in their place, through the
//! same code as ever. What a packet did is read from what changed while it was alone on its way (its bytes, its
//! verdict, the counters, what waits to go on), so no function has to know of it; one that wants to say more has
//! [`NetworkFunction::trace_note`](crate::NetworkFunction::trace_note).

mod control;
mod drops;
mod event;
mod fields;
mod note;
mod pipeline;
mod story;
mod tracer;

pub(crate) use control::{PreparedTrace, Share};
pub use control::{TraceError, TraceRequest, Tracing};
pub(crate) use drops::{DropNames, Taps};
pub use drops::{DropsError, DropsRequest, DropsWritten};
pub(crate) use event::Place;
pub use note::Note;
pub(crate) use story::{Names, Sight, sights};
pub use story::{Step, Trace, Traces};
pub(crate) use tracer::{Tracer, Unwatched, Watch};

use crate::annotation::Annotation;
use crate::verdict::Verdict;

/// A packet that is being traced, as a function had it before it did something with it.
#[derive(Debug)]
pub struct TracedPacket<'a> {
    /// Its bytes, a copy.
    pub frame: &'a mut [u8],
    /// What went with it.
    pub annotation: Annotation,
    /// The tag of its VLAN, if that is not among the bytes.
    pub vlan: Option<u16>,
    /// What the function said of it; `None` if it took it.
    pub verdict: Option<Verdict>,
}
