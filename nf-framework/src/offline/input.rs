//! Where a capture comes from: a file, or what may have one wait for ever, as a pipe does that nobody writes to.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// A capture that is read.
#[derive(Debug)]
pub(super) enum Input {
    File(File),
    Pipe(Pipe),
}

impl Input {
    /// What is no file is read until `stop` is set.
    pub(super) fn open(path: &Path, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        if std::fs::metadata(path)?.is_file() {
            File::open(path).map(Self::File)
        } else {
            Pipe::open(path, stop).map(Self::Pipe)
        }
    }
}

impl Read for Input {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(to),
            Self::Pipe(pipe) => pipe.read(to),
        }
    }
}

type Piece = io::Result<Vec<u8>>;

/// Opened and read on a thread of its own, which is left where it hangs: the wait for it can be ended.
#[derive(Debug)]
pub(super) struct Pipe {
    pieces: Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
    stop: Arc<AtomicBool>,
}

impl Pipe {
    /// Read at once, as much as a pipe takes.
    const CHUNK: usize = 64 << 10;
    /// Pieces that are read ahead.
    const AHEAD: usize = 4;
    const LOOK: Duration = Duration::from_millis(50);

    fn open(path: &Path, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let (to, pieces) = sync_channel(Self::AHEAD);
        let path = path.to_owned();
        std::thread::Builder::new().name("capture".to_owned()).spawn(move || read_all(path, &to))?;
        Ok(Self { pieces, piece: io::Cursor::default(), stop: Arc::clone(stop) })
    }
}

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(to)?;
            if read > 0 {
                return Ok(read);
            }
            match self.pieces.recv_timeout(Self::LOOK) {
                Ok(piece) => self.piece = io::Cursor::new(piece?),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => {
                    return Err(io::Error::other("told to stop"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Hands on what comes, until there is no more or nobody takes it.
fn read_all(path: PathBuf, to: &SyncSender<Piece>) {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return drop(to.send(Err(error))),
    };
    let mut buffer = vec![0; Pipe::CHUNK];
    loop {
        let piece = match file.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => Ok(buffer.get(..read).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = piece.is_err();
        if to.send(piece).is_err() || is_last {
            return;
        }
    }
}
