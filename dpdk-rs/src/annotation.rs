//! Dynamic flags of DPDK's mbuf (rte_mbuf_dyn.h): whether a packet is annotated, a mark that stands for itself, and
//! whether the packet is being traced.

use crate::Errno;
use dpdk_sys as sys;
use std::ffi::CStr;

/// Whether a packet is annotated, in `ol_flags`. DPDK gives the lowest free flags to whoever asks for any,
/// so the highest ones are there; and what is known when this is compiled costs no look at memory.
pub(crate) const FLAG: u64 = sys::RTE_MBUF_F_LAST_FREE;
/// The same: whether a packet is marked.
pub(crate) const MARK: u64 = FLAG >> 1;
/// The same: whether a packet is being traced.
pub(crate) const TRACED: u64 = FLAG >> 2;

const FLAG_NAME: &CStr = c"dpdk_rs_annotated";
const MARK_NAME: &CStr = c"dpdk_rs_marked";
const TRACED_NAME: &CStr = c"dpdk_rs_traced";

/// Asks DPDK for the flags. The EAL is up, and no packet exists yet.
pub(crate) fn register() -> Result<(), Errno> {
    register_flag(FLAG_NAME, FLAG)?;
    register_flag(MARK_NAME, MARK)?;
    register_flag(TRACED_NAME, TRACED)
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
