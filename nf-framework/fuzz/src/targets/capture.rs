//! The reader of capture files: it has all that comes from somebody else in its hands.

use super::{Target, frames};
use nf_framework::capture::{CaptureError, CaptureReader, CaptureWriter, CapturedPacket, LinkType};
use std::io::{self, Read};
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "capture",
    about: "any bytes are a capture up to where they are not one, however they come, and what is read can be written",
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = frames().iter().map(|frame| frame.build()).collect();
    let mut seeds = Vec::new();
    for big_endian in [false, true] {
        let word = |word: u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
        let half = |half: u16| if big_endian { half.to_be_bytes() } else { half.to_le_bytes() };
        // All of their blocks and packets' headers.
        for (magic, more) in [(0xa1b2_c3d4, 0), (0xa1b2_3c4d, 0), (0xa1b2_cd34, 8)] {
            let mut file = [magic, 0x0002_0004, 0, 0, 65535, 1].map(word).concat();
            for (seconds, frame) in (0..).zip(&frames) {
                let length = u32::try_from(frame.len()).expect("a short one");
                file.extend([seconds, 7, length, length].map(word).concat());
                file.extend([&vec![0; more], &frame[..]].concat());
            }
            seeds.push(file);
        }
        let block = |kind: u32, body: &[u8]| {
            let padded = body.len().next_multiple_of(4);
            let length = word(u32::try_from(padded + 12).expect("a short one"));
            [&word(kind), &length, body, &vec![0; padded - body.len()], &length].concat()
        };
        let mut file = block(0x0a0d_0d0a, &[&word(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat());
        for (resolution, offset) in [(6, 0), (9, 1), (0x8a, 0xff)] {
            let options = [&half(9)[..], &half(1), &[resolution, 0, 0, 0], &half(14), &half(8), &[offset; 8], &[0; 4]];
            file.extend(block(1, &[&half(1)[..], &half(0), &word(96), &options.concat()].concat()));
        }
        for (interface, frame) in (0..3).cycle().zip(&frames) {
            let length = word(u32::try_from(frame.len()).expect("a short one"));
            let head = [&word(interface)[..], &word(1), &word(2), &length, &length].concat();
            let padding = vec![0; frame.len().next_multiple_of(4) - frame.len()];
            let comment = [&half(1)[..], &half(3), b"why\0", &[0; 4]].concat();
            file.extend(block(6, &[&head, &frame[..], &padding, &comment].concat()));
            file.extend(block(3, &[&length, &frame[..]].concat()));
            file.extend(block(2, &[&half(0)[..], &half(1), &word(1), &word(2), &length, &length, frame].concat()));
        }
        seeds.push(file);
    }
    seeds.iter().map(|seed| [&[6], &seed[..]].concat()).collect()
}

/// Gives no more than so many bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

/// A packet, with nothing of it borrowed.
#[derive(PartialEq, Eq, Debug)]
struct Kept {
    time: Duration,
    link_type: LinkType,
    interface: u32,
    data: Vec<u8>,
    length: usize,
    comment: Option<String>,
}

/// The packets that there are, and what is wrong behind them.
fn read(input: impl Read, size: usize) -> (Vec<Kept>, Option<String>) {
    let mut packets = Vec::new();
    let failed = |error: CaptureError| Some(error.to_string());
    let mut reader = match CaptureReader::new(input) {
        Ok(reader) => reader,
        Err(error) => return (packets, failed(error)),
    };
    loop {
        let before = reader.position();
        match reader.next_packet() {
            Ok(Some(packet)) => {
                let CapturedPacket { time, link_type, interface, data, length, comment } = packet;
                let (data, comment) = (data.to_vec(), comment.map(str::to_owned));
                packets.push(Kept { time, link_type, interface, data, length, comment });
            }
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(reader.next_packet(), Ok(None)), "behind an error there is nothing");
                return (packets, failed(error));
            }
        }
        assert!((before + 1..=size as u64).contains(&reader.position()), "it goes on, and not beyond the end");
    }
    assert!(matches!(reader.next_packet(), Ok(None)), "it stays at its end");
    (packets, None)
}

/// The first byte says how much comes at once.
fn run(bytes: &[u8]) {
    let Some((&at_once, file)) = bytes.split_first() else { return };
    let found = read(file, file.len());
    assert_eq!(read(Slow(file, usize::from(at_once) + 1), file.len()), found, "however it comes");
    let mut writer = CaptureWriter::new(Vec::new(), &["one"]).expect("there is memory");
    for Kept { time, data, length, comment, .. } in &found.0 {
        let packet =
            CapturedPacket { length: *length, comment: comment.as_deref(), ..CapturedPacket::new(*time, data) };
        writer.write(&packet).expect("there is memory");
    }
    let written = writer.finish().expect("there is memory");
    let (again, error) = read(&written[..], written.len());
    assert_eq!((again.len(), error), (found.0.len(), None));
    let last = Duration::from_nanos(u64::MAX);
    for (again, packet) in again.iter().zip(&found.0) {
        let expected = (packet.time.min(last), &packet.data, packet.length, &packet.comment);
        assert_eq!((again.time, &again.data, again.length, &again.comment), expected);
    }
}
