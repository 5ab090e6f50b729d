//! What comes with a request, as a form or as JSON.

use super::reply::Reply;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// What somebody wants of a function, to be read by its own structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Arguments {
    Form(Vec<u8>),
    /// A JSON object; nothing at all is an empty one.
    Json(Vec<u8>),
}

impl Arguments {
    pub(super) fn of_body(body: &[u8], form: bool) -> Self {
        if form { Self::Form(body.to_vec()) } else { Self::Json(body.to_vec()) }
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        match self {
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
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| wrong(&error))?;
    json.end().map_err(|error| Reply::bad(format!("the body is not one JSON object: {error}")))?;
    Ok(value)
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
