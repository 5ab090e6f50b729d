//! A stream whose other end has to go on reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long nothing may be taken of what is written.
const PROGRESS: Duration = Duration::from_secs(10);
/// And how long one answer may take altogether: a byte now and then is no progress.
const WHOLE: Duration = Duration::from_secs(60);

/// Fails when the other end does not read.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    alarm: Pin<Box<Sleep>>,
    /// Since when something waits to be written.
    since: Option<Instant>,
    /// Whether the last attempt could not.
    stuck: bool,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, alarm: Box::pin(tokio::time::sleep(PROGRESS)), since: None, stuck: false }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if !std::mem::replace(&mut self.stuck, true) {
            self.alarm.as_mut().reset((now + PROGRESS).min(since + WHOLE));
        }
        self.alarm.as_mut().poll(cx).map(|()| io::ErrorKind::TimedOut.into())
    }
}

use std::future::Future as _;

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending => self.wait(cx).map(Err),
            done => {
                self.stuck = false;
                done
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Everything that was to be written has been.
        self.since = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
