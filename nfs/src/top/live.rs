//! The terminal: taken, kept up to date, and given back whatever happens.

use super::arguments::Arguments;
use super::keys::Key;
use super::picture::Picture;
use super::sample::{Sample, Sampler};
use super::screen::{Shown, draw, extent};
use super::{Failure, Looks};
use crate::door::{Client, DoorError};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, restore, try_init};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How long a key, a signal or a new sample waits at most.
const LOOK: Duration = Duration::from_millis(50);

/// Draws until somebody has seen enough.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Before the terminal is taken, so that what is wrong is said where it can be read.
    let place = arguments.whereabouts.find()?;
    let mut sampler = Sampler::new(Client::new(place, arguments.whereabouts.timeout())?);
    let sample = sampler.sample()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let shown = Shown {
        picture: Picture::since_start(&sample),
        since_start: true,
        gone: None,
        interval: arguments.interval,
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let (sender, samples) = sync_channel(1);
    let interval = arguments.interval;
    std::thread::spawn(move || keep_asking(sampler, interval, &sender));
    // With it comes a panic hook that gives the terminal back.
    let mut terminal = try_init()?;
    let result = Live { shown, looks: Looks::default(), last: sample }.turn(&mut terminal, &samples, &stop);
    restore();
    Ok(result?)
}

/// On a thread of its own, so that keys are answered while a program is not. It ends with its process.
fn keep_asking(mut sampler: Sampler, interval: Duration, to: &SyncSender<Result<Sample, DoorError>>) {
    let mut next = Instant::now();
    loop {
        // What was slept through is not made up for.
        next = (next + interval).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if to.send(sampler.sample()).is_err() {
            return;
        }
    }
}

struct Live {
    shown: Shown,
    looks: Looks,
    last: Sample,
}

impl Live {
    fn turn(
        mut self,
        terminal: &mut DefaultTerminal,
        samples: &Receiver<Result<Sample, DoorError>>,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut is_stale = true;
        while !self.looks.done && !stop.load(Ordering::Relaxed) {
            if is_stale {
                terminal.draw(|frame| draw(frame, &self.shown, &self.looks))?;
            }
            let happened = event::poll(LOOK)?.then(event::read).transpose()?;
            is_stale = happened.is_some();
            if let Some(event) = happened {
                self.follow(&event, terminal)?;
            }
            match samples.try_recv() {
                Ok(sample) => {
                    self.take(sample);
                    is_stale = true;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(io::Error::other("the thread that asks has ended")),
            }
        }
        Ok(())
    }

    /// A new sample, or why there is none. A picture that stands still does not follow, and later ones go on as if it
    /// had.
    fn take(&mut self, sample: Result<Sample, DoorError>) {
        match sample {
            Ok(sample) => {
                let picture = Picture::between(&self.last, &sample);
                if !self.looks.paused {
                    (self.shown.picture, self.shown.since_start) = (picture, false);
                }
                (self.shown.gone, self.last) = (None, sample);
            }
            Err(error) => self.shown.gone = Some(reason(&error)),
        }
    }

    fn follow(&mut self, event: &Event, terminal: &DefaultTerminal) -> io::Result<()> {
        let Event::Key(key) = event else { return Ok(()) };
        if key.kind == KeyEventKind::Release {
            return Ok(());
        }
        let key = match key.code {
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Character('q'),
            KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => return Ok(()),
            KeyCode::Char(character) => Key::Character(character),
            KeyCode::Tab | KeyCode::Right => Key::Tab,
            KeyCode::BackTab | KeyCode::Left => Key::BackTab,
            KeyCode::Up => Key::Up,
            KeyCode::Down => Key::Down,
            KeyCode::PageUp => Key::PageUp,
            KeyCode::PageDown => Key::PageDown,
            KeyCode::Home => Key::Home,
            KeyCode::End => Key::End,
            KeyCode::Esc => Key::Escape,
            _ => return Ok(()),
        };
        let size = terminal.size()?;
        let (lines, page) = extent(&self.shown, &self.looks, ratatui::layout::Rect::new(0, 0, size.width, size.height));
        self.looks.press(key, lines, page);
        Ok(())
    }
}

/// In few words: it stands in the first line.
fn reason(error: &DoorError) -> String {
    match error {
        DoorError::Closed { .. } => "nobody answers".to_owned(),
        DoorError::Gone { .. } => "it ended".to_owned(),
        DoorError::Late { after, .. } => format!("no answer within {} s", after.as_secs_f64()),
        other => other.to_string(),
    }
}
