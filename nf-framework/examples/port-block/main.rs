//! Drops UDP and TCP packets to the ports on a list, and counts them.
use nf_framework::headers::Headers;
use nf_framework::{App, Context, Counter, DropReason, Mbuf, PacketFunction, Verdict, WorkerSetup};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    blocked: Vec<u16>,
}

struct PortBlock {
    blocked: Vec<bool>,
    hits: Counter,
}

impl PortBlock {
    fn new(config: &Config, worker: &mut WorkerSetup) -> Self {
        let blocked = (0..=u16::MAX).map(|port| config.blocked.contains(&port)).collect();
        Self { blocked, hits: worker.counter("hits") }
    }
}

impl PacketFunction for PortBlock {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let Ok(headers) = Headers::parse(packet.data_mut()) else { return Verdict::Next };
        match headers.transport.ports() {
            Some((_, destination)) if self.blocked[usize::from(destination)] => {
                self.hits.add(1);
                Verdict::Drop(DropReason::POLICY)
            }
            _ => Verdict::Next,
        }
    }
}

fn main() -> std::process::ExitCode {
    App::new("port-block").run(|config: &Config, worker| Ok(PortBlock::new(config, worker)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::testing::{Case, Frame, trial};

    #[test]
    fn only_packets_to_blocked_ports_are_dropped() {
        let frame = |port| Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, port).build();
        trial(
            |worker| PortBlock::new(&Config { blocked: vec![9] }, worker).into(),
            [
                Case::new("a blocked port").outbound(frame(9)).dropped("policy"),
                Case::new("another port").outbound(frame(53)).leaves_unchanged(),
                Case::new("the other way").inbound(frame(9)).dropped("policy"),
            ],
        );
    }
}
