//! Destination NAT and full NAT: what they need of the rest.

use super::connections::Connection;
use super::flow::{Flow, Key, Seen};
use super::policy::{Policy, Way};
use super::reasons::Reasons;
use nf_framework::{Context, DropReason, Mbuf, SetupError, Verdict, WorkerSetup};
use std::sync::Arc;

/// One worker's translations.
#[derive(Debug)]
pub(super) struct Translation {}

impl Translation {
    pub(super) fn new(_: &Policy, _: &mut WorkerSetup) -> Result<Self, SetupError> {
        Ok(Self {})
    }

    /// Bytes that it takes.
    pub(super) fn bytes(_: &Policy) -> usize {
        0
    }

    pub(super) fn adopt(&mut self, _: &Arc<Policy>) {}

    /// Before a connection of a mode that translates is remembered: what it needs for that is written into it.
    pub(super) fn begin(
        &mut self,
        _: &Flow,
        _: &Way,
        _: &mut Connection,
        reasons: &Reasons,
        _: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        Err(reasons.not_translated)
    }

    /// A connection that has ended gives back what it held.
    pub(super) fn release(&mut self, _: &Key, _: &Connection) {}

    /// Translates a packet of a client's to its backend.
    pub(super) fn forward(
        &mut self,
        _: &mut Mbuf,
        _: &Seen,
        _: &Way,
        _: &Connection,
        reasons: &Reasons,
    ) -> Result<(), DropReason> {
        Err(reasons.not_translated)
    }

    /// Translates a packet of a backend's that answers a client, an error among them; nothing if it is none.
    pub(super) fn reply(&mut self, _: &mut Mbuf, _: &Seen, _: &mut Context<'_>) -> Option<Verdict> {
        None
    }

    pub(super) fn tick(&mut self, _: &mut Context<'_>, _: u32) {}
}
