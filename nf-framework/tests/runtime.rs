//! Whole programs in this process: two workers on devices of software.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Mirror, Scratch, panic_of, run_until};
use dpdk_rs::{Eal, Mempool, MempoolConfig};
use nf_framework::config::ConfigFile;
use nf_framework::{
    Batch, Budget, CommandError, Context, Control, CrashReports, Direction, Function, Idle, Invalid, Loaded, Mbuf,
    NetworkFunction, PacketFunction, Report, Runtime, RuntimeConfig, RuntimeError, SetupError, Verdict, WorkerSetup,
};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Frames for each of the two queues of net_pcap1; three are too long for one segment.
const FIRST_QUEUE: [usize; 8] = [60, 3000, 61, 62, 9000, 63, 2500, 64];
const SECOND_QUEUE: [usize; 7] = [60; 7];

/// Capture files that have no name any more, so that nobody has to remove them: two to be
/// read, and one to be written by each of three queues.
fn captures() -> &'static [File; 5] {
    static CAPTURES: OnceLock<[File; 5]> = OnceLock::new();
    CAPTURES.get_or_init(|| {
        let scratch = Scratch::new("runtime");
        let mut number = 0;
        [&FIRST_QUEUE[..], &SECOND_QUEUE, &[], &[], &[]].map(|lengths| {
            let frames: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0x5a; length]).collect();
            number += 1;
            let path = scratch.path(&number.to_string());
            common::write_capture(&path, &frames);
            File::options().read(true).write(true).open(path).unwrap()
        })
    })
}

/// A name by which this process can open one of them.
fn capture(index: usize) -> String {
    format!("/proc/self/fd/{}", captures()[index].as_raw_fd())
}

fn devices() -> Vec<String> {
    let [first, second, out, out0, out1] = [0, 1, 2, 3, 4].map(capture);
    let one_queue = format!("net_pcap0,rx_pcap={first},tx_pcap={out}");
    let two_queues = format!("net_pcap1,rx_pcap={first},rx_pcap={second},tx_pcap={out0},tx_pcap={out1}");
    let others = ["net_null0", "net_null1", "net_ring0", "net_ring1"].map(str::to_owned);
    others.into_iter().chain([one_queue, two_queues]).collect()
}

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(devices, test)
}

fn config(text: &str) -> RuntimeConfig {
    ConfigFile::parse("test.toml", text).unwrap().framework(&[]).unwrap()
}

/// A wire between two ports, or from one to itself.
fn wire(inside: &str, outside: Option<&str>) -> RuntimeConfig {
    let outside = outside.map_or(String::new(), |name| format!("outside = '{name}'"));
    config(&format!(
        "forwarding = 'wire'\npackets = 4095\n[ports]\ndescriptors = 256\ninside = '{inside}'\n{outside}\n"
    ))
}

fn null() -> RuntimeConfig {
    wire("net_null0", Some("net_null1"))
}

/// The control object of a function that a closure makes and that has no policy.
struct Make<M>(&'static str, M);

impl<M, I> Function for Make<M>
where
    M: Fn(&mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
    I: NetworkFunction,
{
    type Config = ();
    type Policy = ();
    type Instance = I;

    fn name(&self) -> &str {
        self.0
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<I, SetupError> {
        (self.1)(worker)
    }

    fn adopt(_: &mut I, _: Arc<()>) {}
}

fn make<M, I>(name: &'static str, instance: M) -> Loaded
where
    M: Fn(&mut WorkerSetup) -> I + Send + Sync + 'static,
    I: NetworkFunction,
{
    Loaded::new(Make(name, move |worker: &mut WorkerSetup| Ok(instance(worker))), ())
}

/// Counts packets, and drops every tenth.
struct Tenth {
    worker: usize,
    seen: u64,
}

impl PacketFunction for Tenth {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.seen += 1;
        if self.seen.is_multiple_of(10) { Verdict::Drop(nf_framework::DropReason::POLICY) } else { Verdict::Next }
    }
}

/// The control object of [`Tenth`], to address it by.
struct TenthControl;

impl Function for TenthControl {
    type Config = ();
    type Policy = ();
    type Instance = Tenth;

    fn name(&self) -> &str {
        "tenth"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Tenth, SetupError> {
        Ok(Tenth { worker: worker.index(), seen: 0 })
    }

    fn adopt(_: &mut Tenth, _: Arc<()>) {}
}

#[test]
fn two_workers_forward_both_ways_and_the_balance_closes() {
    on_eal(|eal| {
        let runtime = Runtime::new(eal, &null(), vec![Loaded::new(TenthControl, ())]).unwrap();
        let control = |control: &Control| loop {
            let seen = control.command::<TenthControl, _>("tenth", |tenth, _| tenth.seen).unwrap();
            if seen.iter().all(|&seen| seen > 5000) {
                return seen;
            }
        };
        let (seen, report) = runtime.run(control).unwrap();
        assert_eq!(seen.len(), 2);
        assert!(report.ports.iter().all(|port| port.received > 0 && port.sent > 0), "{report}");
        assert!(report.ports.iter().all(|port| port.device.is_some_and(|device| device.rx_packets >= port.received)));
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
        assert_eq!(report.balance.held, 0);
        assert_eq!(report.functions[0].seen, report.balance.received);
        assert_eq!(report.dropped("policy"), report.functions[0].dropped);
        assert_eq!(report.balance.sent, report.functions[0].passed());
    });
}

#[test]
fn a_command_is_answered_by_every_worker_in_order() {
    on_eal(|eal| {
        let runtime = Runtime::new(eal, &null(), vec![Loaded::new(TenthControl, ())]).unwrap();
        let control = |control: &Control| {
            for _ in 0..100 {
                let answers = control.command::<TenthControl, _>("tenth", |tenth, cx| (tenth.worker, cx.direction()));
                assert_eq!(answers.unwrap(), [(0, Direction::Outbound), (1, Direction::Outbound)]);
            }
            let other = control.command::<TenthControl, _>("other", |_, _| ()).unwrap_err();
            assert_eq!(other.to_string(), "the chain has no function \"other\" of this type");
            let wrong_type = control.command::<Source, _>("tenth", |_, _| ()).unwrap_err();
            assert!(matches!(wrong_type, CommandError::NoSuchFunction(name) if name == "tenth"));
            let wrong_type = control.publish::<Source>("tenth", Arc::new(())).unwrap_err();
            assert!(matches!(wrong_type, CommandError::NoSuchFunction(name) if name == "tenth"));
        };
        runtime.run(control).unwrap();
    });
}

/// Makes packets, and takes each in when it has gone round three times.
struct Source {
    left: u32,
}

impl NetworkFunction for Source {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            let rounds = batch.packet_mut(slot).and_then(|packet| packet.data_mut().first_mut());
            if let Some(rounds) = rounds {
                *rounds += 1;
                if *rounds == 3
                    && let Some(packet) = batch.take(slot)
                {
                    cx.consume(packet);
                }
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for _ in 0..self.left.min(budget.0) {
            let Some(mut packet) = cx.allocate() else { return };
            assert!(packet.set_contents(&[0; 60]));
            cx.emit(packet, Direction::Outbound);
            self.left -= 1;
        }
    }
}

impl Function for Source {
    type Config = ();
    type Policy = ();
    type Instance = Self;

    fn name(&self) -> &str {
        "source"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, _: &mut WorkerSetup) -> Result<Self, SetupError> {
        Ok(Self { left: self.left })
    }

    fn adopt(_: &mut Self, _: Arc<()>) {}
}

#[test]
fn packets_that_functions_make_go_round_and_are_consumed() {
    on_eal(|eal| {
        let functions = vec![Loaded::new(Source { left: 500 }, ())];
        let report = run_until(eal, &wire("net_ring0", None), functions, |report| report.balance.consumed == 1000);
        let balance = report.balance;
        assert_eq!((balance.originated, balance.sent, balance.received), (1000, 3000, 3000));
        assert_eq!((balance.dropped, balance.held), (0, 0));
    });
}

#[test]
fn a_worker_that_sleeps_between_looks_keeps_house_and_forwards_all_the_same() {
    on_eal(|eal| {
        let functions = vec![Loaded::new(Source { left: 500 }, ())];
        let runtime = Runtime::with_idle(eal, &wire("net_ring0", None), functions, Idle::Sleep).unwrap();
        let control = |control: &Control| {
            let threads =
                control.command::<Source, _>("source", |_, _| std::fs::read_link("/proc/thread-self").unwrap());
            let threads = threads.unwrap();
            // One that spins never gives its CPU up of its own accord.
            let has_slept = |thread: &PathBuf| {
                let status = std::fs::read_to_string(Path::new("/proc").join(thread).join("status")).unwrap();
                let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                switches.unwrap().trim().parse::<u64>().unwrap() > 100
            };
            let give_up = Instant::now() + Duration::from_secs(60);
            while control.report().balance.consumed < 1000 || !threads.iter().all(has_slept) {
                assert!(Instant::now() < give_up, "{}", control.report());
            }
        };
        let ((), report) = runtime.run(control).unwrap();
        assert_eq!(
            (report.balance.sent, report.balance.dropped, report.balance.unaccounted()),
            (3000, 0, 0),
            "{report}"
        );
    });
}

#[test]
fn a_second_run_on_the_same_ports_gets_what_the_devices_still_hold() {
    on_eal(|eal| {
        // Nothing is consumed: all packets are in the rings, on their first round, at some time.
        let forget = |_: &mut WorkerSetup| common::Always(Verdict::Next);
        let source = |left| vec![Loaded::new(Source { left }, ())];
        let config = RuntimeConfig { forwarding: None, ..wire("net_ring1", None) };
        let run = |functions| Runtime::new(eal, &config, functions).unwrap().run(|_| ()).unwrap().1;
        let sent = |report: &Report| report.balance.sent;

        let wired = wire("net_ring1", None);
        let control = |control: &Control| while control.report().balance.originated < 20 {};
        let functions = vec![Loaded::new(Source { left: 10 }, ())];
        let (_, first) = Runtime::new(eal, &wired, functions).unwrap().run(control).unwrap();
        assert_eq!(first.balance.unaccounted(), 0, "{first}");
        let left = first.balance.sent - first.balance.received;

        let control = |control: &Control| while control.report().balance.received < left {};
        let second = Runtime::new(eal, &config, vec![make("forget", forget)]).unwrap().run(control).unwrap().1;
        assert_eq!((second.dropped("undecided"), second.balance.received), (left, left), "{second}");
        assert_eq!(sent(&run(source(0))), 0);
    });
}

#[test]
fn a_packet_of_several_segments_is_counted_on_arrival() {
    on_eal(|eal| {
        for round in ["first", "second"] {
            let report = run_until(eal, &wire("net_pcap1", None), vec![], |report| report.balance.received == 15);
            assert_eq!(report.dropped("not-one-segment"), 3, "{round} run: {report}");
            assert_eq!((report.balance.sent, report.balance.dropped), (12, 3), "{round} run: {report}");
            let lengths = |index| -> Vec<usize> { common::read_capture(capture(index)).iter().map(Vec::len).collect() };
            assert_eq!(lengths(3), [60, 61, 62, 63, 64], "{round} run");
            assert_eq!(lengths(4), SECOND_QUEUE, "{round} run");
        }
    });
}

#[test]
fn what_waits_when_the_program_stops_is_stopped() {
    on_eal(|eal| {
        // Every packet ends up between two mirrors.
        let functions = vec![
            make("inner", |_: &mut WorkerSetup| Mirror(Direction::Inbound)),
            make("outer", |_: &mut WorkerSetup| Mirror(Direction::Outbound)),
        ];
        let report = run_until(eal, &wire("net_pcap1", None), functions, |report| report.balance.received == 15);
        assert_eq!(report.dropped("stopped"), 12, "{report}");
        assert_eq!((report.balance.sent, report.balance.held), (0, 0), "{report}");
    });
}

/// A policy that tells when and where it is freed.
struct Generation {
    number: usize,
    freed: Arc<Mutex<Vec<(usize, ThreadId)>>>,
}

impl Drop for Generation {
    fn drop(&mut self) {
        let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        freed.push((self.number, std::thread::current().id()));
    }
}

const GENERATIONS: usize = 20;

/// Counts packets by the policy that they meet.
struct Witness {
    policy: Arc<Generation>,
    seen: [u64; GENERATIONS],
}

impl NetworkFunction for Witness {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        let before = self.policy.number;
        for _ in batch.undecided() {
            self.seen[self.policy.number] += 1;
        }
        assert_eq!(self.policy.number, before, "one policy for all of a batch");
    }
}

struct WitnessControl;

impl Function for WitnessControl {
    type Config = ();
    type Policy = Generation;
    type Instance = Witness;

    fn name(&self) -> &str {
        "witness"
    }

    fn policy(&self, (): ()) -> Result<Generation, Invalid> {
        Err(Invalid::new("", "made by the test"))
    }

    fn instance(&self, policy: Arc<Generation>, _: &mut WorkerSetup) -> Result<Witness, SetupError> {
        Ok(Witness { policy, seen: [0; GENERATIONS] })
    }

    fn adopt(witness: &mut Witness, policy: Arc<Generation>) {
        assert_eq!(policy.number, witness.policy.number + 1, "none is left out");
        witness.policy = policy;
    }
}

#[test]
fn every_packet_meets_one_policy_and_old_policies_are_freed_by_the_control_thread() {
    on_eal(|eal| {
        let freed: Arc<Mutex<Vec<(usize, ThreadId)>>> = Arc::default();
        let generation = |number| Generation { number, freed: Arc::clone(&freed) };
        let functions = vec![Loaded::new(WitnessControl, generation(0))];
        let runtime = Runtime::new(eal, &null(), functions).unwrap();
        let (seen, report) = runtime
            .run(|control: &Control| {
                for number in 0..GENERATIONS {
                    if number > 0 {
                        let policy = Arc::new(generation(number));
                        control.publish::<WitnessControl>("witness", policy).unwrap();
                    }
                    let me = std::thread::current().id();
                    let expected: Vec<(usize, ThreadId)> = (0..number).map(|number| (number, me)).collect();
                    let so_far = freed.lock().unwrap().clone();
                    assert_eq!(so_far, expected, "all earlier ones, here");
                    let seen = move |witness: &mut Witness, _: &mut Context<'_>| witness.seen[number];
                    while control.command::<WitnessControl, _>("witness", seen).unwrap().contains(&0) {}
                }
                // The last look is at rest: no packets come between it and the end.
                control.command::<WitnessControl, _>("witness", |witness, _| witness.seen).unwrap()
            })
            .unwrap();
        assert_eq!(freed.lock().unwrap().len(), GENERATIONS, "the last one goes with the program");
        let met: u64 = seen.iter().flatten().sum();
        assert!(seen.iter().flatten().all(|&count| count > 0), "{seen:?}");
        assert!(met <= report.functions[0].seen);
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
    });
}

#[test]
fn a_function_that_cannot_be_made_is_an_error_that_names_it() {
    on_eal(|eal| {
        for culprit in [0, 1] {
            let refuse = move |worker: &mut WorkerSetup| {
                if worker.index() == culprit { Err("there is no table".into()) } else { Ok(common::Mark(b'1')) }
            };
            let functions = vec![Loaded::new(TenthControl, ()), Loaded::new(Make("refuser", refuse), ())];
            let result = Runtime::new(eal, &null(), functions).unwrap().run(|_| panic!("nothing to control"));
            let error = result.map(|((), _)| ()).unwrap_err();
            assert!(matches!(&error, RuntimeError::Setup { worker, .. } if *worker == culprit), "{error:?}");
            let sentence = format!("function refuser cannot be set up on worker {culprit}: there is no table");
            assert_eq!(error.to_string(), sentence);
        }
    });
}

/// Panics on one worker, at its so-many-th packet.
struct Bomb {
    worker: usize,
    fuse: u32,
}

impl PacketFunction for Bomb {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.fuse -= u32::from(self.worker == 1);
        assert!(self.fuse > 0, "on purpose");
        Verdict::Next
    }
}

fn until_stopped(control: &Control) {
    while !control.stopping() {
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_that_panics_stops_all_and_the_ports_can_be_used_again() {
    on_eal(|eal| {
        let bomb = |worker: &mut WorkerSetup| Bomb { worker: worker.index(), fuse: 1000 };
        let error = Runtime::new(eal, &null(), vec![make("bomb", bomb)]).unwrap().run(until_stopped).unwrap_err();
        assert!(matches!(&error, RuntimeError::WorkerPanicked { worker: 1, .. }), "{error:?}");
        assert_eq!(error.to_string(), "worker 1 panicked: on purpose");

        let late = |worker: &mut WorkerSetup| {
            assert!(worker.index() != 0, "while it is made");
            common::Mark(b'1')
        };
        let error = Runtime::new(eal, &null(), vec![make("late", late)]).unwrap().run(until_stopped).unwrap_err();
        assert_eq!(error.to_string(), "worker 0 panicked: while it is made");

        let runtime = Runtime::new(eal, &null(), vec![Loaded::new(TenthControl, ())]).unwrap();
        let command = |control: &Control| {
            let answer = control.command::<TenthControl, ()>("tenth", |_, _| panic!("in a command"));
            assert!(matches!(answer.unwrap_err(), CommandError::WorkerStopped(_)));
            until_stopped(control);
        };
        let error = runtime.run(command).unwrap_err();
        assert!(matches!(&error, RuntimeError::WorkerPanicked { .. }), "{error:?}");
        assert!(error.to_string().ends_with("panicked: in a command"), "{error}");

        let report = run_until(eal, &null(), vec![], |report| report.balance.received > 1000);
        assert_eq!(report.balance.received, report.balance.sent + report.balance.dropped);
    });
}

/// Panics when as many workers as there are have a packet in hand.
struct Together {
    worker: usize,
    all: Arc<Barrier>,
}

impl PacketFunction for Together {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.all.wait();
        panic!("worker {} with the others", self.worker);
    }
}

#[test]
fn workers_that_panic_at_the_same_moment_leave_a_report_each() {
    on_eal(|eal| {
        let scratch = Scratch::new("runtime-together");
        let all = Arc::new(Barrier::new(2));
        let together = move |worker: &mut WorkerSetup| Together { worker: worker.index(), all: Arc::clone(&all) };
        let runtime = Runtime::new(eal, &null(), vec![make("together", together)]).unwrap();
        let runtime = runtime.crash_reports(CrashReports::new(&scratch.0, "test", "1"));
        let error = runtime.run(until_stopped).unwrap_err();
        assert_eq!(error.to_string(), "worker 0 panicked: worker 0 with the others");
        let mut reports: Vec<PathBuf> =
            std::fs::read_dir(&scratch.0).unwrap().map(|file| file.unwrap().path()).collect();
        reports.sort_by_key(|path| path.to_str().unwrap().bytes().rev().collect::<Vec<_>>());
        assert_eq!(reports.len(), 2, "{reports:?}");
        for (worker, path) in reports.iter().enumerate() {
            let report = std::fs::read_to_string(path).unwrap();
            for part in [
                format!("# test 1 panicked on worker {worker} at "),
                format!("# message: worker {worker} with the others\n"),
                "# place: function together, 1 of 1 from inside; ".to_owned(),
                "the function was looking at this one\n".to_owned(),
            ] {
                assert!(report.contains(&part), "{part}: {report}");
            }
        }
        let report = run_until(eal, &null(), vec![], |report| report.balance.received > 1000);
        assert_eq!(report.balance.received, report.balance.sent + report.balance.dropped);
    });
}

#[test]
fn a_control_thread_that_panics_stops_all_and_the_ports_can_be_used_again() {
    on_eal(|eal| {
        let runtime = Runtime::new(eal, &null(), vec![]).unwrap();
        let panic = panic_of(|| runtime.run(|_| -> () { panic!("in control") }));
        assert_eq!(panic, "in control");
        run_until(eal, &null(), vec![], |report| report.balance.received > 1000);
    });
}

#[test]
fn a_program_may_stop_before_its_first_packet() {
    on_eal(|eal| {
        for round in 0..3 {
            let (answer, report) = Runtime::new(eal, &null(), vec![]).unwrap().run(|_| round).unwrap();
            assert_eq!((answer, report.balance.unaccounted()), (round, 0));
        }
    });
}

#[test]
fn what_cannot_run_is_refused_in_a_sentence_and_leaves_the_ports_free() {
    on_eal(|eal| {
        let ports = |inside: &str, more: &str| format!("{more}\n[ports]\ninside = '{inside}'\n");
        let cases = [
            (
                ports("net_foo0", ""),
                "[ports] inside: there is no port \"net_foo0\"; the EAL found net_null0, net_null1, net_ring0, \
                 net_ring1, net_pcap0, net_pcap1 (give it more by -a or --vdev)",
            ),
            (
                format!("{}outside = 'net_foo1'", ports("net_null0", "")),
                "[ports] outside: there is no port \"net_foo1\"",
            ),
            (
                format!("{}outside = 'net_null0'", ports("net_null0", "")),
                "[ports] inside and outside are both \"net_null0\"; leave outside away",
            ),
            (format!("{}queues = 2", ports("net_pcap0", "")), "port net_pcap0 (net_pcap) has 1 receive queue"),
            // The first port is started by then.
            (format!("{}outside = 'net_pcap0'\nqueues = 2", ports("net_null0", "")), "port net_pcap0 (net_pcap) has 1"),
            (format!("{}queues = 0", ports("net_null0", "")), "[ports] queues: 0 are not possible with 2 worker(s)"),
            (format!("{}queues = 3", ports("net_null0", "")), "[ports] queues: 3 are not possible with 2 worker(s)"),
            (ports("net_null0", "burst = 0"), "burst: 0 packets at once are not possible, 1 to 64 are"),
            (ports("net_null0", "burst = 65"), "burst: 65 packets at once are not possible"),
            (format!("{}mtu = 65535\ndescriptors = 64", ports("net_null0", "packets = 511")), "an MTU of 65535 needs"),
            (format!("{}mtu = 1", ports("net_pcap1", "")), "port net_pcap1 (net_pcap)"),
            (ports("net_null0", "packets = 4294967295"), "no memory for the mempool"),
            (ports("net_null0", "packets = 1000000"), "no memory for the mempool"),
            (ports("net_null0", "packets = 0"), "packets: 0 are too few, the receive queues alone take 2048"),
            (ports("net_null0", "packets = 2047"), "packets: 2047 are too few"),
            (format!("{}descriptors = 0", ports("net_null0", "")), "[ports] descriptors: a queue needs at least one"),
            (format!("{}[fragments]\nheld = 1", ports("net_null0", "")), "[fragments] held: 1 is not from 64 to 65536"),
        ];
        for (text, expected) in cases {
            let error = Runtime::new(eal, &config(&text), vec![]).map(|_| text.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        run_until(eal, &null(), vec![], |report| report.balance.received > 1000);
    });
}

#[test]
fn a_burst_is_as_large_as_the_configuration_says() {
    /// The largest batch.
    struct Largest(usize);
    impl NetworkFunction for Largest {
        fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
            self.0 = self.0.max(batch.undecided().count());
        }
    }
    type Control = Make<fn(&mut WorkerSetup) -> Result<Largest, SetupError>>;
    on_eal(|eal| {
        for burst in [1, 5, 64] {
            let config = RuntimeConfig { burst, ..null() };
            let control: Control = Make("largest", |_| Ok(Largest(0)));
            let runtime = Runtime::new(eal, &config, vec![Loaded::new(control, ())]).unwrap();
            let largest = runtime.run(|control| {
                let largest = || control.command::<Control, _>("largest", |largest, _| largest.0).unwrap();
                while largest().contains(&0) {}
                largest()
            });
            assert_eq!(largest.unwrap().0, [burst, burst]);
        }
    });
}

#[test]
fn housekeeping_comes_under_full_load() {
    /// Batches and ticks.
    #[derive(Default)]
    struct Ticks(u64, u64);
    impl NetworkFunction for Ticks {
        fn batch(&mut self, _: &mut Batch, _: &mut Context<'_>) {
            self.0 += 1;
        }
        fn tick(&mut self, _: &mut Context<'_>, budget: Budget) {
            assert_eq!(budget, Budget(128));
            self.1 += 1;
        }
    }
    type Control = Make<fn(&mut WorkerSetup) -> Result<Ticks, SetupError>>;
    on_eal(|eal| {
        let control: Control = Make("ticks", |_| Ok(Ticks::default()));
        let runtime = Runtime::new(eal, &null(), vec![Loaded::new(control, ())]).unwrap();
        let counts = |control: &nf_framework::Control| loop {
            let counts = control.command::<Control, _>("ticks", |ticks, _| (ticks.0, ticks.1)).unwrap();
            if counts.iter().all(|(batches, _)| *batches > 1000) {
                return counts;
            }
        };
        for (batches, ticks) in runtime.run(counts).unwrap().0 {
            // At least one in 64 rounds, and a round has a batch of each of two ports.
            assert!(ticks >= batches / 128, "{batches} batches, {ticks} ticks");
        }
    });
}

#[test]
fn a_program_whose_pool_is_not_there_for_others_says_so() {
    on_eal(|eal| {
        // The name that a pool of ours once had belongs to whoever wants it.
        let theirs = Mempool::new(eal, "packets", MempoolConfig { size: 127, cache: 0, ..MempoolConfig::default() });
        assert!(theirs.is_ok());
        run_until(eal, &null(), vec![], |report| report.balance.received > 100);
    });
}
