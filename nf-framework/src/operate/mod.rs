//! The door by which people and programs look at a running program and tell it what to do: HTTP over a Unix
//! socket, and over TCP if asked for. docs/admin.md is its manual.
//!
//! Three parties: the server, one thread that clients can keep busy and nothing else; the control thread, which takes
//! one request after the other out of a short queue; and the workers, whom control asks by letters between two
//! bursts. So a client never meets a worker. What is answered is collected by control, and put into words by the
//! server.

mod arguments;
mod config;
mod health;
mod metrics;
mod patient;
mod reply;
mod request;
mod routes;
mod server;
mod socket;
mod telemetry;
pub(crate) mod topics;
pub(crate) mod views;

pub(crate) use arguments::Arguments;
pub use config::AdminConfig;
pub(crate) use health::{Health, Pulse};
pub(crate) use metrics::{Facts, NeighbourFacts, PoolFacts, ProcessFacts, ReloadFacts, text};
pub(crate) use reply::Reply;
pub(crate) use request::{Answer, Asked, Desk, Inbox, Page, Program, Request};
pub(crate) use server::Server;
pub use socket::SocketError;
pub(crate) use telemetry::offer;
pub use topics::{NoParameters, Piece, Topic};

use request::Closing;
use socket::Socket;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a program has no door although it was told where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The Unix socket.
    #[error("[admin] socket: {0}")]
    Socket(#[from] SocketError),
    /// The TCP port.
    #[error("[admin] listen: {address} cannot be listened at: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system has no way to wait for clients.
    #[error("the admin door cannot be made: {0}")]
    System(io::Error),
}

/// A program's door, open and not served yet: clients wait until the program [runs](crate::Runtime::admin).
///
/// ```no_run
/// use nf_framework::{AdminConfig, AdminDoor, AdminOrder, Configuration, Runtime};
/// use std::time::Duration;
///
/// fn run(eal: &dpdk_rs::Eal, configuration: Configuration) -> Result<(), Box<dyn std::error::Error>> {
///     let door = AdminDoor::open(&AdminConfig::default(), "mine", env!("CARGO_PKG_VERSION"), None)?;
///     Runtime::configured(eal, configuration)?.admin(door).run(|control| {
///         while !control.stopping() {
///             match control.serve(Duration::from_millis(20)) {
///                 Some(AdminOrder::Reload(order)) => order.carry_out(control),
///                 Some(_) => break,
///                 None => control.tend_ports(),
///             }
///         }
///     })?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct AdminDoor {
    pub(crate) server: Option<Server>,
    pub(crate) inbox: Inbox,
    /// For DPDK's telemetry, which has the same questions.
    pub(crate) desk: Desk,
}

impl AdminDoor {
    /// Makes the socket of a program, and listens at the TCP port if there is to be one. `config` is the file that a
    /// reload reads again. A socket at the usual place that cannot be made is a warning, and the program then has none.
    ///
    /// # Errors
    ///
    /// [`AdminError`]: what the configuration asks for cannot be had.
    pub fn open(config: &AdminConfig, name: &str, version: &str, file: Option<&Path>) -> Result<Self, AdminError> {
        let program =
            Program { name: name.to_owned(), version: version.to_owned(), config: file.map(Path::to_path_buf) };
        let (inbox, desk, closing) = Inbox::new(program);
        let server = if config.enabled { listen(config, name, desk.clone(), closing)? } else { None };
        Ok(Self { server, inbox, desk })
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        Some(&self.server.as_ref()?.socket.as_ref()?.path)
    }
}

fn listen(config: &AdminConfig, name: &str, desk: Desk, closing: Closing) -> Result<Option<Server>, AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(AdminError::System)?;
    let entered = runtime.enter();
    let socket = match &config.socket {
        Some(path) => Some(Socket::at(path)?),
        None => of_program(name),
    };
    let tcp = config.address().map(tcp).transpose()?;
    drop(entered);
    let served = socket.is_some() || tcp.is_some();
    Ok(served.then_some(Server { runtime, socket, tcp, orders: config.orders, desk, closing }))
}

/// The socket at the usual place, where there may be none: a program that cannot be looked at still works.
fn of_program(name: &str) -> Option<Socket> {
    match Socket::of_program(name) {
        Ok(socket) => Some(socket),
        Err(error) => {
            log::warn!(
                "no admin socket: {error} (name another one by [admin] socket = \"PATH\", or say [admin] enabled = false)"
            );
            None
        }
    }
}

fn tcp(address: SocketAddr) -> Result<tokio::net::TcpListener, AdminError> {
    let failed = |source| AdminError::Listen { address, source };
    if !address.ip().is_loopback() {
        log::warn!("[admin] listen: whoever reaches {address} can read what this program knows; nothing is encrypted");
    }
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpListener::from_std(listener).map_err(failed)
}

/// The path of a configuration, as people see it.
pub(crate) fn shown(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.display().to_string())
}
