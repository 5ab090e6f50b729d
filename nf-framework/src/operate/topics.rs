//! What functions show of themselves and let be done, by name: lists, states and orders, without their types.
//!
//! What is asked is done by each worker on its own instance, between two bursts, a piece at a time, so that packets
//! wait no longer than a piece takes. Only then is it put into words, elsewhere.

use super::arguments::Arguments;
use super::reply::Reply;
use crate::context::Context;
use crate::function::{Function, NetworkFunction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// Some of what an instance has to list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece<T> {
    /// The items that were asked for, each with its place: a list that is interrupted goes on by it. In the order of
    /// the places, of which no two are the same.
    pub items: Vec<(usize, T)>,
    /// The place to go on from; `None` at the end.
    pub next: Option<usize>,
}

/// The parameters of a [`Topic`] that has none: whoever gives one is told so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

/// What people and programs can ask of a function while it runs, or tell it to do; see [`Function::topics`].
///
/// Filters and arguments are structures that are read by serde, from the parameters of a URL or from a body; they
/// should `deny_unknown_fields`, so that a slip is an error. What is not given is `None`.
pub struct Topic<F: ?Sized> {
    topic: AnyTopic,
    of: PhantomData<fn(&F)>,
}

impl<F: Function> Topic<F> {
    /// A list, such as of sessions, that every worker has a part of. `piece` looks at a bounded number of entries from
    /// a place on, which is 0 at first; packets wait meanwhile.
    pub fn list<A, T>(
        name: &'static str,
        help: &'static str,
        piece: impl Fn(&mut F::Instance, &A, usize) -> Piece<T> + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + Send + Sync + 'static,
        T: Serialize + Send + 'static,
    {
        let piece = Arc::new(piece);
        Self::new(
            name,
            help,
            Act::List(Box::new(move |arguments| {
                let (filter, piece) = (arguments.parse::<A>()?, Arc::clone(&piece));
                Ok(Arc::new(move |function, from, _| {
                    Some(Box::new(piece(instance::<F>(function)?, &filter, from)) as Box<dyn AnyPiece>)
                }))
            })),
        )
    }

    /// Something that is made of what each worker answers, such as how full it is. `together` gets the answers in the
    /// order of the workers.
    pub fn state<A, R, S>(
        name: &'static str,
        help: &'static str,
        ask: impl Fn(&mut F::Instance, &A, &mut Context<'_>) -> R + Send + Sync + 'static,
        together: impl Fn(Vec<R>) -> S + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + Send + Sync + 'static,
        R: Send + 'static,
        S: Serialize,
    {
        Self::new(name, help, Act::State(once::<F, A, R, S>(ask, move |answers| Ok(together(answers)))))
    }

    /// Something that every worker does, at once. What `together` says of the answers is told to whoever gave the
    /// order; a refusal is a sentence for people.
    pub fn order<A, R, S>(
        name: &'static str,
        help: &'static str,
        act: impl Fn(&mut F::Instance, &A, &mut Context<'_>) -> R + Send + Sync + 'static,
        together: impl Fn(Vec<R>) -> Result<S, String> + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + Send + Sync + 'static,
        R: Send + 'static,
        S: Serialize,
    {
        Self::new(name, help, Act::Order(once::<F, A, R, S>(act, together)))
    }

    /// Something that every worker does with its entries, a piece at a time, such as to end sessions. `piece` is like
    /// that of a [list](Self::list), and answers how many it has done it with, and the place to go on from.
    pub fn sweep<A>(
        name: &'static str,
        help: &'static str,
        piece: impl Fn(&mut F::Instance, &A, usize, &mut Context<'_>) -> (usize, Option<usize>) + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + Send + Sync + 'static,
    {
        let piece = Arc::new(piece);
        Self::new(
            name,
            help,
            Act::Sweep(Box::new(move |arguments| {
                let (filter, piece) = (arguments.parse::<A>()?, Arc::clone(&piece));
                Ok(Arc::new(move |function, from, cx| Some(piece(instance::<F>(function)?, &filter, from, cx))))
            })),
        )
    }

    /// Says what one of its parameters is for.
    #[must_use]
    pub fn parameter(mut self, name: &'static str, help: &'static str) -> Self {
        self.topic.parameters.push(Parameter { name, help });
        self
    }

    /// Only the first worker is asked: all of them know the same.
    #[must_use]
    pub fn of_one_worker(mut self) -> Self {
        self.topic.of_one_worker = true;
        self
    }

    fn new(name: &'static str, help: &'static str, act: Act) -> Self {
        let topic = AnyTopic { name, help, parameters: Vec::new(), of_one_worker: false, act };
        Self { topic, of: PhantomData }
    }

    pub(crate) fn without_type(self) -> AnyTopic {
        self.topic
    }
}

impl<F: ?Sized> std::fmt::Debug for Topic<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Topic").field(&self.topic.name).finish()
    }
}

/// A [`Topic`] without the types of its function.
pub(crate) struct AnyTopic {
    pub(crate) name: &'static str,
    help: &'static str,
    parameters: Vec<Parameter>,
    pub(crate) of_one_worker: bool,
    pub(crate) act: Act,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Parameter {
    name: &'static str,
    help: &'static str,
}

/// What a topic does, once its arguments are known.
pub(crate) enum Act {
    List(Box<Prepare<Arc<ListPiece>>>),
    State(Box<Prepare<Once>>),
    Order(Box<Prepare<Once>>),
    Sweep(Box<Prepare<Arc<SweepPiece>>>),
}

type Prepare<T> = dyn Fn(&Arguments) -> Result<T, Reply> + Send + Sync;
/// On a worker; `None` if the instance is not of this function.
pub(crate) type ListPiece =
    dyn Fn(&mut dyn NetworkFunction, usize, &mut Context<'_>) -> Option<Box<dyn AnyPiece>> + Send + Sync;
pub(crate) type SweepPiece =
    dyn Fn(&mut dyn NetworkFunction, usize, &mut Context<'_>) -> Option<(usize, Option<usize>)> + Send + Sync;
pub(crate) type Ask = dyn Fn(&mut dyn NetworkFunction, &mut Context<'_>) -> Option<Box<dyn Any + Send>> + Send + Sync;
pub(crate) type Together = dyn FnOnce(Vec<Box<dyn Any + Send>>) -> Reply + Send;

/// Something that is asked of every worker once.
pub(crate) struct Once {
    pub(crate) ask: Arc<Ask>,
    pub(crate) together: Box<Together>,
}

/// A [`Piece`] without the type of its items.
pub(crate) trait AnyPiece: Send {
    fn next(&self) -> Option<usize>;

    fn len(&self) -> usize;

    /// The place of an item.
    fn place(&self, index: usize) -> Option<usize>;

    /// The first so many, as they are written.
    fn write(self: Box<Self>, most: usize, to: &mut Vec<serde_json::Value>);
}

impl<T: Serialize + Send> AnyPiece for Piece<T> {
    fn next(&self) -> Option<usize> {
        self.next
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn place(&self, index: usize) -> Option<usize> {
        self.items.get(index).map(|(place, _)| *place)
    }

    fn write(self: Box<Self>, most: usize, to: &mut Vec<serde_json::Value>) {
        let written = self.items.into_iter().take(most).map(|(_, item)| serde_json::to_value(item));
        to.extend(written.map(Result::unwrap_or_default));
    }
}

/// How a topic is shown in the list of topics.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TopicView {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    parameters: Vec<Parameter>,
}

/// `/v1/functions`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TopicsView {
    pub(crate) name: String,
    pub(crate) topics: Vec<TopicView>,
}

impl AnyTopic {
    pub(crate) fn view(&self) -> TopicView {
        let kind = match self.act {
            Act::List(_) => "list",
            Act::State(_) => "state",
            Act::Order(_) | Act::Sweep(_) => "order",
        };
        TopicView { name: self.name, kind, help: self.help, parameters: self.parameters.clone() }
    }
}

/// The instance as the type that it is.
fn instance<F: Function>(function: &mut dyn NetworkFunction) -> Option<&mut F::Instance> {
    let any: &mut dyn Any = function;
    any.downcast_mut()
}

fn once<F, A, R, S>(
    ask: impl Fn(&mut F::Instance, &A, &mut Context<'_>) -> R + Send + Sync + 'static,
    together: impl Fn(Vec<R>) -> Result<S, String> + Send + Sync + 'static,
) -> Box<Prepare<Once>>
where
    F: Function,
    A: DeserializeOwned + Send + Sync + 'static,
    R: Send + 'static,
    S: Serialize,
{
    let (ask, together) = (Arc::new(ask), Arc::new(together));
    Box::new(move |arguments| {
        let (arguments, ask, together) = (arguments.parse::<A>()?, Arc::clone(&ask), Arc::clone(&together));
        Ok(Once {
            ask: Arc::new(move |function, cx| Some(Box::new(ask(instance::<F>(function)?, &arguments, cx)))),
            together: Box::new(move |answers| {
                let answers = answers.into_iter().filter_map(|answer| answer.downcast().ok()).map(|answer| *answer);
                match together(answers.collect()) {
                    Ok(value) => Reply::json(&value),
                    Err(sentence) => Reply::failure(409, sentence),
                }
            }),
        })
    })
}
