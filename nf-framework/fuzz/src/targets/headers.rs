//! The walk over a frame's headers.

use super::{Target, frames, repair};
use nf_framework::headers::{Headers, Network, ParseError, Transport};

pub(crate) const TARGET: Target = Target {
    name: "headers",
    about: "any bytes are a frame or refused, and no layer lies in another",
    seeds: || {
        frames()
            .iter()
            .flat_map(|frame| [[&[0], &frame.build()[..]].concat(), [&[1], &frame.build()[..]].concat()])
            .collect()
    },
    run,
};

/// The first byte says whether the checksums are repaired.
fn run(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let mut frame = bytes.to_vec();
    if first & 1 != 0 {
        repair(&mut frame);
    }
    let before = frame.clone();
    let layers = lengths(&mut frame);
    assert_eq!(frame, before, "looking changes nothing");
    let Ok(layers) = layers else { return };
    assert!(layers <= frame.len());
    // What lies behind the packet does not count.
    if !matches!(Headers::parse(&mut frame).expect("as before").network, Network::Other(_)) {
        assert_eq!(lengths(&mut [&frame[..], &[0; 9]].concat()), Ok(layers));
    }
    repair(&mut frame);
    let headers = Headers::parse(&mut frame).expect("as it was, but for its checksums");
    assert_eq!(headers.verify_checksums(), Ok(()));
    if headers.network.fragment().is_some_and(|fragment| fragment.offset > 0) {
        assert!(matches!(headers.transport, Transport::Fragment(_)) && headers.transport.ports().is_none());
    }
}

/// Octets in all layers.
fn lengths(frame: &mut [u8]) -> Result<usize, ParseError> {
    let headers = Headers::parse(frame)?;
    let network = match &headers.network {
        Network::Arp(_) => 28,
        Network::Ipv4 { options, .. } => 20 + options.len(),
        Network::Ipv6 { extensions, .. } => 40 + extensions.len(),
        Network::Other(_) => 0,
    };
    let transport = match &headers.transport {
        Transport::Udp(_) | Transport::Icmp(_) => 8,
        Transport::Icmpv6(_) => 8,
        Transport::Tcp { options, .. } => 20 + options.len(),
        _ => 0,
    };
    Ok(14 + 4 * headers.vlan.len() + network + transport + headers.payload.len())
}
