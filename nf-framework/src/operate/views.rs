//! What the door shows of a program, as it is written in JSON.

use crate::port_link::link_of;
use crate::registry::TableReport;
use crate::report::{Balance, CounterReport, DropReport, FunctionReport, PortReport, Report, WorkReport, WorkerReport};
use dpdk_rs::{Lcore, Port, PortStats};
use serde::Serialize;
use std::net::IpAddr;

/// `/v1/program`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProgramView {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) dpdk: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: f64,
    pub(crate) generation: u64,
    pub(crate) workers: usize,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    pub(crate) config: Option<String>,
}

/// `/v1/stats`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatsView {
    pub(crate) ports: Vec<PortView>,
    pub(crate) functions: Vec<FunctionView>,
    /// Those that occurred.
    pub(crate) drops: Vec<DropReport>,
    pub(crate) counters: Vec<CounterReport>,
    pub(crate) gauges: Vec<CounterReport>,
    /// All that can be full: the functions' tables, the neighbours and the packets' pool too.
    pub(crate) tables: Vec<TableReport>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) handed_over: u64,
    /// Of the time-stamp counter.
    pub(crate) cycles_per_second: u64,
    pub(crate) balance: BalanceView,
    pub(crate) generation: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct BalanceView {
    #[serde(flatten)]
    pub(crate) balance: Balance,
    /// Fewer packets went than came, if positive; while packets move it is seldom 0.
    pub(crate) unaccounted: i64,
}

/// `/v1/ports`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PortView {
    pub(crate) name: String,
    /// `inside` or `outside`; `None` for the only port, and for one that leads to the kernel.
    pub(crate) side: Option<&'static str>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) misled: u64,
    pub(crate) link_downs: u64,
    pub(crate) resets: u64,
    pub(crate) removals: u64,
    pub(crate) down: bool,
    /// `None` if nobody can know.
    pub(crate) link: Option<LinkView>,
    pub(crate) mac: Option<String>,
    pub(crate) driver: String,
    pub(crate) device: Option<DeviceView>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct LinkView {
    pub(crate) up: bool,
    pub(crate) speed_mbps: Option<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceView {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_missed: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_errors: u64,
    pub(crate) rx_no_mbuf: u64,
}

impl PortView {
    /// Asks the device too, as far as it is there.
    pub(crate) fn new(port: &Port, side: Option<&'static str>, report: PortReport) -> Self {
        let PortReport { name, received, sent, misled, device, link_downs, resets, removals, down } = report;
        let link = link_of(port).filter(|_| !down);
        let mac = port.info().ok().map(|info| crate::headers::MacAddress(info.mac_address).to_string());
        Self {
            name,
            side,
            received,
            sent,
            misled,
            link_downs,
            resets,
            removals,
            down,
            link: link.map(|link| LinkView { up: link.up, speed_mbps: link.speed }),
            mac,
            driver: port.driver().to_owned(),
            device: device.as_ref().map(DeviceView::new),
        }
    }
}

impl DeviceView {
    fn new(stats: &PortStats) -> Self {
        Self {
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_no_mbuf: stats.rx_no_mbuf,
        }
    }
}

/// One function of `/v1/stats`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FunctionView {
    pub(crate) name: String,
    pub(crate) calls: u64,
    pub(crate) cycles: u64,
    #[serde(flatten)]
    pub(crate) fate: FateView,
}

impl FunctionView {
    pub(crate) fn new(report: &FunctionReport) -> Self {
        let FunctionReport { calls, cycles, .. } = *report;
        Self { name: report.name.clone(), calls, cycles, fate: FateView::new(report) }
    }
}

/// `/v1/workers`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkerView {
    pub(crate) worker: usize,
    pub(crate) lcore: Option<u32>,
    /// `None` where the lcore may use several.
    pub(crate) cpu: Option<u32>,
    #[serde(flatten)]
    pub(crate) counts: WorkerReport,
    /// The share of its time since the start in which it had no packets, 0 to 1.
    pub(crate) idle_share: f64,
}

impl WorkerView {
    #[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
    pub(crate) fn new(worker: usize, lcore: Option<Lcore>, counts: WorkerReport) -> Self {
        let (idle, all) = (counts.idle_cycles, counts.idle_cycles.saturating_add(counts.busy_cycles));
        let idle_share = if all == 0 { 0.0 } else { idle as f64 / all as f64 };
        Self { worker, lcore: lcore.map(Lcore::id), cpu: lcore.and_then(Lcore::cpu), counts, idle_share }
    }
}

/// `/v1/chain`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChainRow {
    /// Its name; in parentheses what is no function.
    pub(crate) function: String,
    /// Unless it is of all workers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<usize>,
    #[serde(flatten)]
    pub(crate) work: WorkReport,
    pub(crate) packets_per_call: Option<f64>,
    pub(crate) cycles_per_packet: Option<f64>,
    /// What has become of the packets, of a function.
    #[serde(flatten)]
    pub(crate) of_function: Option<FateView>,
}

/// What has become of a function's packets.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct FateView {
    pub(crate) seen: u64,
    pub(crate) passed: u64,
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
    pub(crate) taken: u64,
    pub(crate) held: u64,
    pub(crate) sessions: u64,
}

impl FateView {
    fn new(report: &FunctionReport) -> Self {
        let FunctionReport { seen, sent, dropped, taken, held, sessions, .. } = *report;
        Self { seen, passed: report.passed(), sent, dropped, taken, held, sessions }
    }
}

impl ChainRow {
    /// The parts of the work, of all workers or of one.
    pub(crate) fn of(report: &Report, worker: Option<usize>) -> Vec<Self> {
        let row = |(name, work): (&str, WorkReport)| Self {
            function: name.to_owned(),
            worker,
            work,
            packets_per_call: work.packets_per_call(),
            cycles_per_packet: work.cycles_per_packet(),
            of_function: report.functions.iter().find(|function| function.name == name).map(FateView::new),
        };
        report.parts().into_iter().map(row).collect()
    }
}

/// Some of a long list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PageView<T> {
    pub(crate) items: Vec<T>,
    /// Where the next page begins; `None` after the last one.
    pub(crate) next: Option<String>,
}

/// `/v1/neighbours`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NeighbourView {
    pub(crate) interface: String,
    pub(crate) address: IpAddr,
    pub(crate) mac: Option<String>,
    /// As RFC 4861 calls it, in capitals, as `ip neighbour` does.
    pub(crate) state: &'static str,
}

/// `/v1/routes`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RouteView {
    pub(crate) prefix: String,
    /// `via`, `connected`, `own`, `function`, `blackhole`, `unreachable` or `prohibited`.
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<String>,
    /// `file`, `interface`, `function` or `kernel`.
    pub(crate) origin: &'static str,
}

/// `/v1/interfaces`
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InterfaceView {
    pub(crate) name: String,
    pub(crate) side: &'static str,
    pub(crate) port: String,
    pub(crate) vlan: Option<u16>,
    pub(crate) mac: String,
    pub(crate) mtu: u16,
    pub(crate) addresses: Vec<String>,
    /// The port with the kernel at its other end.
    pub(crate) host: Option<String>,
}

/// What has been done with a function's entries.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SweepView {
    /// How many entries it was done with.
    pub(crate) done: usize,
    /// Whether all were looked at; if not, the order is to be given again.
    pub(crate) complete: bool,
}

/// What a reload has done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReloadView {
    pub(crate) generation: u64,
    /// As the log has them.
    pub(crate) changes: Vec<String>,
    /// The same.
    pub(crate) warnings: Vec<String>,
}

/// What a drain waits for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DrainView {
    pub(crate) draining: bool,
    /// How long it is waited for; `None` as long as it takes.
    pub(crate) seconds: Option<u64>,
    pub(crate) sessions: u64,
    pub(crate) packets: u64,
}

impl BalanceView {
    pub(crate) fn new(report: &Report) -> Self {
        let unaccounted = report.balance.unaccounted();
        let most = if unaccounted < 0 { i64::MIN } else { i64::MAX };
        Self { balance: report.balance, unaccounted: i64::try_from(unaccounted).unwrap_or(most) }
    }
}
