//! Every reason for which the load balancer drops, provoked.

use super::bench::{
    ACK, R, SYN, VIP, X, backend, dropped, from_client, from_outside, mac, packet, service, with_balancer,
};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::{Frame, Trial};
use nfs::load_balancer::Order;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Each is shown by `every_reason_has_something_that_provokes_it`.
const OF_ALL_MODES: [&str; 7] = [
    "lb-backend-down",
    "lb-icmp",
    "lb-icmp-checksum",
    "lb-no-backend",
    "lb-no-connection",
    "lb-no-service",
    "lb-too-big",
];

/// Each is shown by `every_reason_of_translation_has_something_that_provokes_it`.
const OF_TRANSLATION: [&str; 4] = ["lb-connections-full", "lb-not-translated", "lb-ports-exhausted", "lb-too-many-new"];

#[test]
fn there_are_no_others() {
    let source = include_str!("../../src/load_balancer/reasons.rs");
    let names = source.split(" = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let expected: BTreeSet<_> = OF_ALL_MODES.into_iter().chain(OF_TRANSLATION).collect();
    assert_eq!(names.filter(|name| name.starts_with("lb-")).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn every_reason_has_something_that_provokes_it() {
    let own = Ipv4Addr::new(10, 0, 0, 200);
    let text = format!("probe_addresses = [\"{own}\"]\n{}", service("ipip", "on_backend_down = \"drop\"", &[11]));
    with_balancer(&text, move |bench| {
        let answer = packet(&Frame::new().ipv4(backend(11), R).udp(1, 2));
        let mut broken = from_client().icmp_echo_request(1, 2);
        broken = broken.payload(&[1]);
        let mut broken = broken.build();
        *broken.last_mut().unwrap() ^= 1;
        let mut seen = BTreeSet::new();
        for (frame, reason) in [
            (from_client().tcp(1000, 81).build(), "lb-no-service"),
            (from_client().udp(1000, 80).build(), "lb-no-service"),
            (from_client().protocol(132).payload(&[0; 9]).build(), "lb-no-service"),
            (from_client().tcp(1000, 80).payload(&[0; 1460]).build(), "lb-too-big"),
            (from_outside(R, VIP).icmp(3, 1, [0; 4]).payload(&answer).build(), "lb-icmp"),
            (broken, "lb-icmp-checksum"),
            (from_outside(R, own).tcp(80, 60000).build(), "lb-no-connection"),
        ] {
            let outcome = bench.burst(&[frame]);
            assert_eq!(dropped(&outcome), reason, "{outcome:?}");
            seen.insert(reason.to_owned());
            if reason == "lb-no-service" {
                let told = &outcome.outside[0];
                assert_eq!((&told[26..30], &told[34..36]), (&VIP.octets()[..], &[3, 3][..]), "it says so");
            }
        }
        bench.connect(1000..1001);
        bench.command(|instance| instance.order("web", "10.0.0.11", Order::Down)).unwrap();
        assert!(bench.tend());
        seen.insert(dropped(&bench.client(&from_client().tcp(1000, 80))).to_owned());
        seen.insert(dropped(&bench.client(&from_client().tcp(1001, 80).flags(SYN))).to_owned());
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), OF_ALL_MODES);
    });
}

#[test]
fn every_reason_of_translation_has_something_that_provokes_it() {
    let own = "source_addresses = [\"10.0.0.2\"]";
    let second = service("nat", "", &[11]).replace("web", "other").replace("113.80", "113.81");
    let other = Ipv4Addr::new(203, 0, 113, 81);
    let syns = |ports: std::ops::Range<u16>| ports.map(|port| from_client().tcp(port, 80).flags(SYN)).collect();
    let go_on = |port: u16| {
        let answer = Frame::new().ethernet(mac(11).0, Trial::INSIDE_MAC.0).ipv4(backend(11), X).tcp(80, port);
        let client = from_client().tcp(port, 80);
        [client.clone().flags(SYN), answer.flags(TcpFlags::SYN.0 | TcpFlags::ACK.0), client.flags(ACK)]
    };
    let cases: [(&str, String, Vec<Frame>); 4] = [
        (
            "lb-connections-full",
            format!("connections = 64\n{}", service("nat", "", &[11])),
            (1000..1400).flat_map(go_on).collect(),
        ),
        (
            "lb-not-translated",
            format!("{own}\n{}", service("full-nat", "protocol = \"any\"", &[11]).replace("port = 80\n", "")),
            vec![from_client().protocol(47).payload(&[0; 9])],
        ),
        (
            "lb-ports-exhausted",
            service("nat", "", &[11]) + &second,
            vec![from_client().tcp(1000, 80).flags(SYN), from_outside(X, other).tcp(1000, 80).flags(SYN)],
        ),
        ("lb-too-many-new", format!("insertions_per_second = 10\n{}", service("nat", "", &[11])), syns(1000..1100)),
    ];
    assert_eq!(cases.each_ref().map(|(reason, ..)| *reason), OF_TRANSLATION);
    for (reason, text, frames) in cases {
        let frames: &'static [Vec<u8>] = frames.iter().map(Frame::build).collect::<Vec<_>>().leak();
        with_balancer(&text, move |bench| {
            let mut dropped = BTreeSet::new();
            for frame in frames {
                let is_inside = frame.starts_with(&Trial::INSIDE_MAC.0);
                let from = if is_inside { Direction::Outbound } else { Direction::Inbound };
                dropped.extend(bench.trial.send(from, std::slice::from_ref(frame)).dropped.into_keys());
            }
            assert_eq!(dropped, [reason.to_owned()].into());
        });
    }
}
