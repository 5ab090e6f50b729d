//! Lets so many packets per second through in each direction and drops the rest: a token
//! bucket, filled by the time that passes.
//!
//! Every worker has its share of the rate, as workers share nothing: with RSS spreading the
//! flows evenly the sum is the rate that was asked for, and it is never more.

use nf_framework::{
    Batch, Context, Direction, DropReason, Function, Instant, Invalid, NetworkFunction, SetupError, Verdict,
    WorkerSetup,
};
use serde::Deserialize;
use std::sync::Arc;

/// The table `[rate-limit]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Packets per second, for each direction.
    pub packets_per_second: u64,
    /// Packets that may pass at once after a pause, and at least one on each worker; a tenth of
    /// a second's worth unless given.
    pub burst: Option<u64>,
}

/// What instances work by.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    packets_per_second: u64,
    burst: u64,
}

/// The control object.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit;

/// The buckets of one worker.
#[derive(Debug)]
pub struct Instance {
    outbound: Bucket,
    inbound: Bucket,
    workers: u64,
    exceeded: DropReason,
}

const NANOSECONDS: u128 = 1_000_000_000;
/// Above this a share in nanoseconds per packet means nothing any more.
const FASTEST: u64 = 1_000_000_000;

/// Tokens in units of a packet's billionth, so that next to nothing is lost to rounding.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Of all workers.
    rate: u128,
    workers: u128,
    capacity: u128,
    tokens: u128,
    filled: Instant,
}

impl Bucket {
    fn new(policy: &Policy, workers: u64) -> Self {
        let capacity = u128::from((policy.burst / workers).max(1)) * NANOSECONDS;
        let rate = u128::from(policy.packets_per_second);
        Self { rate, workers: u128::from(workers), capacity, tokens: capacity, filled: Instant::START }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.since(self.filled).as_nanos();
        self.tokens = (self.tokens + passed * self.rate / self.workers).min(self.capacity);
        self.filled = now;
    }

    fn take(&mut self) -> bool {
        let enough = self.tokens >= NANOSECONDS;
        if enough {
            self.tokens -= NANOSECONDS;
        }
        enough
    }
}

impl Function for RateLimit {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "rate-limit"
    }

    fn policy(&self, config: Config) -> Result<Policy, Invalid> {
        let Config { packets_per_second, burst } = config;
        if !(1..=FASTEST).contains(&packets_per_second) {
            return Err(Invalid::new("packets_per_second", format!("{packets_per_second} is not from 1 to {FASTEST}")));
        }
        let burst = burst.unwrap_or(packets_per_second.div_ceil(10));
        if !(1..=FASTEST).contains(&burst) {
            return Err(Invalid::new("burst", format!("{burst} is not from 1 to {FASTEST}")));
        }
        Ok(Policy { packets_per_second, burst })
    }

    fn instance(&self, policy: Arc<Policy>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        let workers = worker.workers() as u64;
        let exceeded = worker.drop_reason("rate-exceeded", "more packets per second than rate-limit allows")?;
        let bucket = Bucket::new(&policy, workers);
        Ok(Instance { outbound: bucket, inbound: bucket, workers, exceeded })
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        for bucket in [&mut instance.outbound, &mut instance.inbound] {
            let fresh = Bucket::new(&policy, instance.workers);
            *bucket = Bucket { tokens: bucket.tokens.min(fresh.capacity), filled: bucket.filled, ..fresh };
        }
    }
}

impl NetworkFunction for Instance {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let bucket = match cx.direction() {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        };
        bucket.fill(cx.now());
        for slot in batch.undecided() {
            if !bucket.take() {
                batch.decide(slot, Verdict::Drop(self.exceeded));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::testing::{Case, Frame, lab, trial};
    use std::time::Duration;

    fn instance(config: Config, worker: &mut WorkerSetup) -> Instance {
        let policy = RateLimit.policy(config).unwrap();
        RateLimit.instance(Arc::new(policy), worker).unwrap()
    }

    fn frame() -> Vec<u8> {
        Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, 53).build()
    }

    #[test]
    fn tokens_come_with_time_and_each_direction_has_its_own() {
        let config = Config { packets_per_second: 10, burst: Some(2) };
        trial(
            move |worker| instance(config, worker).into(),
            [
                Case::new("the burst passes").outbound(frame()).outbound(frame()).leaves_unchanged(),
                Case::new("one more does not").outbound(frame()).dropped("rate-exceeded"),
                Case::new("the other way is free").inbound(frame()).leaves_unchanged(),
                Case::new("99 ms are too short for a token")
                    .after(Duration::from_millis(99))
                    .outbound(frame())
                    .dropped("rate-exceeded"),
                Case::new("100 ms are not")
                    .after(Duration::from_millis(1))
                    .outbound(frame())
                    .outbound(frame())
                    .leaves_outside(frame())
                    .dropped("rate-exceeded"),
                Case::new("a long pause saves no more than the burst")
                    .after(Duration::from_secs(60))
                    .outbound(frame())
                    .outbound(frame())
                    .outbound(frame())
                    .leaves_outside(frame())
                    .leaves_outside(frame())
                    .dropped("rate-exceeded"),
            ],
        );
    }

    #[test]
    fn a_new_policy_takes_over_without_giving_tokens_away() {
        lab(|lab| {
            let config = Config { packets_per_second: 10, burst: Some(1) };
            let mut trial = lab.trial(move |worker| instance(config, worker).into());
            assert_eq!(trial.send(Direction::Outbound, &[frame(), frame()]).outside.len(), 1);
            let policy = RateLimit.policy(Config { packets_per_second: 1000, burst: Some(5) }).unwrap();
            trial.command(0, |instance, _| RateLimit::adopt(instance, Arc::new(policy)));
            assert_eq!(trial.send(Direction::Outbound, &[frame()]).outside.len(), 0);
            trial.advance(Duration::from_millis(3));
            assert_eq!(trial.send(Direction::Outbound, &vec![frame(); 5]).outside.len(), 3);
        });
    }

    #[test]
    fn workers_share_a_rate_that_is_lower_than_their_number() {
        let mut bucket = Bucket::new(&Policy { packets_per_second: 1, burst: 1 }, 4);
        assert!(bucket.take());
        for (second, expected) in [(3, false), (4, true), (7, false), (8, true)] {
            bucket.fill(Instant::START + Duration::from_secs(second));
            assert_eq!(bucket.take(), expected, "after {second} s");
        }
    }

    #[test]
    fn a_rate_that_is_none_is_refused() {
        for (packets_per_second, burst, key) in
            [(0, None, "packets_per_second"), (u64::MAX, None, "packets_per_second"), (5, Some(0), "burst")]
        {
            assert_eq!(RateLimit.policy(Config { packets_per_second, burst }).unwrap_err().key, key);
        }
    }
}
