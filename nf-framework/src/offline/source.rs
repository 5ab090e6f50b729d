//! The packets of one capture, or two, in the order of their time.

use super::input::Input;
use super::side::{is_inside, source};
use crate::capture::{CaptureError, CaptureReader, LinkType};
use crate::classifier::Prefix;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// By which port the packets of a capture came in.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// All by this one.
    Port(u16),
    /// By the inside port those that are from these prefixes, and those that are from nowhere.
    BySource(Vec<Prefix>),
}

/// Why a capture cannot be replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{}: {error}", .path.display())]
    Capture { path: PathBuf, error: CaptureError },
    #[error(
        "{}: its packets are of link type {link_type}, and only those of Ethernet (1) can be replayed: capture on an \
         Ethernet interface (not on \"any\")",
        .path.display()
    )]
    LinkType { path: PathBuf, link_type: LinkType },
}

/// A capture, and the packet in it that is next.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    reader: CaptureReader<Input>,
    length: Option<u64>,
    side: Side,
    /// When the next packet came in, and by which port.
    next: Option<(Duration, u16)>,
    /// Its place in the file, from 1.
    number: usize,
    frame: Vec<u8>,
    fault: Option<SourceError>,
    truncated: u64,
    backwards: u64,
    /// Packets taken as coming in by each port, where their sources say by which.
    taken: [u64; 2],
    /// The latest time so far.
    latest: Duration,
}

impl Source {
    /// Opens one, and reads the first packet. A wait for what is no file ends with `stop`.
    pub(super) fn open(path: &Path, side: Side, stop: &Arc<AtomicBool>) -> Result<Self, SourceError> {
        let failed = |error| SourceError::Capture { path: path.to_owned(), error };
        let input = Input::open(path, stop).map_err(|source| CaptureError::Read { at: 0, source });
        let reader = input.and_then(CaptureReader::new).map_err(failed)?;
        if let Some(link_type) = reader.link_type().filter(|of| *of != LinkType::ETHERNET) {
            return Err(SourceError::LinkType { path: path.to_owned(), link_type });
        }
        // Of a pipe it is not known.
        let length = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|of| of.len());
        let mut source = Self {
            path: path.to_owned(),
            reader,
            length,
            side,
            next: None,
            number: 0,
            frame: Vec::new(),
            fault: None,
            truncated: 0,
            backwards: 0,
            taken: [0; 2],
            latest: Duration::ZERO,
        };
        source.advance();
        Ok(source)
    }

    /// Reads the next packet that is whole.
    fn advance(&mut self) {
        self.next = None;
        loop {
            let packet = match self.reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(error) => {
                    self.fault = Some(SourceError::Capture { path: self.path.clone(), error });
                    return;
                }
            };
            self.number += 1;
            if packet.link_type != LinkType::ETHERNET {
                let (path, link_type) = (self.path.clone(), packet.link_type);
                self.fault = Some(SourceError::LinkType { path, link_type });
                return;
            }
            if packet.missing() > 0 {
                self.truncated += 1;
                continue;
            }
            self.backwards += u64::from(packet.time < self.latest);
            self.latest = self.latest.max(packet.time);
            let port = match &self.side {
                Side::Port(port) => *port,
                Side::BySource(inside) => {
                    let outside = source(packet.data).is_some_and(|address| !is_inside(address, inside));
                    self.taken[usize::from(outside)] += 1;
                    u16::from(outside)
                }
            };
            self.frame.clear();
            self.frame.extend(packet.data);
            self.next = Some((self.latest, port));
            return;
        }
    }
}

/// All captures of a replay.
#[derive(Debug)]
pub(super) struct Sources {
    all: Vec<Source>,
    /// Which one has the next packet.
    first: Option<usize>,
}

impl Sources {
    pub(super) fn new(all: Vec<Source>) -> Self {
        let mut sources = Self { all, first: None };
        sources.find_first();
        sources
    }

    /// The port that the next packet came in by, and when. Where one capture cannot be read further, the others end at
    /// that time.
    pub(super) fn next(&self) -> Option<(u16, Duration)> {
        let (time, port) = self.all.get(self.first?)?.next?;
        Some((port, time))
    }

    /// The next packet.
    pub(super) fn frame(&self) -> &[u8] {
        self.first.and_then(|first| self.all.get(first)).map_or(&[], |source| &source.frame)
    }

    /// Its place in its file, from 1.
    pub(super) fn number(&self) -> usize {
        self.first.and_then(|first| self.all.get(first)).map_or(0, |source| source.number)
    }

    /// Goes on to the packet behind it.
    pub(super) fn advance(&mut self) {
        if let Some(source) = self.first.and_then(|first| self.all.get_mut(first)) {
            source.advance();
        }
        self.find_first();
    }

    fn find_first(&mut self) {
        let end = self.all.iter().filter(|source| source.fault.is_some()).map(|source| source.latest).min();
        let next = self.all.iter().enumerate().filter_map(|(index, source)| Some((source.next?.0, index)));
        // Of the same time, the inside one's is first.
        let first = next.min().filter(|(time, _)| end.is_none_or(|end| *time <= end));
        self.first = first.map(|(_, index)| index);
    }

    /// The time of the first packet.
    pub(super) fn begin(&self) -> Duration {
        self.next().map_or(Duration::ZERO, |(_, time)| time)
    }

    /// Bytes of all files; `None` if one has no length.
    pub(super) fn length(&self) -> Option<u64> {
        self.all.iter().map(|source| source.length).sum()
    }

    /// Bytes read.
    pub(super) fn position(&self) -> u64 {
        self.all.iter().map(|source| source.reader.position()).sum()
    }

    /// Packets of which the captures have not all.
    pub(super) fn truncated(&self) -> u64 {
        self.all.iter().map(|source| source.truncated).sum()
    }

    /// Packets that are earlier than one before them.
    pub(super) fn backwards(&self) -> u64 {
        self.all.iter().map(|source| source.backwards).sum()
    }

    /// How many packets were taken as coming from inside and from outside, if their sources say it.
    pub(super) fn taken(&self) -> Option<[u64; 2]> {
        self.all.iter().find(|source| matches!(source.side, Side::BySource(_))).map(|source| source.taken)
    }

    /// Why the captures are not read to their ends.
    pub(super) fn fault(&mut self) -> Option<SourceError> {
        self.all.iter_mut().find_map(|source| source.fault.take())
    }
}
