//! What a service manager is told: that the program is ready, reloads, stops, and that it lives.
//!
//! The protocol is systemd's (sd_notify(3)): lines in a datagram to the socket that the environment names. The standard
//! library can do all of it, sockets without a place in the file system too, so there is no crate for it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// How many times in the watchdog's interval the program says that it lives.
const SIGNS_OF_LIFE: u32 = 4;
/// How often workers are looked at where there is no watchdog.
const LOOK: Duration = Duration::from_secs(1);
/// What a program that drains asks for at a time, beside what the manager gives every program to stop.
const MORE_TIME: Duration = Duration::from_secs(30);

/// The way to whoever started the program, if that wants to know.
#[derive(Debug)]
pub(crate) struct Service {
    to: Option<(UnixDatagram, SocketAddr)>,
    look: Duration,
    watchdog: bool,
    next_look: Option<Instant>,
    ready: bool,
    stopping: bool,
    turning: Turning,
    status: String,
}

impl Service {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub(crate) fn from_environment() -> Self {
        Self::new(|name| std::env::var(name).ok(), std::process::id())
    }

    fn new(environment: impl Fn(&str) -> Option<String>, pid: u32) -> Self {
        let to = environment("NOTIFY_SOCKET").and_then(|name| {
            let to = connect(&name);
            to.inspect_err(|error| {
                log::warn!("the service manager is told nothing: NOTIFY_SOCKET is {name:?}: {error}")
            })
            .ok()
        });
        // It may be meant for the process that has started this one.
        let is_ours = environment("WATCHDOG_PID").is_none_or(|of| of.parse() == Ok(pid));
        let microseconds = environment("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|time| *time > 0);
        let watchdog = microseconds.filter(|_| is_ours && to.is_some()).map(Duration::from_micros);
        Self {
            to,
            look: watchdog.map_or(LOOK, |interval| interval / SIGNS_OF_LIFE),
            watchdog: watchdog.is_some(),
            next_look: None,
            ready: false,
            stopping: false,
            turning: Turning::default(),
            status: String::new(),
        }
    }

    /// To be called all the time by the thread that has to live: says when the program is ready, shows what it
    /// does, and keeps the watchdog quiet as long as every worker turns. `rounds` are the workers' since their start.
    pub(crate) fn tend(&mut self, now: Instant, rounds: impl FnOnce() -> Vec<u64>, status: impl FnOnce() -> String) {
        if self.next_look.is_some_and(|next| now < next) {
            return;
        }
        let mut lines = Vec::new();
        match self.turning.since_the_last_time(rounds()) {
            Ok(()) => {
                self.next_look = Some(now + self.look);
                if !self.ready {
                    self.ready = true;
                    lines.push("READY=1".to_owned());
                }
                if self.stopping {
                    lines.push(format!("EXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros()));
                }
                if self.watchdog {
                    lines.push("WATCHDOG=1".to_owned());
                }
            }
            // Looked at again at once; only if that goes on will the watchdog bite.
            Err(worker) if self.turning.is_news() => log::warn!("worker {worker} does not turn"),
            Err(_) => {}
        }
        let status = status();
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        self.tell(&lines);
    }

    /// Says that the program reloads while it does.
    pub(crate) fn reloading<R>(&self, reload: impl FnOnce() -> R) -> R {
        self.tell(&["RELOADING=1".to_owned(), format!("MONOTONIC_USEC={}", dpdk_rs::monotonic_microseconds())]);
        let result = reload();
        self.tell(&["READY=1".to_owned()]);
        result
    }

    /// Says that the program is about to stop; as long as it is tended from here on, it asks for more time.
    pub(crate) fn stopping(&mut self, status: &str) {
        self.stopping = true;
        self.tell(&["STOPPING=1".to_owned(), format!("STATUS={status}")]);
    }

    /// Nobody waits for a manager that does not read: what finds no room is lost.
    fn tell(&self, lines: &[String]) {
        if let Some((socket, to)) = self.to.as_ref().filter(|_| !lines.is_empty())
            && let Err(error) = socket.send_to_addr(lines.join("\n").as_bytes(), to)
        {
            log::debug!("the service manager was not told {lines:?}: {error}");
        }
    }
}

fn connect(name: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name)?,
        None => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor @ and a name")),
    };
    // Whether anybody is there, which a manager that hears nothing could not say.
    UnixDatagram::unbound()?.connect_addr(&address)?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Whether workers get on.
#[derive(Debug, Default)]
struct Turning {
    /// The rounds of each when last all of them had got on.
    seen: Vec<u64>,
    /// How often since then one had not.
    misses: u32,
}

impl Turning {
    /// Looks thus often before it is worth a line: a second or so.
    const MISSES: u32 = 50;

    /// The first worker that has done nothing since all of them last had.
    fn since_the_last_time(&mut self, rounds: Vec<u64>) -> Result<(), usize> {
        let is_still = |(worker, rounds): (usize, &u64)| self.seen.get(worker).copied().unwrap_or(0) == *rounds;
        match rounds.iter().enumerate().position(is_still) {
            Some(worker) => {
                self.misses = self.misses.saturating_add(1);
                Err(worker)
            }
            None => {
                (self.seen, self.misses) = (rounds, 0);
                Ok(())
            }
        }
    }

    fn is_news(&self) -> bool {
        self.misses == Self::MISSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager, under a name of its own, and the service that it started with these variables.
    fn service(name: &str, variables: &[(&str, &str)]) -> (UnixDatagram, Service) {
        let name = format!("nf-service-{name}-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_nonblocking(true).unwrap();
        let environment = |wanted: &str| match wanted {
            "NOTIFY_SOCKET" => Some(format!("@{name}")),
            _ => variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned()),
        };
        (manager, Service::new(environment, 7))
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 500];
        let messages = std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
        messages.map(|message| String::from_utf8(message).unwrap()).collect()
    }

    #[test]
    fn it_is_ready_when_all_workers_turn_and_lives_as_long_as_they_do() {
        let (manager, mut service) = service("turns", &[("WATCHDOG_USEC", "4000000"), ("WATCHDOG_PID", "7")]);
        let start = Instant::now();
        for (milliseconds, rounds, expected) in [
            (0, [0, 0], "STATUS=well"),
            (20, [5, 0], ""),
            (40, [9, 1], "READY=1\nWATCHDOG=1"),
            (1000, [20, 20], ""),
            (1040, [20, 20], "WATCHDOG=1"),
            (2040, [30, 20], ""),
            (3040, [40, 20], ""),
            (9040, [90, 20], ""),
            (9060, [90, 21], "WATCHDOG=1"),
        ] {
            service.tend(start + Duration::from_millis(milliseconds), || rounds.to_vec(), || "well".to_owned());
            let heard = heard(&manager).concat();
            assert_eq!(heard, expected, "after {milliseconds} ms");
        }
        service.stopping("draining");
        assert_eq!(heard(&manager), ["STOPPING=1\nSTATUS=draining"]);
        service.tend(start + Duration::from_secs(20), || vec![91, 22], || "1 session is left".to_owned());
        let more = "EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1\nSTATUS=1 session is left";
        assert_eq!(heard(&manager), [more]);
    }

    #[test]
    fn a_reload_is_between_two_words_and_the_first_one_has_the_time() {
        let (manager, service) = service("reload", &[]);
        let before = dpdk_rs::monotonic_microseconds();
        let words = service.reloading(|| heard(&manager));
        let time = words[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=dpdk_rs::monotonic_microseconds()).contains(&time), "{time}");
        assert_eq!(heard(&manager), ["READY=1"]);
    }

    #[test]
    fn a_watchdog_that_is_for_another_process_is_none() {
        for (name, variables, expected) in [
            ("other", &[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "8")][..], false),
            ("whose", &[("WATCHDOG_USEC", "1000000")], true),
            ("zero", &[("WATCHDOG_USEC", "0")], false),
            ("text", &[("WATCHDOG_USEC", "soon")], false),
        ] {
            let (_manager, service) = service(name, variables);
            assert_eq!(service.watchdog, expected, "{name}");
        }
    }

    #[test]
    fn a_socket_that_is_none_is_no_reason_to_fail() {
        for name in ["", "relative", "vsock:2:1", "/nowhere/at/all"] {
            let mut service = Service::new(|wanted| (wanted == "NOTIFY_SOCKET").then(|| name.to_owned()), 7);
            assert!(service.to.is_none(), "{name:?}: and the log says so");
            service.tend(Instant::now(), || vec![1], String::new);
            assert_eq!(service.reloading(|| 5), 5);
        }
    }
}
