//! The files of a replay: what leaves by each port, and what is dropped.

use crate::capture::{CaptureWriter, CapturedPacket};
use crate::counters::Witness;
use crate::headers::on_the_link;
use crate::registry::Registry;
use crate::runtime::Portless;
use crate::verdict::{DropReason, PortIx};
use crate::worker::Transmit;
use dpdk_rs::Burst;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why something cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("{}: cannot be written: {error}", .path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{}: there is a file of this name already (name another directory, or say --force)", .0.display())]
    Exists(PathBuf),
    #[error("{}: is to be replayed, and would be written over (name another directory)", .0.display())]
    Replayed(PathBuf),
}

/// What has left, and what was dropped. The packet path has one end of it, and whoever sees what is dropped the other.
#[derive(Clone, Debug)]
pub(super) struct Files(Arc<Mutex<All>>);

#[derive(Debug)]
struct All {
    /// By port.
    sent: Vec<Output>,
    dropped: Output,
    time: Duration,
    /// Name and help, by index; what is registered later is not there yet.
    reasons: Vec<String>,
    error: Option<OutputError>,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    writer: CaptureWriter<BufWriter<File>>,
}

impl Output {
    fn create(path: PathBuf, interfaces: &[&str]) -> Result<Self, OutputError> {
        let created = File::create(&path).and_then(|file| CaptureWriter::new(BufWriter::new(file), interfaces));
        match created {
            Ok(writer) => Ok(Self { path, writer }),
            Err(error) => Err(OutputError::Write { path, error }),
        }
    }

    fn write(&mut self, packet: &CapturedPacket<'_>) -> Result<(), OutputError> {
        let path = &self.path;
        self.writer.write(packet).map_err(|error| OutputError::Write { path: path.clone(), error })
    }
}

const DROPPED: &str = "dropped";

fn path(directory: &Path, part: &str) -> PathBuf {
    directory.join(format!("{}.pcapng", part.replace(['/', '\0'], "_")))
}

/// Makes the directory if it is not there, and looks that no file is written over that is not meant to be.
pub(super) fn prepare(
    directory: &Path,
    ports: &[(String, String)],
    replayed: &[PathBuf],
    force: bool,
) -> Result<(), OutputError> {
    let failed = |error| OutputError::Write { path: directory.to_owned(), error };
    std::fs::create_dir_all(directory).map_err(failed)?;
    // A file may have several names.
    let file = |path: &Path| std::fs::metadata(path).map(|of| (of.dev(), of.ino()));
    let read: Vec<_> = replayed.iter().filter_map(|path| file(path).ok()).collect();
    for part in ports.iter().map(|(part, _)| part.as_str()).chain([DROPPED]) {
        let path = path(directory, part);
        match file(&path) {
            Ok(known) if read.contains(&known) => return Err(OutputError::Replayed(path)),
            Ok(_) if !force => return Err(OutputError::Exists(path)),
            _ => {}
        }
    }
    Ok(())
}

impl Files {
    /// Makes the files for ports of these parts and names, in a directory that is there.
    pub(super) fn create(directory: &Path, ports: &[(String, String)]) -> Result<Self, OutputError> {
        let sent = ports.iter().map(|(part, name)| Output::create(path(directory, part), &[name]));
        let sent = sent.collect::<Result<_, _>>()?;
        let names: Vec<&str> = ports.iter().map(|(_, name)| name.as_str()).chain(["made here"]).collect();
        let dropped = Output::create(path(directory, DROPPED), &names)?;
        let all = All { sent, dropped, time: Duration::ZERO, reasons: Vec::new(), error: None };
        Ok(Self(Arc::new(Mutex::new(all))))
    }

    /// Has a worker show what it drops.
    pub(super) fn witness(&self, worker: &Portless) {
        let (files, registry) = (self.clone(), Arc::clone(&worker.registry));
        files.lock().know_reasons(&registry);
        let see = move |packet: &dpdk_rs::Mbuf, reason: DropReason| {
            let mut all = files.lock();
            all.know_reason(reason, &registry);
            all.take_down(&on_the_link(packet).collect::<Vec<_>>(), packet.port().0, reason);
        };
        // It is the first one: the worker is new.
        let _ = worker.pipeline.counters.witness.set(Witness(Box::new(see)));
    }

    /// Takes down a frame that was dropped before it was a packet.
    pub(super) fn dropped(&self, frame: &[u8], port: u16, reason: DropReason) {
        self.lock().take_down(frame, port, reason);
    }

    /// The time of what is written from here on.
    pub(super) fn set_time(&self, time: Duration) {
        self.lock().time = time;
    }

    /// Whether all could be written so far.
    pub(super) fn check(&self) -> Result<(), OutputError> {
        self.lock().error.take().map_or(Ok(()), Err)
    }

    /// Writes what was buffered.
    pub(super) fn finish(&self) -> Result<(), OutputError> {
        let mut all = self.lock();
        let All { sent, dropped, error, .. } = &mut *all;
        for output in sent.iter_mut().chain([dropped]) {
            if let Err(failed) = output.writer.flush() {
                error.get_or_insert(OutputError::Write { path: output.path.clone(), error: failed });
            }
        }
        error.take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn know_reasons(&mut self, registry: &Registry) {
        let text = |(name, help): (String, String)| format!("{name}: {help}");
        self.reasons = registry.drop_reasons.list().into_iter().map(text).collect();
    }

    /// A function may have one that it registers while it runs.
    fn know_reason(&mut self, reason: DropReason, registry: &Registry) {
        if reason.index() >= self.reasons.len() {
            self.know_reasons(registry);
        }
    }

    fn take_down(&mut self, frame: &[u8], port: u16, reason: DropReason) {
        // What came in by no port was made here.
        let interface = u32::from(port).min(u32::try_from(self.sent.len()).unwrap_or(u32::MAX));
        let comment = self.reasons.get(reason.index()).map(String::as_str);
        let packet = CapturedPacket { interface, comment, ..CapturedPacket::new(self.time, frame) };
        let written = self.dropped.write(&packet);
        note(&mut self.error, written);
    }
}

impl Transmit for Files {
    fn send(&mut self, port: PortIx, burst: &mut Burst) {
        let mut all = self.lock();
        let All { sent, time, error, .. } = &mut *all;
        if let Some(output) = sent.get_mut(usize::from(port.0)) {
            for packet in burst.iter() {
                note(error, output.write(&CapturedPacket::new(*time, packet.data())));
            }
        }
        burst.clear();
    }
}

/// Keeps the first one.
fn note(error: &mut Option<OutputError>, written: Result<(), OutputError>) {
    if let Err(failed) = written {
        error.get_or_insert(failed);
    }
}
