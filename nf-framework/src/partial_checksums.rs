//! Packets whose transport checksum the sender left to a device.
//!
//! The kernel of a host on this machine sums up the pseudo-header and leaves the rest to the device
//! (`CHECKSUM_PARTIAL`). Through a virtual one the packet comes here as it is, and net_af_packet and
//! net_af_xdp do not say which packets these are. An update of such a checksum would be of no use,
//! so it is completed before anybody sees it.

use crate::batch::Batch;
use crate::headers::Headers;

/// Whether this driver hands such packets over. (net_tap and virtio do not, unless they are asked.)
pub(crate) fn come_by(driver: &str) -> bool {
    matches!(driver, "net_af_packet" | "net_af_xdp")
}

/// Completes the checksums of the packets that need it.
#[cold]
pub(crate) fn complete(batch: &mut Batch) {
    batch.prefetch();
    for slot in batch.undecided() {
        if let Some(packet) = batch.packet_mut(slot)
            && let Ok(mut headers) = Headers::parse(packet.data_mut())
        {
            headers.complete_partial_checksum();
        }
    }
}
