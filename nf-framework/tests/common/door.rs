//! A client of the admin door, with nothing of the server's: it writes a request and reads what comes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Where a program's door is.
#[derive(Clone, Debug)]
pub(crate) struct Door(pub(crate) PathBuf);

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

impl Door {
    pub(crate) fn at(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }

    /// A connection, as soon as there is somebody to take it.
    pub(crate) fn connect(&self) -> UnixStream {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(&self.0) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < give_up, "{}: {error}", self.0.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn ask(&self, method: &str, target: &str, body: &str) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request(method, target, body).as_bytes()).unwrap();
        read(&mut stream).unwrap()
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "")
    }

    pub(crate) fn post(&self, target: &str, body: &str) -> Reply {
        self.ask("POST", target, body)
    }

    /// Asks until the answer has this status.
    pub(crate) fn wait_for(&self, target: &str, status: u16) -> Reply {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let reply = self.get(target);
            if reply.status == status {
                return reply;
            }
            assert!(Instant::now() < give_up, "{target}: {reply:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// By TCP.
pub(crate) fn ask_by_tcp(address: &str, method: &str, target: &str, more: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    read(&mut stream).unwrap()
}

pub(crate) fn request(method: &str, target: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n{length}\r\n{body}")
}

/// The one answer of a connection that then ends.
pub(crate) fn read(stream: &mut impl Read) -> Option<Reply> {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        assert!(bytes.is_empty(), "{end:?} after {text:?}");
        return None;
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head:?}"));
    Some(Reply { status, head: head.to_lowercase(), body: body.to_owned() })
}
