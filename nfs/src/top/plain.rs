//! Pictures as text, one after the other: for pipes and files.

use super::Failure;
use super::arguments::Arguments;
use super::keys::View;
use super::picture::Picture;
use super::sample::Sampler;
use super::sections::sections;
use crate::door::{Client, duration, printable, say};
use std::io::{self, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Columns that lines may have: a file is as wide as anybody likes, and people look at it in a terminal.
const WIDTH: usize = 80;

/// Writes pictures until there are enough, or nobody reads them.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = arguments.whereabouts.find()?;
    let mut sampler = Sampler::new(Client::new(place, arguments.whereabouts.timeout())?);
    let mut old = sampler.sample()?;
    let (mut next, mut left, mut first) = (Instant::now(), arguments.pictures(), true);
    while left != Some(0) {
        next = (next + arguments.interval).max(Instant::now());
        sleep(next.saturating_duration_since(Instant::now()));
        let new = match sampler.sample() {
            Ok(sample) => sample,
            // Who asked for some number of pictures does not wait for ever.
            Err(error) if left.is_some() => return Err(error.into()),
            Err(error) => {
                say(&format!("gone, waiting ({})", printable(&error.to_string())));
                wait(&mut sampler, arguments.interval)
            }
        };
        let separator = if first { "" } else { "\n" };
        let stdout = io::stdout();
        let mut stdout = stdout.lock();
        stdout.write_all(format!("{separator}{}", text(&Picture::between(&old, &new))).as_bytes())?;
        stdout.flush()?;
        (old, first, left) = (new, false, left.map(|left| left - 1));
    }
    Ok(())
}

/// Until it answers again.
fn wait(sampler: &mut Sampler, interval: Duration) -> super::Sample {
    loop {
        sleep(interval);
        if let Ok(sample) = sampler.sample() {
            return sample;
        }
    }
}

fn text(picture: &Picture) -> String {
    let program = &picture.program;
    let state = match (program.ready, program.draining) {
        (_, true) => "draining",
        (true, _) => "ready",
        (false, _) => "not ready",
    };
    let uptime = duration(picture.uptime());
    let head = format!("{} {}, {state}, up {uptime}, generation {}", program.name, program.version, program.generation);
    let tables = sections(picture, View::Overview, WIDTH);
    let lines = |section: &[String]| section.iter().map(|line| printable(line) + "\n").collect::<String>();
    let tables = tables.into_iter().map(|section| format!("\n{}", lines(&section.lines)));
    [printable(&head) + "\n"].into_iter().chain(tables).collect()
}
