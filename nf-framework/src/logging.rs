//! The program's log: lines on stderr for people, for the journal or for machines.

use env_logger::{Builder, Env};
use log::{Level, Record};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// What log lines look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people: with colours on a terminal, and with priorities in place of times in systemd's journal
    #[default]
    Text,
    /// A JSON object on each line: timestamp (RFC 3339), level, target, message
    Json,
}

/// What they look like where they go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    Terminal,
    /// sd-daemon(3): the journal has the time itself, and takes the priority from `<N>` before each line.
    Journal,
    Json,
}

static STYLE: OnceLock<Style> = OnceLock::new();

/// Begins to log, unless the program has a logger of its own. What `RUST_LOG` says goes before `otherwise`.
pub(crate) fn begin(format: LogFormat, otherwise: &str) {
    let style = match format {
        LogFormat::Json => Style::Json,
        LogFormat::Text if goes_to_the_journal() => Style::Journal,
        LogFormat::Text => Style::Terminal,
    };
    let style = *STYLE.get_or_init(|| style);
    let mut builder = Builder::from_env(Env::default().default_filter_or(otherwise));
    match style {
        Style::Terminal => builder.format_target(true),
        Style::Journal | Style::Json => builder.format(move |out, record| write_record(out, style, record)),
    };
    let _ = builder.try_init();
}

/// Says why the program ends, whatever the log's filter is.
pub(crate) fn say_error(program: &str, error: &dyn std::fmt::Display) {
    let style = STYLE.get().copied().unwrap_or(Style::Terminal);
    let mut stderr = io::stderr().lock();
    // Nobody may be reading any more.
    let _ = match style {
        Style::Terminal => writeln!(stderr, "error: {error}"),
        Style::Journal => write_lines(&mut stderr, Level::Error, &format!("error: {error}")),
        Style::Json => write_object(&mut stderr, Level::Error, program, &error.to_string()),
    };
}

/// Whether lines are more than what is shown to a person at once.
pub(crate) fn is_structured() -> bool {
    matches!(STYLE.get(), Some(Style::Journal | Style::Json))
}

/// Whether stderr is the journal's stream, as systemd says (systemd.exec(5)); if it was sent elsewhere since, it is not.
fn goes_to_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

fn write_record(out: &mut impl Write, style: Style, record: &Record<'_>) -> io::Result<()> {
    let (level, target, message) = (record.level(), record.target(), record.args().to_string());
    match style {
        Style::Json => write_object(out, level, target, &message),
        Style::Terminal | Style::Journal => write_lines(out, level, &format!("{target}: {message}")),
    }
}

fn write_lines(out: &mut impl Write, level: Level, text: &str) -> io::Result<()> {
    let priority = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    text.lines().try_for_each(|line| writeln!(out, "<{priority}>{line}"))
}

fn write_object(out: &mut impl Write, level: Level, target: &str, message: &str) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        timestamp: String,
        level: &'static str,
        target: &'a str,
        message: &'a str,
    }
    let timestamp = format!("{:.6}", jiff::Timestamp::now());
    let line = serde_json::to_string(&Line { timestamp, level: level.as_str(), target, message })?;
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: Style, level: Level, message: &str) -> String {
        let mut out = Vec::new();
        let args = format_args!("{message}");
        write_record(&mut out, style, &Record::builder().level(level).target("dpdk").args(args).build()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_journal_gets_a_priority_before_each_line() {
        for (level, message, expected) in [
            (Level::Error, "no memory", "<3>dpdk: no memory\n"),
            (Level::Warn, "two\nlines", "<4>dpdk: two\n<4>lines\n"),
            (Level::Info, "up", "<6>dpdk: up\n"),
            (Level::Debug, "<0>forged", "<7>dpdk: <0>forged\n"),
            (Level::Trace, "deep", "<7>dpdk: deep\n"),
        ] {
            assert_eq!(written(Style::Journal, level, message), expected);
        }
    }

    #[test]
    fn whatever_is_said_is_one_object_on_one_line() {
        for message in ["up", "a \"quoted\"\nand broken\tline \u{1}\u{7f}\u{2028}", ""] {
            let line = written(Style::Json, Level::Warn, message);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
            assert_eq!(object.keys().count(), 4, "{line}");
            assert_eq!(
                (&object["level"], &object["target"], &object["message"]),
                (&"WARN".into(), &"dpdk".into(), &message.into())
            );
            let time: jiff::Timestamp = object["timestamp"].as_str().unwrap().parse().unwrap();
            assert!(time <= jiff::Timestamp::now(), "{line}");
        }
    }
}
