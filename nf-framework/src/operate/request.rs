//! What is asked of the control thread, and the bounded way there and back.

use super::arguments::Arguments;
use super::reply::Reply;
use crate::trace::{DropsRequest, PreparedTrace};
use std::cell::Cell;
use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Requests that wait; more are told that it is busy.
const WAITING: usize = 16;

/// What is asked. Each stands for an address of the door.
#[derive(Debug)]
pub(crate) enum Request {
    Metrics,
    Ready,
    Program,
    Stats,
    Ports,
    Workers,
    /// By worker, or all workers together.
    Chain {
        by_worker: bool,
    },
    Neighbours(Page),
    Routes(Page),
    Interfaces,
    Functions,
    /// By function and topic. With a page it is looked at, without one it is to be done.
    Topic {
        function: String,
        topic: String,
        arguments: Arguments,
        page: Option<Page>,
    },
    Reload,
    /// For so many seconds; as the program was started unless given.
    Drain {
        seconds: Option<u64>,
    },
    /// Answered when the packets have come, or the time is over.
    Trace(PreparedTrace),
    BeginDrops(DropsRequest),
    EndDrops,
}

impl Request {
    /// Whether it is done also if nobody waits for the answer any more.
    pub(crate) fn is_order(&self) -> bool {
        matches!(
            self,
            Self::Reload | Self::Drain { .. } | Self::BeginDrops(_) | Self::EndDrops | Self::Topic { page: None, .. }
        )
    }
}

/// A part of a long list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// Items that it has at most.
    pub(crate) limit: usize,
    /// Where it begins, as the page before said.
    pub(crate) cursor: Option<String>,
}

impl Page {
    pub(crate) const USUAL: usize = 100;
    pub(crate) const MOST: usize = 1000;

    /// Where a list begins whose cursors are numbers.
    pub(crate) fn number(&self) -> Result<usize, Reply> {
        let wrong = |cursor: &String| Reply::bad(format!("the cursor {cursor:?} is none that was given out"));
        self.cursor.as_ref().map_or(Ok(0), |cursor| cursor.parse().map_err(|_| wrong(cursor)))
    }
}

/// What control has found, to be put into words by whoever asked: that may take a while.
pub(crate) type Answer = Box<dyn FnOnce() -> Reply + Send>;

/// A request, and who waits for what becomes of it.
pub(crate) struct Asked {
    pub(crate) request: Request,
    to: oneshot::Sender<Answer>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Asked").field(&self.request).finish()
    }
}

impl Asked {
    /// Whether whoever asked is still there.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.to.is_closed()
    }

    pub(crate) fn answer(self, answer: Answer) {
        // Who has gone needs none.
        let _ = self.to.send(answer);
    }
}

/// Why a request is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// As many wait as may.
    Busy,
    /// Nobody takes requests any more.
    Stopping,
}

/// Where requests are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Desk(SyncSender<Asked>);

impl Desk {
    pub(crate) fn ask(&self, request: Request) -> Result<oneshot::Receiver<Answer>, Refused> {
        let (to, answer) = oneshot::channel();
        match self.0.try_send(Asked { request, to }) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(Refused::Busy),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Stopping),
        }
    }

    /// The same, for a thread that waits for the answer: `None` when it has not come after `patience`.
    pub(crate) fn ask_and_wait(&self, request: Request, patience: Duration) -> Result<Option<Answer>, Refused> {
        let until = Instant::now() + patience;
        let mut answer = pin!(self.ask(request)?);
        let waker = Waker::from(Arc::new(Waiting(std::thread::current())));
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(&waker)) {
                return answer.map(Some).map_err(|_| Refused::Stopping);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::park_timeout(left);
        }
    }
}

/// A thread that waits for an answer.
struct Waiting(std::thread::Thread);

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Where the control thread takes them. While it lives, the door is open.
#[derive(Debug)]
pub(crate) struct Inbox {
    asked: Receiver<Asked>,
    turns: Arc<AtomicU64>,
    /// When it goes, the door closes.
    _open: oneshot::Sender<std::convert::Infallible>,
    pub(crate) program: Program,
    pub(crate) started: Instant,
    /// Nothing can come any more.
    closed: Cell<bool>,
}

/// What the door says of the program that it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The configuration file, which a reload reads again.
    pub(crate) config: Option<std::path::PathBuf>,
}

/// Ends when the inbox has gone.
pub(crate) type Closing = oneshot::Receiver<std::convert::Infallible>;

impl Inbox {
    pub(crate) fn new(program: Program) -> (Self, Desk, Closing) {
        let (desk, asked) = sync_channel(WAITING);
        let (open, closing) = oneshot::channel();
        let (turns, started, closed) = (Arc::default(), Instant::now(), Cell::new(false));
        (Self { asked, turns, _open: open, program, started, closed }, Desk(desk), closing)
    }

    /// Moves whenever control looks for requests.
    pub(crate) fn turns(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.turns)
    }

    /// The next request; `None` when none has come until then.
    pub(crate) fn next(&self, until: Instant) -> Option<Asked> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let left = until.saturating_duration_since(Instant::now());
        if self.closed.get() {
            std::thread::sleep(left);
            return None;
        }
        match self.asked.recv_timeout(left) {
            Ok(asked) => Some(asked),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.closed.set(true);
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                None
            }
        }
    }
}

/// How long who asks waits for control, which may be building a large policy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// And for a reload itself, and a trace.
pub(crate) const PATIENCE_TO_RELOAD: Duration = Duration::from_secs(600);
