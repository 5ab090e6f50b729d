//! The packet that an ICMP error quotes.

use super::{A4, A6, B4, B6, Target, frames, repair};
use nf_framework::Tuple;
use nf_framework::headers::{Headers, Network, QuotedTransport};
use nf_framework::testing::Frame;

pub(crate) const TARGET: Target = Target {
    name: "quoted",
    about: "an error may quote any bytes, and what is written there stays there",
    seeds: || {
        let quotes = frames().into_iter().map(|frame| frame.build()[14..].to_vec());
        quotes.flat_map(|quote| [0, 1, 2, 3].map(|kind| [&[kind], &quote[..]].concat())).collect()
    },
    run,
};

/// The first byte says the error's version and type, and whether its checksum is right; then the
/// quotation.
fn run(bytes: &[u8]) {
    let Some((&first, quote)) = bytes.split_first() else { return };
    if quote.len() > 1400 {
        return;
    }
    let message_type = first >> 2;
    let error = match first & 1 {
        0 => Frame::new().ipv4(A4, B4).icmp(message_type, 0, [0; 4]),
        _ => Frame::new().ipv6(A6, B6).icmpv6(message_type, 0, [0; 4]),
    };
    let mut frame = error.payload(quote).build();
    if first & 2 == 0 {
        let last = frame.len() - 1;
        frame[last] ^= 1;
        repair(&mut frame);
        frame[last] ^= 1;
    }
    let start = frame.len() - quote.len();
    let error = frame[..start].to_vec();
    // Any tuple is as good as another, as long as it is the same again.
    let tuple = Tuple::of_frame(&mut frame);
    assert_eq!(Tuple::of_frame(&mut frame), tuple);

    let mut headers = Headers::parse(&mut frame).expect("an error is a packet, whatever it quotes");
    if let Some(mut quoted) = headers.quoted() {
        match &mut quoted.network {
            Network::Ipv4 { header, .. } => header.source = [1, 2, 3, 4],
            Network::Ipv6 { header, .. } => header.source = [5; 16],
            other => panic!("an error quotes {other:?}"),
        }
        match &mut quoted.transport {
            QuotedTransport::Udp(udp) => udp.source_port.set(7),
            QuotedTransport::Tcp { start, .. } => start.source_port.set(7),
            QuotedTransport::Icmp(icmp) => icmp.code = 7,
            QuotedTransport::Icmpv6(icmp) => icmp.code = 7,
            QuotedTransport::Fragment(_) | QuotedTransport::Other(_) => {}
        }
    }
    assert_eq!(frame[..start], error, "the error itself is as it was");
}
