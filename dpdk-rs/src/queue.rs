//! A port's queues: polled by whoever holds them, and by no one else.

use crate::burst::Burst;
use crate::mbuf::{Glance, Mbuf};
use crate::rx_interrupt::RxInterrupt;
use crate::started::Started;
use crate::{Mempool, PortId};
use dpdk_sys as sys;
use std::sync::Arc;

/// A receive and a transmit queue of one port, for one lcore.
#[derive(Debug)]
pub struct QueuePair {
    /// Where packets come in.
    pub rx: RxQueue,
    /// Where packets go out.
    pub tx: TxQueue,
}

/// A receive queue. While it exists its port is started.
///
/// ```compile_fail
/// fn twice(queue: dpdk_rs::RxQueue) -> [dpdk_rs::RxQueue; 2] { [queue.clone(), queue] }
/// ```
#[derive(Debug)]
pub struct RxQueue {
    /// Where the device has one. Declared before the port, so it goes before the stop.
    pub(crate) interrupt: Option<RxInterrupt>,
    pub(crate) port: Arc<Started>,
    pub(crate) queue: u16,
    refused: u64,
    /// The pool's data room in bytes.
    largest: u16,
    /// Arriving packets are of this pool, so it must not go before.
    _pool: Mempool,
}

/// A transmit queue. While it exists its port is started.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Started>,
    queue: u16,
    /// Whether packets may ask something of the device, which drivers of virtual devices do for it here.
    prepare: bool,
}

impl QueuePair {
    pub(crate) fn new(
        port: &Arc<Started>,
        queue: u16,
        pool: &Mempool,
        prepare: bool,
        interrupt: Option<RxInterrupt>,
    ) -> Self {
        Self {
            rx: RxQueue {
                interrupt,
                port: Arc::clone(port),
                queue,
                refused: 0,
                largest: pool.config().data_room,
                _pool: pool.clone(),
            },
            tx: TxQueue { port: Arc::clone(port), queue, prepare },
        }
    }

    /// The port that both belong to.
    #[must_use]
    pub fn port(&self) -> PortId {
        self.rx.port()
    }

    pub(crate) fn belongs_to(&self, port: &Arc<Started>) -> bool {
        Arc::ptr_eq(&self.rx.port, port) && Arc::ptr_eq(&self.tx.port, port)
    }
}

impl RxQueue {
    /// Receives packets into the burst, behind what is in it, up to the burst's limit, and
    /// returns how many. Each is stamped with this port's id. A packet that an [`Mbuf`]
    /// cannot be (several segments, shared data) is freed and counted in [`RxQueue::refused`].
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        let (len, room) = (burst.len(), burst.room());
        if room == 0 {
            return 0;
        }
        // SAFETY: len + room is at most the capacity of the array of slots.
        let free = unsafe { burst.pointers().add(len) };
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        // SAFETY: the port is started and has this queue; `&mut self` of the only handle
        // makes this the queue's only poll; there is room for that many pointers.
        let count = usize::from(unsafe { sys::shim_rx_burst(self.port.id().0, self.queue, free, room as u16) });
        // SAFETY: the driver has stored that many packets there and gives them away
        // (rte_eth_rx_burst). What an `Mbuf` cannot be is taken out below before anyone can
        // touch it.
        let arrived = unsafe { std::slice::from_raw_parts(free.cast::<Mbuf>(), count) };
        let port = self.port.id().0;
        let glance = Mbuf::glance(arrived, port, self.largest);
        // SAFETY: as above; the driver stores no more than it was asked for.
        unsafe { burst.grow(count) };
        match glance {
            Glance::Usual => count,
            Glance::OtherPort => {
                burst.packets_from(len).for_each(|packet| packet.set_port(self.port.id()));
                count
            }
            Glance::Unusual => self.inspect(burst, len),
        }
    }

    /// Looks at each packet that has arrived, from slot `from` on.
    #[cold]
    fn inspect(&mut self, burst: &mut Burst, from: usize) -> usize {
        let mut sound = true;
        for packet in burst.packets_from(from) {
            sound &= packet.is_sound();
            packet.set_port(self.port.id());
        }
        if sound { burst.len() - from } else { self.refuse(burst, from) }
    }

    #[cold]
    fn refuse(&mut self, burst: &mut Burst, from: usize) -> usize {
        for index in from..burst.len() {
            if burst.packet(index).is_some_and(|packet| !packet.is_sound()) {
                drop(burst.take(index));
                self.refused += 1;
            }
        }
        burst.compact_from(from);
        burst.len() - from
    }

    /// Packets freed on arrival because they had several segments, shared their data, or
    /// claimed more than their buffer holds.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The port that it belongs to.
    #[must_use]
    pub fn port(&self) -> PortId {
        self.port.id()
    }
}

impl TxQueue {
    /// Sends the packets of the burst, in order, and returns how many the queue took. Those
    /// that it refused stay in the burst, at its beginning: because the queue is full, or because
    /// the first of them is one that the driver cannot send, however often it is tried.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        burst.compact();
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let mut len = burst.len() as u16;
        if self.prepare {
            // SAFETY: the port is started and has this queue, and `&mut self` of the only handle makes
            // this its only use; the first `len` slots are packets, after `compact`, and stay so: the
            // driver may put another packet in the place of one that it cannot change, which is freed.
            len = unsafe { sys::shim_tx_prepare(self.port.id().0, self.queue, burst.pointers(), len) };
        }
        // SAFETY: the port is started and has this queue; `&mut self` of the only handle makes
        // this the queue's only use; the first `len` slots are packets, after `compact`.
        let sent = usize::from(unsafe { sys::shim_tx_burst(self.port.id().0, self.queue, burst.pointers(), len) });
        // The driver owns the first `sent` of them now.
        burst.give_away(sent);
        sent
    }

    /// Sends one packet.
    ///
    /// # Errors
    ///
    /// Gives the packet back when the queue is full.
    pub fn send_one(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        let mut burst = Burst::new();
        burst.push(packet)?;
        self.send(&mut burst);
        burst.take(0).map_or(Ok(()), Err)
    }

    /// The port that it belongs to.
    #[must_use]
    pub fn port(&self) -> PortId {
        self.port.id()
    }
}
