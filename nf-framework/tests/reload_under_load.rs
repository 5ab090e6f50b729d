//! Reloads while packets of many flows go round: none is lost for it, and none meets two
//! generations of policies.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use nf_framework::config::ConfigFile;
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Batch, Budget, Class, Configuration, Context, Control, Counter, Direction, Entry, FlowTable, Function,
    Functions, Handle, HashKey, Insertion, Invalid, Mbuf, NetworkFunction, PacketFunction, Reload, Runtime, SetupError,
    Verdict, WorkerSetup,
};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// On each of two workers.
const FLOWS: u32 = 100_000;
/// That go round on each worker; its ring takes more.
const PACKETS: u32 = 256;

/// Where a frame has its source address and port, a generation, and a number of rounds.
const SOURCE: usize = 26;
const PORT: usize = 34;
const GENERATION: usize = 42;
const ROUNDS: usize = 50;

fn generation_of(packet: &Mbuf) -> u64 {
    u64::from_be_bytes(packet.data()[GENERATION..][..8].try_into().unwrap())
}

#[derive(Deserialize)]
struct Empty {}

/// The inside end of the loop: makes the packets, and gives each that comes round the next
/// flow's addresses.
struct Source {
    template: Vec<u8>,
    to_make: u32,
    next: u32,
}

impl Source {
    fn new(_: &Empty, worker: &mut WorkerSetup) -> Result<Self, SetupError> {
        let host = u8::try_from(worker.index())?;
        let frame = Frame::new().ipv4([10, 0, 0, 0], [198, 51, 100, host]).udp(1, 53).payload(&[0; 16]);
        Ok(Self { template: frame.build(), to_make: PACKETS, next: 0 })
    }
}

impl PacketFunction for Source {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let data = packet.data_mut();
        data[SOURCE + 1..SOURCE + 4].copy_from_slice(&self.next.to_be_bytes()[1..]);
        data[GENERATION..GENERATION + 8].fill(0);
        data[ROUNDS] = if self.next.is_multiple_of(16) { 12 } else { 0 };
        self.next = (self.next + 1) % FLOWS;
        Verdict::Next
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for _ in 0..self.to_make.min(budget.0) {
            let Some(mut packet) = cx.allocate() else { return };
            assert!(packet.set_contents(&self.template));
            self.packet(&mut packet, cx);
            cx.emit(packet, Direction::Outbound);
            self.to_make -= 1;
        }
    }
}

/// Two of them pass some packets to each other, more often than one burst's work allows: so
/// packets are on their way between functions when a new policy comes.
struct Bounce(Direction);

impl NetworkFunction for Bounce {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() != self.0 {
            return;
        }
        for slot in batch.undecided() {
            let Some(rounds) = batch.packet_mut(slot).map(|packet| &mut packet.data_mut()[ROUNDS]) else { continue };
            let goes_back = *rounds > 0 || self.0 == Direction::Inbound;
            *rounds = rounds.saturating_sub(u8::from(self.0 == Direction::Outbound));
            if goes_back && let Some(packet) = batch.take(slot) {
                cx.emit(packet, self.0.reversed());
            }
        }
    }
}

#[derive(Deserialize)]
struct Numbered {
    generation: u64,
}

/// The first function behind the source writes its policy's generation into each packet, the
/// last one compares it with its own and with what the worker says.
struct Marked(&'static str);

struct Mark {
    policy: Arc<u64>,
    is_last: bool,
    newest: u64,
    /// Packets that met two generations, or an older one than a packet before.
    mixed: Counter,
    older: Counter,
    /// How often a packet was the first of a new generation.
    changes: Counter,
}

impl Function for Marked {
    type Config = Numbered;
    type Policy = u64;
    type Instance = Mark;

    fn name(&self) -> &str {
        self.0
    }

    fn policy(&self, config: Numbered) -> Result<u64, Invalid> {
        Ok(config.generation)
    }

    fn instance(&self, policy: Arc<u64>, worker: &mut WorkerSetup) -> Result<Mark, SetupError> {
        let [mixed, older, changes] = ["mixed", "older", "changes"].map(|name| worker.counter(name));
        let newest = *policy;
        Ok(Mark { policy, is_last: self.0 == "last", newest, mixed, older, changes })
    }

    fn adopt(mark: &mut Mark, policy: Arc<u64>) {
        mark.policy = policy;
    }
}

impl PacketFunction for Mark {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        let ours = *self.policy;
        if self.is_last {
            let carried = generation_of(packet);
            self.mixed.add(u64::from(carried != ours || cx.generation() != ours));
            self.older.add(u64::from(carried < self.newest));
            self.changes.add(u64::from(carried > self.newest));
            self.newest = carried.max(self.newest);
        } else {
            packet.data_mut()[GENERATION..GENERATION + 8].copy_from_slice(&ours.to_be_bytes());
        }
        Verdict::Next
    }
}

/// Knows every flow.
struct Flows {
    table: FlowTable<[u8; 16], u64>,
    new: Counter,
    refused: Counter,
    found: Counter,
}

impl Flows {
    fn new(_: &Empty, worker: &mut WorkerSetup) -> Result<Self, SetupError> {
        let memory = worker.pool().memory();
        // With room to spare, so that none has to make place for another.
        let table = FlowTable::with_capacity(&memory, FLOWS as usize / 4 * 5, HashKey::from_seed(7))?;
        let [new, refused, found] = ["new", "refused", "found"].map(|name| worker.counter(name));
        Ok(Self { table, new, refused, found })
    }
}

impl NetworkFunction for Flows {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let (mut keys, mut found, mut count) = ([[0; 16]; 64], [None::<Handle>; 64], 0);
        for (slot, key) in batch.undecided().zip(&mut keys) {
            // Both addresses and both ports.
            key[..12].copy_from_slice(&batch.packet(slot).unwrap().data()[SOURCE..PORT + 4]);
            count += 1;
        }
        self.table.lookup_batch(&keys[..count], &mut found);
        for (key, found) in keys.iter().zip(found).take(count) {
            if let Some(Entry { value: packets, .. }) = found.and_then(|handle| self.table.entry_mut(handle)) {
                *packets += 1;
                self.found.add(1);
                continue;
            }
            let deadline = cx.now() + Duration::from_secs(86_400);
            match self.table.insert(*key, 1, Class::ESTABLISHED, cx.now(), deadline, |_| ()) {
                Ok(insertion) => self.new.add(u64::from(matches!(insertion, Insertion::New(_)))),
                Err(_) => self.refused.add(1),
            }
        }
    }

    fn sessions(&self) -> u64 {
        self.table.len() as u64
    }
}

const CHAIN: &str = "chain = ['source', 'first', 'inner', 'outer', 'flows', 'last']\nforwarding = 'wire'\npackets = 4095\n\
                     [ports]\ninside = 'net_ring0'\ndescriptors = 256\n";

fn file(generation: u64, way: u64) -> ConfigFile {
    let text = if way.is_multiple_of(2) {
        format!("{CHAIN}[first]\ngeneration = {generation}\n[last]\ngeneration = {generation}\n")
    } else {
        format!(
            "# {way}\nburst = 32\n{CHAIN}[last]\ngeneration = 0x{generation:x} # the same\n[first]\ngeneration = {generation}\n"
        )
    };
    ConfigFile::parse("f.toml", text).unwrap()
}

/// And as many that change nothing.
const RELOADS: u64 = 1000;

#[test]
fn reloads_under_load_lose_no_packet_and_no_packet_meets_two_generations() {
    common::on_eal(
        || vec!["net_ring0".to_owned()],
        |eal| {
            let known = Functions::new()
                .with(Marked("first"))
                .with(Marked("last"))
                .with_closure("source", Affinity::Any, Source::new)
                .with_closure("inner", Affinity::Any, |_: &Empty, _| Ok(Bounce(Direction::Inbound)))
                .with_closure("outer", Affinity::Any, |_: &Empty, _| Ok(Bounce(Direction::Outbound)))
                .with_closure("flows", Affinity::Any, Flows::new);
            let configuration = Configuration::load(&file(1, 0), &known).unwrap();
            let control = |control: &Control| {
                let counter = |function, name| control.report().counter(function, name).unwrap();
                let wait = |what: &dyn Fn() -> bool| {
                    while !what() {
                        assert!(!control.stopping(), "a worker has ended");
                        std::thread::yield_now();
                    }
                };
                let live = 2 * u64::from(FLOWS);
                wait(&|| counter("flows", "new") == live);
                let before = control.report().balance.received;
                for round in 0..RELOADS {
                    let generation = round + 2;
                    let changed = control.reload(&file(generation, 0)).unwrap();
                    assert!(matches!(changed, Reload::Changed { generation: now, .. } if now == generation));
                    let same = control.reload(&file(generation, round)).unwrap();
                    assert_eq!(same, Reload::Unchanged { generation, warnings: Vec::new() });
                    if round.is_multiple_of(10) {
                        // The first function is well, the last one is not.
                        let broken = format!("{CHAIN}[first]\ngeneration = 0\n[last]\ngeneration = -1\n");
                        let error = control.reload(&ConfigFile::parse("f.toml", broken).unwrap()).unwrap_err();
                        assert!(error.to_string().starts_with("f.toml:10: [last] generation: expected "), "{error}");
                    }
                    // Packets of every generation have arrived on both workers.
                    wait(&|| counter("last", "changes") == 2 * (round + 1));
                }
                control.report().balance.received - before
            };
            let (meanwhile, report) = Runtime::configured(eal, configuration).unwrap().run(control).unwrap();
            println!("{RELOADS} reloads and as many without a change, {meanwhile} packets meanwhile\n{report}");
            assert_eq!(report.balance.unaccounted(), 0, "{report}");
            assert_eq!(report.drops, [], "{report}");
            let counter = |function, name| report.counter(function, name).unwrap();
            assert_eq!((counter("last", "mixed"), counter("last", "older")), (0, 0), "{report}");
            assert_eq!((counter("flows", "new"), counter("flows", "refused")), (2 * u64::from(FLOWS), 0), "{report}");
            assert_eq!(report.functions[4].sessions, 2 * u64::from(FLOWS), "{report}");
            assert_eq!(report.generation, RELOADS + 1);
            let expected = report.balance.received + report.balance.originated;
            assert_eq!(expected, report.balance.sent + report.balance.held, "{report}");
        },
    );
}
