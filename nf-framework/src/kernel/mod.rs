//! What the kernel beside us knows: addresses and routes of its interfaces, followed by rtnetlink.
//!
//! An exception port gives what is for the host itself to the kernel, so that DHCP, ssh or a BGP
//! daemon run there on the addresses of this router. What they set in the kernel (an address, a
//! route that FRR or BIRD learned) comes here as a whole [`KernelState`], at most ten times in a
//! second, and only if it differs from the last one. This module owns the sockets and a thread; it
//! must not know what a router does with what it says.
//!
//! # What is followed
//!
//! IPv4 and IPv6; of routes, those of the table `main` that go out by the interfaces given, and
//! those that lead nowhere (`blackhole`, `unreachable`, `prohibit`, `throw`). Of a route with
//! several next hops the first that is alive is taken. A route that encapsulates (MPLS, segments)
//! counts as unreachable, as its packets must not leave bare. Not followed: other tables and rules,
//! routes for a type of service or a source prefix, and next-hop objects where the kernel was told
//! not to write them out (`net.ipv4.nexthop_compat_mode=0`). An IPv6 address is there when the
//! kernel has found no duplicate of it.

mod mirror;
mod netlink;
#[cfg(test)]
mod tests;

use crate::classifier::Prefix;
use mirror::{Effect, Mirror};
use netlink::{Received, Subscription};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An interface of the kernel.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum KernelInterface {
    /// By its name, such as `tap0`: also one that is made again under this name.
    Name(String),
    /// By its index, as a driver says it of its port (`PortInfo::kernel_interface`).
    Index(u32),
}

impl fmt::Display for KernelInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "interface number {index}"),
        }
    }
}

/// All that was asked for, as it was at one time. Interfaces are numbered by their place among
/// those that were given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelState {
    /// The interfaces' addresses, each with the length of its prefix, in order.
    pub addresses: Vec<KernelAddress>,
    /// The routes by prefix and metric: the first of a prefix is the one that is in force.
    pub routes: Vec<KernelRoute>,
}

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct KernelAddress {
    /// The place of the interface among those that were given.
    pub interface: u16,
    /// The address.
    pub address: IpAddr,
    /// Bits that it has in common with its neighbours' addresses.
    pub prefix_length: u8,
}

/// A route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct KernelRoute {
    /// Where it leads.
    pub prefix: Prefix,
    /// Of several routes to one prefix that with the lowest is in force.
    pub metric: u32,
    /// What becomes of packets.
    pub next_hop: KernelNextHop,
}

/// What becomes of packets on a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum KernelNextHop {
    /// They go to another router; its family may be another than the route's (RFC 8950).
    Gateway {
        /// The place of the interface among those that were given.
        interface: u16,
        /// The router.
        address: IpAddr,
    },
    /// They go to their destination itself.
    Link {
        /// The place of the interface among those that were given.
        interface: u16,
    },
    /// They are dropped, and nobody is told.
    Blackhole,
    /// They are dropped, and the sender is told that there is no way.
    Unreachable,
    /// They are dropped, and the sender is told that they are not wanted.
    Prohibited,
}

/// Why the kernel cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There is no socket, or it is not told of changes.
    #[error(
        "cannot listen to what the kernel says of addresses and routes: {source}; look at the limits of open files"
    )]
    Subscribe {
        /// The system's reason.
        source: io::Error,
    },
    /// It was asked and did not answer, or not what was asked.
    #[error("the kernel does not tell its {what}: {source}; try again, and look at what `ip` says")]
    Dump {
        /// What it was asked for.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// An interface is not there.
    #[error("the kernel has no {interface}, only {present}: correct the name, or start first what makes the interface")]
    NoInterface {
        /// What was given.
        interface: KernelInterface,
        /// The names of those that are there.
        present: String,
    },
    /// There is no thread to listen on.
    #[error("no thread to follow the kernel's routes: {source}; look at the limits of processes")]
    Thread {
        /// The system's reason.
        source: io::Error,
    },
}

/// Follows the kernel on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct KernelFollower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl KernelFollower {
    /// Asks for everything once, and then calls `changed` on a thread of its own with each state
    /// that differs from the one before. Interfaces that go away take along what was theirs, and
    /// come back under their names.
    ///
    /// What goes wrong later is logged, and tried again.
    ///
    /// # Errors
    ///
    /// When an interface is not there, or the kernel does not answer.
    pub fn start(
        interfaces: Vec<KernelInterface>,
        changed: impl FnMut(KernelState) + Send + 'static,
    ) -> Result<(Self, KernelState), KernelError> {
        let (following, state) = Following::begin(interfaces, netlink::RECEIVE_BUFFER)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("kernel-routes".to_owned());
        let thread =
            thread.spawn(move || following.run(&stopped, changed)).map_err(|source| KernelError::Thread { source })?;
        Ok((Self { stop, thread: Some(thread) }, state))
    }
}

impl Drop for KernelFollower {
    /// Waits for the thread, which looks up every tenth of a second.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that follows the kernel's routes has panicked");
        }
    }
}

/// The least time between two states, and how long the thread waits for changes at a time.
const INTERVAL: Duration = Duration::from_millis(100);
/// After work on all routes, so many times as long as that took is waited before it is done again:
/// with a million of them it takes a while.
const REST: u32 = 4;

/// All that the thread has.
#[derive(Debug)]
struct Following {
    interfaces: Vec<KernelInterface>,
    subscription: Subscription,
    mirror: Mirror,
    /// The mirror has changed since the last state.
    is_news: bool,
    /// The mirror may differ from the kernel, and all is to be asked for again.
    is_doubtful: bool,
    next_state: Instant,
    next_dump: Instant,
    last: KernelState,
}

impl Following {
    /// Subscribes first and asks then, so that no change falls between the two. A change that is
    /// heard of and was in the answer already does no harm.
    fn begin(interfaces: Vec<KernelInterface>, room: i32) -> Result<(Self, KernelState), KernelError> {
        let subscription = Subscription::new(INTERVAL, room).map_err(|source| KernelError::Subscribe { source })?;
        let (mirror, is_consistent) = Mirror::dump()?;
        if let Some(missing) = interfaces.iter().find(|interface| mirror.index(interface).is_none()) {
            return Err(KernelError::NoInterface { interface: missing.clone(), present: mirror.names() });
        }
        let last = mirror.state(&interfaces);
        let now = Instant::now();
        let following = Self {
            interfaces,
            subscription,
            mirror,
            is_news: false,
            is_doubtful: !is_consistent,
            next_state: now,
            next_dump: now,
            last: last.clone(),
        };
        Ok((following, last))
    }

    fn run(mut self, stop: &AtomicBool, mut changed: impl FnMut(KernelState)) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(source) = self.listen() {
                log::warn!("{}; trying again", KernelError::Subscribe { source });
                std::thread::park_timeout(INTERVAL * 10);
            }
            let now = Instant::now();
            if let Err(error) = self.clear_doubts(now) {
                log::warn!("{error}");
                self.next_dump = now + INTERVAL * 10;
            }
            if let Some(state) = self.news(Instant::now()) {
                changed(state);
            }
        }
    }

    /// Takes in what the kernel has to say, or waits a while for it.
    fn listen(&mut self) -> io::Result<()> {
        let mirror = &mut self.mirror;
        let (mut is_news, mut is_doubtful) = (false, false);
        let received = self.subscription.receive(|message, flags| match mirror.apply(message, flags) {
            Effect::None => {}
            Effect::Changed => is_news = true,
            Effect::Doubtful => is_doubtful = true,
        });
        self.is_news |= is_news;
        // Whatever comes after an error or an overrun, something was missed.
        self.is_doubtful |= is_doubtful || !matches!(received, Ok(Received::Something | Received::Nothing));
        if received.is_err() {
            self.subscription = Subscription::new(INTERVAL, netlink::RECEIVE_BUFFER)?;
        }
        received.map(drop)
    }

    /// Asks for everything again, if that is necessary and not too soon.
    fn clear_doubts(&mut self, now: Instant) -> Result<(), KernelError> {
        if !self.is_doubtful || now < self.next_dump {
            return Ok(());
        }
        let began = Instant::now();
        let (mirror, is_consistent) = Mirror::dump()?;
        (self.mirror, self.is_news, self.is_doubtful) = (mirror, true, !is_consistent);
        self.next_dump = now + pause_after(began.elapsed());
        Ok(())
    }

    /// The state, if it is time for one and it is another than the last.
    fn news(&mut self, now: Instant) -> Option<KernelState> {
        if !self.is_news || now < self.next_state {
            return None;
        }
        self.is_news = false;
        let began = Instant::now();
        let state = self.mirror.state(&self.interfaces);
        if state == self.last {
            return None;
        }
        self.last.clone_from(&state);
        self.next_state = now + pause_after(began.elapsed());
        Some(state)
    }
}

fn pause_after(work: Duration) -> Duration {
    work + INTERVAL.max(work * REST)
}
