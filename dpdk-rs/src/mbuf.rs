//! One packet: our own view of `struct rte_mbuf`.

use crate::annotation;
use dpdk_sys as sys;
use std::fmt;
use std::mem::offset_of;
use std::ptr::NonNull;

/// The first 80 bytes of `struct rte_mbuf`. bindgen's names for them differ between DPDK
/// versions, the bytes do not; asserted below from C's own offsets.
#[repr(C, align(64))]
pub(crate) struct RawMbuf {
    buf_addr: *mut u8,
    _buf_iova: u64,
    data_off: u16,
    refcnt: u16,
    nb_segs: u16,
    port: u16,
    ol_flags: u64,
    packet_type: u32,
    pkt_len: u32,
    data_len: u16,
    vlan_tci: u16,
    /// The first half is the receive side scaling hash of a packet that has arrived.
    hash: [u32; 2],
    _vlan_tci_outer: u16,
    buf_len: u16,
    pub(crate) pool: *mut sys::rte_mempool,
    next: *mut Self,
    _tx_offload: u64,
    _rest: [u64; 6],
}

macro_rules! same_offset {
    ($($field:ident = $c:ident),* $(,)?) => {
        $(const _: () = assert!(offset_of!(RawMbuf, $field) == sys::$c as usize);)*
    };
}
same_offset! {
    buf_addr = DPDK_MBUF_OFFSET_buf_addr,
    data_off = DPDK_MBUF_OFFSET_data_off,
    refcnt = DPDK_MBUF_OFFSET_refcnt,
    nb_segs = DPDK_MBUF_OFFSET_nb_segs,
    port = DPDK_MBUF_OFFSET_port,
    ol_flags = DPDK_MBUF_OFFSET_ol_flags,
    packet_type = DPDK_MBUF_OFFSET_packet_type,
    pkt_len = DPDK_MBUF_OFFSET_pkt_len,
    data_len = DPDK_MBUF_OFFSET_data_len,
    vlan_tci = DPDK_MBUF_OFFSET_vlan_tci,
    hash = DPDK_MBUF_OFFSET_hash_rss,
    buf_len = DPDK_MBUF_OFFSET_buf_len,
    pool = DPDK_MBUF_OFFSET_pool,
    next = DPDK_MBUF_OFFSET_next,
    _tx_offload = DPDK_MBUF_OFFSET_tx_offload,
}
const _: () = assert!(size_of::<RawMbuf>() == sys::DPDK_MBUF_SIZE as usize);
const _: () = assert!(align_of::<RawMbuf>() == sys::DPDK_MBUF_ALIGN as usize);

impl RawMbuf {
    /// Four fields as the one word that they are in memory.
    #[inline]
    const fn rearm_data(data_off: u16, refcnt: u16, nb_segs: u16, port: u16) -> u64 {
        data_off as u64 | (refcnt as u64) << 16 | (nb_segs as u64) << 32 | (port as u64) << 48
    }
}

/// Free bytes before the data of a fresh packet.
#[allow(clippy::cast_possible_truncation, reason = "128")]
const HEADROOM: u16 = sys::RTE_PKTMBUF_HEADROOM as u16;

/// What packets that have arrived look like at a glance.
pub(crate) enum Glance {
    /// All are sound and say which port they came by.
    Usual,
    /// All are sound, but some say another port.
    OtherPort,
    /// A closer look is needed.
    Unusual,
}

/// Bits of `ol_flags` that say whose memory the data is in.
const NOT_DIRECT: u64 = sys::RTE_MBUF_F_INDIRECT | sys::RTE_MBUF_F_EXTERNAL;

/// What a packet may say of its own accord when it is sent has no bit in common with what it says since
/// it was received: so no driver takes the one for the other (rte_mbuf_core.h).
const _: () = assert!(RECEIVED & sys::RTE_MBUF_F_TX_OFFLOAD_MASK == 0);
const RECEIVED: u64 = STRIPPED | sys::RTE_MBUF_F_RX_IP_CKSUM_MASK;

/// That a tag was taken out.
const STRIPPED: u64 = sys::RTE_MBUF_F_RX_VLAN | sys::RTE_MBUF_F_RX_VLAN_STRIPPED;

/// What a device says about a checksum of a packet that it received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ChecksumStatus {
    /// It did not look, or cannot tell.
    #[default]
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
}

/// One packet: one segment, one owner. Dropping it gives it back to its pool, from any
/// thread. It is not `Clone`, and there is no way to make a second reference to its data.
///
/// ```compile_fail
/// fn twice(packet: dpdk_rs::Mbuf) { drop(packet.clone()); }
/// ```
#[repr(transparent)]
pub struct Mbuf(NonNull<RawMbuf>);

// SAFETY: an `Mbuf` is the only reference to the packet, and DPDK lets any thread free it.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of a packet from C.
    ///
    /// # Safety
    ///
    /// `raw` is a packet of one segment with a reference count of 1 whose data is not
    /// shared with another mbuf, and no one else will use or free it.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw.cast())
    }

    #[inline]
    fn raw(&self) -> &RawMbuf {
        // SAFETY: valid for as long as we own the packet; the pool cannot go before.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut RawMbuf {
        // SAFETY: as in `raw`, and the only reference, as we are borrowed mutably.
        unsafe { self.0.as_mut() }
    }

    /// Looks at packets that have just arrived, at two words of each and without branches.
    ///
    /// `largest` is the data room of the pool that the driver allocates from. A packet with
    /// the usual headroom that is not longer fits into its buffer; one of another pool has
    /// been in safe hands before, through a ring, and fits into its own. Drivers do not
    /// deliver indirect packets, and nothing here can make one.
    #[inline]
    pub(crate) fn glance(packets: &[Self], port: u16, largest: u16) -> Glance {
        let usual = RawMbuf::rearm_data(HEADROOM, 1, 1, port);
        let (mut unusual, mut data_len) = (0, 0);
        for packet in packets {
            let raw = packet.raw();
            unusual |= usual ^ RawMbuf::rearm_data(raw.data_off, raw.refcnt, raw.nb_segs, raw.port);
            // At least the longest of them.
            data_len |= raw.data_len;
        }
        let usual_but_port = unusual & RawMbuf::rearm_data(u16::MAX, u16::MAX, u16::MAX, 0) == 0;
        if !usual_but_port || data_len > largest {
            Glance::Unusual
        } else if unusual == 0 {
            Glance::Usual
        } else {
            Glance::OtherPort
        }
    }

    /// Whether this is what an `Mbuf` has to be: one segment, one reference, own data, all
    /// of it inside of the buffer (net_null's `size=` may be larger).
    #[inline]
    pub(crate) fn is_sound(&self) -> bool {
        let raw = self.raw();
        let end = u32::from(raw.data_off) + u32::from(raw.data_len);
        (raw.refcnt == 1)
            & (raw.nb_segs == 1)
            & (raw.ol_flags & sys::RTE_MBUF_F_INDIRECT == 0)
            & (end <= u32::from(raw.buf_len))
    }

    /// Whether it may go straight back to its pool, without the checks of the slow way.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.raw().ol_flags & NOT_DIRECT == 0
    }

    #[inline]
    pub(crate) fn pool(&self) -> *mut sys::rte_mempool {
        self.raw().pool
    }

    /// The packet's bytes, from the Ethernet header on.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: within the buffer: data_off + data_len <= buf_len, by `is_sound` on arrival,
        // and the methods below keep it so.
        let start = unsafe { raw.buf_addr.add(usize::from(raw.data_off)) };
        // SAFETY: as above; the memory was zeroed when it was mapped and is ours alone.
        unsafe { std::slice::from_raw_parts(start, usize::from(raw.data_len)) }
    }

    /// The packet's bytes, to be changed in place.
    #[must_use]
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let raw = self.raw();
        let length = usize::from(raw.data_len);
        // SAFETY: as in `data`.
        let start = unsafe { raw.buf_addr.add(usize::from(raw.data_off)) };
        // SAFETY: as in `data`, and the only reference, as we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    /// Length of the packet in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a packet is not a collection")]
    pub fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }

    /// Free bytes before the data.
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    /// Free bytes after the data.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        let raw = self.raw();
        usize::from(raw.buf_len) - usize::from(raw.data_off) - usize::from(raw.data_len)
    }

    /// Makes room for `count` bytes before the data and returns them, or `None` and no
    /// change when the headroom is too small. Their content is whatever was there.
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let offset = u16::try_from(self.headroom().checked_sub(count)?).ok()?;
        let length = u16::try_from(self.len() + count).ok()?;
        self.set_data(offset, length);
        self.data_mut().get_mut(..count)
    }

    /// Makes room for `count` bytes after the data and returns them, or `None` and no
    /// change when the tailroom is too small. Their content is whatever was there.
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let before = self.len();
        let length = u16::try_from(before + count).ok()?;
        self.set_data(self.raw().data_off, length);
        self.data_mut().get_mut(before..)
    }

    /// Takes `count` bytes off the front; false and no change when there are fewer.
    #[must_use]
    pub fn adj(&mut self, count: usize) -> bool {
        let Some(length) = self.len().checked_sub(count) else { return false };
        let (Ok(length), Ok(offset)) = (u16::try_from(length), u16::try_from(self.headroom() + count)) else {
            return false;
        };
        self.set_data(offset, length);
        true
    }

    /// Takes `count` bytes off the end; false and no change when there are fewer.
    #[must_use]
    pub fn trim(&mut self, count: usize) -> bool {
        let Some(length) = self.len().checked_sub(count).and_then(|length| u16::try_from(length).ok()) else {
            return false;
        };
        self.set_data(self.raw().data_off, length);
        true
    }

    /// Replaces the whole packet; false and no change when it does not fit behind the
    /// usual headroom.
    #[must_use]
    pub fn set_contents(&mut self, bytes: &[u8]) -> bool {
        let room = usize::from(self.raw().buf_len).saturating_sub(usize::from(HEADROOM));
        let Ok(length) = u16::try_from(bytes.len()) else { return false };
        if bytes.len() > room {
            return false;
        }
        self.set_data(HEADROOM, length);
        self.data_mut().copy_from_slice(bytes);
        true
    }

    /// The only place that moves the data: callers have checked offset + length <= buf_len.
    fn set_data(&mut self, offset: u16, length: u16) {
        let raw = self.raw_mut();
        debug_assert!(u32::from(offset) + u32::from(length) <= u32::from(raw.buf_len));
        raw.data_off = offset;
        raw.data_len = length;
        raw.pkt_len = u32::from(length);
    }

    /// DPDK's id of the port that it came in by.
    #[must_use]
    #[inline]
    pub fn port(&self) -> crate::PortId {
        crate::PortId(self.raw().port)
    }

    /// Writes the id of the port that it came in by. DPDK reads it nowhere.
    #[inline]
    pub fn set_port(&mut self, port: crate::PortId) {
        self.raw_mut().port = port.0;
    }

    /// The receive side scaling hash, if the device computed one and no [annotation](Self::set_annotation) has taken
    /// its place.
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        let raw = self.raw();
        (raw.ol_flags & sys::RTE_MBUF_F_RX_RSS_HASH != 0).then_some(raw.hash[0])
    }

    /// The tag control information that the device took out of the packet, if it did.
    #[must_use]
    pub fn stripped_vlan(&self) -> Option<u16> {
        let raw = self.raw();
        (raw.ol_flags & sys::RTE_MBUF_F_RX_VLAN_STRIPPED != 0).then_some(raw.vlan_tci)
    }

    /// Takes the outer tag out of the packet if it is one of IEEE 802.1Q (0x8100), as a device does
    /// that strips tags, so that [`stripped_vlan`](Self::stripped_vlan) says what it was, or that there
    /// was none. Nothing changes if the device has done so already.
    #[inline]
    pub fn strip_vlan(&mut self, stripped_by_device: bool) {
        if stripped_by_device && self.raw().ol_flags & sys::RTE_MBUF_F_RX_VLAN_STRIPPED != 0 {
            return;
        }
        let frame = self.data_mut();
        let tag = match frame.get(12..16) {
            Some(&[high, low, first, second]) if [high, low] == [0x81, 0x00] => {
                frame.copy_within(..12, 4);
                Some(u16::from_be_bytes([first, second]))
            }
            _ => None,
        };
        let stripped = tag.filter(|_| self.adj(4));
        match stripped {
            Some(tag) => self.set_stripped_vlan(tag),
            None => self.raw_mut().ol_flags &= !STRIPPED,
        }
    }

    /// Writes what [`stripped_vlan`](Self::stripped_vlan) says, as a device does that has taken a tag out.
    pub fn set_stripped_vlan(&mut self, tag: u16) {
        let raw = self.raw_mut();
        raw.vlan_tci = tag;
        raw.ol_flags |= STRIPPED;
    }

    /// Puts an IEEE 802.1Q tag in front of what the frame carries, or leaves that to the device, which
    /// has to be of a port that was started with
    /// [`Offloads::TX_VLAN_INSERT`](crate::Offloads::TX_VLAN_INSERT): any other sends the frame without.
    /// So that is the last thing to be done before a packet is sent there. The tag that was
    /// [stripped](Self::stripped_vlan) is forgotten.
    ///
    /// False and no change if it has no Ethernet addresses, or there is no room for the tag before it,
    /// which drivers need as well that do in software what a device would.
    #[inline]
    #[must_use]
    pub fn insert_vlan(&mut self, tag: u16, by_device: bool) -> bool {
        if self.len() < 12 || self.headroom() < 4 {
            return false;
        }
        if by_device {
            let raw = self.raw_mut();
            raw.vlan_tci = tag;
            raw.ol_flags = raw.ol_flags & !STRIPPED | sys::RTE_MBUF_F_TX_VLAN;
            return true;
        }
        if self.prepend(4).is_none() {
            return false;
        }
        self.raw_mut().ol_flags &= !STRIPPED;
        let frame = self.data_mut();
        frame.copy_within(4..16, 0);
        if let Some(place) = frame.get_mut(12..16) {
            let [high, low] = tag.to_be_bytes();
            place.copy_from_slice(&[0x81, 0x00, high, low]);
        }
        true
    }

    /// The tag that the device shall insert when the packet is sent.
    #[must_use]
    pub fn vlan_to_insert(&self) -> Option<u16> {
        let raw = self.raw();
        (raw.ol_flags & sys::RTE_MBUF_F_TX_VLAN != 0).then_some(raw.vlan_tci)
    }

    /// The tag that the packet has beside its bytes: one that the device shall insert, or one that was taken out.
    #[must_use]
    pub fn vlan_beside(&self) -> Option<u16> {
        self.vlan_to_insert().or_else(|| self.stripped_vlan())
    }

    /// What the device says about the checksum of the packet's IPv4 header. It means something only on
    /// a packet that a port received which was started with
    /// [`Offloads::RX_IPV4_CHECKSUM`](crate::Offloads::RX_IPV4_CHECKSUM), and until it is changed.
    #[must_use]
    #[inline]
    pub fn ipv4_checksum(&self) -> ChecksumStatus {
        // Of a tunnel's headers the inner one may be good, and the outer one is the packet's.
        match self.raw().ol_flags & (sys::RTE_MBUF_F_RX_IP_CKSUM_MASK | sys::RTE_MBUF_F_RX_OUTER_IP_CKSUM_BAD) {
            sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD => ChecksumStatus::Good,
            // Whatever stands there, it is not to be relied on.
            sys::RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN | sys::RTE_MBUF_F_RX_IP_CKSUM_NONE => ChecksumStatus::Unknown,
            _ => ChecksumStatus::Bad,
        }
    }

    /// Writes what [`ipv4_checksum`](Self::ipv4_checksum) says, as a device does.
    pub fn set_ipv4_checksum(&mut self, status: ChecksumStatus) {
        let flag = match status {
            ChecksumStatus::Unknown => sys::RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN,
            ChecksumStatus::Good => sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD,
            ChecksumStatus::Bad => sys::RTE_MBUF_F_RX_IP_CKSUM_BAD,
        };
        let raw = self.raw_mut();
        raw.ol_flags = raw.ol_flags & !sys::RTE_MBUF_F_RX_IP_CKSUM_MASK | flag;
    }

    /// Offload flags, `RTE_MBUF_F_*`.
    #[must_use]
    #[inline]
    pub fn offload_flags(&self) -> u64 {
        self.raw().ol_flags
    }

    /// Eight bytes that go with the packet, if somebody wrote some: through every
    /// [`Ring`](crate::Ring) as well, until the packet is freed or a driver receives another in its
    /// place. (net_ring passes packets on as they are, so what comes out of it may have one.)
    /// They are in the mbuf's first cache line.
    #[must_use]
    #[inline]
    pub fn annotation(&self) -> Option<u64> {
        let [low, high] = self.raw().hash;
        self.is_annotated().then_some(u64::from(high) << 32 | u64::from(low))
    }

    /// Whether the packet is marked, for whatever the program means by that. The mark travels with
    /// the packet like the [annotation](Self::annotation), and stands where every look at the packet
    /// comes by.
    #[must_use]
    #[inline]
    pub fn is_marked(&self) -> bool {
        self.raw().ol_flags & annotation::MARK != 0
    }

    /// Marks the packet, or takes the mark away.
    #[inline]
    pub fn set_marked(&mut self, marked: bool) {
        let raw = self.raw_mut();
        raw.ol_flags = if marked { raw.ol_flags | annotation::MARK } else { raw.ol_flags & !annotation::MARK };
    }

    /// Whether somebody follows the packet on its way. It travels with the packet like the
    /// [annotation](Self::annotation).
    #[must_use]
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.raw().ol_flags & annotation::TRACED != 0
    }

    /// Follows the packet, or no longer.
    #[inline]
    pub fn set_traced(&mut self, traced: bool) {
        let raw = self.raw_mut();
        raw.ol_flags = if traced { raw.ol_flags | annotation::TRACED } else { raw.ol_flags & !annotation::TRACED };
    }

    /// Tells this packet from all others that there are at the same time: where its mbuf is.
    #[must_use]
    #[inline]
    pub fn identity(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// Whether the packet has an [annotation](Self::annotation).
    #[must_use]
    #[inline]
    pub fn is_annotated(&self) -> bool {
        self.raw().ol_flags & annotation::FLAG != 0
    }

    /// Writes the packet's [annotation](Self::annotation), or takes it away. It takes the place of the
    /// [hash](Self::rss_hash): the field is the program's for tags of its own (rte_mbuf_core.h).
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
    pub fn set_annotation(&mut self, value: Option<u64>) {
        let raw = self.raw_mut();
        let Some(value) = value else {
            raw.ol_flags &= !annotation::FLAG;
            return;
        };
        raw.hash = [value as u32, (value >> 32) as u32];
        raw.ol_flags = raw.ol_flags & !sys::RTE_MBUF_F_RX_RSS_HASH | annotation::FLAG;
    }

    /// Packet type as the device parsed it, `RTE_PTYPE_*`.
    #[must_use]
    pub fn packet_type(&self) -> u32 {
        self.raw().packet_type
    }

    /// Asks the processor to load the mbuf's header and the first line of its data.
    #[inline]
    pub fn prefetch(&self) {
        let raw = self.raw();
        let start = raw.buf_addr.wrapping_add(usize::from(raw.data_off));
        // SAFETY: a hint, which may name any address.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(start.cast::<i8>()) };
    }

    /// Asks for the line before the data, ahead of a [`prepend`](Self::prepend).
    #[inline]
    pub fn prefetch_headroom(&self) {
        let raw = self.raw();
        let before = raw.buf_addr.wrapping_add(usize::from(raw.data_off)).wrapping_sub(1);
        // SAFETY: a hint, which may name any address.
        unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(before.cast::<i8>()) };
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: we own the packet and it is not used after this.
        unsafe { sys::shim_mbuf_free(self.0.as_ptr().cast()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("port", &self.port().0).field("len", &self.len()).finish_non_exhaustive()
    }
}
