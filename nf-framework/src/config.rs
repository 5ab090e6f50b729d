//! Configuration files: TOML text in, typed structures out, and errors that point at the line.
//!
//! A file has a framework part, which is whatever stands at the top level, and one table for each
//! function. Each part is read into a type of its owner's:
//!
//! ```
//! use nf_framework::config::ConfigFile;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Framework {
//!     forwarding: String,
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct PortBlock {
//!     blocked: Vec<u16>,
//! }
//!
//! let text = "
//! forwarding = 'wire'
//! [port-block]
//! blocked = [9, 'x']
//! ";
//! let file = ConfigFile::parse("port-block.toml", text)?;
//!
//! let framework: Framework = file.framework(&["port-block"])?;
//! assert_eq!(framework.forwarding, "wire");
//!
//! let error = file.section::<PortBlock>("port-block").err().unwrap();
//! assert_eq!(
//!     error.to_string(),
//!     "port-block.toml:4: [port-block] blocked[1]: \
//!      expected an integer from 0 to 65535, found a string \"x\""
//! );
//! # Ok::<(), nf_framework::config::ConfigError>(())
//! ```
//!
//! What a value *means* is its owner's business: this module knows neither ports nor functions.
//! An owner that refuses a well-typed value says so through [`ConfigFile::error_at`].

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::changes::{Table, table_of};
use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// A configuration file whose syntax is right and whose values nobody has looked at yet.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    name: String,
    text: String,
}

/// What is wrong with a configuration, where, and usually what to do about it.
///
/// Displays as one sentence, `FILE:LINE: [section] key: what is wrong (what to do)`, and leaves out
/// the parts that there are none of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", self.place())]
#[non_exhaustive]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// The line, counted from 1; none where the error is about the whole file.
    pub line: Option<usize>,
    /// The table at the top level that the error is in; none at the top level itself.
    pub section: Option<String>,
    /// The key inside the section, `limits.burst` or `blocked[1]` if it lies deeper; none where
    /// the error is about the section or the file.
    pub key: Option<String>,
    /// What is wrong and what to do: the sentence without the place.
    pub message: String,
}

impl ConfigFile {
    /// Reads a file and checks its syntax.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not TOML.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::NotFound => "no such file (check the path)".to_owned(),
                io::ErrorKind::IsADirectory => "this is a directory (name the file in it)".to_owned(),
                io::ErrorKind::PermissionDenied => "permission denied (let this user read the file)".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            ConfigError::about_file(&name, None, message)
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
            let message = "not UTF-8 text (save the file as UTF-8)";
            ConfigError::about_file(&name, Some(line), message)
        })?;
        Self::parse(name, text)
    }

    /// Checks the syntax of a text; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// The text is not TOML.
    pub fn parse(name: impl Into<String>, text: impl Into<String>) -> Result<Self, ConfigError> {
        let file = Self { name: name.into(), text: text.into() };
        file.document()?;
        Ok(file)
    }

    /// The file's name, as errors give it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The top level without the tables of the functions, whose names are `functions`.
    ///
    /// `T` should `deny_unknown_fields`: then a key or table that neither `T` nor a function knows
    /// is an error, which lists those that are known.
    ///
    /// # Errors
    ///
    /// `T` cannot be made from it.
    pub fn framework<T: DeserializeOwned>(&self, functions: &[&str]) -> Result<T, ConfigError> {
        let mut document = self.document()?;
        for &function in functions {
            document.get_mut().remove(function);
        }
        typed(toml::Deserializer::from(document), Vec::new()).map_err(|mut fault| {
            if let (Complaint::Unknown { known }, [_]) = (&mut fault.complaint, &*fault.path) {
                known.extend(functions.iter().map(|&name| name.to_owned()));
            }
            self.error(&fault)
        })
    }

    /// The table `[name]` at the top level, which belongs to one function.
    ///
    /// A table that is not there is taken to be empty, so a function whose keys all have defaults
    /// needs no table.
    ///
    /// # Errors
    ///
    /// `T` cannot be made from it.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let path = vec![Step::Key(name.to_owned())];
        match self.document()?.get_mut().remove(name) {
            Some(table) if table.get_ref().is_table() => {
                typed(ValueDeserializer::from(table), path).map_err(|fault| self.error(&fault))
            }
            Some(_) => Err(self.error_on(&path, format!("expected a table (write [{name}])"))),
            None => {
                let empty = Spanned::new(0..0, DeValue::Table(DeTable::new()));
                typed(ValueDeserializer::from(empty), path).map_err(|fault| match fault.complaint {
                    Complaint::Missing => {
                        let message = format!("missing key (add a table [{name}] with it)");
                        self.error_on(&fault.path, message)
                    }
                    // Nobody wrote the empty table, so what `T` has against it helps nobody.
                    _ => self.error_at(name, "", "missing table (add it to the file)"),
                })
            }
        }
    }

    /// Whether there is a table of this name at the top level.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.document().is_ok_and(|document| document.get_ref().contains_key(name))
    }

    /// The table `[name]` as it is written, empty if it is not there.
    pub(crate) fn table(&self, name: &str) -> Table {
        let document = self.document().map(Spanned::into_inner).unwrap_or_default();
        document.get(name).and_then(|value| value.get_ref().as_table()).map(table_of).unwrap_or_default()
    }

    /// An error about a value that has the right type and is wrong all the same.
    ///
    /// `key` is a path in the section such as `blocked`, `limits.burst` or `rules[2].ports`, and
    /// is empty for the section as a whole; an empty `section` is the top level. The line is that
    /// of the key, or of the innermost thing around it that the file has.
    pub fn error_at(&self, section: &str, key: &str, message: impl fmt::Display) -> ConfigError {
        let mut path = steps_of(key);
        if section.is_empty() {
            return self.error_on(&path, message);
        }
        path.insert(0, Step::Key(section.to_owned()));
        ConfigError {
            section: Some(section.to_owned()),
            key: (!key.is_empty()).then(|| key.to_owned()),
            ..self.error_on(&path, message)
        }
    }

    /// The text is parsed again whenever somebody asks: it is small, nothing waits for it, and no
    /// tree that borrows from it has to live beside it.
    fn document(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        DeTable::parse(&self.text).map_err(|error| self.syntax_error(&error))
    }

    fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let line = line_of(self.text.as_bytes(), span.start);
        let code = self.text.get(span).unwrap_or_default().trim();
        let whole = self.text.lines().nth(line - 1).unwrap_or_default().trim();
        let mut key = None;
        let message = match error.message() {
            "duplicate key" if whole.starts_with('[') => {
                format!("{whole} is here for the second time (make the two one)")
            }
            "duplicate key" => {
                key = Some(code.to_owned());
                "this key is here for the second time (keep one)".to_owned()
            }
            // The parser takes whatever it does not know for a string without quotes.
            message if message.starts_with("string values must be quoted") => match code {
                "" => "not valid TOML: no value after `=`".to_owned(),
                code => format!("not valid TOML: `{code}` is no value (put strings in quotes)"),
            },
            message if message.starts_with("invalid float") => {
                format!("not valid TOML: {message} (put strings in quotes)")
            }
            message => format!("not valid TOML: {message}"),
        };
        ConfigError { key, ..ConfigError::about_file(&self.name, Some(line), message) }
    }

    fn error(&self, fault: &Fault) -> ConfigError {
        let message = match &fault.complaint {
            Complaint::Missing if fault.path.len() == 1 => "missing key (add it to the file)".to_owned(),
            Complaint::Missing => "missing key (add it to the table)".to_owned(),
            Complaint::Unknown { known } => {
                let what = self.look_up(&fault.path, |found| match found.last() {
                    Some((_, DeValue::Table(_))) if found.len() == fault.path.len() => "table",
                    _ => "key",
                });
                match &**known {
                    [] => format!("unknown {what} (none are known here)"),
                    known => format!("unknown {what} (known: {})", known.join(", ")),
                }
            }
            Complaint::Other(message) if message.ends_with("address syntax") => {
                let value = self.look_up(&fault.path, |found| match found.last() {
                    Some((_, DeValue::String(value))) => value.to_string(),
                    _ => String::new(),
                });
                let (kind, example) = match message.as_str() {
                    "invalid IPv4 address syntax" => ("IPv4", "192.0.2.1"),
                    "invalid IPv6 address syntax" => ("IPv6", "2001:db8::1"),
                    _ => ("IP", "192.0.2.1"),
                };
                format!("{value:?} is not an {kind} address (write, for example, {example:?})")
            }
            Complaint::Other(message) => message.clone(),
        };
        self.error_on(&fault.path, message)
    }

    fn error_on(&self, path: &[Step], message: impl fmt::Display) -> ConfigError {
        let (line, in_table) = self.look_up(path, |found| {
            let line = found.last().map(|(start, _)| line_of(self.text.as_bytes(), *start));
            let in_table = match found.first() {
                Some((_, value)) => value.is_table(),
                None => path.len() > 1,
            };
            (line, in_table)
        });
        let (section, key) = match path {
            [Step::Key(section), key @ ..] if in_table => (Some(section.clone()), key),
            key => (None, key),
        };
        ConfigError {
            section,
            key: (!key.is_empty()).then(|| written(key)),
            ..ConfigError::about_file(&self.name, line, message)
        }
    }

    /// Follows a path as far as the file goes along: for each step, where what it leads to begins,
    /// and its value.
    fn look_up<R>(&self, path: &[Step], then: impl FnOnce(&[(usize, &DeValue<'_>)]) -> R) -> R {
        let table = self.document().map(Spanned::into_inner).unwrap_or_default();
        let root = DeValue::Table(table);
        let mut here = &root;
        let mut found = Vec::new();
        for step in path {
            let next = match (step, here) {
                (Step::Key(key), DeValue::Table(table)) => {
                    table.get_key_value(key.as_str()).map(|(key, value)| (key.span(), value))
                }
                (Step::Index(index), DeValue::Array(array)) => array.get(*index).map(|value| (value.span(), value)),
                _ => None,
            };
            let Some((span, value)) = next else { break };
            here = value.get_ref();
            found.push((span.start, here));
        }
        then(&found)
    }
}

impl ConfigError {
    fn about_file(file: &str, line: Option<usize>, message: impl fmt::Display) -> Self {
        // One sentence, whatever a type's own message looks like.
        let message = message.to_string().replace('\n', " ");
        Self {
            file: file.to_owned(),
            line,
            section: None,
            key: None,
            message: message.trim_end_matches(['.', ' ']).to_owned(),
        }
    }

    fn place(&self) -> String {
        let mut place = self.file.clone();
        if let Some(line) = self.line {
            place += &format!(":{line}");
        }
        match (&self.section, &self.key) {
            (Some(section), Some(key)) => place += &format!(": [{section}] {key}"),
            (Some(section), None) => place += &format!(": [{section}]"),
            (None, Some(key)) => place += &format!(": {key}"),
            (None, None) => {}
        }
        place
    }
}

/// Why a type could not be made from a part of the file.
struct Fault {
    path: Vec<Step>,
    complaint: Complaint,
}

/// What serde says, as far as we say it in another way.
enum Complaint {
    Missing,
    Unknown { known: Vec<String> },
    Other(String),
}

/// One step of the way from the top level to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn typed<'de, T: DeserializeOwned>(
    deserializer: impl Deserializer<'de, Error = toml::de::Error>,
    mut path: Vec<Step>,
) -> Result<T, Fault> {
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        path.extend(error.path().iter().filter_map(step_of));
        let message = error.inner().message();
        let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        if let Some(key) = message.strip_prefix("missing field ") {
            path.push(Step::Key(key.trim_matches('`').to_owned()));
            let complaint = Complaint::Missing;
            return Fault { path, complaint };
        }
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let (key, rest) = rest.split_once('`').unwrap_or((rest, ""));
            let key = Step::Key(key.to_owned());
            // A flattened structure finds the key only after the path has left it.
            if path.last() != Some(&key) {
                path.push(key);
            }
            let complaint = Complaint::Unknown { known: quoted(rest) };
            return Fault { path, complaint };
        }
        let complaint = Complaint::Other(reworded(message, quoted));
        Fault { path, complaint }
    })
}

/// Serde's wording names Rust's types; whoever edits a configuration wants to read TOML's.
fn reworded(message: &str, quoted: impl Fn(&str) -> Vec<String>) -> String {
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let (value, rest) = rest.split_once('`').unwrap_or((rest, ""));
        return format!("unknown value {value:?} (known: {})", quoted(rest).join(", "));
    }
    if message.starts_with("data did not match any variant of untagged enum") {
        return "this key does not take such a value".to_owned();
    }
    match message {
        "wanted string or table" => return "expected a string or a table".to_owned(),
        "integer number overflowed" => return "the integer is too large".to_owned(),
        _ => {}
    }
    let mismatch = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .or_else(|| message.strip_prefix("invalid length "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match mismatch {
        Some((found, expected)) => {
            format!("expected {}, found {}", wanted(expected), given(found))
        }
        None => message.to_owned(),
    }
}

fn wanted(expected: &str) -> String {
    match expected {
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" => "an integer from 0 to 4294967295",
        "u64" | "u128" | "usize" => "an integer that is not negative",
        "i8" => "an integer from -128 to 127",
        "i16" => "an integer from -32768 to 32767",
        "i32" => "an integer from -2147483648 to 2147483647",
        "i64" | "i128" | "isize" => "an integer",
        "a nonzero u8" => "an integer from 1 to 255",
        "a nonzero u16" => "an integer from 1 to 65535",
        "a nonzero u32" => "an integer from 1 to 4294967295",
        "a nonzero u64" | "a nonzero usize" => "an integer above 0",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "a table",
        "path string" => "a path",
        "IPv4 address" => "an IPv4 address in quotes",
        "IPv6 address" => "an IPv6 address in quotes",
        "IP address" => "an IP address in quotes",
        structure if structure.starts_with("struct ") => "a table",
        _ => {
            return expected
                .strip_prefix("a tuple of size ")
                .or_else(|| expected.strip_prefix("an array of length "))
                .map_or_else(|| expected.to_owned(), |length| format!("an array of {length} elements"));
        }
    }
    .to_owned()
}

fn given(found: &str) -> String {
    for kind in ["integer `", "floating point `", "boolean `"] {
        if let Some((value, _)) = found.strip_prefix(kind).and_then(|it| it.split_once('`')) {
            return value.to_owned();
        }
    }
    match found {
        "sequence" => "an array".to_owned(),
        "map" => "a table".to_owned(),
        string if string.starts_with("string ") => format!("a {string}"),
        _ => found.to_owned(),
    }
}

fn step_of(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        // The way in which `toml::Spanned` asks for its span is nobody's key.
        Segment::Map { key } if key.starts_with("$__") => None,
        Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Key(key.clone())),
        Segment::Unknown => None,
    }
}

/// The path that somebody wrote as `rules[2].ports`.
fn steps_of(key: &str) -> Vec<Step> {
    key.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| match part.strip_suffix(']').map(str::parse) {
            Some(Ok(index)) => Step::Index(index),
            _ => Step::Key(part.to_owned()),
        })
        .collect()
}

fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text += &format!("[{index}]"),
            Step::Key(key) => {
                let dot = if text.is_empty() { "" } else { "." };
                text += &format!("{dot}{key}");
            }
        }
    }
    text
}

/// The line, from 1, that a byte is on; an offset at the end of the text is on the last line.
fn line_of(text: &[u8], offset: usize) -> usize {
    let before = &text[..offset.min(text.len().saturating_sub(1))];
    before.split(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU16;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Framework {
        forwarding: Forwarding,
        ports: Option<Ports>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Forwarding {
        Wire,
        Drop,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ports {
        inside: String,
        outside: String,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
    struct Everything {
        blocked: Vec<u16>,
        verbose: bool,
        label: String,
        share: f64,
        pair: (u8, u8),
        workers: Option<NonZeroU16>,
        address: Option<Ipv4Addr>,
        mode: Option<Mode>,
        either: Option<Either>,
        spanned: Option<Spanned<u8>>,
        limits: Option<Limits>,
        rules: Vec<Limits>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Off,
        On { level: u8 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Text(String),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        burst: u32,
        #[serde(default)]
        ports: Vec<u16>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Required {
        blocked: Vec<u16>,
    }

    fn file(text: &str) -> ConfigFile {
        ConfigFile::parse("f.toml", text).unwrap()
    }

    fn text_of<T>(result: Result<T, ConfigError>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn a_good_file_gives_each_owner_its_part() {
        let file = file("forwarding = 'wire'\n[ports]\ninside = 'a'\noutside = 'b'\n[block]\nblocked = [9]\n");
        let ports = Some(Ports { inside: "a".to_owned(), outside: "b".to_owned() });
        let forwarding = Forwarding::Wire;
        assert_eq!(file.framework(&["block", "other"]), Ok(Framework { forwarding, ports }));
        let blocked = vec![9];
        assert_eq!(file.section("block"), Ok(Required { blocked }));
        assert_eq!(file.section("other"), Ok(Everything::default()));
    }

    #[test]
    fn bad_syntax_is_one_sentence_with_its_line() {
        for (text, expected) in [
            ("a = 1\n[p\nx = 1\n", "f.toml:2: not valid TOML: unclosed table, expected `]`"),
            ("\nx =\n", "f.toml:2: not valid TOML: no value after `=`"),
            ("x = wire\n", "f.toml:1: not valid TOML: `wire` is no value (put strings in quotes)"),
            ("x = ipip\n", "f.toml:1: not valid TOML: invalid float, expected `inf` (put strings in quotes)"),
            ("x = [1,\n  2\n", "f.toml:2: not valid TOML: unclosed array, expected `]`"),
            ("ä = 1\n", "f.toml:1: not valid TOML: invalid unquoted key, expected letters, numbers, `-`, `_`"),
            ("x\n", "f.toml:1: not valid TOML: key with no value, expected `=`"),
            ("[p]\nx = 1\ny = 2\nx = 3\n", "f.toml:4: x: this key is here for the second time (keep one)"),
            ("[p]\nx = { a = 1, a = 2 }\n", "f.toml:2: a: this key is here for the second time (keep one)"),
            ("[p]\nx = 1\n[q]\n[p]\ny = 1\n", "f.toml:4: [p] is here for the second time (make the two one)"),
        ] {
            assert_eq!(text_of(ConfigFile::parse("f.toml", text)), expected, "{text}");
        }
    }

    #[test]
    fn the_framework_part_says_what_it_knows() {
        for (text, expected) in [
            ("", "f.toml: forwarding: missing key (add it to the file)"),
            (
                "forwarding = 'wire'\nforwadring = 1\n",
                "f.toml:2: forwadring: unknown key (known: forwarding, ports, block, nat)",
            ),
            (
                "forwarding = 'wire'\n\n[firewal]\nx = 1\n",
                "f.toml:3: [firewal]: unknown table (known: forwarding, ports, block, nat)",
            ),
            (
                "forwarding = 'wire'\n[ports]\ninside = 'a'\noutside = 'b'\nmiddle = 'c'\n",
                "f.toml:5: [ports] middle: unknown key (known: inside, outside)",
            ),
            (
                "forwarding = 'wire'\n[ports]\ninside = 'a'\n",
                "f.toml:2: [ports] outside: missing key (add it to the table)",
            ),
            ("forwarding = 'wire'\n[ports]\ninside = 3\n", "f.toml:3: [ports] inside: expected a string, found 3"),
            ("forwarding = 'wire'\nports = 'a'\n", "f.toml:2: ports: expected a table, found a string \"a\""),
            ("forwarding = 'wired'\n", "f.toml:1: forwarding: unknown value \"wired\" (known: wire, drop)"),
        ] {
            assert_eq!(text_of(file(text).framework::<Framework>(&["block", "nat"])), expected, "{text}");
        }
    }

    #[test]
    fn a_section_names_the_line_the_key_and_what_it_wants() {
        for (text, expected) in [
            (
                "blocked = [\n  1,\n  'x',\n]",
                "f.toml:4: [s] blocked[1]: expected an integer from 0 to 65535, found a string \"x\"",
            ),
            ("blocked = [70000]", "f.toml:2: [s] blocked[0]: expected an integer from 0 to 65535, found 70000"),
            ("blocked = [-1]", "f.toml:2: [s] blocked[0]: expected an integer from 0 to 65535, found -1"),
            ("blocked = [1.5]", "f.toml:2: [s] blocked[0]: expected an integer from 0 to 65535, found 1.5"),
            (
                "blocked = [99999999999999999999]",
                "f.toml:2: [s] blocked[0]: expected an integer from 0 to 65535, \
                 found 99999999999999999999",
            ),
            (
                "blocked = [9999999999999999999999999999999999999999]",
                "f.toml:2: [s] blocked[0]: the integer is too large",
            ),
            ("blocked = 9", "f.toml:2: [s] blocked: expected an array, found 9"),
            ("verbose = 'yes'", "f.toml:2: [s] verbose: expected true or false, found a string \"yes\""),
            ("label = true", "f.toml:2: [s] label: expected a string, found true"),
            ("label = [1]", "f.toml:2: [s] label: expected a string, found an array"),
            ("label = { a = 1 }", "f.toml:2: [s] label: expected a string, found a table"),
            ("share = 'x'", "f.toml:2: [s] share: expected a number, found a string \"x\""),
            ("pair = [1]", "f.toml:2: [s] pair: expected an array of 2 elements, found 1"),
            ("workers = 0", "f.toml:2: [s] workers: expected an integer from 1 to 65535, found 0"),
            (
                "address = '10.0.0'",
                "f.toml:2: [s] address: \"10.0.0\" is not an IPv4 address (write, for example, \"192.0.2.1\")",
            ),
            ("address = 10", "f.toml:2: [s] address: expected an IPv4 address in quotes, found 10"),
            ("mode = 1", "f.toml:2: [s] mode: expected a string or a table"),
            ("mode = 'half'", "f.toml:2: [s] mode: unknown value \"half\" (known: off, on)"),
            ("[s.mode.on]\nlevel = 300", "f.toml:3: [s] mode.on.level: expected an integer from 0 to 255, found 300"),
            ("either = 1.5", "f.toml:2: [s] either: this key does not take such a value"),
            ("spanned = 300", "f.toml:2: [s] spanned: expected an integer from 0 to 255, found 300"),
            (
                "blokced = [1]",
                "f.toml:2: [s] blokced: unknown key (known: blocked, verbose, label, share, pair, \
                 workers, address, mode, either, spanned, limits, rules)",
            ),
            ("verbose = true\n[s.limits]\nports = []", "f.toml:3: [s] limits.burst: missing key (add it to the table)"),
            (
                "verbose = true\nlimits.burst = 1\nlimits.ports = [\n1,\n[]]",
                "f.toml:6: [s] limits.ports[1]: expected an integer from 0 to 65535, found an array",
            ),
            ("[s.limits]\nburst = 1\nbrust = 2", "f.toml:4: [s] limits.brust: unknown key (known: burst, ports)"),
            (
                "[[s.rules]]\nburst = 1\n[[s.rules]]\nburst = 1\nports = [1,\n  -3]",
                "f.toml:7: [s] rules[1].ports[1]: expected an integer from 0 to 65535, found -3",
            ),
            (
                "[[s.rules]]\nburst = 1\n\n[[s.rules]]\n",
                "f.toml:5: [s] rules[1].burst: missing key (add it to the table)",
            ),
            ("[s.limits.more]\n", "f.toml:2: [s] limits.more: unknown table (known: burst, ports)"),
        ] {
            let text = format!("[s]\n{text}\n");
            assert_eq!(text_of(file(&text).section::<Everything>("s")), expected, "{text}");
        }
    }

    #[test]
    fn a_section_that_is_not_there_says_what_to_add() {
        for (text, expected) in [
            ("[t]\n", "f.toml: [s] blocked: missing key (add a table [s] with it)"),
            ("[s]\n", "f.toml:1: [s] blocked: missing key (add it to the table)"),
            ("\ns = 1\n", "f.toml:2: s: expected a table (write [s])"),
            ("[[s]]\n", "f.toml:1: s: expected a table (write [s])"),
        ] {
            assert_eq!(text_of(file(text).section::<Required>("s")), expected, "{text}");
        }
        assert_eq!(text_of(file("").section::<Mode>("s")), "f.toml: [s]: missing table (add it to the file)");
    }

    #[test]
    fn an_error_found_later_is_on_the_line_of_its_key() {
        let file =
            file("top = 1\n[s]\nblocked = [9,\n  9]\n[s.limits]\nburst = 0\n[[s.rules]]\n[[s.rules]]\nports = [1]\n");
        for (section, key, expected) in [
            ("", "top", "f.toml:1: top: is odd"),
            ("", "bottom", "f.toml: bottom: is odd"),
            ("s", "", "f.toml:2: [s]: is odd"),
            ("s", "blocked", "f.toml:3: [s] blocked: is odd"),
            ("s", "blocked[1]", "f.toml:4: [s] blocked[1]: is odd"),
            ("s", "blocked[7]", "f.toml:3: [s] blocked[7]: is odd"),
            ("s", "absent", "f.toml:2: [s] absent: is odd"),
            ("s", "limits.burst", "f.toml:6: [s] limits.burst: is odd"),
            ("s", "rules[1].ports[0]", "f.toml:9: [s] rules[1].ports[0]: is odd"),
            ("t", "x", "f.toml: [t] x: is odd"),
            ("t", "", "f.toml: [t]: is odd"),
        ] {
            assert_eq!(file.error_at(section, key, "is odd.\n").to_string(), expected);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let directory = std::env::temp_dir().join(format!("nf-config-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let latin = directory.join("latin.toml");
        fs::write(&latin, b"a = 1\nb = '\xe4'\n").unwrap();
        let good = directory.join("good.toml");
        fs::write(&good, "\u{feff}a = 1\r\n").unwrap();
        for (path, expected) in [
            (directory.join("none.toml"), ": no such file (check the path)"),
            (directory.clone(), ": this is a directory (name the file in it)"),
            (latin, ":2: not UTF-8 text (save the file as UTF-8)"),
        ] {
            assert_eq!(text_of(ConfigFile::read(&path)), format!("{}{expected}", path.display()));
        }
        assert!(ConfigFile::read(&good).is_ok());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_parts_of_an_error_can_be_had_one_by_one() {
        let error = file("[s]\nblocked = 1\n").section::<Required>("s").err().unwrap();
        assert_eq!(error.file, "f.toml");
        assert_eq!(error.line, Some(2));
        assert_eq!(error.section.as_deref(), Some("s"));
        assert_eq!(error.key.as_deref(), Some("blocked"));
        assert_eq!(error.message, "expected an array, found 1");
    }
}
