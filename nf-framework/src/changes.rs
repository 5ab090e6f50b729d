//! What differs between two configurations, for people.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use toml::de::{DeTable, DeValue};

/// What differs between two configurations: displays as a line for each change, the first 20
/// of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes(pub(crate) Vec<Change>);

/// One value that is another, is new, or is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The table at the top level that it is in; none at the top level itself.
    pub section: Option<String>,
    /// The key inside the section, `limits.burst` or `blocked[1]` if it lies deeper, `rules."web".port` in an
    /// array of tables that have names.
    pub key: String,
    /// As it was written; none if it was not there.
    pub old: Option<String>,
    /// As it is written now; none if it is gone.
    pub new: Option<String>,
}

/// A configuration's values, without comments, order and ways of writing.
pub(crate) type Table = BTreeMap<String, Value>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// As it is shown.
    Scalar(String),
    Array(Vec<Self>),
    Table(Table),
}

impl Changes {
    /// How many lines are shown.
    const SHOWN: usize = 20;

    /// One by one, all of them.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From one top level to another. Tables in it are sections.
    pub(crate) fn between(old: &Table, new: &Table) -> Self {
        let (mut changes, empty) = (Self::default(), Value::Table(Table::new()));
        for (key, old, new) in pairs(old, new) {
            if [old, new].iter().any(|side| matches!(side, Some(Value::Table(_)))) {
                changes.compare(Some(key), "", Some(old.unwrap_or(&empty)), Some(new.unwrap_or(&empty)));
            } else {
                changes.compare(None, key, old, new);
            }
        }
        changes
    }

    fn compare(&mut self, section: Option<&str>, path: &str, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Table(old)), Some(Value::Table(new))) => {
                for (key, old, new) in pairs(old, new) {
                    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    self.compare(section, &path, old, new);
                }
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => self.compare_arrays(section, path, old, new),
            _ => self.0.push(Change {
                section: section.map(str::to_owned),
                key: path.to_owned(),
                old: old.map(Value::to_string),
                new: new.map(Value::to_string),
            }),
        }
    }

    /// Tables with names are compared by them. Of others, what both begin and end with stays, so that an element put
    /// between others is one change.
    fn compare_arrays(&mut self, section: Option<&str>, path: &str, old: &[Value], new: &[Value]) {
        if let (Some(old), Some(new)) = (by_name(old), by_name(new)) {
            return self.compare_named(section, path, &old, &new);
        }
        let before = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let (old, new) = (&old[before..], &new[before..]);
        let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
        let (old, new) = (&old[..old.len() - behind], &new[..new.len() - behind]);
        for at in 0..old.len().max(new.len()) {
            self.compare(section, &format!("{path}[{}]", before + at), old.get(at), new.get(at));
        }
    }

    /// In the new order, behind what is gone. That those that stay have changed places is a change of the array.
    fn compare_named(&mut self, section: Option<&str>, path: &str, old: &[Named<'_>], new: &[Named<'_>]) {
        let [old_order, new_order] = [common(old, new), common(new, old)];
        if old_order != new_order {
            let order = |names: &[&str]| Some(format!("in the order {}", names.join(", ")));
            let (section, key) = (section.map(str::to_owned), path.to_owned());
            self.0.push(Change { section, key, old: order(&old_order), new: order(&new_order) });
        }
        let gone = old.iter().filter(|(name, _)| !new_order.contains(name));
        for (name, _) in gone.chain(new) {
            self.compare(section, &format!("{path}.{name}"), find(old, name), find(new, name));
        }
    }
}

/// A name as it is written, and the table that has it.
type Named<'a> = (&'a str, &'a Value);

/// The elements of an array with their names, if each has one of its own.
fn by_name<'a>(array: &'a [Value]) -> Option<Vec<Named<'a>>> {
    let mut names = BTreeSet::new();
    let name_of = |value: &'a Value| match value {
        Value::Table(table) => match table.get("name") {
            Some(Value::Scalar(name)) if names.insert(name) => Some((name.as_str(), value)),
            _ => None,
        },
        _ => None,
    };
    array.iter().map(name_of).collect()
}

fn find<'a>(named: &[Named<'a>], name: &str) -> Option<&'a Value> {
    named.iter().find(|(of, _)| *of == name).map(|(_, value)| *value)
}

/// The names that both have, in the order of the first.
fn common<'a>(one: &[Named<'a>], other: &[Named<'_>]) -> Vec<&'a str> {
    one.iter().map(|(name, _)| *name).filter(|name| other.iter().any(|(of, _)| of == name)).collect()
}

/// The keys of either table, in order.
fn pairs<'a>(old: &'a Table, new: &'a Table) -> impl Iterator<Item = (&'a str, Option<&'a Value>, Option<&'a Value>)> {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    let mut keys: Vec<&String> = old.keys().chain(added).collect();
    keys.sort();
    keys.into_iter().map(|key| (key.as_str(), old.get(key), new.get(key)))
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.0.iter().take(Self::SHOWN).enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{change}")?;
        }
        match self.0.len().saturating_sub(Self::SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { section, key, old, new } = self;
        let place = match section {
            Some(section) if key.is_empty() => format!("[{section}]"),
            Some(section) => format!("[{section}] {key}"),
            None => key.clone(),
        };
        match (old, new) {
            (Some(old), Some(new)) => write!(f, "{place}: {} -> {}", short(old), short(new)),
            (None, Some(new)) => write!(f, "+ {place} = {}", short(new)),
            (Some(old), None) => write!(f, "- {place} = {}", short(old)),
            (None, None) => f.write_str(&place),
        }
    }
}

/// The beginning of a value that fills more than a line.
fn short(value: &str) -> String {
    const LONGEST: usize = 80;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ...", &value[..end]),
        None => value.to_owned(),
    }
}

/// The values of a table as it is written.
pub(crate) fn table_of(table: &DeTable<'_>) -> Table {
    let value = |value: &DeValue<'_>| Value::from(value);
    table.iter().map(|(key, item)| (key.get_ref().to_string(), value(item.get_ref()))).collect()
}

/// The values of a typed table, defaults included: two ways to write the same are one.
pub(crate) fn table_of_typed(typed: &impl Serialize) -> Table {
    // What was read from TOML can be written as TOML.
    let text = toml::to_string(typed).unwrap_or_default();
    DeTable::parse(&text).map(|table| table_of(table.get_ref())).unwrap_or_default()
}

impl From<&DeValue<'_>> for Value {
    fn from(value: &DeValue<'_>) -> Self {
        Self::Scalar(match value {
            DeValue::Table(table) => return Self::Table(table_of(table)),
            DeValue::Array(array) => return Self::Array(array.iter().map(|item| item.get_ref().into()).collect()),
            DeValue::String(string) => format!("{string:?}"),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(value) => value.to_string(),
            // Both are kept as they are written; one that is out of range stays so.
            DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| integer.to_string(), |value| value.to_string()),
            DeValue::Float(float) => {
                float.as_str().parse::<f64>().map_or_else(|_| float.to_string(), |value| format!("{value:?}"))
            }
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = |index| if index == 0 { "" } else { ", " };
        match self {
            Self::Scalar(text) => f.write_str(text),
            Self::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", comma(index))?;
                }
                f.write_str("]")
            }
            Self::Table(table) if table.is_empty() => f.write_str("{}"),
            Self::Table(table) => {
                f.write_str("{ ")?;
                for (index, (key, value)) in table.iter().enumerate() {
                    write!(f, "{}{key} = {value}", comma(index))?;
                }
                f.write_str(" }")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        table_of(DeTable::parse(text).unwrap().get_ref())
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        Changes::between(&table(old), &table(new)).iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_change_names_its_place_and_both_values() {
        for (old, new, expected) in [
            ("a = 1", "a = 2", &["a: 1 -> 2"][..]),
            ("a = 1", "b = 1", &["- a = 1", "+ b = 1"]),
            ("[s]\na = 'x'", "[s]\na = 7", &["[s] a: \"x\" -> 7"]),
            ("", "[s]\na = 1\nb.c = true", &["+ [s] a = 1", "+ [s] b = { c = true }"]),
            ("[s]\na = 1", "", &["- [s] a = 1"]),
            ("[s]", "", &[]),
            ("s = 1", "[s]\na = 1", &["[s]: 1 -> { a = 1 }"]),
            ("[s.t]\na = 1\nb = 2", "[s.t]\na = 1\nb = 3", &["[s] t.b: 2 -> 3"]),
            ("[s]\na = [1, 2, 3]", "[s]\na = [1, 9, 3]", &["[s] a[1]: 2 -> 9"]),
            ("[s]\na = [1, 2, 3]", "[s]\na = [1, 2, 9, 3]", &["+ [s] a[2] = 9"]),
            ("[s]\na = [1, 2, 3]", "[s]\na = [2, 3]", &["- [s] a[0] = 1"]),
            ("[s]\na = [1, 1]", "[s]\na = [1, 1, 1]", &["+ [s] a[2] = 1"]),
            ("[s]\na = [1, 2]", "[s]\na = []", &["- [s] a[0] = 1", "- [s] a[1] = 2"]),
            ("[s]\na = [1]", "[s]\na = 1", &["[s] a: [1] -> 1"]),
            (
                "[[s.r]]\nport = 1\n[[s.r]]\nport = 2",
                "[[s.r]]\nport = 1\n[[s.r]]\nport = 7\nlog = true",
                &["+ [s] r[1].log = true", "[s] r[1].port: 2 -> 7"],
            ),
            (
                "[[s.r]]\nport = 1\n[[s.r]]\nport = 2",
                "[[s.r]]\nport = 1\n[[s.r]]\nport = 5\n[[s.r]]\nport = 2",
                &["+ [s] r[1] = { port = 5 }"],
            ),
            (
                "[[s.r]]\nname = 'a'\nport = 1\n[[s.r]]\nname = 'b'\nport = 2",
                "[[s.r]]\nname = 'c'\n[[s.r]]\nname = 'b'\nport = 7",
                &[
                    "- [s] r.\"a\" = { name = \"a\", port = 1 }",
                    "+ [s] r.\"c\" = { name = \"c\" }",
                    "[s] r.\"b\".port: 2 -> 7",
                ],
            ),
            (
                "[[s.r]]\nname = 'a'\n[[s.r]]\nname = 'b'",
                "[[s.r]]\nname = 'b'\n[[s.r]]\nname = 'c'\n[[s.r]]\nname = 'a'",
                &["[s] r: in the order \"a\", \"b\" -> in the order \"b\", \"a\"", "+ [s] r.\"c\" = { name = \"c\" }"],
            ),
            (
                "[[s.r]]\nname = 'a'\n[[s.r.t]]\nname = 'x'\nw = 1",
                "[[s.r]]\nname = 'a'\n[[s.r.t]]\nname = 'x'\nw = 0",
                &["[s] r.\"a\".t.\"x\".w: 1 -> 0"],
            ),
            // Names that are not there, or not of one table, say nothing.
            (
                "[[s.r]]\nname = 'a'\n[[s.r]]\nport = 1",
                "[[s.r]]\nname = 'a'\n[[s.r]]\nport = 2",
                &["[s] r[1].port: 1 -> 2"],
            ),
            (
                "[[s.r]]\nname = 'a'\n[[s.r]]\nname = 'a'",
                "[[s.r]]\nname = 'a'\n[[s.r]]\nname = 'a'\nport = 2",
                &["+ [s] r[1].port = 2"],
            ),
        ] {
            assert_eq!(changes(old, new), expected, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn what_is_written_in_another_way_is_no_change() {
        for (old, new) in [
            ("a = 16", "# sixteen\na = 0x10"),
            ("a = 1_000", "a = 1000"),
            ("a = 1e3", "a = 1000.0"),
            ("a = nan", "a = nan"),
            ("a = 'x'", "a = \"\\u0078\""),
            ("a = 1\nb = 2", "b = 2\na = 1"),
            ("[s]\na.b = 1", "[s.a]\nb = 1"),
            ("[[s.a]]\nb = 1", "s = { a = [ { b = 1 } ] }"),
            ("a = 1979-05-27", "a = 1979-05-27"),
            ("a = 99999999999999999999999999999999999999999", "a = 99999999999999999999999999999999999999999"),
        ] {
            assert_eq!(changes(old, new), [""; 0], "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn many_changes_and_long_values_are_cut() {
        let numbers = |from: i32| (from..from + 25).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let of = |text: &str| table(&format!("[s]\na = [{text}]"));
        let changes = Changes::between(&of(&numbers(0)), &of(&numbers(100)));
        assert_eq!(changes.len(), 25);
        let lines: Vec<String> = changes.to_string().lines().map(str::to_owned).collect();
        assert_eq!((lines.len(), lines[0].as_str(), lines[20].as_str()), (21, "[s] a[0]: 0 -> 100", "and 5 more"));

        let long = "ä".repeat(200);
        let change = changes_of_one(&table("a = 1"), &table(&format!("a = '{long}'")));
        assert_eq!(change.to_string(), format!("a: 1 -> \"{} ...", "ä".repeat(79)));
        assert_eq!(change.new, Some(format!("\"{long}\"")));
    }

    fn changes_of_one(old: &Table, new: &Table) -> Change {
        let mut changes = Changes::between(old, new).0;
        assert_eq!(changes.len(), 1);
        changes.remove(0)
    }
}
