//! Which packets begin a connection, for the packet path and for whoever explains it.

use super::packet::Says;
use super::reasons::Reasons;
use super::tcp::{self, Event};

/// Whether a packet that belongs to no connection may begin one, so that rules are asked about it; the reason that it is
/// dropped for otherwise. An acknowledgment may where connections are picked up in `mid_stream`.
pub(super) fn begins<R: Copy>(says: Says, mid_stream: bool, reasons: &Reasons<R>) -> Result<(), R> {
    match says {
        Says::Tcp(segment) => match tcp::event(segment.flags) {
            None => Err(reasons.tcp_flags),
            Some(Event::Syn) => Ok(()),
            Some(Event::Ack) if mid_stream => Ok(()),
            Some(_) => Err(reasons.no_connection),
        },
        Says::Query { asks: true } | Says::Datagram => Ok(()),
        Says::Query { asks: false } => Err(reasons.no_connection),
        Says::Later | Says::LaterOfQuery(_) => Err(reasons.fragment),
    }
}
