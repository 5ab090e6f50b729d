//! Asking for a trace, and ending it.

use super::event::Event;
use super::story::{Names, Traces};
use super::tracer::Tracer;
use crate::mailbox::WorkerStopped;
use dpdk_rs::{FilterError, PacketFilter};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Which packets are to be traced.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// How many, 1 to 1000.
    pub count: u32,
    /// Those that this filter means, in the words of tcpdump (pcap-filter(7)), as they arrive; all unless given.
    #[serde(default)]
    pub filter: String,
    /// How long to wait for them, in seconds, 1 to 300.
    #[serde(default = "TraceRequest::usual_seconds")]
    pub seconds: u32,
}

impl TraceRequest {
    /// Most packets in one trace.
    pub const MOST: u32 = 1000;
    /// The longest time, in seconds.
    pub const LONGEST: u32 = 300;
    /// Bytes of a filter at most. What libpcap needs to compile one grows with the cube of its length: a second here,
    /// and hours for what a request has room for.
    pub const LONGEST_FILTER: usize = 1000;

    /// Looks at what is wanted and compiles the filter. That may take a while, as libpcap asks a name server for names
    /// in it, and so is not for the control thread.
    pub(crate) fn prepare(self) -> Result<PreparedTrace, TraceError> {
        if !(1..=Self::MOST).contains(&self.count) {
            return Err(TraceError::Count(self.count));
        }
        if !(1..=Self::LONGEST).contains(&self.seconds) {
            return Err(TraceError::Seconds(self.seconds));
        }
        if self.filter.len() > Self::LONGEST_FILTER {
            return Err(TraceError::LongFilter(self.filter.len()));
        }
        let filter = Arc::new(PacketFilter::new(&self.filter)?);
        Ok(PreparedTrace { count: self.count, seconds: self.seconds, filter })
    }

    fn usual_seconds() -> u32 {
        10
    }
}

/// A trace that makes sense, with its filter compiled.
#[derive(Clone, Debug)]
pub(crate) struct PreparedTrace {
    count: u32,
    seconds: u32,
    filter: Arc<PacketFilter>,
}

/// Why nothing can be traced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Its length.
    #[error("a filter of {0} bytes takes too long to be compiled: {most} are the most", most = TraceRequest::LONGEST_FILTER)]
    LongFilter(usize),
    /// The number of packets.
    #[error("{0} packets cannot be traced: 1 to {most} can", most = TraceRequest::MOST)]
    Count(u32),
    /// The time.
    #[error("a trace cannot wait {0} s for packets: 1 to {longest} s", longest = TraceRequest::LONGEST)]
    Seconds(u32),
    /// There is one.
    #[error("there is a trace already: it ends after its packets, or its time")]
    Busy,
    /// A worker.
    #[error(transparent)]
    Worker(#[from] WorkerStopped),
}

/// What the workers' parts of a trace have in common.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    filter: Arc<PacketFilter>,
    left: Arc<AtomicU32>,
    room: usize,
}

impl Share {
    /// For a chain of so many functions.
    pub(crate) fn new(trace: &PreparedTrace, functions: usize) -> Self {
        // Each part of the chain, in and out; and once more as it may turn, or make others.
        let room = 2 * trace.count as usize * (functions + 6);
        Self { filter: Arc::clone(&trace.filter), left: Arc::new(AtomicU32::new(trace.count)), room }
    }

    /// A worker's part.
    pub(crate) fn tracer(&self, worker: usize) -> Tracer {
        Tracer::new(worker, Arc::clone(&self.filter), Arc::clone(&self.left), self.room)
    }

    /// Whether as many packets were begun with as were asked for.
    fn is_used_up(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// A trace that is on. It is to be [ended](crate::Control::end_trace); the workers follow packets until then.
#[derive(Debug)]
pub struct Tracing {
    share: Share,
    until: Instant,
    used_up: Option<Instant>,
}

/// How long the last packets may take to come to the end of their way: some wait for a neighbour's address.
const LAST: Duration = Duration::from_millis(100);

impl Tracing {
    pub(crate) fn new(share: Share, trace: &PreparedTrace) -> Self {
        let until = Instant::now() + Duration::from_secs(trace.seconds.into());
        Self { share, until, used_up: None }
    }

    /// Whether there is nothing more to wait for: as many packets have come as were asked for, or the time is over.
    pub fn is_done(&mut self) -> bool {
        let now = Instant::now();
        if self.used_up.is_none() && self.share.is_used_up() {
            self.used_up = Some(now);
        }
        now >= self.until || self.used_up.is_some_and(|since| now >= since + LAST)
    }
}

impl Traces {
    /// Of what the workers have written down.
    pub(crate) fn of(tracers: impl Iterator<Item = Box<Tracer>>, names: &Names) -> Self {
        let (mut events, mut lost) = (Vec::<Event>::new(), 0);
        for tracer in tracers {
            lost += tracer.lost;
            events.extend(tracer.events);
        }
        Self::told(events, lost, names)
    }
}
