//! The function of the example port-block, for what measures it and what counts its instructions.
//! (The example itself is a program that stands in the README as it is: its parts are its own.)

use nf_framework::headers::Headers;
use nf_framework::{Context, Counter, DropReason, Mbuf, PacketFunction, SetupError, Verdict, WorkerSetup};

/// Drops UDP and TCP packets to the ports on a list, and counts them.
pub(crate) struct PortBlock {
    blocked: Vec<bool>,
    hits: Counter,
}

impl PortBlock {
    /// Blocks port 9, which no packet here goes to.
    pub(crate) fn new(worker: &mut WorkerSetup) -> Result<Self, SetupError> {
        Ok(Self { blocked: (0..=u16::MAX).map(|port| port == 9).collect(), hits: worker.counter("hits") })
    }
}

impl PacketFunction for PortBlock {
    #[inline]
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let Ok(headers) = Headers::parse(packet.data_mut()) else { return Verdict::Next };
        match headers.transport.ports() {
            Some((_, destination)) if self.blocked[usize::from(destination)] => {
                self.hits.add(1);
                Verdict::Drop(DropReason::POLICY)
            }
            _ => Verdict::Next,
        }
    }
}
