//! Figures as people read them.

use std::io::Write as _;
use std::time::Duration;

/// Text of a program's, without what a terminal would take for an order: names come from files and from the network.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Says on stderr what is no part of an answer. Whether anybody reads it changes nothing.
pub fn say(text: &str) {
    let lines: Vec<String> = text.lines().map(printable).collect();
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

/// Says why a program ends.
pub fn say_error(error: &dyn std::fmt::Display) {
    say(&format!("error: {error}"));
}

/// Three digits and k, M, G or T: `0`, `12`, `1.23k`, `45.6M`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    let (value, unit) = scaled(per_second, 1000.0);
    if unit.is_empty() && (value.fract() == 0.0 || value >= 100.0) {
        format!("{value:.0}")
    } else {
        format!("{}{unit}", digits(value))
    }
}

/// Bytes by the same measure: `1.5M` is 1.5 million.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn bytes(count: u64) -> String {
    rate(count as f64)
}

fn scaled(value: f64, base: f64) -> (f64, &'static str) {
    let mut value = value;
    for unit in ["", "k", "M", "G"] {
        // 999.6k would be shown with four digits.
        if value.abs() < base - 0.5 {
            return (value, unit);
        }
        value /= base;
    }
    (value, "T")
}

fn digits(value: f64) -> String {
    match value.abs() {
        hundreds if hundreds >= 99.95 => format!("{value:.0}"),
        tens if tens >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A share, 0 to 1, in percent: `0%`, `5.2%`, `97%`.
#[must_use]
pub fn share(share: f64) -> String {
    let percent = share * 100.0;
    if (0.05..9.95).contains(&percent) { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}

/// `12 s`, `3 min 5 s`, `2 h 7 min`, `4 d 3 h`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A sentence in lines of so many characters at most, which break between words; a longer word has a line of its own.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Of megabits per second, in bits: `100M`, `2.5G`.
#[must_use]
pub(super) fn link_speed(mbps: u64) -> String {
    match (mbps / 1000, mbps % 1000) {
        (0, _) => format!("{mbps}M"),
        (gbps, 0) => format!("{gbps}G"),
        (gbps, rest) => format!("{gbps}.{}G", rest / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_break_between_words() {
        assert_eq!(wrapped("the port took nothing more", 12), ["the port", "took nothing", "more"]);
        assert_eq!(wrapped("a neighbourhood", 5), ["a", "neighbourhood"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.0, "7"),
            (999.0, "999"),
            (999.7, "1.00k"),
            (1234.0, "1.23k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_600.0, "1.00M"),
            (14_880_952.0, "14.9M"),
            (1.2e13, "12.0T"),
        ] {
            assert_eq!(rate(value), expected, "{value}");
        }
        assert_eq!(bytes(1_500_000), "1.50M");
        assert_eq!([0.0, 0.0004, 0.052, 0.5, 0.9995, 1.0].map(share), ["0%", "0%", "5.2%", "50%", "100%", "100%"]);
        let times = [0, 59, 61, 3600, 90_061].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(times, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
        assert_eq!([10, 1000, 2500, 100_000].map(link_speed), ["10M", "1G", "2.5G", "100G"]);
    }
}
