//! Functions in a row, with an inside end and an outside end.

use crate::batch::Batch;
use crate::context::{Context, Standing};
use crate::counters::{FunctionCounters, WorkerCounters, bump};
use crate::direction::Direction;
use crate::forwarding::Forwarding;
use crate::function::{Budget, NetworkFunction};
use crate::position::Position;
use crate::router::Router;
use crate::trace::{Note, Place, TracedPacket, Tracer, Watch};
use crate::verdict::{DropReason, Verdict};
use std::any::Any;
use std::sync::atomic::Ordering;

/// Functions in the order in which a packet from inside meets them; one from outside meets
/// them last to first. So in `[firewall, nat]` the firewall sees inside addresses whichever
/// way a packet goes.
///
/// A call per function and burst goes through a `Box`, which is lost in the noise; so a
/// chain built in a program and one named in a configuration file are the same thing.
#[derive(Default)]
pub struct Chain {
    functions: Vec<(String, Box<dyn NetworkFunction>)>,
    /// What stands around them.
    pub(crate) forwarding: Option<Box<dyn Forwarding>>,
    /// What its functions work by.
    pub(crate) standing: Standing,
    /// While packets are traced.
    pub(crate) tracer: Option<Box<Tracer>>,
    /// New instances that wait to take their function's place.
    parked: Vec<(usize, Box<dyn NetworkFunction>)>,
}

impl Chain {
    /// An empty chain: every packet goes straight on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function at the outside end, under the name that its counters are shown by.
    pub fn push(&mut self, name: impl Into<String>, function: Box<dyn NetworkFunction>) {
        self.functions.push((name.into(), function));
    }

    /// The functions' names, from inside to outside.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|(name, _)| name.as_str())
    }

    /// Number of functions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The function at this place, as the type that it is.
    pub fn function_mut<F: NetworkFunction>(&mut self, index: usize) -> Option<&mut F> {
        let (_, function) = self.functions.get_mut(index)?;
        let function: &mut dyn Any = function.as_mut();
        function.downcast_mut()
    }

    /// The router around the functions, if that is what stands there.
    pub(crate) fn router_mut(&mut self) -> Option<&mut Router> {
        let forwarding: &mut dyn Any = self.forwarding.as_mut()?.as_mut();
        forwarding.downcast_mut()
    }

    /// Does something with the function at this place, between two batches; what it emits
    /// goes on from there.
    pub(crate) fn command<F: NetworkFunction, R>(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        command: impl FnOnce(&mut F, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let answer = self.command_any(index, cx, |function, cx| {
            let function: &mut dyn Any = function;
            function.downcast_mut().map(|function| command(function, cx))
        });
        answer.flatten()
    }

    /// The same with a function of any type.
    pub(crate) fn command_any<R>(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        command: impl FnOnce(&mut dyn NetworkFunction, &mut Context<'_>) -> R,
    ) -> Option<R> {
        cx.position = Position { at: index.cast_signed(), direction: Direction::Outbound, turned: false };
        let (_, function) = self.functions.get_mut(index)?;
        let answer = command(function.as_mut(), cx);
        gauge(cx.counters, index, function.as_ref());
        Some(answer)
    }

    /// Keeps an instance beside the chain, for the function at this place.
    pub(crate) fn park(&mut self, index: usize, instance: Box<dyn NetworkFunction>) {
        self.parked.push((index, instance));
    }

    /// Drops the instances that were parked.
    pub(crate) fn discard_parked(&mut self) {
        self.parked.clear();
    }

    /// Hands a function its policy: the instance that was parked for it takes its place, and
    /// what the old one held is dropped; if there is none, `adopt` does it.
    pub(crate) fn renew(&mut self, index: usize, cx: &mut Context<'_>, adopt: impl FnOnce(&mut dyn NetworkFunction)) {
        cx.position = Position { at: index.cast_signed(), direction: Direction::Outbound, turned: false };
        let Some((_, function)) = self.functions.get_mut(index) else { return };
        if let Some(at) = self.parked.iter().position(|(parked, _)| *parked == index) {
            let (_, new) = self.parked.swap_remove(at);
            let old = std::mem::replace(function, new);
            bump(&cx.counters.drops[DropReason::RELOADED.index()], old.held() as u64);
        } else {
            adopt(function.as_mut());
        }
        gauge(cx.counters, index, function.as_ref());
    }

    /// Takes the batch from where the context's position says to the end of its direction.
    #[inline]
    pub(crate) fn run(&mut self, batch: &mut Batch, cx: &mut Context<'_>, watch: &mut impl Watch) {
        let Position { at, direction, .. } = cx.position;
        match direction {
            Direction::Outbound => {
                for index in usize::try_from(at + 1).unwrap_or(0)..self.functions.len() {
                    self.visit(index, batch, cx, watch);
                }
            }
            Direction::Inbound => {
                for index in (0..usize::try_from(at).unwrap_or(0)).rev() {
                    self.visit(index, batch, cx, watch);
                }
            }
        }
        cx.position.at = Position::entrance(direction.reversed(), self.functions.len()).at;
    }

    #[inline]
    fn visit(&mut self, index: usize, batch: &mut Batch, cx: &mut Context<'_>, watch: &mut impl Watch) {
        let (before, functions) = (batch.undecided_mask(), self.functions.len());
        let Some((_, function)) = self.functions.get_mut(index) else { return };
        if before == 0 {
            return;
        }
        cx.position.at = index.cast_signed();
        watch.before(batch, cx);
        function.batch(batch, cx);
        if let Some(counters) = cx.counters.functions.get(index) {
            count(counters, before, batch);
            counters.held.store(function.held() as u64, Ordering::Relaxed);
            cx.laps.end(&counters.calls, &counters.cycles);
        }
        if !cx.crossing.is_empty() {
            cx.hand_over_crossing(batch, functions);
        }
        let remark =
            |packet: &mut TracedPacket<'_>, cx: &Context<'_>, note: &mut Note| function.trace_note(packet, cx, note);
        watch.after(Place::Function(index), remark, batch, cx);
    }

    pub(crate) fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for (index, (_, function)) in self.functions.iter_mut().enumerate() {
            cx.position = Position { at: index.cast_signed(), direction: Direction::Outbound, turned: false };
            function.tick(cx, budget);
            gauge(cx.counters, index, function.as_ref());
        }
        cx.position = Position::entrance(Direction::Outbound, self.functions.len());
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.tick(cx, budget);
            cx.counters.held_around.store(forwarding.held() as u64, Ordering::Relaxed);
        }
    }

    /// Shows how many sessions its functions have.
    pub(crate) fn gauge_sessions(&self, counters: &WorkerCounters) {
        for ((_, function), counters) in self.functions.iter().zip(&counters.functions) {
            counters.sessions.store(function.sessions(), Ordering::Relaxed);
        }
    }

    /// Packets that its functions hold, and what stands around them.
    pub(crate) fn held(&self) -> usize {
        let around = self.forwarding.as_ref().map_or(0, |forwarding| forwarding.held());
        self.functions.iter().map(|(_, function)| function.held()).fold(around, usize::wrapping_add)
    }
}

/// Shows what a function holds, between two batches.
fn gauge(counters: &WorkerCounters, index: usize, function: &dyn NetworkFunction) {
    if let Some(counters) = counters.functions.get(index) {
        counters.held.store(function.held() as u64, Ordering::Relaxed);
        counters.sessions.store(function.sessions(), Ordering::Relaxed);
    }
}

/// Counts what a function did with a batch, from the difference that it made.
#[inline]
fn count(counters: &FunctionCounters, before: u64, batch: &Batch) {
    bump(&counters.seen, u64::from(before.count_ones()));
    let mut decided = before & !batch.undecided_mask();
    let (mut sent, mut dropped, mut taken) = (0, 0, 0);
    while decided != 0 {
        let slot = decided.trailing_zeros() as usize;
        decided &= decided - 1;
        match batch.verdict(slot) {
            _ if batch.packet(slot).is_none() => taken += 1,
            Verdict::Drop(_) => dropped += 1,
            Verdict::Send(_) | Verdict::Turn | Verdict::Next => sent += 1,
        }
    }
    bump(&counters.sent, sent);
    bump(&counters.dropped, dropped);
    bump(&counters.taken, taken);
}

impl<T: NetworkFunction> From<T> for Chain {
    fn from(function: T) -> Self {
        Self::new().then(function)
    }
}

/// Chains instances: `a.then(b)`, as a [trial](crate::testing::trial) takes them. A program's
/// chain is made on every worker from its control objects, see [`App::function`](crate::App::function).
pub trait Then: NetworkFunction + Sized {
    /// A chain of this function, towards inside, and the other, towards outside.
    fn then(self, other: impl NetworkFunction) -> Chain {
        Chain::from(self).then(other)
    }
}

impl<T: NetworkFunction> Then for T {}

impl Chain {
    /// The same chain with one more function at the outside end.
    #[must_use]
    pub fn then(mut self, function: impl NetworkFunction) -> Self {
        self.push(type_name(&function), Box::new(function));
        self
    }
}

/// The last part of a type's path, for functions that were given no name.
fn type_name<T>(_: &T) -> &'static str {
    let path = std::any::type_name::<T>();
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
