//! What is answered.

use serde::Serialize;

/// A status, and a text of some kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// The methods that there are, where another was used.
    pub(crate) allow: Option<&'static str>,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Of Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
}

impl Reply {
    pub(crate) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self { status: 200, content_type: JSON, body, allow: None },
            Err(error) => Self::failure(500, format!("the answer cannot be written: {error}")),
        }
    }

    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self { status, content_type: TEXT, body: format!("{text}\n").into_bytes(), allow: None }
    }

    pub(crate) fn metrics(text: String) -> Self {
        Self { status: 200, content_type: METRICS, body: text.into_bytes(), allow: None }
    }

    pub(crate) fn failure(status: u16, sentence: impl AsRef<str>) -> Self {
        let body = serde_json::to_vec(&Failure { error: sentence.as_ref() }).unwrap_or_default();
        Self { status, content_type: JSON, body, allow: None }
    }

    /// What is there takes only these methods.
    pub(crate) fn wrong_method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::failure(405, format!("this address takes {allow}")) }
    }

    /// What was asked makes no sense.
    pub(crate) fn bad(sentence: impl AsRef<str>) -> Self {
        Self::failure(400, sentence)
    }

    pub(crate) fn not_found(sentence: impl AsRef<str>) -> Self {
        Self::failure(404, sentence)
    }
}
