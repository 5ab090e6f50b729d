//! The HTTP of a check (RFC 9112): one request, and an answer that is read as it comes, as far as it matters.

use super::check::HttpCheck;
use super::failure::Failure;
use std::net::{IpAddr, SocketAddr};

/// What comes before the body, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
/// How far into a body something is looked for, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// A GET of HTTP/1.1, after which the server is to close.
pub(super) fn request(check: &HttpCheck, remote: SocketAddr, is_tls: bool) -> Vec<u8> {
    // A port is said unless it is the usual one: RFC 9110 section 7.2.
    let is_usual = remote.port() == if is_tls { 443 } else { 80 };
    let host = match (&check.host, remote.ip()) {
        (Some(host), _) => host.clone(),
        (None, _) if !is_usual => remote.to_string(),
        (None, IpAddr::V4(address)) => address.to_string(),
        (None, IpAddr::V6(address)) => format!("[{address}]"),
    };
    let HttpCheck { path, .. } = check;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: load-balancer\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    head: Vec<u8>,
    /// Once the head is whole.
    body: Option<Body>,
}

/// As much of a body as it may take to find something there.
#[derive(Debug)]
struct Body {
    text: Vec<u8>,
    framing: Framing,
}

/// What ends a body: RFC 9112 section 6.3.
#[derive(Debug)]
enum Framing {
    /// So many bytes are to come.
    Length(usize),
    Chunked(Chunk),
    Close,
}

/// Where a chunked body stands: RFC 9112 section 7.1.
#[derive(Debug)]
enum Chunk {
    /// In the line of a size, after this much of it; what follows a semicolon is no size.
    Size(Option<usize>, bool),
    /// So many bytes are to come.
    Data(usize),
    /// In the line that ends a chunk.
    End,
    Last,
}

impl Answer {
    /// Takes what came, and says how it ends, once that is known.
    pub(super) fn receive(&mut self, mut bytes: &[u8], check: &HttpCheck) -> Option<Result<(), Failure>> {
        while self.body.is_none() {
            match self.receive_head(bytes, check) {
                Ok(None) => return None,
                Ok(Some(rest)) => bytes = rest,
                Err(failure) => return Some(Err(failure)),
            }
        }
        let Some(expect) = &check.expect else { return Some(Ok(())) };
        let body = self.body.as_mut()?;
        let before = body.text.len();
        let is_whole = body.receive(bytes);
        // It may have begun in what was there before.
        let from = before.saturating_sub(expect.len());
        if body.text[from..].windows(expect.len()).any(|part| part == expect) {
            return Some(Ok(()));
        }
        (is_whole || body.text.len() >= LONGEST_BODY).then_some(Err(Failure::Unexpected))
    }

    /// The server has closed, and what is not known by now will not be.
    pub(super) fn end(&self) -> Failure {
        match &self.body {
            Some(Body { framing: Framing::Close, .. }) => Failure::Unexpected,
            _ => Failure::CutOff,
        }
    }

    /// Takes the head as far as it came; what follows it, once it is whole.
    fn receive_head<'a>(&mut self, bytes: &'a [u8], check: &HttpCheck) -> Result<Option<&'a [u8]>, Failure> {
        const START: &[u8] = b"HTTP/1.";
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let begun = self.head.len().min(START.len());
        if self.head[..begun] != START[..begun] {
            return Err(Failure::NotHttp);
        }
        // The empty line may have begun in what was there before. A line may end without a return: RFC 9112 section 2.2.
        let from = before.saturating_sub(2);
        let end = (from..self.head.len()).find_map(|at| {
            let rest = &self.head[at..];
            let ends = [&b"\n\r\n"[..], b"\n\n"];
            ends.iter().find(|end| rest.starts_with(end)).map(|end| at + end.len())
        });
        let Some(end) = end else {
            return if self.head.len() > LONGEST_HEAD { Err(Failure::HeadTooLong) } else { Ok(None) };
        };
        let rest = &bytes[end.saturating_sub(before).min(bytes.len())..];
        self.head.truncate(end);
        let head = std::mem::take(&mut self.head);
        // Any octets above ASCII may stand in it: RFC 9110 section 5.5.
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let code = lines.next().and_then(status).ok_or(Failure::NotHttp)?;
        if (100..200).contains(&code) && code != 101 {
            // Another answer follows: RFC 9110 section 15.2.
            return if rest.is_empty() { Ok(None) } else { self.receive_head(rest, check) };
        }
        if !check.status.contains(&code) {
            return Err(Failure::Status(code));
        }
        self.body = Some(Body { text: Vec::new(), framing: framing(lines) });
        Ok(Some(rest))
    }
}

/// The code of a status line.
fn status(line: &str) -> Option<u16> {
    let (version, rest) = line.split_once(' ')?;
    let code = rest.get(..3)?;
    let is_code = code.bytes().all(|byte| byte.is_ascii_digit()) && rest[3..].chars().next().is_none_or(|c| c == ' ');
    (version.len() == 8 && is_code).then(|| code.parse().ok()).flatten()
}

fn framing<'a>(lines: impl Iterator<Item = &'a str>) -> Framing {
    let mut framing = Framing::Close;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") && value.to_ascii_lowercase().ends_with("chunked") {
            return Framing::Chunked(Chunk::Size(None, false));
        }
        if name.eq_ignore_ascii_case("content-length") {
            // One that is no number is longer than what is looked at.
            framing = Framing::Length(value.parse().unwrap_or(usize::MAX));
        }
    }
    framing
}

impl Body {
    /// Takes what came; whether nothing follows it.
    fn receive(&mut self, mut bytes: &[u8]) -> bool {
        let Self { text, framing } = self;
        let mut keep = |bytes: &[u8]| {
            let room = LONGEST_BODY.saturating_sub(text.len());
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        };
        let chunk = match framing {
            Framing::Close => {
                keep(bytes);
                return false;
            }
            Framing::Length(left) => {
                let taken = bytes.len().min(*left);
                keep(&bytes[..taken]);
                *left -= taken;
                return *left == 0;
            }
            Framing::Chunked(chunk) => chunk,
        };
        while let Some((&byte, rest)) = bytes.split_first() {
            *chunk = match *chunk {
                Chunk::Data(left) => {
                    let taken = bytes.len().min(left);
                    keep(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    *chunk = if taken < left { Chunk::Data(left - taken) } else { Chunk::End };
                    continue;
                }
                Chunk::End if byte == b'\n' => Chunk::Size(None, false),
                Chunk::End => Chunk::End,
                Chunk::Size(size, _) if byte == b'\n' => match size {
                    Some(size) if size > 0 => Chunk::Data(size),
                    _ => Chunk::Last,
                },
                Chunk::Size(size, is_over) => match char::from(byte).to_digit(16) {
                    Some(digit) if !is_over => {
                        Chunk::Size(Some(size.unwrap_or(0).saturating_mul(16).saturating_add(digit as usize)), false)
                    }
                    _ => Chunk::Size(size, true),
                },
                Chunk::Last => return true,
            };
            bytes = rest;
        }
        matches!(chunk, Chunk::Last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expect: Option<&str>) -> HttpCheck {
        let expect = expect.map(|text| text.as_bytes().to_vec());
        HttpCheck { path: "/".to_owned(), host: None, status: 200..=299, expect }
    }

    /// How an answer ends that comes in parts of this length, and is closed.
    fn ends(answer: &[u8], part: usize, check: &HttpCheck) -> Result<(), Failure> {
        let mut reader = Answer::default();
        for part in answer.chunks(part) {
            if let Some(end) = reader.receive(part, check) {
                return end;
            }
        }
        Err(reader.end())
    }

    #[test]
    fn an_answer_ends_the_same_in_whatever_parts_it_comes() {
        let cases: [(&str, Option<&str>, Result<(), Failure>); 25] = [
            ("HTTP/1.1 200 OK\r\n\r\n", None, Ok(())),
            ("HTTP/1.0 204\r\n\r\n", None, Ok(())),
            ("HTTP/1.1 200 OK\n\n", None, Ok(())),
            ("HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok", Some("ok"), Ok(())),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some("ok"), Ok(())),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnok", Some("ok"), Ok(())),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", Some("ok"), Err(Failure::Unexpected)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok", Some("ok"), Err(Failure::Unexpected)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno", Some("ok"), Err(Failure::CutOff)),
            ("HTTP/1.1 200 OK\r\n\r\nthat is ok", Some("ok"), Ok(())),
            ("HTTP/1.1 200 OK\r\n\r\nthat is not", Some("ok"), Err(Failure::Unexpected)),
            ("HTTP/1.1 200 OK\r\n\r\n", Some("ok"), Err(Failure::Unexpected)),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", None, Err(Failure::Status(503))),
            ("HTTP/1.1 302 Found\r\n\r\n", None, Err(Failure::Status(302))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None, Ok(())),
            ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n", None, Err(Failure::Status(500))),
            ("HTTP/1.1 200 OK\r\nServer: x\r\n", None, Err(Failure::CutOff)),
            ("HTTP/1.1 20", None, Err(Failure::CutOff)),
            ("", None, Err(Failure::CutOff)),
            ("SSH-2.0-OpenSSH_9.2\r\n", None, Err(Failure::NotHttp)),
            ("HTTP/1.1 2000 OK\r\n\r\n", None, Err(Failure::NotHttp)),
            ("HTTP/1.1 OK\r\n\r\n", None, Err(Failure::NotHttp)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=2\r\nal\r\n1F\r\nl is well, and so may it remain.\r\n0\r\n\r\n",
                Some("all is well"),
                Ok(()),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
                Some("ok"),
                Err(Failure::Unexpected),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nno", Some("ok"), Err(Failure::CutOff)),
        ];
        for (answer, expect, expected) in cases {
            for part in [1, 2, 3, 7, 1000] {
                assert_eq!(ends(answer.as_bytes(), part, &check(expect)), expected, "{answer:?} by {part}");
            }
        }
    }

    #[test]
    fn a_head_may_be_of_octets_that_are_no_text() {
        let answer = b"HTTP/1.1 200 D'accord, h\xe9\r\nServer: caf\xe9\r\nContent-Length: 2\r\n\r\nok";
        for part in [1, 2, 3, 7, 1000] {
            assert_eq!(ends(answer, part, &check(Some("ok"))), Ok(()), "by {part}");
            assert_eq!(ends(answer, part, &check(Some("no"))), Err(Failure::Unexpected), "by {part}");
        }
    }

    #[test]
    fn what_never_ends_is_given_up_and_keeps_no_more_than_is_looked_at() {
        let head = b"HTTP/1.1 200 OK\r\n";
        let line = b"X-Padding: 0123456789\r\n";
        let mut reader = Answer::default();
        assert_eq!(reader.receive(head, &check(None)), None);
        let given_up = (0..10_000).find_map(|_| reader.receive(line, &check(None)));
        assert_eq!(given_up, Some(Err(Failure::HeadTooLong)));
        assert!(reader.head.len() <= LONGEST_HEAD + line.len());

        let endless = [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], &b"0123456789"[..]),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"0123456789"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"a\r\n0123456789\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n", b"0123456789"),
        ];
        for (head, part) in endless {
            let (mut reader, check) = (Answer::default(), check(Some("ok")));
            assert_eq!(reader.receive(head, &check), None);
            let given_up = (0..10_000).find_map(|_| reader.receive(part, &check));
            assert_eq!(given_up, Some(Err(Failure::Unexpected)));
            assert_eq!(reader.body.unwrap().text.len(), LONGEST_BODY);
        }
    }

    #[test]
    fn a_request_names_the_host() {
        for (host, remote, is_tls, expected) in [
            (None, "192.0.2.1:80", false, "192.0.2.1"),
            (None, "192.0.2.1:8080", false, "192.0.2.1:8080"),
            (None, "192.0.2.1:80", true, "192.0.2.1:80"),
            (None, "192.0.2.1:443", true, "192.0.2.1"),
            (None, "[2001:db8::1]:80", false, "[2001:db8::1]"),
            (None, "[2001:db8::1]:8080", false, "[2001:db8::1]:8080"),
            (Some("www.example"), "192.0.2.1:8080", false, "www.example"),
        ] {
            let check = HttpCheck { host: host.map(str::to_owned), ..check(None) };
            let text = String::from_utf8(request(&check, remote.parse().unwrap(), is_tls)).unwrap();
            assert!(text.starts_with(&format!("GET / HTTP/1.1\r\nHost: {expected}\r\n")), "{text}");
            assert!(text.ends_with("\r\nConnection: close\r\n\r\n"));
        }
    }
}
