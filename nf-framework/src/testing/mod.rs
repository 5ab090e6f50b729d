//! Tests of functions on real packets, without a NIC, root, hugepages or a clock.
//!
//! - [`Frame`] builds frames, checksums and lengths included.
//! - [`trial`] puts cases through a chain on one DPDK that all tests of a process share, on
//!   virtual time, and after each case looks for packets that leaked.
//! - [`lab`] is for tests that want more than cases.
//!
//! ```
//! use nf_framework::testing::{Case, Frame, trial};
//! use nf_framework::{Context, DropReason, Mbuf, PacketFunction, Verdict};
//!
//! struct LengthLimit(usize);
//!
//! impl PacketFunction for LengthLimit {
//!     fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
//!         if packet.len() > self.0 { Verdict::Drop(DropReason::POLICY) } else { Verdict::Next }
//!     }
//! }
//!
//! let short = Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, 53);
//! let long = short.clone().payload(&[0; 1000]);
//! trial(
//!     |_| LengthLimit(100).into(),
//!     [
//!         Case::new("a short packet passes").outbound(short.build()).leaves_unchanged(),
//!         Case::new("a long packet is dropped").outbound(long.build()).dropped("policy"),
//!     ],
//! );
//! ```
//!
//! The shared DPDK runs without hugepages and leaves nothing in the file system, so that many
//! test processes run side by side, as any user. `NF_TEST_EAL` replaces its arguments, for
//! instance to test on hugepages: `NF_TEST_EAL="--in-memory --no-pci --no-telemetry"`.

mod case;
mod device;
mod frame;
mod lab;
mod trial;

pub use case::{Case, trial};
pub use device::honest_checksum;
pub use frame::Frame;
pub use lab::{Lab, lab};
pub use trial::{Outcome, Trial};
