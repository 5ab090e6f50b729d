//! Capture files written, in pcapng.

use super::{CapturedPacket, LinkType};
use std::io::{self, Write};

/// Writes a pcapng file of Ethernet frames, with times to the nanosecond. What it writes to is best buffered.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    output: W,
    block: Vec<u8>,
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;

impl<W: Write> CaptureWriter<W> {
    /// Begins a file with interfaces of these names; packets name them by their place here.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn new(output: W, interfaces: &[&str]) -> io::Result<Self> {
        let mut writer = Self { output, block: Vec::new() };
        writer.block(SECTION, |block| {
            // Its byte order, version 1.0, and a length that is not known.
            block.extend(0x1a2b_3c4d_u32.to_le_bytes());
            block.extend([1, 0, 0, 0]);
            block.extend(u64::MAX.to_le_bytes());
        })?;
        for name in interfaces {
            writer.block(INTERFACE, |block| {
                block.extend(LinkType::ETHERNET.0.to_le_bytes());
                // Reserved, and no limit to what is captured of a packet.
                block.extend([0; 6]);
                option(block, INTERFACE_NAME, name.as_bytes());
                // Nanoseconds.
                option(block, TIME_RESOLUTION, &[9]);
                option(block, END_OF_OPTIONS, &[]);
            })?;
        }
        Ok(writer)
    }

    /// Adds a packet. Its link type is Ethernet whatever it says, its time is one before the year 2554, and a comment
    /// has 65535 octets at most; what is more is left out.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&mut self, packet: &CapturedPacket<'_>) -> io::Result<()> {
        let nanoseconds = u64::try_from(packet.time.as_nanos()).unwrap_or(u64::MAX);
        let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX).to_le_bytes();
        self.block(ENHANCED_PACKET, |block| {
            block.extend(packet.interface.to_le_bytes());
            // The upper half comes first in both byte orders.
            let octets = nanoseconds.to_le_bytes();
            let (lower, upper) = octets.split_at(4);
            block.extend(upper);
            block.extend(lower);
            block.extend(length(packet.data.len()));
            block.extend(length(packet.length));
            block.extend(packet.data);
            pad(block);
            if let Some(comment) = packet.comment {
                let octets = comment.floor_char_boundary(usize::from(u16::MAX));
                option(block, COMMENT, comment.as_bytes().get(..octets).unwrap_or_default());
                option(block, END_OF_OPTIONS, &[]);
            }
        })
    }

    /// Has all that was written so far arrive where it is to go.
    ///
    /// # Errors
    ///
    /// When what was buffered cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Ends the file, and gives back what it was written to.
    ///
    /// # Errors
    ///
    /// When what was buffered cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.output)
    }

    /// Writes a block whose length stands at both of its ends.
    fn block(&mut self, block_type: u32, body: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let block = &mut self.block;
        block.clear();
        block.extend(block_type.to_le_bytes());
        block.extend([0; 4]);
        body(block);
        let length = u32::try_from(block.len() + 4).unwrap_or(u32::MAX).to_le_bytes();
        block.extend(length);
        block.iter_mut().skip(4).zip(length).for_each(|(octet, of_length)| *octet = of_length);
        self.output.write_all(block)
    }
}

/// Code, length and value, filled up to a multiple of 32 bits.
fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    block.extend(code.to_le_bytes());
    block.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    block.extend(value);
    pad(block);
}

/// Blocks and what they consist of begin at multiples of 32 bits.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}
