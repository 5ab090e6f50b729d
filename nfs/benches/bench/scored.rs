//! What the suites that give scores have in common: sources of packets, a base on each, and
//! testpmd's macswap as the unit.

use crate::io::MACSWAP;
use crate::machine::Memory;
use crate::measure::Variant;
use crate::ours::{NULL, Pair, RING, Setting, devices, made, start_eal, worker};
use crate::source::{CIRCULATING, Circulation, End, Externals, Flows, Shelf, Store, When, no_stores};
use crate::testpmd::Testpmd;
use dpdk_rs::{Burst, Eal};
use nf_framework::{Affinity, Direction, Loaded};
use std::cell::RefCell;

/// testpmd and our EAL, side by side, with packets to circulate.
pub(crate) struct Stage {
    testpmd: RefCell<Testpmd>,
    pub(crate) eal: Eal,
    circulation: Circulation,
}

/// A source of packets.
pub(crate) struct Source {
    /// As rows begin: "hot", "16k mbufs".
    pub(crate) name: &'static str,
    pub(crate) mbufs: u32,
    pair: Pair,
    when: When,
    stores: [Shelf<Store>; 2],
}

/// Where packets stay in cache.
pub(crate) const HOT: &str = "hot";
/// Where they have left a core's own cache, and are in the one that cores share.
pub(crate) const SHARED: &str = "16k mbufs";
/// Where they have left every cache.
pub(crate) const COLD: &str = "256k mbufs";
/// Mbufs in rotation, beside those that are hot. Their lines are 3 and 48 MiB.
const ROTATING: [(&str, u32); 2] = [(SHARED, 16 << 10), (COLD, 256 << 10)];
/// About as many as the last cache holds when nobody else uses it, and far more than when others do:
/// what they cost, and what a function costs beside them, is the neighbours' doing.
const EDGE: (&str, u32) = ("64k mbufs", 64 << 10);
/// MiB for all of them.
pub(crate) const MEBIBYTES: u64 = 240;

impl Stage {
    pub(crate) fn start(memory: Memory) -> anyhow::Result<Self> {
        // Before the EAL pins this thread.
        let testpmd = RefCell::new(Testpmd::start(memory, &devices(), 1, Burst::USUAL)?);
        let eal = start_eal(memory, 1)?;
        let more = ROTATING.iter().chain([&EDGE]).map(|(_, mbufs)| mbufs).sum();
        let circulation = Circulation::new(&eal, more, 1)?;
        circulation.fill(&eal, Circulation::HOT)?;
        Ok(Self { testpmd, eal, circulation })
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.circulation.drain(&self.eal)
    }

    /// The source whose packets stay in cache, and those whose packets do not.
    pub(crate) fn rings(&self) -> anyhow::Result<Vec<Source>> {
        [(HOT, CIRCULATING)].into_iter().chain(ROTATING).map(|source| self.ring(source)).collect()
    }

    /// The one between those, without scores.
    pub(crate) fn edge(&self) -> anyhow::Result<Source> {
        self.ring(EDGE)
    }

    fn ring(&self, (name, mbufs): (&'static str, u32)) -> anyhow::Result<Source> {
        Ok(Source { name, mbufs, pair: RING, when: When::Leaving, stores: self.circulation.stores(mbufs)? })
    }

    /// The second source: packets from net_null, headers written as they arrive.
    pub(crate) fn generator(&self) -> Source {
        Source { name: "net_null", mbufs: CIRCULATING, pair: NULL, when: When::Arriving, stores: no_stores() }
    }

    /// The unit of scores.
    pub(crate) fn macswap(&self) -> Variant<'_> {
        Variant::new(MACSWAP, |slice| {
            self.testpmd.borrow_mut().forward("macswap", NULL.numbers, Burst::USUAL, None, slice)
        })
    }

    /// Worker, source and `Wire`.
    pub(crate) fn base(&self, source: &Source) -> Variant<'_> {
        self.variant(source, source.when, Source::BASE, usual_flows(), Vec::new)
    }

    /// The same where nobody touches what is in the packets.
    pub(crate) fn untouched(&self, source: &Source) -> Variant<'_> {
        self.variant(source, When::Never, "untouched", usual_flows(), Vec::new)
    }

    /// The same with functions between, and its score over the base.
    pub(crate) fn scored(
        &self,
        source: &Source,
        name: &str,
        flows: Flows,
        functions: impl Fn() -> Vec<Loaded> + 'static,
    ) -> Variant<'_> {
        self.variant(source, source.when, name, flows, functions).score(&source.row(Source::BASE), MACSWAP)
    }

    /// A base of its own, for what does not run on the usual one.
    pub(crate) fn base_of(&self, source: &Source, name: &str, ends: Ends) -> Variant<'_> {
        self.variant(source, source.when, name, ends, Vec::new)
    }

    /// A score over such a base.
    pub(crate) fn scored_over(
        &self,
        source: &Source,
        name: &str,
        base: &str,
        ends: Ends,
        functions: impl Fn() -> Vec<Loaded> + 'static,
    ) -> Variant<'_> {
        self.variant(source, source.when, name, ends, functions).score(&source.row(base), MACSWAP)
    }

    /// The same without a score.
    pub(crate) fn plain(
        &self,
        source: &Source,
        name: &str,
        functions: impl Fn() -> Vec<Loaded> + 'static,
    ) -> Variant<'_> {
        self.variant(source, source.when, name, usual_flows(), functions).net(source.row(Source::BASE))
    }

    fn variant(
        &self,
        source: &Source,
        when: When,
        name: &str,
        packets: impl Into<Ends>,
        functions: impl Fn() -> Vec<Loaded> + 'static,
    ) -> Variant<'_> {
        let (setting, stores, packets) = (Setting::new(source.pair), source.stores.clone(), packets.into());
        Variant::new(source.row(name), move |slice| {
            let [inside, outside] = ends(when, &packets, &stores);
            let chain = [inside].into_iter().chain(functions()).chain([outside]);
            worker(&self.eal, setting, chain.collect(), slice)
        })
    }
}

impl Source {
    const BASE: &'static str = "base";

    /// Whether its packets circulate, as those of a NIC's ring do.
    pub(crate) fn rotates(&self) -> bool {
        self.when == When::Leaving
    }

    /// The name of a row of this source.
    pub(crate) fn row(&self, name: &str) -> String {
        format!("{}: {name}", self.name)
    }
}

/// Where the number of flows does not matter.
pub(crate) fn usual_flows() -> Flows {
    Flows::All(1 << 10)
}

/// Which packets there are.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) flows: Flows,
    /// What those from outside are for, if not for the clients themselves. Then no packet is met that
    /// another run has written.
    pub(crate) externals: Option<Externals>,
    /// Whether there are those of clients alone, from both sides.
    pub(crate) of_clients: bool,
    /// Whether packets that another run has written are written anew.
    pub(crate) anew: bool,
}

impl From<Flows> for Ends {
    fn from(flows: Flows) -> Self {
        Self { flows, externals: None, of_clients: false, anew: false }
    }
}

fn ends(when: When, packets: &Ends, stores: &[Shelf<Store>; 2]) -> [Loaded; 2] {
    let Ends { flows, externals, of_clients, anew } = packets;
    let [inside, outside] = stores;
    let (outbound, inbound) = (Direction::Outbound, Direction::Inbound);
    let (anew, of_clients) = (*anew || externals.is_some(), *of_clients);
    [("inside-end", outbound, inside, None), ("outside-end", inbound, outside, externals.clone())].map(
        |(name, entrance, store, externals)| {
            let (flows, store) = (flows.clone(), store.clone());
            made(name, Affinity::Any, move |_| {
                let store = store.take().ok_or("another worker has the packets")?;
                let end = End::new(entrance, when, flows.clone(), store);
                Ok(match (of_clients, anew) {
                    (true, _) => end.of_clients(),
                    (_, true) => end.anew(externals.clone()),
                    _ => end,
                })
            })
        },
    )
}

/// What must be known to read scores.
pub(crate) fn notes() -> Vec<String> {
    [
        "score = 1 + (own - base) / testpmd macswap, costs of quiet rounds; base is the same worker and source with Wire",
        "hot: 1792 mbufs circulate through net_ring; 16k and 256k mbufs: so many do, cold when they arrive, as from a \
         NIC: 16k still in the cache that cores share, 256k in none",
        "64-byte UDP, both directions, burst 32; each flow once in a permuted order, then again; a restorer behind the \
         function writes the next flow's header, in the base too: so a base pays for the packet's line, which is asked \
         for when the packet arrives; untouched is what the worker costs where nobody needs it",
        "net_null: a generator before the function writes headers into packets from the mempool's cache: always hot",
    ]
    .map(str::to_owned)
    .into()
}
