//! What a program is told to do.

use super::arguments::{BackendState, Order};
use super::output::Output;
use super::{Failure, topics, traces, values};
use crate::door::{Client, Traces, path, say};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a reload of large tables may take, beyond what any answer may.
const TO_RELOAD: Duration = Duration::from_secs(600);

pub(super) fn give(order: &Order, client: Client, output: &mut Output) -> Result<(), Failure> {
    match order {
        Order::Tell(words) => {
            let (function, topic) =
                topics::only(&client, &words.topic, Some(&words.function), (&words.topic, "order"))?;
            if topic.kind != "order" {
                let (function, topic) = (&words.function, &words.topic);
                return Err(Failure::Words(format!("{topic} is no order: nf-ctl query {function} {topic}")));
            }
            tell(&client, &function, &topic.name, &words.pairs, output)
        }
        Order::Clear(filter) => {
            let (name, pairs) = filter.split().map_err(Failure::Words)?;
            let (function, topic) = topics::only(&client, "clear", name, ("something to clear", "clear"))?;
            tell(&client, &function, &topic.name, &pairs, output)
        }
        Order::Backend { backend: (service, backend), state, function } => {
            let what = ("backends", "backend .. --function");
            let (function, topic) = topics::only(&client, "order", function.as_deref(), what)?;
            let state = match state {
                BackendState::Serve => "serve",
                BackendState::Drain => "drain",
                BackendState::Down => "down",
            };
            let pairs = [("service", service.as_str()), ("backend", backend), ("order", state)];
            let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            tell(&client, &function, &topic.name, &pairs, output)
        }
        Order::Reload => reload(&client.patient(TO_RELOAD), output),
        Order::Drain { seconds } => {
            let arguments = seconds.map_or_else(|| json!({}), |seconds| json!({ "seconds": seconds }));
            done(&client, client.order("/v1/drain", &arguments)?, "draining", output)
        }
        Order::Trace { count, filter, seconds } => {
            let client = client.patient(Duration::from_secs(*seconds));
            // Nothing is answered before it is over. Whether anybody reads it changes nothing.
            say(&awaited(*count, filter.as_deref(), *seconds));
            let mut arguments = json!({ "count": count, "seconds": seconds });
            if let Some(filter) = filter {
                arguments["filter"] = json!(filter);
            }
            let answer = client.order("/v1/trace", &arguments)?;
            let traces: Traces = client.parse(&answer)?;
            if output.json {
                output.document(&client, &answer)?;
            } else {
                traces::show(&traces, output)?;
            }
            match traces.packets.is_empty() {
                true => Err(Failure::Nothing(format!("within {seconds} s no packet came that was meant"))),
                false => Ok(()),
            }
        }
        Order::DropsTo { end: true, .. } => {
            done(&client, client.delete("/v1/drops")?, "no more drops are written", output)
        }
        Order::DropsTo { file, reasons, per_second, .. } => {
            // The program stands in another directory.
            let file = file.as_deref().map(std::path::absolute).transpose()?.unwrap_or_default();
            let mut arguments = json!({ "file": file });
            if !reasons.is_empty() {
                arguments["reasons"] = json!(reasons);
            }
            if let Some(per_second) = per_second {
                arguments["per_second"] = json!(per_second);
            }
            let answer = client.order("/v1/drops", &arguments)?;
            // Nothing is counted yet.
            if output.json {
                return Ok(output.line(answer.trim_end())?);
            }
            Ok(output.line(&format!("writing to {}", file.display()))?)
        }
    }
}

/// What a trace waits for.
fn awaited(count: u64, filter: Option<&str>, seconds: u64) -> String {
    let packets = if count == 1 { "the next packet".to_owned() } else { format!("the next {count} packets") };
    let meant = filter.map_or_else(String::new, |filter| format!(" of {filter:?}"));
    format!("waiting up to {seconds} s for {packets}{meant}")
}

fn tell(
    client: &Client,
    function: &str,
    topic: &str,
    pairs: &[(String, String)],
    output: &mut Output,
) -> Result<(), Failure> {
    let answer = client.order_by_form(&path(&["v1", "functions", function, topic]), pairs)?;
    done(client, answer, "done", output)
}

/// Shows what an order has done; a sentence of ours, if it says nothing.
fn done(client: &Client, answer: String, otherwise: &str, output: &mut Output) -> Result<(), Failure> {
    if output.json {
        return output.document(client, &answer);
    }
    if answer.trim().is_empty() {
        return Ok(output.line(otherwise)?);
    }
    let value: Value = client.parse(&answer)?;
    let says_nothing = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if says_nothing {
        output.line(otherwise)?;
    } else {
        values::show(&value, output)?;
    }
    Ok(())
}

/// The differences and warnings a line each, as the program's log has them.
fn reload(client: &Client, output: &mut Output) -> Result<(), Failure> {
    #[derive(serde::Deserialize)]
    struct Reloaded {
        generation: u64,
        changes: Vec<String>,
        /// Older programs say none.
        #[serde(default)]
        warnings: Vec<String>,
    }
    let answer = client.order("/v1/reload", &json!({}))?;
    if output.json {
        return output.document(client, &answer);
    }
    let Reloaded { generation, changes, warnings } = client.parse(&answer)?;
    for change in &changes {
        output.line(change)?;
    }
    for warning in &warnings {
        output.line(&format!("warning: {warning}"))?;
    }
    let nothing = if changes.is_empty() { "nothing has changed; " } else { "" };
    Ok(output.line(&format!("{nothing}generation {generation}"))?)
}
