//! A picture as tables, which is what is drawn and what is written.

use super::keys::View;
use super::picture::{BackendLine, ChainLine, DropLine, OccupancyLine, Picture, PortLine, WorkerLine};
use crate::door::{Counter, Drop, rate, share, wrapped};
use nf_framework::Table;
use std::cmp::Ordering;

/// One table.
#[derive(Clone, Debug)]
pub struct Section {
    /// The heads and the rows, as lines.
    pub lines: Vec<String>,
    /// What each line says, the heads first.
    pub tones: Vec<Tone>,
}

/// What a line means to somebody who looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// The heads of a table.
    Head,
    /// All is well, or nothing is to be said.
    Usual,
    /// Worth a look.
    Notable,
    /// Something does not work.
    Bad,
}

/// Columns from which on there is room for what is nice to know.
const WIDE: usize = 110;

/// What a view shows, on a screen of so many columns.
#[must_use]
pub fn sections(picture: &Picture, view: View, width: usize) -> Vec<Section> {
    let all = view == View::Overview;
    let mut sections = Vec::new();
    if all || view == View::Ports {
        sections.extend([ports(&picture.ports, width), workers(&picture.workers, width)]);
    }
    if all || view == View::Chain {
        sections.push(chain(&picture.chain, width, !all));
    }
    if all || view == View::Drops {
        sections.push(drops(&picture.drops, width, all));
    }
    if all || view == View::Backends {
        sections.extend([backends(&picture.backends, width), occupancy(picture, width, all)]);
    }
    sections.into_iter().flatten().collect()
}

/// `None` without rows.
fn section(mut table: Table, tones: impl IntoIterator<Item = Tone>) -> Option<Section> {
    if table.is_empty() {
        return None;
    }
    Some(Section { lines: table.take_lines(), tones: [Tone::Head].into_iter().chain(tones).collect() })
}

fn tone(is_bad: bool, is_notable: bool) -> Tone {
    match (is_bad, is_notable) {
        (true, _) => Tone::Bad,
        (_, true) => Tone::Notable,
        _ => Tone::Usual,
    }
}

/// A figure with at most one digit behind the point; a dash where there is none.
fn figure(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| if value >= 999.5 { rate(value) } else { format!("{value:.1}") })
}

/// A share as a bar of so many characters, and in percent.
fn bar(part: Option<f64>, width: usize) -> String {
    let Some(part) = part else { return "-".to_owned() };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a short bar"
    )]
    let full = (part.clamp(0.0, 1.0) * width as f64).round() as usize;
    format!("{:>4} {}{}", share(part), "█".repeat(full), "░".repeat(width - full))
}

fn ports(lines: &[PortLine], width: usize) -> Option<Section> {
    let is_wide = width >= WIDE;
    let mut heads = vec!["port", "link", "rx pkt/s", "tx pkt/s", "rx bit/s", "tx bit/s", "missed/s", "errors/s"];
    heads.extend(if is_wide { &["rx packets", "tx packets", "missed", "link downs"][..] } else { &[] });
    let mut table = Table::new(&heads);
    for line in lines {
        let port = &line.port;
        let mut cells = vec![port.name.clone(), port.link_state(), rate(line.received), rate(line.sent)];
        cells.extend(match line.bits {
            Some((received, sent)) => [rate(received), rate(sent), rate(line.missed), rate(line.errors)],
            None => ["-"; 4].map(str::to_owned),
        });
        if is_wide {
            let missed = port.device.as_ref().map(|device| device.rx_missed + device.rx_no_mbuf);
            cells.extend([port.received, port.sent].map(|count| count.to_string()));
            cells.push(missed.map_or("-".to_owned(), |missed| missed.to_string()));
            cells.push(port.link_downs.to_string());
        }
        table.row(cells);
    }
    let is_down = |line: &PortLine| line.port.down || line.port.link.as_ref().is_some_and(|link| !link.up);
    let tones = lines.iter().map(|line| tone(is_down(line), line.missed + line.errors > 0.0));
    section(table, tones.collect::<Vec<_>>())
}

/// Of a worker that is idle less than this there is little left.
const NEARLY_BUSY: f64 = 0.05;

fn workers(lines: &[WorkerLine], width: usize) -> Option<Section> {
    let bar_width = if width >= WIDE { 30 } else { 10 };
    let mut table = Table::new(&["worker", "cpu", "rx pkt/s", "tx pkt/s", "handed/s", "packets/round", "idle"]);
    for line in lines {
        table.row([
            line.worker.worker.to_string(),
            line.worker.cpu.map_or("-".to_owned(), |cpu| cpu.to_string()),
            rate(line.received),
            rate(line.sent),
            rate(line.handed_over),
            figure(line.per_round),
            bar(line.idle, bar_width),
        ]);
    }
    let is_busy = |line: &WorkerLine| line.idle.is_some_and(|idle| idle < NEARLY_BUSY);
    section(table, lines.iter().map(|line| tone(false, is_busy(line))).collect::<Vec<_>>())
}

fn chain(lines: &[ChainLine], width: usize, is_whole: bool) -> Option<Section> {
    let with_more = is_whole && width >= WIDE;
    let mut heads = vec!["function", "pkt/s", "pkt/call", "cycles/pkt", "drops/s", "held", "sessions"];
    heads.extend(if with_more { &["packets", "passed", "sent", "dropped", "taken"][..] } else { &[] });
    let mut table = Table::new(&heads);
    for line in lines {
        let row = &line.row;
        let number = |of: Option<u64>| of.map_or("-".to_owned(), |number| number.to_string());
        let dropped = row.dropped.map_or("-".to_owned(), |_| rate(line.dropped));
        let mut cells =
            vec![row.function.clone(), rate(line.packets), figure(line.per_call), figure(line.cycles), dropped];
        cells.extend([row.held, row.sessions].map(number));
        if with_more {
            cells.extend([row.shown(), row.passed, row.sent, row.dropped, row.taken].map(number));
        }
        table.row(cells);
    }
    section(table, lines.iter().map(|_| Tone::Usual).collect::<Vec<_>>())
}

fn drops(lines: &[DropLine], width: usize, is_overview: bool) -> Option<Section> {
    let heads = ["dropped because", "pkt/s", "packets", ""];
    // Those that do not happen now are history, for which there is a view.
    let happens = |line: &&DropLine| !is_overview || line.packets > 0.0 || lines.len() <= 3;
    let rows = || {
        let row = |line: &DropLine| [line.reason.reason.clone(), rate(line.packets), line.reason.count.to_string()];
        lines.iter().filter(happens).map(row)
    };
    let widest = |column: usize| rows().map(|row| row[column].len()).max().unwrap_or(0).max(heads[column].len());
    let room = width.saturating_sub((0..3).map(|column| widest(column) + 2).sum());
    let mut table = Table::new(&heads);
    let mut tones = Vec::new();
    for (line, [mut reason, mut now, mut count]) in lines.iter().filter(happens).zip(rows()) {
        let Drop { help, .. } = &line.reason;
        let helps = if is_overview { vec![shortened(help, room)] } else { wrapped(help, room) };
        for help in helps {
            table.row([&mut reason, &mut now, &mut count].map(std::mem::take).into_iter().chain([help]));
            tones.push(tone(false, line.packets > 0.0));
        }
    }
    section(table, tones)
}

/// As much of a sentence as there is room for: where something of everything is shown, each has one line.
fn shortened(text: &str, room: usize) -> String {
    match wrapped(text, room.saturating_sub(2)).first() {
        Some(first) if first.len() < text.trim().len() && text.chars().count() > room => format!("{first} …"),
        _ => text.trim().to_owned(),
    }
}

fn backends(lines: &[BackendLine], width: usize) -> Option<Section> {
    let mut heads = vec!["backend", "address", "state", "weight", "pkt/s", "bit/s", "new/s", "live"];
    if width >= WIDE {
        heads.extend(["packets", "begun", "failed"]);
    }
    let mut table = Table::new(&heads);
    for line in lines {
        let backend = &line.backend;
        let mut cells = vec![
            backend.full_name(),
            backend.address.clone(),
            backend.state(),
            backend.weight.to_string(),
            rate(line.packets),
            rate(line.bits),
            rate(line.begun),
            backend.live.to_string(),
        ];
        if width >= WIDE {
            cells.extend([backend.packets, backend.begun, backend.failed].map(|count| count.to_string()));
        }
        table.row(cells);
    }
    let tones = lines.iter().map(|line| tone(line.backend.share == Some(0), line.backend.state() != "up"));
    section(table, tones.collect::<Vec<_>>())
}

/// Tables that the overview shows.
const FULLEST: usize = 5;

fn occupancy(picture: &Picture, width: usize, is_overview: bool) -> Option<Section> {
    let bar_width = if width >= WIDE { 30 } else { 10 };
    let mut table = Table::new(&["occupancy", "value", "room for", "fullest worker"]);
    let mut tones = Vec::new();
    let mut lines: Vec<&OccupancyLine> = picture.occupancy.iter().collect();
    if is_overview {
        lines.sort_by(|one, other| other.fullest.partial_cmp(&one.fullest).unwrap_or(Ordering::Equal));
        lines.truncate(FULLEST);
    }
    for OccupancyLine { all, fullest } in lines {
        let name = format!("{}.{}", all.function, all.table);
        table.row([name, all.entries.to_string(), all.limit.to_string(), bar(*fullest, bar_width)]);
        tones.push(tone(fullest.is_some_and(|part| part >= 1.0), fullest.is_some_and(|part| part >= 0.8)));
    }
    for Counter { function, name, value } in &picture.gauges {
        table.row([format!("{function}.{name}"), value.to_string(), "-".to_owned(), "-".to_owned()]);
        tones.push(Tone::Usual);
    }
    section(table, tones)
}
