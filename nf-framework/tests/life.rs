//! Ports that are built anew under traffic, and devices that go and come back: sessions stay, every
//! packet is accounted for, and every buffer comes home.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Scratch, read_capture, write_capture};
use dpdk_rs::{Eal, PortEvents};
use nf_framework::config::ConfigFile;
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Budget, Configuration, Context, Control, Counter, Direction, DropReason, Function, Functions, Invalid,
    Mbuf, Mempool, PacketFunction, Ports, Report, Runtime, SetupError, Steering, Tuple, Verdict, WorkerSetup,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

fn files() -> &'static Scratch {
    static FILES: OnceLock<Scratch> = OnceLock::new();
    FILES.get_or_init(|| {
        let files = Scratch::new("life");
        write_capture(files.path("some"), &vec![frame(1); 10]);
        files
    })
}

fn devices() -> Vec<String> {
    let some = files().path("some");
    // What is sent into net_ring comes out of it again.
    let rings = ["net_ring0", "net_ring1"].map(str::to_owned);
    let routed = format!("net_pcap1,rx_pcap={some},tx_pcap={}", files().path("routed"));
    [rings.to_vec(), vec!["net_null0".to_owned(), format!("net_pcap0,rx_pcap={some}"), routed]].concat()
}

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(devices, test)
}

/// Where a frame has its session's number, as an address, and how often that was counted.
const SOURCE: usize = 26;
const COUNT: usize = 42;

fn frame(session: u32) -> Vec<u8> {
    let source = Ipv4Addr::from_bits(0x0a00_0000 + session).octets();
    Frame::new().ipv4(source, [198, 51, 100, 1]).udp(1, 53).payload(&[0; 16]).build()
}

/// What control and the functions have in common.
#[derive(Default)]
struct Wanted {
    /// Sessions that each worker shall begin.
    sessions: [AtomicU32; 2],
    /// Every packet ends.
    end: AtomicBool,
    /// The packets' pool.
    pool: Mutex<Option<Mempool>>,
}

/// Begins sessions of one packet each, which goes round and round, and counts its rounds: the packet
/// knows how many there were, and so does the session.
struct Sessions(Arc<Wanted>);

struct Counting {
    wanted: Arc<Wanted>,
    worker: usize,
    steering: Option<Arc<Steering>>,
    next: u32,
    known: HashMap<[u8; 4], u64>,
    begun: Counter,
    /// Packets whose session is not here, or knows another number.
    strangers: Counter,
}

impl Function for Sessions {
    type Config = std::collections::BTreeMap<String, u32>;
    type Policy = ();
    type Instance = Counting;

    fn name(&self) -> &'static str {
        "sessions"
    }

    fn policy(&self, _: Self::Config) -> Result<(), Invalid> {
        Ok(())
    }

    fn affinity(&self, (): &()) -> Affinity {
        Affinity::Flow
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Counting, SetupError> {
        *self.0.pool.lock().unwrap() = Some(worker.pool().clone());
        let [begun, strangers] = ["begun", "strangers"].map(|name| worker.counter(name));
        let (wanted, steering) = (Arc::clone(&self.0), worker.steering().cloned());
        Ok(Counting { wanted, worker: worker.index(), steering, next: 0, known: HashMap::new(), begun, strangers })
    }

    fn adopt(_: &mut Counting, _: Arc<()>) {}
}

impl Counting {
    /// The next session that belongs to this worker.
    fn next(&mut self) -> u32 {
        loop {
            self.next += 1;
            let source = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + self.next));
            let destination = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
            let tuple = Tuple { source, destination, ports: Ports::Both(1, 53) };
            let owner = self.steering.as_ref().map_or(0, |steering| steering.owner(Direction::Outbound, &tuple));
            if owner == self.worker {
                return self.next;
            }
        }
    }
}

impl PacketFunction for Counting {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        if self.wanted.end.load(Ordering::Relaxed) {
            return Verdict::Drop(DropReason::POLICY);
        }
        let data = packet.data_mut();
        let session: [u8; 4] = data[SOURCE..][..4].try_into().unwrap();
        let carried = u64::from_be_bytes(data[COUNT..][..8].try_into().unwrap());
        match self.known.get_mut(&session) {
            Some(known) if *known == carried => {
                *known += 1;
                data[COUNT..][..8].copy_from_slice(&known.to_be_bytes());
            }
            _ => self.strangers.add(1),
        }
        Verdict::Next
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        let wanted = self.wanted.sessions[self.worker].load(Ordering::Relaxed);
        for _ in 0..wanted.min(budget.0) {
            let Some(mut packet) = cx.allocate() else { return };
            let frame = frame(self.next());
            assert!(packet.set_contents(&frame));
            self.known.insert(frame[SOURCE..][..4].try_into().unwrap(), 0);
            self.begun.add(1);
            cx.emit(packet, Direction::Outbound);
            self.wanted.sessions[self.worker].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn sessions(&self) -> u64 {
        self.known.len() as u64
    }
}

fn runtime<'eal>(eal: &'eal Eal, wanted: &Arc<Wanted>, ports: &str) -> Runtime<'eal> {
    let text = format!("forwarding = 'wire'\npackets = 4095\n[ports]\ndescriptors = 256\n{ports}");
    let known = Functions::new().with(Sessions(Arc::clone(wanted)));
    let configuration = Configuration::load(&ConfigFile::parse("f.toml", &text).unwrap(), &known).unwrap();
    Runtime::configured(eal, configuration).unwrap()
}

/// Yields until something is so.
fn wait(control: &Control, what: &str, is_so: impl Fn(&Report) -> bool) {
    while !is_so(&control.report()) {
        assert!(!control.stopping(), "{what}: a worker has ended: {}", control.report());
        std::thread::yield_now();
    }
}

/// Waits until packets come in by each port.
fn wait_for_traffic(control: &Control) {
    let before = control.report();
    wait(control, "no traffic", |report| {
        report.ports.iter().zip(&before.ports).all(|(now, before)| now.received > before.received)
    });
}

const REBUILDS: u64 = 20;
/// That each worker begins before each of them.
const SESSIONS: u32 = 64;

#[test]
fn a_port_is_built_anew_under_traffic_and_sessions_stay() {
    on_eal(|eal| {
        for queues in [1, 2] {
            let wanted = Arc::new(Wanted::default());
            let ports = format!("inside = 'net_ring0'\noutside = 'net_ring1'\nqueues = {queues}");
            let shared = Arc::clone(&wanted);
            let control = move |control: &Control| {
                assert!(control.ready());
                for rebuild in 0..REBUILDS {
                    for of_worker in &shared.sessions {
                        of_worker.store(SESSIONS, Ordering::Relaxed);
                    }
                    let begun = 2 * u64::from(SESSIONS) * (rebuild + 1);
                    wait(control, "sessions", |report| report.counter("sessions", "begun") == Some(begun));
                    wait_for_traffic(control);
                    let port = control.ports()[usize::try_from(rebuild % 2).unwrap()].name();
                    control.rebuild_port(port).unwrap();
                    assert!(control.ready());
                }
                // Every packet ends, and so the rings are empty.
                shared.end.store(true, Ordering::Relaxed);
                wait(control, "the end", |report| {
                    let (came, went) = (report.balance.received, report.balance.sent);
                    came == went && report.balance.held == 0
                });
            };
            let ((), report) = runtime(eal, &wanted, &ports).run(control).unwrap();
            println!("with {queues} queue(s):\n{report}");
            assert_eq!(report.balance.unaccounted(), 0, "{report}");
            assert_eq!(report.ports.iter().map(|port| port.resets).collect::<Vec<_>>(), [REBUILDS / 2; 2]);
            let all = 2 * u64::from(SESSIONS) * REBUILDS;
            assert_eq!(report.functions[0].sessions, all, "{report}");
            assert_eq!(report.counter("sessions", "strangers"), Some(0), "{report}");
            // What came to a port that was down was lost, and counted, and so was what found the other
            // worker's ring full, as that was not run for a while; nothing else was.
            let [down, late, ended] = ["port-down", "hand-over-full", "policy"].map(|why| report.dropped(why));
            assert!(down > 0 && ended > 0, "{report}");
            assert_eq!((report.balance.dropped, report.balance.originated), (down + late + ended, all), "{report}");
            let pool = wanted.pool.lock().unwrap().take().unwrap();
            assert_eq!(pool.available(), pool.config().size, "every packet is home");
        }
    });
}

#[test]
fn a_device_that_goes_is_let_go_and_comes_back_and_the_other_port_goes_on() {
    on_eal(|eal| {
        let wanted = Arc::new(Wanted::default());
        let shared = Arc::clone(&wanted);
        let control = move |control: &Control| {
            let pcap = &control.ports()[1];
            let tend_until = |what: &dyn Fn(&Report) -> bool| {
                while !what(&control.report()) {
                    assert!(!control.stopping());
                    control.tend_ports();
                    std::thread::yield_now();
                }
            };
            shared.end.store(false, Ordering::Relaxed);
            tend_until(&|report| report.ports[1].received == 10);
            // It can only come back when its file is there again.
            let (here, away) = (files().path("some"), files().path("away"));
            std::fs::rename(&here, &away).unwrap();
            pcap.note(PortEvents { removed: true, ..PortEvents::default() });
            tend_until(&|report| report.ports[1].removals == 1 && report.ports[1].device.is_none());
            assert!(!control.ready() && !pcap.is_up());
            let error = control.rebuild_port("net_pcap0").unwrap_err().to_string();
            assert!(error.starts_with("port net_pcap0 is down: port net_pcap0: attach: "), "{error}");
            // Packets go on to come in by the other port, and are lost as long as theirs is away.
            let lost = control.report().dropped("port-down");
            tend_until(&|report| report.dropped("port-down") > lost + 1000);
            assert!(control.report().to_string().contains("net_pcap0: its device went away once, it is down\n"));
            std::fs::rename(&away, &here).unwrap();
            control.rebuild_port("net_pcap0").unwrap();
            assert!(control.ready() && pcap.is_up());
            tend_until(&|report| report.ports[1].received == 20);
            let lost = control.report().dropped("port-down");
            let sent = control.report().ports[1].sent;
            tend_until(&|report| report.ports[1].sent > sent + 1000);
            assert_eq!(control.report().dropped("port-down"), lost);
            let error = control.rebuild_port("net_foo0").unwrap_err().to_string();
            assert_eq!(error, "there is no port \"net_foo0\"; there are: net_null0, net_pcap0");
        };
        let ports = "inside = 'net_null0'\noutside = 'net_pcap0'";
        let ((), report) = runtime(eal, &wanted, ports).run(control).unwrap();
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
        let port = &report.ports[1];
        assert_eq!((port.removals, port.resets, port.link_downs, port.down), (1, 1, 0, false), "{report}");
        let pool = wanted.pool.lock().unwrap().take().unwrap();
        assert_eq!(pool.available(), pool.config().size, "every packet is home");
    });
}

#[test]
fn a_program_ends_well_while_its_ports_are_away() {
    on_eal(|eal| {
        let wanted = Arc::new(Wanted::default());
        let control = |control: &Control| {
            let (here, away) = (files().path("some"), files().path("elsewhere"));
            std::fs::rename(&here, &away).unwrap();
            let removed = PortEvents { removed: true, ..PortEvents::default() };
            control.ports()[0].note(removed);
            while control.ports()[0].is_up() {
                control.tend_ports();
            }
            control.tend_ports();
            std::fs::rename(&away, &here).unwrap();
            assert!(!control.stopping() && !control.ready());
        };
        let ((), report) = runtime(eal, &wanted, "inside = 'net_pcap0'").run(control).unwrap();
        assert_eq!((report.balance.unaccounted(), report.ports[0].down), (0, true), "{report}");
        // Queues that are on their way when the program ends are home too.
        let control = |control: &Control| {
            control.ports()[0].note(PortEvents { reset: true, ..PortEvents::default() });
            control.tend_ports();
        };
        let ((), report) = runtime(eal, &wanted, "inside = 'net_null0'").run(control).unwrap();
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
        let ((), report) = runtime(eal, &wanted, "inside = 'net_null0'").run(|_| ()).unwrap();
        assert_eq!(report.balance.unaccounted(), 0, "the port was stopped: {report}");
    });
}

#[test]
fn a_router_takes_the_mac_address_that_its_port_comes_back_with_and_announces_it() {
    on_eal(|eal| {
        let text = "forwarding = 'router'\npackets = 4095\nchain = []\n\
                    [ports]\ninside = 'net_pcap1'\ndescriptors = 256\n\
                    [router.interfaces.lan]\nside = 'inside'\naddresses = ['192.0.2.1/24']\n";
        let file = ConfigFile::parse("f.toml", text).unwrap();
        let configuration = Configuration::load(&file, &Functions::new()).unwrap();
        let control = |control: &Control| {
            let mac = || control.ports()[0].info().unwrap().mac_address;
            let before = mac();
            control.ports()[0].note(PortEvents { removed: true, ..PortEvents::default() });
            while control.report().ports[0].device.is_some() {
                control.tend_ports();
            }
            control.rebuild_port("net_pcap1").unwrap();
            assert_ne!(before, mac(), "net_pcap has another address in each life");
            let sent = control.report().ports[0].sent;
            wait(control, "announcements", |report| report.ports[0].sent > sent);
            mac()
        };
        let (mac, report) = Runtime::configured(eal, configuration).unwrap().run(control).unwrap();
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
        // The device writes its file anew, so all that is in it was sent since.
        let frames = read_capture(files().path("routed"));
        assert!(!frames.is_empty());
        for frame in frames {
            // A gratuitous ARP packet: its frame's source, and who it says has the address.
            assert_eq!((&frame[6..12], &frame[22..28]), (&mac[..], &mac[..]));
        }
    });
}
