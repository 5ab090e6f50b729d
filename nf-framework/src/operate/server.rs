//! HTTP at the door: one thread that serves all connections, a request of each at a time.
//!
//! Whoever is at the other end, this thread has 64 connections at most, each with a few KiB and one answer, and
//! a place in a short queue to the control thread. It shares nothing with the workers.

use super::health::{Health, LOOKS};
use super::patient::Patient;
use super::reply::Reply;
use super::request::{Closing, Desk, PATIENCE, PATIENCE_TO_RELOAD, Refused, Request};
use super::routes::{Raw, is_order, route};
use super::socket::Socket;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;

/// Connections at once, and how many of them may have come by TCP: strangers do not shut the socket.
const CONNECTIONS: u32 = 64;
const BY_TCP: u32 = 48;
/// Bytes of a request's line and headers. hyper takes no smaller limit.
const HEADERS: usize = 8 * 1024;
/// Bytes of a request's body.
const BODY: usize = 64 * 1024;
/// How long the headers may take, and how long a connection may say nothing between two requests.
const TIME_FOR_HEADERS: Duration = Duration::from_secs(5);
/// And the body.
const TIME_FOR_BODY: Duration = Duration::from_secs(5);
/// How long answers that are under way have when the program stops.
const TIME_TO_CLOSE: Duration = Duration::from_millis(500);

/// Where clients come in, listened at and not served yet.
pub(crate) struct Server {
    pub(crate) runtime: Runtime,
    pub(crate) socket: Option<Socket>,
    pub(crate) tcp: Option<TcpListener>,
    /// Whether those who come by TCP may give orders.
    pub(crate) orders: bool,
    pub(crate) desk: Desk,
    pub(crate) closing: Closing,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("socket", &self.socket).field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Server {
    /// Serves until the control thread has closed its inbox.
    pub(crate) fn run(self, health: &Health) {
        let Self { runtime, socket, tcp, orders, desk, closing } = self;
        if let Some(Socket { path, .. }) = &socket {
            log::info!("admin socket: {}", path.display());
        }
        let (close, closed) = watch::channel(());
        let all = Arc::new(Semaphore::new(CONNECTIONS as usize));
        let by_tcp = Arc::new(Semaphore::new(BY_TCP as usize));
        let visitor = |orders| Visitor { orders, desk: desk.clone(), health: health.clone(), closed: closed.clone() };
        runtime.block_on(async {
            let mut looks = pin!(async {
                loop {
                    health.look(Instant::now());
                    tokio::time::sleep(LOOKS).await;
                }
            });
            let mut by_socket = pin!(async {
                let (Some(socket), visitor) = (&socket, visitor(true)) else { return pending().await };
                loop {
                    let Some((stream, _)) = accepted(socket.listener.accept().await).await else { continue };
                    match Arc::clone(&all).try_acquire_owned() {
                        Ok(place) => visitor.serve(stream, [Some(place), None]),
                        Err(_) => drop(stream.try_write(TOO_MANY)),
                    }
                }
            });
            let mut by_address = pin!(async {
                let (Some(tcp), visitor) = (&tcp, visitor(orders)) else { return pending().await };
                loop {
                    let Some((stream, _)) = accepted(tcp.accept().await).await else { continue };
                    match [&all, &by_tcp].map(|places| Arc::clone(places).try_acquire_owned()) {
                        [Ok(place), Ok(of_tcp)] => visitor.serve(stream, [Some(place), Some(of_tcp)]),
                        _ => drop(stream.try_write(TOO_MANY)),
                    }
                }
            });
            let mut closing = pin!(closing);
            poll_fn(|cx| {
                let _: [Poll<()>; 2] = [by_socket.as_mut().poll(cx), by_address.as_mut().poll(cx)];
                let _: Poll<()> = looks.as_mut().poll(cx);
                closing.as_mut().poll(cx).map(drop)
            })
            .await;
            drop(close);
            // Idle connections close at once.
            let _ = tokio::time::timeout(TIME_TO_CLOSE, all.acquire_many(CONNECTIONS)).await;
        });
        // Who waits for a name server keeps nobody from stopping.
        runtime.shutdown_background();
    }
}

/// What one connection too many is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n\
                          Content-Length: 61\r\n\r\n{\"error\":\"there are as many connections as there may be now\"}";

/// A connection that was taken. A listener that has none to give, as there are too many open files, is left alone
/// for a moment.
async fn accepted<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(connection) => Some(connection),
        Err(error) => {
            log::debug!("no connection can be taken: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// What stands behind a connection.
#[derive(Clone)]
struct Visitor {
    /// Whether it may give orders.
    orders: bool,
    desk: Desk,
    health: Health,
    /// Ends when the door closes.
    closed: watch::Receiver<()>,
}

type Response = hyper::Response<Full<Bytes>>;

impl Visitor {
    /// Serves a connection, which gives its places back when it ends.
    fn serve<S>(&self, stream: S, places: [Option<OwnedSemaphorePermit>; 2])
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let this = self.clone();
        tokio::spawn(async move {
            let mut closed = this.closed.clone();
            let service = service_fn(|request| {
                let this = this.clone();
                async move { Ok::<_, Infallible>(this.respond(request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIME_FOR_HEADERS)
                .max_buf_size(HEADERS)
                .serve_connection(TokioIo::new(Patient::new(stream)), service);
            let (mut connection, mut closing, mut told) = (pin!(connection), pin!(closed.changed()), false);
            let end = poll_fn(|cx| {
                if !told && closing.as_mut().poll(cx).is_ready() {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                connection.as_mut().poll(cx)
            });
            if let Err(error) = end.await {
                log::debug!("a connection to the admin door ends: {error}");
            }
            drop(places);
        });
    }

    async fn respond(&self, request: hyper::Request<Incoming>) -> Response {
        let reply = self.reply(request).await.unwrap_or_else(|reply| reply);
        let mut response = Response::new(Full::new(reply.body.into()));
        *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = reply.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if reply.status == 413 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn reply(&self, request: hyper::Request<Incoming>) -> Result<Reply, Reply> {
        let (parts, body) = request.into_parts();
        let (method, uri) = (parts.method.as_str(), &parts.uri);
        let is_order = is_order(method);
        if uri.path() == "/healthz" && !is_order {
            return Ok(match self.health.fault(Instant::now()) {
                None => Reply::text(200, "ok"),
                Some(fault) => Reply::text(503, &fault),
            });
        }
        if is_order && !self.orders {
            return Err(Reply::failure(
                403,
                "orders are given at the Unix socket ([admin] orders = true lets TCP clients give them)",
            ));
        }
        // A page in somebody's browser could send one to the loopback.
        if is_order && parts.headers.contains_key(ORIGIN) {
            return Err(Reply::failure(403, "orders are not taken from web pages"));
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let form =
            content_type.split(';').next().is_some_and(|kind| kind.trim() == "application/x-www-form-urlencoded");
        let body = if is_order { whole(body).await? } else { Bytes::new() };
        let understand = move || {
            let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
            route(&Raw { method: parts.method.as_str(), path, query, body: &body, form })
        };
        // An order may have to wait for a name server: nobody else does meanwhile.
        let request = if is_order { spawn_blocking(understand).await.map_err(|_| stopping())? } else { understand() };
        self.ask(request?).await
    }

    /// Has the control thread answer.
    async fn ask(&self, request: Request) -> Result<Reply, Reply> {
        let patience =
            if matches!(request, Request::Reload | Request::Trace(_)) { PATIENCE_TO_RELOAD } else { PATIENCE };
        let busy = || Reply::failure(503, "control is busy: as many requests wait as may (try again)");
        let answer = self.desk.ask(request).map_err(|refused| match refused {
            Refused::Busy => busy(),
            Refused::Stopping => stopping(),
        })?;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer()),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => {
                Err(Reply::failure(503, format!("control has not answered for {} s (try again)", patience.as_secs())))
            }
        }
    }
}

fn stopping() -> Reply {
    Reply::failure(503, "the program is stopping")
}

/// A body that is not too long and comes in time.
async fn whole(body: Incoming) -> Result<Bytes, Reply> {
    let too_long = || Reply::failure(413, format!("the body has more than {BODY} bytes"));
    if body.size_hint().lower() > BODY as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(TIME_FOR_BODY, Limited::new(body, BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err(Reply::bad(format!("the body does not arrive: {error}"))),
        Err(_) => Err(Reply::failure(408, format!("the body has not arrived within {} s", TIME_FOR_BODY.as_secs()))),
    }
}
