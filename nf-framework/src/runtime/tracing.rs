//! Packets of a running program traced.

use super::control::Control;
use crate::mailbox::ask_all;
use crate::trace::{Names, Share, TraceError, TraceRequest, Traces, Tracing};
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
        let share = Share::new(request, self.shared.functions.len())?;
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
        Ok(Tracing::new(share, request))
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

    fn names(&self) -> Names {
        Names {
            ports: self.ports().iter().map(|port| port.name().to_owned()).collect(),
            functions: self.shared.functions.clone(),
            reasons: self.shared.registry.drop_reasons.list().into_iter().map(|(name, _)| name).collect(),
            next_hops: self.shared.registry.next_hops.clone(),
            cycles_per_second: self.shared.cycles_per_second,
        }
    }
}
