//! The functions that the frames go through: one reads all that there is to read, the other keeps
//! flows, so that packets come together at the workers that own them, and their fragments too.

use nf_framework::headers::Headers;
use nf_framework::{
    Annotation, Batch, Budget, Chain, Class, Context, Counter, Entry, FlowTable, HashKey, Mbuf, NetworkFunction,
    PacketFunction, Ports, Steering, Then, Tuple, Verdict, WorkerSetup,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Both of them.
pub(crate) fn chain(worker: &mut WorkerSetup) -> Chain {
    Reader::new(worker).then(Flows::new(worker))
}

/// Reads every layer of every packet, and what ICMP errors quote.
struct Reader {
    whole: Counter,
    broken: Counter,
    wrong_checksums: Counter,
    quotations: Counter,
}

impl Reader {
    fn new(worker: &mut WorkerSetup) -> Self {
        Self {
            whole: worker.counter("headers read"),
            broken: worker.counter("headers refused"),
            wrong_checksums: worker.counter("checksums wrong"),
            quotations: worker.counter("packets quoted"),
        }
    }
}

impl PacketFunction for Reader {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let ports = Annotation::of(packet).ports;
        let Ok(mut headers) = Headers::parse(packet.data_mut()) else {
            self.broken.add(1);
            return Verdict::Next;
        };
        assert_eq!(headers.network.fragment().is_some(), ports.is_some(), "a fragment is told its ports, nobody else");
        self.whole.add(1);
        self.wrong_checksums.add(headers.verify_checksums().is_err().into());
        self.quotations.add(headers.quoted().is_some().into());
        Verdict::Next
    }
}

/// Counts the packets of each flow, whichever way they go.
struct Flows {
    table: FlowTable<[u8; 40], u64>,
    steering: Option<Arc<Steering>>,
    worker: usize,
    begun: Counter,
    full: Counter,
}

/// How long a flow is remembered.
const IDLE: Duration = Duration::from_secs(30);

impl Flows {
    fn new(worker: &mut WorkerSetup) -> Self {
        // Few, so that it is full at times.
        let table =
            FlowTable::with_capacity(&worker.memory(), 256, HashKey::from_seed(1)).expect("memory for 256 flows");
        Self {
            table,
            steering: worker.steering().cloned(),
            worker: worker.index(),
            begun: worker.counter("flows begun"),
            full: worker.counter("flows without room"),
        }
    }
}

impl NetworkFunction for Flows {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            let Some(tuple) = batch.packet_mut(slot).and_then(Tuple::of_packet) else { continue };
            if let Some(steering) = &self.steering {
                assert_eq!(steering.owner(cx.direction(), &tuple), self.worker, "the worker of {tuple:?}");
            }
            let key = key(tuple).min(key(tuple.reversed()));
            let deadline = cx.now() + IDLE;
            match self.table.lookup(&key) {
                Some(handle) => {
                    self.table.touch(handle, deadline);
                    if let Some(Entry { value: packets, .. }) = self.table.entry_mut(handle) {
                        *packets += 1;
                    }
                }
                None if self.table.insert(key, 1, Class::EMBRYONIC, cx.now(), deadline, drop).is_ok() => {
                    self.begun.add(1)
                }
                None => self.full.add(1),
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.table.expire(cx.now(), budget.0, drop);
    }
}

fn key(tuple: Tuple) -> [u8; 40] {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let (kind, source, destination) = match tuple.ports {
        Ports::Both(source, destination) => (1, source, destination),
        Ports::Identifier(identifier) => (2, identifier, identifier),
        Ports::None => (3, 0, 0),
    };
    let mut key = [0; 40];
    key[..16].copy_from_slice(&address(tuple.source));
    key[16..32].copy_from_slice(&address(tuple.destination));
    key[32..34].copy_from_slice(&u16::to_be_bytes(source));
    key[34..36].copy_from_slice(&u16::to_be_bytes(destination));
    key[36] = kind;
    key
}
