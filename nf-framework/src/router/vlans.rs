//! Frames of VLANs: their tags come off when they arrive, and tell the sides of a port apart.

use super::tables::Tables;
use super::vlan;
use crate::batch::Batch;
use crate::context::Direction;
use std::sync::Arc;

/// What a worker does with frames of VLANs.
#[derive(Debug)]
pub(crate) struct Vlans {
    tables: Arc<Tables>,
    /// What came in from outside by the port that both sides share; empty between batches.
    inbound: Batch,
}

impl Vlans {
    /// For batches of so many packets; `None` if no interface is a VLAN.
    pub(crate) fn new(tables: &Arc<Tables>, burst: usize) -> Option<Self> {
        let inbound = Batch::with_limit(burst);
        tables.tagged.then(|| Self { tables: Arc::clone(tables), inbound })
    }

    /// Works by other tables from here on.
    pub(crate) fn adopt(&mut self, tables: &Arc<Tables>) {
        self.tables = Arc::clone(tables);
    }

    /// Takes the tags off.
    #[inline]
    pub(crate) fn untag(&self, batch: &mut Batch) {
        batch.prefetch();
        for slot in batch.undecided() {
            if let Some(packet) = batch.packet_mut(slot) {
                packet.strip_vlan(false);
            }
        }
    }

    /// Takes out what came in from outside, if both sides are on one port. Frames of no interface
    /// stay, to be refused.
    #[inline]
    pub(crate) fn inbound(&mut self, batch: &mut Batch) -> Option<&mut Batch> {
        if !self.tables.one_armed {
            return None;
        }
        for slot in batch.undecided() {
            let side = batch.packet(slot).and_then(|packet| self.tables.side(vlan(packet, &self.tables)));
            if side == Some(Direction::Inbound)
                && let Some(packet) = batch.take(slot)
            {
                // As many as a batch has slots find room.
                drop(self.inbound.push(packet));
            }
        }
        batch.close_ranks();
        Some(&mut self.inbound)
    }
}
