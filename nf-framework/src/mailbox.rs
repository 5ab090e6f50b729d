//! Work that the control thread asks of a worker: done between two bursts, by the worker,
//! on its own functions. So functions need no lock.

use crate::berth::Berth;
use crate::chain::Chain;
use crate::context::Context;
use crate::verdict::PortIx;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is done with a worker's chain.
type Work = Box<dyn FnMut(&mut Chain, &mut Context<'_>) + Send>;

/// What is asked of a worker. It comes back to the control thread to be freed.
pub(crate) enum Letter {
    /// Something about its functions.
    Chain(Work),
    /// Something about its queues of a port.
    Queues(QueuesLetter),
}

/// A worker gives its queues of a port back, or gets them.
#[derive(Debug)]
pub(crate) struct QueuesLetter {
    pub(crate) port: PortIx,
    /// Where they are between the worker and the control thread.
    pub(crate) berth: Arc<Berth>,
    pub(crate) errand: Errand,
}

/// Which way queues go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// Into the berth.
    GiveBack,
    /// Out of it. `trusted` is whether the device said that it brings packets to their owners.
    Take { trusted: bool },
}

/// The letters to one worker.
pub(crate) struct Mailbox {
    mail: AtomicBool,
    /// The oldest first.
    letters: Mutex<VecDeque<Letter>>,
    done: Mutex<Vec<Letter>>,
}

impl Mailbox {
    /// Letters that there is room for from the start.
    const CAPACITY: usize = 8;

    pub(crate) fn new() -> Self {
        Self {
            mail: AtomicBool::new(false),
            letters: Mutex::new(VecDeque::with_capacity(Self::CAPACITY)),
            done: Mutex::new(Vec::with_capacity(Self::CAPACITY)),
        }
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Relaxed)
    }

    /// The worker's part: opens the oldest letter, without a lock in hand, so that control can
    /// write another meanwhile, however long it takes.
    pub(crate) fn open_next(&self, open: impl FnOnce(&mut Letter)) {
        if let Some(mut letter) = self.next() {
            open(&mut letter);
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        }
    }

    fn next(&self) -> Option<Letter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let letter = letters.pop_front();
        self.mail.store(!letters.is_empty(), Ordering::Relaxed);
        letter
    }

    pub(crate) fn post(&self, letter: Letter) {
        let waiting = self.letters.lock().unwrap_or_else(PoisonError::into_inner).len();
        // The worker gets a list with room for all, and for one that it has in hand, as it must not
        // allocate.
        let room = Vec::with_capacity(Self::CAPACITY.max(waiting + 2));
        let done = std::mem::replace(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner), room);
        drop(done);
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push_back(letter);
        self.mail.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("mail", &self.has_mail()).finish_non_exhaustive()
    }
}

/// A worker did not do what was asked of it in time. If it has not stopped it will do so when
/// it comes to it.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker} has not answered: it has stopped, or a function keeps it busy")]
pub struct WorkerStopped {
    worker: usize,
}

/// How long a worker may take to come to the end of a burst; it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks every worker, one after the other is served in parallel, and collects the answers.
/// `ask` is told which worker it runs on.
pub(crate) fn ask_all<R: Send + 'static>(
    mailboxes: &[Arc<Mailbox>],
    stop: &AtomicBool,
    ask: impl Fn(usize, &mut Chain, &mut Context<'_>) -> R + Send + Sync + 'static,
) -> Result<Vec<R>, WorkerStopped> {
    let answers = tell_all(mailboxes, ask);
    let give_up = Instant::now() + PATIENCE;
    answers
        .into_iter()
        .enumerate()
        .map(|(worker, answers)| {
            loop {
                match answers.recv_timeout(Duration::from_millis(20)) {
                    Ok(answer) => return Ok(answer),
                    Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Relaxed) && Instant::now() < give_up => {}
                    Err(_) => return Err(WorkerStopped { worker }),
                }
            }
        })
        .collect()
}

/// Asks every worker without waiting for the answers, which come by the receivers.
pub(crate) fn tell_all<R: Send + 'static>(
    mailboxes: &[Arc<Mailbox>],
    ask: impl Fn(usize, &mut Chain, &mut Context<'_>) -> R + Send + Sync + 'static,
) -> Vec<Receiver<R>> {
    let ask = Arc::new(ask);
    let post = |(worker, mailbox): (usize, &Arc<Mailbox>)| {
        let (answer, answers) = sync_channel(1);
        let ask = Arc::clone(&ask);
        mailbox.post(Letter::Chain(Box::new(move |chain, cx| reply(&answer, ask(worker, chain, cx)))));
        answers
    };
    mailboxes.iter().enumerate().map(post).collect()
}

fn reply<R>(to: &SyncSender<R>, answer: R) {
    // The asker may have given up; then nobody needs the answer.
    let _ = to.try_send(answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;
    use std::thread;

    /// Asks two workers, of which so many still work.
    fn ask_two(working: usize, stopping: bool) -> Result<Vec<(usize, usize)>, WorkerStopped> {
        lab(move |lab| {
            let mailboxes: Vec<_> = (0..2).map(|_| Arc::new(Mailbox::new())).collect();
            let stop = AtomicBool::new(stopping);
            thread::scope(|threads| {
                let asked = threads.spawn(|| ask_all(&mailboxes, &stop, |worker, chain, _| (worker, chain.len())));
                for mailbox in &mailboxes[..working] {
                    while !mailbox.has_mail() {
                        thread::yield_now();
                    }
                    // A trial's chain stands for a worker's.
                    lab.trial(|_| Chain::new()).work(mailbox);
                    assert!(!mailbox.has_mail());
                }
                asked.join().unwrap()
            })
        })
    }

    #[test]
    fn every_worker_answers() {
        assert_eq!(ask_two(2, false).unwrap(), [(0, 0), (1, 0)]);
    }

    #[test]
    fn letters_are_opened_in_the_order_in_which_they_were_written() {
        let opened = lab(|lab| {
            let (mailbox, opened) = (Mailbox::new(), Arc::new(Mutex::new(Vec::new())));
            for letter in 0..3 {
                let opened = Arc::clone(&opened);
                mailbox.post(Letter::Chain(Box::new(move |_, _| opened.lock().unwrap().push(letter))));
            }
            lab.trial(|_| Chain::new()).work(&mailbox);
            opened.lock().unwrap().clone()
        });
        assert_eq!(opened, [0, 1, 2]);
    }

    #[test]
    fn a_worker_that_has_stopped_does_not_answer_and_keeps_nobody_waiting() {
        assert_eq!(
            ask_two(0, true).unwrap_err().to_string(),
            "worker 0 has not answered: it has stopped, or a function keeps it busy"
        );
        assert_eq!(
            ask_two(1, true).unwrap_err().to_string(),
            "worker 1 has not answered: it has stopped, or a function keeps it busy"
        );
    }
}
