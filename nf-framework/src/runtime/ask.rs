//! What is asked of functions by their topics: a worker at a time, a piece at a time.

use super::control::Control;
use super::serve::json;
use crate::context::Context;
use crate::function::NetworkFunction;
use crate::mailbox::ask_all;
use crate::operate::topics::{Act, AnyPiece, AnyTopic, ListPiece, Once, SweepPiece, TopicsView};
use crate::operate::views::{PageView, SweepView};
use crate::operate::{Answer, Arguments, Page, Reply};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pieces that one request is answered by at most, and the time after which none is begun.
const PIECES: usize = 32;
const TIME: Duration = Duration::from_millis(20);
/// How long a worker is left alone between two pieces: however often people ask, packets get most of its time.
const PAUSE: Duration = Duration::from_millis(1);
/// How long entries are gone through by one order.
const TIME_TO_SWEEP: Duration = Duration::from_secs(10);

/// Where a list goes on: at a worker, and a place there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    worker: usize,
    place: usize,
}

impl Cursor {
    const START: Self = Self { worker: 0, place: 0 };

    fn read(text: &str) -> Option<Self> {
        let (worker, place) = text.split_once('.')?;
        Some(Self { worker: worker.parse().ok()?, place: place.parse().ok()? })
    }

    fn write(self) -> String {
        format!("{}.{}", self.worker, self.place)
    }

    /// Behind a piece of this worker's.
    fn after(self, next: Option<usize>) -> Self {
        match next {
            Some(place) => Self { place, ..self },
            None => Self { worker: self.worker + 1, place: 0 },
        }
    }
}

impl Control {
    /// The functions of the chain, with their topics.
    pub(super) fn topics(&self) -> Vec<TopicsView> {
        let in_force = self.in_force.borrow();
        let view = |topics: Vec<AnyTopic>| topics.iter().map(AnyTopic::view).collect();
        let functions = in_force.iter().map(|of| (of.function.name().to_owned(), of.function.topics()));
        functions.map(|(name, topics)| TopicsView { name, topics: view(topics) }).collect()
    }

    /// Looks at a topic of a function's, or does what it is for.
    pub(super) fn topic(&self, (function, topic): (&str, &str), arguments: &Arguments, page: Option<&Page>) -> Answer {
        self.ask_topic(function, topic, arguments, page).unwrap_or_else(|reply| Box::new(move || reply))
    }

    fn ask_topic(
        &self,
        function: &str,
        topic: &str,
        arguments: &Arguments,
        page: Option<&Page>,
    ) -> Result<Answer, Reply> {
        let no_function = |_| Reply::not_found(format!("there is no function {function:?} in the chain"));
        let index = self.find(function).map_err(no_function)?;
        let topics = self.in_force.borrow().get(index).map(|of| of.function.topics()).unwrap_or_default();
        let known = || topics.iter().map(|topic| topic.name).collect::<Vec<_>>().join(", ");
        let no_topic = || Reply::not_found(format!("{function} has no topic {topic:?} (it has: {})", known()));
        let topic = topics.iter().find(|of| of.name == topic).ok_or_else(no_topic)?;
        let workers = if topic.of_one_worker { 1 } else { self.workers() };
        match (&topic.act, page) {
            (Act::List(prepare), Some(page)) => self.list(index, workers, &prepare(arguments)?, page),
            (Act::State(prepare), Some(_)) | (Act::Order(prepare), None) => {
                self.once(index, workers, prepare(arguments)?)
            }
            (Act::Sweep(prepare), None) => self.sweep(index, workers, &prepare(arguments)?),
            (Act::List(_) | Act::State(_), None) => Err(Reply::wrong_method("GET, HEAD")),
            (Act::Order(_) | Act::Sweep(_), Some(_)) => Err(Reply::wrong_method("POST")),
        }
    }

    fn list(&self, index: usize, workers: usize, piece: &Arc<ListPiece>, page: &Page) -> Result<Answer, Reply> {
        let wrong = || Reply::bad("the cursor is none that was given out");
        let mut at = page.cursor.as_deref().map_or(Some(Cursor::START), Cursor::read).ok_or_else(wrong)?;
        let begun = Instant::now();
        let (mut pieces, mut left) = (Vec::new(), page.limit);
        while at.worker < workers && left > 0 && pieces.len() < PIECES && (pieces.is_empty() || begun.elapsed() < TIME)
        {
            if !pieces.is_empty() {
                std::thread::sleep(PAUSE);
            }
            let (piece, from) = (Arc::clone(piece), at.place);
            let found = self.ask_one(at.worker, index, move |function, cx| piece(function, from, cx))?;
            let taken = found.len().min(left);
            at = found.place(taken).map_or_else(|| at.after(found.next()), |place| Cursor { place, ..at });
            left -= taken;
            pieces.push((found, taken));
        }
        let next = (at.worker < workers).then(|| at.write());
        Ok(Box::new(move || {
            let mut items = Vec::new();
            pieces.into_iter().for_each(|(piece, taken): (Box<dyn AnyPiece>, usize)| piece.write(taken, &mut items));
            Reply::json(&PageView { items, next })
        }))
    }

    fn once(&self, index: usize, workers: usize, Once { ask, together }: Once) -> Result<Answer, Reply> {
        let mailboxes = self.shared.mailboxes.get(..workers).unwrap_or_default();
        let answers = ask_all(mailboxes, &self.shared.stop, move |_, chain, cx| {
            chain.command_any(index, cx, |function, cx| ask(function, cx)).flatten()
        });
        let answers = answers.map_err(|error| Reply::failure(503, error.to_string()))?;
        let answers = answers.into_iter().collect::<Option<Vec<_>>>().ok_or_else(no_instance)?;
        Ok(Box::new(move || together(answers)))
    }

    fn sweep(&self, index: usize, workers: usize, piece: &Arc<SweepPiece>) -> Result<Answer, Reply> {
        let (begun, mut at, mut done) = (Instant::now(), Cursor::START, 0);
        while at.worker < workers && begun.elapsed() < TIME_TO_SWEEP {
            let (piece, from) = (Arc::clone(piece), at.place);
            let (some, next) = self.ask_one(at.worker, index, move |function, cx| piece(function, from, cx))?;
            (done, at) = (done + some, at.after(next));
            std::thread::sleep(PAUSE);
        }
        Ok(json(SweepView { done, complete: at.worker >= workers }))
    }

    /// Has one worker do something with its instance.
    fn ask_one<R: Send + 'static>(
        &self,
        worker: usize,
        index: usize,
        ask: impl Fn(&mut dyn NetworkFunction, &mut Context<'_>) -> Option<R> + Send + Sync + 'static,
    ) -> Result<R, Reply> {
        let mailbox = self.shared.mailboxes.get(worker..=worker).unwrap_or_default();
        let answers = ask_all(mailbox, &self.shared.stop, move |_, chain, cx| {
            chain.command_any(index, cx, |function, cx| ask(function, cx)).flatten()
        });
        let answers = answers.map_err(|_| Reply::failure(503, format!("worker {worker} does not answer")))?;
        answers.into_iter().next().flatten().ok_or_else(no_instance)
    }
}

fn no_instance() -> Reply {
    Reply::failure(500, "the worker's instance is not of this function")
}
