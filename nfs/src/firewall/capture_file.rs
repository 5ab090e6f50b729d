//! Frames from capture files. What is no Ethernet and has IP in it gets an Ethernet header.

use nf_framework::capture::{CaptureError, CaptureReader, CapturedPacket, LinkType};
use std::io::Read;
use std::time::Duration;

/// Why a capture cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCapture {
    /// Another format, or a damage; what the reader says of it.
    #[error("{0}")]
    Unreadable(String),
    /// Frames of another kind.
    #[error(
        "link type {0} is not Ethernet (1), raw IP (101) or Linux cooked (113, 276): capture on an interface of such"
    )]
    LinkType(u32),
}

/// The packets of a file.
#[derive(Default)]
pub(super) struct CaptureFile {
    pub(super) packets: Vec<Captured>,
    /// The file ends in the middle of a packet.
    pub(super) breaks_off: bool,
}

/// One of them.
pub(super) struct Captured {
    /// Since whenever the file counts from.
    pub(super) time: Duration,
    /// With an Ethernet header.
    pub(super) frame: Vec<u8>,
    /// Octets at the end that the capture left out.
    pub(super) missing: usize,
}

/// Reads a file.
pub(super) fn read(capture: impl Read) -> Result<CaptureFile, InvalidCapture> {
    let mut file = CaptureFile::default();
    let unreadable = |error: CaptureError| InvalidCapture::Unreadable(error.to_string());
    let mut reader = CaptureReader::new(capture).map_err(unreadable)?;
    // Also if it has no packets.
    reader.link_type().map_or(Ok(()), |link_type| with_ethernet(link_type, &[]).map(drop))?;
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => file.packets.push(Captured::new(&packet)?),
            Ok(None) => return Ok(file),
            Err(CaptureError::CutShort { .. }) => return Ok(CaptureFile { breaks_off: true, ..file }),
            Err(error) => return Err(unreadable(error)),
        }
    }
}

impl Captured {
    fn new(packet: &CapturedPacket<'_>) -> Result<Self, InvalidCapture> {
        let frame = with_ethernet(packet.link_type, packet.data)?;
        Ok(Self { time: packet.time, frame, missing: packet.missing() })
    }
}

fn with_ethernet(link_type: LinkType, data: &[u8]) -> Result<Vec<u8>, InvalidCapture> {
    // Where the packet begins, and its Ethernet type.
    let (skip, ether_type) = match link_type {
        LinkType::ETHERNET => return Ok(data.to_vec()),
        LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 => {
            let six = data.first().is_some_and(|first| first >> 4 == 6);
            (0, Some(if six { &[0x86, 0xdd][..] } else { &[0x08, 0x00] }))
        }
        LinkType::LINUX_SLL => (16, data.get(14..16)),
        LinkType::LINUX_SLL2 => (20, data.get(..2)),
        other => return Err(InvalidCapture::LinkType(other.0.into())),
    };
    let packet = data.get(skip..).unwrap_or_default();
    Ok([&[0; 12], ether_type.unwrap_or_default(), packet].concat())
}
