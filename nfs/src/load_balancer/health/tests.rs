//! The engine against backends of every manner.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use super::arrival::PORTS;
use super::engine::{Engine, ProbeAddresses, Slot};
use super::passive::Traffic;
use super::testing::{Behaviour, PROBE, World, check, target, tcp, tls_server};
use super::{Failure, State};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const SYN: u8 = 2;
const ACK: u8 = 0x10;
const FIN: u8 = 1;
const RST: u8 = 4;

fn says(text: &str) -> Behaviour {
    Behaviour::Says(text.as_bytes().to_vec())
}

fn goes_on(text: &str, pause: u64) -> Behaviour {
    Behaviour::GoesOn(text.as_bytes().to_vec(), pause)
}

const ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

#[test]
fn each_kind_of_check_ends_as_its_backend_behaves() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nall ok\n";
    let http = "kind = 'http'\ntimeout = 1.5";
    let expects = "kind = 'http'\ntimeout = 1.5\nexpect = 'all ok'";
    let udp = "kind = 'udp'\nsend = 'ping'\nexpect = 'pong'\ntimeout = 0.9";
    let quiet = "kind = 'udp'\ntimeout = 0.9";
    let answers = |text: &str| Behaviour::Answers(text.as_bytes().to_vec());
    // What it is, how it is asked, what it does, how that ends, and within how many milliseconds.
    let cases = [
        ("a server", "kind = 'tcp'", Behaviour::Accepts, Ok(()), 5),
        ("nobody", "kind = 'tcp'", Behaviour::Nobody, Err(Failure::Refused), 5),
        ("silence", "kind = 'tcp'\ntimeout = 0.5", Behaviour::Silent, Err(Failure::Silent), 501),
        ("a page", http, says(OK), Ok(()), 10),
        ("a page with a word", expects, says(OK), Ok(()), 10),
        ("a page without", expects, says("HTTP/1.1 200 OK\r\n\r\nno"), Err(Failure::Unexpected), 10),
        ("not available", http, says("HTTP/1.1 503 No\r\n\r\n"), Err(Failure::Status(503)), 10),
        ("cut off", http, says("HTTP/1.1 200 OK\r\nServer"), Err(Failure::CutOff), 10),
        ("no answer", http, says(""), Err(Failure::CutOff), 10),
        ("no HTTP", http, says("220 mail.example ESMTP\r\n"), Err(Failure::NotHttp), 10),
        ("reset", http, Behaviour::Resets, Err(Failure::Reset), 10),
        ("nobody for HTTP", http, Behaviour::Nobody, Err(Failure::Refused), 5),
        ("taken and not answered", http, Behaviour::Accepts, Err(Failure::Silent), 1501),
        ("silence for HTTP", http, Behaviour::Silent, Err(Failure::Silent), 1501),
        ("an endless head", http, goes_on("HTTP/1.1 200 OK\r\nX: y\r\n", 0), Err(Failure::HeadTooLong), 100),
        ("an endless body", expects, goes_on("HTTP/1.1 200 OK\r\n\r\n", 0), Err(Failure::Unexpected), 200),
        ("a drop at a time", http, goes_on("HTTP/1.1 200 OK\r\nX: y\r\n", 30), Err(Failure::Silent), 1501),
        ("an echo", "kind = 'icmp'", Behaviour::Nobody, Ok(()), 5),
        ("no echo", "kind = 'icmp'\ntimeout = 0.5", Behaviour::Silent, Err(Failure::Silent), 501),
        ("pong", udp, answers("..pong.."), Ok(()), 5),
        ("not pong", udp, answers("ping"), Err(Failure::Unexpected), 5),
        ("no pong", udp, Behaviour::Silent, Err(Failure::Silent), 901),
        ("nobody for ping", udp, Behaviour::Nobody, Err(Failure::Refused), 5),
        ("silence is right", quiet, Behaviour::Silent, Ok(()), 901),
        ("an answer is right too", quiet, answers("x"), Ok(()), 5),
        ("nobody is wrong", quiet, Behaviour::Nobody, Err(Failure::Refused), 5),
        ("a server for UDP", "kind = 'udp'\nanswer = true\ntimeout = 0.9", answers("x"), Ok(()), 5),
    ];
    for (what, text, behaviour, expected, within) in cases {
        for address in ADDRESSES {
            let mut world = World::of_one(address, text, behaviour.clone());
            let (end, after) = world.first_end(0);
            assert_eq!(end, expected, "{what} at {address}");
            assert!(after <= within, "{what} at {address} took {after} ms");
            let state = if expected.is_ok() { State::Up } else { State::Down };
            assert_eq!(world.health(0).state, state, "{what} at {address}");
            assert_eq!(world.tenths(0), if expected.is_ok() { 10 } else { 0 }, "{what} at {address}");
        }
    }
}

#[test]
fn https_believes_whom_it_is_told_to() {
    let page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let (server, certificate) = tls_server(&["www.example", "192.0.2.1"]);
    let (_, another) = tls_server(&["www.example"]);
    let directory = std::env::temp_dir().join(format!("health-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let [right, wrong] = [("right.pem", certificate), ("wrong.pem", another)].map(|(name, text)| {
        let path = directory.join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path.display().to_string()
    });
    let cases = [
        (format!("ca_file = '{right}'\nhost = 'www.example:80'"), ""),
        (format!("ca_file = '{right}'\nserver_name = 'www.example'"), ""),
        (format!("ca_file = '{right}'"), ""),
        ("verify = false".to_owned(), ""),
        ("verify = false\nhost = 'mail.example'".to_owned(), ""),
        ("verify = false\nexpect = 'ok'".to_owned(), ""),
        (format!("ca_file = '{right}'\nhost = 'mail.example'"), "not valid for name"),
        (format!("ca_file = '{wrong}'\nhost = 'www.example'"), "certificate"),
    ];
    for (text, message) in cases {
        let behaviour = Behaviour::SaysByTls(page.clone(), Arc::clone(&server));
        let mut world = World::of_one("192.0.2.1", &format!("kind = 'https'\n{text}"), behaviour);
        match world.first_end(0).0 {
            Ok(()) => assert_eq!(message, "", "{text}"),
            Err(Failure::Tls(said)) => assert!(!message.is_empty() && said.contains(message), "{text}: {said}"),
            Err(other) => panic!("{text}: {other}"),
        }
        // Whatever it was, the connection ends.
        world.run(1500);
        assert!(world.engine.is_idle() || world.health(0).checks > 1);
    }
    std::fs::remove_dir_all(directory).unwrap();
    let plain = says("HTTP/1.1 400 Bad Request\r\n\r\n");
    let mut world = World::of_one("192.0.2.1", "kind = 'https'\nverify = false", plain);
    assert!(matches!(world.first_end(0).0, Err(Failure::Tls(_))));
    let nobody = Behaviour::Says(Vec::new());
    let mut world = World::of_one("192.0.2.1", "kind = 'https'\nverify = false", nobody);
    assert_eq!(world.first_end(0).0, Err(Failure::CutOff));
}

#[test]
fn a_connection_ends_so_that_the_backend_keeps_nothing_of_it() {
    let flags = |behaviour, text: &str| {
        let mut world = World::of_one("192.0.2.1", text, behaviour);
        let _ = world.first_end(0);
        world.run(1100);
        assert!(world.engine.is_idle());
        world.sent.iter().map(|(_, _, packet)| tcp(packet).0).collect::<Vec<_>>()
    };
    let text = "kind = 'tcp'\ninterval = 5\ntimeout = 0.5";
    // To one that closes when it is told to, we say good-bye first.
    assert_eq!(flags(Behaviour::Accepts, text), [SYN, ACK, FIN | ACK, ACK]);
    assert_eq!(flags(Behaviour::Nobody, text), [SYN]);
    // One that says nothing may have a connection half open.
    assert_eq!(flags(Behaviour::Silent, text), [SYN, RST | ACK]);
    // A server that has closed keeps no TIME-WAIT.
    let http = flags(says("HTTP/1.1 200 OK\r\n\r\n"), "kind = 'http'\ninterval = 5");
    assert_eq!((http[0], http.last().map(|flags| flags & RST)), (SYN, Some(RST)), "{http:?}");
    // One that never stops is stopped.
    let endless = flags(goes_on("HTTP/1.1 200 OK\r\n\r\n", 0), "kind = 'http'\ninterval = 5");
    assert_eq!(endless.last().map(|flags| flags & RST), Some(RST));
    assert!(endless.len() < 200, "{}", endless.len());
}

#[test]
fn what_is_lost_is_sent_again_within_a_check() {
    for (text, least) in [("kind = 'udp'\nanswer = true", 3), ("kind = 'icmp'", 3), ("kind = 'tcp'\ntimeout = 4", 2)] {
        let mut world = World::of_one("192.0.2.1", text, Behaviour::Silent);
        assert_eq!(world.first_end(0).0, Err(Failure::Silent), "{text}");
        let resets = |packet: &[u8]| packet[9] == 6 && packet[33] & RST != 0;
        let sent = world.sent.iter().filter(|(.., packet)| !resets(packet)).count();
        assert!((least..=5).contains(&sent), "{text}: {sent}");
    }
}

#[test]
fn a_backend_goes_down_and_comes_back_and_it_is_said_why() {
    let text = "kind = 'tcp'\ninterval = 1\ntimeout = 1\nrise = 2\nfall = 3\njitter = 0\nslow_start = 10";
    let mut world = World::of_one("192.0.2.1", text, Behaviour::Accepts);
    let remote = ("192.0.2.1".parse().unwrap(), 80);
    world.run(1100);
    let told = |world: &mut World| {
        let changes = world.engine.take_changes().into_iter();
        changes.map(|change| (change.from, change.to, change.why)).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut world), [(State::Unknown, State::Up, None)]);
    world.place(0, remote, Behaviour::Nobody);
    world.run(1900);
    assert_eq!((told(&mut world), world.tenths(0)), (vec![], 10));
    world.run(1100);
    assert_eq!(told(&mut world), [(State::Up, State::Down, Some(Failure::Refused))]);
    assert_eq!(world.tenths(0), 0);
    world.place(0, remote, Behaviour::Accepts);
    world.run(2000);
    assert_eq!(told(&mut world), [(State::Down, State::Up, None)]);
    // Its weight grows.
    let mut tenths = Vec::new();
    for _ in 0..11 {
        tenths.push(world.tenths(0));
        world.run(1000);
    }
    assert!(tenths.is_sorted() && tenths[0] == 1 && tenths[5] >= 4 && tenths[10] == 10, "{tenths:?}");
    let health = world.health(0);
    assert_eq!((health.state, health.changes, health.last), (State::Up, 2, Some(Ok(()))));
    assert_eq!((health.failed, world.engine.counters().failed), (3, 3));
}

#[test]
fn a_backend_that_flaps_is_held_down_and_let_up_again() {
    let text = "kind = 'tcp'\ninterval = 1\nrise = 1\nfall = 1\njitter = 0\ndamping = 5";
    let mut world = World::of_one("192.0.2.1", text, Behaviour::Accepts);
    let remote = ("192.0.2.1".parse().unwrap(), 80);
    world.run(1100);
    for _ in 0..3 {
        world.place(0, remote, Behaviour::Nobody);
        world.run(1000);
        world.place(0, remote, Behaviour::Accepts);
        world.run(1000);
    }
    let health = world.health(0);
    assert_eq!((health.state, health.last, health.changes), (State::Down, Some(Ok(())), 5));
    let held = health.held_for.unwrap();
    assert!(held > Duration::from_secs(5) && held < Duration::from_secs(10), "{held:?}");
    world.run(u64::try_from(held.as_millis()).unwrap() + 1000);
    assert_eq!(world.health(0).state, State::Up);
    let said = world.engine.take_changes();
    assert_eq!(said.iter().filter(|change| change.held_for.is_some()).count(), 1);
}

#[test]
fn checks_begin_an_interval_apart_and_a_little() {
    let text = "kind = 'tcp'\ninterval = 1\njitter = 20";
    let mut world = World::of_one("192.0.2.1", text, Behaviour::Accepts);
    world.run(60_000);
    let begun: Vec<_> = world.sent.iter().filter(|(.., packet)| tcp(packet).0 == SYN).map(|(at, ..)| *at).collect();
    assert!(begun[0] <= Duration::from_secs(2), "the first comes within an interval");
    let apart: Vec<_> = begun.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(apart.len() >= 50 && apart.iter().all(|apart| (800..=1201).contains(apart)), "{apart:?}");
    assert!(apart.iter().any(|apart| *apart < 900) && apart.iter().any(|apart| *apart > 1100), "{apart:?}");
    // A port rests before it comes again, so that it tells nothing wrong.
    let ports: Vec<_> = world.sent.iter().filter(|(.., packet)| tcp(packet).0 == SYN).map(|(.., p)| tcp(p).1).collect();
    assert_eq!(ports, (0..begun.len()).map(|n| PORTS.start() + u16::try_from(n).unwrap()).collect::<Vec<_>>());
}

#[test]
fn backends_that_share_an_address_are_told_apart_by_port() {
    let remote = ("203.0.113.1".parse().unwrap(), 80);
    let check = check("kind = 'tcp'\ninterval = 0.2\ntimeout = 0.2\nrise = 1\nfall = 1");
    let mut world = World::new();
    let behaviours = [Behaviour::Accepts, Behaviour::Nobody, Behaviour::Silent, Behaviour::Accepts];
    world.follow((0..4).map(|slot| target(slot, remote, &check)).collect());
    for (slot, behaviour) in (0..).zip(behaviours) {
        world.place(slot, remote, behaviour);
    }
    world.run(3000);
    let states: Vec<_> = (0..4).map(|slot| world.health(slot).state).collect();
    assert_eq!(states, [State::Up, State::Down, State::Down, State::Up]);
    assert_eq!([1, 2].map(|slot| world.health(slot).last), [Some(Err(Failure::Refused)), Some(Err(Failure::Silent))]);
}

#[test]
fn thousands_of_backends_are_checked_with_a_thousand_ports_and_none_of_them_forgotten() {
    let check = check("kind = 'tcp'\ninterval = 2\ntimeout = 1\nfall = 1");
    let mut world = World::new();
    let count: Slot = 5000;
    let remote = |slot: Slot| (IpAddr::from([10, 1, slot.to_be_bytes()[0], slot.to_be_bytes()[1]]), 80);
    world.keeps = false;
    world.follow((0..count).map(|slot| target(slot, remote(slot), &check)).collect());
    // Some answer; they suffer nothing but delay.
    for slot in (0..count).step_by(500) {
        world.place(slot, remote(slot), Behaviour::Accepts);
    }
    let mut most = 0;
    for _ in 0..16_000 {
        world.step();
        most = most.max(world.engine.under_way());
    }
    assert_eq!(most, PORTS.len());
    for slot in 0..count {
        let health = world.health(slot);
        assert!(health.checks >= 2, "{slot}: {health:?}");
        let expected = if slot % 500 == 0 { State::Up } else { State::Down };
        assert_eq!((health.state, health.changes), (expected, 0), "{slot}");
    }
    assert!(world.engine.counters().late > 0);
    // And when all is answered in time, no port is kept.
    world.follow(Vec::new());
    assert_eq!((world.engine.under_way(), world.engine.wake()), (0, None));
}

#[test]
fn a_reload_keeps_what_is_known_and_ends_what_is_not_asked_for() {
    let [first, second] = ["interval = 1", "interval = 0.5"].map(|text| check(&format!("kind = 'tcp'\n{text}")));
    let remote = |slot: u8| (IpAddr::from([192, 0, 2, slot]), 80);
    let mut world = World::new();
    world.follow(vec![target(1, remote(1), &first), target(2, remote(2), &first), target(3, remote(3), &first)]);
    for slot in 1..=2 {
        world.place(slot.into(), remote(slot), Behaviour::Accepts);
    }
    world.run(1100);
    assert_eq!([1, 2, 3].map(|slot| world.tenths(slot)), [10, 10, 0]);
    let checks = world.health(1).checks;
    // One stays with another check, one goes, one leaves its slot to another; and one comes that was in use.
    let used = target(4, remote(4), &second);
    used.status.set_share(1000);
    world.sent.clear();
    let same = world.again(target(1, remote(1), &second));
    world.follow(vec![same, target(3, remote(33), &second), used]);
    assert!(world.sent.iter().all(|(_, slot, packet)| *slot == 3 && tcp(packet).0 & RST != 0), "{:?}", world.sent);
    assert_eq!(world.sent.len(), 1);
    assert_eq!([1, 2, 3, 4].map(|slot| world.tenths(slot)), [10, 10, 0, 10]);
    assert_eq!((world.health(1).checks, world.health(1).state), (checks, State::Up));
    assert_eq!((world.health(3).checks, world.health(3).state), (0, State::Unknown));
    world.run(10_000);
    // Nobody answers there, so it is found out.
    assert_eq!([1, 3, 4].map(|slot| world.tenths(slot)), [10, 0, 0]);
    assert!(world.health(1).checks > checks + 7);
}

#[test]
fn another_interval_holds_at_once() {
    let [rare, often] = [600, 1].map(|interval| check(&format!("kind = 'tcp'\ninterval = {interval}\njitter = 0")));
    let remote = ("192.0.2.1".parse().unwrap(), 80);
    let mut world = World::new();
    world.follow(vec![target(0, remote, &rare)]);
    world.place(0, remote, Behaviour::Accepts);
    world.run(3000);
    assert_eq!(world.health(0).checks, 1);
    world.place(0, remote, Behaviour::Nobody);
    let same = world.again(target(0, remote, &often));
    world.follow(vec![same]);
    world.run(3100);
    assert_eq!(world.health(0).state, State::Down);
    // The same once more brings none forward.
    let (checks, same) = (world.health(0).checks, world.again(target(0, remote, &often)));
    for _ in 0..5 {
        world.follow(vec![same.clone()]);
        world.run(100);
    }
    assert!(world.health(0).checks <= checks + 1);
    let same = world.again(target(0, remote, &rare));
    world.follow(vec![same]);
    let checks = world.health(0).checks;
    world.run(100_000);
    assert!(world.health(0).checks <= checks + 1);
}

#[test]
fn what_is_under_way_between_other_addresses_than_now_is_no_failure() {
    let check = check("kind = 'tcp'\ninterval = 1\ntimeout = 0.5\nfall = 1\njitter = 0");
    let (old, new) = (("192.0.2.1".parse().unwrap(), 80), ("192.0.2.2".parse().unwrap(), 80));
    for (what, probe, remote) in [("from", Ipv4Addr::new(10, 0, 0, 8), old), ("to", PROBE, new)] {
        let mut world = World::new();
        world.follow(vec![target(0, old, &check)]);
        world.place(0, old, Behaviour::Accepts);
        world.run(2000);
        // What is asked last is not answered before all changes.
        world.place(0, old, Behaviour::Silent);
        let asked = world.sent.len();
        while world.sent.len() == asked {
            world.step();
        }
        let (now, before) = (world.now, world.health(0));
        let same = world.again(target(0, remote, &check));
        let addresses = ProbeAddresses::new(&[probe.into()]).unwrap();
        let mut resets = 0;
        world.engine.follow(now, addresses, vec![same], &mut |_, packet| {
            resets += usize::from(tcp(packet).0 & RST != 0);
        });
        assert_eq!((resets, world.engine.under_way()), (1, 0), "{what}");
        world.place(0, remote, Behaviour::Accepts);
        world.run(1500);
        let after = world.health(0);
        assert_eq!((after.state, after.failed, after.changes), (State::Up, 0, before.changes), "{what}");
        assert!(after.checks > before.checks, "{what}: it is asked again");
        let (.., last) = world.sent.last().unwrap();
        assert_eq!(last[12..16], probe.octets(), "{what}");
    }
}

#[test]
fn time_in_which_nobody_looks_is_held_against_nobody() {
    let mut world = World::of_one("192.0.2.1", "kind = 'tcp'\ninterval = 1\ntimeout = 0.2", Behaviour::Accepts);
    world.run(1200);
    for _ in 0..20 {
        // Whatever is under way: the thread gets no time for a second.
        let next = world.health(0).checks + 1;
        while world.health(0).checks < next && world.engine.is_idle() {
            world.step();
        }
        world.now += Duration::from_secs(1);
        world.run(100);
    }
    let health = world.health(0);
    assert_eq!((health.failed, health.state), (0, State::Up));
    assert!(health.checks >= 20);
}

#[test]
fn without_an_address_of_its_family_no_backend_is_ready() {
    let addresses = ProbeAddresses::new(&[PROBE.into()]).unwrap();
    let mut engine = Engine::new(addresses, 1);
    let remote = ("2001:db8::1".parse().unwrap(), 80);
    let now = Duration::from_secs(1);
    engine.follow(now, addresses, vec![target(0, remote, &check("kind = 'tcp'"))], &mut |_, _| {});
    engine.poll(now * 2, &mut |_, _| panic!("there is nothing to send"));
    let (_, health) = engine.states(now * 2).next().unwrap();
    assert_eq!((health.state, health.last), (State::Down, Some(Err(Failure::NoAddress))));
}

#[test]
fn what_is_wrong_with_an_address_is_said() {
    let cases = [
        (&["0.0.0.0"][..], "probe_addresses[0]"),
        (&["10.0.0.1", "224.0.0.1"], "probe_addresses[1]"),
        (&["255.255.255.255"], "probe_addresses[0]"),
        (&["::"], "probe_addresses[0]"),
        (&["10.0.0.1", "2001:db8::1", "10.0.0.2"], "probe_addresses[2]"),
    ];
    for (addresses, key) in cases {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(ProbeAddresses::new(&addresses).unwrap_err().key, key);
    }
}

#[test]
fn packets_of_strangers_change_nothing() {
    let mut world = World::of_one("192.0.2.1", "kind = 'tcp'\ninterval = 0.3", Behaviour::Accepts);
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    };
    for round in 0..5000_u16 {
        world.step();
        let now = world.now;
        let mut packet: Vec<u8> = (0..u16::from(random())).map(|_| random()).collect();
        if packet.len() > 40 {
            // To a port that is in use, from whoever.
            packet[0] = if round % 2 == 0 { 0x45 } else { 0x60 };
            packet[6..8].copy_from_slice(&[if round % 2 == 0 { 0 } else { 6 }, 0]);
            packet[9] = [1, 6, 17][usize::from(round % 3)];
            let at = if round % 2 == 0 { 22 } else { 42 };
            if packet.len() > at + 2 {
                packet[at..at + 2].copy_from_slice(&(PORTS.start() + round % 40).to_be_bytes());
            }
        }
        world.engine.receive(now, &packet, &mut |_, _| {});
    }
    let health = world.health(0);
    assert_eq!((health.failed, health.state), (0, State::Up));
    assert!(world.engine.counters().stray > 0);
}

#[test]
fn a_backend_whose_connections_fail_goes_down_but_never_more_than_half_of_them() {
    let text = "kind = 'tcp'\ninterval = 1\nrise = 1\npassive = { failed = 50, least = 10, window = 5 }";
    let mut world = World::new();
    let check = check(text);
    let remote = |slot: u8| (IpAddr::from([192, 0, 2, slot]), 80);
    world.follow((0..4).map(|slot| target(slot.into(), remote(slot), &check)).collect());
    for slot in 0..4 {
        world.place(slot.into(), remote(slot), Behaviour::Accepts);
    }
    world.run(2500);
    let mut counted: BTreeMap<Slot, Traffic> = BTreeMap::new();
    let mut lets = |world: &mut World, slots: &[Slot], failed: u64| {
        let listen = |world: &mut World, counted: &BTreeMap<Slot, Traffic>| {
            let now = world.now;
            world.engine.listen(now, |slot| counted.get(&slot).copied().unwrap_or_default());
        };
        listen(world, &counted);
        for slot in slots {
            let traffic = counted.entry(*slot).or_default();
            *traffic = Traffic { begun: traffic.begun + 20, failed: traffic.failed + failed };
        }
        world.run(5001);
        listen(world, &counted);
        (0..4).map(|slot| world.health(slot).state == State::Up).collect::<Vec<_>>()
    };
    assert_eq!(lets(&mut world, &[1], 9), [true; 4]);
    assert_eq!(lets(&mut world, &[1], 10), [true, false, true, true]);
    let last = world.engine.take_changes().pop().unwrap();
    assert_eq!(last.why, Some(Failure::Traffic { failed: 10, begun: 20 }));
    assert_eq!(last.held_for, Some(Duration::from_secs(5)));
    // It answers, and comes back after a window; but for all of them nobody goes.
    world.run(6000);
    assert_eq!(lets(&mut world, &[0, 1, 2, 3], 20).iter().filter(|up| **up).count(), 2);
}
