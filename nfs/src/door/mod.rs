//! The admin door of a running program, seen from outside: what `nf-ctl` and `nf-top` have in common.
//!
//! It knows where doors are, speaks HTTP through one, and what the answers look like. It knows nothing of DPDK and
//! nothing of terminals, and it never waits without an end.

mod answers;
mod backend;
mod client;
mod error;
mod human;
mod place;

pub use answers::{
    Balance, ChainRow, Counter, Device, Drop, FunctionTopics, Link, Occupancy, Page, Parameter, Port, Program, Stats,
    Step, Topic, Trace, Traces, Worker,
};
pub use backend::Backend;
pub use client::Client;
pub use error::DoorError;
pub use human::{bytes, duration, printable, rate, say, say_error, share, wrapped};
pub(crate) use place::seconds;
pub use place::{Place, Whereabouts};

/// A path of the door's, of segments that may hold anything.
#[must_use]
pub fn path(segments: &[&str]) -> String {
    segments.iter().flat_map(|segment| ["/".to_owned(), encode(segment)]).collect()
}

/// What follows a path, of names and values; nothing if there are none.
#[must_use]
pub fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
    match serde_urlencoded::to_string(&pairs) {
        Ok(text) if !text.is_empty() => format!("?{text}"),
        _ => String::new(),
    }
}

/// RFC 3986, 2.3: what is not unreserved stands behind a percent sign.
fn encode(segment: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    segment.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_so_that_nothing_in_them_is_a_part_of_the_path() {
        assert_eq!(path(&["v1", "functions", "a/b c?ü"]), "/v1/functions/a%2Fb%20c%3F%C3%BC");
        assert_eq!(query([("inside", "10.0.0.5"), ("x", "a&b=c")]), "?inside=10.0.0.5&x=a%26b%3Dc");
        assert_eq!(query([]), "");
    }
}
