//! What functions can be asked and told: which one is meant, and lists of any length.

use super::arguments::{Filter, Topic as Words};
use super::output::Output;
use super::values::{self, Rows};
use super::{Failure, backends};
use crate::door::{Client, FunctionTopics, Page, Topic, path, query as query_string, say};
use serde_json::Value;
use std::collections::HashSet;

/// Items that are asked for at once: as many as the door gives.
const PIECE: u64 = 1000;

/// A list that comes in pieces.
pub(super) struct List {
    pub(super) path: String,
    pub(super) pairs: Vec<(String, String)>,
    /// Items that are wanted; all of them unless given.
    pub(super) limit: Option<u64>,
}

impl List {
    /// Shows it as it comes.
    pub(super) fn show(&self, client: &Client, what: &str, output: &mut Output) -> Result<(), Failure> {
        let (mut shown, mut cursor, mut rows) = (0_u64, None::<String>, Rows::default());
        let (mut is_first, mut cursors) = (true, HashSet::new());
        loop {
            let piece = self.limit.map_or(PIECE, |limit| PIECE.min(limit - shown)).to_string();
            let given = self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let paging =
                [("limit", piece.as_str())].into_iter().chain(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page: Page = client.read(&format!("{}{}", self.path, query_string(given.chain(paging))))?;
            if output.json {
                // Not before there is something: a refusal is no part of a document.
                output.bytes(if is_first { b"{\"items\":[" } else { b"" })?;
                for item in &page.items {
                    output.bytes(if shown == 0 { b"" } else { b"," })?;
                    output.bytes(item.get().as_bytes())?;
                    shown += 1;
                }
            } else {
                let items: Vec<Value> =
                    page.items.iter().map(|item| client.parse(item.get())).collect::<Result<_, _>>()?;
                shown += items.len() as u64;
                rows.show(
                    if what == "backends" { items.into_iter().map(backends::row).collect() } else { items },
                    output,
                )?;
            }
            (cursor, is_first) = (page.next, false);
            if let Some(again) = cursor.as_ref().filter(|cursor| !cursors.insert((*cursor).clone())) {
                return Err(client
                    .not_a_door(format!("its list has no end: it goes on at {again:?} a second time"))
                    .into());
            }
            if cursor.is_none() || self.limit.is_some_and(|limit| shown >= limit) {
                break;
            }
        }
        if output.json {
            return Ok(output.bytes(format!("],\"next\":{}}}\n", Value::from(cursor)).as_bytes())?);
        }
        rows.end(output)?;
        if shown == 0 && cursor.is_none() {
            output.line(&format!("no {what}"))?;
        }
        if cursor.is_some() {
            output.flush()?;
            say(&format!("there are more than these {shown} {what}"));
        }
        Ok(())
    }
}

/// Asks the function that has a list of this name.
pub(super) fn list(
    topic: &str,
    filter: &Filter,
    client: &Client,
    limit: Option<u64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let (name, pairs) = filter.split().map_err(Failure::Words)?;
    let (function, topic) = only(client, topic, name, (topic, topic))?;
    show(&function, &topic, pairs, client, limit, output)
}

/// Asks any function anything.
pub(super) fn query(words: &Words, client: &Client, limit: Option<u64>, output: &mut Output) -> Result<(), Failure> {
    let (function, topic) = only(client, &words.topic, Some(&words.function), (&words.topic, "query"))?;
    if topic.kind == "order" {
        let (function, topic) = (&words.function, &words.topic);
        return Err(Failure::Words(format!("{topic} is an order: nf-ctl order {function} {topic}")));
    }
    show(&function, &topic, words.pairs.clone(), client, limit, output)
}

fn show(
    function: &str,
    topic: &Topic,
    pairs: Vec<(String, String)>,
    client: &Client,
    limit: Option<u64>,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = path(&["v1", "functions", function, &topic.name]);
    if topic.kind == "list" {
        return List { path, pairs, limit }.show(client, &topic.name, output);
    }
    let query = query_string(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let text = client.text(&format!("{path}{query}"))?;
    if output.json {
        return output.document(client, &text);
    }
    Ok(values::show(&client.parse(&text)?, output)?)
}

/// The function that has a topic: the one that is named, or the only one. For people the topic has a name of their own,
/// `what`, and `command` is what stands before the name of the function when one asks for it.
pub(super) fn only(
    client: &Client,
    topic: &str,
    name: Option<&str>,
    (what, command): (&str, &str),
) -> Result<(String, Topic), Failure> {
    let functions: Vec<FunctionTopics> = client.read("/v1/functions")?;
    let names =
        |all: &mut dyn Iterator<Item = &FunctionTopics>| all.map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
    let with = |function: &FunctionTopics| function.topics.iter().find(|had| had.name == topic).cloned();
    if let Some(name) = name {
        let Some(function) = functions.iter().find(|function| function.name == name) else {
            let there = names(&mut functions.iter());
            let there = if there.is_empty() { "no functions".to_owned() } else { there };
            return Err(Failure::Nothing(format!("the program has no function {name:?}; it has {there}")));
        };
        let found = with(function).map(|topic| (name.to_owned(), topic));
        return found.ok_or_else(|| {
            let topics: Vec<&str> = function.topics.iter().map(|topic| topic.name.as_str()).collect();
            let there = if topics.is_empty() {
                "nothing can be asked of it".to_owned()
            } else {
                format!("there are {}", topics.join(", "))
            };
            Failure::Nothing(format!("{name} has no topic {topic:?}; {there}"))
        });
    }
    let mut having = functions.iter().filter_map(|function| Some((function.name.clone(), with(function)?)));
    let Some(first) = having.next() else {
        let sentence = format!("no function of this program has {what} (nf-ctl functions lists what they have)");
        return Err(Failure::Nothing(sentence));
    };
    if having.next().is_some() {
        let several = names(&mut functions.iter().filter(|function| with(function).is_some()));
        let sentence = format!("several functions have {what}: {several}; say which: nf-ctl {command} {}", first.0);
        return Err(Failure::Words(sentence));
    }
    Ok(first)
}
