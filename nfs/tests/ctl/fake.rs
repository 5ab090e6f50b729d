//! A door without a program behind it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// What it answers: status and body, or bytes as they are.
pub(crate) enum Answer {
    Json(u16, String),
    Bytes(Vec<u8>),
    /// It lets whoever asks wait.
    Never,
}

/// Listens at a socket of its own until the test ends.
pub(crate) struct Fake {
    pub(crate) socket: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// One that answers a request, given as `METHOD TARGET BODY`.
    pub(crate) fn new(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        static SOCKETS: AtomicU32 = AtomicU32::new(0);
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("nf-ctl-test-{}-{number}.sock", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&stream);
                log.lock().unwrap().push(request.clone());
                match answer(&request) {
                    Answer::Json(status, body) => {
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}"
                        );
                        let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes());
                    }
                    Answer::Bytes(bytes) => drop(stream.write_all(&bytes)),
                    Answer::Never => waiting.push(stream),
                }
            }
        });
        Self { socket, asked }
    }

    /// One that knows these addresses, and says 404 to others.
    pub(crate) fn of(known: &[(&str, &str)]) -> Self {
        let known: Vec<(String, String)> = known.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Self::new(move |request| match known.iter().find(|(target, _)| request == target.as_str()) {
            Some((_, body)) => Answer::Json(200, body.clone()),
            None => Answer::Json(404, "{\"error\":\"there is nothing at this address\"}".to_owned()),
        })
    }

    /// What it was asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// nf-ctl, with these words.
    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_nf-ctl")).arg("--socket").arg(&self.socket).args(words).output().unwrap()
    }

    /// What nf-ctl prints when all goes well.
    pub(crate) fn prints(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        let (text, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{words:?}: {error}{text}");
        text
    }

    /// How nf-ctl ends, and what it says, when something is wrong.
    pub(crate) fn fails(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.ctl(words);
        assert_eq!(output.stdout, b"", "{words:?}");
        let place = self.socket.display().to_string();
        (output.status.code(), String::from_utf8(output.stderr).unwrap().replace(&place, "SOCKET"))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn read(stream: &UnixStream) -> String {
    let (mut reader, mut first, mut length) = (BufReader::new(stream), String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() < 3 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = first.trim_end().trim_end_matches(" HTTP/1.1");
    format!("{request} {}", String::from_utf8(body).unwrap()).trim_end().to_owned()
}
