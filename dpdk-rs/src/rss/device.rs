//! Key and table of a device: set, read back, believed only then.

use super::{RssFunctions, RssKey, RssTable, RssTableSize, RssTableSizeError};
use crate::Errno;
use crate::port_info::{PortId, PortInfo, control};
use dpdk_sys as sys;

/// Why a port does not spread packets as asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {port} ({driver}) {problem}")]
pub struct RssError {
    /// The port's name as the EAL knows it.
    pub port: String,
    /// Its driver.
    pub driver: String,
    /// What it is about.
    pub problem: RssProblem,
}

/// What a device cannot do, or does not do although it said that it would.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RssProblem {
    /// There is nothing to spread packets over, and RSS is off.
    #[error("was started with one queue: RSS needs two or more")]
    OneQueue,
    /// The table names a queue that the port was not started with.
    #[error("was started with {queues} queues, the RSS table names queue {queue}")]
    NoSuchQueue {
        /// The largest in the table.
        queue: u16,
        /// Queues that the port has, from 0 on.
        queues: u16,
    },
    /// The device takes no key, or one that ends before an IPv6 packet's ports.
    #[error("takes an RSS key of {have} bytes, {need} or more are needed")]
    KeySize {
        /// Bytes of its key, 0 if it takes none.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// The device's table cannot hold the one asked for.
    #[error("has an RSS table of {have} entries; a power of two is needed, {need} or more")]
    TableSize {
        /// Entries of its table, 0 without.
        have: u16,
        /// Entries needed.
        need: u16,
    },
    /// The device cannot hash what has to be hashed.
    #[error("cannot hash {missing} for RSS; it offers {have}")]
    Functions {
        /// What it lacks.
        missing: RssFunctions,
        /// What it offers.
        have: RssFunctions,
    },
    /// The driver refused.
    #[error("refused to {step}: {errno}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The device said that it took a key, and has another.
    #[error("took an RSS key and has another, from byte {byte} on")]
    KeyNotKept {
        /// The first byte that differs.
        byte: usize,
    },
    /// The device said that it took RSS functions, and lacks some of them.
    #[error("took the RSS functions {missing} and has not got them")]
    FunctionsNotKept {
        /// What it lacks.
        missing: RssFunctions,
    },
    /// The device said that it took a table, and has another.
    #[error("took an RSS table and has another: queue {have} in entry {entry}, not {need}")]
    TableNotKept {
        /// The first entry that differs.
        entry: usize,
        /// The queue in it.
        have: u16,
        /// The queue that was set.
        need: u16,
    },
}

impl PortInfo {
    /// What keeps the device from being told how to choose queues, by its own words; `None` if it says
    /// that it can be. It may still refuse some functions, or not do what it says.
    #[must_use]
    pub fn rss_obstacle(&self) -> Option<RssProblem> {
        let (have, need) = (usize::from(self.rss_key_size), RssKey::LEN);
        if have < need {
            return Some(RssProblem::KeySize { have, need });
        }
        let have = self.rss_table_size;
        if RssTableSize::new(have).is_err() {
            return Some(RssProblem::TableSize { have, need: RssTableSize::SMALLEST.entries() });
        }
        let (missing, have) = (RssFunctions::FLOWS, RssFunctions(self.rss_functions));
        (have == RssFunctions::NONE).then_some(RssProblem::Functions { missing, have })
    }
}

/// What can be done to a device's RSS: a trait, so that tests have devices that lie.
pub(crate) trait Device {
    /// `key` is as long as the device says.
    fn set_hash(&self, key: &[u8], functions: RssFunctions) -> Result<(), Errno>;
    fn hash(&self, key_size: u8) -> Result<(Vec<u8>, RssFunctions), Errno>;
    fn set_table(&self, table: &RssTable) -> Result<(), Errno>;
    fn table(&self, size: RssTableSize) -> Result<RssTable, Errno>;
}

/// Room for the largest key that a device can name, and for drivers that copy what they like.
const KEY_ROOM: usize = sys::SHIM_RSS_KEY_ROOM as usize;

impl Device for PortId {
    fn set_hash(&self, key: &[u8], functions: RssFunctions) -> Result<(), Errno> {
        let mut room = [0; KEY_ROOM];
        room.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        let size = u8::try_from(key.len()).map_err(|_| Errno(libc::EINVAL))?;
        let _control = control();
        // SAFETY: any id may be asked about; the key has the room that the shim asks for.
        Errno::check(unsafe { sys::shim_rss_hash_set(self.0, functions.0, room.as_mut_ptr(), size) }).map(|_| ())
    }

    fn hash(&self, key_size: u8) -> Result<(Vec<u8>, RssFunctions), Errno> {
        let (mut room, mut functions) = ([0; KEY_ROOM], 0);
        let _control = control();
        // SAFETY: as above; `functions` is ours.
        Errno::check(unsafe { sys::shim_rss_hash(self.0, &raw mut functions, room.as_mut_ptr(), key_size) })?;
        Ok((room[..usize::from(key_size)].to_vec(), RssFunctions(functions)))
    }

    fn set_table(&self, table: &RssTable) -> Result<(), Errno> {
        let (queues, entries) = (table.entries().as_ptr(), table.size().entries());
        let _control = control();
        // SAFETY: any id may be asked about; the table has that many entries.
        Errno::check(unsafe { sys::shim_rss_table_set(self.0, queues, entries) }).map(|_| ())
    }

    fn table(&self, size: RssTableSize) -> Result<RssTable, Errno> {
        let mut queues = vec![0; usize::from(size.entries())];
        let _control = control();
        // SAFETY: any id may be asked about; there is room for that many entries.
        Errno::check(unsafe { sys::shim_rss_table(self.0, queues.as_mut_ptr(), size.entries()) })?;
        RssTable::new(queues).map_err(|_: RssTableSizeError| Errno(libc::EINVAL))
    }
}

/// What [`Port::set_rss`](crate::Port::set_rss) does.
pub(crate) fn set(
    device: &impl Device,
    info: &PortInfo,
    queues: u16,
    key: &RssKey,
    table: &RssTable,
    functions: RssFunctions,
) -> Result<(), RssProblem> {
    if queues < 2 {
        return Err(RssProblem::OneQueue);
    }
    if let Some(queue) = table.entries().iter().copied().max().filter(|queue| *queue >= queues) {
        return Err(RssProblem::NoSuchQueue { queue, queues });
    }
    let (have, need) = (usize::from(info.rss_key_size), RssKey::LEN);
    if have < need {
        return Err(RssProblem::KeySize { have, need });
    }
    let (have, need) = (info.rss_table_size, table.size().entries());
    let table = RssTableSize::new(have).ok().and_then(|size| table.repeat_to(size));
    let table = table.ok_or(RssProblem::TableSize { have, need })?;
    let have = RssFunctions(info.rss_functions);
    let missing = functions.missing_from(have);
    if missing != RssFunctions::NONE {
        return Err(RssProblem::Functions { missing, have });
    }
    // A device that takes no settings may have these by chance, or from a start before. It
    // does not have them and their opposite: every bit of the key and every entry another.
    let opposite = (RssKey::new(key.bytes().map(|byte| !byte)), table.map(|queue| (queue + 1) % queues));
    write(device, info.rss_key_size, &opposite.0, &opposite.1, functions & have)?;
    write(device, info.rss_key_size, key, &table, functions & have)
}

/// Sets all, and compares all with what is there then.
fn write(
    device: &impl Device,
    key_size: u8,
    key: &RssKey,
    table: &RssTable,
    functions: RssFunctions,
) -> Result<(), RssProblem> {
    let refused = |step| move |errno| RssProblem::Refused { step, errno };
    let mut long_key = key.bytes().to_vec();
    long_key.resize(key_size.into(), 0);
    device.set_hash(&long_key, functions).map_err(refused("set the RSS key"))?;
    device.set_table(table).map_err(refused("set the RSS table"))?;

    let (kept_key, kept_functions) = device.hash(key_size).map_err(refused("read the RSS key"))?;
    if let Some(byte) = long_key.iter().zip(&kept_key).position(|(set, kept)| set != kept) {
        return Err(RssProblem::KeyNotKept { byte });
    }
    let missing = functions.missing_from(kept_functions);
    if missing != RssFunctions::NONE {
        return Err(RssProblem::FunctionsNotKept { missing });
    }
    let kept = device.table(table.size()).map_err(refused("read the RSS table"))?;
    let pairs = table.entries().iter().zip(kept.entries());
    match pairs.enumerate().find(|(_, (set, kept))| set != kept) {
        Some((entry, (set, kept))) => Err(RssProblem::TableNotKept { entry, have: *kept, need: *set }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rss::{IpVersion, RssField};
    use std::cell::{Cell, RefCell};
    use std::num::NonZero;

    /// How a device of the tests differs from an honest one.
    #[derive(Clone, Copy, PartialEq)]
    enum Lie {
        None,
        /// Takes none of the key.
        Key,
        /// Cuts the key to 32 bytes.
        ShortKey,
        /// Takes none of the table.
        Table,
        /// Takes 64 entries of the table.
        ShortTable,
        /// Takes only functions over addresses.
        Functions,
        /// Answers the call of this number with an error.
        Refuses(u32),
    }

    struct Fake {
        lie: Lie,
        calls: Cell<u32>,
        key: RefCell<Vec<u8>>,
        table: RefCell<Vec<u16>>,
        functions: Cell<RssFunctions>,
    }

    impl Fake {
        fn call(&self) -> Result<(), Errno> {
            self.calls.set(self.calls.get() + 1);
            if self.lie == Lie::Refuses(self.calls.get()) { Err(Errno(libc::ENOTSUP)) } else { Ok(()) }
        }
    }

    impl Device for Fake {
        fn set_hash(&self, key: &[u8], functions: RssFunctions) -> Result<(), Errno> {
            self.call()?;
            assert_eq!(key.len(), self.key.borrow().len(), "what the device says that it takes");
            let taken = match self.lie {
                Lie::Key => 0,
                Lie::ShortKey => 32,
                _ => key.len(),
            };
            self.key.borrow_mut()[..taken].copy_from_slice(&key[..taken]);
            let mask = if self.lie == Lie::Functions { RssFunctions::IPV4 } else { RssFunctions(u64::MAX) };
            self.functions.set(functions & mask);
            Ok(())
        }

        fn hash(&self, _: u8) -> Result<(Vec<u8>, RssFunctions), Errno> {
            self.call()?;
            Ok((self.key.borrow().clone(), self.functions.get()))
        }

        fn set_table(&self, table: &RssTable) -> Result<(), Errno> {
            self.call()?;
            let taken = match self.lie {
                Lie::Table => 0,
                Lie::ShortTable => 64,
                _ => table.entries().len(),
            };
            self.table.borrow_mut()[..taken].copy_from_slice(&table.entries()[..taken]);
            Ok(())
        }

        fn table(&self, size: RssTableSize) -> Result<RssTable, Errno> {
            self.call()?;
            assert_eq!(usize::from(size.entries()), self.table.borrow().len());
            Ok(RssTable::new(self.table.borrow().clone()).unwrap())
        }
    }

    /// What a device says of itself: bytes of the key, entries of the table, functions.
    fn info(rss_key_size: u8, rss_table_size: u16, functions: RssFunctions) -> PortInfo {
        PortInfo { rss_functions: functions.0, rss_table_size, rss_key_size, ..PortInfo::fake() }
    }

    fn key() -> RssKey {
        RssKey::of_field(RssField::DestinationAddress(IpVersion::V4), RssTableSize::new(128).unwrap(), 1)
    }

    fn table() -> RssTable {
        RssTable::balanced(RssTableSize::new(128).unwrap(), NonZero::new(3).unwrap(), 1)
    }

    /// What comes of setting key and table on a device that has them already, and the device.
    fn outcome(info: &PortInfo, lie: Lie, queues: u16) -> (Result<(), RssProblem>, Fake) {
        let mut before = key().bytes().to_vec();
        before.resize(info.rss_key_size.into(), 0);
        let entries = table().entries().iter().copied().cycle().take(info.rss_table_size.into()).collect();
        let fake = Fake {
            lie,
            calls: Cell::new(0),
            key: RefCell::new(before),
            table: RefCell::new(entries),
            functions: Cell::new(RssFunctions::NONE),
        };
        (set(&fake, info, queues, &key(), &table(), RssFunctions::FLOWS), fake)
    }

    #[test]
    fn an_honest_device_has_key_and_table_in_the_end() {
        let only_whole = RssFunctions::FLOWS.0 & !(RssFunctions::IPV4.0 | RssFunctions::IPV6.0)
            | sys::RTE_ETH_RSS_IPV4
            | sys::RTE_ETH_RSS_IPV6;
        for (key_size, entries, functions) in
            [(40, 128, RssFunctions::FLOWS), (52, 512, RssFunctions(u64::MAX)), (255, 4096, RssFunctions(only_whole))]
        {
            let info = info(key_size, entries, functions);
            let (outcome, fake) = outcome(&info, Lie::None, 3);
            assert_eq!(outcome, Ok(()));
            let set = fake.key.borrow();
            assert_eq!((&set[..40], set[40..].iter().max().unwrap_or(&0)), (&key().bytes()[..], &0));
            let size = RssTableSize::new(entries).unwrap();
            assert_eq!(*fake.table.borrow(), table().repeat_to(size).unwrap().entries());
            assert_eq!(fake.functions.get(), RssFunctions::FLOWS & functions);
        }
    }

    #[test]
    fn a_device_that_keeps_its_old_settings_is_found_out_even_if_they_are_those_wanted() {
        let device = info(52, 256, RssFunctions(u64::MAX));
        for (lie, problem) in [
            (Lie::Key, RssProblem::KeyNotKept { byte: 0 }),
            (Lie::ShortKey, RssProblem::KeyNotKept { byte: 32 }),
            (Lie::Table, RssProblem::TableNotKept { entry: 0, have: 0, need: 1 }),
            (Lie::ShortTable, RssProblem::TableNotKept { entry: 64, have: 0, need: 1 }),
            (
                Lie::Functions,
                RssProblem::FunctionsNotKept { missing: RssFunctions(RssFunctions::FLOWS.0 & !RssFunctions::IPV4.0) },
            ),
        ] {
            let (found, _) = outcome(&device, lie, 3);
            match (found.unwrap_err(), problem) {
                // Which queue it is depends on the table.
                (RssProblem::TableNotKept { entry, have, need }, RssProblem::TableNotKept { entry: expected, .. }) => {
                    assert_eq!((entry, need), (expected, (have + 1) % 3));
                }
                (found, problem) => assert_eq!(found, problem),
            }
        }
    }

    #[test]
    fn what_the_driver_refuses_is_named() {
        let steps = ["set the RSS key", "set the RSS table", "read the RSS key", "read the RSS table"];
        for (call, step) in (1..).zip(steps.into_iter().chain(steps)) {
            let (found, fake) = outcome(&info(40, 128, RssFunctions::FLOWS), Lie::Refuses(call), 3);
            assert_eq!(found, Err(RssProblem::Refused { step, errno: Errno(libc::ENOTSUP) }));
            assert_eq!(fake.calls.get(), call, "nothing is asked after a refusal");
        }
    }

    #[test]
    fn what_a_device_lacks_is_said_before_it_is_touched() {
        for (info, queues, problem) in [
            (info(40, 128, RssFunctions::FLOWS), 1, RssProblem::OneQueue),
            (info(40, 128, RssFunctions::FLOWS), 2, RssProblem::NoSuchQueue { queue: 2, queues: 2 }),
            (info(0, 128, RssFunctions::FLOWS), 3, RssProblem::KeySize { have: 0, need: 40 }),
            (info(39, 128, RssFunctions::FLOWS), 3, RssProblem::KeySize { have: 39, need: 40 }),
            (info(40, 0, RssFunctions::FLOWS), 3, RssProblem::TableSize { have: 0, need: 128 }),
            (info(40, 64, RssFunctions::FLOWS), 3, RssProblem::TableSize { have: 64, need: 128 }),
            (info(40, 192, RssFunctions::FLOWS), 3, RssProblem::TableSize { have: 192, need: 128 }),
            (info(40, 8192, RssFunctions::FLOWS), 3, RssProblem::TableSize { have: 8192, need: 128 }),
            (
                info(40, 128, RssFunctions::IPV4_FLOWS),
                3,
                RssProblem::Functions { missing: RssFunctions::IPV6_FLOWS, have: RssFunctions::IPV4_FLOWS },
            ),
        ] {
            let (found, fake) = outcome(&info, Lie::None, queues);
            assert_eq!((found, fake.calls.get()), (Err(problem), 0));
        }
    }

    #[test]
    fn what_a_device_says_that_it_cannot_do_is_an_obstacle() {
        for (info, obstacle) in [
            (info(40, 128, RssFunctions::FLOWS), None),
            (info(52, 512, RssFunctions::IPV4_TCP), None),
            // A virtual function of an 82576.
            (info(0, 0, RssFunctions::NONE), Some(RssProblem::KeySize { have: 0, need: 40 })),
            (info(40, 0, RssFunctions::FLOWS), Some(RssProblem::TableSize { have: 0, need: 2 })),
            (
                info(40, 128, RssFunctions::NONE),
                Some(RssProblem::Functions { missing: RssFunctions::FLOWS, have: RssFunctions::NONE }),
            ),
        ] {
            assert_eq!(info.rss_obstacle(), obstacle);
        }
    }

    #[test]
    fn an_error_names_the_port_and_what_is_needed() {
        for (problem, message) in [
            (
                RssProblem::KeySize { have: 0, need: 40 },
                "port net_null0 (net_null) takes an RSS key of 0 bytes, 40 or more are needed",
            ),
            (
                RssProblem::TableSize { have: 64, need: 128 },
                "port net_null0 (net_null) has an RSS table of 64 entries; a power of two is needed, 128 or more",
            ),
            (
                RssProblem::Functions { missing: RssFunctions::IPV4_UDP, have: RssFunctions::IPV4_TCP },
                "port net_null0 (net_null) cannot hash ipv4-udp for RSS; it offers ipv4-tcp",
            ),
            (
                RssProblem::Refused { step: "set the RSS key", errno: Errno(libc::EINVAL) },
                "port net_null0 (net_null) refused to set the RSS key: Invalid argument (errno 22)",
            ),
        ] {
            let error = RssError { port: "net_null0".to_owned(), driver: "net_null".to_owned(), problem };
            assert_eq!(error.to_string(), message);
        }
    }
}
