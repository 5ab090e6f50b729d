//! Frames of VLANs: their tags come off when they arrive, and tell the sides of a port apart.

use super::tables::Tables;
use super::vlan;
use crate::batch::Batch;
use crate::direction::Direction;

/// Takes the tags off, and moves what came in from outside by the port that both sides share.
/// Frames of no interface stay, to be refused.
#[inline]
pub(super) fn separate(tables: &Tables, batch: &mut Batch, direction: Direction, inbound: &mut Batch) {
    if !tables.tagged {
        return;
    }
    let stripped_by_device = tables.offloads(direction).strips_vlans;
    batch.prefetch();
    for slot in batch.undecided() {
        let Some(packet) = batch.packet_mut(slot) else { continue };
        packet.strip_vlan(stripped_by_device);
        let from_outside = tables.one_armed && tables.side(vlan(packet, tables)) == Some(Direction::Inbound);
        if from_outside && let Some(packet) = batch.take(slot) {
            // As many as a batch has slots find room.
            drop(inbound.push(packet));
        }
    }
    if !inbound.is_empty() {
        batch.close_ranks();
    }
}
