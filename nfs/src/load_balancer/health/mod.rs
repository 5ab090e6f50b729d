//! Whether backends are up.

use serde::Deserialize;

/// `[load-balancer.services.health]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {}
