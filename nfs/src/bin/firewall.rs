//! A stateful firewall between its inside and its outside port.
#![forbid(unsafe_code)]

use nf_framework::config::ConfigFile;
use nf_framework::{App, Function, Prefix};
use nfs::firewall::{Described, Firewall};
use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

/// What is asked of the rules, and not of a running firewall.
#[derive(clap::Args)]
struct Explain {
    /// Say which rule decides about a packet, such as "tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside", or about each
    /// of a capture file (pcap or pcapng), and start nothing
    #[arg(long, value_name = "PACKET|FILE")]
    explain: Option<String>,

    /// With --explain, and with --replay of one capture: what these prefixes send comes from inside; what private
    /// addresses send, unless given
    #[arg(long, value_name = "PREFIX,PREFIX", value_delimiter = ',')]
    inside: Vec<Prefix>,
}

fn main() -> ExitCode {
    App::new("firewall")
        .about("Lets through what rules accept and what belongs to it; --explain says which rule that is")
        .version(env!("CARGO_PKG_VERSION"))
        .function(Firewall)
        .answering(explain)
        .run_functions()
}

/// What the rules of a file say of a packet that is described in words, or of those in a capture file.
fn explain(Explain { explain, inside }: &Explain, file: &ConfigFile) -> Result<Option<String>, Box<dyn Error>> {
    let Some(packet) = explain else { return Ok(None) };
    let policy = Firewall.policy(file.section("firewall")?);
    let policy = policy.map_err(|invalid| file.error_at("firewall", &invalid.key, &invalid.message))?;
    let is_described = packet.split_whitespace().nth(1).is_some();
    if is_described && !Path::new(packet).is_file() {
        let described = packet.parse::<Described>()?.seen_from(inside);
        let taken = described.taken_from().map(|taken| taken + "\n");
        return Ok(Some(taken.unwrap_or_default() + &policy.explain(&described).to_string()));
    }
    let bytes = std::fs::read(packet).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!(
            "{packet}: no such file, and no packet (write, for example, \"tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside\")"
        ),
        ErrorKind::IsADirectory => format!("{packet}: this is a directory (name the capture file in it)"),
        _ => format!("{packet}: {error}"),
    })?;
    let explained = policy.explain_capture(&bytes, inside).map_err(|error| format!("{packet}: {error}"))?;
    Ok(Some(explained.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}
