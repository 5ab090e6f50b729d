//! What was found, and how it is shown.

use serde::Serialize;
use std::fmt;

/// How much a finding matters; the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but slower or otherwise than one may think.
    Warning,
    /// A program does not start like this, or no packet goes through it.
    Fault,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What it is about, in a word.
    pub subject: &'static str,
    /// Its name, for programs: it stays the same when sentences change.
    pub id: &'static str,
    /// The device that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What was found.
    pub what: String,
    /// Why it matters; empty where all is well.
    pub why: String,
    /// What mends it: commands, kernel arguments, or a sentence. Any one of them will do.
    pub mend: Vec<String>,
}

impl Finding {
    pub(super) fn new(level: Level, subject: &'static str, id: &'static str, what: impl Into<String>) -> Self {
        Self { level, subject, id, device: None, what: what.into(), why: String::new(), mend: Vec::new() }
    }

    pub(super) fn ok(subject: &'static str, id: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, id, what)
    }

    pub(super) fn note(subject: &'static str, id: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Note, subject, id, what)
    }

    pub(super) fn warning(subject: &'static str, id: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, id, what)
    }

    pub(super) fn fault(subject: &'static str, id: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Fault, subject, id, what)
    }

    pub(super) fn on(mut self, device: &str) -> Self {
        self.device = Some(device.to_owned());
        self
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend.push(mend.into());
        self
    }
}

/// All that was found, the worst first. Displays as lines for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnosis {
    findings: Vec<Finding>,
    coloured: bool,
}

impl Diagnosis {
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        Self { findings, coloured: false }
    }

    /// What was found, the worst first.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings of this level there are.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Marks levels with the colours of a terminal.
    #[must_use]
    pub fn coloured(mut self, coloured: bool) -> Self {
        self.coloured = coloured;
        self
    }

    /// All as JSON: an object of how many there are of each level, and the list.
    #[must_use]
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Whole<'a> {
            faults: usize,
            warnings: usize,
            notes: usize,
            findings: &'a [Finding],
        }
        let whole = Whole {
            faults: self.count(Level::Fault),
            warnings: self.count(Level::Warning),
            notes: self.count(Level::Note),
            findings: &self.findings,
        };
        serde_json::to_string_pretty(&whole).unwrap_or_default()
    }
}

/// Columns of text; what is longer goes on in the next line.
const WIDTH: usize = 110;
/// Columns before the text.
const INDENT: usize = 21;

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let (word, colour) = match finding.level {
                Level::Fault => ("FAULT", "\x1b[31m"),
                Level::Warning => ("WARNING", "\x1b[33m"),
                Level::Note => ("note", "\x1b[36m"),
                Level::Ok => ("ok", "\x1b[32m"),
            };
            let (colour, plain) = if self.coloured { (colour, "\x1b[0m") } else { ("", "") };
            write!(f, "{colour}{word:<7}{plain}  {:<10}  ", finding.subject)?;
            let of_device = |device: &String| format!("{device}: {}", finding.what);
            paragraph(f, "", &finding.device.as_ref().map_or_else(|| finding.what.clone(), of_device))?;
            if !finding.why.is_empty() {
                write!(f, "{:INDENT$}", "")?;
                paragraph(f, "", &finding.why)?;
            }
            for mend in &finding.mend {
                write!(f, "{:INDENT$}", "")?;
                paragraph(f, "-> ", mend)?;
            }
        }
        let counted = |level, word: &str| match self.count(level) {
            1 => format!("1 {word}"),
            count => format!("{count} {word}s"),
        };
        writeln!(
            f,
            "\n{}, {}, {}{}",
            counted(Level::Fault, "fault"),
            counted(Level::Warning, "warning"),
            counted(Level::Note, "note"),
            if self.count(Level::Fault) > 0 { "; behind \"->\" is what mends it, any one of several" } else { "" }
        )
    }
}

/// Words in lines, from the column on where the text begins. What mends is one line, to be copied.
fn paragraph(f: &mut fmt::Formatter<'_>, mark: &str, text: &str) -> fmt::Result {
    let mut column = INDENT;
    write!(f, "{mark}")?;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && mark.is_empty() && column + 1 + width > WIDTH {
            write!(f, "\n{:INDENT$}{word}", "")?;
            column = INDENT + width;
        } else {
            write!(f, "{}{word}", if at > 0 { " " } else { "" })?;
            column += width + usize::from(at > 0);
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis() -> Diagnosis {
        let long = "word ".repeat(20);
        Diagnosis::new(vec![
            Finding::ok("iommu", "iommu", "on"),
            Finding::warning("link", "link-down", "the link is down").on("0000:01:10.0").why(long.trim()),
            Finding::fault("hugepages", "hugepages-absent", "none").why("DPDK needs them").mend("scripts/hugepages 1G"),
        ])
    }

    #[test]
    fn the_worst_is_shown_first_and_long_lines_are_folded() {
        let expected = format!(
            "\
FAULT    hugepages   none
{0}DPDK needs them
{0}-> scripts/hugepages 1G
WARNING  link        0000:01:10.0: the link is down
{0}{1}
{0}word word
ok       iommu       on

1 fault, 1 warning, 0 notes; behind \"->\" is what mends it, any one of several
",
            " ".repeat(INDENT),
            "word ".repeat(18).trim()
        );
        assert_eq!(diagnosis().to_string(), expected);
        assert!(diagnosis().coloured(true).to_string().starts_with("\x1b[31mFAULT  \x1b[0m  hugepages   none\n"));
    }

    #[test]
    fn json_has_all_that_the_lines_have() {
        let value: serde_json::Value = serde_json::from_str(&diagnosis().json()).unwrap();
        assert_eq!((&value["faults"], &value["warnings"], &value["notes"]), (&1.into(), &1.into(), &0.into()));
        let first = serde_json::json!({
            "level": "fault", "subject": "hugepages", "id": "hugepages-absent", "what": "none",
            "why": "DPDK needs them", "mend": ["scripts/hugepages 1G"],
        });
        assert_eq!(value["findings"][0], first);
        assert_eq!(value["findings"][1]["device"], "0000:01:10.0");
    }
}
