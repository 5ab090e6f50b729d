//! What comes with a request, as a form or as JSON.

use super::reply::Reply;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// What somebody wants of a function, to be read by its own structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Arguments {
    Form(Vec<u8>),
    /// A JSON object; nothing at all is an empty one.
    Json(Vec<u8>),
}

impl Arguments {
    /// No parameter of a form begins with a brace: who says that it is one, as curl does unasked, has sent JSON.
    pub(super) fn of_body(body: &[u8], form: bool) -> Self {
        let is_json = body.trim_ascii().starts_with(b"{");
        if form && !is_json { Self::Form(body.to_vec()) } else { Self::Json(body.to_vec()) }
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        match self {
            Self::Form(bytes) if !bytes.is_empty() && form_urlencoded::parse(bytes).next().is_none() => {
                Err(Reply::bad("the body is a form without a parameter"))
            }
            Self::Form(bytes) => from_form(bytes),
            Self::Json(bytes) => from_json(bytes),
        }
    }
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Reply> {
    let body = match bytes.trim_ascii() {
        [] => b"{}",
        // serde would take the values of a structure from an array too.
        [b'{', ..] => bytes,
        _ => return Err(Reply::bad("the body is not one JSON object")),
    };
    expect_no_nulls(body)?;
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| wrong(&error))?;
    json.end().map_err(|error| Reply::bad(format!("the body is not one JSON object: {error}")))?;
    Ok(value)
}

/// Who gives a parameter and no value has lost it somewhere: a filter without it would take in all.
fn expect_no_nulls(body: &[u8]) -> Result<(), Reply> {
    let Ok(given) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(body) else { return Ok(()) };
    let null = given.into_iter().find(|(_, value)| value.is_null());
    null.map_or(Ok(()), |(name, _)| Err(Reply::bad(format!("{name}: is null: leave out what is not meant"))))
}

pub(super) fn from_form<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Reply> {
    expect_each_once(bytes)?;
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(bytes));
    serde_path_to_error::deserialize(pairs).map_err(|error| wrong(&error))
}

/// Of two values for one name nobody knows which is meant.
pub(super) fn expect_each_once(form: &[u8]) -> Result<(), Reply> {
    let mut names = BTreeSet::new();
    let twice = form_urlencoded::parse(form).map(|(name, _)| name).find(|name| !names.insert(name.clone()));
    twice.map_or(Ok(()), |name| Err(Reply::bad(format!("{name}: is given more than once"))))
}

/// Names the parameter that is wrong, if it is one.
fn wrong(error: &serde_path_to_error::Error<impl std::fmt::Display>) -> Reply {
    let (path, why) = (error.path().to_string(), error.inner().to_string());
    let says_it = path == "." || why.starts_with(&format!("unknown field `{path}`"));
    if says_it { Reply::bad(why) } else { Reply::bad(format!("{path}: {why}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::DropsRequest;

    #[test]
    fn what_begins_with_a_brace_is_json_whatever_is_said_of_it() {
        let form = b"file=/tmp/a&reasons=policy,no-route".as_slice();
        let json = br#" {"file": "/tmp/a", "reasons": ["policy", "no-route"]}"#.as_slice();
        for (body, is_form) in [(form, true), (json, true), (json, false)] {
            let request: DropsRequest = Arguments::of_body(body, is_form).parse().unwrap();
            assert_eq!(request.reasons, ["policy", "no-route"]);
        }
    }

    #[test]
    fn a_filter_that_was_lost_on_the_way_is_not_taken_for_none() {
        #[derive(Debug, serde::Deserialize)]
        struct Filter {
            inside: Option<String>,
        }
        for (body, is_form, says) in [
            ("{\"inside\": null}", false, "inside: is null"),
            ("&&", true, "a form without a parameter"),
            ("", true, ""),
            ("{}", false, ""),
        ] {
            match Arguments::of_body(body.as_bytes(), is_form).parse::<Filter>() {
                Ok(filter) => assert!(says.is_empty() && filter.inside.is_none(), "{body}"),
                Err(reply) => {
                    let said = String::from_utf8(reply.body).unwrap();
                    assert!(!says.is_empty() && said.contains(says), "{body}: {said}");
                }
            }
        }
    }
}
