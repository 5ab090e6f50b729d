//! Generated declarations of the DPDK that is installed, and a C shim for what is
//! inline or thread-local there. This crate has no opinion: every function is as unsafe
//! as in C. `dpdk-rs` is the layer to write programs against.
//!
//! - Functions that DPDK exports are declared under their own names.
//! - `shim_*` functions stand for inline ones; `csrc/shim.h` documents them. Structures
//!   whose shape changed between DPDK 22.11 and 25.11 are filled there into `shim_*`
//!   structures of fixed shape.
//! - Flags (`RTE_ETH_RX_OFFLOAD_*`, `RTE_ETH_TX_OFFLOAD_*`, `RTE_ETH_RSS_*`,
//!   `RTE_ETH_LINK_SPEED_*`, `RTE_MBUF_F_*`) are `u64`, all of them.
//! - `cfg(dpdk_ge_23_11)`, `cfg(dpdk_ge_24_11)`, `cfg(dpdk_ge_25_11)` are set inside this
//!   crate; crates above read `DEP_DPDK_VERSION` in their build scripts.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]

#[allow(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    clippy::all,
    reason = "generated code keeps C's names and manners"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

/// DPDK's version as its headers state it: year, month and minor release.
pub const HEADERS_VERSION: (u32, u32, u32) = (RTE_VER_YEAR, RTE_VER_MONTH, RTE_VER_MINOR);
