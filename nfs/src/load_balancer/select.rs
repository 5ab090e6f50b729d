//! Which backend a flow goes to of which nothing is remembered.

use super::config::Hash;
use super::flow::{Flow, Key};
use super::flow_hash::FlowHash;
use super::policy::{Service, Table};
use super::quic;
use nf_framework::headers::IpProtocol;

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
