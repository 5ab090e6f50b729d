//! What counts as one source, and how many connections each has begun.

use super::config::Config;
use super::refusal::Refusal;
use nf_framework::{Class, FlowTable, FlowTableError, HashKey, Instant, Memory};
use std::net::IpAddr;

/// Of IPv4 an address is one source, of IPv6 so many leading bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes {
    bits_v6: u8,
}

impl Prefixes {
    pub(super) fn new(config: &Config) -> Self {
        Self { bits_v6: config.source_bits_v6 }
    }

    /// What stands for the source that an address is of.
    pub(super) fn of(self, source: IpAddr) -> [u8; 16] {
        match source {
            // Among the groups of IPv6, which send nothing.
            IpAddr::V4(address) => {
                let mut octets = [0xff; 16];
                octets[12..].copy_from_slice(&address.octets());
                octets
            }
            IpAddr::V6(address) => {
                let behind = u128::MAX.checked_shr(self.bits_v6.into()).unwrap_or(0);
                (address.to_bits() & !behind).to_be_bytes()
            }
        }
    }
}

/// How many connections each source has begun.
#[derive(Debug)]
pub(super) struct Sources {
    table: FlowTable<[u8; 16], u32>,
    most: u32,
    prefixes: Prefixes,
}

impl Sources {
    /// With room for the sources of so many connections: one that has none needs no place, so that no source is forgotten
    /// before all of its connections are over.
    pub(super) fn new(
        config: &Config,
        connections: usize,
        memory: &Memory,
        workers: usize,
    ) -> Result<Option<Self>, FlowTableError> {
        let Some(most) = config.connections_per_source else { return Ok(None) };
        let table = FlowTable::with_capacity(memory, connections, HashKey::random())?;
        Ok(Some(Self { table, most: share(most, workers), prefixes: Prefixes::new(config) }))
    }

    pub(super) fn bytes(config: &Config, connections: usize) -> usize {
        config.connections_per_source.map_or(0, |_| FlowTable::<[u8; 16], u32>::bytes(connections))
    }

    pub(super) fn adopt(&mut self, config: &Config, workers: usize) {
        if let Some(most) = config.connections_per_source {
            self.most = share(most, workers);
        }
    }

    /// Counts one more connection, if the source may have it. One that it takes the place of, which this source has begun,
    /// counts until it ends, and is not in the way.
    pub(super) fn begin(&mut self, source: IpAddr, instead_of: Option<IpAddr>, now: Instant) -> Result<(), Refusal> {
        let key = self.prefixes.of(source);
        let ends = u32::from(instead_of.is_some_and(|before| self.prefixes.of(before) == key));
        let handle = match self.table.lookup(&key) {
            Some(handle) => handle,
            None => {
                // Of a lower class than those that are there, so that it takes the place of none.
                let inserted = self.table.insert(key, 0, Class::EMBRYONIC, now, Instant::NEVER, drop);
                let handle = inserted.map_err(|_| Refusal::SourcesFull)?.handle();
                self.table.reclassify(handle, Class::KEPT);
                handle
            }
        };
        match self.table.entry_mut(handle).map(|entry| entry.value) {
            Some(count) if count.saturating_sub(ends) < self.most => *count += 1,
            _ => return Err(Refusal::SourceLimit),
        }
        Ok(())
    }

    pub(super) fn end(&mut self, source: IpAddr) {
        let key = self.prefixes.of(source);
        let Some(handle) = self.table.lookup(&key) else { return };
        let left = self.table.entry_mut(handle).map_or(0, |entry| {
            *entry.value = entry.value.saturating_sub(1);
            *entry.value
        });
        if left == 0 {
            let _ = self.table.remove(handle);
        }
    }
}

/// A worker's part of a limit, as flows are spread over all workers.
fn share(most: u32, workers: usize) -> u32 {
    most.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// Of tables of connections there are never so many at once.
    #[test]
    fn who_finds_no_place_is_refused_and_takes_nobodys() {
        nf_framework::testing::lab(|lab| {
            let config: Config = toml::from_str("connections_per_source = 2").unwrap();
            let mut sources = Sources::new(&config, 1, &lab.eal.memory(), 1).unwrap().unwrap();
            let source = |number: u32| IpAddr::V4(Ipv4Addr::from(number));
            let mut begin = |number| sources.begin(source(number), None, Instant::START);
            for number in 0..64 {
                assert_eq!(begin(number), Ok(()));
            }
            assert_eq!(begin(64), Err(Refusal::SourcesFull));
            for number in 0..64 {
                assert_eq!((begin(number), begin(number)), (Ok(()), Err(Refusal::SourceLimit)));
            }
            for number in [7, 7] {
                sources.end(source(number));
            }
            assert_eq!(sources.begin(source(64), None, Instant::START), Ok(()));
        });
    }
}
