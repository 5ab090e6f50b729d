//! A load balancer's servers in the columns that a terminal has; `--json` has all fields as they come.

use crate::door::{Backend, bytes};
use serde_json::{Value, json};

/// What is shown of one: its name as orders take it, and its state in a word. What is no backend of a load balancer's is
/// shown as it is.
pub(super) fn row(item: Value) -> Value {
    if ["service", "backend", "share", "order"].iter().any(|field| item.get(field).is_none()) {
        return item;
    }
    let Some(backend) = Backend::of(item.clone()) else { return item };
    json!({
        "backend": backend.full_name(),
        "address": backend.address,
        "state": backend.state(),
        "weight": backend.weight,
        "packets": backend.packets,
        "bytes": bytes(backend.bytes),
        "begun": backend.begun,
        "live": backend.live,
        "failed": backend.failed,
    })
}
