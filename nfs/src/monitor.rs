//! Counts what passes, by protocol, and decides nothing. In a chain it shows what comes to
//! its place.

use nf_framework::headers::{Headers, IpProtocol, Network};
use nf_framework::{Context, Counter, Function, Invalid, Mbuf, PacketFunction, SetupError, Verdict, WorkerSetup};
use serde::Deserialize;
use std::sync::Arc;

/// The table `[monitor]`: it has no keys.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The control object.
#[derive(Clone, Copy, Debug)]
pub struct Monitor;

/// Counts on one worker.
#[derive(Debug)]
pub struct Instance {
    arp: Counter,
    ipv4: Counter,
    ipv6: Counter,
    neither: Counter,
    malformed: Counter,
    udp: Counter,
    tcp: Counter,
    icmp: Counter,
    bytes: Counter,
}

impl Function for Monitor {
    type Config = Config;
    type Policy = ();
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "monitor"
    }

    fn policy(&self, _: Config) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        Ok(Instance {
            arp: worker.counter("arp"),
            ipv4: worker.counter("ipv4"),
            ipv6: worker.counter("ipv6"),
            neither: worker.counter("other-ethertype"),
            malformed: worker.counter("malformed"),
            udp: worker.counter("udp"),
            tcp: worker.counter("tcp"),
            icmp: worker.counter("icmp"),
            bytes: worker.counter("bytes"),
        })
    }

    fn adopt(_: &mut Instance, _: Arc<()>) {}
}

impl PacketFunction for Instance {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.bytes.add(packet.len() as u64);
        let Ok(headers) = Headers::parse(packet.data_mut()) else {
            self.malformed.add(1);
            return Verdict::Next;
        };
        let network = match headers.network {
            Network::Arp(_) => &mut self.arp,
            Network::Ipv4 { .. } => &mut self.ipv4,
            Network::Ipv6 { .. } => &mut self.ipv6,
            Network::Other(_) => &mut self.neither,
        };
        network.add(1);
        match headers.transport.protocol() {
            Some(IpProtocol::UDP) => self.udp.add(1),
            Some(IpProtocol::TCP) => self.tcp.add(1),
            Some(IpProtocol::ICMP | IpProtocol::ICMPV6) => self.icmp.add(1),
            _ => {}
        }
        Verdict::Next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::Direction;
    use nf_framework::testing::{Frame, lab};

    #[test]
    fn every_packet_is_counted_under_its_protocols_and_passes() {
        let ipv4 = Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]);
        let frames = [
            ipv4.clone().udp(1000, 53).build(),
            ipv4.clone().tcp(1000, 80).build(),
            ipv4.icmp_echo_request(1, 1).build(),
            Frame::new().ipv6([1; 16], [2; 16]).icmpv6_echo_request(1, 1).build(),
            Frame::new().arp_request([192, 0, 2, 1], [192, 0, 2, 2]).build(),
            Frame::new().ether_type(0x88cc).payload(&[0; 46]).build(),
            vec![0; 5],
        ];
        let (outcome, report) = lab(move |lab| {
            let mut trial = lab.trial(|worker| Function::instance(&Monitor, Arc::new(()), worker).unwrap().into());
            (trial.send(Direction::Outbound, &frames), trial.report())
        });
        assert_eq!(outcome.outside.len(), 7);
        for (name, count) in [
            ("ipv4", 3),
            ("ipv6", 1),
            ("arp", 1),
            ("other-ethertype", 1),
            ("malformed", 1),
            ("udp", 1),
            ("tcp", 1),
            ("icmp", 2),
        ] {
            assert_eq!(report.counter("test", name), Some(count), "{name}");
        }
    }
}
