//! What a worker was at when it panicked.

use crate::batch::Batch;
use crate::direction::Direction;
use crate::headers::on_the_link;
use crate::position::Position;
use crate::verdict::Verdict;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

/// What the panic said, beside its message.
#[derive(Clone, Debug)]
pub(super) struct Panicked {
    pub(super) location: String,
    pub(super) backtrace: Option<String>,
}

thread_local! {
    /// The last one on this thread.
    static PANICKED: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// Notes where panics happen, and logs them where people do not read them from a terminal.
pub(crate) fn listen(is_structured: bool) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let location = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        // Only if the environment asks for it.
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        if is_structured {
            let message = info.payload_as_str().unwrap_or("no message");
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let trace = backtrace.as_deref().map_or(String::new(), |text| format!("\n{text}"));
            log::error!(target: "nf_framework::crash", "thread {thread} panicked at {location}: {message}{trace}");
        } else {
            usual(info);
        }
        PANICKED.with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some(Panicked { location, backtrace });
            }
        });
    }));
}

/// What a worker was at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    Batch,
    Tick,
    Letter,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) doing: Doing,
    pub(super) position: Position,
}

impl Place {
    pub(super) fn describe(self, functions: &[String]) -> String {
        let Self { doing, position: Position { at, direction, turned } } = self;
        let way = match (doing, direction, turned) {
            (Doing::Tick, ..) => "housekeeping",
            (Doing::Letter, ..) => "what control asks: a command, or a new policy",
            (Doing::Batch, Direction::Outbound, false) => "packets from inside to outside",
            (Doing::Batch, Direction::Inbound, false) => "packets from outside to inside",
            (Doing::Batch, Direction::Outbound, true) => "packets that turned, to outside",
            (Doing::Batch, Direction::Inbound, true) => "packets that turned, to inside",
        };
        let index = usize::try_from(at).ok().filter(|at| *at < functions.len());
        match index.and_then(|index| Some((index, functions.get(index)?))) {
            Some((index, name)) => format!("function {name}, {} of {} from inside; {way}", index + 1, functions.len()),
            None if doing != Doing::Batch => format!("around the functions; {way}"),
            None if Position::entrance(direction, functions.len()).at == at => {
                format!("before the first function; {way}")
            }
            None => format!("behind the last function; {way}"),
        }
    }
}

/// A copy of a packet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) verdict: Verdict,
    /// Whether it is the one that the function was looking at.
    pub(super) is_the_one: bool,
}

impl Packet {
    pub(super) fn write(&self, number: usize, to: &mut String) {
        let state = match self.verdict {
            Verdict::Next => "undecided".to_owned(),
            verdict => format!("{verdict:?}"),
        };
        let remark = if self.is_the_one { "; the function was looking at this one" } else { "" };
        let _ = writeln!(to, "#\n# packet {number}: {} bytes, {state}{remark}", self.bytes.len());
        for (line, bytes) in self.bytes.chunks(16).enumerate() {
            let _ = write!(to, "{:06x}", line * 16);
            bytes.iter().for_each(|byte| {
                let _ = write!(to, " {byte:02x}");
            });
            to.push('\n');
        }
    }
}

/// What a worker knew when it panicked.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(super) panicked: Option<Panicked>,
    pub(super) place: Option<Place>,
    pub(super) packets: Vec<Packet>,
}

impl Scene {
    /// Where the panic was, of one of which this is known.
    pub(crate) fn place(scene: Option<&Self>, functions: &[String]) -> String {
        let place = scene.and_then(|scene| scene.place);
        place.map_or_else(|| "in the worker itself, outside of the chain".to_owned(), |place| place.describe(functions))
    }

    /// Of a panic that unwinds on this thread.
    pub(super) fn now(place: Option<Place>, batch: Option<&Batch>) -> Self {
        let panicked = PANICKED.with(|last| last.try_borrow_mut().ok().and_then(|mut last| last.take()));
        let packets = batch.map_or_else(Vec::new, |batch| {
            let copy = |(slot, packet): (usize, &dpdk_rs::Mbuf)| Packet {
                bytes: on_the_link(packet).collect(),
                verdict: batch.verdict(slot),
                is_the_one: batch.looked_at() == Some(slot),
            };
            batch.packets().map(copy).collect()
        });
        Self { panicked, place, packets }
    }

    pub(super) fn keep(self, scene: &OnceLock<Box<Self>>) {
        // The first one knows best: what unwinds further out is its consequence.
        let _ = scene.set(Box::new(self));
    }
}
