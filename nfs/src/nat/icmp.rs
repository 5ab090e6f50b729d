//! ICMP errors, translated outside and inside: RFC 5508 section 4.
//!
//! An error is looked at and passed on, and changes nothing: no session begins, lasts longer or ends
//! by one, whoever sent it (RFC 4787 REQ-12).

use super::config::Filtering;
use super::flow::{FlowTuple, Protocol, Seen};
use super::instance::Instance;
use super::policy::Endpoint;
use crate::rewrite::{End, write_error};
use nf_framework::headers::{Headers, Network, QuotedPacket, QuotedTransport, Transport, checksum};
use nf_framework::{DropReason, Mbuf, Verdict};
use std::net::Ipv4Addr;

/// What an error is about.
enum Quotation {
    Of(QuotedEnds),
    /// Its checksum is wrong, or that of the header that it quotes.
    Broken,
    None,
}

impl Instance {
    /// An error of an inside host, or of a router there, about a packet from outside.
    pub(super) fn error_from_inside(&mut self, packet: &mut Mbuf, seen: &Seen) -> Verdict {
        let quoted = match quotation(packet) {
            Quotation::Of(quoted) => quoted,
            Quotation::Broken => return Verdict::Drop(self.reasons.icmp_checksum),
            Quotation::None => return Verdict::Drop(self.reasons.no_mapping),
        };
        let Some((external, port)) = self.external_of(&quoted) else {
            // What goes untranslated needs its errors too.
            let untranslated = quoted.source == seen.destination && self.policy.is_excluded(seen.destination);
            return if untranslated { Verdict::Next } else { Verdict::Drop(self.reasons.no_mapping) };
        };
        // Routers inside have no address that means anything outside: RFC 5508 REQ-5 b.
        let own = self.policy.one_to_one_outside(seen.source);
        let sender = own.unwrap_or(external);
        let identification = seen.identification.filter(|_| own.is_none()).map(|_| self.identifications.next());
        if !write_error(
            packet,
            &[(End::Destination, external.into(), port)],
            &[(End::Source, sender.into())],
            identification,
        ) {
            return Verdict::Drop(DropReason::MALFORMED);
        }
        if self.sessions.external.has(seen.destination) { Verdict::Turn } else { Verdict::Next }
    }

    /// An error from outside about a packet of an inside host.
    pub(super) fn error_from_outside(&mut self, packet: &mut Mbuf, seen: &Seen) -> Verdict {
        let quoted = match quotation(packet) {
            Quotation::Of(quoted) => quoted,
            Quotation::Broken => return Verdict::Drop(self.reasons.icmp_checksum),
            Quotation::None => return Verdict::Drop(self.reasons.no_mapping),
        };
        let Some((inside, port)) = self.inside_of(&quoted) else {
            let untranslated = quoted.source == seen.destination
                && !self.sessions.external.has(seen.destination)
                && self.policy.is_excluded(quoted.destination);
            return if untranslated { Verdict::Next } else { Verdict::Drop(self.reasons.no_mapping) };
        };
        if write_error(packet, &[(End::Source, inside.into(), port)], &[(End::Destination, inside.into())], None) {
            Verdict::Next
        } else {
            Verdict::Drop(DropReason::MALFORMED)
        }
    }

    /// Where a packet was sent to before the NAT sent it to this inside host.
    fn external_of(&self, quoted: &QuotedEnds) -> Option<(Ipv4Addr, Option<u16>)> {
        let (inside, remote) = (quoted.destination, quoted.source);
        // In the order of what goes the other way.
        let session = quoted.flow.and_then(|(protocol, remote_port, port)| {
            let flow = FlowTuple {
                protocol,
                source: inside,
                destination: remote,
                source_port: port,
                destination_port: if protocol == Protocol::Icmp { 0 } else { remote_port },
            };
            self.sessions.session(&flow.key())
        });
        if let Some((_, session)) = session {
            return Some((session.address.into(), Some(session.port)));
        }
        if self.policy.is_excluded(remote) {
            return None;
        }
        if let Some(outside) = self.policy.one_to_one_outside(inside) {
            return Some((outside, None));
        }
        let (protocol, _, port) = quoted.flow?;
        let server = Endpoint { protocol, address: inside, port };
        if let Some(external) = self.policy.external_of_server(&server) {
            return Some((external.address, Some(external.port)));
        }
        if self.policy.filtering(protocol) != Filtering::EndpointIndependent {
            return None;
        }
        let pool = self.policy.pool(inside, remote)?;
        let (external, port) = self.sessions.mapped((&self.policy, pool), protocol, (inside, port))?;
        Some((external, Some(port)))
    }

    /// The inside host that sent a packet which left from this external address.
    fn inside_of(&self, quoted: &QuotedEnds) -> Option<(Ipv4Addr, Option<u16>)> {
        let (external, remote) = (quoted.source, quoted.destination);
        if let Some(inside) = self.policy.one_to_one_inside(external) {
            return Some((inside, None));
        }
        let (protocol, port, remote_port) = quoted.flow?;
        let remote_port = if protocol == Protocol::Icmp { 0 } else { remote_port };
        let endpoint = Endpoint { protocol, address: external, port };
        if let Some(server) = self.policy.server(&endpoint, remote, remote_port) {
            return Some((server.address, Some(server.port)));
        }
        let (_, mapping) = self.sessions.mapping(protocol, external, port)?;
        let flow = FlowTuple {
            protocol,
            source: mapping.inside,
            destination: remote,
            source_port: mapping.port,
            destination_port: remote_port,
        };
        let any = self.policy.filtering(protocol) == Filtering::EndpointIndependent;
        let session = self.sessions.session(&flow.key());
        let known = session.is_some_and(|(_, session)| (session.address.into(), session.port) == (external, port));
        (any || known).then_some((mapping.inside, Some(mapping.port)))
    }
}

/// Looks at what an error quotes: RFC 5508 REQ-3. The checksum of the quoted packet's transport is
/// not looked at, as mostly not all is there that it covers.
fn quotation(packet: &mut Mbuf) -> Quotation {
    let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return Quotation::None };
    if let Transport::Icmp(icmp) = &headers.transport
        && !checksum::icmp_is_valid(icmp, headers.payload)
    {
        return Quotation::Broken;
    }
    let Some(quoted) = headers.quoted() else { return Quotation::None };
    if let Network::Ipv4 { header, options } = &quoted.network
        && !checksum::ipv4_header_is_valid(header, options)
    {
        return Quotation::Broken;
    }
    QuotedEnds::of(&quoted).map_or(Quotation::None, Quotation::Of)
}

/// Who sent the packet that an error is about, and where it was to go.
#[derive(Clone, Copy, Debug)]
struct QuotedEnds {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    /// Protocol, source port, destination port; a query's identifier is either. `None` where it has none.
    flow: Option<(Protocol, u16, u16)>,
}

impl QuotedEnds {
    fn of(quoted: &QuotedPacket<'_>) -> Option<Self> {
        let Network::Ipv4 { header, .. } = &quoted.network else { return None };
        let flow = match &quoted.transport {
            QuotedTransport::Udp(_) => quoted.transport.ports().map(|(from, to)| (Protocol::Udp, from, to)),
            QuotedTransport::Tcp { .. } => quoted.transport.ports().map(|(from, to)| (Protocol::Tcp, from, to)),
            transport => transport.identifier().map(|identifier| (Protocol::Icmp, identifier, identifier)),
        };
        Some(Self { source: header.source.into(), destination: header.destination.into(), flow })
    }
}
