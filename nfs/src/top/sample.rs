//! What a program says of itself at one moment.

use crate::door::{Backend, ChainRow, Client, DoorError, FunctionTopics, Program, Stats, path};
use serde::Deserialize;
use serde_json::Value;
use std::time::Instant;

/// Backends that are asked for: what fits on no screen is not worth the program's time.
const BACKENDS: usize = 200;

/// All that is asked at once.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `/v1/program`
    pub program: Program,
    /// `/v1/stats`
    pub stats: Stats,
    /// `/v1/chain`; empty where there is none.
    pub chain: Vec<ChainRow>,
    /// Of all functions that have backends.
    pub backends: Vec<Backend>,
    /// When these were answered.
    pub at: Answered,
}

/// Moments of one sample's answers: a program that has much to do takes its time between two of them, in which its
/// counters go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered {
    /// `stats`.
    pub stats: Instant,
    /// `chain`.
    pub chain: Instant,
    /// `backends`.
    pub backends: Instant,
}

impl Answered {
    /// All at once.
    #[must_use]
    pub fn at_once(at: Instant) -> Self {
        Self { stats: at, chain: at, backends: at }
    }
}

/// Asks again and again, and remembers what does not change.
#[derive(Debug)]
pub(super) struct Sampler {
    client: Client,
    /// What there is to ask, and of which process.
    topics: Option<(u32, Vec<FunctionTopics>)>,
}

impl Sampler {
    pub(super) fn new(client: Client) -> Self {
        Self { client, topics: None }
    }

    /// Asks for everything.
    pub(super) fn sample(&mut self) -> Result<Sample, DoorError> {
        let program: Program = self.client.read("/v1/program")?;
        let stats = self.client.read("/v1/stats")?;
        let mut at = Answered::at_once(Instant::now());
        let chain = or_nothing(self.client.read("/v1/chain"))?;
        at.chain = Instant::now();
        if self.topics.as_ref().is_none_or(|(pid, _)| *pid != program.pid) {
            self.topics = Some((program.pid, or_nothing(self.client.read("/v1/functions"))?));
        }
        let mut backends = Vec::new();
        for (function, topic) in self.having("backends") {
            backends.extend(self.backends(&function, &topic)?);
        }
        at.backends = Instant::now();
        Ok(Sample { program, stats, chain, backends, at })
    }

    /// The functions with a topic of this name.
    fn having(&self, topic: &str) -> Vec<(String, String)> {
        let functions = self.topics.iter().flat_map(|(_, functions)| functions);
        let having = functions.filter(|function| function.topics.iter().any(|had| had.name == topic));
        having.map(|function| (function.name.clone(), topic.to_owned())).collect()
    }

    fn backends(&self, function: &str, topic: &str) -> Result<Vec<Backend>, DoorError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Backends {
            items: Vec<Value>,
        }
        let path = path(&["v1", "functions", function, topic]);
        let Backends { items } = or_nothing(self.client.read(&format!("{path}?limit={BACKENDS}")))?;
        Ok(items.into_iter().filter_map(Backend::of).collect())
    }
}

/// What a program does not have, or refuses just now, is empty; one that is not reached is an error.
fn or_nothing<T: Default>(result: Result<T, DoorError>) -> Result<T, DoorError> {
    match result {
        Err(DoorError::Refused { .. }) => Ok(T::default()),
        other => other,
    }
}
