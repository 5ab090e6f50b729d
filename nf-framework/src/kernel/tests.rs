//! Following a real kernel, in a network namespace that nobody else is in.

#[path = "../../tests/common/namespace.rs"]
mod namespace;

use super::*;
use namespace::{in_a_namespace, ip};
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, channel};

/// Enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One end of a cable is the interface, and is up as long as the other end is. They get no
/// link-local addresses, which the kernel would make when it comes to it.
fn make(interface: &str) {
    ip(&format!(
        "link add {interface} type veth peer name to-{interface}\n\
         link set {interface} addrgenmode none\nlink set to-{interface} addrgenmode none\n\
         link set to-{interface} up\n"
    ));
}

fn named(names: &[&str]) -> Vec<KernelInterface> {
    names.iter().map(|name| KernelInterface::Name((*name).to_owned())).collect()
}

fn lines(state: &KernelState) -> Vec<String> {
    let address = |line: &KernelAddress| format!("{}/{} at {}", line.address, line.prefix_length, line.interface);
    let route = |route: &KernelRoute| match route.next_hop {
        KernelNextHop::Gateway { interface, address } => format!("{} via {address} at {interface}", route.prefix),
        KernelNextHop::Link { interface } => format!("{} at {interface}", route.prefix),
        other => format!("{} {other:?}", route.prefix),
    };
    state.addresses.iter().map(address).chain(state.routes.iter().map(route)).collect()
}

#[test]
fn what_the_kernel_has_and_gets_is_followed() {
    in_a_namespace("kernel::tests::what_the_kernel_has_and_gets_is_followed", || {
        ["tap0", "tap1", "eth0"].into_iter().for_each(make);
        ip("link set tap0 up\nlink set eth0 up\naddress add 192.0.2.1/24 dev tap0\naddress add 10.0.0.1/8 dev eth0\n\
            route add default via 10.0.0.2\nroute add 198.51.100.0/24 via 192.0.2.9\n");
        let (changes, changed) = channel();
        let (follower, first) =
            KernelFollower::start(named(&["tap0", "tap1"]), move |state| changes.send(state).unwrap()).unwrap();
        let (ours, net) = ("192.0.2.1/24 at 0", "192.0.2.0/24 at 0");
        assert_eq!(lines(&first), [ours, net, "198.51.100.0/24 via 192.0.2.9 at 0"]);
        // What is done, and what is there then.
        let steps: &[(&str, &[&str])] = &[
            ("route del 198.51.100.0/24", &[ours, net]),
            ("route add 203.0.113.0/24 via 192.0.2.8", &[ours, net, "203.0.113.0/24 via 192.0.2.8 at 0"]),
            ("route replace 203.0.113.0/24 via 192.0.2.7", &[ours, net, "203.0.113.0/24 via 192.0.2.7 at 0"]),
            (
                "route replace 203.0.113.0/24 nexthop via 192.0.2.6 nexthop via 192.0.2.5",
                &[ours, net, "203.0.113.0/24 via 192.0.2.6 at 0"],
            ),
            ("route replace unreachable 203.0.113.0/24", &[ours, net, "203.0.113.0/24 Unreachable"]),
            ("route replace blackhole 203.0.113.0/24", &[ours, net, "203.0.113.0/24 Blackhole"]),
            ("route replace prohibit 203.0.113.0/24", &[ours, net, "203.0.113.0/24 Prohibited"]),
            ("route del 203.0.113.0/24\nroute add 203.0.113.0/25 dev tap0", &[ours, net, "203.0.113.0/25 at 0"]),
            (
                "route replace 203.0.113.0/25 via inet6 fe80::9 dev tap0",
                &[ours, net, "203.0.113.0/25 via fe80::9 at 0"],
            ),
            (
                "nexthop add id 7 via 192.0.2.4 dev tap0\nroute replace 203.0.113.0/25 nhid 7",
                &[ours, net, "203.0.113.0/25 via 192.0.2.4 at 0"],
            ),
            ("nexthop replace id 7 via 192.0.2.3 dev tap0", &[ours, net, "203.0.113.0/25 via 192.0.2.3 at 0"]),
            ("nexthop del id 7", &[ours, net]),
            (
                "link set tap1 up\naddress add 2001:db8::1/64 dev tap1 nodad\nroute add 2001:db8:7::/48 via 2001:db8::7",
                &[ours, "2001:db8::1/64 at 1", net, "2001:db8::/64 at 1", "2001:db8:7::/48 via 2001:db8::7 at 1"],
            ),
            (
                "route replace 2001:db8:7::/48 via 2001:db8::8",
                &[ours, "2001:db8::1/64 at 1", net, "2001:db8::/64 at 1", "2001:db8:7::/48 via 2001:db8::8 at 1"],
            ),
            ("route del 2001:db8:7::/48", &[ours, "2001:db8::1/64 at 1", net, "2001:db8::/64 at 1"]),
            // Of IPv4 the kernel says no word of routes that go with a link or an address.
            ("route add 198.51.100.0/24 dev tap1\nlink set tap1 down", &[ours, net]),
            ("address del 192.0.2.1/24 dev tap0", &[]),
            (
                "address add 192.0.2.1/24 dev tap0\nroute add 198.51.100.0/24 via 192.0.2.9 src 192.0.2.1",
                &[ours, net, "198.51.100.0/24 via 192.0.2.9 at 0"],
            ),
            ("link del tap0", &[]),
        ];
        for (commands, expected) in steps {
            ip(&format!("{commands}\n"));
            until(&changed, |state| lines(state) == *expected, commands);
        }
        make("tap0");
        ip("link set tap0 up\naddress add 192.0.2.2/24 dev tap0\n");
        until(&changed, |state| lines(state) == ["192.0.2.2/24 at 0", net], "made again under its name");
        drop(follower);
        assert!(changed.try_iter().all(|state| !state.addresses.is_empty()));
        assert!(changed.recv().is_err(), "the thread is gone, and what it called with it");
    });
}

/// Waits for a state; others may come before it.
fn until(changed: &Receiver<KernelState>, is_it: impl Fn(&KernelState) -> bool, what: &str) {
    let give_up = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        match changed.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            Ok(state) if is_it(&state) => return,
            Ok(state) => seen = lines(&state),
            Err(_) => panic!("after {what:?} it did not come to what was expected, but to {seen:#?}"),
        }
    }
}

#[test]
fn an_interface_that_is_not_there_is_an_error_that_says_which_are() {
    in_a_namespace("kernel::tests::an_interface_that_is_not_there_is_an_error_that_says_which_are", || {
        make("tap0");
        for (interface, name) in [
            (KernelInterface::Name("tap9".to_owned()), "no tap9,"),
            (KernelInterface::Index(99), "no interface number 99,"),
        ] {
            let error = KernelFollower::start(vec![named(&["tap0"])[0].clone(), interface], drop).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("tap0") && text.contains("correct the name"), "{text}");
        }
        assert!(KernelFollower::start(vec![KernelInterface::Index(1)], drop).is_ok());
    });
}

/// So many routes, as lines of `ip`.
fn many_routes(count: u32) -> String {
    (0..count).fold(String::new(), |mut lines, number| {
        let [_, a, b, c] = number.to_be_bytes();
        let _ = writeln!(lines, "route add 100.{a}.{b}.{c}/32 via 192.0.2.9");
        lines
    })
}

#[test]
fn what_was_lost_as_it_came_too_fast_is_asked_for_again() {
    in_a_namespace("kernel::tests::what_was_lost_as_it_came_too_fast_is_asked_for_again", || {
        make("tap0");
        ip("link set tap0 up\naddress add 192.0.2.1/24 dev tap0\n");
        // The smallest buffer that the kernel gives.
        let (mut following, first) = Following::begin(named(&["tap0"]), 0).unwrap();
        assert_eq!(lines(&first).len(), 2);
        // Nobody listens meanwhile.
        ip(&many_routes(2000));
        let (mut now, give_up) = (Instant::now(), Instant::now() + PATIENCE);
        let mut was_doubtful = false;
        loop {
            assert!(Instant::now() < give_up);
            following.listen().unwrap();
            was_doubtful |= following.is_doubtful;
            // Time enough for everything, whatever the clock says.
            now += PATIENCE;
            following.clear_doubts(now).unwrap();
            if following.news(now).is_some_and(|state| state.routes.len() >= 2001) {
                break;
            }
        }
        assert!(was_doubtful, "the buffer was large enough for all");
    });
}

#[test]
fn a_burst_comes_as_few_states_and_the_last_one_has_it_all() {
    in_a_namespace("kernel::tests::a_burst_comes_as_few_states_and_the_last_one_has_it_all", || {
        const ROUTES: u32 = 20_000;
        make("tap0");
        ip("link set tap0 up\naddress add 192.0.2.1/24 dev tap0\n");
        let (changes, changed) = channel();
        let (_follower, first) =
            KernelFollower::start(named(&["tap0"]), move |state| changes.send(state).unwrap()).unwrap();
        let before = first.routes.len();
        ip(&many_routes(ROUTES));
        let all = before + ROUTES as usize;
        let (mut states, give_up) = (0, Instant::now() + PATIENCE);
        loop {
            let state = changed.recv_timeout(give_up.saturating_duration_since(Instant::now())).unwrap();
            states += 1;
            if state.routes.len() == all {
                break;
            }
        }
        assert!(states < ROUTES / 2, "{states} states");
    });
}

#[test]
fn states_keep_their_distance_in_time_and_one_that_is_no_other_does_not_come() {
    in_a_namespace("kernel::tests::states_keep_their_distance_in_time_and_one_that_is_no_other_does_not_come", || {
        make("tap0");
        ip("link set tap0 up\naddress add 192.0.2.1/24 dev tap0\n");
        let (mut following, _) = Following::begin(named(&["tap0"]), netlink::RECEIVE_BUFFER).unwrap();
        let start = Instant::now();
        // Until nothing is left to be heard of what was done before.
        let hear = |following: &mut Following, commands: &str| {
            ip(commands);
            while following.subscription.receive(|_, _| ()).unwrap() == Received::Something {}
            (following.is_doubtful, following.is_news) = (true, false);
        };
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        // milliseconds, what is done, whether a state comes
        for (time, commands, comes) in [
            (10_000, "route add 198.51.100.0/24 via 192.0.2.9\n", true),
            (20_000, "route add 203.0.113.0/24 via 192.0.2.9\n", true),
            (20_099, "route del 203.0.113.0/24 via 192.0.2.9\n", false), // too soon
            (30_000, "", true),
            (40_000, "route add 10.0.0.0/8 table 7 via 192.0.2.9\n", false),
        ] {
            hear(&mut following, commands);
            // As if it had been asked long before.
            following.next_dump = at(time);
            following.clear_doubts(at(time)).unwrap();
            assert_eq!(following.news(at(time)).is_some(), comes, "{commands:?} at {time} ms");
        }
        following.is_doubtful = true;
        following.next_dump = at(50_001);
        following.clear_doubts(at(50_000)).unwrap();
        assert!(following.is_doubtful, "it is not asked before its time");
    });
}

#[test]
fn work_on_many_routes_takes_a_fifth_of_the_time_at_most() {
    // milliseconds of work, and until it is done again
    for (work, pause) in [(0, 100), (10, 110), (25, 125), (26, 130), (1000, 5000)] {
        assert_eq!(pause_after(Duration::from_millis(work)), Duration::from_millis(pause), "{work} ms");
    }
}
