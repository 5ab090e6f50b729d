//! What workers wrote down, put together by packet and in words.

use super::event::{Event, Fate, Look, Place, What};
use super::fields::{Fields, changes};
use crate::direction::Direction;
use crate::next_hop::NextHops;
use crate::position::Position;
use crate::verdict::PortIx;
use dpdk_rs::Ticks;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;

/// What numbers are called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) ports: Vec<String>,
    pub(crate) functions: Vec<String>,
    pub(crate) reasons: Vec<String>,
    pub(crate) next_hops: NextHops,
    pub(crate) cycles_per_second: u64,
}

/// Packets on their way; displays as text of at most 100 columns.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Traces {
    /// In the order in which they came in, or were made.
    pub packets: Vec<Trace>,
    /// Steps that there was no room for.
    pub lost: u64,
}

/// One packet on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Trace {
    /// From 1.
    pub number: usize,
    /// The packet as it came in.
    pub packet: String,
    /// Of a packet that a function made: the one that it had in hand then.
    pub made_for: Option<usize>,
    /// What happened to it. Where it ends without saying so, the packet was still on its way.
    pub steps: Vec<Step>,
}

/// One thing that happened to a packet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// Since the packet came in; 0 if nobody knows how fast the time-stamp counter is.
    pub nanoseconds: u64,
    /// The worker that had the packet.
    pub worker: usize,
    /// The function, or in parentheses what stands around them, or what the packet does: `arrives`, `enters`, `leaves`.
    pub place: String,
    /// Towards which side it goes.
    pub towards: Option<&'static str>,
    /// What was decided, or happened: `next`, `drop POLICY`, `by net_tap0 (inside)`.
    pub verdict: String,
    /// What decided it, as the function says; several things stand between semicolons.
    pub note: String,
    /// What was changed, such as `source 10.0.0.5:4321 -> 198.51.100.7:1024`.
    pub changes: Vec<String>,
}

/// A packet whose story is being told.
struct Open {
    trace: usize,
    began: Ticks,
    worker: usize,
    look: Look,
    /// What the last step said.
    last: What,
}

impl Traces {
    pub(super) fn told(mut events: Vec<Event>, lost: u64, names: &Names) -> Self {
        // Of one worker they are in their order; between two, a ring passes the packet on.
        events.sort_by_key(|event| event.at);
        let mut traces = Self { packets: Vec::new(), lost };
        let mut open: HashMap<usize, Open> = HashMap::new();
        for event in &events {
            match event.what {
                What::Arrived(_) => traces.begin(event, None, &mut open),
                // If nobody knows the packet for whose sake it was made, nobody has asked for it.
                What::Made { by, .. } => match open.get(&by).map(|open| open.trace + 1) {
                    Some(number) => traces.begin(event, Some(number), &mut open),
                    None => continue,
                },
                _ => {}
            }
            let Some(of) = open.get_mut(&event.packet) else { continue };
            if let Some(step) = names.step(event, of)
                && let Some(trace) = traces.packets.get_mut(of.trace)
            {
                trace.steps.push(step);
            }
            (of.look, of.last, of.worker) = (event.look, event.what, event.worker);
            if matches!(event.what, What::Left(Fate::Sent(_) | Fate::Drop(_))) {
                open.remove(&event.packet);
            }
        }
        traces
    }

    fn begin(&mut self, event: &Event, made_for: Option<usize>, open: &mut HashMap<usize, Open>) {
        let Event { at: began, worker, look, what: last, .. } = *event;
        open.insert(event.packet, Open { trace: self.packets.len(), began, worker, look, last });
        let (number, packet) = (self.packets.len() + 1, Fields::of(&look).to_string());
        self.packets.push(Trace { number, packet, made_for, steps: Vec::new() });
    }
}

impl Open {
    /// Whether the last step said that it is sent from there.
    fn is_sent_by(&self, from: Position) -> bool {
        matches!(self.last, What::Seen(_, _, Fate::Resumed(position)) if position == from)
    }
}

impl Names {
    /// What an event adds to a story; `None` if it goes without saying.
    fn step(&self, event: &Event, of: &Open) -> Option<Step> {
        let (place, towards, verdict) = match event.what {
            What::Arrived(port) => {
                ("arrives".to_owned(), None, format!("by {}, worker {}", self.port(port), event.worker))
            }
            What::Made { position, .. } => {
                ("made".to_owned(), Some(position.direction), format!("at {}", self.place_at(position)))
            }
            // Behind everything nothing is entered: it is sent.
            What::Enters(position) if position.port_out().is_some() && of.is_sent_by(position) => return None,
            What::Enters(position) => {
                ("enters".to_owned(), Some(position.direction), self.entrance(event, position, of)?)
            }
            What::Seen(place, direction, fate) => {
                let name = match place {
                    Place::Ingress => "(ingress)".to_owned(),
                    Place::Function(index) => self.functions.get(index).cloned().unwrap_or_default(),
                    Place::Egress => "(egress)".to_owned(),
                };
                (name, Some(direction), self.fate(fate))
            }
            What::Left(fate) => {
                let said = matches!(of.last, What::Seen(_, _, last) if last == fate);
                let (place, text) = match fate {
                    Fate::Sent(port) => ("leaves", format!("by {}", self.port(port))),
                    _ if said => return None,
                    Fate::Held => ("waits", "for the first fragment of its packet".to_owned()),
                    _ => ("ends", self.fate(fate)),
                };
                (place.to_owned(), None, text)
            }
        };
        let changes = changes(&of.look, &event.look, &self.next_hops);
        let note = event.note.as_str().to_owned();
        // Around the functions nothing may stand.
        if matches!(event.what, What::Seen(Place::Ingress, _, Fate::Next)) && changes.is_empty() && note.is_empty() {
            return None;
        }
        let towards = towards.map(|direction| match direction {
            Direction::Outbound => "outside",
            Direction::Inbound => "inside",
        });
        let nanoseconds = self.nanoseconds(event.at.since(of.began));
        Some(Step { nanoseconds, worker: event.worker, place, towards, verdict, note, changes })
    }

    /// Where a packet comes into the chain, unless it has just come in there.
    fn entrance(&self, event: &Event, position: Position, of: &Open) -> Option<String> {
        let mut parts = Vec::new();
        if event.worker != of.worker {
            parts.push(format!("worker {} takes it over", event.worker));
        }
        if position.turned {
            parts.push("turned".to_owned());
        }
        if !matches!(of.last, What::Arrived(_)) {
            parts.push(format!("from {}", self.place_at(position)));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    fn place_at(&self, position: Position) -> String {
        if let Some(port) = position.port_out() {
            return format!("the end, for {}", self.port(port));
        }
        match usize::try_from(position.at) {
            Ok(index) if index < self.functions.len() => self.functions[index].clone(),
            Ok(_) => "outside".to_owned(),
            Err(_) => "inside".to_owned(),
        }
    }

    fn port(&self, port: PortIx) -> String {
        self.ports.get(usize::from(port.0)).cloned().unwrap_or_else(|| format!("port {}", port.0))
    }

    fn fate(&self, fate: Fate) -> String {
        match fate {
            Fate::Next => "next".to_owned(),
            Fate::Send(port) => format!("send by {}", self.port(port)),
            Fate::Turn => "turn".to_owned(),
            Fate::Drop(reason) => {
                format!(
                    "drop {}",
                    self.reasons.get(reason.index()).map_or("for a reason without a name", String::as_str)
                )
            }
            Fate::Resumed(position) => match position.port_out() {
                Some(port) => format!("send by {}", self.port(port)),
                None => "taken, and goes on".to_owned(),
            },
            Fate::Consumed => "taken for good".to_owned(),
            Fate::HandedOver => "handed over to another worker".to_owned(),
            Fate::Held => "taken, and held".to_owned(),
            Fate::Sent(port) => format!("sent by {}", self.port(port)),
        }
    }

    fn nanoseconds(&self, ticks: u64) -> u64 {
        let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(self.cycles_per_second.max(1));
        if self.cycles_per_second == 0 { 0 } else { u64::try_from(nanoseconds).unwrap_or(u64::MAX) }
    }
}

/// A packet as a function had it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sight {
    pub(crate) function: usize,
    pub(crate) direction: Direction,
    /// Of bytes behind those that are kept, zeros.
    pub(crate) frame: Vec<u8>,
}

/// What functions saw of the first packet that was traced, in their order.
pub(crate) fn sights(events: &[Event]) -> Vec<Sight> {
    let (mut sights, mut before) = (Vec::new(), None);
    let Some(first) = events.first() else { return sights };
    for event in events.iter().filter(|event| event.packet == first.packet) {
        if let (What::Seen(Place::Function(function), direction, _), Some(look)) = (event.what, before) {
            sights.push(Sight { function, direction, frame: Look::frame(look) });
        }
        // Its room may be another packet's from there on.
        if matches!(event.what, What::Left(_)) {
            break;
        }
        before = Some(&event.look);
    }
    sights
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, trace) in self.packets.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{trace}")?;
        }
        if self.packets.is_empty() {
            writeln!(f, "no packet came that was meant")?;
        }
        if self.lost > 0 {
            writeln!(f, "\n{} more steps found no room", self.lost)?;
        }
        Ok(())
    }
}

/// Columns of text.
const COLUMNS: usize = 100;

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet {}: {}", self.number, self.packet)?;
        match self.made_for {
            Some(number) => writeln!(f, ", for the sake of packet {number}")?,
            None => writeln!(f)?,
        }
        self.write_steps(f)
    }
}

impl Trace {
    /// What happened to the packet, a line or more for each step.
    pub(crate) fn write_steps(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let width = self.steps.iter().map(|step| step.place.len()).max().unwrap_or(0);
        for step in &self.steps {
            let notes = step.note.split("; ").filter(|note| !note.is_empty());
            let changes = step.changes.iter().map(String::as_str);
            let parts: Vec<&str> = [step.verdict.as_str()].into_iter().chain(notes).chain(changes).collect();
            let mut line = format!("  {:width$}", step.place);
            for (index, part) in parts.iter().enumerate() {
                let text = if index + 1 < parts.len() { format!(" {part};") } else { format!(" {part}") };
                if index > 0 && line.len() + text.len() > COLUMNS {
                    writeln!(f, "{line}")?;
                    line = " ".repeat(width + 2);
                }
                line += &text;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
