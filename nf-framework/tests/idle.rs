//! Workers that sleep while nothing comes: by what, and that all which concerns them still reaches them.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/namespace.rs"]
mod namespace;

use namespace::{in_a_namespace, ip, silence, skip};
use nf_framework::config::ConfigFile;
use nf_framework::{
    Affinity, Context, Control, Function, Idle, Invalid, Loaded, Mbuf, PacketFunction, Runtime, RuntimeConfig,
    SetupError, Verdict, WorkerSetup,
};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lets every packet pass.
struct Passes(Affinity);

struct Passing;

impl Function for Passes {
    type Config = ();
    type Policy = ();
    type Instance = Passing;

    fn name(&self) -> &'static str {
        "passes"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn affinity(&self, (): &()) -> Affinity {
        self.0
    }

    fn instance(&self, _: Arc<()>, _: &mut WorkerSetup) -> Result<Passing, SetupError> {
        Ok(Passing)
    }

    fn adopt(_: &mut Passing, _: Arc<()>) {}
}

impl PacketFunction for Passing {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        Verdict::Next
    }
}

/// System calls that a worker sleeps in, by their numbers on x86-64.
const CLOCK_NANOSLEEP: &str = "230";
const EPOLL_WAIT: &str = "232";

fn until(what: &str, mut enough: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !enough() {
        assert!(Instant::now() < give_up, "not in a minute: {what}");
        std::thread::yield_now();
    }
}

/// Where procfs has the workers' threads. That they say so shows that they answer.
fn threads(control: &Control) -> Vec<PathBuf> {
    let threads = control.command::<Passes, _>("passes", |_, _| std::fs::read_link("/proc/thread-self").unwrap());
    threads.unwrap().into_iter().map(|thread| Path::new("/proc").join(thread)).collect()
}

/// Waits until all workers were seen to sleep in this system call, and sees to it that they never do in the other.
fn all_sleep_in(call: &str, control: &Control) {
    let other = if call == EPOLL_WAIT { CLOCK_NANOSLEEP } else { EPOLL_WAIT };
    for thread in threads(control) {
        until("a worker sleeps", || {
            let now = std::fs::read_to_string(thread.join("syscall")).unwrap();
            assert!(!now.starts_with(other), "{now}");
            now.starts_with(call)
        });
    }
}

fn config(inside: &str, outside: &str) -> RuntimeConfig {
    let text = format!(
        "forwarding = 'wire'\npackets = 4095\n[ports]\ndescriptors = 256\ninside = '{inside}'\noutside = '{outside}'\n"
    );
    ConfigFile::parse("test.toml", &text).unwrap().framework(&[]).unwrap()
}

fn devices() -> Vec<String> {
    ["net_tap0,iface=in0", "net_tap1,iface=out0", "net_ring0"].map(str::to_owned).to_vec()
}

#[test]
fn workers_sleep_by_interrupts_where_all_their_ports_have_them() {
    let test = "workers_sleep_by_interrupts_where_all_their_ports_have_them";
    if !Path::new("/dev/net/tun").exists() {
        return skip(test, "there is no /dev/net/tun");
    }
    in_a_namespace(test, || {
        silence();
        common::on_eal(devices, |eal| {
            let run = |config: &RuntimeConfig, affinity, control: &(dyn Fn(&Control) + Sync)| {
                let functions = vec![Loaded::new(Passes(affinity), ())];
                let runtime = Runtime::with_idle(eal, config, functions, Idle::Sleep).unwrap();
                runtime.run(|handle| control(handle)).unwrap().1
            };
            let taps = config("net_tap0", "net_tap1");
            let report = run(&taps, Affinity::Any, &|control| {
                all_sleep_in(EPOLL_WAIT, control);
                ip("addr add 192.0.2.1/24 dev in0\n");
                let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
                let sent = |report: nf_framework::Report| report.balance.sent;
                let mut packets = 0;
                for _ in 0..3 {
                    // The kernel forgets it when the interface goes down.
                    ip("neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev in0 nud permanent\n");
                    for _ in 0..20 {
                        let before = sent(control.report());
                        socket.send_to(b"wake up", "192.0.2.2:9").unwrap();
                        until(&format!("packet {packets} is forwarded: {}", control.report()), || {
                            sent(control.report()) > before
                        });
                        packets += 1;
                    }
                    // The queues that come then are others.
                    control.rebuild_port("net_tap0").unwrap();
                    all_sleep_in(EPOLL_WAIT, control);
                }
                assert!(sent(control.report()) >= packets);
            });
            assert_eq!(report.balance.unaccounted(), 0, "{report}");

            // Others hand packets over, or a port cannot tell.
            for (config, affinity) in [
                (&taps, Affinity::Flow),
                (&config("net_tap0", "net_ring0"), Affinity::Any),
                (&config("net_ring0", "net_tap1"), Affinity::Any),
            ] {
                run(config, affinity, &|control| all_sleep_in(CLOCK_NANOSLEEP, control));
            }
        });
    });
}
