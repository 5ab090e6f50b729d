//! Where a packet's annotation is: a dynamic field of DPDK's mbuf, and a dynamic flag that says
//! whether it holds something (rte_mbuf_dyn.h); and a flag that stands for itself.

use crate::Errno;
use dpdk_sys as sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether a packet is annotated, in `ol_flags`. DPDK gives the lowest free flags to whoever asks for any,
/// so the highest ones are there; and what is known when this is compiled costs no look at memory.
pub(crate) const FLAG: u64 = sys::RTE_MBUF_F_LAST_FREE;
/// The same: whether a packet is marked.
pub(crate) const MARK: u64 = FLAG >> 1;
/// Bytes from the mbuf's start.
static OFFSET: AtomicUsize = AtomicUsize::new(0);

const FIELD_NAME: &CStr = c"dpdk_rs_annotation";
const FLAG_NAME: &CStr = c"dpdk_rs_annotated";
const MARK_NAME: &CStr = c"dpdk_rs_marked";

#[inline]
pub(crate) fn offset() -> usize {
    OFFSET.load(Ordering::Relaxed)
}

/// Asks DPDK for the field and the flags. The EAL is up, and no packet exists yet.
pub(crate) fn register(offsets: std::ops::Range<usize>) -> Result<(), Errno> {
    let field = sys::rte_mbuf_dynfield {
        name: name(FIELD_NAME),
        size: size_of::<u64>(),
        align: align_of::<u64>(),
        ..sys::rte_mbuf_dynfield::default()
    };
    // SAFETY: DPDK copies what it is given.
    let at = |offset| unsafe { sys::rte_mbuf_dynfield_register_offset(&raw const field, offset) };
    let offset = offsets.step_by(align_of::<u64>()).find_map(|offset| usize::try_from(at(offset)).ok());
    let offset = offset.ok_or_else(Errno::last)?;
    register_flag(FLAG_NAME, FLAG)?;
    register_flag(MARK_NAME, MARK)?;
    OFFSET.store(offset, Ordering::Relaxed);
    Ok(())
}

fn register_flag(text: &CStr, flag: u64) -> Result<(), Errno> {
    let named = sys::rte_mbuf_dynflag { name: name(text), ..sys::rte_mbuf_dynflag::default() };
    // SAFETY: DPDK copies what it is given.
    let bit = unsafe { sys::rte_mbuf_dynflag_register_bitnum(&raw const named, flag.trailing_zeros()) };
    if bit < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// A name that is shorter than DPDK's longest, with zeros behind it.
fn name(text: &CStr) -> [std::ffi::c_char; sys::RTE_MBUF_DYN_NAMESIZE as usize] {
    let mut name = [0; sys::RTE_MBUF_DYN_NAMESIZE as usize];
    name.iter_mut().zip(text.to_bytes()).for_each(|(to, from)| *to = from.cast_signed());
    name
}
