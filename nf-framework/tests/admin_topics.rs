//! A function's lists, states and orders by the admin door, with a million entries.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/door.rs"]
#[allow(dead_code, reason = "it is for other tests too")]
mod door;

use common::{Scratch, on_eal};
use door::Door;
use nf_framework::{
    AdminConfig, AdminDoor, BackendReport, Budget, Context, Counter, ForwardingKind, Function, Gauge, Invalid, Loaded,
    Mbuf, Occupancy, PacketFunction, Piece, Runtime, RuntimeConfig, SetupError, Topic, Verdict, WorkerSetup,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Entries of each of two workers.
const ENTRIES: usize = 500_000;
/// What one piece looks at.
const PIECE: usize = 1024;

/// Each worker has every second number.
struct Numbers;

struct Instance {
    worker: usize,
    there: Vec<bool>,
    seen: Counter,
    left: Gauge,
    full: Occupancy,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    /// What they can be divided by.
    divisor: Option<usize>,
}

impl PacketFunction for Instance {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.seen.add(1);
        Verdict::Next
    }

    fn tick(&mut self, _: &mut Context<'_>, _: Budget) {
        self.left.set(self.worker as u64 + 1);
        self.full.set(10 * (self.worker + 1), 100);
    }
}

impl Instance {
    fn meant(&self, filter: &Filter, from: usize) -> Piece<usize> {
        let to = (from + PIECE).min(self.there.len());
        let fits = |number: &usize| filter.divisor.is_none_or(|divisor| number.is_multiple_of(divisor));
        let items = (from..to).filter(|at| self.there[*at]).map(|at| (at, 2 * at + self.worker));
        Piece { items: items.filter(|(_, number)| fits(number)).collect(), next: (to < self.there.len()).then_some(to) }
    }
}

impl Function for Numbers {
    type Config = ();
    type Policy = ();
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "numbers"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn topics(&self) -> Vec<Topic<Self>> {
        vec![
            Topic::list("all", "the numbers", |instance: &mut Instance, filter, from| instance.meant(filter, from))
                .parameter("divisor", "what they can be divided by"),
            Topic::state("count", "how many", |of: &mut Instance, _: &Filter, _| of.there.len(), |counts| counts),
            Topic::order(
                "refuse",
                "never done",
                |of: &mut Instance, _: &Filter, _| of.worker,
                |workers| if workers == [0, 1] { Err::<(), _>("it cannot be done".to_owned()) } else { Ok(()) },
            ),
            Topic::sweep("remove", "takes numbers away", |of: &mut Instance, filter: &Filter, from, _| {
                let Piece { items, next } = of.meant(filter, from);
                items.iter().for_each(|(at, _)| of.there[*at] = false);
                (items.len(), next)
            }),
        ]
    }

    /// One is down, one is checked by nobody, and one has the name of another.
    fn backends(&self, (): &()) -> Vec<BackendReport> {
        let backend = |name: &str, is_up| {
            let (service, name) = ("s".to_owned(), name.to_owned());
            BackendReport { service, name, is_up, connections: 7 }
        };
        vec![backend("a", Some(false)), backend("b", None), backend("a", Some(true))]
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        let (seen, left, full) = (worker.counter("seen"), worker.gauge("left"), worker.occupancy("numbers"));
        Ok(Instance { worker: worker.index(), there: vec![true; ENTRIES], seen, left, full })
    }

    fn adopt(_: &mut Instance, _: Arc<()>) {}
}

/// All pages of a list.
fn pages(door: &Door, query: &str, limit: usize) -> Vec<u64> {
    let (mut numbers, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = door.get(&format!("/v1/functions/numbers/all?limit={limit}&cursor={cursor}{query}"));
        assert_eq!(reply.status, 200, "{reply:?}");
        let page = reply.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        numbers.extend(items.iter().map(|number| number.as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return numbers,
        }
    }
}

fn ask(door: &Door) {
    let functions = door.get("/v1/functions").json();
    assert_eq!(functions[0]["name"], "numbers");
    let kinds: Vec<_> =
        functions[0]["topics"].as_array().unwrap().iter().map(|of| (&of["name"], &of["kind"])).collect();
    assert_eq!(json!(kinds), json!([["all", "list"], ["count", "state"], ["refuse", "order"], ["remove", "order"]]));

    // Every one once, in the order of workers and places.
    let all = pages(door, "", 1000);
    let expected = |worker: u64| (0..ENTRIES as u64).map(move |at| 2 * at + worker);
    assert!(all.iter().copied().eq(expected(0).chain(expected(1))), "{} numbers", all.len());
    let few = pages(door, "&divisor=100003", 3);
    assert!(
        few.iter().copied().eq((0..10)
            .map(|n| n * 100_003)
            .filter(|n| n % 2 == 0)
            .chain((0..10).map(|n| n * 100_003).filter(|n| n % 2 == 1))),
        "{few:?}"
    );

    assert_eq!(door.get("/v1/functions/numbers/count").json(), json!([ENTRIES, ENTRIES]));
    for (method, target, body, status, part) in [
        ("GET", "/v1/functions/numbers/all?divisor=x", "", 400, "divisor: invalid digit"),
        ("GET", "/v1/functions/numbers/all?bogus=1", "", 400, "unknown field `bogus`, expected `divisor`"),
        ("GET", "/v1/functions/numbers/all?cursor=7", "", 400, "the cursor is none that was given out"),
        ("GET", "/v1/functions/numbers/all?limit=1001", "", 400, "limit: 1001 is not from 1 to 1000"),
        ("GET", "/v1/functions/numbers/nothing", "", 404, "numbers has no topic \\\"nothing\\\" (it has: all, count,"),
        ("GET", "/v1/functions/nobody/all", "", 404, "there is no function \\\"nobody\\\" in the chain"),
        ("POST", "/v1/functions/numbers/all", "", 405, "takes GET, HEAD"),
        ("GET", "/v1/functions/numbers/remove", "", 405, "takes POST"),
        ("POST", "/v1/functions/numbers/refuse", "{}", 409, "it cannot be done"),
    ] {
        let reply = door.ask(method, target, body);
        assert!(reply.status == status && reply.body.contains(part), "{method} {target}: {reply:?}");
    }
    let removed = door.post("/v1/functions/numbers/remove", "{\"divisor\": 3}").json();
    assert_eq!(removed, json!({"done": (2 * ENTRIES).div_ceil(3), "complete": true}));
    assert_eq!(pages(door, "&divisor=3", 1000), [0_u64; 0]);

    let stats = door.get("/v1/stats").json();
    assert_eq!(stats["gauges"], json!([{"function": "numbers", "name": "left", "value": 3}]));
    let metrics = door.get("/metrics").body;
    assert!(metrics.contains("nf_function_value{function=\"numbers\",name=\"left\"} 3\n"), "{metrics}");
    let of_worker = |worker: usize| {
        let (entries, worker) = (10 * (worker + 1), Some(worker));
        json!({"function": "numbers", "table": "numbers", "worker": worker, "entries": entries, "limit": 100})
    };
    assert_eq!(json!(stats["tables"].as_array().unwrap()[..2]), json!([of_worker(0), of_worker(1)]));
    let pool = &stats["tables"][2];
    assert_eq!((&pool["function"], &pool["table"], &pool["worker"]), (&json!("(pool)"), &json!("mbufs"), &json!(null)));
    assert!(pool["entries"].as_u64() > Some(0) && pool["limit"].as_u64() > pool["entries"].as_u64(), "{pool}");
    assert_eq!(stats["tables"].as_array().unwrap().len(), 3);
    for (metric, labels, value) in [
        ("nf_table_entries", "function=\"numbers\",table=\"numbers\",worker=\"1\"", 20),
        ("nf_table_entries_limit", "function=\"numbers\",table=\"numbers\",worker=\"1\"", 100),
        ("nf_backend_up", "function=\"numbers\",service=\"s\",backend=\"a\"", 0),
        ("nf_backend_connections", "function=\"numbers\",service=\"s\",backend=\"b\"", 7),
    ] {
        let line = format!("{metric}{{{labels}}} {value}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    let backends = |metric: &str| metrics.lines().filter(|line| line.starts_with(metric)).count();
    assert_eq!((backends("nf_backend_up{"), backends("nf_backend_connections{")), (1, 2));
    assert!(door.get("/healthz").status == 200, "workers went on");
}

#[test]
fn a_million_entries_are_listed_page_by_page_each_once_while_packets_flow() {
    let scratch = Scratch::new("admin-topics");
    let socket = scratch.path("nf.sock");
    let report = on_eal(
        || vec!["net_null0".to_owned(), "net_null1".to_owned()],
        move |eal| {
            let text = "[ports]\ninside = 'net_null0'\noutside = 'net_null1'\ndescriptors = 256\n";
            let file = nf_framework::config::ConfigFile::parse("f.toml", text).unwrap();
            let config: RuntimeConfig = file.framework(&[]).unwrap();
            let config = RuntimeConfig { forwarding: Some(ForwardingKind::Wire), ..config };
            let admin = AdminConfig { socket: Some(socket.clone().into()), ..AdminConfig::default() };
            let admin = AdminDoor::open(&admin, "numbers", "1", None).unwrap();
            let door = Door::at(socket);
            let done = AtomicBool::new(false);
            let runtime = Runtime::new(eal, &config, vec![Loaded::new(Numbers, ())]).unwrap().admin(admin);
            std::thread::scope(|threads| {
                let client = threads.spawn(|| {
                    let result = std::panic::catch_unwind(|| ask(&door));
                    done.store(true, Ordering::Relaxed);
                    result
                });
                let ((), report) = runtime
                    .run(|control| {
                        while !done.load(Ordering::Relaxed) && !control.stopping() {
                            control.serve(Duration::from_millis(20));
                        }
                    })
                    .unwrap();
                client.join().unwrap().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
                report
            })
        },
    );
    assert!(report.balance.received > 0, "{report}");
    assert_eq!((report.balance.dropped, report.balance.unaccounted()), (0, 0), "{report}");
}
