//! Capture files read, a packet at a time.

use super::{CapturedPacket, LinkType};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Why a capture file cannot be read, or not to its end. Bytes are counted from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The operating system says so.
    #[error("cannot be read{}: {source}", if *.at > 0 { format!(" from byte {at} on") } else { String::new() })]
    Read {
        /// What was read before.
        at: u64,
        /// What it says.
        source: io::Error,
    },
    /// It begins like neither format.
    #[error("neither a pcap nor a pcapng file{}", begins(.0))]
    Format(Vec<u8>),
    /// It ends in the middle of a packet, a block, or its header.
    #[error("damaged at byte {at}: the file ends there, {missing} bytes too early")]
    CutShort {
        /// Where what is not whole begins.
        at: u64,
        /// Bytes that are not there.
        missing: usize,
    },
    /// A packet or block has a length that it cannot have.
    #[error("damaged at byte {at}: what begins there cannot have {length} bytes")]
    Length {
        /// Where it begins.
        at: u64,
        /// What it says to have.
        length: u32,
    },
    /// A section of a pcapng file does not say in which byte order it is.
    #[error("damaged at byte {at}: the section that begins there does not say in which byte order it is")]
    ByteOrder {
        /// Where it begins.
        at: u64,
    },
    /// A packet of an interface that the file does not describe.
    #[error("damaged at byte {at}: the packet there is of interface {interface}, which is not described before it")]
    NoInterface {
        /// Where its block begins.
        at: u64,
        /// The interface.
        interface: u32,
    },
}

fn begins(octets: &[u8]) -> String {
    match octets {
        [] => ": it is empty".to_owned(),
        _ => {
            octets.iter().fold(": it begins with the octets".to_owned(), |text, octet| text + &format!(" {octet:02x}"))
        }
    }
}

/// Reads a capture file, a packet at a time.
#[derive(Debug)]
pub struct CaptureReader<R> {
    input: R,
    /// Read from the input; what is not in `ahead` has been handed out, and stays until more is read.
    buffer: Vec<u8>,
    ahead: Range<usize>,
    /// Where in the file what is ahead begins.
    at: u64,
    big_endian: bool,
    format: Format,
    /// Of the section of a pcapng file.
    interfaces: Vec<Interface>,
    last: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Pcap {
        link_type: LinkType,
        units: u64,
        /// Octets of a packet's header.
        header: usize,
    },
    Pcapng,
    /// There is no more, or nothing that could be made sense of.
    Ended,
}

/// An interface that a section of a pcapng file describes.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: LinkType,
    snap_length: u32,
    /// Units of its time stamps in a second.
    units: u64,
    /// Seconds to be added to them.
    offset: i64,
}

/// A packet, with places in the buffer.
struct Found {
    time: Duration,
    link_type: LinkType,
    interface: u32,
    data: Range<usize>,
    length: u32,
    comment: Option<Range<usize>>,
}

/// What libpcap takes for a block at most, and more than it takes for most packets.
const LONGEST: usize = 16 << 20;
/// Read at once.
const CHUNK: usize = 64 << 10;

const MICROSECONDS: u64 = 1_000_000;
const NANOSECONDS: u64 = 1_000_000_000;

const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const INTERFACE: u32 = 1;
/// Of the first drafts.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

impl CaptureReader<File> {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::new(File::open(path).map_err(|source| CaptureError::Read { at: 0, source })?)
    }
}

impl<R: Read> CaptureReader<R> {
    /// Reads from a file's beginning. It asks for much at once, so the input need not be buffered.
    ///
    /// # Errors
    ///
    /// When it begins like no capture, or cannot be read.
    pub fn new(input: R) -> Result<Self, CaptureError> {
        let mut reader = Self {
            input,
            buffer: Vec::new(),
            ahead: 0..0,
            at: 0,
            big_endian: false,
            format: Format::Pcapng,
            interfaces: Vec::new(),
            last: Duration::ZERO,
        };
        let present = reader.fill(4)?;
        let magic = reader.octets(present).to_vec();
        let (big_endian, units, header) = match magic[..] {
            [0x0a, 0x0d, 0x0d, 0x0a] => return Ok(reader),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, MICROSECONDS, 16),
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, MICROSECONDS, 16),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, NANOSECONDS, 16),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, NANOSECONDS, 16),
            // As a libpcap of Linux distributions wrote it long ago, with more in a packet's header.
            [0xa1, 0xb2, 0xcd, 0x34] => (true, MICROSECONDS, 24),
            [0x34, 0xcd, 0xb2, 0xa1] => (false, MICROSECONDS, 24),
            _ => return Err(CaptureError::Format(magic)),
        };
        reader.big_endian = big_endian;
        reader.need(24)?;
        let mut fields = Fields { octets: reader.octets(24), big_endian };
        let link_type = fields.take(20).and_then(|_| fields.u32()).unwrap_or(0);
        // What is above says whether frames end with their check sequence.
        let link_type = LinkType(u16::try_from(link_type & 0xffff).unwrap_or(0));
        reader.format = Format::Pcap { link_type, units, header };
        reader.advance(24);
        Ok(reader)
    }

    /// The next packet; `None` at the end of the file, and behind an error.
    ///
    /// # Errors
    ///
    /// When the file cannot be read further, or makes no sense from here on.
    pub fn next_packet(&mut self) -> Result<Option<CapturedPacket<'_>>, CaptureError> {
        let found = match self.format {
            Format::Pcap { link_type, units, header } => self.next_of_pcap(link_type, units, header),
            Format::Pcapng => self.next_of_pcapng(),
            Format::Ended => return Ok(None),
        };
        let Ok(Some(Found { time, link_type, interface, data, length, comment })) = found else {
            self.format = Format::Ended;
            return found.map(|_| None);
        };
        self.last = time;
        let octets = |range: Range<usize>| self.buffer.get(range).unwrap_or_default();
        Ok(Some(CapturedPacket {
            time,
            link_type,
            interface,
            data: octets(data),
            length: length as usize,
            comment: comment.and_then(|comment| str::from_utf8(octets(comment)).ok()),
        }))
    }

    /// How much of the file has been read, in bytes: up to the packet that was read last.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Whether the file can hold packets of this kind alone; `None` of a pcapng file, whose packets say so themselves.
    #[must_use]
    pub fn link_type(&self) -> Option<LinkType> {
        match self.format {
            Format::Pcap { link_type, .. } => Some(link_type),
            Format::Pcapng | Format::Ended => None,
        }
    }

    fn next_of_pcap(&mut self, link_type: LinkType, units: u64, header: usize) -> Result<Option<Found>, CaptureError> {
        if self.fill(1)? == 0 {
            return Ok(None);
        }
        self.need(header)?;
        let mut fields = Fields { octets: self.octets(header), big_endian: self.big_endian };
        let mut next = || fields.u32().unwrap_or(0);
        let (seconds, fraction, captured, length) = (next(), next(), next(), next());
        let whole = header.saturating_add(captured as usize);
        if whole > LONGEST {
            return Err(CaptureError::Length { at: self.at, length: captured });
        }
        self.need(whole)?;
        let data = self.ahead.start + header..self.ahead.start + whole;
        self.advance(whole);
        let time = Duration::from_secs(seconds.into()) + duration(fraction.into(), units);
        Ok(Some(Found { time, link_type, interface: 0, data, length, comment: None }))
    }

    fn next_of_pcapng(&mut self) -> Result<Option<Found>, CaptureError> {
        loop {
            if self.fill(1)? == 0 {
                return Ok(None);
            }
            self.need(12)?;
            let at = self.at;
            let is_section = self.octets(4) == SECTION;
            if is_section {
                // Each section has a byte order of its own, which its third word tells.
                self.big_endian = match self.octets(12).get(8..) {
                    Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
                    Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
                    _ => return Err(CaptureError::ByteOrder { at }),
                };
                self.interfaces.clear();
            }
            let mut head = Fields { octets: self.octets(8), big_endian: self.big_endian };
            let (block_type, length) = (head.u32().unwrap_or(0), head.u32().unwrap_or(0));
            let wrong = CaptureError::Length { at, length };
            let whole = length as usize;
            if !(12..=LONGEST).contains(&whole) || !whole.is_multiple_of(4) {
                return Err(wrong);
            }
            self.need(whole)?;
            let mut foot = Fields { octets: self.octets(whole), big_endian: self.big_endian };
            if foot.take(whole - 4).and_then(|_| foot.u32()) != Some(length) {
                return Err(wrong);
            }
            let body = self.ahead.start + 8..self.ahead.start + whole - 4;
            self.advance(whole);
            match block_type {
                INTERFACE => self.describe(body).ok_or(wrong)?,
                PACKET | SIMPLE_PACKET | ENHANCED_PACKET => {
                    let (interface, packet) = self.packet(block_type, body).ok_or(wrong)?;
                    return match packet {
                        Some(found) => Ok(Some(found)),
                        None => Err(CaptureError::NoInterface { at, interface }),
                    };
                }
                _ => {}
            }
        }
    }

    /// Takes note of an interface.
    fn describe(&mut self, body: Range<usize>) -> Option<()> {
        const RESOLUTION: u16 = 9;
        const OFFSET: u16 = 14;
        let big_endian = self.big_endian;
        let mut block = Fields { octets: self.buffer.get(body)?, big_endian };
        let (link_type, _reserved, snap_length) = (LinkType(block.u16()?), block.u16()?, block.u32()?);
        let mut interface = Interface { link_type, snap_length, units: MICROSECONDS, offset: 0 };
        while let Some((code, value)) = block.option() {
            match (code, value) {
                (RESOLUTION, [value, ..]) => {
                    let base: u64 = if value & 0x80 == 0 { 10 } else { 2 };
                    interface.units = base.checked_pow(u32::from(value & 0x7f)).unwrap_or(u64::MAX);
                }
                (OFFSET, value) => {
                    let octets = value.first_chunk().copied().unwrap_or_default();
                    let read = if big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
                    interface.offset = read(octets);
                }
                _ => {}
            }
        }
        self.interfaces.push(interface);
        Some(())
    }

    /// The packet in a block, and its interface; no packet if that is not known, and nothing if what the block says
    /// does not fit into it.
    fn packet(&self, block_type: u32, body: Range<usize>) -> Option<(u32, Option<Found>)> {
        const COMMENT: u16 = 1;
        let end = body.end;
        let mut block = Fields { octets: self.buffer.get(body)?, big_endian: self.big_endian };
        let (interface, stamp) = match block_type {
            SIMPLE_PACKET => (0, None),
            PACKET => {
                let (interface, _drops) = (block.u16()?, block.u16()?);
                (interface.into(), Some(block.time()?))
            }
            _ => (block.u32()?, Some(block.time()?)),
        };
        let known = usize::try_from(interface).ok().and_then(|index| self.interfaces.get(index));
        let Some(&Interface { link_type, snap_length, units, offset }) = known else { return Some((interface, None)) };
        let (captured, length) = match block_type {
            SIMPLE_PACKET => {
                let length = block.u32()?;
                (if snap_length > 0 { length.min(snap_length) } else { length }, length)
            }
            _ => (block.u32()?, block.u32()?),
        };
        let begin = end - block.octets.len();
        block.take(captured as usize)?;
        let data = begin..begin + captured as usize;
        block.take((captured as usize).next_multiple_of(4) - captured as usize);
        let mut comment = None;
        while block_type == ENHANCED_PACKET && comment.is_none() {
            let behind = end - block.octets.len() + 4;
            let Some((code, value)) = block.option() else { break };
            comment = (code == COMMENT).then_some(behind..behind + value.len());
        }
        let time = stamp.map_or(self.last, |stamp| {
            let time = duration(stamp, units);
            let seconds = Duration::from_secs(offset.unsigned_abs());
            if offset < 0 { time.saturating_sub(seconds) } else { time.saturating_add(seconds) }
        });
        Some((interface, Some(Found { time, link_type, interface, data, length, comment })))
    }

    /// The octets ahead, at most so many.
    fn octets(&self, count: usize) -> &[u8] {
        let ahead = self.buffer.get(self.ahead.clone()).unwrap_or_default();
        ahead.get(..count).unwrap_or(ahead)
    }

    fn advance(&mut self, count: usize) {
        self.ahead.start += count;
        self.at += count as u64;
    }

    /// Reads until there are so many octets ahead, or no more; how many of them there are.
    fn fill(&mut self, wanted: usize) -> Result<usize, CaptureError> {
        if self.ahead.len() < wanted {
            self.buffer.copy_within(self.ahead.clone(), 0);
            self.ahead = 0..self.ahead.len();
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted.max(CHUNK), 0);
            }
        }
        while self.ahead.len() < wanted {
            let room = self.buffer.get_mut(self.ahead.end..).unwrap_or_default();
            match self.input.read(room) {
                Ok(0) => break,
                Ok(read) => self.ahead.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(CaptureError::Read { at: self.at + self.ahead.len() as u64, source }),
            }
        }
        Ok(self.ahead.len().min(wanted))
    }

    fn need(&mut self, wanted: usize) -> Result<(), CaptureError> {
        let missing = wanted - self.fill(wanted)?;
        if missing > 0 { Err(CaptureError::CutShort { at: self.at, missing }) } else { Ok(()) }
    }
}

fn duration(time: u64, units: u64) -> Duration {
    let nanoseconds = u128::from(time % units) * u128::from(NANOSECONDS) / u128::from(units);
    Duration::from_secs(time / units).saturating_add(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)))
}

/// Numbers of one byte order, one after the other; `None` where there is not enough.
struct Fields<'a> {
    octets: &'a [u8],
    big_endian: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, wanted: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.octets.split_at_checked(wanted)?;
        self.octets = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let octets = *self.take(2)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(octets) } else { u16::from_le_bytes(octets) })
    }

    fn u32(&mut self) -> Option<u32> {
        let octets = *self.take(4)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) })
    }

    /// A time stamp: the upper half comes first in both byte orders.
    fn time(&mut self) -> Option<u64> {
        Some(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    /// The next option's code and value; `None` behind the last one, and where there is no whole one.
    fn option(&mut self) -> Option<(u16, &'a [u8])> {
        const END: u16 = 0;
        let (code, length) = (self.u16()?, usize::from(self.u16()?));
        if code == END {
            return None;
        }
        let value = self.take(length)?;
        self.take(length.next_multiple_of(4) - length);
        Some((code, value))
    }
}
