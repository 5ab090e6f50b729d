//! TCP connections: rows F2 to F9.

use super::bench::{A, ACK, Bench, FIN_ACK, OUT, RST, SYN, SYN_ACK, X, denied, tcp, with_firewall};
use nf_framework::Direction;

/// A segment on the connection of port 4000: of the inside host if `true`; its flags, numbers and data.
fn segment(inside: bool, flags: u8, sequence: u32, acknowledgment: u32, data: usize) -> (Direction, Vec<u8>) {
    let frame = if inside { tcp(A, X, 4000, 80, flags) } else { tcp(X, A, 80, 4000, flags) };
    let frame = frame.sequence_number(sequence).acknowledgment_number(acknowledgment).payload(&vec![7; data]);
    (if inside { Direction::Outbound } else { Direction::Inbound }, frame.build())
}

fn goes(bench: &mut Bench, (direction, frame): (Direction, Vec<u8>)) -> Result<(), String> {
    bench.goes(direction, frame)
}

#[test]
fn f02_a_connection_goes_through_its_states() {
    /// Of whom, flags, sequence, acknowledgment.
    type Segments = &'static [(bool, u8, u32, u32)];
    let sequences: [(&str, Segments); 4] = [
        (
            "closed from inside",
            &[
                (true, FIN_ACK, 1000, 5000),
                (false, ACK, 5000, 1001),
                (false, FIN_ACK, 5000, 1001),
                (true, ACK, 1001, 5001),
            ],
        ),
        (
            "half closed, with data the other way",
            &[
                (false, FIN_ACK, 5000, 1000),
                (true, ACK, 1000, 5001),
                (true, ACK | 8, 1000, 5001),
                (true, FIN_ACK, 1000, 5001),
                (false, ACK, 5001, 1001),
            ],
        ),
        (
            "closed at once by both",
            &[
                (true, FIN_ACK, 1000, 5000),
                (false, FIN_ACK, 5000, 1000),
                (true, ACK, 1001, 5001),
                (false, ACK, 5001, 1001),
            ],
        ),
        ("reset", &[(true, RST, 1000, 0)]),
    ];
    for (what, sequence) in sequences {
        with_firewall(OUT, move |bench| {
            bench.connect(4000);
            for (inside, flags, number, acknowledgment) in sequence.iter().copied() {
                let segment = segment(inside, flags, number, acknowledgment, 0);
                assert_eq!(goes(bench, segment), Ok(()), "{what}: {flags:#x}");
            }
            // It is over after two minutes, and not two hours.
            bench.pass(121);
            assert_eq!(bench.connections(), 0, "{what}");
        });
    }
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        bench.pass(7300);
        assert_eq!(goes(bench, segment(false, ACK, 5000, 1000, 10)), Ok(()), "idle for two hours");
        bench.pass(7441);
        assert_eq!(goes(bench, segment(false, ACK, 5010, 1000, 10)), denied("no-connection"));
    });
}

#[test]
fn f02_both_sides_may_begin_at_once() {
    with_firewall(OUT, |bench| {
        for (inside, flags, number, acknowledgment) in [
            (true, SYN, 999, 0),
            (true, SYN, 999, 0),
            (false, SYN, 4999, 0),
            (true, SYN_ACK, 999, 5000),
            (false, SYN_ACK, 4999, 1000),
            (true, ACK, 1000, 5000),
            (false, ACK, 5000, 1000),
            (true, ACK, 1000, 5000),
        ] {
            assert_eq!(goes(bench, segment(inside, flags, number, acknowledgment, 0)), Ok(()), "{flags:#x}");
        }
        bench.pass(300);
        assert_eq!(bench.connections(), 1, "it is established");
    });
}

#[test]
fn f03_nothing_but_a_syn_begins_a_connection() {
    for flags in [SYN_ACK, FIN_ACK, RST, RST | ACK, ACK, ACK | 8] {
        with_firewall(OUT, move |bench| {
            assert_eq!(goes(bench, segment(true, flags, 1000, 5000, 0)), denied("no-connection"), "{flags:#x}");
            assert_eq!(bench.connections(), 0);
        });
    }
    let loose = format!("mid_stream = true\n{OUT}");
    with_firewall(&loose, |bench| {
        for flags in [SYN_ACK, FIN_ACK, RST] {
            assert_eq!(goes(bench, segment(true, flags, 1000, 5000, 0)), denied("no-connection"), "{flags:#x}");
        }
        assert_eq!(goes(bench, segment(true, ACK, 1000, 5000, 10)), Ok(()));
        assert_eq!(goes(bench, segment(false, ACK, 5000, 1010, 10)), Ok(()));
        assert_eq!(goes(bench, segment(true, ACK, 900_000, 5010, 10)), Ok(()), "nothing is known of windows");
        // The rules are asked all the same.
        assert_eq!(bench.back(&tcp(X, A, 80, 4001, ACK)), denied("default"));
    });
}

#[test]
fn f04_sets_of_flags_that_mean_nothing_are_dropped() {
    for flags in [0, 0x29, 0x01, 0x03, 0x06, 0x07, 0x08, 0x20, 0x3f, 0xff, 0x19 & !ACK] {
        with_firewall(OUT, move |bench| {
            assert_eq!(goes(bench, segment(true, flags, 1000, 5000, 0)), denied("tcp-flags"), "{flags:#x}");
            bench.connect(4000);
            assert_eq!(goes(bench, segment(true, flags, 1000, 5000, 0)), denied("tcp-flags"), "{flags:#x}");
            assert_eq!(goes(bench, segment(true, ACK, 1000, 5000, 1)), Ok(()));
        });
    }
}

#[test]
fn f05_what_contradicts_itself_is_dropped() {
    with_firewall(OUT, |bench| {
        let (direction, whole) = segment(true, SYN, 999, 0, 0);
        let mut changed = |at: usize, octet: u8| {
            let mut frame = whole.clone();
            frame[at] = octet;
            bench.goes(direction, frame)
        };
        let malformed = Err("malformed".to_owned());
        assert_eq!(changed(46, 0x40), malformed, "a data offset of 4");
        assert_eq!(changed(46, 0x60), malformed, "one beyond the packet");
        assert_eq!(changed(17, 39), malformed, "a header cut short");
        assert_eq!(changed(51, whole[51] ^ 1), denied("checksum"), "TCP");
        assert_eq!(changed(25, whole[25] ^ 1), denied("checksum"), "IPv4");
        assert_eq!(bench.connections(), 0);
    });
    let all = format!("checksums = \"all\"\n{OUT}");
    with_firewall(&all, |bench| {
        bench.connect(4000);
        let (direction, mut data) = segment(true, ACK, 1000, 5000, 10);
        assert_eq!(bench.goes(direction, data.clone()), Ok(()));
        *data.last_mut().unwrap() ^= 1;
        assert_eq!(bench.goes(direction, data), denied("checksum"));
    });
}

#[test]
fn f06_numbers_are_within_the_windows() {
    for (what, sequence, acknowledgment, data, expected) in [
        ("the next data", 1000, 5000, 100, Ok(())),
        ("to the window's end", 1900, 5000, 100, Ok(())),
        ("beyond it", 2001, 5000, 1, denied("tcp-window")),
        ("a window back", 100, 5000, 100, Ok(())),
        ("what was never sent is acknowledged", 1000, 5001, 100, denied("tcp-window")),
        ("long before", 1000, 4999_u32.wrapping_sub(66_000), 100, denied("tcp-window")),
    ] {
        with_firewall(OUT, move |bench| {
            bench.connect(4000);
            let found = goes(bench, segment(true, ACK, sequence, acknowledgment, data));
            assert_eq!(found, expected, "{what}");
        });
    }
    // Both sides scale: 1000 is 8000.
    for (scales, expected) in [([true, true], Ok(())), ([true, false], denied("tcp-window"))] {
        with_firewall(OUT, move |bench| {
            let option = |scaled: bool| if scaled { vec![1, 3, 3, 3] } else { Vec::new() };
            let syn = tcp(A, X, 4000, 80, SYN).sequence_number(999).tcp_options(&option(scales[0]));
            assert_eq!(bench.out(&syn), Ok(()));
            let answer = tcp(X, A, 80, 4000, SYN_ACK).sequence_number(4999).acknowledgment_number(1000);
            assert_eq!(bench.back(&answer.tcp_options(&option(scales[1]))), Ok(()));
            for (inside, sequence, acknowledgment) in [(true, 1000, 5000), (false, 5000, 1000)] {
                assert_eq!(goes(bench, segment(inside, ACK, sequence, acknowledgment, 0)), Ok(()));
            }
            assert_eq!(goes(bench, segment(true, ACK, 5000, 5000, 100)), expected);
        });
    }
    // A selective acknowledgment of what was never sent.
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        let sack = |edge: u32| {
            let mut option = vec![1, 1, 5, 10];
            option.extend(1000_u32.to_be_bytes());
            option.extend(edge.to_be_bytes());
            tcp(X, A, 80, 4000, ACK).sequence_number(5000).acknowledgment_number(1000).tcp_options(&option)
        };
        assert_eq!(goes(bench, segment(true, ACK, 1000, 5000, 100)), Ok(()));
        assert_eq!(bench.back(&sack(1101)), denied("tcp-window"));
        assert_eq!(bench.back(&sack(1100)), Ok(()));
    });
}

#[test]
fn f07_a_reset_of_an_established_connection_is_exact() {
    for sequence in [0, 999, 1042, 1_000_000] {
        with_firewall(OUT, move |bench| {
            bench.connect(4000);
            assert_eq!(goes(bench, segment(true, RST, sequence, 0, 0)), denied("tcp-reset"), "{sequence}");
            bench.pass(600);
            assert_eq!(goes(bench, segment(false, ACK, 5000, 1000, 10)), Ok(()), "it lives");
        });
    }
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(goes(bench, segment(true, RST, 1000, 0, 0)), Ok(()), "the exact one");
        bench.pass(11);
        assert_eq!(bench.connections(), 0);
        bench.connect(4000);
        assert_eq!(goes(bench, segment(false, FIN_ACK, 5000, 1000, 0)), Ok(()));
        assert_eq!(goes(bench, segment(true, RST, 1042, 0, 0)), Ok(()), "after a FIN it need not be");
    });
}

#[test]
fn f08_what_was_acknowledged_may_come_again() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        for round in 0..5 {
            assert_eq!(goes(bench, segment(true, ACK, 1000 + 1000 * round, 5000, 1000)), Ok(()));
            assert_eq!(goes(bench, segment(false, ACK, 5000, 2000 + 1000 * round, 0)), Ok(()));
        }
        // The acknowledgment was lost behind the firewall.
        assert_eq!(goes(bench, segment(true, ACK, 1000, 5000, 1000)), Ok(()));
        assert_eq!(goes(bench, segment(true, ACK, 6000, 5000, 1000)), Ok(()));
    });
}

#[test]
fn f09_old_answers_to_a_syn_do_no_harm() {
    for old in [SYN_ACK, ACK] {
        with_firewall(OUT, move |bench| {
            assert_eq!(goes(bench, segment(true, SYN, 999, 0, 0)), Ok(()));
            assert_eq!(goes(bench, segment(false, old, 300, 777_777, 0)), Ok(()), "it knows another connection");
            assert_eq!(goes(bench, segment(true, RST, 777_777, 0, 0)), Ok(()), "which is reset");
            assert_eq!(goes(bench, segment(true, SYN, 999, 0, 0)), Ok(()));
            assert_eq!(goes(bench, segment(false, SYN_ACK, 4999, 1000, 0)), Ok(()));
            assert_eq!(goes(bench, segment(true, ACK, 1000, 5000, 0)), Ok(()));
            bench.pass(600);
            assert_eq!(goes(bench, segment(true, ACK, 1000, 5000, 10)), Ok(()));
        });
    }
}

#[test]
fn f09_a_port_may_be_used_again() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(goes(bench, segment(true, SYN, 70_000, 0, 0)), Ok(()), "it has forgotten");
        assert_eq!(goes(bench, segment(false, ACK, 5000, 1000, 0)), Ok(()), "the other has not");
        assert_eq!(goes(bench, segment(true, RST, 1000, 0, 0)), Ok(()));
        bench.connect(4000);
        bench.pass(600);
        assert_eq!(bench.connections(), 1);
        // After its end too; and from outside a rule is needed for it.
        assert_eq!(goes(bench, segment(false, RST, 5000, 0, 0)), Ok(()));
        assert_eq!(goes(bench, segment(false, SYN, 4999, 0, 0)), denied("default"));
        bench.connect(4000);
        // A SYN of the other side is none that a live connection has.
        assert_eq!(goes(bench, segment(false, SYN, 4999, 0, 0)), denied("tcp-state"));
    });
}

#[test]
fn f06_a_server_may_send_data_before_the_handshake_is_over() {
    with_firewall(OUT, |bench| {
        let cookie = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
        let syn = tcp(A, X, 4000, 80, SYN).window(14_000).sequence_number(999).tcp_options(&cookie).payload(&[1; 100]);
        assert_eq!(bench.out(&syn), Ok(()));
        assert_eq!(goes(bench, segment(false, SYN_ACK, 4999, 1100, 0)), Ok(()));
        for number in 0..10 {
            assert_eq!(goes(bench, segment(false, ACK, 5000 + number * 1400, 1100, 1400)), Ok(()), "{number}");
        }
        assert_eq!(goes(bench, segment(false, ACK, 5000 + 14_001, 1100, 1400)), denied("tcp-window"));
    });
}

#[test]
fn f07_a_reset_with_number_0_ends_nothing_that_is_being_opened() {
    for inside in [false, true] {
        with_firewall(OUT, move |bench| {
            assert_eq!(goes(bench, segment(true, SYN, 999, 0, 0)), Ok(()));
            assert_eq!(goes(bench, segment(false, SYN_ACK, 700_004_999, 1000, 0)), Ok(()));
            assert!(goes(bench, segment(inside, RST, 0, 0, 0)).is_err(), "{inside}");
            assert_eq!(goes(bench, segment(true, ACK, 1000, 700_005_000, 0)), Ok(()));
            bench.pass(30);
            assert_eq!(goes(bench, segment(true, ACK, 1000, 700_005_000, 10)), Ok(()), "{inside}");
        });
    }
}

#[test]
fn f09_a_syn_that_is_denied_ends_nothing() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(goes(bench, segment(true, FIN_ACK, 1000, 5000, 0)), Ok(()));
        assert_eq!(goes(bench, segment(true, FIN_ACK, 1000, 5000, 0)), Ok(()), "again");
        assert_eq!(goes(bench, segment(false, ACK, 5000, 1001, 0)), Ok(()));
        // The server goes on sending: half closed.
        assert_eq!(goes(bench, segment(false, ACK, 5000, 1001, 500)), Ok(()));
        assert_eq!(goes(bench, segment(true, ACK, 1001, 5500, 0)), Ok(()));
        assert_eq!(goes(bench, segment(false, SYN, 123_456_789, 0, 0)), denied("default"), "only the ports are right");
        assert_eq!(goes(bench, segment(true, SYN, 900, 0, 0)), denied("tcp-state"), "an old one");
        assert_eq!(goes(bench, segment(false, ACK, 5500, 1001, 500)), Ok(()));
        // Behind its numbers it is a new one.
        assert_eq!(goes(bench, segment(true, SYN, 1001, 0, 0)), Ok(()));
        assert_eq!(goes(bench, segment(false, SYN_ACK, 90_000, 1002, 0)), Ok(()));
        assert_eq!(bench.connections(), 1);
    });
    // What takes its place is counted once.
    with_firewall(&format!("connections_per_source = 1\n{OUT}"), |bench| {
        bench.connect(4000);
        assert_eq!(goes(bench, segment(true, RST, 1000, 0, 0)), Ok(()));
        bench.connect(4000);
        let limited = bench.out(&tcp(A, X, 4000, 81, SYN));
        assert!(bench.workers > 1 || limited == denied("source-limit"), "{limited:?}");
    });
}
