//! A stateful firewall between its inside and its outside port.
#![forbid(unsafe_code)]

use nf_framework::config::ConfigFile;
use nf_framework::{App, Function};
use nfs::firewall::{Described, Firewall};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--explain") {
        return match explain(value_of(&words, "--explain"), value_of(&words, "--config")) {
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
        .about("Lets through what rules accept and what belongs to it; --explain PACKET --config FILE says which rule")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Firewall)
        .run_functions()
}

fn value_of<'a>(words: &'a [String], option: &str) -> Option<&'a str> {
    words.iter().position(|word| word == option).and_then(|at| words.get(at + 1)).map(String::as_str)
}

/// What the rules of a file say of a packet that is described in words; nothing is started.
fn explain(packet: Option<&str>, config: Option<&str>) -> Result<String, Box<dyn std::error::Error>> {
    let (Some(packet), Some(config)) = (packet, config) else {
        return Err("write firewall --explain 'tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside' --config FILE".into());
    };
    let packet: Described = packet.parse()?;
    let file = ConfigFile::read(config)?;
    let policy = Firewall.policy(file.section("firewall")?);
    let policy = policy.map_err(|invalid| file.error_at("firewall", &invalid.key, &invalid.message))?;
    Ok(policy.explain(&packet).to_string())
}
