//! Which address of the door asks for what.

use super::arguments::{Arguments, expect_each_once, from_form};
use super::reply::Reply;
use super::request::{Page, Request};
use crate::trace::{DropsRequest, TraceRequest};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Empty where none is taken.
    pub(crate) body: &'a [u8],
    /// Whether the body is a form and not JSON.
    pub(crate) form: bool,
}

/// What is known at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Method {
    /// Something to look at.
    Get,
    /// Something to do.
    Post,
    /// Something to begin, and by DELETE to end.
    Begin,
}

/// Whether a request wants something done: then it needs the right to, and has a body.
pub(crate) fn is_order(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD")
}

/// What a request asks for. An order may take a while to be understood: a name server is asked for names in a filter.
pub(crate) fn route(raw: &Raw<'_>) -> Result<Request, Reply> {
    let path = decode(raw.path)?;
    if is_order(raw.method) && !raw.query.is_empty() {
        // What stands there is not left out: it may have said what alone is to be ended.
        return Err(Reply::bad("an order has its parameters in the body, and none in the address"));
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let get = |request: Request| expect(raw, Method::Get).and_then(|()| no_parameters(raw)).map(|()| request);
    match segments.as_slice() {
        ["metrics"] => get(Request::Metrics),
        ["readyz"] => get(Request::Ready),
        ["v1", "program"] => get(Request::Program),
        ["v1", "stats"] => get(Request::Stats),
        ["v1", "ports"] => get(Request::Ports),
        ["v1", "workers"] => get(Request::Workers),
        ["v1", "interfaces"] => get(Request::Interfaces),
        ["v1", "functions"] => get(Request::Functions),
        ["v1", "chain"] => {
            expect(raw, Method::Get)?;
            let ChainParameters { by } = parameters(raw)?;
            Ok(Request::Chain { by_worker: by == Some(By::Worker) })
        }
        ["v1", "neighbours"] => expect(raw, Method::Get).and_then(|()| page(raw)).map(Request::Neighbours),
        ["v1", "routes"] => expect(raw, Method::Get).and_then(|()| page(raw)).map(Request::Routes),
        ["v1", "functions", function, topic] => {
            let (function, topic) = ((*function).to_owned(), (*topic).to_owned());
            if is_order(raw.method) {
                expect(raw, Method::Post)?;
                return Ok(Request::Topic {
                    function,
                    topic,
                    arguments: Arguments::of_body(raw.body, raw.form),
                    page: None,
                });
            }
            let (arguments, page) = topic_parameters(raw)?;
            Ok(Request::Topic { function, topic, arguments, page: Some(page) })
        }
        ["v1", "reload"] => {
            expect(raw, Method::Post)?;
            let Nothing {} = arguments(raw)?;
            Ok(Request::Reload)
        }
        ["v1", "drain"] => {
            expect(raw, Method::Post)?;
            let DrainArguments { seconds } = arguments(raw)?;
            Ok(Request::Drain { seconds })
        }
        ["v1", "trace"] => {
            expect(raw, Method::Post)?;
            let wanted: TraceRequest = arguments(raw)?;
            wanted.prepare().map(Request::Trace).map_err(|error| Reply::bad(error.to_string()))
        }
        ["v1", "drops"] if raw.method == "DELETE" => Ok(Request::EndDrops),
        ["v1", "drops"] => {
            expect(raw, Method::Begin)?;
            let wanted: DropsRequest = arguments(raw)?;
            // Where the program was started its clients do not know.
            let message = || Reply::bad(format!("file: {} is not an absolute path", wanted.file.display()));
            if wanted.file.is_absolute() { Ok(Request::BeginDrops(wanted)) } else { Err(message()) }
        }
        _ => Err(Reply::not_found("there is nothing at this address (docs/admin.md has all addresses)")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainParameters {
    by: Option<By>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum By {
    Worker,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainArguments {
    seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageParameters {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Refuses other methods than the one that an address has.
fn expect(raw: &Raw<'_>, method: Method) -> Result<(), Reply> {
    let (fits, allow) = match method {
        Method::Get => (!is_order(raw.method), "GET, HEAD"),
        Method::Post => (raw.method == "POST", "POST"),
        Method::Begin => (raw.method == "POST", "POST, DELETE"),
    };
    if fits { Ok(()) } else { Err(Reply::wrong_method(allow)) }
}

fn no_parameters(raw: &Raw<'_>) -> Result<(), Reply> {
    parameters(raw).map(|Nothing {}| ())
}

fn page(raw: &Raw<'_>) -> Result<Page, Reply> {
    let PageParameters { limit, cursor } = parameters(raw)?;
    new_page(limit, cursor)
}

fn new_page(limit: Option<usize>, cursor: Option<String>) -> Result<Page, Reply> {
    let limit = limit.unwrap_or(Page::USUAL);
    if !(1..=Page::MOST).contains(&limit) {
        return Err(Reply::bad(format!("limit: {limit} is not from 1 to {}", Page::MOST)));
    }
    Ok(Page { limit, cursor: cursor.filter(|cursor| !cursor.is_empty()) })
}

/// What stands behind the question mark.
fn parameters<T: DeserializeOwned>(raw: &Raw<'_>) -> Result<T, Reply> {
    from_form(raw.query.as_bytes())
}

/// What stands in the body.
fn arguments<T: DeserializeOwned>(raw: &Raw<'_>) -> Result<T, Reply> {
    Arguments::of_body(raw.body, raw.form).parse()
}

/// The parameters of a URL, but for those that say which part of a list is wanted.
fn topic_parameters(raw: &Raw<'_>) -> Result<(Arguments, Page), Reply> {
    expect_each_once(raw.query.as_bytes())?;
    let (mut others, mut limit, mut cursor) = (form_urlencoded::Serializer::new(String::new()), None, None);
    for (key, value) in form_urlencoded::parse(raw.query.as_bytes()) {
        match key.as_ref() {
            "limit" => {
                let no_number = |_| Reply::bad(format!("limit: {value:?} is no number"));
                limit = Some(value.parse().map_err(no_number)?);
            }
            "cursor" => cursor = Some(value.into_owned()),
            _ => drop(others.append_pair(&key, &value)),
        }
    }
    Ok((Arguments::Form(others.finish().into_bytes()), new_page(limit, cursor)?))
}

/// A path without its percent signs.
fn decode(path: &str) -> Result<String, Reply> {
    let no_path = || Reply::bad("the path is not UTF-8 text in percent-encoding");
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or_else(no_path)?, digit().ok_or_else(no_path)?);
        bytes.push(u8::try_from(high << 4 | low).map_err(|_| no_path())?);
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains('\0')).ok_or_else(no_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, target: &str, body: &str) -> Result<String, (u16, String)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let raw = Raw { method, path, query, body: body.as_bytes(), form: !body.trim_start().starts_with(['{', '[']) };
        let failed = |reply: Reply| (reply.status, String::from_utf8(reply.body).unwrap());
        route(&raw).map(|request| format!("{request:?}")).map_err(failed)
    }

    #[test]
    fn an_address_says_what_is_asked() {
        for (method, target, body, expected) in [
            ("GET", "/metrics", "", "Metrics"),
            ("HEAD", "/readyz", "", "Ready"),
            ("GET", "/v1/chain", "", "Chain { by_worker: false }"),
            ("GET", "/v1/chain?by=worker", "", "Chain { by_worker: true }"),
            ("GET", "/v1/%73tats", "", "Stats"),
            ("GET", "/v1/routes", "", "Routes(Page { limit: 100, cursor: None })"),
            ("GET", "/v1/routes?limit=7&cursor=a%2Fb+c", "", "Routes(Page { limit: 7, cursor: Some(\"a/b c\") })"),
            ("POST", "/v1/reload", "", "Reload"),
            ("POST", "/v1/reload", " {} ", "Reload"),
            ("POST", "/v1/drain", "", "Drain { seconds: None }"),
            ("POST", "/v1/drain", "{\"seconds\": 30}", "Drain { seconds: Some(30) }"),
            ("POST", "/v1/drain", "seconds=30", "Drain { seconds: Some(30) }"),
        ] {
            assert_eq!(ask(method, target, body).as_deref(), Ok(expected), "{method} {target} {body}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_so() {
        for (method, target, body, status, part) in [
            ("GET", "/", "", 404, "there is nothing at this address"),
            ("GET", "/v1/stats/", "", 404, "nothing"),
            ("GET", "/v1%2Fstats%00", "", 400, "percent-encoding"),
            ("GET", "/v1/%ff", "", 400, "percent-encoding"),
            ("GET", "/v1/%4", "", 400, "percent-encoding"),
            ("GET", "/v1/stats?x=1", "", 400, "unknown field `x`"),
            ("GET", "/v1/routes?limit=0", "", 400, "limit: 0 is not from 1 to 1000"),
            ("GET", "/v1/routes?limit=1001", "", 400, "limit: 1001 is not from 1 to 1000"),
            ("GET", "/v1/routes?limit=many", "", 400, "limit: invalid digit"),
            ("GET", "/v1/routes?limit=5&limit=6", "", 400, "limit: is given more than once"),
            ("GET", "/v1/functions/nat/sessions?limit=5&limit=6", "", 400, "limit: is given more than once"),
            ("GET", "/v1/functions/nat/sessions?cursor=a&%63ursor=a", "", 400, "cursor: is given more than once"),
            ("GET", "/v1/functions/nat/sessions?inside=a&inside=b", "", 400, "inside: is given more than once"),
            ("POST", "/v1/drain", "seconds=1&seconds=2", 400, "seconds: is given more than once"),
            ("GET", "/v1/chain?by=lot", "", 400, "by: unknown variant `lot`"),
            ("POST", "/v1/stats", "", 405, "takes GET, HEAD"),
            ("GET", "/v1/reload", "", 405, "takes POST"),
            ("BREW", "/v1/reload", "", 405, "takes POST"),
            ("DELETE", "/metrics", "", 405, "takes GET, HEAD"),
            ("POST", "/v1/functions/nat/clear?inside=10.0.0.5", "", 400, "in the body"),
            ("POST", "/v1/reload?force=1", "", 400, "in the body"),
            ("DELETE", "/v1/drops?file=a", "", 400, "in the body"),
            ("POST", "/v1/reload", "{\"force\": true}", 400, "unknown field `force`"),
            ("POST", "/v1/drain", "{\"seconds\": -1}", 400, "seconds: invalid value"),
            ("POST", "/v1/drain", "{", 400, "EOF"),
            ("GET", "/v1/trace", "", 405, "takes POST"),
            ("POST", "/v1/trace", "{}", 400, "missing field `count`"),
            ("POST", "/v1/trace", "count=0", 400, "0 packets cannot be traced"),
            ("POST", "/v1/trace", "count=1&filter=prot tcp", 400, "is not understood"),
            ("PUT", "/v1/drops", "", 405, "takes POST, DELETE"),
            ("POST", "/v1/drops", "{\"file\": 7}", 400, "file: invalid type"),
            ("POST", "/v1/drops", "file=drops.pcapng", 400, "file: drops.pcapng is not an absolute path"),
            ("POST", "/v1/drain", "{\"seconds\": null}", 400, "seconds: is null"),
            ("POST", "/v1/drain", "&&", 400, "a form without a parameter"),
            ("POST", "/v1/drain", "{} {}", 400, "not one JSON object"),
            ("POST", "/v1/drain", "[1]", 400, "not one JSON object"),
        ] {
            let (was, sentence) = ask(method, target, body).unwrap_err();
            assert!(was == status && sentence.contains(part), "{method} {target} {body}: {was} {sentence}");
        }
        // libpcap would be busy with it for minutes.
        let hosts: Vec<String> = (0..2500).map(|host| format!("host 10.0.{}.{}", host / 250, host % 250)).collect();
        let body = format!("count=1&filter={}", hosts.join(" or "));
        let (was, sentence) = ask("POST", "/v1/trace", &body).unwrap_err();
        assert!(was == 400 && sentence.contains("takes too long to be compiled: 1000 are the most"), "{sentence}");
    }
}
