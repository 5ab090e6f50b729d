//! Frames for tests, written down as one reads them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A frame in the making, layer by layer; [`build`](Self::build) gives its bytes with lengths and
/// checksums filled in.
///
/// It is the reference that the header code is judged by, so it shares none with it: every header
/// is written octet by octet and every checksum is computed whole, here. What is not said has a
/// sensible default. To test what is malformed, build what is right and overwrite bytes of it.
///
/// The modifiers of a layer may come before or after it. One that fits no layer of the frame
/// makes `build` panic, as does what no length field can say: it is a mistake in the test.
///
/// ```
/// use nf_framework::headers::{Headers, TcpFlags};
/// use nf_framework::testing::Frame;
///
/// let mut bytes = Frame::new()
///     .vlan(100)
///     .ipv4([192, 0, 2, 1], [198, 51, 100, 1])
///     .time_to_live(3)
///     .tcp(1000, 80)
///     .flags(TcpFlags::SYN)
///     .pad_to(60)
///     .build();
///
/// let headers = Headers::parse(&mut bytes)?;
/// assert_eq!(headers.vlan[0].id(), 100);
/// assert_eq!(headers.transport.ports(), Some((1000, 80)));
/// assert_eq!(headers.verify_checksums(), Ok(()));
/// # Ok::<(), nf_framework::headers::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a frame has no bytes until it is built"]
pub struct Frame {
    source: [u8; 6],
    destination: Option<[u8; 6]>,
    /// Kind and tag control information, outermost first.
    tags: Vec<(u16, u16)>,
    ether_type: Option<u16>,
    network: Network,
    hops: Option<u8>,
    traffic_class: Option<u8>,
    dont_fragment: bool,
    identification: Option<u32>,
    /// Offset in octets, and whether more follow.
    fragment: Option<(u16, bool)>,
    ipv4_options: Vec<u8>,
    /// Protocol number, and what follows its length octet.
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    udp_checksum: bool,
    tcp: Tcp,
    payload: Vec<u8>,
    pad_to: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    None,
    Arp { operation: u16, sender: Ipv4Addr, target: Ipv4Addr },
    Ipv4(Ipv4Addr, Ipv4Addr),
    Ipv6(Ipv6Addr, Ipv6Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Protocol(u8),
    Udp(u16, u16),
    Tcp(u16, u16),
    Icmp(u8, u8, [u8; 4]),
    Icmpv6(u8, u8, [u8; 4]),
}

/// What is said of the TCP header beside its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tcp {
    sequence_number: Option<u32>,
    acknowledgment_number: Option<u32>,
    flags: Option<u8>,
    window: Option<u16>,
    options: Vec<u8>,
}

impl Frame {
    /// The Ethernet source of a frame that does not say another.
    pub const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
    /// The Ethernet destination of a frame that does not say another.
    pub const DESTINATION: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

    /// A frame that carries nothing: it says the EtherType for local experiments, `0x88b5`.
    pub fn new() -> Self {
        Self {
            source: Self::SOURCE,
            destination: None,
            tags: Vec::new(),
            ether_type: None,
            network: Network::None,
            hops: None,
            traffic_class: None,
            dont_fragment: false,
            identification: None,
            fragment: None,
            ipv4_options: Vec::new(),
            extensions: Vec::new(),
            // Reserved for experiments and tests, RFC 3692.
            transport: Transport::Protocol(253),
            udp_checksum: true,
            tcp: Tcp::default(),
            payload: Vec::new(),
            pad_to: 0,
        }
    }

    /// From this station to that one: source first, as everywhere in this builder.
    pub fn ethernet(mut self, source: impl Into<[u8; 6]>, destination: impl Into<[u8; 6]>) -> Self {
        self.source = source.into();
        self.destination = Some(destination.into());
        self
    }

    /// Another EtherType than the one of the network layer.
    pub fn ether_type(mut self, ether_type: u16) -> Self {
        self.ether_type = Some(ether_type);
        self
    }

    /// One more customer VLAN tag (`0x8100`), inside those said before. A priority can be added to
    /// the identifier, in its upper 4 bits.
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((0x8100, id));
        self
    }

    /// One more service VLAN tag (`0x88a8`), inside those said before.
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.tags.push((0x88a8, id));
        self
    }

    /// Who has `target`? Asks everyone, unless the frame says an Ethernet destination.
    pub fn arp_request(self, sender: impl Into<Ipv4Addr>, target: impl Into<Ipv4Addr>) -> Self {
        self.arp(1, sender.into(), target.into())
    }

    /// The frame's Ethernet source has `sender`, it tells `target`.
    pub fn arp_reply(self, sender: impl Into<Ipv4Addr>, target: impl Into<Ipv4Addr>) -> Self {
        self.arp(2, sender.into(), target.into())
    }

    /// Who has `target`? Asks its group by Neighbour Discovery (RFC 4861 section 4.3), and says who asks: the Ethernet
    /// source, said before, has `sender`.
    pub fn neighbour_solicitation(mut self, sender: impl Into<Ipv6Addr>, target: impl Into<Ipv6Addr>) -> Self {
        let target = target.into().octets();
        let [.., x, y, z] = target;
        self.destination = Some([0x33, 0x33, 0xff, x, y, z]);
        let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
        let message = [&target[..], &[1, 1], &self.source].concat();
        self.ipv6(sender, group).hop_limit(255).icmpv6(135, 0, [0; 4]).payload(&message)
    }

    /// The Ethernet source, said before, has `sender`: tells `asker`, and that it was asked (RFC 4861 section 4.4).
    pub fn neighbour_advertisement(self, sender: impl Into<Ipv6Addr>, asker: impl Into<Ipv6Addr>) -> Self {
        const SOLICITED_AND_OVERRIDING: u8 = 0x60;
        let sender = sender.into();
        let message = [&sender.octets()[..], &[2, 1], &self.source].concat();
        let frame = self.ipv6(sender, asker).hop_limit(255);
        frame.icmpv6(136, 0, [SOLICITED_AND_OVERRIDING, 0, 0, 0]).payload(&message)
    }

    /// An IPv4 packet.
    pub fn ipv4(mut self, source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        self.network = Network::Ipv4(source.into(), destination.into());
        self
    }

    /// IPv4's options, filled up with zeros to whole words.
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        self.ipv4_options = padded_to_multiple(options, 4);
        self
    }

    /// IPv4's time to live; 64 if not said.
    pub fn time_to_live(mut self, hops: u8) -> Self {
        self.hops = Some(hops);
        self
    }

    /// IPv4's don't-fragment flag.
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// An IPv6 packet.
    pub fn ipv6(mut self, source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        self.network = Network::Ipv6(source.into(), destination.into());
        self
    }

    /// IPv6's hop limit; 64 if not said.
    pub fn hop_limit(self, hops: u8) -> Self {
        self.time_to_live(hops)
    }

    /// One more IPv6 extension header of this protocol number, inside those said before.
    ///
    /// `data` is what follows its length octet, filled up with zeros to a whole header. A
    /// fragment header is said by [`fragment`](Self::fragment) and comes after all others.
    pub fn extension(mut self, protocol: u8, data: &[u8]) -> Self {
        self.extensions.push((protocol, data.to_vec()));
        self
    }

    /// IPv6's traffic class, or the octet that RFC 791 calls IPv4's type of service.
    pub fn traffic_class(mut self, traffic_class: u8) -> Self {
        self.traffic_class = Some(traffic_class);
        self
    }

    /// What the fragments of one packet have in common; 16 bits of it in IPv4.
    pub fn identification(mut self, identification: u32) -> Self {
        self.identification = Some(identification);
        self
    }

    /// A fragment at this offset in octets, a multiple of 8; `more` says that it is not the last.
    ///
    /// With an offset the payload follows the network layer at once. Without, the transport is
    /// filled in as if what is here were all; [`build_fragments`](Self::build_fragments) gives
    /// fragments of one consistent packet.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// A transport that this builder does not know: the payload follows the network layer.
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.transport = Transport::Protocol(protocol);
        self
    }

    /// A UDP datagram.
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Udp(source_port, destination_port);
        self
    }

    /// A zero for the UDP checksum, which says that there is none.
    pub fn without_udp_checksum(mut self) -> Self {
        self.udp_checksum = false;
        self
    }

    /// A TCP segment; only ACK is set if no flags are said.
    pub fn tcp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Tcp(source_port, destination_port);
        self
    }

    /// TCP's sequence number; 0 if not said.
    pub fn sequence_number(mut self, number: u32) -> Self {
        self.tcp.sequence_number = Some(number);
        self
    }

    /// TCP's acknowledgment number; 0 if not said.
    pub fn acknowledgment_number(mut self, number: u32) -> Self {
        self.tcp.acknowledgment_number = Some(number);
        self
    }

    /// TCP's flags, all of them.
    pub fn flags(mut self, flags: impl Into<u8>) -> Self {
        self.tcp.flags = Some(flags.into());
        self
    }

    /// TCP's window; 65535 if not said.
    pub fn window(mut self, window: u16) -> Self {
        self.tcp.window = Some(window);
        self
    }

    /// TCP's options, filled up with zeros to whole words.
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp.options = padded_to_multiple(options, 4);
        self
    }

    /// An ICMP message: type, code, and the 4 octets after the checksum.
    pub fn icmp(mut self, message_type: u8, code: u8, rest_of_header: [u8; 4]) -> Self {
        self.transport = Transport::Icmp(message_type, code, rest_of_header);
        self
    }

    /// An ICMP echo request.
    pub fn icmp_echo_request(self, identifier: u16, sequence_number: u16) -> Self {
        self.icmp(8, 0, echo(identifier, sequence_number))
    }

    /// An ICMP echo reply.
    pub fn icmp_echo_reply(self, identifier: u16, sequence_number: u16) -> Self {
        self.icmp(0, 0, echo(identifier, sequence_number))
    }

    /// An ICMPv6 message: type, code, and the 4 octets after the checksum.
    pub fn icmpv6(mut self, message_type: u8, code: u8, rest_of_header: [u8; 4]) -> Self {
        self.transport = Transport::Icmpv6(message_type, code, rest_of_header);
        self
    }

    /// An ICMPv6 echo request.
    pub fn icmpv6_echo_request(self, identifier: u16, sequence_number: u16) -> Self {
        self.icmpv6(128, 0, echo(identifier, sequence_number))
    }

    /// An ICMPv6 echo reply.
    pub fn icmpv6_echo_reply(self, identifier: u16, sequence_number: u16) -> Self {
        self.icmpv6(129, 0, echo(identifier, sequence_number))
    }

    /// What the innermost header carries.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Zeros behind the packet until the frame has at least this many octets. The shortest frame
    /// on a wire has 60 without its frame check sequence.
    pub fn pad_to(mut self, length: usize) -> Self {
        self.pad_to = length;
        self
    }

    /// The bytes of the frame.
    ///
    /// # Panics
    ///
    /// If the frame contradicts itself: see the type's page.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        self.check();
        let message = match self.fragment {
            Some((1.., _)) => self.payload.clone(),
            _ => self.transport_message(),
        };
        self.frame(&message, self.fragment)
    }

    /// The frame's packet as fragments of `size` octets each but the last, headers not counted.
    ///
    /// # Panics
    ///
    /// If `size` is not a multiple of 8 above zero, or the frame contradicts itself.
    #[must_use]
    pub fn build_fragments(&self, size: usize) -> Vec<Vec<u8>> {
        assert!(size != 0 && size.is_multiple_of(8), "a fragment of {size} octets");
        self.check();
        let message = self.transport_message();
        let count = message.len().div_ceil(size);
        let fragments = message.chunks(size).enumerate();
        fragments
            .map(|(index, part)| {
                let fragment = (length_16(index * size), index + 1 != count);
                self.frame(part, Some(fragment))
            })
            .collect()
    }

    fn arp(mut self, operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        self.network = Network::Arp { operation, sender, target };
        self
    }

    /// Every modifier has the layer that it modifies.
    fn check(&self) {
        let v4 = matches!(self.network, Network::Ipv4(..));
        let v6 = matches!(self.network, Network::Ipv6(..));
        let tcp = matches!(self.transport, Transport::Tcp(..));
        let udp = matches!(self.transport, Transport::Udp(..));
        let transport = !matches!(self.transport, Transport::Protocol(_));
        assert!(v4 || self.ipv4_options.is_empty(), "options without IPv4");
        assert!(v4 || !self.dont_fragment, "don't fragment without IPv4");
        assert!(v6 || self.extensions.is_empty(), "extensions without IPv6");
        assert!(v4 || v6 || self.hops.is_none(), "hops without IP");
        assert!(v4 || v6 || self.traffic_class.is_none(), "class without IP");
        assert!(v4 || v6 || self.fragment.is_none(), "a fragment without IP");
        assert!(v4 || v6 || self.identification.is_none(), "an identification without IP");
        assert!(v4 || v6 || !transport, "a transport without IP");
        assert!(tcp || self.tcp == Tcp::default(), "TCP fields without TCP");
        assert!(udp || self.udp_checksum, "no UDP checksum without UDP");
        assert!(self.ipv4_options.len() <= 40, "too many IPv4 options");
        assert!(self.tcp.options.len() <= 40, "too many TCP options");
        if let Some((offset, _)) = self.fragment {
            assert!(offset.is_multiple_of(8), "a fragment offset of {offset}");
        }
    }

    /// Ethernet header, tags, packet and padding.
    fn frame(&self, message: &[u8], fragment: Option<(u16, bool)>) -> Vec<u8> {
        let (ether_type, packet) = match self.network {
            Network::None => (0x88b5, message.to_vec()),
            Network::Arp { operation, sender, target } => (0x0806, self.arp_packet(operation, sender, target)),
            Network::Ipv4(source, destination) => {
                let header = self.ipv4_header(source, destination, message.len(), fragment);
                (0x0800, [&header, message].concat())
            }
            Network::Ipv6(source, destination) => {
                let (first, extensions) = self.extension_headers(fragment);
                let length = extensions.len() + message.len();
                let header = self.ipv6_header(source, destination, first, length);
                (0x86dd, [&header, &extensions[..], message].concat())
            }
        };
        let asks_everyone = matches!(self.network, Network::Arp { operation: 1, .. }) && self.destination.is_none();
        let mut bytes = Vec::new();
        bytes.extend(if asks_everyone { [0xff; 6] } else { self.destination() });
        bytes.extend(self.source);
        for (kind, control) in &self.tags {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        bytes.extend(self.ether_type.unwrap_or(ether_type).to_be_bytes());
        bytes.extend(packet);
        bytes.resize(bytes.len().max(self.pad_to), 0);
        bytes
    }

    fn hops(&self) -> u8 {
        self.hops.unwrap_or(64)
    }

    fn destination(&self) -> [u8; 6] {
        self.destination.unwrap_or(Self::DESTINATION)
    }

    fn arp_packet(&self, operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let target_hardware = match operation {
            1 => [0; 6],
            _ => self.destination(),
        };
        let mut packet = vec![0, 1, 0x08, 0, 6, 4];
        packet.extend(operation.to_be_bytes());
        packet.extend(self.source);
        packet.extend(sender.octets());
        packet.extend(target_hardware);
        packet.extend(target.octets());
        packet
    }

    fn ipv4_header(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        message: usize,
        fragment: Option<(u16, bool)>,
    ) -> Vec<u8> {
        let length = 20 + self.ipv4_options.len();
        let words = u8::try_from(length / 4).expect("at most 60 octets of IPv4 header");
        let identification =
            u16::try_from(self.identification.unwrap_or(0)).expect("an IPv4 identification has 16 bits");
        let (offset, more) = fragment.unwrap_or((0, false));
        let flags = (u16::from(self.dont_fragment) << 14) | (u16::from(more) << 13);

        let mut header = vec![0x40 | words, self.traffic_class.unwrap_or(0)];
        header.extend(length_16(length + message).to_be_bytes());
        header.extend(identification.to_be_bytes());
        header.extend((flags | (offset / 8)).to_be_bytes());
        header.extend([self.hops(), self.protocol_number(), 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.ipv4_options);
        let checksum = internet_checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6_header(&self, source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: usize) -> Vec<u8> {
        let class = self.traffic_class.unwrap_or(0);
        let mut header = vec![0x60 | (class >> 4), class << 4, 0, 0];
        header.extend(length_16(payload).to_be_bytes());
        header.extend([next_header, self.hops()]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header
    }

    /// The first header's number and all headers, each naming the next.
    fn extension_headers(&self, fragment: Option<(u16, bool)>) -> (u8, Vec<u8>) {
        let mut headers = self.extensions.clone();
        if let Some((offset, more)) = fragment {
            let mut data = (offset | u16::from(more)).to_be_bytes().to_vec();
            data.extend(self.identification.unwrap_or(0).to_be_bytes());
            headers.push((44, data));
        }
        let mut next = self.protocol_number();
        let mut bytes = Vec::new();
        for (protocol, data) in headers.into_iter().rev() {
            // RFC 8200 section 4.3: in units of 8 octets, not counting the first 8; RFC 4302
            // section 2.2: the authentication header's in units of 4, not counting the first 8.
            let unit = if protocol == 51 { 4 } else { 8 };
            let mut header = padded_to_multiple(&[&[next, 0], &data[..]].concat(), unit);
            header.resize(header.len().max(8), 0);
            header[1] = u8::try_from((header.len() - 8) / unit).expect("a shorter extension");
            bytes.splice(..0, header);
            next = protocol;
        }
        (next, bytes)
    }

    fn protocol_number(&self) -> u8 {
        match self.transport {
            Transport::Protocol(protocol) => protocol,
            Transport::Udp(..) => 17,
            Transport::Tcp(..) => 6,
            Transport::Icmp(..) => 1,
            Transport::Icmpv6(..) => 58,
        }
    }

    /// Transport header and payload, its checksum filled in.
    fn transport_message(&self) -> Vec<u8> {
        let (mut message, checksum_at) = match self.transport {
            Transport::Protocol(_) => return self.payload.clone(),
            Transport::Udp(source, destination) => {
                let mut header = ports(source, destination);
                header.extend(length_16(8 + self.payload.len()).to_be_bytes());
                header.extend([0, 0]);
                (header, 6)
            }
            Transport::Tcp(source, destination) => {
                let length = 20 + self.tcp.options.len();
                let words = u8::try_from(length / 4).expect("at most 60 octets of TCP header");
                let mut header = ports(source, destination);
                header.extend(self.tcp.sequence_number.unwrap_or(0).to_be_bytes());
                header.extend(self.tcp.acknowledgment_number.unwrap_or(0).to_be_bytes());
                header.extend([words << 4, self.tcp.flags.unwrap_or(0x10)]);
                header.extend(self.tcp.window.unwrap_or(65535).to_be_bytes());
                header.extend([0; 4]);
                header.extend(&self.tcp.options);
                (header, 16)
            }
            Transport::Icmp(message_type, code, rest) | Transport::Icmpv6(message_type, code, rest) => {
                let mut header = vec![message_type, code, 0, 0];
                header.extend(rest);
                (header, 2)
            }
        };
        message.extend(&self.payload);
        let checksum = match self.transport {
            Transport::Icmp(..) => internet_checksum(&message),
            Transport::Udp(..) if !self.udp_checksum => 0,
            Transport::Udp(..) => match internet_checksum(&self.with_pseudo_header(&message)) {
                0 => 0xffff,
                checksum => checksum,
            },
            _ => internet_checksum(&self.with_pseudo_header(&message)),
        };
        message[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        message
    }

    fn with_pseudo_header(&self, message: &[u8]) -> Vec<u8> {
        let protocol = self.protocol_number();
        let length = length_16(message.len());
        let mut bytes = Vec::new();
        match self.network {
            Network::Ipv4(source, destination) => {
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend([0, protocol]);
                bytes.extend(length.to_be_bytes());
            }
            Network::Ipv6(source, destination) => {
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(u32::from(length).to_be_bytes());
                bytes.extend([0, 0, 0, protocol]);
            }
            Network::None | Network::Arp { .. } => {}
        }
        bytes.extend(message);
        bytes
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

/// RFC 1071 by the letter, a pair of octets at a time.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let word = match *pair {
            [high, low] => u16::from_be_bytes([high, low]),
            [high] => u16::from_be_bytes([high, 0]),
            _ => 0,
        };
        sum += u32::from(word);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("a folded sum has 16 bits")
}

fn echo(identifier: u16, sequence_number: u16) -> [u8; 4] {
    let [a, b] = identifier.to_be_bytes();
    let [c, d] = sequence_number.to_be_bytes();
    [a, b, c, d]
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

fn padded_to_multiple(bytes: &[u8], unit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(unit), 0);
    bytes
}

fn length_16(length: usize) -> u16 {
    u16::try_from(length).expect("a length field has 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hexadecimal(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn frames_are_as_they_would_be_on_the_wire() {
        let a4 = [192, 0, 2, 1];
        let b4 = [198, 51, 100, 1];
        let a6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
        let b6 = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2];
        // description, frame, its bytes as scapy 2.8.0 makes them
        let cases = [
            (
                "UDP in IPv4",
                Frame::new().ipv4(a4, b4).udp(1000, 53).payload(b"odd"),
                "02000000 00020200 00000001 08004500 001f0000 00004011 8e98c000 0201c633 640103e8 \
                 0035000b 3c206f64 64",
            ),
            (
                "TCP with everything, under two tags",
                Frame::new()
                    .service_vlan(100)
                    .vlan(0x6008)
                    .ipv4(a4, b4)
                    .time_to_live(9)
                    .identification(0x1234)
                    .dont_fragment()
                    .traffic_class(0xb8)
                    .ipv4_options(&[7, 3, 4])
                    .tcp(1000, 80)
                    .sequence_number(1)
                    .acknowledgment_number(2)
                    .flags(0x12)
                    .window(512)
                    .tcp_options(&[2, 4, 5, 0xb4])
                    .payload(b"hi"),
                "02000000 00020200 00000001 88a80064 81006008 080046b8 00321234 40000906 66a1c000 \
                 0201c633 64010703 040003e8 00500000 00010000 00026012 02003d3a 00000204 05b46869",
            ),
            (
                "an ICMP echo request, padded",
                Frame::new().ipv4(a4, b4).icmp_echo_request(1, 2).pad_to(48),
                "02000000 00020200 00000001 08004500 001c0000 00004001 8eabc000 0201c633 64010800 \
                 f7fc0001 00020000 00000000",
            ),
            (
                "a later fragment",
                Frame::new().ipv4(a4, b4).identification(7).udp(1, 2).fragment(16, true).payload(b"12345678"),
                "02000000 00020200 00000001 08004500 001c0007 20024011 6e92c000 0201c633 64013132 \
                 33343536 3738",
            ),
            (
                "an ARP request",
                Frame::new().arp_request(a4, b4),
                "ffffffff ffff0200 00000001 08060001 08000604 00010200 00000001 c0000201 00000000 \
                 0000c633 6401",
            ),
            (
                "an ARP reply",
                Frame::new().arp_reply(a4, b4),
                "02000000 00020200 00000001 08060001 08000604 00020200 00000001 c0000201 02000000 \
                 0002c633 6401",
            ),
            (
                "TCP in IPv6",
                Frame::new().ipv6(a6, b6).hop_limit(9).traffic_class(0xb8).tcp(1000, 80),
                "02000000 00020200 00000001 86dd6b80 00000014 06092001 0db80000 00000000 00000000 \
                 00012001 0db80000 00000000 00000000 000203e8 00500000 00000000 00005010 ffff5028 \
                 0000",
            ),
            (
                "ICMPv6 behind hop-by-hop options",
                Frame::new().ipv6(a6, b6).extension(0, &[5, 2, 0, 0, 1, 0]).icmpv6_echo_request(1, 2).payload(b"odd"),
                "02000000 00020200 00000001 86dd6000 00000013 00402001 0db80000 00000000 00000000 \
                 00012001 0db80000 00000000 00000000 00023a00 05020000 01008000 50dd0001 00026f64 \
                 64",
            ),
            (
                "an atomic fragment of UDP in IPv6",
                Frame::new().ipv6(a6, b6).identification(7).fragment(0, false).udp(1000, 53),
                "02000000 00020200 00000001 86dd6000 00000010 2c402001 0db80000 00000000 00000000 \
                 00012001 0db80000 00000000 00000000 00021100 00000000 000703e8 00350008 a04c",
            ),
        ];
        for (description, frame, expected) in cases {
            assert_eq!(frame.build(), hexadecimal(expected), "{description}");
        }
    }

    #[test]
    fn fragments_put_together_are_the_packet() {
        let frame = Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, 53).payload(&[7; 100]);
        let whole = frame.build();
        let fragments = frame.build_fragments(48);
        let together: Vec<u8> = fragments.iter().flat_map(|part| &part[34..]).copied().collect();
        assert_eq!(fragments.len(), 3);
        assert_eq!(together, whole[34..]);
    }

    #[test]
    fn a_modifier_without_its_layer_is_a_mistake() {
        let v4 = || Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]);
        let cases = [
            ("IPv4 options", Frame::new().ipv4_options(&[1])),
            ("don't fragment", Frame::new().dont_fragment()),
            ("an extension in IPv4", v4().extension(60, &[])),
            ("a hop limit", Frame::new().hop_limit(1)),
            ("a traffic class", Frame::new().traffic_class(1)),
            ("an identification", Frame::new().identification(1)),
            ("a fragment", Frame::new().fragment(8, true)),
            ("a fragment offset of 7", v4().fragment(7, true)),
            ("UDP", Frame::new().udp(1, 2)),
            ("TCP flags in UDP", v4().udp(1, 2).flags(2)),
            ("a UDP checksum in TCP", v4().tcp(1, 2).without_udp_checksum()),
            ("44 octets of IPv4 options", v4().ipv4_options(&[1; 41])),
            ("44 octets of TCP options", v4().tcp(1, 2).tcp_options(&[1; 41])),
        ];
        for (description, frame) in cases {
            let built = std::panic::catch_unwind(|| frame.build());
            assert!(built.is_err(), "{description}");
        }
    }
}
