//! Scripts by which shells complete nf-ctl's arguments.

use super::arguments::Arguments;
use clap::CommandFactory as _;
use clap_complete::Shell;

/// The programs with a socket in one of the directories in which `Whereabouts` looks.
const PROGRAMS: &str =
    r#"-W "$(ls /run/nf "${XDG_RUNTIME_DIR:-/tmp}/nf" "/tmp/nf-${UID}" 2>/dev/null | sed -n 's/\.sock$//p')" --"#;

/// The script for a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "nf-ctl", &mut script);
    let script = String::from_utf8_lossy(&script);
    if shell != Shell::Bash {
        return script.into_owned();
    }
    // clap_complete names what follows a command with a hyphen in two ways (clap-rs/clap#6421), and where it knows no
    // values it offers files.
    let mut script = script.replace("nf__subcmd__ctl", "nf__ctl");
    for option in ["--program", "-p"] {
        let files =
            |what| format!("                {option})\n                    COMPREPLY=($(compgen {what} \"${{cur}}\"))");
        script = script.replace(&files("-f"), &files(PROGRAMS));
    }
    script
}
