//! JSON whose shape only a function knows, as tables.

use super::output::Output;
use crate::door::printable;
use nf_framework::Table;
use serde_json::{Map, Value};
use std::io;

/// Any value: what stands alone as lines, lists of objects as tables beneath.
pub(super) fn show(value: &Value, output: &mut Output) -> io::Result<()> {
    match value {
        Value::Object(object) => show_object(object, output),
        Value::Array(items) => show_list(items, output),
        alone => output.line(&cell(alone)),
    }
}

fn show_object(object: &Map<String, Value>, output: &mut Output) -> io::Result<()> {
    let (tables, alone): (Vec<_>, Vec<_>) = flat("", object).into_iter().partition(|(_, value)| is_table(value));
    let width = alone.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
    for (name, value) in &alone {
        output.line(&format!("{name:<width$}{}", cell(value)))?;
    }
    for (name, value) in tables {
        output.gap()?;
        output.line(&format!("{name}:"))?;
        show_list(value.as_array().map_or(&[], Vec::as_slice), output)?;
    }
    Ok(())
}

/// A table of the items, and beneath it one for each list of objects that they have, with what tells the items apart.
fn show_list(items: &[Value], output: &mut Output) -> io::Result<()> {
    let mut inner: Vec<(String, Vec<Value>)> = Vec::new();
    let mut outer = Vec::new();
    for item in items {
        let Value::Object(object) = item else {
            outer.push(item.clone());
            continue;
        };
        let (lists, alone): (Vec<_>, Vec<_>) = object.iter().partition(|(_, value)| is_table(value));
        for (name, list) in lists {
            let of = alone.first().copied();
            let rows = list.as_array().into_iter().flatten().map(|row| below(of, row));
            match inner.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.extend(rows),
                None => inner.push((name.clone(), rows.collect())),
            }
        }
        outer.push(alone.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect());
    }
    let mut rows = Rows::default();
    rows.show(outer, output)?;
    rows.end(output)?;
    for (name, items) in &inner {
        output.gap()?;
        output.line(&format!("{name}:"))?;
        show_list(items, output)?;
    }
    Ok(())
}

/// An item of a list in an item, with the field that says in which.
fn below(of: Option<(&String, &Value)>, item: &Value) -> Value {
    match item {
        Value::Object(fields) => {
            let of = of.into_iter().filter(|(name, _)| !fields.contains_key(*name));
            of.chain(fields).map(|(name, value)| (name.clone(), value.clone())).collect()
        }
        other => other.clone(),
    }
}

/// Items of a list, which come a piece at a time: the first rows say which columns there are, and how wide.
#[derive(Debug, Default)]
pub(super) struct Rows {
    columns: Vec<String>,
    table: Option<Table>,
    /// Those that are not shown yet: pieces may be small.
    waiting: Vec<Value>,
}

/// Rows that are shown at once.
const TOGETHER: usize = 1000;

impl Rows {
    /// Shows some more, as soon as there are enough.
    pub(super) fn show(&mut self, items: Vec<Value>, output: &mut Output) -> io::Result<()> {
        self.waiting.extend(items);
        if self.waiting.len() < TOGETHER { Ok(()) } else { self.end(output) }
    }

    /// Shows what is left.
    pub(super) fn end(&mut self, output: &mut Output) -> io::Result<()> {
        let items = std::mem::take(&mut self.waiting);
        if items.is_empty() {
            return Ok(());
        }
        let is_first = self.table.is_none();
        let rows: Vec<Vec<(String, &Value)>> = items.iter().map(fields).collect();
        if is_first {
            for (name, _) in rows.iter().flatten() {
                if !self.columns.contains(name) {
                    self.columns.push(name.clone());
                }
            }
        }
        let heads: Vec<String> = self.columns.iter().map(|name| name.replace('_', " ")).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let table = self.table.get_or_insert_with(|| Table::new(&heads));
        for row in rows {
            let of =
                |column: &String| row.iter().find(|(name, _)| name == column).map_or("-".to_owned(), |(_, v)| cell(v));
            table.row(self.columns.iter().map(of));
        }
        output.rows(table, is_first)
    }
}

/// The fields of an item, those of objects within by both names.
fn fields(item: &Value) -> Vec<(String, &Value)> {
    match item {
        Value::Object(object) => flat("", object),
        other => vec![(String::new(), other)],
    }
}

fn flat<'a>(prefix: &str, object: &'a Map<String, Value>) -> Vec<(String, &'a Value)> {
    let one = |(name, value): (&String, &'a Value)| {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(inner) if !inner.is_empty() => flat(&format!("{name}."), inner),
            other => vec![(name, other)],
        }
    };
    object.iter().flat_map(one).collect()
}

fn is_table(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().any(Value::is_object))
}

/// A value in one place: of several objects their names, or their fields if they have none.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(object) => match object.get("name") {
            Some(name) => cell(name),
            None => object.iter().map(|(name, value)| format!("{name}={}", cell(value))).collect::<Vec<_>>().join(" "),
        },
    }
}
