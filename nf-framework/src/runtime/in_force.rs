//! What is in force of each function, for reloads to compare and replace.

use super::loaded::{AnyFunction, AnyPolicy, Loaded};
use crate::changes::Table;
use crate::report::BackendReport;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// What a function works by now.
pub(super) struct InForce {
    pub(super) function: Arc<dyn AnyFunction>,
    /// The part of the file that it was last made of.
    pub(super) section: Table,
    /// The newest last, and earlier ones only while it is not known that every instance has
    /// let them go.
    pub(super) policies: Vec<AnyPolicy>,
}

impl InForce {
    pub(super) fn new(loaded: &Loaded) -> Self {
        let Loaded { function, policy, section } = loaded.clone();
        Self { function, section, policies: vec![policy] }
    }

    /// Whom it gives work to, each once: of two of one name nothing could be told apart.
    pub(super) fn backends(&self) -> Vec<BackendReport> {
        let mut backends = self.policies.last().map_or_else(Vec::new, |policy| self.function.backends(policy));
        let mut seen = HashSet::new();
        backends.retain(|backend| seen.insert((backend.service.clone(), backend.name.clone())));
        backends
    }
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InForce").field("function", &self.function.name()).finish_non_exhaustive()
    }
}
