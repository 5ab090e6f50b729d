//! What happens, as lines of JSON in a file.
//!
//! Workers write nothing: they put what happened into a channel of fixed length, and what finds no
//! room there is counted. A thread of its own takes it out and writes it, so many lines in a second. It may
//! wait for a disk as long as that takes: nobody waits for it, but the program's end for a moment.

use nf_framework::{Counter, Invalid};
use serde::Deserialize;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The table `log` of a function: what it notes, as lines of JSON.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The file that they are added to; once it is renamed, it is made anew with the next line.
    pub file: PathBuf,
    /// Most lines in a second; what is more is lost, and how much is written down and counted.
    #[serde(default = "usual_lines")]
    pub lines_per_second: u32,
}

pub(crate) fn usual_lines() -> u32 {
    10_000
}

/// Looks whether there can be such a file, without making it.
pub(crate) fn check(config: &LogConfig) -> Result<(), Invalid> {
    let file = &config.file;
    if config.lines_per_second == 0 {
        let message = format!("0 lines in a second would write nothing to {}", file.display());
        return Err(Invalid::new("log.lines_per_second", message));
    }
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
/// How long the program's end waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that happened, for a line.
pub(crate) trait Event: Send + 'static {
    /// The function that it happened to.
    const FUNCTION: &'static str;

    /// What is said of it: members of a JSON object behind that of the time, with commas between them.
    fn members(&self) -> String;
}

/// A worker's end.
#[derive(Debug)]
pub(crate) struct Events<E> {
    to: Option<Channel<E>>,
    lost: Counter,
}

impl<E: Event> Events<E> {
    /// `lost` counts lines that were lost for whatever reason.
    pub(crate) fn new(to: Option<Channel<E>>, lost: Counter) -> Self {
        Self { to, lost }
    }

    /// Whether anybody wants to know.
    pub(crate) fn are_heard(&self) -> bool {
        self.to.is_some()
    }

    /// Notes that something has happened.
    pub(crate) fn tell(&mut self, event: E) {
        let Some(channel) = &self.to else { return };
        if channel.to.try_send(event).is_err() {
            self.lost.add(1);
            channel.shared.lost_by_workers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what the writer has lost.
    pub(crate) fn tick(&mut self) {
        let Some(Channel { shared, .. }) = &self.to else { return };
        if shared.lost_by_writer.load(Ordering::Relaxed) > 0 {
            self.lost.add(shared.lost_by_writer.swap(0, Ordering::Relaxed));
        }
    }
}

/// The way to the writer, for one worker.
#[derive(Debug)]
pub(crate) struct Channel<E> {
    to: SyncSender<E>,
    shared: Arc<Shared<E>>,
}

/// The writer; what it was told is written when it goes, if its file takes it.
#[derive(Debug)]
pub(crate) struct Log<E: Event> {
    name: String,
    shared: Arc<Shared<E>>,
    /// Where the writer says how many lines it could not write at its end.
    ended: Option<Receiver<u64>>,
}

#[derive(Debug)]
struct Shared<E> {
    channels: Mutex<Vec<Receiver<E>>>,
    stop: AtomicBool,
    /// Lines that are taken out of the channels, and not written yet.
    taken: AtomicU64,
    /// Lines that no worker has counted yet.
    lost_by_writer: AtomicU64,
    /// Lines of which the file says nothing yet.
    lost_by_workers: AtomicU64,
}

impl<E: Event> Log<E> {
    /// Opens the file and begins.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or there is no thread.
    pub(crate) fn start(config: &LogConfig) -> io::Result<Self> {
        let unwritable = |error: io::Error| {
            io::Error::new(error.kind(), format!("log.file: {} cannot be written: {error}", config.file.display()))
        };
        Self::write_to(LogFile::open(config.file.clone()).map_err(unwritable)?, config)
    }

    fn write_to(file: impl Sink + Send + 'static, config: &LogConfig) -> io::Result<Self> {
        let shared: Arc<Shared<E>> = Arc::default();
        let name = config.file.display().to_string();
        let writer = Writer::new(file, Arc::clone(&shared), config);
        let (end, ended) = sync_channel(1);
        let run = move || {
            // Whoever waits for it may have gone.
            let _ = end.send(writer.run());
        };
        std::thread::Builder::new().name(format!("{}-log", E::FUNCTION)).spawn(run)?;
        Ok(Self { name, shared, ended: Some(ended) })
    }

    /// A way to the writer for one more worker.
    pub(crate) fn channel(&self) -> Channel<E> {
        let (to, from) = sync_channel(CHANNEL);
        self.shared.channels().push(from);
        Channel { to, shared: Arc::clone(&self.shared) }
    }

    /// Has the writer write what is left and end; how many lines could not be written. If it takes longer, it
    /// is left where it is.
    fn stop(&mut self, patience: Duration) -> u64 {
        self.shared.stop.store(true, Ordering::Release);
        match self.ended.take().map(|ended| ended.recv_timeout(patience)) {
            Some(Ok(lost)) => lost,
            Some(Err(RecvTimeoutError::Timeout)) => {
                let waiting: usize = self.shared.channels().iter().map(|channel| channel.try_iter().count()).sum();
                waiting as u64 + self.shared.taken.load(Ordering::Relaxed)
            }
            // A panic there was shown there.
            Some(Err(RecvTimeoutError::Disconnected)) | None => 0,
        }
    }
}

impl<E: Event> Drop for Log<E> {
    fn drop(&mut self) {
        let lost = self.stop(PATIENCE);
        if lost > 0 {
            log::error!("{}: {}: {lost} lines of the log could not be written before the end", E::FUNCTION, self.name);
        }
    }
}

impl<E> Default for Shared<E> {
    fn default() -> Self {
        Self {
            channels: Mutex::default(),
            stop: AtomicBool::default(),
            taken: AtomicU64::default(),
            lost_by_writer: AtomicU64::default(),
            lost_by_workers: AtomicU64::default(),
        }
    }
}

impl<E> Shared<E> {
    /// Nobody holds them while a file is waited for.
    fn channels(&self) -> std::sync::MutexGuard<'_, Vec<Receiver<E>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lines are written to.
trait Sink: Write + Sized {
    /// What to write to from here on, if that is something else.
    fn renewed(&self) -> io::Result<Option<Self>>;
}

struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        // A pipe that is opened for both ways waits for no reader: fifo(7).
        let is_pipe = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
        let file = OpenOptions::new().create(true).append(true).read(is_pipe).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for LogFile {
    /// Whoever rotates files renames them: by its name it is another one then, or is not there.
    fn renewed(&self) -> io::Result<Option<Self>> {
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        match self.path.metadata() {
            Ok(by_name) if identity(&by_name) == identity(&self.file.metadata()?) => Ok(None),
            _ => Self::open(self.path.clone()).map(Some),
        }
    }
}

struct Writer<W: Sink, E> {
    file: BufWriter<W>,
    shared: Arc<Shared<E>>,
    lines_per_second: u32,
    /// The second that it writes in, since 1970, and the lines that it may still write there.
    second: u64,
    lines: u32,
    /// Lines lost for whatever reason, of which the file says nothing yet.
    lost: u64,
    name: String,
    /// Whether the last lines could not be written, which has been said.
    fails: bool,
}

impl<W: Sink, E: Event> Writer<W, E> {
    fn new(file: W, shared: Arc<Shared<E>>, config: &LogConfig) -> Self {
        Self {
            file: BufWriter::new(file),
            shared,
            lines_per_second: config.lines_per_second,
            second: 0,
            lines: 0,
            lost: 0,
            name: config.file.display().to_string(),
            fails: false,
        }
    }

    /// Writes until it is told to stop; how many lines it could not write in the end.
    fn run(mut self) -> u64 {
        loop {
            // Before the look, so that what came before the stop is seen.
            let last = self.shared.stop.load(Ordering::Acquire);
            let written = self.write_what_came(last);
            // A disk that is full has room again some day.
            if let (Err(error), false) = (&written, self.fails) {
                log::error!("{}: {}: {error}; lines may be lost until it can be written again", E::FUNCTION, self.name);
            }
            self.fails = written.is_err();
            if last {
                return self.lost + count_lines(&self.file.into_parts().1.unwrap_or_default());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn write_what_came(&mut self, last: bool) -> io::Result<()> {
        let events = self.take_what_came();
        if events.is_empty() && self.lost == 0 && self.file.buffer().is_empty() {
            return Ok(());
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if time.as_secs() != self.second {
            self.second = time.as_secs();
            self.lines = self.lines_per_second;
        }
        // Each, whatever becomes of those before: who cannot have the new file goes on in the old one.
        let written =
            [self.renew(), self.write_events(time, &events), self.say_what_is_lost(time, last), self.file.flush()];
        self.shared.taken.store(count_lines(self.file.buffer()), Ordering::Relaxed);
        written.into_iter().collect()
    }

    fn take_what_came(&mut self) -> Vec<E> {
        let mut events = Vec::new();
        self.lost += self.shared.lost_by_workers.swap(0, Ordering::Relaxed);
        let mut channels = self.shared.channels();
        channels.retain(|channel| {
            for _ in 0..CHANNEL {
                match channel.try_recv() {
                    Ok(event) => events.push(event),
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
            true
        });
        self.shared.taken.fetch_add(events.len() as u64, Ordering::Relaxed);
        events
    }

    /// Goes on in another file, if there is one.
    fn renew(&mut self) -> io::Result<()> {
        let Some(new) = self.file.get_ref().renewed()? else { return Ok(()) };
        // What the old one does not take is lost: the new one does not begin with half a line.
        let _ = self.file.flush();
        let (_, unwritten) = std::mem::replace(&mut self.file, BufWriter::new(new)).into_parts();
        self.lose(count_lines(&unwritten.unwrap_or_default()));
        Ok(())
    }

    fn write_events(&mut self, time: Duration, events: &[E]) -> io::Result<()> {
        let mut written = Ok(());
        for event in events {
            if self.lines == 0 {
                self.lose(1);
                continue;
            }
            self.lines -= 1;
            if let Err(error) = self.file.write_all(line(time, event).as_bytes()) {
                self.lose(1);
                written = Err(error);
            }
        }
        written
    }

    fn say_what_is_lost(&mut self, time: Duration, last: bool) -> io::Result<()> {
        if self.lost > 0 && (self.lines > 0 || last) {
            // It is no use to say it to a file that takes nothing.
            self.file.flush()?;
            self.lines = self.lines.saturating_sub(1);
            let line = format!("{{\"time\":{},\"event\":\"lost\",\"lines\":{}}}\n", seconds(time), self.lost);
            self.file.write_all(line.as_bytes())?;
            self.lost = 0;
        }
        Ok(())
    }

    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        self.shared.lost_by_writer.fetch_add(lines, Ordering::Relaxed);
    }
}

fn count_lines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// A line, written at once: what is in the buffer are whole ones, also when another program writes to the
/// same file, or the disk is full.
fn line(time: Duration, event: &impl Event) -> String {
    format!("{{\"time\":{},{}}}\n", seconds(time), event.members())
}

/// A text as JSON has it, RFC 8259 section 7.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted += &format!("\\u{:04x}", u32::from(control)),
            other => quoted.push(other),
        }
    }
    quoted + "\""
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

    impl Sink for Disk {
        fn renewed(&self) -> io::Result<Option<Self>> {
            Ok(None)
        }
    }

    fn config(file: PathBuf) -> LogConfig {
        LogConfig { file, lines_per_second: 10_000 }
    }

    /// As long as a mapping of a NAT.
    struct Something;

    impl Event for Something {
        const FUNCTION: &'static str = "test";

        fn members(&self) -> String {
            format!("\"event\":\"something\",\"of\":{}", quoted(&"-".repeat(80)))
        }
    }

    #[test]
    fn a_named_pipe_is_opened_though_nobody_reads_it() {
        let pipe = std::env::temp_dir().join(format!("nfs-log-pipe-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success() && check(&config(pipe.clone())).is_ok());
        let mut opened = LogFile::open(pipe.clone()).unwrap();
        let _ = std::fs::remove_file(&pipe);
        assert!(opened.write_all(b"a line").is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_that_names_key_and_file() {
        let directory = std::env::temp_dir();
        let Err(error) = Log::<Something>::start(&config(directory.clone())) else { panic!("a directory is written") };
        let expected = format!("log.file: {} cannot be written: Is a directory", directory.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }

    #[test]
    fn a_text_is_quoted_as_json_has_it() {
        assert_eq!(quoted("a \"rule\" \\ of\u{7} ü"), r#""a \"rule\" \\ of\u0007 ü""#);
    }

    /// A writer that nobody runs, and a worker's end.
    fn writer<W: Sink>(file: W) -> (Writer<W, Something>, Events<Something>) {
        let shared: Arc<Shared<Something>> = Arc::default();
        let (to, from) = sync_channel(CHANNEL);
        shared.channels().push(from);
        let writer = Writer::new(file, Arc::clone(&shared), &config(PathBuf::new()));
        (writer, Events::new(Some(Channel { to, shared }), Counter::default()))
    }

    fn tell(events: &mut Events<Something>, count: usize) {
        for _ in 0..count {
            events.tell(Something);
        }
    }

    /// How many lines of something there are, and how many are said to be lost.
    fn read(text: &[u8]) -> (u64, u64) {
        let (mut created, mut lost) = (0, 0);
        for line in std::str::from_utf8(text).unwrap().lines() {
            assert!(line.starts_with("{\"time\":") && line.ends_with('}'), "{line}");
            match line.split_once("\"lost\",\"lines\":") {
                Some((_, count)) => lost += count.trim_end_matches('}').parse::<u64>().unwrap(),
                None => created += 1,
            }
        }
        (created, lost)
    }

    #[test]
    fn a_disk_that_was_full_gets_whole_lines_and_how_many_were_lost() {
        let (mut writer, mut events) = writer(Disk { room: 1000, ..Disk::default() });
        tell(&mut events, 500);
        for _ in 0..2 {
            assert!(writer.write_what_came(false).is_err());
        }
        writer.file.get_mut().room = usize::MAX;
        writer.write_what_came(false).unwrap();
        let (created, lost) = read(&writer.file.get_ref().written);
        assert!(lost > 0 && created > 0);
        assert_eq!(created + lost, 500);
        // They are counted once.
        for _ in 0..2 {
            events.tick();
            assert_eq!(events.lost.value(), lost);
        }
    }

    #[test]
    fn what_finds_no_room_in_the_channel_and_what_is_too_much_for_a_second_is_counted_and_said() {
        let (mut writer, mut events) = writer(Disk { room: usize::MAX, ..Disk::default() });
        tell(&mut events, CHANNEL + 7);
        assert_eq!(events.lost.value(), 7);
        writer.write_what_came(true).unwrap();
        events.tick();
        let (created, lost) = read(&writer.file.get_ref().written);
        assert_eq!((created, lost), (10_000, CHANNEL as u64 + 7 - 10_000));
        assert_eq!(events.lost.value(), lost);
        assert_eq!(writer.run_to_its_end(), 0);
    }

    #[test]
    fn what_a_disk_does_not_take_in_the_end_is_told_to_whoever_stops() {
        struct Shares(Arc<Mutex<Disk>>);

        impl Write for Shares {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Sink for Shares {
            fn renewed(&self) -> io::Result<Option<Self>> {
                Ok(None)
            }
        }

        let disk = Arc::new(Mutex::new(Disk { room: 1000, ..Disk::default() }));
        let (writer, mut events) = writer(Shares(Arc::clone(&disk)));
        tell(&mut events, 500);
        let lost = writer.run_to_its_end();
        let written = count_lines(&disk.lock().unwrap().written);
        assert!(written > 0);
        assert_eq!(written + lost, 500);
    }

    #[test]
    fn a_file_that_blocks_holds_nobody_up() {
        /// Says that it is written to, and waits.
        struct Blocked(SyncSender<()>, Receiver<()>);

        impl Write for Blocked {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(());
                let _ = self.1.recv();
                Err(io::ErrorKind::TimedOut.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Sink for Blocked {
            fn renewed(&self) -> io::Result<Option<Self>> {
                Ok(None)
            }
        }

        let (said, written) = sync_channel(1);
        let (go_on, wait) = sync_channel(1);
        let mut log = Log::write_to(Blocked(said, wait), &config(PathBuf::new())).unwrap();
        let mut events = Events::new(Some(log.channel()), Counter::default());
        tell(&mut events, 5);
        written.recv().unwrap();
        tell(&mut events, 3);
        assert_eq!(log.stop(Duration::ZERO), 8);
        drop(go_on);
    }

    /// A directory of this test's own, gone when it ends.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("json-log-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_that_was_renamed_is_followed_by_another_of_its_name() {
        let directory = Directory::new("renamed");
        let [log, old] = ["some.jsonl", "some.jsonl.1"].map(|name| directory.0.join(name));
        let (mut writer, mut events) = writer(LogFile::open(log.clone()).unwrap());
        let lines = |path: &PathBuf| read(&std::fs::read(path).unwrap());
        tell(&mut events, 2);
        writer.write_what_came(false).unwrap();
        std::fs::rename(&log, &old).unwrap();
        // Without anything to write nothing is made.
        writer.write_what_came(false).unwrap();
        assert!(!log.exists());
        tell(&mut events, 3);
        writer.write_what_came(false).unwrap();
        assert_eq!([lines(&old), lines(&log)], [(2, 0), (3, 0)]);
        // Who rotates may make the new one, too.
        std::fs::rename(&log, &old).unwrap();
        File::create(&log).unwrap();
        tell(&mut events, 4);
        writer.write_what_came(false).unwrap();
        assert_eq!([lines(&old), lines(&log)], [(3, 0), (4, 0)]);
    }

    #[test]
    fn as_long_as_there_can_be_no_new_file_the_old_one_gets_the_lines() {
        let directory = Directory::new("gone");
        let [here, gone] = ["here", "gone"].map(|name| directory.0.join(name));
        std::fs::create_dir(&here).unwrap();
        let (mut writer, mut events) = writer(LogFile::open(here.join("some.jsonl")).unwrap());
        std::fs::rename(&here, &gone).unwrap();
        tell(&mut events, 2);
        assert_eq!(writer.write_what_came(false).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::create_dir(&here).unwrap();
        tell(&mut events, 3);
        writer.write_what_came(false).unwrap();
        let lines = |path: PathBuf| read(&std::fs::read(path.join("some.jsonl")).unwrap());
        assert_eq!([lines(gone), lines(here)], [(2, 0), (3, 0)]);
    }

    #[test]
    fn a_new_file_does_not_begin_with_the_rest_of_an_old_ones_line() {
        /// A disk that is full, and a new one for it.
        struct Rotated(Disk, Option<Disk>);

        impl Write for Rotated {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Sink for Rotated {
            fn renewed(&self) -> io::Result<Option<Self>> {
                let new = self.1.as_ref().map(|new| Disk { written: Vec::new(), room: new.room });
                Ok(new.map(|new| Self(new, None)))
            }
        }

        let (mut writer, mut events) = writer(Rotated(Disk { room: 100, ..Disk::default() }, None));
        tell(&mut events, 3);
        assert!(writer.write_what_came(false).is_err());
        writer.file.get_mut().1 = Some(Disk { room: usize::MAX, ..Disk::default() });
        tell(&mut events, 1);
        writer.write_what_came(false).unwrap();
        // None of the three was written whole.
        assert_eq!(read(&writer.file.get_ref().0.written), (1, 3));
        events.tick();
        assert_eq!(events.lost.value(), 3);
    }

    impl<W: Sink> Writer<W, Something> {
        fn run_to_its_end(self) -> u64 {
            self.shared.stop.store(true, Ordering::Release);
            self.run()
        }
    }
}
