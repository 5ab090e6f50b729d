//! The picture in a terminal.

use super::keys::{Looks, View};
use super::picture::Picture;
use super::sections::{Section, Tone, sections};
use crate::door::duration;
use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use std::time::Duration;

/// All that is drawn.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What the program does.
    pub picture: Picture,
    /// Whether that is since its start, for want of an earlier sample.
    pub since_start: bool,
    /// Why the program does not answer, if it does not.
    pub gone: Option<String>,
    /// The time between two pictures.
    pub interval: Duration,
    /// Whether there are colours.
    pub colours: bool,
}

/// Lines above the tables: who it is, and what can be chosen.
const TOP: u16 = 2;

/// How many lines can be scrolled, and how many of them fit.
#[must_use]
pub fn extent(shown: &Shown, looks: &Looks, area: Rect) -> (usize, usize) {
    let body = usize::from(area.height.saturating_sub(TOP));
    if looks.view == View::Overview {
        return (0, body);
    }
    let (pinned, rest) = scrolled(sections(&shown.picture, looks.view, area.width.into()));
    (rest.len(), body.saturating_sub(pinned.len()))
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, shown: &Shown, looks: &Looks) {
    let area = frame.area();
    let [first, second] = [0, 1].map(|row| Rect { y: area.y + row, height: u16::from(area.height > row), ..area });
    frame.render_widget(header(shown, looks, area.width), first);
    frame.render_widget(tabs(looks, area.width), second);
    let top = TOP.min(area.height);
    let body = Rect { y: area.y + top, height: area.height - top, ..area };
    let height = usize::from(body.height);
    let sections = sections(&shown.picture, looks.view, area.width.into());
    let lines = if sections.is_empty() {
        vec![(Tone::Usual, "This program has nothing of this kind.".to_owned())]
    } else if looks.view == View::Overview {
        fitted(sections, height)
    } else {
        let (mut lines, rest) = scrolled(sections);
        let room = height.saturating_sub(lines.len());
        let from = looks.scroll.min(rest.len().saturating_sub(room));
        lines.extend(rest.into_iter().skip(from).take(room));
        lines
    };
    let line = |(tone, text)| Line::styled(text, style(tone, shown.colours));
    frame.render_widget(Paragraph::new(lines.into_iter().map(line).collect::<Vec<_>>()), body);
    if looks.help {
        help(frame, area);
    }
}

fn style(tone: Tone, colours: bool) -> Style {
    match (tone, colours) {
        (Tone::Head, true) => Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD),
        (Tone::Notable, true) => Style::new().fg(Color::Yellow),
        (Tone::Bad, true) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        (Tone::Head | Tone::Bad, false) => Style::new().add_modifier(Modifier::BOLD),
        (Tone::Usual | Tone::Notable, _) => Style::new(),
    }
}

type Toned = (Tone, String);

fn toned(section: Section) -> impl Iterator<Item = Toned> {
    section.tones.into_iter().zip(section.lines)
}

/// The head that stays where it is, if there is one table only, and what is scrolled.
fn scrolled(sections: Vec<Section>) -> (Vec<Toned>, Vec<Toned>) {
    let is_one = sections.len() == 1;
    let mut lines: Vec<Toned> = Vec::new();
    for section in sections {
        if !lines.is_empty() {
            lines.push((Tone::Usual, String::new()));
        }
        lines.extend(toned(section));
    }
    let rest = lines.split_off(usize::from(is_one).min(lines.len()));
    (lines, rest)
}

/// Something of every table: short ones whole, and of long ones what there is room for, with gaps if all fits.
fn fitted(sections: Vec<Section>, height: usize) -> Vec<Toned> {
    let wanted: Vec<usize> = sections.iter().map(|section| section.lines.len()).collect();
    // Heads set tables apart as well.
    let has_gaps = wanted.iter().sum::<usize>() + sections.len().saturating_sub(1) <= height;
    let shares = shares(&wanted, height);
    let mut lines = Vec::new();
    for (section, share) in sections.into_iter().zip(shares) {
        if has_gaps && !lines.is_empty() {
            lines.push((Tone::Usual, String::new()));
        }
        let count = section.lines.len();
        let all: Vec<Toned> = toned(section).collect();
        if count <= share {
            lines.extend(all);
        } else if let Some(shown) = share.checked_sub(1) {
            lines.extend(all.into_iter().take(shown));
            lines.push((Tone::Usual, format!("… {} more", count - shown)));
        }
    }
    lines
}

/// Each gets what it wants, as far as all can: who wants more than an equal part of what is left gets that.
fn shares(wanted: &[usize], room: usize) -> Vec<usize> {
    let (mut shares, mut left) = (vec![0; wanted.len()], room);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&index| wanted[index]);
    for (done, &index) in order.iter().enumerate() {
        let part = left / (wanted.len() - done);
        shares[index] = wanted[index].min(part);
        left -= shares[index];
    }
    shares
}

/// Left and right in one line; what does not fit is cut off on the left.
fn justified<'a>(mut left: Vec<Span<'a>>, right: String, width: u16) -> Line<'a> {
    let used: usize = left.iter().map(Span::width).sum();
    let right_width = Span::raw(right.as_str()).width();
    if let Some(gap) = usize::from(width).checked_sub(used + right_width) {
        left.extend([Span::raw(" ".repeat(gap)), Span::raw(right)]);
    }
    Line::from(left)
}

fn header(shown: &Shown, looks: &Looks, width: u16) -> Line<'static> {
    let program = &shown.picture.program;
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let coloured = |colour| if shown.colours { strong.fg(colour) } else { strong };
    let mut parts = vec![Span::styled(format!("{} {}", program.name, program.version), strong)];
    if let Some(why) = &shown.gone {
        parts.push(Span::styled(format!("   gone, waiting ({why})"), coloured(Color::Red)));
        return Line::from(parts);
    }
    let (state, colour) = match (program.ready, program.draining) {
        (_, true) => ("draining", Color::Yellow),
        (true, _) => ("ready", Color::Green),
        (false, _) => ("not ready", Color::Red),
    };
    parts.push(Span::styled(format!("   {state}"), coloured(colour)));
    let uptime = duration(shown.picture.uptime());
    parts.push(Span::raw(format!("   up {uptime}   generation {}   {}", program.generation, workers(program.workers))));
    let time = if looks.paused {
        "paused".to_owned()
    } else if shown.since_start {
        "since its start".to_owned()
    } else {
        format!("every {} s", shown.interval.as_secs_f64())
    };
    justified(parts, time, width)
}

fn workers(count: u64) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}

fn tabs(looks: &Looks, width: u16) -> Line<'static> {
    let tab = |(number, view): (usize, View)| {
        let style = if view == looks.view { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        [Span::styled(format!(" {number} {} ", view.name()), style), Span::raw(" ")]
    };
    let left = (1..).zip(View::ALL).flat_map(tab).collect();
    justified(left, "? help  p pause  q quit".to_owned(), width)
}

const HELP: &str = "\
1 to 5, Tab       what is shown       arrows, PgUp, PgDn   scroll
p or space        stops the picture   q or Ctrl-C          quits

All rates are of the time since the picture before.
missed/s       packets that nobody took from the device in time, or for
               which there was no mbuf: the workers are too slow
errors/s       broken packets, and those that could not be sent
packets/round  packets in a look at all queues that found any; near 32
               for each port a worker has no time to spare
idle           the share of its time in which a worker had no packets; it
               looks for them all the time, so its CPU may be at 100 %
handed/s       packets that belonged to another worker
pkt/call       packets that a function gets at once
cycles/pkt     of the time stamp counter, as far as it is measured
held           packets that a function keeps for a while
fullest        the first worker whose table will have no room for more

Yellow is worth a look, red does not work. Any key leaves this.";

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP.lines().map(Line::from).collect();
    let rows = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let (width, height) = (area.width.min(78), area.height.min(rows));
    let window = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, window);
    frame.render_widget(Block::bordered().title(" Help "), window);
    frame.render_widget(Paragraph::new(lines), window.inner(Margin::new(2, 1)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_tables_are_whole_and_long_ones_share_what_is_left() {
        for (wanted, room, expected) in [
            (&[3, 3][..], 20, &[3, 3][..]),
            (&[3, 100, 5, 100], 28, &[3, 10, 5, 10]),
            (&[100, 2], 1, &[1, 0]),
            (&[], 5, &[]),
        ] {
            assert_eq!(shares(wanted, room), expected, "{wanted:?} in {room}");
        }
    }
}
