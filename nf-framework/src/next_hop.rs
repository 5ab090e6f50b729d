//! Next hops that functions choose.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A neighbour that a function sends packets to whatever their destination: a backend that
/// answers for a service's address by itself. The router finds its MAC address as it does that of
/// any neighbour.
///
/// ```
/// use nf_framework::{Annotation, Context, Mbuf, NextHop, PacketFunction, Verdict};
///
/// /// Sends all packets to one host.
/// struct ToOne(NextHop);
///
/// impl PacketFunction for ToOne {
///     fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
///         Annotation { next_hop: Some(self.0), ..Annotation::of(packet) }.write(packet);
///         Verdict::Next
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct NextHop(pub(crate) u16);

/// The next hops of a program's functions, from [`WorkerSetup::next_hops`](crate::WorkerSetup::next_hops).
#[derive(Clone, Debug)]
pub struct NextHops(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// Filled from the first one on; read without a lock.
    addresses: Box<[OnceLock<IpAddr>]>,
    /// How many are filled.
    count: Mutex<usize>,
}

impl NextHops {
    /// How many there may be in one program.
    pub const CAPACITY: usize = 4096;

    /// The next hop with this address, which has to be on the prefix of an interface. It is known
    /// from now on; one that was asked for before is the same. Not for the packet path: there is a
    /// lock.
    ///
    /// # Errors
    ///
    /// When there are more than [`NextHops::CAPACITY`].
    pub fn at(&self, address: IpAddr) -> Result<NextHop, TooManyNextHops> {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.0.addresses.iter().take(*count).position(|known| known.get() == Some(&address));
        let place = known.unwrap_or(*count);
        let index = u16::try_from(place).map_err(|_| TooManyNextHops { address })?;
        self.0.addresses.get(place).ok_or(TooManyNextHops { address })?.get_or_init(|| address);
        *count = (*count).max(place + 1);
        Ok(NextHop(index))
    }

    /// Its address.
    #[inline]
    pub(crate) fn address(&self, next_hop: NextHop) -> Option<IpAddr> {
        self.0.addresses.get(usize::from(next_hop.0))?.get().copied()
    }
}

impl Default for NextHops {
    fn default() -> Self {
        let addresses = (0..Self::CAPACITY).map(|_| OnceLock::new()).collect();
        Self(Arc::new(Known { addresses, count: Mutex::new(0) }))
    }
}

/// More next hops than there is room for.
#[derive(Debug, thiserror::Error)]
#[error("no room for the next hop {address}: a program may have {}", NextHops::CAPACITY)]
pub struct TooManyNextHops {
    address: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_is_one_next_hop_and_there_is_an_end_to_them() {
        let next_hops = NextHops::default();
        let address = |number: u32| IpAddr::from(Ipv4Addr::from_bits(number));
        for number in (0..4096).chain([7, 0, 4095]) {
            let next_hop = next_hops.at(address(number)).unwrap();
            assert_eq!((u32::from(next_hop.0), next_hops.address(next_hop)), (number, Some(address(number))));
        }
        assert!(next_hops.at(address(4096)).unwrap_err().to_string().starts_with("no room for the next hop 0.0.16.0"));
        assert_eq!(next_hops.address(NextHop(4096)), None);
    }
}
