//! Packets followed through the chain one by one, with nobody out there: what each function did with them and why.

use super::clock::Clock;
use super::source::{Side, Source, Sources};
use super::{OfflineError, direction_of, let_in, panicked, start, unless_it_panics, unless_stopped};
use crate::batch::Batch;
use crate::classifier::Prefix;
use crate::described::{AskedPackets, Described};
use crate::direction::Direction;
use crate::headers::Headers;
use crate::partial_checksums;
use crate::runtime::{Configuration, Portless};
use crate::trace::{Share, Sight, Trace, TraceRequest, Traces, sights};
use crate::verdict::PortIx;
use crate::worker::Transmit;
use dpdk_rs::Burst;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Packets that are followed before they are told of. One that is held for longer than that is not seen to its end.
const TOGETHER: u32 = 100;

/// Says of packets what a configuration makes of them, by `say`, a piece after the other.
///
/// # Errors
///
/// When there is nothing to be said, or the capture cannot be read further.
pub(crate) fn explain(
    name: &str,
    configuration: Configuration,
    packets: AskedPackets,
    inside: &[Prefix],
    stop: &Arc<AtomicBool>,
    say: impl FnMut(fmt::Arguments<'_>),
) -> Result<(), OfflineError> {
    let has_two_sides = configuration.runtime().has_two_sides();
    match packets {
        AskedPackets::Described(packet) if packet.is_related() => Err(OfflineError::Related),
        AskedPackets::Described(packet) => {
            let mut explainer = Explainer::new(start(name, configuration)?, Duration::ZERO, say)?;
            explainer.unless_it_panics(|explainer| explainer.described(&packet, has_two_sides))
        }
        AskedPackets::Capture(path) => {
            let side = if has_two_sides { Side::BySource(inside.to_vec()) } else { Side::Port(0) };
            let sources =
                Sources::new(vec![Source::open(&path, side, stop).map_err(|error| unless_stopped(error, stop))?]);
            let mut explainer = Explainer::new(start(name, configuration)?, sources.begin(), say)?;
            explainer.unless_it_panics(|explainer| explainer.captured(sources, stop))
        }
    }
}

/// What leaves is told of by its trace.
struct Nowhere;

impl Transmit for Nowhere {
    const TRACED: bool = true;

    fn send(&mut self, _: PortIx, burst: &mut Burst) {
        burst.clear();
    }
}

struct Explainer<S> {
    worker: Portless,
    clock: Clock,
    batch: Batch,
    /// For ticks.
    between: Batch,
    /// Place and time of the packets that are being followed.
    followed: Vec<(usize, Duration)>,
    began: Duration,
    say: S,
}

impl<S: FnMut(fmt::Arguments<'_>)> Explainer<S> {
    fn new(worker: Portless, began: Duration, say: S) -> Result<Self, OfflineError> {
        let (batch, between) = (Batch::with_limit(Burst::CAPACITY), Batch::with_limit(Burst::CAPACITY));
        let clock = Clock::new(began);
        let mut explainer = Self { worker, clock, batch, between, followed: Vec::new(), began, say };
        explainer.follow()?;
        Ok(explainer)
    }

    /// Says of a panic with which packet it came, and what was seen until then.
    fn unless_it_panics(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), OfflineError>,
    ) -> Result<(), OfflineError> {
        unless_it_panics(|| work(self)).unwrap_or_else(|message| {
            let at = self
                .followed
                .last()
                .map_or("before the first packet".to_owned(), |(number, _)| format!("packet {number}"));
            self.tell();
            Err(panicked(at, message, &self.worker))
        })
    }

    /// A packet in words, and what functions have to say of it beside what they did.
    fn described(&mut self, packet: &Described, has_two_sides: bool) -> Result<(), OfflineError> {
        let port = u16::from(has_two_sides && packet.direction() == Direction::Inbound);
        match packet.taken_from() {
            Some(taken) if has_two_sides => (self.say)(format_args!("{taken}")),
            None if !has_two_sides => {
                (self.say)(format_args!("with one port there are no sides: it comes by that port"))
            }
            _ => {}
        }
        self.advance(Duration::ZERO);
        self.arrive(&packet.frame(), port, 1);
        let sights = self.worker.pipeline.chain.tracer.as_ref().map_or_else(Vec::new, |tracer| sights(&tracer.events));
        self.end();
        for Sight { function, direction, mut frame } in sights {
            if let Ok(mut headers) = Headers::parse(&mut frame) {
                // What was too long to be kept has others.
                headers.fill_checksums();
            }
            if let Some((name, text)) = self.worker.explain(function, &mut frame, direction) {
                let text = text.replace('\n', "\n  ");
                (self.say)(format_args!("\n{name}:\n  {text}"));
            }
        }
        Ok(())
    }

    /// The packets of a capture, each at its time.
    fn captured(&mut self, mut sources: Sources, stop: &AtomicBool) -> Result<(), OfflineError> {
        let is_empty = sources.next().is_none();
        while let Some((port, time)) = sources.next() {
            if stop.load(Ordering::Relaxed) {
                return Err(OfflineError::Stopped);
            }
            self.advance(time);
            self.arrive(sources.frame(), port, sources.number());
            if self.followed.len() >= TOGETHER as usize {
                self.tell();
                self.follow()?;
            }
            sources.advance();
        }
        self.end();
        if let count @ 1.. = sources.truncated() {
            (self.say)(format_args!(
                "{count} packets are not whole in the capture, and are left out (tcpdump -s 0 takes all of a packet)"
            ));
        }
        match sources.fault() {
            Some(fault) => Err(unless_stopped(fault, stop)),
            None => {
                if is_empty && sources.truncated() == 0 {
                    (self.say)(format_args!("there are no packets in the capture"));
                }
                Ok(())
            }
        }
    }

    /// Follows the next packets.
    fn follow(&mut self) -> Result<(), OfflineError> {
        let request = TraceRequest { count: TOGETHER, filter: String::new(), seconds: 1 };
        let share = Share::new(&request.prepare()?, self.worker.pipeline.chain.len());
        self.worker.pipeline.chain.tracer = Some(Box::new(share.tracer(0)));
        Ok(())
    }

    fn arrive(&mut self, frame: &[u8], port: u16, number: usize) {
        match let_in(&self.worker, frame, port) {
            Ok(packet) => {
                self.followed.push((number, self.clock.stamp().saturating_sub(self.began)));
                // It is the only one.
                drop(self.batch.push(packet));
                partial_checksums::complete(&mut self.batch);
                let Self { worker, batch, clock, .. } = self;
                worker.pipeline.arrive(batch, direction_of(port), clock.now(), &mut Nowhere);
            }
            Err(reason) => {
                let names = self.worker.names().reasons;
                let reason = names.get(reason.index()).map_or("", String::as_str);
                (self.say)(format_args!("packet {number}: no packet can be made of it: drop {reason}\n"));
            }
        }
    }

    /// Lets time pass.
    fn advance(&mut self, to: Duration) {
        let Self { clock, worker, between, .. } = self;
        clock.advance(to, |clock, budget| {
            worker.pipeline.tick_with(budget, between, clock.now(), &mut Nowhere);
        });
    }

    /// As a program stops; what was held is let go.
    fn end(&mut self) {
        let Self { worker, between, clock, .. } = self;
        worker.pipeline.bring_to_rest(between, clock.now(), &mut Nowhere);
        self.tell();
        self.worker.pipeline.stop();
    }

    /// Says what was seen of the packets that are followed.
    fn tell(&mut self) {
        let tracer = self.worker.pipeline.chain.tracer.take();
        let traces = Traces::of(tracer.into_iter(), &self.worker.names());
        let followed: Vec<_> = std::mem::take(&mut self.followed);
        let mut arrived = followed.iter();
        // Packets that functions made have no place in the file.
        let mut numbers = Vec::new();
        for trace in &traces.packets {
            let own = if trace.made_for.is_none() { arrived.next() } else { None };
            let origin = trace.made_for.and_then(|of| numbers.get(of - 1).copied());
            numbers.push(own.map_or(origin.unwrap_or(0), |(number, _)| *number));
            (self.say)(format_args!("{}", told(trace, own, origin)));
        }
    }
}

/// A packet's place in the file and time, or whose sake it was made for, and what happened to it.
fn told(trace: &Trace, own: Option<&(usize, Duration)>, origin: Option<usize>) -> String {
    let mut text = String::new();
    // To a string nothing can fail.
    let _ = match (own, origin) {
        (Some((number, time)), _) => write!(text, "#{number} {:.6} {}", time.as_secs_f64(), trace.packet),
        (None, Some(origin)) => write!(text, "made for #{origin}: {}", trace.packet),
        (None, None) => write!(text, "{}", trace.packet),
    };
    text.push('\n');
    let _ = trace.write_steps(&mut text);
    // Whoever prints ends the last line.
    text.truncate(text.trim_end().len());
    text
}
