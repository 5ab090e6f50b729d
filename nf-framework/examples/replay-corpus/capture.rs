//! Frames from capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng),
//! each in both byte orders. It reads what is there: of a file that breaks off, what came before.

use std::time::Duration;

/// LINKTYPE_ETHERNET.
pub(crate) const ETHERNET: u16 = 1;

/// One captured packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    /// Since the epoch that its file counts from.
    pub(crate) time: Duration,
    /// How it begins, by the numbers of <https://www.tcpdump.org/linktypes.html>.
    pub(crate) link_type: u16,
    pub(crate) data: Vec<u8>,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Capture {
    pub(crate) packets: Vec<Packet>,
    /// Why there is no more of it.
    pub(crate) fault: Option<Fault>,
}

/// Why a file cannot be read, or not to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("neither pcap nor pcapng: it begins with {0:02x?}")]
    NoCapture(Vec<u8>),
    #[error("cut short: {missing} of {wanted} bytes are missing at byte {at}")]
    CutShort { at: usize, wanted: usize, missing: usize },
    #[error("the block at byte {at} says that it has {length} bytes")]
    BlockLength { at: usize, length: u32 },
    #[error("the block at byte {at} is about interface {interface}, which was not described")]
    NoInterface { at: usize, interface: u32 },
}

/// Reads a file's bytes.
pub(crate) fn read(bytes: &[u8]) -> Capture {
    let mut capture = Capture::default();
    let packets = &mut capture.packets;
    let fault = match bytes.first_chunk() {
        Some([0xa1, 0xb2, 0xc3, 0xd4]) => pcap(Reader::new(bytes, true), MICROSECONDS, packets),
        Some([0xd4, 0xc3, 0xb2, 0xa1]) => pcap(Reader::new(bytes, false), MICROSECONDS, packets),
        Some([0xa1, 0xb2, 0x3c, 0x4d]) => pcap(Reader::new(bytes, true), NANOSECONDS, packets),
        Some([0x4d, 0x3c, 0xb2, 0xa1]) => pcap(Reader::new(bytes, false), NANOSECONDS, packets),
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => pcapng(Reader::new(bytes, true), packets),
        _ => Err(Fault::NoCapture(bytes.iter().take(4).copied().collect())),
    };
    capture.fault = fault.err();
    capture
}

const MICROSECONDS: u64 = 1_000_000;
const NANOSECONDS: u64 = 1_000_000_000;

fn pcap(mut file: Reader<'_>, units: u64, packets: &mut Vec<Packet>) -> Result<(), Fault> {
    file.take(20)?;
    // The upper half says whether frames end with their check sequence.
    let [first, second] = [file.u16()?, file.u16()?];
    let link_type = if file.big_endian { second } else { first };
    while !file.is_empty() {
        let (seconds, fraction) = (file.u32()?, file.u32()?);
        let (captured, _on_the_wire) = (file.u32()?, file.u32()?);
        let data = file.take(captured as usize)?.to_vec();
        let time = Duration::from_secs(seconds.into()) + duration(fraction.into(), units);
        packets.push(Packet { time, link_type, data });
    }
    Ok(())
}

/// An interface that a section of a pcapng file describes.
struct Interface {
    link_type: u16,
    snap_length: u32,
    /// Units of its time stamps in a second.
    units: u64,
}

fn pcapng(mut file: Reader<'_>, packets: &mut Vec<Packet>) -> Result<(), Fault> {
    const SECTION: u32 = 0x0a0d_0d0a;
    const INTERFACE: u32 = 1;
    const PACKET: u32 = 2;
    const SIMPLE_PACKET: u32 = 3;
    const ENHANCED_PACKET: u32 = 6;
    let mut interfaces: Vec<Interface> = Vec::new();
    while !file.is_empty() {
        let at = file.at;
        let block_type = file.u32()?;
        if block_type == SECTION {
            // Each section has a byte order of its own, which its third word tells.
            file.big_endian = file.bytes.get(at + 8..at + 12) == Some(&[0x1a, 0x2b, 0x3c, 0x4d]);
            interfaces.clear();
        }
        let length = file.u32()?;
        let body = (length as usize).checked_sub(12).filter(|_| length % 4 == 0);
        let mut block = file.part(body.ok_or(Fault::BlockLength { at, length })?)?;
        file.take(4)?;
        let (interface, time, captured) = match block_type {
            INTERFACE => {
                let (link_type, _reserved) = (block.u16()?, block.u16()?);
                let snap_length = block.u32()?;
                interfaces.push(Interface { link_type, snap_length, units: resolution(block)? });
                continue;
            }
            ENHANCED_PACKET => (block.u32()?, block.u64()?, block.u32()?),
            PACKET => {
                let (interface, _drops) = (block.u16()?, block.u16()?);
                (interface.into(), block.u64()?, block.u32()?)
            }
            SIMPLE_PACKET => (0, 0, 0),
            _ => continue,
        };
        let known = usize::try_from(interface).ok().and_then(|index| interfaces.get(index));
        let Interface { link_type, snap_length, units } = known.ok_or(Fault::NoInterface { at, interface })?;
        let on_the_wire = block.u32()?;
        let captured = match block_type {
            SIMPLE_PACKET if *snap_length > 0 => on_the_wire.min(*snap_length),
            SIMPLE_PACKET => on_the_wire,
            _ => captured,
        };
        let time = match block_type {
            // It has none: as if at once.
            SIMPLE_PACKET => packets.last().map_or(Duration::ZERO, |before| before.time),
            _ => duration(time, *units),
        };
        packets.push(Packet { time, link_type: *link_type, data: block.take(captured as usize)?.to_vec() });
    }
    Ok(())
}

/// Units of time in a second, from the options behind a description of an interface.
fn resolution(mut options: Reader<'_>) -> Result<u64, Fault> {
    const END: u16 = 0;
    const RESOLUTION: u16 = 9;
    while !options.is_empty() {
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
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], big_endian: bool) -> Self {
        Self { bytes, at: 0, big_endian }
    }

    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, wanted: usize) -> Result<&'a [u8], Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let missing = wanted.saturating_sub(rest.len());
        let taken = rest.get(..wanted).ok_or(Fault::CutShort { at: self.at, wanted, missing })?;
        self.at += wanted;
        Ok(taken)
    }

    /// The next bytes, to be read by themselves, at the places that they have in the file.
    fn part(&mut self, length: usize) -> Result<Self, Fault> {
        let at = self.at;
        self.take(length)?;
        Ok(Self { bytes: self.bytes.get(..self.at).unwrap_or_default(), at, big_endian: self.big_endian })
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        let bytes = self.take(2)?.first_chunk().copied().unwrap_or_default();
        Ok(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A pcapng time stamp: the upper half comes first in both byte orders.
    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }
}
