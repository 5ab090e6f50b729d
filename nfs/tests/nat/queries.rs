//! What a running NAT says of itself, and what it is told to end.

use super::bench::{A, B, Bench, P, X, Y, dropped, from, from_outside, left, on_one_worker};
use nf_framework::Piece;
use nf_framework::headers::TcpFlags;
use nfs::nat::{AddressOccupancy, Cleared, Instance, MappingView, Occupancy, Protocol, SessionFilter, SessionView};
use std::net::Ipv4Addr;

fn list(nat: &mut Bench, filter: SessionFilter) -> Vec<SessionView> {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(part) = from {
        let Piece { items, next } = nat.trial.command(0, |instance: &mut Instance, _| instance.list(&filter, part));
        all.extend(items.into_iter().map(|(_, session)| session));
        from = next;
    }
    all.sort_by_key(|view| (view.inside, view.remote, view.protocol as u8));
    all
}

fn clear(nat: &mut Bench, filter: SessionFilter) -> usize {
    let (mut cleared, mut from) = (0, Some(0));
    while let Some(part) = from {
        let Cleared { sessions, next } =
            nat.trial.command(0, |instance: &mut Instance, cx| instance.clear(&filter, part, cx.now()));
        cleared += sessions;
        from = next;
    }
    cleared
}

fn mapping(nat: &mut Bench, protocol: Protocol, address: Ipv4Addr, port: u16) -> Option<MappingView> {
    nat.trial.command(0, move |instance: &mut Instance, _| instance.mapping(protocol, address, port))
}

fn occupancy(nat: &mut Bench) -> Occupancy {
    nat.trial.command(0, |instance: &mut Instance, _| instance.occupancy())
}

/// Three hosts' sessions of all protocols: A's three, B's one.
fn begin(nat: &mut Bench) -> [SessionView; 4] {
    let session = |protocol, inside, remote, port, established| SessionView {
        protocol,
        inside,
        remote,
        external: (P, port),
        established,
    };
    let udp = nat.udp_port(A, 5000, (X, 53));
    let tcp = nat.connect(A, 5001, (X, 80));
    let icmp = left(&nat.out(&from(A, Y).icmp_echo_request(5002, 1))).source_port;
    let of_b = nat.udp_port(B, 5000, (Y, 53));
    [
        session(Protocol::Udp, (A, 5000), (X, 53), udp, false),
        session(Protocol::Tcp, (A, 5001), (X, 80), tcp, true),
        session(Protocol::Icmp, (A, 5002), (Y, 0), icmp, false),
        session(Protocol::Udp, (B, 5000), (Y, 53), of_b, false),
    ]
}

/// Filters, and which of the sessions above they mean.
fn filters() -> Vec<(SessionFilter, Vec<usize>)> {
    let all = SessionFilter::default();
    vec![
        (all, vec![0, 1, 2, 3]),
        (SessionFilter { protocol: Some(Protocol::Udp), ..all }, vec![0, 3]),
        (SessionFilter { protocol: Some(Protocol::Tcp), ..all }, vec![1]),
        (SessionFilter { protocol: Some(Protocol::Icmp), ..all }, vec![2]),
        (SessionFilter { inside: Some(A), ..all }, vec![0, 1, 2]),
        (SessionFilter { remote: Some(Y), ..all }, vec![2, 3]),
        (SessionFilter { external: Some(P), ..all }, vec![0, 1, 2, 3]),
        (SessionFilter { external: Some(X), ..all }, vec![]),
        (
            SessionFilter { inside: Some(A), remote: Some(Y), protocol: Some(Protocol::Icmp), external: Some(P) },
            vec![2],
        ),
        (SessionFilter { inside: Some(A), remote: Some(Y), protocol: Some(Protocol::Udp), ..all }, vec![]),
    ]
}

#[test]
fn sessions_are_listed_as_a_filter_says() {
    on_one_worker("sessions = 20000", |nat| {
        let sessions = begin(nat);
        for (filter, expected) in filters() {
            let expected: Vec<_> = expected.into_iter().map(|index| sessions[index]).collect();
            assert_eq!(list(nat, filter), expected, "{filter:?}");
        }
        // An answer, and one more question, make it an established one.
        nat.back(&from_outside(X, P).udp(53, sessions[0].external.1));
        assert!(!list(nat, SessionFilter::default())[0].established);
        nat.udp_port(A, 5000, (X, 53));
        assert!(list(nat, SessionFilter::default())[0].established);
    });
}

#[test]
fn sessions_are_ended_as_a_filter_says() {
    on_one_worker("sessions = 20000", |nat| {
        for (filter, expected) in filters() {
            let sessions = begin(nat);
            assert_eq!(clear(nat, filter), expected.len(), "{filter:?}");
            let left: Vec<_> = (0..4).filter(|index| !expected.contains(index)).map(|index| sessions[index]).collect();
            assert_eq!(list(nat, SessionFilter::default()), left, "{filter:?}");
            assert_eq!(clear(nat, SessionFilter::default()), left.len());
            assert_eq!(occupancy(nat).subscribers, 0);
            for session in sessions.iter().filter(|session| session.protocol == Protocol::Udp) {
                let back = nat.back(&from_outside(X, P).udp(53, session.external.1));
                assert_eq!(dropped(&back), "nat-no-mapping");
            }
        }
    });
}

#[test]
fn an_external_port_says_whose_it_is() {
    on_one_worker("", |nat| {
        let [udp, tcp, icmp, of_b] = begin(nat);
        for (session, answered) in [(udp, false), (tcp, true), (icmp, false), (of_b, false)] {
            let (address, port) = session.external;
            let expected = MappingView { inside: session.inside, answered };
            assert_eq!(mapping(nat, session.protocol, address, port), Some(expected));
            assert_eq!(mapping(nat, session.protocol, X, port), None);
        }
        assert_eq!(mapping(nat, Protocol::Tcp, P, udp.external.1), None);
        nat.back(&from_outside(Y, P).udp(1, udp.external.1));
        assert!(mapping(nat, Protocol::Udp, P, udp.external.1).unwrap().answered);
    });
}

#[test]
fn occupancy_counts_what_is_in_use_and_what_rests() {
    on_one_worker("timeouts.udp = 10", |nat| {
        let address = AddressOccupancy { address: P, active: true, in_use: 0, resting: 0, of_worker: 65536 };
        let empty = Occupancy { sessions: 0, capacity: 4096, subscribers: 0, mappings: 0, addresses: vec![address] };
        assert_eq!(occupancy(nat), empty);
        begin(nat);
        nat.udp_port(A, 5000, (Y, 54));
        let all = Occupancy { sessions: 5, subscribers: 2, mappings: 4, ..empty.clone() };
        assert_eq!(occupancy(nat), Occupancy { addresses: vec![AddressOccupancy { in_use: 4, ..address }], ..all });
        nat.pass(11);
        let rest = AddressOccupancy { in_use: 2, resting: 2, ..address };
        let expected = Occupancy { sessions: 2, subscribers: 1, mappings: 2, addresses: vec![rest], ..empty.clone() };
        assert_eq!(occupancy(nat), expected);
        nat.pass(122);
        let rest = AddressOccupancy { in_use: 1, resting: 1, ..address };
        let expected = Occupancy { sessions: 1, subscribers: 1, mappings: 1, addresses: vec![rest], ..empty };
        assert_eq!(occupancy(nat), expected);
    });
}

#[test]
fn what_is_in_use_is_shown_with_what_there_is_room_for() {
    const TEXT: &str = "timeouts.udp = 10\nsubscribers = 100\ntimeouts.port_quiet = 4";
    on_one_worker(TEXT, |nat| {
        let shown = |nat: &mut Bench, wanted: [u64; 5]| {
            nat.pass(1);
            let tables = nat.trial.report().tables;
            let shown: Vec<_> = tables.iter().map(|of| (of.table.as_str(), of.entries, of.limit)).collect();
            let names = ["sessions", "subscribers", "tcp-ports", "udp-ports", "icmp-identifiers"];
            let limits = [4096, 100, 64_512, 64_512, 64_512];
            let mut expected: Vec<_> = names.into_iter().zip(wanted).zip(limits).map(|((n, e), l)| (n, e, l)).collect();
            expected.sort_unstable();
            let mut sorted = shown.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, expected);
            assert!(tables.iter().all(|of| of.worker == Some(0)));
        };
        shown(nat, [0; 5]);
        begin(nat);
        nat.udp_port(A, 5000, (Y, 54));
        shown(nat, [5, 2, 1, 2, 1]);
        // Sessions of UDP are over, and their ports rest: nobody can have them.
        nat.pass(11);
        shown(nat, [2, 1, 1, 2, 1]);
        nat.pass(6);
        shown(nat, [2, 1, 1, 0, 1]);
    });
}

#[test]
fn what_it_counts_is_what_happened() {
    const TEXT: &str = "timeouts.udp = 10\nforward = [{ protocol = \"tcp\", outside = \"198.51.100.100\", \
                        ports = \"80\", to = [\"192.168.1.40:8080\"] }]";
    on_one_worker(TEXT, |nat| {
        begin(nat);
        let counted = |nat: &mut Bench| {
            nat.pass(0);
            ["created", "evicted", "expired", "ended"].map(|what| nat.counter(&format!("sessions-{what}")))
        };
        assert_eq!((counted(nat), nat.sessions(), nat.mappings()), ([4, 0, 0, 0], 4, 4));
        // What is known, what begins nothing.
        nat.out(&from(A, X).tcp(5001, 80).flags(TcpFlags::SYN));
        nat.out(&from(A, X).tcp(6000, 80));
        assert_eq!((counted(nat), nat.counter("hairpin-packets")), ([4, 0, 0, 0], 0));
        // Another session of a mapping, and the end of both.
        nat.udp_port(A, 5000, (Y, 53));
        assert_eq!((counted(nat), nat.mappings()), ([5, 0, 0, 0], 4));
        nat.pass(11);
        assert_eq!((counted(nat), nat.sessions(), nat.mappings()), ([5, 0, 3, 0], 2, 2));
        assert_eq!(clear(nat, SessionFilter { protocol: Some(Protocol::Tcp), ..SessionFilter::default() }), 1);
        assert_eq!((counted(nat), nat.sessions(), nat.mappings()), ([5, 0, 3, 1], 1, 1));
        // To a server, from outside and from inside.
        assert_eq!(nat.counter("forwarded-packets"), 0);
        assert_eq!(nat.back(&from_outside(X, P).tcp(5000, 80)).inside.len(), 1);
        assert_eq!(nat.out(&from(A, P).tcp(5000, 80).flags(TcpFlags::SYN)).inside.len(), 1);
        assert_eq!((nat.counter("forwarded-packets"), nat.counter("hairpin-packets")), (2, 1));
    });
}
