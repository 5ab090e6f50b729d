//! What the control thread answers those who come by the admin door.

use super::control::Control;
use super::drain::InUse;
use super::reload::{Reload, ReloadError};
use crate::operate::views::{
    BalanceView, ChainRow, DrainView, FunctionView, InterfaceView, NeighbourView, PageView, PortView, ProgramView,
    ReloadView, StatsView, WorkerView,
};
use crate::operate::{
    Answer, Asked, Facts, NeighbourFacts, Page, PoolFacts, ProcessFacts, Reply, Request, shown, text,
};
use crate::registry::TableReport;
use crate::report::Report;
use dpdk_rs::Version;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What somebody at the door wants done with the whole program.
#[derive(Debug)]
#[non_exhaustive]
pub enum AdminOrder {
    /// Its configuration file is to be read again.
    Reload(ReloadOrder),
    /// It is to end when its sessions have, or the time is over. The drain has [begun](Control::begin_drain).
    Drain {
        /// How long it may take; `None` as long as the program's own settings say.
        limit: Option<Duration>,
    },
}

/// Somebody waits for a reload.
#[derive(Debug)]
pub struct ReloadOrder(Asked);

impl ReloadOrder {
    /// Reloads, and tells whoever waits what has become of it.
    pub fn carry_out(self, control: &Control) {
        let answer = control.reload_for();
        self.0.answer(answer);
    }
}

impl Control {
    /// Answers those who come by the program's [door](crate::Runtime::admin), until so much time has gone. Without a
    /// door it sleeps. To be called again and again: who comes meanwhile waits.
    ///
    /// Returns at once what is for the caller to do.
    pub fn serve(&self, time: Duration) -> Option<AdminOrder> {
        let until = Instant::now() + time;
        let Some(inbox) = &self.inbox else {
            std::thread::sleep(time);
            return None;
        };
        loop {
            self.tend_trace();
            let asked = inbox.next(until)?;
            match asked.request {
                Request::Trace(ref trace) => {
                    let trace = trace.clone();
                    self.trace_for(asked, &trace);
                }
                Request::BeginDrops(ref request) => {
                    let answer = self.drops_for(Some(request));
                    asked.answer(answer);
                }
                Request::EndDrops => {
                    let answer = self.drops_for(None);
                    asked.answer(answer);
                }
                Request::Drain { seconds } => {
                    let limit = seconds.map(Duration::from_secs);
                    self.begin_drain_for(asked, limit);
                    return Some(AdminOrder::Drain { limit });
                }
                // Done also if nobody waits for the answer any more: it was asked for.
                Request::Reload => return Some(AdminOrder::Reload(ReloadOrder(asked))),
                ref request if request.is_order() => {
                    let answer = self.look(request);
                    asked.answer(answer);
                }
                _ if !asked.is_wanted() => {}
                _ => {
                    let answer = self.look(&asked.request);
                    asked.answer(answer);
                }
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }

    fn begin_drain_for(&self, asked: Asked, limit: Option<Duration>) {
        if !self.draining.get() {
            log::info!("told to drain by the admin door");
        }
        if let Err(error) = self.begin_drain() {
            log::error!("{error}");
        }
        let InUse { sessions, packets } = self.in_use();
        let seconds = limit.map(|limit| limit.as_secs());
        asked.answer(json(DrainView { draining: true, seconds, sessions, packets }));
    }

    fn reload_for(&self) -> Answer {
        let Some(file) = self.inbox.as_ref().and_then(|inbox| inbox.program.config.as_ref()) else {
            return failure(409, "the program has no configuration file to read again");
        };
        log::info!("told to reload by the admin door");
        match self.reload_from(file) {
            Ok(Reload::Unchanged { generation, warnings }) => {
                json(ReloadView { generation, changes: Vec::new(), warnings })
            }
            Ok(Reload::Changed { generation, changes, warnings }) => {
                let changes = changes.to_string().lines().map(str::to_owned).collect();
                json(ReloadView { generation, changes, warnings })
            }
            Err(error @ ReloadError::Unanswered { .. }) => failure(500, error.to_string()),
            Err(error) => failure(422, error.to_string()),
        }
    }

    /// Looks at what is asked for.
    fn look(&self, request: &Request) -> Answer {
        match request {
            Request::Metrics => self.metrics(),
            Request::Ready => self.readiness(),
            Request::Program => json(self.program_view()),
            Request::Stats => json(self.stats_view()),
            Request::Ports => json(self.port_views(self.report())),
            Request::Workers => json(self.worker_views(&self.report())),
            Request::Chain { by_worker } => json(self.chain_rows(*by_worker)),
            Request::Neighbours(page) => self.neighbour_page(page).map_or_else(refusal, json),
            Request::Routes(page) => self.route_page(page),
            Request::Interfaces => match self.interface_views() {
                Some(views) => json(views),
                None => no_router(),
            },
            Request::Functions => json(self.topics()),
            Request::Topic { function, topic, arguments, page } => {
                self.topic((function, topic), arguments, page.as_ref())
            }
            Request::Reload
            | Request::Drain { .. }
            | Request::Trace(_)
            | Request::BeginDrops(_)
            | Request::EndDrops => failure(500, "this is an order"),
        }
    }

    fn readiness(&self) -> Answer {
        let down: Vec<String> =
            self.report().ports.into_iter().filter(|port| port.down).map(|port| port.name).collect();
        let why = if self.stopping() {
            "the program is stopping".to_owned()
        } else if self.draining.get() {
            "the program is being drained".to_owned()
        } else if !down.is_empty() {
            format!("not up: {}", down.join(", "))
        } else if self.ready() {
            return Box::new(|| Reply::text(200, "ready"));
        } else {
            "the program is starting".to_owned()
        };
        Box::new(move || Reply::text(503, &why))
    }

    fn uptime(&self) -> Duration {
        self.inbox.as_ref().map_or(Duration::ZERO, |inbox| inbox.started.elapsed())
    }

    fn program_view(&self) -> ProgramView {
        let program = self.inbox.as_ref().map(|inbox| &inbox.program);
        ProgramView {
            name: program.map_or_else(String::new, |program| program.name.clone()),
            version: program.map_or_else(String::new, |program| program.version.clone()),
            dpdk: Version::loaded().to_string(),
            pid: std::process::id(),
            uptime_seconds: self.uptime().as_secs_f64(),
            generation: self.generation(),
            workers: self.workers(),
            ready: self.ready(),
            draining: self.draining.get(),
            config: program.and_then(|program| shown(program.config.as_ref())),
        }
    }

    fn stats_view(&self) -> StatsView {
        let report = self.report();
        StatsView {
            functions: report.functions.iter().map(FunctionView::new).collect(),
            drops: report.drops.clone(),
            counters: report.counters.clone(),
            gauges: report.gauges.clone(),
            tables: self.all_tables(&report),
            workers: self.worker_views(&report),
            handed_over: report.handed_over,
            cycles_per_second: report.cycles_per_second,
            balance: BalanceView::new(&report),
            generation: report.generation,
            ports: self.port_views(report),
        }
    }

    /// Those of each worker, and what all share.
    fn all_tables(&self, report: &Report) -> Vec<TableReport> {
        let shared = |function: &str, table: &str, entries, limit| {
            let (function, table) = (function.to_owned(), table.to_owned());
            TableReport { function, table, worker: None, entries, limit }
        };
        let neighbours = self.neighbour_facts().map(|of| {
            let entries = of.states.iter().map(|(_, count)| count).sum();
            shared("(router)", "neighbours", entries, of.limit)
        });
        let pool = self.pool_facts().map(|pool| {
            let in_use = pool.packets.saturating_sub(pool.available);
            shared("(pool)", "mbufs", in_use, pool.packets)
        });
        report.tables.iter().cloned().chain(neighbours).chain(pool).collect()
    }

    fn pool_facts(&self) -> Option<PoolFacts> {
        let pool = &self.setups.first()?.pool;
        let (packets, available) = (pool.config().size.into(), pool.available().into());
        Some(PoolFacts { name: pool.name().to_owned(), packets, available })
    }

    fn neighbour_facts(&self) -> Option<NeighbourFacts> {
        let table = self.neighbours()?;
        let limit = self.config.router.as_ref()?.neighbours.capacity.into();
        Some(NeighbourFacts { counters: table.counters(), states: table.count_by_state(), limit })
    }

    fn port_views(&self, report: Report) -> Vec<PortView> {
        let ports = self.ports.iter().zip(report.ports).enumerate();
        ports.map(|(index, (port, report))| PortView::new(port, self.config.side_of(index), report)).collect()
    }

    fn worker_views(&self, report: &Report) -> Vec<WorkerView> {
        let lcore = |worker: usize| self.setups.get(worker).and_then(|setup| setup.lcore);
        let workers = report.workers.iter().enumerate();
        workers.map(|(worker, counts)| WorkerView::new(worker, lcore(worker), *counts)).collect()
    }

    fn chain_rows(&self, by_worker: bool) -> Vec<ChainRow> {
        if !by_worker {
            return ChainRow::of(&self.report(), None);
        }
        let workers = 0..self.workers();
        workers.flat_map(|worker| ChainRow::of(&self.shared.report_of(worker), Some(worker))).collect()
    }

    fn metrics(&self) -> Answer {
        let report = self.report();
        let program = self.program_view();
        let in_force = self.in_force.borrow();
        let backends =
            in_force.iter().flat_map(|of| of.backends().into_iter().map(|one| (of.function.name().to_owned(), one)));
        let mut facts = Facts {
            program: program.name,
            version: program.version,
            dpdk: program.dpdk,
            uptime: self.uptime(),
            generation: program.generation,
            reloads: self.reloads.get(),
            cycles_per_second: report.cycles_per_second,
            ready: program.ready,
            draining: program.draining,
            workers: self.worker_views(&report),
            functions: report.functions.iter().map(FunctionView::new).collect(),
            drops: self.shared.drops(),
            counters: report.counters.clone(),
            gauges: report.gauges.clone(),
            tables: report.tables.clone(),
            backends: backends.collect(),
            balance: report.balance,
            parts: report.parts().into_iter().map(|(name, work)| (name.to_owned(), work)).collect(),
            pool: self.pool_facts(),
            neighbours: self.neighbour_facts(),
            ports: self.port_views(report),
            process: ProcessFacts::default(),
        };
        Box::new(move || {
            facts.process = ProcessFacts::now();
            Reply::metrics(text(&facts))
        })
    }

    fn neighbour_page(&self, page: &Page) -> Result<PageView<NeighbourView>, Reply> {
        let from = page.number()?;
        let (Some(routing), Some(table)) = (&self.routing, self.neighbours()) else {
            return Err(Reply::not_found(NO_ROUTER));
        };
        let routing = routing.borrow();
        let (mut items, mut next) = (Vec::new(), None);
        for (slot, neighbour) in table.list_from(from) {
            if items.len() == page.limit {
                next = Some(slot.to_string());
                break;
            }
            items.push(NeighbourView {
                interface: routing.interface(neighbour.interface).unwrap_or_default(),
                address: neighbour.address,
                mac: neighbour.mac.map(|mac| mac.to_string()),
                state: neighbour.state.name(),
            });
        }
        Ok(PageView { items, next })
    }

    fn route_page(&self, page: &Page) -> Answer {
        let Some(routing) = &self.routing else { return no_router() };
        match page.number() {
            Ok(from) => json(routing.borrow().route_page(from, page.limit)),
            Err(reply) => refusal(reply),
        }
    }

    fn interface_views(&self) -> Option<Vec<InterfaceView>> {
        let names = self.ports.iter().map(|port| port.name().to_owned()).collect::<Vec<_>>();
        Some(self.routing.as_ref()?.borrow().interface_views(&names))
    }
}

const NO_ROUTER: &str = "this program has no router (forwarding = \"router\" makes one)";

fn no_router() -> Answer {
    failure(404, NO_ROUTER)
}

/// What is to be written as JSON, by whoever asked.
pub(super) fn json(value: impl Serialize + Send + 'static) -> Answer {
    Box::new(move || Reply::json(&value))
}

pub(super) fn failure(status: u16, sentence: impl Into<String>) -> Answer {
    let sentence = sentence.into();
    Box::new(move || Reply::failure(status, &sentence))
}

fn refusal(reply: Reply) -> Answer {
    Box::new(move || reply)
}
