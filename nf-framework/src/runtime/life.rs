//! The life of ports in a running program: links go down and up, devices are reset, go away and come
//! back. The control thread leads it; the packet path notices that it has no queue.
//!
//! To reset a device control asks each worker for its queues, by its mailbox, between two bursts.
//! Workers go on with their other ports. When all queues are home the port is stopped, started by its
//! own settings, and the workers get the new queues. What functions know stays where it is.

use super::config::SteeringKind;
use super::course::{Course, Failed, LOOKS, Step};
use super::ports::{PlannedPort, look_at_mac_address};
use crate::berth::Berth;
use crate::headers::MacAddress;
use crate::mailbox::{Errand, Letter, Mailbox, QueuesLetter};
use crate::port_link::link_of;
use crate::report::PortReport;
use crate::router::RouterConfig;
use crate::steering::Steering;
use crate::verdict::PortIx;
use dpdk_rs::{Port, PortInfo, QueuePair};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a link is looked at.
const LINK_LOOKS: Duration = Duration::from_secs(1);
/// And one that may be all that tells of a reset.
const CLOSE_LOOKS: Duration = Duration::from_millis(200);
/// How long after a port was built anew its link is not taken as a reason to do so again.
const LINK_SETTLES: Duration = Duration::from_secs(3);
/// One port's life.
#[derive(Debug)]
pub(super) struct Life {
    course: Course,
    plan: PlannedPort,
    /// By worker, from the first on.
    berths: Vec<Arc<Berth>>,
    /// Somebody wants it to be reset.
    asked: bool,
    mac: MacAddress,
    link: LinkWatch,
    next_look: Instant,
    /// Its driver has invented its address: some ask for it only when they find the device, so it is found
    /// anew, once, when it has come up again and its physical function is known to be there.
    wants_address: bool,
    find_anew: bool,
    why_down: String,
    resets: u64,
}

/// What is known of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LinkWatch {
    /// As it was last seen.
    up: Option<bool>,
    /// How often it was seen to go down.
    downs: u64,
    /// That the link of a virtual function comes back may be all that tells of a reset of its physical
    /// function: some drivers tell of no links, and behind uio_pci_generic of nothing.
    resets_port: bool,
    /// It may go down and up with each reset, which are no new ones.
    settled: Option<Instant>,
}

/// A link that is not as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinkChange {
    Down,
    /// `reset`: the port is to be built anew.
    Up {
        reset: bool,
    },
}

impl LinkWatch {
    /// How often to look.
    fn looks(&self) -> Duration {
        if self.resets_port { CLOSE_LOOKS } else { LINK_LOOKS }
    }

    /// Notes how the link is. Returns that if it is worth a line: it has changed, or is down at first.
    fn see(&mut self, up: bool, now: Instant) -> Option<LinkChange> {
        let before = self.up.replace(up);
        self.downs += u64::from(before == Some(true) && !up);
        let reset = self.resets_port && self.settled.is_none_or(|settled| now >= settled);
        let change = if up { LinkChange::Up { reset } } else { LinkChange::Down };
        (before.unwrap_or(true) != up).then_some(change)
    }

    /// The port was built anew: how its link was says nothing of how it is.
    fn begin_anew(&mut self, now: Instant) {
        (self.up, self.settled) = (None, Some(now + LINK_SETTLES));
    }
}

/// What a port that comes up again is told, as at the start.
#[derive(Debug)]
pub(super) struct Telling {
    /// `None` where any worker may have any packet.
    pub(super) steering: Option<Arc<Steering>>,
    /// How many of the ports are ends of the chain, which steering is about.
    pub(super) sides: usize,
    pub(super) kind: SteeringKind,
    pub(super) workers: NonZero<u16>,
}

impl Life {
    pub(super) fn new(port: &Port, plan: &PlannedPort) -> Self {
        let info = port.info().ok();
        let says = |what: fn(&PortInfo) -> bool| info.as_ref().is_some_and(what);
        let tells_of_link = says(|info| info.interrupts.link);
        let how = if tells_of_link { "its driver tells of its link" } else { "its link is looked at now and then" };
        log::debug!("{}: {how}", port.name());
        let answered = port.is_answered();
        if !answered {
            log::warn!("{}: its physical function does not answer: it is tried again and again", port.name());
        }
        Self {
            course: Course::up(),
            plan: plan.clone(),
            berths: (0..plan.queues.get()).map(|_| Arc::default()).collect(),
            asked: !answered,
            mac: mac_of(port),
            link: LinkWatch {
                resets_port: says(PortInfo::is_virtual_function) && !tells_of_link,
                ..LinkWatch::default()
            },
            next_look: Instant::now(),
            wants_address: says(PortInfo::has_invented_mac_address),
            find_anew: false,
            why_down: String::new(),
            resets: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.course.is_up()
    }

    /// The queues that no worker has.
    pub(super) fn queues(&self) -> Vec<QueuePair> {
        self.berths.iter().filter_map(|berth| berth.take()).collect()
    }

    pub(super) fn write(&self, report: &mut PortReport) {
        (report.link_downs, report.resets, report.removals) = (self.link.downs, self.resets, self.course.removals);
        report.down = !self.is_up();
    }

    /// Logs a link that has changed.
    fn look_at_link(&mut self, port: &Port) {
        self.next_look = Instant::now() + self.link.looks();
        let Some(link) = link_of(port) else { return };
        match self.link.see(link.up, Instant::now()) {
            Some(LinkChange::Up { reset }) => {
                log::info!("{}: the link is {link}", port.name());
                self.asked |= reset;
            }
            Some(LinkChange::Down) => log::warn!("{}: the link is down", port.name()),
            None => {}
        }
    }

    /// Somebody wants the port to be built anew, at once.
    pub(super) fn ask(&mut self) {
        self.asked = true;
        self.why_down.clear();
    }

    /// Whether that is still to be done.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// What stood in the way of its start the last time; empty if it was not tried since somebody asked.
    pub(super) fn why_down(&self) -> &str {
        &self.why_down
    }

    /// The VLANs that the port is to let through for a router.
    pub(super) fn vlans(&self, router: &RouterConfig, sides: usize) -> Vec<u16> {
        self.plan.vlans(router, sides)
    }

    /// Does what is to be done now for the port of this number. Returns its MAC address if that has changed.
    pub(super) fn tend(
        &mut self,
        index: usize,
        port: &Port,
        telling: &Telling,
        mailboxes: &[Arc<Mailbox>],
    ) -> Option<MacAddress> {
        let now = Instant::now();
        let mut said = port.events();
        if std::mem::take(&mut self.asked) {
            said.reset |= self.is_up();
            self.course.hurry(now);
        }
        let (berths, mut home) = (&self.berths, None);
        let all_home = || {
            home = Berth::take_all(berths);
            home.is_some()
        };
        match self.course.step(now, said, all_home) {
            Step::Wait => {
                if self.is_up() && (said.link || now >= self.next_look) {
                    self.look_at_link(port);
                }
            }
            Step::Recall { away } => {
                let name = port.name();
                if away {
                    let seconds = LOOKS.as_secs();
                    log::warn!(
                        "{name}: its device is being taken away; it is let go, and looked for every {seconds} s"
                    );
                } else {
                    log::warn!("{name}: its device is to be reset: the workers give its queues back");
                }
                self.write_to_workers(mailboxes, index, Errand::GiveBack);
            }
            Step::TakeDown { away } => {
                if let Err(error) = port.take_down(home.unwrap_or_default()) {
                    log::debug!("{error}");
                }
                if away {
                    let_go(port);
                }
            }
            Step::BringUp => {
                if std::mem::take(&mut self.find_anew) {
                    let_go(port);
                }
                return self.bring_up(index, port, telling, mailboxes);
            }
            Step::LetGo => let_go(port),
            Step::LookFor => {
                let_go(port);
                return self.bring_up(index, port, telling, mailboxes);
            }
        }
        None
    }

    fn bring_up(
        &mut self,
        index: usize,
        port: &Port,
        telling: &Telling,
        mailboxes: &[Arc<Mailbox>],
    ) -> Option<MacAddress> {
        match port.bring_up() {
            Ok(queues) => {
                self.course.came_up();
                self.resets += 1;
                let now = Instant::now();
                self.link.begin_anew(now);
                self.next_look = now + self.link.looks();
                for (berth, queues) in self.berths.iter().zip(queues) {
                    berth.put(queues);
                }
                let trusted = self.tell_again(index, port, telling);
                self.write_to_workers(mailboxes, index, Errand::Take { trusted });
                let before = std::mem::replace(&mut self.mac, mac_of(port));
                let changed = index < telling.sides && self.mac != before;
                if changed {
                    log::warn!("{}: its MAC address is {} now, in place of {before}", port.name(), self.mac);
                }
                look_at_mac_address(port);
                log::info!("{}: up again, MAC address {}", port.name(), self.mac);
                if std::mem::take(&mut self.wants_address) {
                    (self.asked, self.find_anew) = (true, true);
                }
                changed.then_some(self.mac)
            }
            Err(error) => {
                self.why_down = error.to_string();
                match self.course.failed(Instant::now()) {
                    Failed::First => log::warn!("{error}: it is tried again"),
                    Failed::Again => log::debug!("{error}"),
                    Failed::GivenUp => {
                        let seconds = LOOKS.as_secs();
                        log::error!("{error}: the device is given up, and looked for every {seconds} s");
                    }
                }
                None
            }
        }
    }

    /// Tells a port that was started again what it was told at the start.
    fn tell_again(&self, index: usize, port: &Port, telling: &Telling) -> bool {
        let Telling { steering, sides, kind, workers } = telling;
        let steering = steering.as_deref().filter(|_| index < *sides);
        self.plan.tell(port, *workers, steering, *kind).unwrap_or_else(|error| {
            log::error!("{error}");
            false
        })
    }

    /// Asks the workers that have queues of the port for them, or gives them theirs.
    fn write_to_workers(&self, mailboxes: &[Arc<Mailbox>], index: usize, errand: Errand) {
        let port = PortIx(u16::try_from(index).unwrap_or(u16::MAX));
        for (mailbox, berth) in mailboxes.iter().zip(&self.berths) {
            mailbox.post(Letter::Queues(QueuesLetter { port, berth: Arc::clone(berth), errand }));
        }
    }
}

/// Has the driver let go of a device, if it has not.
fn let_go(port: &Port) {
    if let Err(error) = port.detach() {
        log::debug!("{error}");
    }
}

fn mac_of(port: &Port) -> MacAddress {
    MacAddress(port.info().map_or([0; 6], |info| info.mac_address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Option<LinkChange> = Some(LinkChange::Down);

    fn up(reset: bool) -> Option<LinkChange> {
        Some(LinkChange::Up { reset })
    }

    #[test]
    fn a_link_is_told_of_once_each_way_and_its_downs_are_counted() {
        for (seen, told, downs) in [
            (&[true, true][..], &[None, None][..], 0),
            (&[false, false, true], &[DOWN, None, up(false)], 0),
            (&[true, false, false, true, true, false], &[None, DOWN, None, up(false), None, DOWN], 2),
        ] {
            let mut link = LinkWatch::default();
            let now = Instant::now();
            assert_eq!(seen.iter().map(|up| link.see(*up, now)).collect::<Vec<_>>(), told, "{seen:?}");
            assert_eq!(link.downs, downs, "{seen:?}");
        }
    }

    #[test]
    fn a_link_that_comes_back_is_a_reset_of_a_port_that_nothing_else_tells_of() {
        let start = Instant::now();
        let mut link = LinkWatch { resets_port: true, ..LinkWatch::default() };
        for (seconds, seen, told) in [(0, false, DOWN), (1, true, up(true)), (2, false, DOWN), (3, true, up(true))] {
            assert_eq!(link.see(seen, start + Duration::from_secs(seconds)), told);
        }
        link.begin_anew(start + Duration::from_secs(4));
        for (seconds, seen, told) in [(5, false, DOWN), (6, true, up(false)), (7, false, DOWN), (8, true, up(true))] {
            assert_eq!(link.see(seen, start + Duration::from_secs(seconds)), told, "at {seconds} s");
        }
        assert_eq!(link.downs, 2, "and what is down after a reset has not gone down");
    }
}
