//! What one worker knows: the rules in force, its connections, and what limits and counts them.

use super::config::Live;
use super::cookies::Offer;
use super::limits::Limits;
use super::log::{Event, Events, What};
use super::packet::Seen;
use super::policy::Policy;
use super::reasons::{Counters, Reasons};
use super::syn_proxy::SynProxy;
use super::tcp::Segment;
use super::tracking::Tracking;
use nf_framework::{Budget, Context, TokenBucket};
use std::sync::Arc;

/// Everything that judging a packet needs and changes.
#[derive(Debug)]
pub(super) struct WorkerState {
    pub(super) policy: Arc<Policy>,
    pub(super) tracking: Tracking,
    /// By slot: packets that began or were about a connection, and that its rule decided about.
    pub(super) hits: Vec<u64>,
    pub(super) limits: Limits,
    /// Where a rule has SYN cookies.
    pub(super) proxy: Option<SynProxy>,
    /// Of answers to what is rejected.
    pub(super) answers: TokenBucket,
    events: Events,
    workers: usize,
    pub(super) reasons: Reasons,
    pub(super) counters: Counters,
}

impl WorkerState {
    pub(super) fn new(
        policy: Arc<Policy>,
        (tracking, limits, proxy): (Tracking, Limits, Option<SynProxy>),
        workers: usize,
        events: Events,
        reasons: Reasons,
        counters: Counters,
    ) -> Self {
        let mut state = Self {
            tracking,
            hits: Vec::new(),
            limits,
            proxy,
            answers: bucket_of_answers(&policy, workers),
            events,
            workers,
            reasons,
            counters,
            policy,
        };
        state.make_room();
        state
    }

    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        if policy.config.live == Live::Rejudge {
            self.tracking.outdate();
        }
        if policy.config.rejections_per_second != self.policy.config.rejections_per_second {
            self.answers = bucket_of_answers(&policy, self.workers);
        }
        // What was known of rules that are gone is nothing of those that have their slots.
        for slot in policy.slots_reused_since(&self.policy) {
            if let Some(hits) = self.hits.get_mut(slot) {
                *hits = 0;
            }
            self.limits.forget(slot);
            if let Some(proxy) = &mut self.proxy {
                proxy.forget(slot);
            }
        }
        self.policy = policy;
        self.limits.adopt(&self.policy, self.workers);
        self.make_room();
    }

    /// A place for each slot of a rule.
    fn make_room(&mut self) {
        let slots = self.policy.slots();
        self.hits.resize(slots.max(self.hits.len()), 0);
        self.tracking.adopt(&self.policy.config, slots, self.workers);
        if let Some(proxy) = &mut self.proxy {
            proxy.adopt(slots);
        }
    }

    pub(super) fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.tracking.tick(cx.now(), budget.0);
        self.limits.tick(cx.now(), budget.0);
        if let Some(proxy) = &mut self.proxy {
            proxy.tick(cx.now());
        }
        self.events.tick();
        self.counters.follow(&self.tracking);
    }

    /// What the client has offered whose cookie comes back with this acknowledgment.
    pub(super) fn returned(&self, seen: &Seen) -> Option<(Segment, Offer)> {
        self.proxy.as_ref()?.returned(seen)
    }

    pub(super) fn is_limited(&self, slot: Option<u16>) -> bool {
        slot.is_some_and(|slot| self.limits.are_of_packets(slot))
    }

    pub(super) fn write_down(&mut self, what: What, rule: Option<usize>, seen: &Seen, cx: &Context<'_>) {
        if self.events.are_heard() {
            self.events.tell(Event::new(what, self.policy.quoted(rule), seen, cx.direction()));
        }
    }
}

fn bucket_of_answers(policy: &Policy, workers: usize) -> TokenBucket {
    let share = policy.config.rejections_per_second.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX));
    TokenBucket::new(share, share.div_ceil(10))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Firewall, Instance};
    use super::*;
    use nf_framework::testing::{Frame, lab};
    use nf_framework::{Direction, Function};

    #[test]
    fn a_rule_that_has_the_slot_of_another_one_begins_with_nothing() {
        let rules = |name: &str| {
            let text = format!(
                "rfc4890 = false\nconnections = 64\n[[rules]]\nname = '{name}'\naction = 'accept'\nlimit = \
                 {{ connections_per_second = 1, burst = 2 }}"
            );
            toml::from_str::<Config>(&text).unwrap()
        };
        lab(move |lab| {
            let mut running = Arc::new(Policy::with_slots(rules("0"), 3).unwrap());
            Firewall.build(&running, &lab.eal.memory()).unwrap();
            let first = Arc::clone(&running);
            let mut trial = lab.trial(|worker| Firewall.instance(Arc::clone(&first), worker).unwrap().into());
            for name in 1..=8 {
                let udp = |port| Frame::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(port, 53).build();
                let sent = trial.send(Direction::Outbound, &[1, 2, 3].map(|port| udp(name * 10 + port)));
                assert_eq!((sent.outside.len(), sent.dropped.len()), (2, 1), "{name}: its own burst, and no more");
                let hits = trial.command(0, |instance: &mut Instance, _| instance.rule_hits());
                assert_eq!(hits[0].hits, 3, "{name}");
                let next = || Firewall.replace(rules(&name.to_string()), &running).unwrap();
                let policy = next();
                running = Arc::new(next());
                trial.publish(0, &Firewall, policy);
            }
        });
    }
}
