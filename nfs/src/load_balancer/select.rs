//! Which backend a flow goes to of which nothing is remembered.

use super::config::Hash;
use super::flow::{Flow, Key, KeyV4, KeyV6};
use super::policy::{Service, Table};
use super::quic;
use nf_framework::HashKey;
use nf_framework::headers::IpProtocol;

/// Hashes flows, the same on all instances that have the same seed.
#[derive(Clone, Debug)]
pub(super) struct FlowHash(HashKey);

impl FlowHash {
    pub(super) fn new(seed: u64) -> Self {
        Self(HashKey::from_seed(seed))
    }

    pub(super) fn key(&self) -> &HashKey {
        &self.0
    }

    #[inline(always)]
    pub(super) fn v4(&self, key: &KeyV4) -> u64 {
        self.0.hash(key)
    }

    #[inline(always)]
    pub(super) fn v6(&self, key: &KeyV6) -> u64 {
        self.0.hash(key)
    }

    pub(super) fn of(&self, key: &Key) -> u64 {
        match key {
            Key::V4(key) => self.v4(key),
            Key::V6(key) => self.v6(key),
        }
    }
}

impl Table {
    /// The backend of a hash.
    #[inline]
    pub(super) fn of_hash(&self, hash: u64) -> Option<u16> {
        // Its place is where it is between 0 and 2^64.
        let place = (u128::from(hash) * self.places.len() as u128) >> 64;
        self.places.get(usize::try_from(place).ok()?).copied()
    }
}

impl Service {
    /// The backend that a QUIC packet names, whether that is up or not.
    pub(super) fn named(&self, flow: &Flow, payload: &[u8]) -> Option<u16> {
        if self.hash != Hash::Quic || flow.protocol != IpProtocol::UDP {
            return None;
        }
        let id = quic::server_id(payload, self.server_id_length)?;
        self.server_ids.get(&id).copied()
    }

    /// The backend of a flow by the table alone, the same on all instances; none if none is ready.
    pub(super) fn by_table(&self, hash: &FlowHash, flow: &Flow, key: &Key) -> Option<u16> {
        let table = self.table.as_ref()?;
        let of_part = |flow: Flow| hash.of(&flow.key());
        table.of_hash(match self.hash {
            Hash::Tuple | Hash::Quic => hash.of(key),
            Hash::Source => of_part(Flow {
                destination: flow.source,
                source_port: 0,
                destination_port: 0,
                protocol: IpProtocol(0),
                ..*flow
            }),
            Hash::DestinationPort => {
                of_part(Flow { source: flow.destination, source_port: 0, protocol: IpProtocol(0), ..*flow })
            }
        })
    }
}
