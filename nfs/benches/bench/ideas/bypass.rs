//! DPDK, and DPDK with an idea taken away.

use crate::machine::{Memory, forwarding_cpus};
use crate::measure::{Variant, own_cpu_time};
use crate::results::{Axis, Sample};
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

pub(crate) const MEBIBYTES: u64 = 512;

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

pub(crate) fn start(memory: Memory) -> anyhow::Result<Eal> {
    let lcores = (0..).zip(forwarding_cpus().into_iter().take(2));
    let lcores: Vec<String> = lcores.map(|(lcore, cpu): (usize, _)| format!("{lcore}@{cpu}")).collect();
    let arguments = ["bench".to_owned(), format!("--lcores={}", lcores.join(","))];
    Ok(Eal::init(arguments.into_iter().chain(memory.eal_arguments()))?.0)
}

/// This program as a child of itself: forwards between the two interfaces, or round a ring, and
/// answers as the program of kernel.c does.
pub(crate) fn serve(device: &str) -> anyhow::Result<()> {
    let devices: &[&str] = match device {
        "af_packet" => &["--vdev=net_af_packet0,iface=in0", "--vdev=net_af_packet1,iface=out0"],
        "af_xdp" => &["--vdev=net_af_xdp0,iface=in0", "--vdev=net_af_xdp1,iface=out0"],
        _ => &["--vdev=net_ring0"],
    };
    let cpu = forwarding_cpus().first().copied().unwrap_or(0);
    let arguments = ["bench".to_owned(), format!("--lcores=0@{cpu}")].into_iter();
    let arguments = arguments.chain(Memory::Ordinary(128).eal_arguments());
    let (eal, _) = Eal::init(arguments.chain(devices.iter().map(|&device| device.to_owned())))?;
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
    Ok(Sample::new(packets as u64, own_cpu_time()? - cpu, start.elapsed()))
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

/// A variant whose packets go round.
fn circling<'a>(
    name: impl Into<String>,
    circle: &Rc<RefCell<Circle>>,
    mut handle: impl FnMut(&mut Swap, &mut Mbuf) + 'a,
) -> Variant<'a> {
    let (circle, mut swap) = (Rc::clone(circle), Swap::new());
    Variant::new(name, move |slice| {
        let mut circle = circle.borrow_mut();
        timed(slice, || circle.round(|packet| handle(&mut swap, packet)))
    })
}

fn shared(circle: anyhow::Result<Circle>) -> anyhow::Result<Rc<RefCell<Circle>>> {
    Ok(Rc::new(RefCell::new(circle?)))
}

/// Looks like the function, and copies each packet before.
fn copying() -> impl FnMut(&mut Swap, &mut Mbuf) {
    let mut copy = vec![0; 2048];
    move |swap, packet| {
        if let Some(copy) = copy.get_mut(..packet.len()) {
            copy.copy_from_slice(packet.data());
        }
        black_box(&copy);
        swap.handle(packet);
    }
}

pub(crate) fn bursts(eal: &Eal) -> anyhow::Result<Vec<Variant<'static>>> {
    let name = |at_once: usize| format!("{at_once} packets at once");
    let variant = |at_once: usize| {
        let circle = shared(Circle::new(eal, HOT, SHORTEST, at_once))?;
        let variant = circling(name(at_once), &circle, Swap::handle).at(Axis::Burst, "ring", at_once as f64);
        Ok(if at_once == Burst::USUAL { variant } else { variant.ratio(name(Burst::USUAL)) })
    };
    [Burst::USUAL, 1, 2, 4, 8, 16, 64].into_iter().map(variant).collect()
}

pub(crate) fn taken_away(eal: &Eal) -> anyhow::Result<Vec<Variant<'static>>> {
    let circle = shared(Circle::new(eal, HOT, SHORTEST, Burst::USUAL))?;
    let whole = "nothing taken away";
    let allocating = |swap: &mut Swap, packet: &mut Mbuf| {
        drop(black_box(Vec::<u8>::with_capacity(black_box(2048))));
        swap.handle(packet);
    };
    Ok(vec![
        circling(whole, &circle, Swap::handle),
        circling("an allocation on the heap for each packet", &circle, allocating).ratio(whole),
        circling("a copy of each packet, 64 bytes", &circle, copying()).ratio(whole),
    ])
}

pub(crate) fn copies(eal: &Eal) -> anyhow::Result<Vec<Variant<'static>>> {
    let mut variants = Vec::new();
    for length in [64, 256, 512, 1024, 1500] {
        let circle = shared(Circle::new(eal, HOT, length, Burst::USUAL))?;
        let (whole, at) = (format!("{length} bytes, not copied"), length as f64);
        variants.push(circling(whole.clone(), &circle, Swap::handle).at(Axis::Bytes, "not copied", at));
        let copied = circling(format!("{length} bytes, copied"), &circle, copying());
        variants.push(copied.at(Axis::Bytes, "copied", at).ratio(whole));
    }
    Ok(variants)
}

pub(crate) fn rotations(eal: &Eal) -> anyhow::Result<Vec<Variant<'static>>> {
    let name = |mbufs: u32| format!("{mbufs} mbufs in rotation");
    let variant = |mbufs: u32| {
        let circle = shared(Circle::new(eal, mbufs, SHORTEST, Burst::USUAL))?;
        let variant = circling(name(mbufs), &circle, Swap::handle).at(Axis::Mbufs, "ring", f64::from(mbufs));
        Ok(if mbufs == HOT { variant } else { variant.ratio(name(HOT)) })
    };
    [HOT, 512, 8192, 16_384, 65_536].into_iter().map(variant).collect()
}

/// A table of flows on each core, or one for both behind a lock.
pub(crate) fn tables(eal: &Eal) -> anyhow::Result<Vec<Variant<'_>>> {
    let circles =
        eal.lcores().iter().map(|_| Circle::new(eal, HOT, SHORTEST, Burst::USUAL)).collect::<Result<_, _>>()?;
    let circles: Rc<RefCell<Vec<Circle>>> = Rc::new(RefCell::new(circles));
    let cores = eal.lcores().len();
    let own = format!("{cores} core(s), a table for each");
    let variant = |name: &str, locked: bool| {
        let circles = Rc::clone(&circles);
        Variant::new(name, move |slice| count_by_flow(eal, &mut circles.borrow_mut(), locked, slice))
    };
    Ok(vec![variant(&own, false), variant(&format!("{cores} core(s), one table, locked"), true).ratio(&own)])
}

/// All cores' work added up.
fn count_by_flow(eal: &Eal, circles: &mut [Circle], locked: bool, slice: Duration) -> anyhow::Result<Sample> {
    let table: Arc<Mutex<HashMap<u16, u64>>> = Arc::default();
    let samples = eal.scope(|scope| -> anyhow::Result<Vec<Sample>> {
        let launch = |(lcore, circle)| {
            let table = locked.then(|| Arc::clone(&table));
            scope.launch(lcore, move || count_on_one(circle, table, slice))
        };
        let joins = eal.lcores().into_iter().zip(circles).map(launch).collect::<Result<Vec<_>, _>>()?;
        let join = |join: dpdk_rs::LcoreJoin<'_, _>| join.join().map_err(|_| anyhow::anyhow!("an lcore panicked"))?;
        // The main lcore is the first: it works while it is waited for.
        joins.into_iter().map(join).collect()
    })?;
    let sum = |sum: Sample, one: Sample| Sample {
        packets: sum.packets + one.packets,
        cpu_ns: sum.cpu_ns + one.cpu_ns,
        wall_ns: sum.wall_ns.max(one.wall_ns),
        ..sum
    };
    samples.into_iter().reduce(sum).context("no lcore")
}

/// One core's part, with the table of all or one of its own.
fn count_on_one(
    circle: &mut Circle,
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
