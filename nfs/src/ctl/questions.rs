//! What is only looked at.

use super::arguments::Question;
use super::output::Output;
use super::topics::{self, List};
use super::{Failure, tables};
use crate::door::{Client, FunctionTopics, Port, Program, Stats, Worker, path, query};
use serde::Deserialize;
use serde_json::value::RawValue;

pub(super) fn ask(question: &Question, client: Client, limit: Option<u64>, output: &mut Output) -> Result<(), Failure> {
    let router = |what: &str| List { path: path(&["v1", what]), pairs: Vec::new(), limit };
    match question {
        Question::Program => whole::<Program>("program", &client, output, tables::program),
        Question::Stats => whole::<Stats>("stats", &client, output, tables::stats),
        Question::Ports => whole("ports", &client, output, |ports: &Vec<Port>, output| tables::ports(ports, output)),
        Question::Workers => {
            whole("workers", &client, output, |workers: &Vec<Worker>, output| output.table(tables::workers(workers)))
        }
        Question::Chain { workers } => {
            let by = query(workers.then_some(("by", "worker")));
            whole(&format!("chain{by}"), &client, output, |chain: &Vec<_>, output| tables::chain(chain, output))
        }
        Question::Drops => drops(&client, output),
        Question::Functions => {
            whole("functions", &client, output, |all: &Vec<FunctionTopics>, output| tables::functions(all, output))
        }
        Question::Neighbours => router("neighbours").show(&client, "neighbours", output),
        Question::Routes => router("routes").show(&client, "routes", output),
        Question::Interfaces => {
            whole("interfaces", &client, output, |value: &serde_json::Value, output| super::values::show(value, output))
        }
        Question::Sessions(filter) => topics::list("sessions", filter, &client, limit, output),
        Question::Connections(filter) => topics::list("connections", filter, &client, limit, output),
        Question::Backends(filter) => topics::list("backends", filter, &client, limit, output),
        Question::Services(filter) => topics::list("services", filter, &client, limit, output),
        Question::Rules(filter) => topics::list("rules", filter, &client, limit, output),
        Question::Query(topic) => topics::query(topic, &client, limit, output),
    }
}

/// An answer that comes in one piece.
fn whole<T: serde::de::DeserializeOwned>(
    what: &str,
    client: &Client,
    output: &mut Output,
    show: impl FnOnce(&T, &mut Output) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let text = client.text(&format!("/v1/{what}"))?;
    if output.json {
        return output.document(client, &text);
    }
    Ok(show(&client.parse(&text)?, output)?)
}

/// A part of `/v1/stats`, which has no address of its own.
fn drops(client: &Client, output: &mut Output) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        drops: &'a RawValue,
    }
    let text = client.text("/v1/stats")?;
    let part: Part<'_> =
        serde_json::from_str(&text).map_err(|_| Failure::Nothing("the program counts no drops".to_owned()))?;
    if output.json {
        return output.document(client, part.drops.get());
    }
    let drops: Vec<crate::door::Drop> = client.parse(part.drops.get())?;
    if drops.is_empty() {
        return Ok(output.line("nothing was dropped")?);
    }
    Ok(output.table(tables::drops(&drops))?)
}
