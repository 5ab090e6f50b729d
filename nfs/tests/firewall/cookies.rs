//! SYN cookies: row F15. A client, a server and the firewall between them, segment by segment.

use super::bench::{A, A6, ACK, Bench, FIN_ACK, R, R6, RST, SYN, SYN_ACK, X, X6, packet, v4, v6, with_firewall};
use nf_framework::headers::{Headers, Transport};
use nf_framework::testing::{Frame, Outcome};
use nf_framework::{Direction, Piece};
use nfs::firewall::{ConnectionFilter, ConnectionView, Instance};

const RULES: &str = r#"
[[rules]]
name = "web"
from = "outside"
protocol = "tcp"
destination_ports = 80
action = "accept"
syn_cookies = "always"
"#;

const CLIENT: u16 = 40_000;
const PSH_ACK: u8 = ACK | 8;
const RST_ACK: u8 = RST | ACK;

/// A segment as it left.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Segment {
    ports: (u16, u16),
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
}

fn segment(frame: &[u8]) -> Segment {
    let mut frame = frame.to_vec();
    let headers = Headers::parse(&mut frame).unwrap();
    assert_eq!(headers.verify_checksums(), Ok(()));
    let Transport::Tcp { header, options } = &headers.transport else { panic!("it is TCP") };
    Segment {
        ports: (header.source_port.get(), header.destination_port.get()),
        sequence: header.sequence_number.get(),
        acknowledgment: header.acknowledgment_number.get(),
        flags: header.flags.0,
        window: header.window.get(),
        options: options.to_vec(),
    }
}

/// A client outside and a server inside.
#[derive(Clone, Copy)]
struct Ends {
    six: bool,
    port: u16,
    /// The number of the client's SYN and of the server's.
    client: u32,
    server: u32,
    /// What the client knows as that of the server.
    cookie: u32,
}

const V4: Ends = Ends { six: false, port: CLIENT, client: u32::MAX - 2, server: u32::MAX - 1000, cookie: 0 };
const V6: Ends = Ends { six: true, ..V4 };

/// Size, SACK, timestamps, and a window scale of 5.
const OFFERED: [u8; 20] = [2, 4, 5, 120, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 5];

impl Ends {
    /// Of the client's, so many octets behind its SYN, and of the server's.
    fn client(&self, flags: u8, sent: u32, received: u32) -> Frame {
        let frame = if self.six { v6(X6, A6) } else { v4(X, A).dont_fragment() };
        let frame = frame.tcp(self.port, 80).flags(flags).window(1000).sequence_number(self.client.wrapping_add(sent));
        if flags & ACK == 0 { frame } else { frame.acknowledgment_number(self.cookie.wrapping_add(received)) }
    }

    fn server(&self, flags: u8, sent: u32, received: u32) -> Frame {
        let frame = if self.six { v6(A6, X6) } else { v4(A, X).dont_fragment() };
        let frame = frame.tcp(80, self.port).flags(flags).window(1000).sequence_number(self.server.wrapping_add(sent));
        if flags & ACK == 0 { frame } else { frame.acknowledgment_number(self.client.wrapping_add(received)) }
    }

    /// As the other end gets it, where that counts as it does.
    fn as_the_server_counts(&self) -> Self {
        Self { cookie: self.server, ..*self }
    }

    fn as_the_client_counts(&self) -> Self {
        Self { server: self.cookie, ..*self }
    }

    /// Gets a cookie for a SYN with these options.
    fn asks(&mut self, bench: &mut Bench, options: &[u8]) -> Segment {
        let sent = bench.send(Direction::Inbound, &[self.client(SYN, 0, 0).tcp_options(options).build()]);
        assert_eq!(reasons(&sent), ["firewall-syn-cookie"]);
        let answer = segment(one(&sent.outside));
        assert!(sent.inside.is_empty());
        self.cookie = answer.sequence;
        answer
    }

    /// Brings it back; what the server gets.
    fn returns(&self, bench: &mut Bench) -> Segment {
        let sent = bench.send(Direction::Inbound, &[self.client(ACK, 1, 1).build()]);
        assert_eq!(reasons(&sent), ["firewall-syn-proxy"]);
        assert!(sent.outside.is_empty());
        segment(one(&sent.inside))
    }

    /// The server answers; what it gets, and what the client gets.
    fn is_answered(&self, bench: &mut Bench, options: &[u8]) -> (Segment, Segment) {
        let answer = self.server(SYN_ACK, 0, 1).tcp_options(options).build();
        let sent = bench.send(Direction::Outbound, &[answer]);
        assert_eq!(reasons(&sent), ["firewall-syn-proxy"]);
        (segment(one(&sent.inside)), segment(one(&sent.outside)))
    }

    /// A connection with these options of both ends.
    fn open(mut self, bench: &mut Bench, options: &[u8], of_server: &[u8]) -> Self {
        self.asks(bench, options);
        self.returns(bench);
        self.is_answered(bench, of_server);
        self
    }

    /// A segment of the client's goes to the server as this one.
    fn there(&self, bench: &mut Bench, frame: &Frame, expected: &Frame) {
        let sent = bench.send(Direction::Inbound, &[frame.build()]);
        assert_eq!((sent.inside, sent.outside.len()), (vec![expected.build()], 0), "{:?}", sent.dropped);
    }

    fn back(&self, bench: &mut Bench, frame: &Frame, expected: &Frame) {
        let sent = bench.send(Direction::Outbound, &[frame.build()]);
        assert_eq!((sent.outside, sent.inside.len()), (vec![expected.build()], 0), "{:?}", sent.dropped);
    }

    fn ports(&self) -> [(u16, u16); 2] {
        [(self.port, 80), (80, self.port)]
    }
}

fn one(frames: &[Vec<u8>]) -> &[u8] {
    assert_eq!(frames.len(), 1, "{frames:?}");
    &frames[0]
}

fn reasons(outcome: &Outcome) -> Vec<&str> {
    outcome.dropped.keys().map(String::as_str).collect()
}

/// What becomes of a packet that nothing answers.
fn fate(bench: &mut Bench, direction: Direction, frame: &Frame) -> String {
    let sent = bench.send(direction, &[frame.build()]);
    assert_eq!((sent.inside.len(), sent.outside.len()), (0, 0), "{sent:?}");
    reasons(&sent).concat()
}

/// Connections of the first worker.
fn states(bench: &mut Bench) -> Vec<ConnectionView> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let Piece { items, next: further } =
            bench.trial.command(0, move |instance: &mut Instance, _| instance.list(&ConnectionFilter::default(), from));
        all.extend(items.into_iter().map(|(_, connection)| connection));
        next = further;
    }
    all
}

#[test]
fn f15_a_client_that_is_there_reaches_its_server_by_a_cookie() {
    with_firewall(RULES, |bench| {
        for mut ends in [V4, V6] {
            let answer = ends.asks(bench, &OFFERED);
            let mss = if ends.six { [5, 160] } else { [5, 180] };
            let expected = Segment {
                ports: ends.ports()[1],
                sequence: ends.cookie,
                acknowledgment: ends.client.wrapping_add(1),
                flags: SYN_ACK,
                window: 0,
                options: [&[2, 4][..], &mss, &[1, 1, 4, 2, 1, 3, 3, 7]].concat(),
            };
            assert_eq!(answer, expected, "without timestamps");
            assert_eq!(bench.connections(), 0, "nothing is remembered");
            // 1400 octets are not in the tables of sizes.
            let mss = if ends.six { [5, 80] } else { [5, 20] };
            let syn = Segment {
                ports: ends.ports()[0],
                sequence: ends.client,
                acknowledgment: 0,
                flags: SYN,
                window: 32_000,
                options: [&[2, 4][..], &mss, &[1, 1, 4, 2, 1, 3, 3, 5]].concat(),
            };
            assert_eq!(ends.returns(bench), syn, "as the client's was, as far as is known");
            assert_eq!(bench.connections(), 1);
            if bench.workers == 1 {
                let views = states(bench);
                assert_eq!(
                    (views[0].state, views[0].proxied, views[0].rule.as_deref()),
                    ("SYN_PROXY", true, Some("web"))
                );
            }
            let (to_server, to_client) = ends.is_answered(bench, &[2, 4, 5, 180, 1, 3, 3, 2]);
            let ack = Segment {
                ports: ends.ports()[0],
                sequence: ends.client.wrapping_add(1),
                acknowledgment: ends.server.wrapping_add(1),
                flags: ACK,
                window: 1000,
                options: vec![],
            };
            assert_eq!(to_server, ack);
            // A window of 1000 octets in units of 128.
            let (sequence, acknowledgment) = (ends.cookie.wrapping_add(1), ends.client.wrapping_add(1));
            let ports = ends.ports()[1];
            assert_eq!(to_client, Segment { ports, sequence, acknowledgment, window: 7, ..ack });
            if bench.workers == 1 {
                assert_eq!(states(bench)[0].state, "ESTABLISHED");
            }
            let (client, server) = (ends.as_the_server_counts(), ends.as_the_client_counts());
            let data = |ends: &Ends, sent, received| ends.client(PSH_ACK, sent, received).payload(&[7; 100]);
            ends.there(bench, &data(&ends, 1, 1), &data(&client, 1, 1));
            // With a scale of 2 at the server, and of 7 as the client knows it.
            let answer = |ends: &Ends, sent, received, window| {
                ends.server(PSH_ACK, sent, received).window(window).payload(&[9; 1000])
            };
            ends.back(bench, &answer(&ends, 1, 101, 8000), &answer(&server, 1, 101, 250));
            ends.there(bench, &ends.client(ACK, 101, 1001), &client.client(ACK, 101, 1001));
            // The second is lost, and so the third acknowledged selectively; its place is behind the end of the numbers.
            ends.back(bench, &answer(&ends, 2001, 101, 8000), &answer(&server, 2001, 101, 250));
            for before in [&[1, 1][..], &[1], &[]] {
                let blocks = |first: u32| {
                    let edges = [first.wrapping_add(2001), first.wrapping_add(3001)].map(u32::to_be_bytes).concat();
                    [before, &[5, 10], &edges, &[0; 2][before.len()..]].concat()
                };
                let sack = |ends: &Ends, first| ends.client(ACK, 101, 1001).tcp_options(&blocks(first));
                ends.there(bench, &sack(&ends, ends.cookie), &sack(&client, ends.server));
            }
            ends.back(bench, &answer(&ends, 1001, 101, 8000), &answer(&server, 1001, 101, 250));
            ends.there(bench, &ends.client(FIN_ACK, 101, 3001), &client.client(FIN_ACK, 101, 3001));
            let last = |ends: &Ends, flags, window| ends.server(flags, 3001, 102).window(window);
            ends.back(bench, &last(&ends, FIN_ACK, 8000), &last(&server, FIN_ACK, 250));
            ends.there(bench, &ends.client(ACK, 102, 3002), &client.client(ACK, 102, 3002));
            // Beyond the window, as the server would count.
            let far = fate(bench, Direction::Inbound, &client.client(ACK, 102, 3002));
            assert_eq!(far, "firewall-tcp-window");
            bench.pass(130);
            assert_eq!(bench.connections(), 0);
        }
        assert_eq!((bench.counter("syn-cookies-sent"), bench.counter("syn-cookies-returned")), (2, 2));
        assert_eq!(bench.counter("connections-accepted"), 2);
    });
}

#[test]
fn f15_windows_are_told_in_the_scale_that_the_end_knows() {
    with_firewall(RULES, |bench| {
        let scale = |scale: u8| [2, 4, 5, 180, 1, 3, 3, scale];
        const NONE: [u8; 4] = [2, 4, 5, 180];
        // Offered by both; the client's window of 1000 as the server gets it, and the server's as the client gets it.
        for (number, (client, server, there, back)) in [
            (scale(5).to_vec(), scale(9).to_vec(), 1000, 4000),
            (scale(5).to_vec(), scale(14).to_vec(), 1000, u16::MAX),
            (scale(5).to_vec(), NONE.to_vec(), 32_000, 7),
            (scale(14).to_vec(), NONE.to_vec(), u16::MAX, 7),
            (NONE.to_vec(), NONE.to_vec(), 1000, 1000),
            (vec![], vec![], 1000, 1000),
        ]
        .into_iter()
        .enumerate()
        {
            let ends = Ends { port: CLIENT + u16::try_from(number).unwrap(), ..V4 }.open(bench, &client, &server);
            let expected = ends.as_the_server_counts().client(ACK, 1, 1).window(there);
            ends.there(bench, &ends.client(ACK, 1, 1), &expected);
            let expected = ends.as_the_client_counts().server(ACK, 1, 1).window(back);
            ends.back(bench, &ends.server(ACK, 1, 1), &expected);
        }
    });
}

#[test]
fn f15_a_flood_of_syns_is_answered_and_leaves_nothing() {
    with_firewall(RULES, |bench| {
        for number in 0..1000 {
            let [_, _, high, low] = u32::to_be_bytes(number);
            let syn = v4([198, 51, high, low].into(), A).tcp(1000, 80).flags(SYN).build();
            let sent = bench.send(Direction::Inbound, &[syn]);
            assert_eq!((sent.outside.len(), sent.inside.len()), (1, 0));
            assert_eq!(sent.outside[0].len(), 14 + 20 + 24, "no more than a SYN with as much");
        }
        // And one of acknowledgments, of numbers at random.
        for number in 0..1000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let ack = v4([198, 51, high, low].into(), A).tcp(1000, 80).flags(ACK).sequence_number(1);
            let ack = ack.acknowledgment_number(number.wrapping_mul(0x9e37_79b9));
            assert_eq!(fate(bench, Direction::Inbound, &ack), "firewall-no-connection");
        }
        assert_eq!(bench.connections(), 0);
        bench.pass(1);
        assert_eq!((bench.counter("syn-cookies-sent"), bench.counter("syn-cookies-returned")), (1000, 0));
    });
}

#[test]
fn f15_a_cookie_is_for_one_client_and_not_for_long() {
    with_firewall(RULES, |bench| {
        let mut ends = V4;
        ends.asks(bench, &OFFERED);
        for (what, frame) in [
            ("another number", Ends { cookie: ends.cookie ^ 0x100, ..ends }.client(ACK, 1, 1)),
            ("another offer", Ends { cookie: ends.cookie ^ 4, ..ends }.client(ACK, 1, 1)),
            ("another port", Ends { port: 1, ..ends }.client(ACK, 1, 1)),
            ("another SYN", Ends { client: 5, ..ends }.client(ACK, 1, 1)),
            ("its second octet", ends.client(ACK, 2, 1)),
            ("a FIN", ends.client(FIN_ACK, 1, 1)),
            ("a reset", ends.client(RST_ACK, 1, 1)),
            ("a SYN/ACK", ends.client(SYN_ACK, 1, 1)),
        ] {
            assert_eq!(fate(bench, Direction::Inbound, &frame), "firewall-no-connection", "{what}");
        }
        assert_eq!(bench.connections(), 0);
        bench.pass(64);
        ends.returns(bench);
        let mut late = Ends { port: 2, ..V4 };
        late.asks(bench, &OFFERED);
        bench.pass(128);
        let found = fate(bench, Direction::Inbound, &late.client(ACK, 1, 1));
        assert_eq!(found, "firewall-no-connection", "it is too old");
        assert_eq!(bench.connections(), 0, "and who has not answered is forgotten");
    });
}

#[test]
fn f15_a_cookie_that_comes_again_begins_nothing_else() {
    with_firewall(RULES, |bench| {
        let ends = V4.open(bench, &OFFERED, &[2, 4, 5, 180, 1, 3, 3, 5]);
        let again = ends.as_the_server_counts().client(ACK, 1, 1);
        ends.there(bench, &ends.client(ACK, 1, 1), &again);
        assert_eq!(bench.connections(), 1);
        // Closed and forgotten; the cookie is still good, so the server is asked once more, and no more than that.
        ends.there(bench, &ends.client(RST, 1, 1), &ends.client(RST, 1, 1));
        bench.pass(12);
        assert_eq!(bench.connections(), 0);
        assert_eq!(ends.returns(bench).flags, SYN);
        bench.pass(128);
        assert_eq!(fate(bench, Direction::Inbound, &ends.client(ACK, 1, 1)), "firewall-no-connection");
    });
}

#[test]
fn f15_a_silent_server_is_asked_whenever_the_client_says_something() {
    with_firewall(RULES, |bench| {
        let mut ends = V4;
        ends.asks(bench, &OFFERED);
        let first = ends.returns(bench);
        // Retransmitted, a probe of the window, a keep-alive, data in spite of it, and its end.
        for frame in [
            ends.client(ACK, 1, 1),
            ends.client(ACK, 1, 1).payload(b"x"),
            ends.client(ACK, 0, 1),
            ends.client(PSH_ACK, 1, 1).payload(&[1; 1000]),
            ends.client(FIN_ACK, 1001, 1),
        ] {
            let sent = bench.send(Direction::Inbound, &[frame.build()]);
            assert_eq!(reasons(&sent), ["firewall-syn-proxy"]);
            assert_eq!(segment(one(&sent.inside)), first);
        }
        for (reason, direction, frame) in [
            ("tcp-window", Direction::Inbound, ends.client(ACK, 1, 2)),
            ("tcp-reset", Direction::Inbound, ends.client(RST, 5, 1)),
            ("tcp-state", Direction::Inbound, ends.client(SYN_ACK, 1, 1)),
            ("tcp-flags", Direction::Inbound, ends.client(0, 1, 1)),
            ("tcp-state", Direction::Outbound, ends.server(SYN, 0, 1)),
            ("tcp-state", Direction::Outbound, ends.server(FIN_ACK, 0, 1)),
            ("tcp-reset", Direction::Outbound, ends.server(RST_ACK, 0, 9)),
            ("side", Direction::Outbound, ends.client(ACK, 1, 1)),
        ] {
            assert_eq!(fate(bench, direction, &frame), format!("firewall-{reason}"));
        }
        assert_eq!(bench.connections(), 1);
        // What was dropped comes again, and nothing of it was lost.
        ends.is_answered(bench, &OFFERED);
        let data = |ends: &Ends| ends.client(PSH_ACK, 1, 1).payload(&[1; 1000]);
        ends.there(bench, &data(&ends), &data(&ends.as_the_server_counts()));
    });
}

#[test]
fn f15_a_client_hears_that_its_server_refuses() {
    with_firewall(RULES, |bench| {
        for mut ends in [V4, V6] {
            ends.asks(bench, &OFFERED);
            ends.returns(bench);
            let refusal = Ends { server: 0, ..ends }.server(RST_ACK, 0, 1).window(0);
            let sent = bench.send(Direction::Outbound, &[refusal.build()]);
            assert_eq!((reasons(&sent), sent.inside.len()), (vec!["firewall-syn-proxy"], 0));
            let told = segment(one(&sent.outside));
            // The number that a client in ESTABLISHED believes, RFC 5961 section 3.
            assert_eq!((told.flags, told.sequence), (RST_ACK, ends.cookie.wrapping_add(1)));
            assert_eq!((told.acknowledgment, told.ports), (ends.client.wrapping_add(1), ends.ports()[1]));
            assert_eq!(bench.connections(), 0);
        }
    });
}

#[test]
fn f15_what_is_lost_between_firewall_and_server_is_said_again() {
    with_firewall(RULES, |bench| {
        let mut ends = V4;
        ends.asks(bench, &OFFERED);
        ends.returns(bench);
        // The server knows an older connection of these ports: it is to forget it, RFC 9293 section 3.10.7.3.
        for older in [ends.server(ACK, 7, 777), ends.server(SYN_ACK, 7, 777)] {
            let sent = bench.send(Direction::Outbound, &[older.build()]);
            let reset = segment(one(&sent.inside));
            assert_eq!((reset.flags, reset.sequence), (RST, ends.client.wrapping_add(777)));
            assert!(sent.outside.is_empty());
        }
        let (ack, _) = ends.is_answered(bench, &OFFERED);
        // Its acknowledgment was lost.
        let answer = ends.server(SYN_ACK, 0, 1).tcp_options(&OFFERED).build();
        let sent = bench.send(Direction::Outbound, &[answer]);
        assert_eq!((segment(one(&sent.inside)), sent.outside.len()), (ack, 0));
        assert_eq!(reasons(&sent), ["firewall-syn-proxy"]);
    });
}

#[test]
fn f15_a_client_that_gives_up_or_begins_anew_ends_what_waits() {
    with_firewall(RULES, |bench| {
        let mut ends = V4;
        ends.asks(bench, &OFFERED);
        ends.returns(bench);
        ends.there(bench, &ends.client(RST, 1, 1), &ends.client(RST, 1, 1));
        assert_eq!(bench.connections(), 0);
        ends.asks(bench, &OFFERED);
        ends.returns(bench);
        let mut anew = Ends { client: 77, ..V4 };
        anew.asks(bench, &OFFERED);
        assert_eq!(bench.connections(), 0);
        assert_eq!(anew.returns(bench).sequence, 77);
    });
}

#[test]
fn f15_icmp_errors_quote_the_numbers_that_their_receiver_knows() {
    with_firewall(RULES, |bench| {
        for ends in [V4, V6] {
            let ends = ends.open(bench, &OFFERED, &OFFERED);
            let data = |ends: &Ends| ends.server(PSH_ACK, 1, 1).payload(&[9; 1000]);
            let server = ends.as_the_client_counts();
            let sent = bench.send(Direction::Outbound, &[data(&ends).build()]);
            assert_eq!(segment(one(&sent.outside)).sequence, ends.cookie.wrapping_add(1));
            // From behind the firewall: the first eight octets of the segment, and more of it.
            for length in [8, 60] {
                let error = |of: &Ends| {
                    let about = packet(&data(of));
                    let network = if of.six { 40 } else { 20 };
                    if of.six {
                        v6(R6, A6).icmpv6(2, 0, [0, 0, 5, 0]).payload(&about[..network + length])
                    } else {
                        v4(R, A).icmp(3, 4, [0, 0, 5, 0]).payload(&about[..network + length])
                    }
                };
                let sent = bench.send(Direction::Inbound, &[error(&server).build()]);
                let mut found = one(&sent.inside).to_vec();
                assert_eq!(Headers::parse(&mut found).unwrap().verify_checksums(), Ok(()));
                if length == 8 {
                    assert_eq!(found, error(&ends).build(), "as the server has sent it");
                } else {
                    let start = 14 + 2 * if ends.six { 40 } else { 20 } + 8;
                    assert_eq!(found[..start + 16], error(&ends).build()[..start + 16], "but for its checksum");
                }
                let unknown =
                    fate(bench, Direction::Inbound, &error(&Ends { server: server.server ^ 1 << 31, ..ends }));
                assert_eq!(unknown, "firewall-unrelated");
            }
            // About the client's, whose numbers are the same everywhere.
            let about = packet(&ends.as_the_server_counts().client(ACK, 1, 1));
            let error = if ends.six {
                v6(A6, X6).icmpv6(1, 4, [0; 4]).payload(&about[..48])
            } else {
                v4(A, X).icmp(3, 3, [0; 4]).payload(&about[..28])
            };
            ends.back(bench, &error, &error);
        }
    });
}

#[test]
fn f15_fragments_are_renumbered_by_their_first_one() {
    with_firewall(RULES, |bench| {
        let mut ends = V4;
        let parts =
            ends.client(SYN, 0, 0).tcp_options(&OFFERED).payload(&[1; 64]).identification(1).build_fragments(48);
        let sent = bench.send(Direction::Inbound, &parts);
        assert_eq!((reasons(&sent), sent.outside.len()), (vec!["firewall-fragment"], 0), "no cookie for a part");
        ends.asks(bench, &OFFERED);
        let parts = |frame: Frame, number| frame.payload(&[1; 100]).identification(number).build_fragments(48);
        let sent = bench.send(Direction::Inbound, &parts(ends.client(ACK, 1, 1), 2));
        assert_eq!(reasons(&sent), ["firewall-fragment", "firewall-no-connection"], "nor does one bring it back");
        ends.returns(bench);
        let sent = bench.send(Direction::Inbound, &parts(ends.client(ACK, 1, 1), 3));
        assert_eq!((reasons(&sent), sent.inside.len()), (vec!["firewall-syn-proxy"], 1), "a SYN again, and no more");
        ends.is_answered(bench, &OFFERED);
        let sent = bench.send(Direction::Inbound, &parts(ends.client(ACK, 1, 1), 4));
        assert_eq!(sent.inside, parts(ends.as_the_server_counts().client(ACK, 1, 1), 4));
        let window = 1000 << 5 >> 7;
        let sent = bench.send(Direction::Outbound, &parts(ends.server(ACK, 1, 1), 5));
        assert_eq!(sent.outside, parts(ends.as_the_client_counts().server(ACK, 1, 1).window(window), 5));
    });
}

#[test]
fn f15_cookies_go_with_their_tags() {
    with_firewall(RULES, |bench| {
        let tagged = |frame: &Frame| frame.clone().vlan(7);
        let sent = bench.send(Direction::Inbound, &[tagged(&V4.client(SYN, 0, 0)).build()]);
        let answer = one(&sent.outside);
        assert_eq!(answer[12..16], [0x81, 0, 0, 7]);
        let ends = Ends { cookie: segment(answer).sequence, ..V4 };
        let untagged = fate(bench, Direction::Inbound, &ends.client(ACK, 1, 1));
        assert_eq!(untagged, "firewall-no-connection");
        let sent = bench.send(Direction::Inbound, &[tagged(&ends.client(ACK, 1, 1)).build()]);
        assert_eq!(one(&sent.inside)[12..16], [0x81, 0, 0, 7]);
    });
}

#[test]
fn f15_cookies_begin_with_an_attack_and_end_with_it() {
    let text = RULES.replace("always", "under-attack") + "limit = { embryonic = 16 }\n";
    with_firewall(&text, |bench| {
        // Each worker has half of the limit, and begins at half of that.
        let share = 16 / u32::from(bench.workers);
        let mut asked = 0;
        let mut first_answer = None;
        for port in 1..200 {
            let sent = bench.send(Direction::Inbound, &[Ends { port, ..V4 }.client(SYN, 0, 0).build()]);
            asked += u32::try_from(sent.inside.len()).unwrap();
            if sent.inside.is_empty() {
                assert_eq!(reasons(&sent), ["firewall-syn-cookie"]);
                first_answer = first_answer.or(Some(port));
            }
        }
        assert_eq!(asked, u32::from(bench.workers) * share / 2, "the first one was {first_answer:?}");
        assert_eq!(bench.connections(), u64::from(asked));
        // Who is there gets through, and counts as half open until the server answers.
        let ends = Ends { port: 300, ..V4 }.open(bench, &OFFERED, &OFFERED);
        ends.there(bench, &ends.client(ACK, 1, 1), &ends.as_the_server_counts().client(ACK, 1, 1));
        // The flood's own are gone with their time, and SYNs go to the server again.
        bench.pass(121);
        let sent = bench.send(Direction::Inbound, &[Ends { port: 400, ..V4 }.client(SYN, 0, 0).build()]);
        assert_eq!((sent.inside.len(), sent.outside.len()), (1, 0));
        ends.there(bench, &ends.client(ACK, 1, 1), &ends.as_the_server_counts().client(ACK, 1, 1));
    });
}

#[test]
fn f15_limits_are_of_connections_and_not_of_syns() {
    let text = RULES.to_owned() + "limit = { connections_per_second = 2, burst = 2, embryonic = 2 }\n";
    with_firewall(&text, |bench| {
        let mut all: Vec<_> = (0..50).map(|port| Ends { port: 1000 + port, ..V4 }).collect();
        for ends in &mut all {
            ends.asks(bench, &OFFERED);
        }
        let mut found = std::collections::BTreeMap::new();
        for ends in &all {
            let sent = bench.send(Direction::Inbound, &[ends.client(ACK, 1, 1).build()]);
            *found.entry(reasons(&sent).concat()).or_insert(0) += 1;
        }
        assert_eq!(found["firewall-syn-proxy"], 2);
        assert_eq!(found["firewall-rate-limit"], 48);
        bench.pass(10);
        found.clear();
        for ends in &all[2..] {
            let sent = bench.send(Direction::Inbound, &[ends.client(ACK, 1, 1).build()]);
            *found.entry(reasons(&sent).concat()).or_insert(0) += 1;
        }
        assert!(found.keys().all(|reason| {
            ["firewall-syn-proxy", "firewall-rate-limit", "firewall-embryonic-limit"].contains(&reason.as_str())
        }));
        assert_eq!(bench.connections(), 2);
    });
}

#[test]
fn f15_an_acknowledgment_without_a_cookie_is_not_picked_up_where_there_are_cookies() {
    with_firewall(&format!("mid_stream = true\n{RULES}"), |bench| {
        let mut ends = V4;
        ends.asks(bench, &OFFERED);
        let forged = Ends { cookie: ends.cookie ^ 0x100, ..ends }.client(ACK, 1, 1);
        assert_eq!(fate(bench, Direction::Inbound, &forged), "firewall-no-connection");
        ends.returns(bench);
    });
}

#[test]
fn f15_cookies_leave_what_else_a_rule_accepts_alone() {
    with_firewall(&RULES.replace("protocol = \"tcp\"\n", ""), |bench| {
        assert_eq!(bench.back(&v4(X, A).udp(1000, 80)), Ok(()));
        // And what other rules deny has no cookie.
        let closed = v4(X, A).tcp(CLIENT, 81).flags(SYN);
        assert_eq!(fate(bench, Direction::Inbound, &closed), "firewall-default");
        // Nor has what is for a group.
        let mut ends = V4;
        let group = v4(X, [224, 0, 0, 9].into()).tcp(CLIENT, 80).flags(SYN);
        assert_eq!(fate(bench, Direction::Inbound, &group), "firewall-syn-cookie");
        ends.asks(bench, &OFFERED);
    });
}

#[test]
fn f15_connections_that_began_by_a_cookie_outlive_a_reload() {
    for live in ["keep", "rejudge"] {
        with_firewall(RULES, move |bench| {
            let ends = V4.open(bench, &OFFERED, &OFFERED);
            let mut waits = Ends { port: 7, ..V4 };
            waits.asks(bench, &OFFERED);
            waits.returns(bench);
            let mut slow = Ends { port: 8, ..V4 };
            slow.asks(bench, &OFFERED);
            bench.reload(&format!("live = \"{live}\"\n{}", RULES.replace("always", "never"))).unwrap();
            let there = |ends: Ends, bench: &mut Bench| {
                ends.there(bench, &ends.client(ACK, 1, 1), &ends.as_the_server_counts().client(ACK, 1, 1));
                let back = ends.as_the_client_counts().server(ACK, 1, 1).window(1000 >> 2);
                ends.back(bench, &ends.server(ACK, 1, 1), &back);
            };
            there(ends, bench);
            waits.is_answered(bench, &OFFERED);
            there(waits, bench);
            // What was promised is kept, and no more of it.
            slow.returns(bench);
            slow.is_answered(bench, &OFFERED);
            there(slow, bench);
            let syn = Ends { port: 9, ..V4 }.client(SYN, 0, 0);
            assert_eq!(bench.back(&syn), Ok(()));
            assert_eq!(bench.connections(), 4);
        });
    }
    with_firewall(&RULES.replace("always", "never"), |bench| {
        let invalid = bench.reload(RULES).unwrap_err();
        assert_eq!((invalid.key.as_str(), invalid.message.contains("restart")), ("rules[0].syn_cookies", true));
    });
}

#[test]
fn f15_a_program_that_is_drained_gives_no_cookies_and_takes_none() {
    with_firewall(RULES, |bench| {
        let open = V4.open(bench, &OFFERED, &OFFERED);
        let mut ends = Ends { port: 7, ..V4 };
        ends.asks(bench, &OFFERED);
        bench.trial.set_draining(true);
        for frame in [ends.client(ACK, 1, 1), ends.client(SYN, 0, 0)] {
            assert_eq!(fate(bench, Direction::Inbound, &frame), "draining");
        }
        open.there(bench, &open.client(ACK, 1, 1), &open.as_the_server_counts().client(ACK, 1, 1));
    });
}

#[test]
fn f15_a_wrong_checksum_stays_wrong_or_is_dropped() {
    let broken = |frame: Frame| {
        let mut frame = frame.payload(&[7; 100]).build();
        *frame.last_mut().unwrap() ^= 1;
        frame
    };
    with_firewall(RULES, move |bench| {
        for ends in [V4, V6] {
            let ends = ends.open(bench, &OFFERED, &OFFERED);
            let sent = bench.send(Direction::Inbound, &[broken(ends.client(PSH_ACK, 1, 1))]);
            assert_eq!(sent.inside, [broken(ends.as_the_server_counts().client(PSH_ACK, 1, 1))]);
        }
    });
    with_firewall(&format!("checksums = \"all\"\n{RULES}"), move |bench| {
        for ends in [V4, V6] {
            let ends = ends.open(bench, &OFFERED, &OFFERED);
            let sent = bench.send(Direction::Inbound, &[broken(ends.client(PSH_ACK, 1, 1))]);
            assert_eq!((reasons(&sent), sent.inside.len()), (vec!["firewall-checksum"], 0));
            let data = |ends: &Ends| ends.client(PSH_ACK, 1, 1).payload(&[7; 100]);
            ends.there(bench, &data(&ends), &data(&ends.as_the_server_counts()));
        }
    });
}

#[test]
fn f15_a_rule_with_cookies_may_limit_packets() {
    let text = RULES.to_owned() + "limit = { packets_per_second = 40, burst = 40 }\n";
    with_firewall(&text, |bench| {
        let ends = V4.open(bench, &OFFERED, &OFFERED);
        let sent = (0..100).map(|_| bench.send(Direction::Inbound, &[ends.client(ACK, 1, 1).build()]));
        let passed = sent.filter(|sent| sent.inside.len() == 1).count();
        assert!((1..40).contains(&passed), "{passed}");
    });
}

#[test]
fn f15_data_with_a_server_s_syn_is_none_of_the_client_s() {
    with_firewall(RULES, |bench| {
        let mut ends = V4;
        ends.asks(bench, &OFFERED);
        ends.returns(bench);
        bench.send(Direction::Outbound, &[ends.server(SYN_ACK, 0, 1).payload(&[9; 100]).build()]);
        let about = |sent| ends.client(ACK, sent, 1).build()[14..].to_vec();
        let error = |sent| v4(A, X).icmp(3, 1, [0; 4]).payload(&about(sent));
        assert_eq!(fate(bench, Direction::Outbound, &error(2)), "firewall-unrelated", "it has sent no data");
        assert_eq!(bench.out(&error(1)), Ok(()));
    });
}

/// In the place of a connection that is over, behind a SYN of somebody else's in one burst: rules that ask for a SYN
/// are asked about its SYN all the same.
#[test]
fn f15_an_acknowledgment_that_waits_for_others_is_judged_as_its_syn_was() {
    let rules = RULES.replace("action", "flags = \"syn !ack\"\naction");
    with_firewall(&rules, |bench| {
        for ends in [V4, V6] {
            let mut ends = ends.open(bench, &OFFERED, &[]);
            let reset = bench.send(Direction::Inbound, &[ends.client(RST, 1, 1).build()]);
            assert_eq!((reset.inside.len(), reset.dropped.len()), (1, 0));
            ends.asks(bench, &OFFERED);
            let other = Ends { port: ends.port + 1, ..ends }.client(SYN, 0, 0).build();
            let sent = bench.send(Direction::Inbound, &[other, ends.client(ACK, 1, 1).build()]);
            assert_eq!(reasons(&sent), ["firewall-syn-cookie", "firewall-syn-proxy"]);
            assert_eq!(segment(one(&sent.inside)).flags, SYN);
        }
    });
}
