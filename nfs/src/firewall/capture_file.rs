//! Frames from capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), in both byte
//! orders. What is no Ethernet and has IP in it gets an Ethernet header.

use std::time::Duration;

/// Why a capture cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCapture {
    /// Another format.
    #[error("neither a pcap nor a pcapng file")]
    Format,
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

/// Reads a file's bytes.
pub(super) fn read(bytes: &[u8]) -> Result<CaptureFile, InvalidCapture> {
    let mut file = CaptureFile::default();
    let reader = |big_endian| Reader { bytes, big_endian };
    let read = match bytes.first_chunk().copied().map(u32::from_be_bytes) {
        Some(0xa1b2_c3d4) => file.pcap(reader(true), MICROSECONDS),
        Some(0xd4c3_b2a1) => file.pcap(reader(false), MICROSECONDS),
        Some(0xa1b2_3c4d) => file.pcap(reader(true), NANOSECONDS),
        Some(0x4d3c_b2a1) => file.pcap(reader(false), NANOSECONDS),
        Some(SECTION) => file.pcapng(reader(true)),
        _ => return Err(InvalidCapture::Format),
    };
    match read {
        Ok(()) => Ok(file),
        Err(End::CutShort) => Ok(CaptureFile { breaks_off: true, ..file }),
        Err(End::Invalid(invalid)) => Err(invalid),
    }
}

/// Why there is no more of a file.
enum End {
    CutShort,
    Invalid(InvalidCapture),
}

const MICROSECONDS: u64 = 1_000_000;
const NANOSECONDS: u64 = 1_000_000_000;

const SECTION: u32 = 0x0a0d_0d0a;

/// An interface that a pcapng file describes.
struct Interface {
    link_type: u32,
    /// Units of its time stamps in a second.
    units: u64,
}

impl CaptureFile {
    fn pcap(&mut self, mut file: Reader<'_>, units: u64) -> Result<(), End> {
        let header = file.take(20).and_then(|_| file.u32());
        // The upper bits say whether frames end with their check sequence.
        let link_type = header.map_err(|_| End::Invalid(InvalidCapture::Format))? & 0xffff;
        while !file.bytes.is_empty() {
            let (seconds, fraction) = (file.u32()?, file.u32()?);
            let (captured, length) = (file.u32()?, file.u32()?);
            let time = Duration::from_secs(seconds.into()) + duration(fraction.into(), units);
            self.push(time, link_type, file.take(captured as usize)?, length)?;
        }
        // Also if it has no packets.
        with_ethernet(link_type, &[]).map(drop)
    }

    fn pcapng(&mut self, mut file: Reader<'_>) -> Result<(), End> {
        const INTERFACE: u32 = 1;
        const ENHANCED_PACKET: u32 = 6;
        let mut interfaces: Vec<Interface> = Vec::new();
        while !file.bytes.is_empty() {
            let block_type = file.u32()?;
            if block_type == SECTION {
                // Each section has a byte order of its own, which its third word tells.
                file.big_endian = match file.bytes.get(4..8) {
                    Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
                    Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
                    _ => return Err(End::Invalid(InvalidCapture::Format)),
                };
                interfaces.clear();
            }
            // The length stands at both ends of the block.
            let length = file.u32()? as usize;
            let body = length.checked_sub(12).ok_or(End::Invalid(InvalidCapture::Format))?;
            let mut block = Reader { bytes: file.take(body)?, big_endian: file.big_endian };
            file.u32()?;
            match block_type {
                INTERFACE => {
                    let (link_type, _reserved, _snap_length) = (block.u16()?, block.u16()?, block.u32()?);
                    interfaces.push(Interface { link_type: link_type.into(), units: resolution(block)? });
                }
                ENHANCED_PACKET => {
                    let (interface, high, low) = (block.u32()?, block.u32()?, block.u32()?);
                    let (captured, length) = (block.u32()?, block.u32()?);
                    let interface = interfaces.get(interface as usize).ok_or(End::Invalid(InvalidCapture::Format))?;
                    let time = duration(u64::from(high) << 32 | u64::from(low), interface.units);
                    self.push(time, interface.link_type, block.take(captured as usize)?, length)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, time: Duration, link_type: u32, data: &[u8], length: u32) -> Result<(), End> {
        let missing = (length as usize).saturating_sub(data.len());
        self.packets.push(Captured { time, frame: with_ethernet(link_type, data)?, missing });
        Ok(())
    }
}

/// A frame, by the numbers of <https://www.tcpdump.org/linktypes.html>.
fn with_ethernet(link_type: u32, data: &[u8]) -> Result<Vec<u8>, End> {
    // Where the packet begins, and its Ethernet type.
    let (skip, ether_type) = match link_type {
        1 => return Ok(data.to_vec()),
        // Raw IP.
        101 | 228 | 229 => {
            let six = data.first().is_some_and(|first| first >> 4 == 6);
            (0, Some(if six { &[0x86, 0xdd][..] } else { &[0x08, 0x00] }))
        }
        // Linux "cooked", of the interface "any".
        113 => (16, data.get(14..16)),
        276 => (20, data.get(..2)),
        other => return Err(End::Invalid(InvalidCapture::LinkType(other))),
    };
    let packet = data.get(skip..).unwrap_or_default();
    Ok([&[0; 12], ether_type.unwrap_or_default(), packet].concat())
}

/// Units of time in a second, from the options behind a description of an interface.
fn resolution(mut options: Reader<'_>) -> Result<u64, End> {
    const END: u16 = 0;
    const RESOLUTION: u16 = 9;
    while !options.bytes.is_empty() {
        let (code, length) = (options.u16()?, usize::from(options.u16()?));
        if code == END {
            break;
        }
        let value = options.take(length.next_multiple_of(4))?;
        if let (RESOLUTION, [value, ..]) = (code, value) {
            let base: u64 = if value & 0x80 == 0 { 10 } else { 2 };
            return Ok(base.checked_pow(u32::from(value & 0x7f)).unwrap_or(u64::MAX));
        }
    }
    Ok(MICROSECONDS)
}

fn duration(time: u64, units: u64) -> Duration {
    let nanoseconds = u128::from(time % units) * u128::from(NANOSECONDS) / u128::from(units);
    Duration::from_secs(time / units) + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Numbers of one byte order from a file's bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, wanted: usize) -> Result<&'a [u8], End> {
        let (taken, rest) = self.bytes.split_at_checked(wanted).ok_or(End::CutShort)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, End> {
        let octets = self.take(2)?.first_chunk().copied().unwrap_or_default();
        Ok(if self.big_endian { u16::from_be_bytes(octets) } else { u16::from_le_bytes(octets) })
    }

    fn u32(&mut self) -> Result<u32, End> {
        let octets = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(if self.big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) })
    }
}
