//! A program that is drained: unready, no new sessions, and the end when none is left.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use dpdk_rs::Eal;
use nf_framework::config::ConfigFile;
use nf_framework::{
    Budget, Context, Control, Drained, DropReason, Function, InUse, Invalid, Loaded, Mbuf, PacketFunction, Report,
    Runtime, RuntimeConfig, SetupError, Verdict, WorkerSetup,
};
use std::sync::Arc;
use std::time::Duration;

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(|| ["net_null0", "net_null1"].map(str::to_owned).to_vec(), test)
}

fn null() -> RuntimeConfig {
    let text = "forwarding = 'wire'\npackets = 4095\n[ports]\ninside = 'net_null0'\noutside = 'net_null1'\n\
                descriptors = 256\n";
    ConfigFile::parse("f.toml", text).unwrap().framework(&[]).unwrap()
}

/// Every packet begins a session, up to so many; while it drains one ends at each tick.
struct Sessions {
    most: u64,
    open: u64,
    /// Of those that stay.
    stubborn: u64,
}

impl PacketFunction for Sessions {
    fn packet(&mut self, _: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if cx.draining() {
            return Verdict::Drop(DropReason::DRAINING);
        }
        self.open = (self.open + 1).min(self.most);
        Verdict::Next
    }

    fn tick(&mut self, cx: &mut Context<'_>, _: Budget) {
        if cx.draining() && self.open > self.stubborn {
            self.open -= 1;
        }
    }

    fn sessions(&self) -> u64 {
        self.open
    }
}

/// So many sessions on each worker, so many of which stay on the second one.
struct SessionsControl(u64, u64);

impl Function for SessionsControl {
    type Config = ();
    type Policy = ();
    type Instance = Sessions;

    fn name(&self) -> &str {
        "sessions"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Sessions, SetupError> {
        let stubborn = if worker.index() == 1 { self.1 } else { 0 };
        Ok(Sessions { most: self.0, open: 0, stubborn })
    }

    fn adopt(_: &mut Sessions, _: Arc<()>) {}
}

/// Drains a program once it has all of its sessions.
fn drain(eal: &Eal, sessions: u64, stubborn: u64, limit: Duration) -> (Drained, Report) {
    let functions = vec![Loaded::new(SessionsControl(sessions, stubborn), ())];
    let control = |control: &Control| {
        assert!(control.ready());
        while control.in_use().sessions < 2 * sessions {
            assert!(!control.stopping());
            std::thread::yield_now();
        }
        assert_eq!(control.report().functions[0].sessions, 2 * sessions);
        assert_eq!(control.report().dropped("draining"), 0);
        let drained = control.drain(limit).unwrap();
        assert!(!control.ready() && !control.stopping());
        drained
    };
    let (drained, report) = Runtime::new(eal, &null(), functions).unwrap().run(control).unwrap();
    assert_eq!(report.balance.unaccounted(), 0, "{report}");
    (drained, report)
}

#[test]
fn it_ends_when_the_last_session_has_ended_and_begins_none() {
    on_eal(|eal| {
        let (drained, report) = drain(eal, 500, 0, Duration::from_secs(60));
        assert!(matches!(drained, Drained::Empty(_)), "{drained:?}");
        assert_eq!(report.functions[0].sessions, 0);
        assert!(report.dropped("draining") > 0, "{report}");
    });
}

#[test]
fn a_time_limit_ends_it_and_says_what_is_left() {
    on_eal(|eal| {
        for (sessions, stubborn, text) in [(20, 17, "17 sessions are"), (1, 1, "1 session is")] {
            let (drained, report) = drain(eal, sessions, stubborn, Duration::from_millis(300));
            let left = InUse { sessions: stubborn, packets: 0 };
            assert_eq!(drained, Drained::TimeLimit(left));
            assert_eq!((left.to_string().as_str(), report.functions[0].sessions), (text, stubborn));
        }
    });
}

#[test]
fn what_is_left_is_said_in_words() {
    for (sessions, packets, expected) in [
        (2, 0, "2 sessions are"),
        (0, 1, "1 packet is"),
        (1, 1, "1 session and 1 packet are"),
        (0, 0, "0 sessions are"),
    ] {
        assert_eq!(InUse { sessions, packets }.to_string(), expected);
    }
}

/// Panics on one worker when it drains.
struct Bomb;

impl PacketFunction for Bomb {
    fn packet(&mut self, _: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        assert!(!cx.draining(), "on purpose");
        Verdict::Next
    }

    fn sessions(&self) -> u64 {
        1
    }
}

impl Function for Bomb {
    type Config = ();
    type Policy = ();
    type Instance = Self;

    fn name(&self) -> &str {
        "bomb"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, _: &mut WorkerSetup) -> Result<Self, SetupError> {
        Ok(Self)
    }

    fn adopt(_: &mut Self, _: Arc<()>) {}
}

#[test]
fn a_worker_that_ends_meanwhile_ends_it() {
    on_eal(|eal| {
        let result = Runtime::new(eal, &null(), vec![Loaded::new(Bomb, ())]).unwrap().run(|control| {
            // Whether it ends before or after it has answered.
            match control.drain(Duration::from_secs(60)) {
                Ok(Drained::Stopped(left)) => assert_eq!(left.sessions, 2),
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(error.to_string().contains("has not answered"), "{error}"),
            }
            assert!(!control.ready());
        });
        assert!(result.unwrap_err().to_string().ends_with("panicked: on purpose"));
    });
}
