//! Panics or hangs when it is told to by a packet, to try out what watches over a program: crash reports, a service
//! manager's watchdog, alarms. Everything else passes.
use nf_framework::headers::Headers;
use nf_framework::{App, Context, Mbuf, PacketFunction, Verdict};
use std::time::Duration;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// UDP or TCP port that a packet to makes its worker panic.
    panic_port: u16,
    /// And hang.
    hang_port: u16,
}

struct Misbehave {
    panic_port: u16,
    hang_port: u16,
}

impl PacketFunction for Misbehave {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let Ok(headers) = Headers::parse(packet.data_mut()) else { return Verdict::Next };
        let Some((source, destination)) = headers.transport.ports() else { return Verdict::Next };
        assert!(destination != self.panic_port, "told to, from port {source}");
        if destination == self.hang_port {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Verdict::Next
    }
}

fn main() -> std::process::ExitCode {
    App::new("misbehave")
        .run(|config: &Config, _| Ok(Misbehave { panic_port: config.panic_port, hang_port: config.hang_port }))
}
