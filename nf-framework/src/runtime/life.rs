//! The life of ports in a running program: links go down and up, devices are reset, go away and come
//! back. The control thread leads it; the packet path notices that it has no queue.
//!
//! To reset a device control asks each worker for its queues, by its mailbox, between two bursts.
//! Workers go on with their other ports. When all queues are home the port is stopped, started by its
//! own settings, and the workers get the new queues. What functions know stays where it is.

use super::config::SteeringKind;
use super::control::Control;
use super::course::{Course, Failed, LOOKS, Step};
use super::ports::{PlannedPort, filters, look_at_mac_address};
use crate::berth::Berth;
use crate::headers::MacAddress;
use crate::mailbox::{Errand, Letter, QueuesLetter};
use crate::report::PortReport;
use crate::router::RouterConfig;
use crate::steering::Steering;
use crate::verdict::PortIx;
use dpdk_rs::{Offloads, Port, PortInfo, QueuePair};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a link is looked at.
const LINK_LOOKS: Duration = Duration::from_secs(1);
/// And one that may be all that tells of a reset.
const CLOSE_LOOKS: Duration = Duration::from_millis(200);
/// How long after a port was built anew its link is not taken as a reason to do so again.
const LINK_SETTLES: Duration = Duration::from_secs(3);
/// How long workers may take to give queues back to somebody who waits; it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a port is not up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The program has no such port.
    #[error("there is no port {name:?}; there are: {have}")]
    NoSuchPort {
        /// As asked for.
        name: String,
        /// Those that there are.
        have: String,
    },
    /// It does not start. It is still tried, now and then.
    #[error("port {port} is down: {why}")]
    Down {
        /// Its name.
        port: String,
        /// What stood in the way the last time.
        why: String,
    },
    /// A worker has not given its queue back: it has stopped, or a function keeps it busy.
    #[error("port {port}: a worker has not given its queues back: it has stopped, or a function keeps it busy")]
    QueuesOut {
        /// Its name.
        port: String,
    },
}

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
        let Ok(link) = port.link() else { return };
        if !link.up && is_elsewhere(port) {
            return;
        }
        match self.link.see(link.up, Instant::now()) {
            Some(LinkChange::Up { reset }) => {
                log::info!("{}: the link is {link}", port.name());
                self.asked |= reset;
            }
            Some(LinkChange::Down) => log::warn!("{}: the link is down", port.name()),
            None => {}
        }
    }

    /// Asks the workers that have queues of the port for them, or gives them theirs.
    fn write_to_workers(&self, control: &Control, index: usize, errand: Errand) {
        let port = PortIx(u16::try_from(index).unwrap_or(u16::MAX));
        for (mailbox, berth) in control.shared.mailboxes.iter().zip(&self.berths) {
            mailbox.post(Letter::Queues(QueuesLetter { port, berth: Arc::clone(berth), errand }));
        }
    }
}

impl Control {
    /// Looks after the ports: takes note of links that have gone down or come up, resets devices that
    /// ask for it, lets those go that are taken away, and looks for them. [`App`](crate::App) does so
    /// all the time; a program that runs by [`Runtime`](crate::Runtime) calls it now and then. It does
    /// not wait for workers. What it finds and does is in the log and in the [report](Self::report).
    pub fn tend_ports(&self) {
        for index in 0..self.ports.len() {
            self.tend_port(index);
        }
    }

    /// Has a port built anew, as after a reset of its device: the workers give its queues back, it is
    /// stopped and started by its settings, and they get new ones. Packets that are to leave by it are
    /// dropped meanwhile (`port-down`), and functions keep what they know. A port that is down is tried
    /// at once. Returns when it is up, or when it does not start.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]. The port is then still down, and [`tend_ports`](Self::tend_ports) goes on.
    pub fn rebuild_port(&self, name: &str) -> Result<(), RebuildError> {
        let index = self.ports.iter().position(|port| port.name() == name).ok_or_else(|| RebuildError::NoSuchPort {
            name: name.to_owned(),
            have: self.ports.iter().map(Port::name).collect::<Vec<_>>().join(", "),
        })?;
        if let Some(life) = self.lives.borrow_mut().get_mut(index) {
            life.asked = true;
            life.why_down.clear();
        }
        let give_up = Instant::now() + PATIENCE;
        loop {
            self.tend_port(index);
            let lives = self.lives.borrow();
            let Some(life) = lives.get(index) else { return Ok(()) };
            if life.is_up() && !life.asked {
                return Ok(());
            }
            if self.ports.get(index).is_some_and(Port::is_up) && (self.stopping() || Instant::now() > give_up) {
                return Err(RebuildError::QueuesOut { port: name.to_owned() });
            }
            if !life.why_down.is_empty() || self.stopping() {
                let stopping = "the program is stopping".to_owned();
                let why = if life.why_down.is_empty() { stopping } else { life.why_down.clone() };
                return Err(RebuildError::Down { port: name.to_owned(), why });
            }
            drop(lives);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has devices that filter VLANs let those of a router's interfaces through.
    pub(super) fn admit_vlans(&self, router: &RouterConfig) {
        for (port, life) in self.ports.iter().zip(self.lives.borrow().iter()).take(self.telling.sides) {
            let vlans = life.plan.vlans(router, self.telling.sides);
            if port.rx_offloads().contains(Offloads::RX_VLAN_FILTER) {
                port.admit_vlans(&vlans);
            } else if port.info().is_ok_and(|info| filters(&info, &vlans)) {
                log::warn!(
                    "{}: a virtual function that began without VLANs gets no frames of theirs: restart",
                    port.name()
                );
            }
        }
    }

    /// Whether all ports are up.
    pub(super) fn ports_are_up(&self) -> bool {
        self.lives.borrow().iter().all(Life::is_up)
    }

    fn tend_port(&self, index: usize) {
        let mut lives = self.lives.borrow_mut();
        let (Some(port), Some(life)) = (self.ports.get(index), lives.get_mut(index)) else { return };
        let now = Instant::now();
        let mut said = port.events();
        if std::mem::take(&mut life.asked) {
            said.reset |= life.is_up();
            life.course.hurry(now);
        }
        let (berths, mut home) = (&life.berths, None);
        let all_home = || {
            home = Berth::take_all(berths);
            home.is_some()
        };
        match life.course.step(now, said, all_home) {
            Step::Wait => {
                if life.is_up() && (said.link || now >= life.next_look) {
                    life.look_at_link(port);
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
                life.write_to_workers(self, index, Errand::GiveBack);
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
                if std::mem::take(&mut life.find_anew) {
                    let_go(port);
                }
                self.bring_up(index, port, life);
            }
            Step::LetGo => let_go(port),
            Step::LookFor => {
                let_go(port);
                self.bring_up(index, port, life);
            }
        }
    }

    fn bring_up(&self, index: usize, port: &Port, life: &mut Life) {
        match port.bring_up() {
            Ok(queues) => {
                life.course.came_up();
                life.resets += 1;
                let now = Instant::now();
                life.link.begin_anew(now);
                life.next_look = now + life.link.looks();
                for (berth, queues) in life.berths.iter().zip(queues) {
                    berth.put(queues);
                }
                let trusted = self.tell_again(index, port, &life.plan);
                life.write_to_workers(self, index, Errand::Take { trusted });
                self.take_mac_address(index, port, life);
                log::info!("{}: up again, MAC address {}", port.name(), life.mac);
                if std::mem::take(&mut life.wants_address) {
                    (life.asked, life.find_anew) = (true, true);
                }
            }
            Err(error) => {
                life.why_down = error.to_string();
                match life.course.failed(Instant::now()) {
                    Failed::First => log::warn!("{error}: it is tried again"),
                    Failed::Again => log::debug!("{error}"),
                    Failed::GivenUp => {
                        let seconds = LOOKS.as_secs();
                        log::error!("{error}: the device is given up, and looked for every {seconds} s");
                    }
                }
            }
        }
    }

    /// Tells a port that was started again what it was told at the start.
    fn tell_again(&self, index: usize, port: &Port, plan: &PlannedPort) -> bool {
        let Telling { steering, sides, kind, workers } = &self.telling;
        let steering = steering.as_deref().filter(|_| index < *sides);
        plan.tell(port, *workers, steering, *kind).unwrap_or_else(|error| {
            log::error!("{error}");
            false
        })
    }

    /// Takes a port's MAC address as it is now.
    fn take_mac_address(&self, index: usize, port: &Port, life: &mut Life) {
        let mac = mac_of(port);
        if index < self.telling.sides && mac != life.mac {
            log::warn!("{}: its MAC address is {mac} now, in place of {}", port.name(), life.mac);
            if let Err(error) = self.change_mac_address(index, mac) {
                log::error!("{}: the router keeps its old MAC address: {error}", port.name());
            }
        }
        life.mac = mac;
        look_at_mac_address(port);
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

/// Whether the kernel's interface behind a port is in another network namespace: net_tap asks for its
/// state by a name that is not there then, and takes the link for down.
fn is_elsewhere(port: &Port) -> bool {
    let Some(index) = port.info().ok().and_then(|info| info.kernel_interface) else { return false };
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let index_of = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("ifindex")).ok();
    !interfaces.filter_map(index_of).any(|text| text.trim().parse() == Ok(index))
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
