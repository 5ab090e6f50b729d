//! Which packets are meant, in the words of tcpdump: compiled and run by libpcap.

use dpdk_sys as sys;
use std::ffi::{CStr, CString};
use std::fmt;

/// A filter does not make sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the filter {filter:?} is not understood: {message} (see pcap-filter(7))")]
pub struct FilterError {
    filter: String,
    message: String,
}

/// A filter over Ethernet frames in the language of pcap-filter(7), such as `host 10.0.0.5 and tcp port 443`.
///
/// ```
/// let filter = dpdk_rs::PacketFilter::new("arp or udp port 53")?;
/// let mut frame = [0; 60];
/// frame[12..14].copy_from_slice(&[0x08, 0x06]);
/// assert!(filter.matches(&frame));
/// assert!(dpdk_rs::PacketFilter::new("horst 10.0.0.5").is_err());
/// # Ok::<(), dpdk_rs::FilterError>(())
/// ```
pub struct PacketFilter {
    text: String,
    program: sys::bpf_program,
}

// SAFETY: libpcap's program is memory of our own, which nothing changes until it is freed; `pcap_offline_filter` only
// reads it.
unsafe impl Send for PacketFilter {}
// SAFETY: as above.
unsafe impl Sync for PacketFilter {}

/// As long as any frame may be.
const LONGEST: i32 = 65535;

impl PacketFilter {
    /// Compiles a filter; an empty one means every packet.
    ///
    /// # Errors
    ///
    /// [`FilterError`] with what libpcap says of it.
    pub fn new(text: &str) -> Result<Self, FilterError> {
        let wrong = |message: &str| FilterError { filter: text.to_owned(), message: message.to_owned() };
        let c_text = CString::new(text).map_err(|_| wrong("there is a zero byte in it"))?;
        // SAFETY: any type of link and length may be asked for.
        let handle = unsafe { sys::pcap_open_dead(sys::DLT_EN10MB.cast_signed(), LONGEST) };
        if handle.is_null() {
            return Err(wrong("there is no memory for it"));
        }
        let mut program = sys::bpf_program { bf_len: 0, bf_insns: std::ptr::null_mut() };
        let netmask = sys::PCAP_NETMASK_UNKNOWN;
        // SAFETY: the handle is open, the text ends with a zero, and the program is ours to be filled.
        let code = unsafe { sys::pcap_compile(handle, &raw mut program, c_text.as_ptr(), 1, netmask) };
        let result = if code == 0 {
            Ok(Self { text: text.to_owned(), program })
        } else {
            // SAFETY: the handle is open.
            let message = unsafe { sys::pcap_geterr(handle) };
            // SAFETY: a string within the handle, which is open until the message was copied.
            let message = unsafe { CStr::from_ptr(message) };
            Err(wrong(&message.to_string_lossy()))
        };
        // SAFETY: the handle is open and not used any more; a program does not refer to it.
        unsafe { sys::pcap_close(handle) };
        result
    }

    /// Whether it means this frame, which begins with its Ethernet header.
    #[must_use]
    pub fn matches(&self, frame: &[u8]) -> bool {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let header = sys::pcap_pkthdr { ts: sys::timeval { tv_sec: 0, tv_usec: 0 }, caplen: length, len: length };
        // SAFETY: the program was compiled and is not changed; it reads no byte beyond `caplen`, which are there.
        unsafe { sys::pcap_offline_filter(&raw const self.program, &raw const header, frame.as_ptr()) != 0 }
    }
}

impl Drop for PacketFilter {
    fn drop(&mut self) {
        // SAFETY: it was filled by `pcap_compile`, and is freed once.
        unsafe { sys::pcap_freecode(&raw mut self.program) };
    }
}

impl fmt::Debug for PacketFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PacketFilter").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame of an IPv4 packet with UDP from port 53.
    fn dns() -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[17] = 46;
        frame[23] = 17;
        frame[26..34].copy_from_slice(&[10, 0, 0, 5, 198, 51, 100, 7]);
        frame[34..38].copy_from_slice(&[0, 53, 0x12, 0x34]);
        frame
    }

    #[test]
    fn a_filter_means_what_it_says() {
        for (text, means) in [
            ("", true),
            ("udp", true),
            ("host 10.0.0.5 and udp port 53", true),
            ("src net 10.0.0.0/8", true),
            ("tcp", false),
            ("dst host 10.0.0.5", false),
            ("len > 60", false),
            ("vlan 7", false),
        ] {
            assert_eq!(PacketFilter::new(text).unwrap().matches(&dns()), means, "{text}");
        }
        assert!(!PacketFilter::new("udp").unwrap().matches(&[]), "what is not there cannot match");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_with_what_libpcap_says() {
        for (text, says) in [
            ("horst 10.0.0.5", "syntax error"),
            ("host", "syntax error"),
            ("port 70000", "70000"),
            ("tcp\0", "zero byte"),
        ] {
            let error = PacketFilter::new(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
