//! Fragments: row F11.

use super::bench::{A, A6, OUT, SYN, X, X6, denied, tcp, v4, v6, with_firewall};
use nf_framework::Direction;

#[test]
fn f11_later_fragments_follow_their_first_one() {
    with_firewall(OUT, |bench| {
        for (number, whole) in [
            v4(A, X).udp(5000, 53).payload(&[1; 100]),
            v6(A6, X6).udp(5000, 53).payload(&[1; 100]),
            v4(A, X).icmp_echo_request(5, 1).payload(&[1; 100]),
        ]
        .into_iter()
        .enumerate()
        {
            let parts = whole.identification(7).build_fragments(32);
            let sent = bench.send(Direction::Outbound, &parts);
            assert_eq!((sent.outside.len(), sent.dropped.len()), (parts.len(), 0), "{number}");
            assert_eq!(bench.connections(), number as u64 + 1);
        }
        // Back, and the last fragment first.
        let mut parts = v4(X, A).udp(53, 5000).payload(&[1; 100]).identification(8).build_fragments(32);
        parts.reverse();
        assert_eq!(bench.send(Direction::Inbound, &parts).inside.len(), parts.len());
        let reply = v4(X, A).icmp_echo_reply(5, 1).payload(&[1; 100]).identification(9).build_fragments(32);
        assert_eq!(bench.send(Direction::Inbound, &reply).inside.len(), reply.len());
    });
}

#[test]
fn f11_fragments_of_what_is_denied_are_denied() {
    with_firewall(OUT, |bench| {
        let parts = v4(X, A).udp(53, 5000).payload(&[1; 100]).identification(8).build_fragments(32);
        let sent = bench.send(Direction::Inbound, &parts);
        assert!(sent.inside.is_empty());
        assert_eq!(sent.dropped["firewall-default"], 1);
        assert_eq!(sent.dropped["firewall-fragment"], parts.len() as u64 - 1);
        assert_eq!(bench.connections(), 0);
    });
}

#[test]
fn f11_tricks_with_fragments_end_before_the_rules() {
    with_firewall("[[rules]]\naction = \"accept\"", |bench| {
        // A first one without all of its header, and the rest of the header behind it.
        let syn = tcp(X, A, 1000, 80, SYN).identification(1).payload(&[1; 32]);
        let tiny = syn.build_fragments(8);
        assert_eq!(bench.goes(Direction::Inbound, tiny[0].clone()), Err("fragment-headers".to_owned()));
        assert_eq!(bench.goes(Direction::Inbound, tiny[1].clone()), Err("fragment-headers".to_owned()));
        // Two that overlap.
        let parts = v4(X, A).udp(1, 2).payload(&[1; 56]).identification(2);
        assert_eq!(bench.goes(Direction::Inbound, parts.clone().fragment(0, true).build()), Ok(()));
        let over = parts.fragment(8, false).build();
        assert_eq!(bench.goes(Direction::Inbound, over), Err("fragment-overlap".to_owned()));
    });
}

#[test]
fn f11_a_segment_in_fragments_is_followed() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        let data = tcp(A, X, 4000, 80, 0x10).sequence_number(1000).acknowledgment_number(5000).payload(&[1; 500]);
        let sent = bench.send(Direction::Outbound, &data.identification(3).build_fragments(256));
        assert_eq!((sent.outside.len(), sent.dropped.len()), (3, 0));
        let answer = tcp(X, A, 80, 4000, 0x10).sequence_number(5000).acknowledgment_number(1500);
        assert_eq!(bench.back(&answer), Ok(()));
    });
}

#[test]
fn f11_fragments_may_be_forbidden_and_asked_for() {
    let forbidden = format!("fragments = \"drop\"\n{OUT}");
    with_firewall(&forbidden, |bench| {
        let parts = v4(A, X).udp(5000, 53).payload(&[1; 100]).build_fragments(32);
        let sent = bench.send(Direction::Outbound, &parts);
        assert_eq!((sent.outside.len(), sent.dropped["firewall-fragment"]), (0, parts.len() as u64));
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
    });
    with_firewall("[[rules]]\nfragment = true\naction = \"drop\"\n[[rules]]\naction = \"accept\"", |bench| {
        let first = v4(A, X).udp(5000, 53).payload(&[1; 100]).build_fragments(32).remove(0);
        assert_eq!(bench.goes(Direction::Outbound, first), denied("denied"));
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
    });
}
