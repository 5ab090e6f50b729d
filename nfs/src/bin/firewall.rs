//! A stateful firewall between its inside and its outside port.
#![forbid(unsafe_code)]

use nf_framework::config::ConfigFile;
use nf_framework::{App, AskedPackets, Function, Prefix};
use nfs::firewall::Firewall;
use std::error::Error;
use std::fs::File;
use std::process::ExitCode;

const EXPLAIN_HELP: &str = "\
--explain needs as little, and answers from the rules of [firewall] alone: no router, no other function of the chain, no
DPDK (nf-chain --explain follows a packet through all of them). Of a packet in words, such as
  udp 10.0.0.5:5000 > 203.0.113.9:53      (and behind it: from inside|outside, vlan 10, dscp ef, fragment)
  tcp 10.0.0.5:4321 > 203.0.113.9:443 flags syn
  icmp 10.0.0.5 > 203.0.113.9 echo-request
it says which rule decides and why none before it does, as if an empty firewall saw it; of each packet of a capture also
which connection it belongs to.";

fn main() -> ExitCode {
    App::new("firewall")
        .about("Lets through what rules accept and what belongs to it; --explain says which rule that is")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Firewall)
        .explaining(EXPLAIN_HELP, explain)
        .run_functions()
}

/// What the rules of a file say. It is asked often and of captures that cut packets off, so it takes no DPDK.
fn explain(file: &ConfigFile, packets: &AskedPackets, inside: &[Prefix]) -> Result<String, Box<dyn Error>> {
    let policy = Firewall.policy(file.section("firewall")?);
    let policy = policy.map_err(|invalid| file.error_at("firewall", &invalid.key, &invalid.message))?;
    match packets {
        AskedPackets::Described(packet) => {
            let taken = packet.taken_from().map(|taken| taken + "\n");
            Ok(taken.unwrap_or_default() + &policy.explain(packet).to_string())
        }
        AskedPackets::Capture(path) => {
            let capture = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let explained = policy.explain_capture(capture, inside);
            let explained = explained.map_err(|error| format!("{}: {error}", path.display()))?;
            if explained.is_empty() {
                return Ok("there are no packets in the capture".to_owned());
            }
            Ok(explained.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
    }
}
