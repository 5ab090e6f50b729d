//! A packet that the rules have decided about: it is counted, answered, written down, and begins a connection.

use super::answer::{self, Told};
use super::config::{Action, LogConfig, State};
use super::connection::{Connection, NO_SLOT};
use super::log::What;
use super::packet::{Flow, Kind, Says, Seen};
use super::policy::Decision;
use super::refusal::Refusal;
use super::syn_proxy;
use super::tcp::Tcp;
use super::tracking::Place;
use super::worker_state::WorkerState;
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::{Context, DropReason, Mbuf};

impl WorkerState {
    /// What becomes of a packet that the rules have decided about; the reason if it is dropped.
    pub(super) fn answered(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        state: State,
        decision: Decision,
        cx: &mut Context<'_>,
    ) -> Option<DropReason> {
        for slot in [decision.slot, self.policy.slot_of(decision.logged_by)].into_iter().flatten() {
            if let Some(hits) = self.hits.get_mut(usize::from(slot)) {
                *hits += 1;
            }
        }
        if decision.logged_by.is_some() {
            self.write_down(What::Logged, decision.logged_by, seen, cx);
        }
        let now = cx.now();
        let reason = match decision.action {
            Action::Accept => self.accepted(packet, seen, state, decision, cx).err(),
            Action::Drop | Action::Log | Action::Reject => {
                self.counters.denied.add(1);
                Some(if decision.slot.is_some() { self.reasons.denied } else { self.reasons.unmatched })
            }
        };
        let what = match (decision.action, reason) {
            (Action::Accept, None) => What::Accepted,
            (Action::Accept, Some(reason)) if reason == self.reasons.syn_proxy => What::Accepted,
            // Nobody has shown that it is there.
            (Action::Accept, Some(reason)) if reason == self.reasons.syn_cookie => return Some(reason),
            (Action::Accept, Some(DropReason::DRAINING)) => What::Draining,
            (Action::Accept, Some(_)) => What::Limited,
            (Action::Reject, _) => What::Rejected,
            (Action::Drop | Action::Log, _) => What::Dropped,
        };
        if what == What::Rejected {
            match answer::reject(packet, cx, || self.answers.take(now)) {
                Told::Sent => self.counters.rejected.add(1),
                Told::Bounded => self.counters.untold.add(1),
                Told::Nothing => {}
            }
        }
        let is_wanted = |log: &LogConfig| if what == What::Accepted { log.accepted } else { log.denied };
        if self.policy.config.log.as_ref().is_some_and(is_wanted) {
            self.write_down(what, decision.rule, seen, cx);
        }
        reason
    }

    /// A packet that a rule accepts, or that is related; why it is dropped all the same.
    fn accepted(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        state: State,
        Decision { rule, slot, .. }: Decision,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let now = cx.now();
        let returned = self.returned(seen);
        if let (None, Kind::Flow(flow, Says::Tcp(segment)), Some(proxy)) = (&returned, &seen.kind, &mut self.proxy)
            && let Some(rule) = rule.and_then(|rule| self.policy.rules.get(rule))
            && proxy.wants_cookies(rule, &self.limits, &self.tracking)
        {
            let by = (&*self.policy, &self.reasons, &mut self.counters);
            return Err(proxy.offer_cookie(packet, seen, (flow, segment), by, cx));
        }
        if let Some(slot) = slot
            && (!self.limits.connection(slot, seen.source, now)
                || state == State::New && !self.limits.packet(slot, seen.source, now))
        {
            return Err(self.reasons.rate_limit);
        }
        let (flow, says) = match seen.kind {
            Kind::Flow(flow, says) => (flow, says),
            Kind::Error(quoted) => {
                if let Some(proxy) = &self.proxy {
                    proxy.renumber_quoted(packet, &quoted, &self.tracking, cx);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        if cx.draining() {
            return Err(DropReason::DRAINING);
        }
        let Some((segment, offer)) = returned else { return self.begin(seen, &flow, says, slot, cx).map(drop) };
        let place = self.begin(seen, &flow, Says::Tcp(syn_proxy::syn_of(&segment, &offer)), slot, cx)?;
        self.counters.returned.add(1);
        if let Some(proxy) = &mut self.proxy {
            proxy.ask_server(packet, place, segment.acknowledgment.wrapping_sub(1), &mut self.tracking, cx);
        }
        Err(self.reasons.syn_proxy)
    }

    fn begin(
        &mut self,
        seen: &Seen,
        flow: &Flow,
        says: Says,
        slot: Option<u16>,
        cx: &Context<'_>,
    ) -> Result<Place, DropReason> {
        let tcp = match says {
            Says::Tcp(segment) if segment.flags.contains(TcpFlags::SYN) => Tcp::begun(&segment),
            Says::Tcp(segment) => Tcp::picked_up(&segment),
            _ => Tcp::default(),
        };
        let mut connection = Connection::new(tcp, flow.from_low, cx.direction());
        connection.slot = slot.unwrap_or(NO_SLOT);
        connection.set_generation(self.tracking.generation());
        connection.set_vlan(seen.vlan);
        connection.set_limited(self.is_limited(slot));
        let timer = connection.timer(flow.protocol);
        let now = cx.now();
        let timeout = self.policy.timeouts.get(timer as usize).map_or(now, |timeout| now + *timeout);
        let is_tcp = flow.protocol == IpProtocol::TCP;
        let embryonic = slot.filter(|_| is_tcp).and_then(|slot| self.limits.embryonic(slot));
        let begun = self.tracking.begin(&flow.key, connection, seen.source, embryonic, (timeout, now));
        let place = begun.map_err(|refusal| match refusal {
            Refusal::Full => self.reasons.full,
            Refusal::SourceLimit => self.reasons.source_limit,
            Refusal::SourcesFull => self.reasons.sources_full,
            Refusal::EmbryonicLimit => self.reasons.embryonic_limit,
        })?;
        self.tracking.settle(place, flow.protocol);
        self.counters.accepted.add(1);
        Ok(place)
    }
}
