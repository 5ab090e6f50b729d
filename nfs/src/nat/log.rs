//! Mappings as lines of JSON, as they come and go.
//!
//! Workers write nothing: they put what happened into a channel of fixed length, and what finds no
//! room there is counted. A thread of its own takes it out and writes it, so many lines in a second.

use super::config::LogConfig;
use super::flow::Protocol;
use nf_framework::{Counter, Invalid};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Looks whether there can be such a file, without making it.
pub(super) fn check(config: &LogConfig) -> Result<(), Invalid> {
    let file = &config.file;
    let invalid = |message| Err(Invalid::new("log.file", message));
    if file.is_dir() {
        return invalid(format!("{} is a directory: name a file in it", file.display()));
    }
    // Of a name alone it is empty.
    match file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) if !directory.is_dir() => {
            invalid(format!("there is no directory {}: make it, or name another", directory.display()))
        }
        _ => Ok(()),
    }
}

/// What a worker may be ahead of the writer.
const CHANNEL: usize = 1 << 14;
/// How often the writer looks. It does not wait for workers, so they need not wake it.
const PAUSE: Duration = Duration::from_millis(20);

/// Something that happened to a mapping.
#[derive(Clone, Copy, Debug)]
struct Event {
    begins: bool,
    protocol: Protocol,
    inside: (Ipv4Addr, u16),
    outside: (Ipv4Addr, u16),
}

/// A worker's end.
#[derive(Debug, Default)]
pub(super) struct Events {
    to: Option<SyncSender<Event>>,
    lost: Counter,
}

impl Events {
    pub(super) fn new(to: Option<Channel>, lost: Counter) -> Self {
        Self { to: to.map(|channel| channel.0), lost }
    }

    /// Notes that a mapping has come or gone.
    pub(super) fn mapping(
        &mut self,
        begins: bool,
        protocol: Protocol,
        inside: (Ipv4Addr, u16),
        (address, port): (Option<Ipv4Addr>, u16),
    ) {
        let (Some(to), Some(address)) = (&self.to, address) else { return };
        if to.try_send(Event { begins, protocol, inside, outside: (address, port) }).is_err() {
            self.lost.add(1);
        }
    }
}

/// The way to the writer, for one worker.
pub(super) struct Channel(SyncSender<Event>);

/// The writer; what it was told is written when it goes.
#[derive(Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    channels: Mutex<Vec<Receiver<Event>>>,
    stop: AtomicBool,
}

impl Log {
    /// Opens the file and begins.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or there is no thread.
    pub(super) fn start(config: &LogConfig) -> io::Result<Self> {
        let shared: Arc<Shared> = Arc::default();
        let name = config.file.display().to_string();
        let mut writer = Writer {
            file: BufWriter::new(OpenOptions::new().create(true).append(true).open(&config.file)?),
            shared: Arc::clone(&shared),
            lines_per_second: config.lines_per_second,
            second: 0,
            lines: 0,
            lost: 0,
            name,
            fails: false,
        };
        let thread = std::thread::Builder::new().name("nat-log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A way to the writer for one more worker.
    pub(super) fn channel(&self) -> Channel {
        let (to, from) = sync_channel(CHANNEL);
        self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner).push(from);
        Channel(to)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic there was shown there.
            let _ = thread.join();
        }
    }
}

struct Writer<W: Write> {
    file: BufWriter<W>,
    shared: Arc<Shared>,
    lines_per_second: u32,
    /// The second that it writes in, since 1970, and the lines that it may still write there.
    second: u64,
    lines: u32,
    /// Lines that were too many, or found no room.
    lost: u64,
    name: String,
    /// Whether the last lines could not be written, which has been said.
    fails: bool,
}

impl<W: Write> Writer<W> {
    fn run(&mut self) {
        loop {
            // Before the look, so that what came before the stop is seen.
            let last = self.shared.stop.load(Ordering::Acquire);
            let written = self.write_what_came(last);
            // A disk that is full has room again some day.
            if let (Err(error), false) = (&written, self.fails) {
                log::error!("nat: {}: {error}; mappings are lost until it can be written again", self.name);
            }
            self.fails = written.is_err();
            if last {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn write_what_came(&mut self, last: bool) -> io::Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if time.as_secs() != self.second {
            self.second = time.as_secs();
            self.lines = self.lines_per_second;
        }
        let Self { file, shared, lines, lost, .. } = self;
        let mut channels = shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = None;
        channels.retain(|channel| {
            loop {
                match channel.try_recv() {
                    Ok(event) if *lines > 0 => {
                        *lines -= 1;
                        if let Err(error) = file.write_all(line(time, &event).as_bytes()) {
                            *lost += 1;
                            failed = Some(error);
                        }
                    }
                    Ok(_) => *lost += 1,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
        });
        drop(channels);
        if *lost > 0 && (*lines > 0 || last) {
            *lines = lines.saturating_sub(1);
            let line = format!("{{\"time\":{},\"event\":\"lost\",\"lines\":{lost}}}\n", seconds(time));
            file.write_all(line.as_bytes())?;
            *lost = 0;
        }
        failed.map_or(Ok(()), Err)?;
        file.flush()
    }
}

/// A line, written at once: what is in the buffer are whole ones, also when another program writes to the
/// same file, or the disk is full.
fn line(time: Duration, event: &Event) -> String {
    let what = if event.begins { "mapping-created" } else { "mapping-deleted" };
    let protocol = match event.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    };
    let ((inside, inside_port), (outside, outside_port)) = (event.inside, event.outside);
    format!(
        "{{\"time\":{},\"event\":\"{what}\",\"protocol\":\"{protocol}\",\"inside\":\"{inside}:{inside_port}\",\
         \"outside\":\"{outside}:{outside_port}\"}}\n",
        seconds(time)
    )
}

/// Seconds since 1970, with milliseconds.
fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that has room for so many bytes.
    #[derive(Default)]
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.written.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_was_full_gets_whole_lines_and_how_many_were_lost() {
        let (to, from) = sync_channel(1000);
        let shared: Arc<Shared> = Arc::default();
        shared.channels.lock().unwrap().push(from);
        let mut writer = Writer {
            file: BufWriter::new(Disk { room: 1000, ..Disk::default() }),
            shared,
            lines_per_second: 10_000,
            second: 0,
            lines: 0,
            lost: 0,
            name: String::new(),
            fails: false,
        };
        let end = (Ipv4Addr::new(192, 0, 2, 1), 1);
        for _ in 0..500 {
            to.send(Event { begins: true, protocol: Protocol::Udp, inside: end, outside: end }).unwrap();
        }
        assert!(writer.write_what_came(true).is_err());
        assert!(writer.write_what_came(true).is_err());
        writer.file.get_mut().room = usize::MAX;
        writer.write_what_came(true).unwrap();
        let text = String::from_utf8(writer.file.get_ref().written.clone()).unwrap();
        let (mut created, mut lost) = (0, 0);
        for line in text.lines() {
            assert!(line.starts_with("{\"time\":") && line.ends_with('}'), "{line}");
            match line.split_once("\"lost\",\"lines\":") {
                Some((_, count)) => lost += count.trim_end_matches('}').parse::<u64>().unwrap(),
                None => created += 1,
            }
        }
        assert!(lost > 0 && created > 0);
        assert_eq!(created + lost, 500);
    }
}
