//! Packets of a running program traced, and those that it drops written to a file.

use super::control::Control;
use super::serve::{failure, json};
use crate::mailbox::ask_all;
use crate::operate::{Answer, Asked};
use crate::trace::{
    DropNames, DropsError, DropsRequest, DropsWritten, Names, PreparedTrace, Share, Taps, TraceError, TraceRequest,
    Traces, Tracing,
};
use dpdk_rs::Port;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

impl Control {
    /// Has the workers follow the next packets that a filter means. Forwarding goes on meanwhile; a worker hands packets
    /// that are followed through the chain one at a time.
    ///
    /// # Errors
    ///
    /// [`TraceError`], with what is wrong with the filter.
    pub fn begin_trace(&self, request: &TraceRequest) -> Result<Tracing, TraceError> {
        self.begin_prepared(&request.clone().prepare()?)
    }

    fn begin_prepared(&self, trace: &PreparedTrace) -> Result<Tracing, TraceError> {
        let share = Share::new(trace, self.shared.functions.len());
        // Made here, so that workers do not allocate.
        let tracers = (0..self.workers()).map(|worker| Some(Box::new(share.tracer(worker))));
        let tracers: Mutex<Vec<_>> = Mutex::new(tracers.collect());
        let begun = ask_all(&self.shared.mailboxes, &self.shared.stop, move |worker, chain, _| {
            let tracer = tracers.lock().ok().and_then(|mut tracers| tracers.get_mut(worker)?.take());
            let is_free = chain.tracer.is_none();
            if is_free {
                chain.tracer = tracer;
                None
            } else {
                tracer
            }
        })?;
        if begun.iter().any(Option::is_some) {
            return Err(TraceError::Busy);
        }
        Ok(Tracing::new(share, trace))
    }

    /// Ends a trace: what was found. Everything is as it was before it.
    ///
    /// # Errors
    ///
    /// When a worker has stopped.
    pub fn end_trace(&self, tracing: Tracing) -> Result<Traces, TraceError> {
        drop(tracing);
        let tracers = ask_all(&self.shared.mailboxes, &self.shared.stop, |_, chain, _| chain.tracer.take())?;
        Ok(Traces::of(tracers.into_iter().flatten(), &self.names()))
    }

    /// Traces packets, and waits for them.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn trace(&self, request: &TraceRequest) -> Result<Traces, TraceError> {
        let mut tracing = self.begin_trace(request)?;
        while !tracing.is_done() && !self.stopping() {
            thread::sleep(Duration::from_millis(5));
        }
        self.end_trace(tracing)
    }

    /// Begins to write packets that are dropped to a file, with the reason as comment: the first 1518 bytes of each, and
    /// no more in a second than was asked for. [`Control::end_drops`] ends it, or the end of the program.
    ///
    /// # Errors
    ///
    /// [`DropsError`].
    pub fn begin_drops(&self, request: &DropsRequest) -> Result<(), DropsError> {
        let names = DropNames {
            ports: self.ports().iter().map(|port| (port.id().0, port.name().to_owned())).collect(),
            reasons: self.reason_names(),
            cycles_per_second: self.shared.cycles_per_second,
        };
        self.taps.borrow_mut().get_or_insert_with(|| Taps::new(&self.shared.counters)).begin(request, names)
    }

    /// Ends the file: how many packets are in it.
    ///
    /// # Errors
    ///
    /// [`DropsError`].
    pub fn end_drops(&self) -> Result<DropsWritten, DropsError> {
        self.taps.borrow_mut().as_mut().ok_or(DropsError::Off)?.end()
    }

    /// Answers who waits for a trace, when there is nothing more to wait for.
    pub(super) fn tend_trace(&self) {
        let mut awaited = self.awaited.borrow_mut();
        let is_over = |(asked, tracing): &mut (Asked, Tracing)| tracing.is_done() || !asked.is_wanted();
        if let Some((asked, tracing)) = awaited.take_if(is_over) {
            asked.answer(match self.end_trace(tracing) {
                Ok(traces) => json(traces),
                Err(error) => failure(500, error.to_string()),
            });
        }
    }

    /// Begins a trace that somebody at the door waits for.
    pub(super) fn trace_for(&self, asked: Asked, trace: &PreparedTrace) {
        match self.begin_prepared(trace) {
            Ok(tracing) => *self.awaited.borrow_mut() = Some((asked, tracing)),
            Err(error @ TraceError::Busy) => asked.answer(failure(409, error.to_string())),
            Err(error @ TraceError::Worker(_)) => asked.answer(failure(500, error.to_string())),
            Err(error) => asked.answer(failure(400, error.to_string())),
        }
    }

    pub(super) fn drops_for(&self, request: Option<&DropsRequest>) -> Answer {
        let done = match request {
            Some(request) => self.begin_drops(request).map(|()| DropsWritten::default()),
            None => self.end_drops(),
        };
        match done {
            Ok(written) => json(written),
            Err(error @ (DropsError::Busy(_) | DropsError::Off)) => failure(409, error.to_string()),
            Err(error) => failure(400, error.to_string()),
        }
    }

    fn reason_names(&self) -> Vec<String> {
        self.shared.registry.drop_reasons.list().into_iter().map(|(name, _)| name).collect()
    }

    fn names(&self) -> Names {
        Names {
            ports: self.config.port_labels(self.ports().iter().map(Port::name)),
            functions: self.shared.functions.clone(),
            reasons: self.reason_names(),
            next_hops: self.shared.registry.next_hops.clone(),
            cycles_per_second: self.shared.cycles_per_second,
        }
    }
}
