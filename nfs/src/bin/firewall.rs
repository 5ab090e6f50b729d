//! A stateful firewall between its inside and its outside port.
#![forbid(unsafe_code)]

use nf_framework::config::ConfigFile;
use nf_framework::{App, Function, Prefix};
use nfs::firewall::{Described, Firewall};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--explain") {
        let [packet, config, inside] = ["--explain", "--config", "--inside"].map(|option| value_of(&words, option));
        return match explain(packet, config, inside) {
            Ok(explanation) => {
                println!("{explanation}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        };
    }
    App::new("firewall")
        .about("Lets through what rules accept and what belongs to it; --explain PACKET|FILE.pcap --config FILE says which rule")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Firewall)
        .run_functions()
}

fn value_of<'a>(words: &'a [String], option: &str) -> Option<&'a str> {
    words.iter().position(|word| word == option).and_then(|at| words.get(at + 1)).map(String::as_str)
}

/// What the rules of a file say of a packet that is described in words, or of those in a capture file, of which
/// these prefixes are inside; nothing is started.
fn explain(
    packet: Option<&str>,
    config: Option<&str>,
    inside: Option<&str>,
) -> Result<String, Box<dyn std::error::Error>> {
    let (Some(packet), Some(config)) = (packet, config) else {
        return Err("write firewall --explain 'tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside' --config FILE, or \
                    firewall --explain FILE.pcap --config FILE [--inside PREFIX,PREFIX]"
            .into());
    };
    let file = ConfigFile::read(config)?;
    let policy = Firewall.policy(file.section("firewall")?);
    let policy = policy.map_err(|invalid| file.error_at("firewall", &invalid.key, &invalid.message))?;
    if !Path::new(packet).is_file() {
        return Ok(policy.explain(&packet.parse::<Described>()?).to_string());
    }
    let bytes = std::fs::read(packet).map_err(|error| format!("{packet}: {error}"))?;
    let inside: Vec<Prefix> =
        inside.map_or(Ok(Vec::new()), |list| list.split(',').map(str::parse).collect::<Result<_, _>>())?;
    let explained = policy.explain_capture(&bytes, &inside).map_err(|error| format!("{packet}: {error}"))?;
    Ok(explained.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
