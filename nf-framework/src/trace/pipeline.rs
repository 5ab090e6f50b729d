//! The pipeline while a trace is on: the same as ever, but for packets that are traced, which go one at a time.

use super::Unwatched;
use super::event::Look;
use crate::batch::Batch;
use crate::direction::Direction;
use crate::position::Position;
use crate::time::Instant;
use crate::worker::{Pipeline, Transmit};
use dpdk_rs::Burst;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl Pipeline {
    /// As [`Pipeline::arrive`].
    #[cold]
    pub(crate) fn arrive_traced(
        &mut self,
        batch: &mut Batch,
        direction: Direction,
        now: Instant,
        out: &mut impl Transmit,
    ) {
        let port = if direction == Direction::Outbound { self.inside } else { self.outside };
        let any = self.chain.tracer.as_mut().is_some_and(|tracer| tracer.mark(batch, port));
        if !any {
            return self.enter(batch, direction, now, out);
        }
        self.in_parts(batch, |pipeline, part, traced| {
            let arriving = traced.then(|| pipeline.begin(part)).flatten();
            pipeline.enter(part, direction, now, out);
            // What neither walked nor stayed: it was handed over, or is a fragment that waits for the first, or is dropped.
            if let (Some(packet), Some(tracer)) = (arriving, &mut pipeline.chain.tracer)
                && tracer.has_only_arrived(packet.0)
            {
                tracer.gone(packet, &pipeline.counters);
            }
        });
    }

    /// As [`Pipeline::pass`], for a batch with packets that are traced.
    #[cold]
    pub(crate) fn pass_traced(
        &mut self,
        batch: &mut Batch,
        position: Position,
        arrived: bool,
        now: Instant,
        out: &mut impl Transmit,
    ) {
        self.in_parts(batch, |pipeline, part, traced| {
            pipeline.walk_part(part, traced, position, arrived, now, out);
        });
    }

    fn walk_part(
        &mut self,
        part: &mut Batch,
        traced: bool,
        position: Position,
        arrived: bool,
        now: Instant,
        out: &mut impl Transmit,
    ) {
        let tracer = if traced { self.chain.tracer.take() } else { None };
        let (Some(mut tracer), Some(packet)) = (tracer, part.packet(0)) else {
            return self.walk(part, position, arrived, now, out, &mut Unwatched);
        };
        let identity = packet.identity();
        tracer.begin(&self.counters, &self.pending);
        tracer.enters(packet, position);
        // What was seen until a function panics is told too.
        let walked = catch_unwind(AssertUnwindSafe(|| self.walk(part, position, arrived, now, out, &mut *tracer)));
        if walked.is_ok() {
            tracer.settled(identity, &self.counters, &mut self.pending);
        }
        self.chain.tracer = Some(tracer);
        walked.unwrap_or_else(|payload| resume_unwind(payload));
    }

    /// What is to be known of a packet that is alone in its batch, before something is done with it.
    fn begin(&mut self, part: &Batch) -> Option<(usize, Look)> {
        let (packet, tracer) = (part.packet(0)?, self.chain.tracer.as_mut()?);
        tracer.begin(&self.counters, &self.pending);
        Some((packet.identity(), Look::at(packet)))
    }

    /// Does something with the packets of a batch in their order: those that are traced one at a time, the others
    /// together.
    fn in_parts(&mut self, batch: &mut Batch, mut each: impl FnMut(&mut Self, &mut Batch, bool)) {
        let mut part = Batch::with_limit(Burst::CAPACITY);
        for slot in batch.undecided() {
            let Some(packet) = batch.take(slot) else { continue };
            let traced = packet.is_traced();
            if traced && !part.is_empty() {
                each(self, &mut part, false);
                part.empty();
            }
            // It has room for as many as there are.
            drop(part.push(packet));
            if traced {
                each(self, &mut part, true);
                part.empty();
            }
        }
        if !part.is_empty() {
            each(self, &mut part, false);
        }
        batch.empty();
    }
}
