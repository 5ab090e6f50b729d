//! The same facts as at the door, as commands of DPDK's telemetry: what may be looked at there, and no orders.
//!
//! DPDK asks on threads of its own. They hand the question to control by the same short queue as the door, and wait.

use super::reply::Reply;
use super::request::{Desk, Refused, Request};
use super::routes::{Raw, route};
use dpdk_rs::{Eal, TelemetryValue};
use serde_json::{Map, Value};
use std::time::Duration;

/// How long a command waits for control: less than people wait at a prompt.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command: its name, its help (63 bytes at most), the address of the door that it stands for, and what of the
/// answer is left out, as another command shows it.
struct Command(&'static str, &'static str, &'static str, &'static [&'static str]);

const COMMANDS: [Command; 11] = [
    Command("/nf/program", "What runs, since when, whether ready. No parameters", "program", &[]),
    Command(
        "/nf/stats",
        "Counters, gauges, drops, the balance. No parameters",
        "stats",
        &["ports", "functions", "workers", "tables"],
    ),
    Command("/nf/ports", "Counters and links of ports. No parameters", "ports", &[]),
    Command("/nf/workers", "Packets, rounds and idle share of workers. No parameters", "workers", &[]),
    Command("/nf/chain", "Calls, packets, cycles by function. Parameters: by=worker", "chain", &[]),
    Command("/nf/drops", "Drops that occurred, by reason. No parameters", "stats", &[]),
    Command("/nf/interfaces", "A router's interfaces. No parameters", "interfaces", &[]),
    Command("/nf/neighbours", "A router's neighbours. Parameters: limit=N&cursor=C", "neighbours", &[]),
    Command("/nf/routes", "A router's routes. Parameters: limit=N&cursor=C", "routes", &[]),
    Command("/nf/functions", "What functions can be asked for. No parameters", "functions", &[]),
    Command("/nf/topic", "A function's list or state. Parameters: FUNCTION/TOPIC?FILTER", "functions", &[]),
];

/// Registers the commands, or has those of a program before this one go to this one's control.
pub(crate) fn offer(eal: &Eal, desk: &Desk) {
    for command in &COMMANDS {
        let desk = desk.clone();
        if let Err(error) = eal.telemetry(command.0, command.1, move |parameters| command.answer(&desk, parameters)) {
            log::warn!("{error}");
        }
    }
}

impl Command {
    fn answer(&self, desk: &Desk, parameters: &str) -> TelemetryValue {
        match self.request(parameters).and_then(|request| ask(desk, request)) {
            Ok(reply) => match serde_json::from_slice(&reply.body) {
                Ok(value) if reply.status == 200 => self.told(value),
                Ok(Value::Object(failure)) => {
                    TelemetryValue::Text(failure.get("error").and_then(Value::as_str).unwrap_or_default().to_owned())
                }
                _ => TelemetryValue::Text("the answer is none that can be shown here".to_owned()),
            },
            Err(sentence) => TelemetryValue::Text(sentence),
        }
    }

    /// The request at the door that it stands for.
    fn request(&self, parameters: &str) -> Result<Request, String> {
        let Self(name, _, address, _) = self;
        let (topic, query) = match *name {
            "/nf/topic" => parameters.split_once('?').unwrap_or((parameters, "")),
            _ => ("", parameters),
        };
        let path = if topic.is_empty() { format!("/v1/{address}") } else { format!("/v1/{address}/{topic}") };
        route(&Raw { method: "GET", path: &path, query, body: &[], form: false }).map_err(|reply| sentence(&reply))
    }

    fn told(&self, mut value: Value) -> TelemetryValue {
        if let Value::Object(entries) = &mut value {
            self.3.iter().for_each(|key| drop(entries.remove(*key)));
        }
        match (self.0, value) {
            ("/nf/drops", Value::Object(mut stats)) => dictionary(stats.remove("drops").unwrap_or_default()),
            (_, value) => dictionary(value),
        }
    }
}

/// Has control answer, and puts its answer into words.
fn ask(desk: &Desk, request: Request) -> Result<Reply, String> {
    match desk.ask_and_wait(request, PATIENCE) {
        Ok(Some(answer)) => Ok(answer()),
        Ok(None) => Err(format!("control has not answered for {} s (try again)", PATIENCE.as_secs())),
        Err(Refused::Busy) => Err("control is busy: as many requests wait as may (try again)".to_owned()),
        Err(Refused::Stopping) => Err("no program runs, or it is stopping".to_owned()),
    }
}

/// What a refusal says.
fn sentence(reply: &Reply) -> String {
    let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    value.get("error").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The same value in telemetry's terms, which have no lists of objects, no fractions and no null. `None` is what is
/// not there.
fn told(value: Value) -> Option<TelemetryValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(is) => TelemetryValue::Unsigned(is.into()),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), ..) => TelemetryValue::Unsigned(number),
            (_, Some(number), _) => TelemetryValue::Signed(number),
            (.., fraction) => TelemetryValue::Text(format!("{:.3}", fraction.unwrap_or_default())),
        },
        Value::String(text) => TelemetryValue::Text(text),
        Value::Array(items) if items.iter().all(Value::is_string) && !items.is_empty() => {
            TelemetryValue::Texts(items.into_iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
        }
        list_or_object => dictionary(list_or_object),
    })
}

/// A dictionary of an object's entries, or of a list's items by their names.
fn dictionary(value: Value) -> TelemetryValue {
    let entries: Vec<(String, Value)> = match value {
        Value::Object(entries) => entries.into_iter().collect(),
        Value::Array(items) => items.into_iter().enumerate().map(|(position, item)| named(position, item)).collect(),
        other => vec![("value".to_owned(), other)],
    };
    let told = entries.into_iter().filter_map(|(name, value)| Some((name, told(value)?)));
    let (plain, containers): (Vec<_>, Vec<_>) = told.partition(|(_, value)| {
        matches!(value, TelemetryValue::Unsigned(_) | TelemetryValue::Signed(_) | TelemetryValue::Text(_))
    });
    // What is short comes first: what is left out is of the long, and the cursor of a page is there.
    TelemetryValue::Dictionary(plain.into_iter().chain(containers).collect())
}

/// An item of a list by its name: counters and drops as no more than their number, others by their position if they
/// have no name.
fn named(position: usize, item: Value) -> (String, Value) {
    let text = |object: &Map<String, Value>, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    if let Value::Object(object) = &item {
        let (name, function, reason) = (text(object, "name"), text(object, "function"), text(object, "reason"));
        match (&name, &function, object.get("value")) {
            (Some(name), Some(function), Some(value)) => return (format!("{function}/{name}"), value.clone()),
            (Some(name), ..) => return (name.clone(), item),
            _ => {}
        }
        if let (Some(reason), Some(count)) = (reason, object.get("count")) {
            return (reason, count.clone());
        }
    }
    (position.to_string(), item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::{Asked, Inbox, Program};
    use serde_json::json;
    use std::time::Instant;

    fn command(name: &str) -> &'static Command {
        COMMANDS.iter().find(|command| command.0 == name).unwrap()
    }

    fn program() -> Program {
        Program { name: "test".to_owned(), version: "1".to_owned(), config: None }
    }

    #[test]
    fn a_command_stands_for_an_address_of_the_door_and_takes_its_parameters() {
        for (name, parameters, expected) in [
            ("/nf/program", "", "Ok(Program)"),
            ("/nf/chain", "by=worker", "Ok(Chain { by_worker: true })"),
            ("/nf/drops", "", "Ok(Stats)"),
            ("/nf/routes", "limit=7&cursor=3", "Ok(Routes(Page { limit: 7, cursor: Some(\"3\") }))"),
            ("/nf/functions", "", "Ok(Functions)"),
            ("/nf/topic", "", "Ok(Functions)"),
            ("/nf/program", "x=1", "Err(\"unknown field `x`, there are no fields\")"),
            ("/nf/routes", "limit=0", "Err(\"limit: 0 is not from 1 to 1000\")"),
        ] {
            assert_eq!(format!("{:?}", command(name).request(parameters)), expected, "{name},{parameters}");
        }
        let request = format!("{:?}", command("/nf/topic").request("nat/sessions?protocol=tcp&limit=20"));
        assert!(
            request.contains("function: \"nat\", topic: \"sessions\"") && request.contains("limit: 20"),
            "{request}"
        );
        assert!(command("/nf/topic").request("nat/../reload").is_err());
    }

    #[test]
    fn values_are_shown_in_telemetrys_terms() {
        use TelemetryValue::{Dictionary, Signed, Text, Texts, Unsigned};
        let value = json!({
            "a_list": [{"name": "one", "x": 1}, {"y": 2}],
            "counters": [{"function": "f", "name": "hits", "value": 3}],
            "drops": [{"reason": "policy", "help": "why", "count": 4}],
            "names": ["p", "q"],
            "nothing": null,
            "number": -5,
            "share": 0.25,
            "up": true,
        });
        let entry = |name: &str, value: TelemetryValue| (name.to_owned(), value);
        assert_eq!(
            dictionary(value),
            Dictionary(vec![
                entry("number", Signed(-5)),
                entry("share", Text("0.250".to_owned())),
                entry("up", Unsigned(1)),
                entry(
                    "a_list",
                    Dictionary(vec![
                        entry("one", Dictionary(vec![entry("name", Text("one".to_owned())), entry("x", Unsigned(1))])),
                        entry("1", Dictionary(vec![entry("y", Unsigned(2))])),
                    ])
                ),
                entry("counters", Dictionary(vec![entry("f/hits", Unsigned(3))])),
                entry("drops", Dictionary(vec![entry("policy", Unsigned(4))])),
                entry("names", Texts(vec!["p".to_owned(), "q".to_owned()])),
            ])
        );
    }

    #[test]
    fn who_cannot_be_answered_is_told_so() {
        let (inbox, desk, _closing) = Inbox::new(program());
        assert!(matches!(desk.ask_and_wait(Request::Program, Duration::ZERO), Ok(None)), "nobody takes requests");
        // The one before is in the queue still, and not wanted any more.
        while let Ok(answer) = desk.ask(Request::Program) {
            drop(answer);
        }
        let told = command("/nf/program").answer(&desk, "");
        assert!(matches!(&told, TelemetryValue::Text(text) if text.starts_with("control is busy")), "{told:?}");
        assert!(!inbox.next(Instant::now()).unwrap().is_wanted());
        drop(inbox);
        let told = command("/nf/program").answer(&desk, "");
        assert!(matches!(&told, TelemetryValue::Text(text) if text.starts_with("no program runs")), "{told:?}");
    }

    #[test]
    fn an_answer_of_control_wakes_who_waits_for_it() {
        let (inbox, desk, _closing) = Inbox::new(program());
        let control = std::thread::spawn(move || {
            let asked: Asked = inbox.next(Instant::now() + Duration::from_secs(60)).unwrap();
            asked.answer(Box::new(|| Reply::json(&json!({"name": "test"}))));
        });
        let told = command("/nf/program").answer(&desk, "");
        assert_eq!(
            told,
            TelemetryValue::Dictionary(vec![("name".to_owned(), TelemetryValue::Text("test".to_owned()))])
        );
        control.join().unwrap();
    }
}
