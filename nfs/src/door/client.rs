//! HTTP through the door: one connection for each question, and an end to every wait.

use super::{DoorError, Place};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// Bytes of an answer that are taken. The door's longest, of a thousand items, have much less.
const LONGEST: usize = 64 << 20;

/// Asks at a door.
#[derive(Debug)]
pub struct Client {
    place: Place,
    timeout: Duration,
    longest: usize,
    runtime: Runtime,
}

/// What a request carries.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Body {
    None,
    Json(String),
    Form(String),
}

impl Client {
    /// One that waits so long for each answer. It does not look whether anybody is there.
    ///
    /// # Errors
    ///
    /// When the system has not even what it takes to wait.
    pub fn new(place: Place, timeout: Duration) -> Result<Self, DoorError> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(DoorError::Runtime)?;
        Ok(Self { place, timeout, longest: LONGEST, runtime })
    }

    /// Where it asks.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Waits this much longer for answers that take their time.
    #[must_use]
    pub fn patient(mut self, longer: Duration) -> Self {
        self.timeout = self.timeout.saturating_add(longer);
        self
    }

    /// What stands at a path, as it came.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is a refusal.
    pub fn text(&self, path: &str) -> Result<String, DoorError> {
        self.ask("GET", path, Body::None)
    }

    /// What stands at a path.
    ///
    /// # Errors
    ///
    /// When there is no answer, it is a refusal, or something else than was expected.
    pub fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, DoorError> {
        self.parse(&self.text(path)?)
    }

    /// Gives an order, with arguments as JSON.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is a refusal.
    pub fn order(&self, path: &str, arguments: &serde_json::Value) -> Result<String, DoorError> {
        self.ask("POST", path, Body::Json(arguments.to_string()))
    }

    /// Gives an order, with arguments as people write them: the program knows which of them are numbers.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is a refusal.
    pub fn order_by_form(&self, path: &str, arguments: &[(String, String)]) -> Result<String, DoorError> {
        let form = serde_urlencoded::to_string(arguments).unwrap_or_default();
        self.ask("POST", path, Body::Form(form))
    }

    /// Ends what an order at the same path began.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is a refusal.
    pub fn delete(&self, path: &str) -> Result<String, DoorError> {
        self.ask("DELETE", path, Body::None)
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// When it is something else than was expected.
    pub fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, DoorError> {
        let odd = |error: serde_json::Error| self.not_a_door(format!("its answer is not as expected: {error}"));
        serde_json::from_str(text).map_err(odd)
    }

    fn ask(&self, method: &str, path: &str, body: Body) -> Result<String, DoorError> {
        let answer = self.runtime.block_on(async {
            let late = |_| DoorError::Late { place: self.place.to_string(), after: self.timeout };
            tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await.map_err(late)?
        });
        let (status, bytes) = answer?;
        let text = String::from_utf8(bytes).map_err(|_| self.not_a_door("its answer is no text"))?;
        if (200..300).contains(&status) { Ok(text) } else { Err(self.refusal(status, &text)) }
    }

    /// The sentence of a refusal; who refuses without one is no door.
    fn refusal(&self, status: u16, text: &str) -> DoorError {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
        }
        match serde_json::from_str::<Refusal>(text) {
            Ok(Refusal { error }) => DoorError::Refused { status, sentence: error },
            Err(_) => self.not_a_door(format!("it says {status} without a reason")),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: Body) -> Result<(u16, Vec<u8>), DoorError> {
        match &self.place {
            Place::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| self.unreached(error))?;
                self.exchange_by(stream, "localhost", method, path, body).await
            }
            Place::Address(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| self.unreached(error))?;
                self.exchange_by(stream, address, method, path, body).await
            }
        }
    }

    async fn exchange_by<S>(
        &self,
        stream: S,
        host: &str,
        method: &str,
        path: &str,
        body: Body,
    ) -> Result<(u16, Vec<u8>), DoorError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wrong = |error: hyper::Error| self.broken(&error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(wrong)?;
        // Its errors are those of the request too.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        let content = match body {
            Body::None => String::new(),
            Body::Json(text) => {
                request = request.header(CONTENT_TYPE, "application/json");
                text
            }
            Body::Form(text) => {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                text
            }
        };
        let request = request.body(Full::new(Bytes::from(content)));
        let request = request.map_err(|error| self.not_a_door(format!("it cannot be asked for {path}: {error}")))?;
        let response = sender.send_request(request).await.map_err(wrong)?;
        let status = response.status().as_u16();
        Ok((status, self.whole(response).await?))
    }

    /// The body, a piece at a time, so that its length is known before there is no memory left.
    async fn whole(&self, response: Response<Incoming>) -> Result<Vec<u8>, DoorError> {
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error))?;
            let data = frame.into_data().unwrap_or_default();
            if bytes.len() + data.len() > self.longest {
                return Err(DoorError::TooLong { place: self.place.to_string(), most: self.longest });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    fn unreached(&self, error: io::Error) -> DoorError {
        let place = self.place.to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied => DoorError::Denied { place },
            _ => DoorError::Closed { place, source: error },
        }
    }

    fn broken(&self, error: &hyper::Error) -> DoorError {
        if error.is_parse() {
            return self.not_a_door(error);
        }
        DoorError::Gone { place: self.place.to_string(), why: error.to_string() }
    }

    /// What it means that an answer makes no sense.
    pub(crate) fn not_a_door(&self, why: impl ToString) -> DoorError {
        DoorError::NotADoor { place: self.place.to_string(), why: why.to_string() }
    }
}
