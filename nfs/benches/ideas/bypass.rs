//! DPDK, and DPDK with an idea taken away.

use crate::measure::{Sample, own_cpu_time};
use crate::{Plan, Row, Way, print_group};
use anyhow::Context as _;
use dpdk_rs::{Burst, Consumer, Eal, Mbuf, Mempool, MempoolConfig, PortBuilder, Producer, Ring};
use nf_framework::testing::Frame;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::io::BufRead as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Mbufs that go round unless said otherwise: they stay in the cache.
const HOT: u32 = 2048;
const FLOWS: u16 = 1024;
const SHORTEST: usize = 64;

/// Counts UDP by its destination port, and sends the frame back to where it came from.
pub(crate) struct Swap(Box<[u64]>);

impl Swap {
    fn new() -> Self {
        Self(vec![0; 1 << 16].into())
    }

    #[inline]
    fn handle(&mut self, packet: &mut Mbuf) {
        let Some(head) = packet.data_mut().first_chunk_mut::<42>() else { return };
        if head[12] == 8 && head[13] == 0 && head[23] == 17 {
            self.0[usize::from(u16::from_be_bytes([head[36], head[37]]))] += 1;
        }
        let (one, other) = head.split_at_mut(6);
        one.swap_with_slice(&mut other[..6]);
    }
}

const MEMORY: [&str; 6] = ["--no-huge", "-m", "512", "--no-shconf", "--no-telemetry", "--log-level=error"];

pub(crate) fn start() -> anyhow::Result<Eal> {
    let arguments = ["ideas", "--no-pci", "--lcores=0@0,1@1"].into_iter().chain(MEMORY);
    Ok(Eal::init(arguments.map(str::to_owned))?.0)
}

/// This program as a child of itself: forwards between the two interfaces, or round a ring, and
/// answers as the program of kernel.c does.
pub(crate) fn serve(device: &str) -> anyhow::Result<()> {
    let devices: &[&str] = match device {
        "af_packet" => &["--vdev=net_af_packet0,iface=in0", "--vdev=net_af_packet1,iface=out0"],
        "af_xdp" => &["--vdev=net_af_xdp0,iface=in0", "--vdev=net_af_xdp1,iface=out0"],
        _ => &["--vdev=net_ring0"],
    };
    let fixed = ["ideas", "--no-pci", "--lcores=0@1"].into_iter().chain(MEMORY);
    let (eal, _) = Eal::init(fixed.chain(devices.iter().copied()).map(str::to_owned))?;
    let pool = Mempool::new(&eal, "ideas", MempoolConfig { size: 16_383, ..MempoolConfig::default() })?;
    let mut ports = eal
        .ports()
        .map(|port| Ok(PortBuilder::new(&eal, port).pool(&pool).start()?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let last = ports.len() - 1;
    let (mut burst, mut swap) = (Burst::new(), Swap::new());
    if device == "ring" {
        for flow in 0..512 {
            burst.push(frame(&pool, flow, SHORTEST)?).map_err(|_| anyhow::anyhow!("the burst is full"))?;
            if burst.len() == 32 {
                ports[0].1[0].tx.send(&mut burst);
            }
        }
    }
    for line in std::io::stdin().lock().lines() {
        let (slice, start) = (Duration::from_millis(line?.trim().parse()?), Instant::now());
        let (mut packets, mut busy) = (0, Duration::ZERO);
        while start.elapsed() < slice {
            // A core that polls is never idle: what counts is the time that packets took.
            let begun = Instant::now();
            let received = ports[0].1[0].rx.receive(&mut burst);
            if received > 0 {
                burst.iter_mut().for_each(|packet| swap.handle(packet));
                ports[last].1[0].tx.send(&mut burst);
                burst.clear();
                packets += received;
                busy += begun.elapsed();
            }
        }
        println!("{packets} {} {}", busy.as_nanos(), start.elapsed().as_nanos());
    }
    Ok(())
}

/// Calls `round`, which says how many packets it handled, for so long.
fn timed(slice: Duration, mut round: impl FnMut() -> usize) -> anyhow::Result<Sample> {
    let (cpu, start) = (own_cpu_time()?, Instant::now());
    let mut packets = 0;
    while start.elapsed() < slice {
        for _ in 0..256 {
            packets += round();
        }
    }
    Ok(Sample { packets: packets as u64, cpu: own_cpu_time()? - cpu, wall: start.elapsed() })
}

fn frame(pool: &Mempool, flow: u16, length: usize) -> anyhow::Result<Mbuf> {
    let frame = Frame::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(flow, flow % 64).pad_to(length).build();
    let mut packet = pool.alloc().context("the pool is empty")?;
    anyhow::ensure!(packet.set_contents(&frame), "a frame of {length} bytes does not fit");
    Ok(packet)
}

/// Packets that go round: received from a ring, handled, and sent into it again.
struct Circle {
    consumer: Consumer,
    producer: Producer,
    burst: Burst,
}

impl Circle {
    fn new(eal: &Eal, mbufs: u32, length: usize, at_once: usize) -> anyhow::Result<Self> {
        static CIRCLES: AtomicU32 = AtomicU32::new(0);
        let number = CIRCLES.fetch_add(1, Ordering::Relaxed);
        let data_room = u16::try_from((length + 192).next_multiple_of(1024))?;
        let config = MempoolConfig { size: mbufs, cache: 0, data_room, ..MempoolConfig::default() };
        let pool = Mempool::new(eal, &format!("circle-{number}"), config)?;
        let (producer, consumer) = Ring::pair(eal, &format!("circle-{number}"), mbufs)?;
        let mut circle = Self { consumer, producer, burst: Burst::with_limit(at_once) };
        let mut filling = Burst::new();
        for flow in 0..mbufs {
            let flow = u16::try_from(flow % u32::from(FLOWS))?;
            filling.push(frame(&pool, flow, length)?).map_err(|_| anyhow::anyhow!("the burst is full"))?;
            circle.producer.send(&mut filling);
        }
        Ok(circle)
    }

    #[inline]
    fn round(&mut self, mut handle: impl FnMut(&mut Mbuf)) -> usize {
        let received = self.consumer.receive(&mut self.burst);
        self.burst.iter().for_each(Mbuf::prefetch);
        self.burst.iter_mut().for_each(&mut handle);
        self.producer.send(&mut self.burst);
        received
    }
}

/// A way whose packets go round.
fn circling<'a>(
    name: impl Into<String>,
    circle: &Rc<RefCell<Circle>>,
    mut handle: impl FnMut(&mut Swap, &mut Mbuf) + 'a,
) -> Way<'a> {
    let (circle, mut swap) = (Rc::clone(circle), Swap::new());
    Way::new(name, move |slice| {
        let mut circle = circle.borrow_mut();
        timed(slice, || circle.round(|packet| handle(&mut swap, packet)))
    })
}

fn shared(circle: anyhow::Result<Circle>) -> anyhow::Result<Rc<RefCell<Circle>>> {
    Ok(Rc::new(RefCell::new(circle?)))
}

pub(crate) fn bursts(eal: &Eal) -> anyhow::Result<Vec<Way<'static>>> {
    let way = |at_once: u32| {
        let circle = shared(Circle::new(eal, HOT, SHORTEST, at_once as usize))?;
        Ok(circling(format!("{at_once}"), &circle, Swap::handle).at(at_once))
    };
    [32, 1, 2, 4, 8, 16, 64].into_iter().map(way).collect()
}

pub(crate) fn without(eal: &Eal) -> anyhow::Result<Vec<Way<'static>>> {
    let circle = shared(Circle::new(eal, HOT, SHORTEST, 32))?;
    let mut copy = vec![0; 2048];
    Ok(vec![
        circling("as it is: bursts of 32, mbufs allocated before", &circle, Swap::handle),
        circling("an allocation on the heap for each packet", &circle, |swap, packet| {
            drop(black_box(Vec::<u8>::with_capacity(black_box(2048))));
            swap.handle(packet);
        }),
        circling("a copy of each packet", &circle, move |swap, packet| {
            copy[..packet.len()].copy_from_slice(packet.data());
            black_box(&copy);
            swap.handle(packet);
        }),
    ])
}

pub(crate) fn copies(eal: &Eal) -> anyhow::Result<Vec<Way<'static>>> {
    let mut ways = Vec::new();
    for length in [64, 256, 512, 1024, 1500] {
        let circle = shared(Circle::new(eal, HOT, length, 32))?;
        let at = u32::try_from(length)?;
        ways.push(circling(format!("{length} bytes, no copy"), &circle, Swap::handle).at(at));
        let mut copy = vec![0; 2048];
        ways.push(
            circling(format!("{length} bytes, copied"), &circle, move |swap, packet| {
                copy[..packet.len()].copy_from_slice(packet.data());
                black_box(&copy);
                swap.handle(packet);
            })
            .at(at),
        );
    }
    Ok(ways)
}

pub(crate) fn rotations(eal: &Eal) -> anyhow::Result<Vec<Way<'static>>> {
    let way = |mbufs: u32| {
        let circle = shared(Circle::new(eal, mbufs, SHORTEST, 32))?;
        Ok(circling(format!("{mbufs} mbufs"), &circle, Swap::handle).at(mbufs))
    };
    [HOT, 512, 8192, 16_384, 65_536].into_iter().map(way).collect()
}

/// A table of flows on two cores: one for each, or one for both, behind a lock.
pub(crate) fn tables(eal: &Eal, plan: Plan, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let names = ["a table for each of two cores", "one table for both, locked"];
    let mut figures: [[Vec<f64>; 2]; 2] = Default::default();
    eprintln!("one table or two: {} rounds", plan.rounds);
    for round in 0..=plan.rounds {
        for (locked, figures) in [false, true].into_iter().zip(&mut figures) {
            let sample = two_cores(eal, locked, plan.slice)?;
            if round > 0 {
                figures[0].push(sample.cpu_cost());
                figures[1].push(sample.wall_cost());
            }
        }
    }
    let from = rows.len();
    for (name, [cpu, wall]) in names.into_iter().zip(figures) {
        let (cpu_ns_per_packet, wall_ns_per_packet) = (cpu, wall);
        rows.push(Row { group: "tables", name: name.to_owned(), at: None, cpu_ns_per_packet, wall_ns_per_packet });
    }
    print_group("two cores that count by flow", &rows[from..]);
    Ok(())
}

/// Both cores' work added up: CPU time per packet of both.
fn two_cores(eal: &Eal, locked: bool, slice: Duration) -> anyhow::Result<Sample> {
    let table: Arc<Mutex<HashMap<u16, u64>>> = Arc::default();
    let circles = eal.lcores().iter().map(|_| Circle::new(eal, HOT, SHORTEST, 32)).collect::<Result<Vec<_>, _>>()?;
    let samples = eal.scope(|scope| -> anyhow::Result<Vec<Sample>> {
        let launch = |(lcore, circle)| {
            let table = locked.then(|| Arc::clone(&table));
            scope.launch(lcore, move || count_by_flow(circle, table, slice))
        };
        let joins = eal.lcores().into_iter().zip(circles).map(launch).collect::<Result<Vec<_>, _>>()?;
        let join = |join: dpdk_rs::LcoreJoin<'_, _>| join.join().map_err(|_| anyhow::anyhow!("an lcore panicked"))?;
        joins.into_iter().map(join).collect()
    })?;
    let sum = |sum: Sample, one: Sample| Sample {
        packets: sum.packets + one.packets,
        cpu: sum.cpu + one.cpu,
        wall: sum.wall.max(one.wall),
    };
    samples.into_iter().reduce(sum).context("no lcore")
}

/// One core's part, with the table of both or one of its own.
fn count_by_flow(
    mut circle: Circle,
    table: Option<Arc<Mutex<HashMap<u16, u64>>>>,
    slice: Duration,
) -> anyhow::Result<Sample> {
    let (mut own, mut swap) = (HashMap::<u16, u64>::new(), Swap::new());
    timed(slice, || {
        circle.round(|packet| {
            let flow = packet.data().get(34..36).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
            match &table {
                Some(table) => *table.lock().unwrap_or_else(PoisonError::into_inner).entry(flow).or_default() += 1,
                None => *own.entry(flow).or_default() += 1,
            }
            swap.handle(packet);
        })
    })
}
