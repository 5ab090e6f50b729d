//! Capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng) read, pcapng written.
//!
//! A [`CaptureReader`] takes either format in both byte orders, a packet at a time: of a file of any size it keeps
//! what one packet needs. It trusts no length in the file, and says at which byte a file stops to make sense. It knows
//! nothing of what packets mean; [`LinkType`] says how they begin.
//!
//! ```
//! use nf_framework::capture::{CaptureReader, CaptureWriter, CapturedPacket};
//! use std::time::Duration;
//!
//! let mut file = Vec::new();
//! let mut writer = CaptureWriter::new(&mut file, &["eth0"])?;
//! let packet = CapturedPacket { comment: Some("no-route"), ..CapturedPacket::new(Duration::from_secs(7), &[0; 60]) };
//! writer.write(&packet)?;
//! writer.finish()?;
//!
//! let mut reader = CaptureReader::new(&file[..])?;
//! assert_eq!(reader.next_packet()?, Some(packet));
//! assert_eq!(reader.next_packet()?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The formats are read and written here and not by a crate. `pcap-parser` takes a length that is wrong for one that is
//! to be waited for and does not say what reading failed of, `pcap-file` refuses packets that are longer than their
//! file's header says, and what is left of the work for either is less than what they would bring.

mod link_type;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use link_type::LinkType;
pub use reader::{CaptureError, CaptureReader};
pub use writer::CaptureWriter;

use std::time::Duration;

/// A packet in a capture file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapturedPacket<'a> {
    /// Since the epoch, usually that of Unix. A simple packet of pcapng has no time; it has that of the one before it.
    pub time: Duration,
    /// How its data begin.
    pub link_type: LinkType,
    /// The number of the interface that it was seen at, in its section of the file; 0 in pcap.
    pub interface: u32,
    /// As many octets of it as were captured.
    pub data: &'a [u8],
    /// Octets that it had on the link.
    pub length: usize,
    /// What pcapng says of it to people, if anything: its first `opt_comment`.
    pub comment: Option<&'a str>,
}

impl<'a> CapturedPacket<'a> {
    /// A whole Ethernet frame at the first interface.
    #[must_use]
    pub fn new(time: Duration, frame: &'a [u8]) -> Self {
        Self { time, link_type: LinkType::ETHERNET, interface: 0, data: frame, length: frame.len(), comment: None }
    }

    /// Octets at its end that the capture has left out.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.length.saturating_sub(self.data.len())
    }
}
