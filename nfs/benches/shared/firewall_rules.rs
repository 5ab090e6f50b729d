//! Rules for a firewall, as many as are wanted, of which the last one accepts what the sources of packets send.

use std::fmt::Write as _;

/// The table `[firewall]` with so many rules, and more keys before them.
///
/// Each rule but the last is about a host of its own in 172.16.0.0/12: a protocol, a port or some ports, and every
/// fourth one a network of sources. So none of them says anything of a packet from 10.0.0.0/8 to 192.0.2.1, which a
/// search has to find out.
pub(crate) fn with_rules(count: u32, keys: &str) -> String {
    let mut text = format!("{keys}\n");
    for number in 0..count.saturating_sub(1) {
        let [_, a, b, c] = (0x0010_0000 | (number * 7) & 0xf_ffff).to_be_bytes();
        let protocol = if number % 3 == 0 { "udp" } else { "tcp" };
        let ports = if number % 8 == 0 {
            format!("\"{0}-{1}\"", number + 1024, number + 1087)
        } else {
            format!("{}", number % 1000 + 1)
        };
        let action = if number % 5 == 0 { "drop" } else { "accept" };
        // Writing to a string does not fail.
        let _ = write!(text, "[[rules]]\nname = \"{number}\"\naction = \"{action}\"\nprotocol = \"{protocol}\"\n");
        let _ = write!(text, "destination = \"172.{a}.{b}.{c}\"\ndestination_ports = {ports}\n");
        if number % 4 == 0 {
            let _ = writeln!(text, "source = \"10.{a}.{b}.0/24\"");
        }
    }
    text.push_str("[[rules]]\nname = \"last\"\nfrom = \"inside\"\nsource = \"10.0.0.0/8\"\naction = \"accept\"\n");
    text
}
