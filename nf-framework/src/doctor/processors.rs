//! The CPUs that workers are to run on: there, near the device, alone, and at full speed.

use super::machine::{listed, number_list};
use super::{Finding, Patient};

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(allowed(patient));
    findings.extend(remote(patient));
    findings.extend(siblings(patient));
    findings.extend(isolation(patient));
    findings.extend(governor(patient));
    findings.extend(steal(patient));
    findings
}

/// What is asked for is there for this process: a container may have fewer.
fn allowed(patient: &Patient) -> Option<Finding> {
    let allowed = number_list(&patient.machine.own_status("Cpus_allowed_list")?);
    let missing: Vec<u32> = patient.request.cpus.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    if missing.is_empty() {
        return None;
    }
    let what = format!("CPU {} is asked for, and this process may run on {} only", listed(&missing), listed(&allowed));
    Some(
        Finding::fault("cpu", "cpu-not-allowed", what)
            .why("A worker cannot start there. Containers and taskset take CPUs away from a process.")
            .mend(format!("-l {}", listed(&allowed))),
    )
}

/// Whether a device is on another NUMA node than its workers.
fn remote(patient: &Patient) -> Vec<Finding> {
    let machine = &patient.machine;
    let node_of = |cpu: u32| {
        let names = machine.names(&format!("sys/devices/system/cpu/cpu{cpu}"));
        names.iter().find_map(|name| name.strip_prefix("node")?.parse::<u32>().ok())
    };
    let mut findings = Vec::new();
    for device in patient.concerned() {
        let Some(node) = device.node else { continue };
        let is_remote = |cpu: &u32| node_of(*cpu).is_some_and(|of_cpu| of_cpu != node);
        let remote: Vec<u32> = patient.request.cpus.iter().copied().filter(is_remote).collect();
        if !remote.is_empty() {
            let near = machine.text(&format!("sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
            let what = format!("it is on NUMA node {node}, CPU {} is not", listed(&remote));
            findings.push(
                Finding::warning("cpu", "numa-remote", what)
                    .on(&device.address)
                    .why("Each packet crosses between the sockets: that costs a good part of the throughput.")
                    .mend(format!("-l with CPUs of {near}")),
            );
        }
    }
    findings
}

/// Whether two workers share a core.
fn siblings(patient: &Patient) -> Option<Finding> {
    let of_core = |cpu: &u32| {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = number_list(&patient.machine.text(&path)?);
        let workers: Vec<u32> = siblings.into_iter().filter(|cpu| patient.request.cpus.contains(cpu)).collect();
        (workers.len() > 1).then_some(workers)
    };
    let shared = patient.request.cpus.iter().find_map(of_core)?;
    let what = format!("the CPUs {} are threads of one core", listed(&shared));
    Some(
        Finding::warning("cpu", "cpu-siblings", what)
            .why("Workers there share the core's units and caches: two of them do little more than one.")
            .mend("-l with one CPU of each core (lscpu -e)"),
    )
}

/// Whether the kernel keeps away from the workers' CPUs.
fn isolation(patient: &Patient) -> Option<Finding> {
    let machine = &patient.machine;
    let file = |name: &str| number_list(&machine.text(&format!("sys/devices/system/cpu/{name}")).unwrap_or_default());
    let argument = |name: &str| {
        let values = machine.kernel_argument(name);
        values.iter().flat_map(|value| if value == "all" { file("possible") } else { number_list(value) }).collect()
    };
    let mut quiet: Vec<u32> = argument("rcu_nocbs");
    let no_tick = file("nohz_full");
    // These CPUs need no rcu_nocbs (kernel-parameters.txt).
    quiet.extend(&no_tick);
    let kept = [("isolcpus", file("isolated")), ("nohz_full", no_tick), ("rcu_nocbs", quiet)];
    let online = file("online");
    if patient.request.cpus.is_empty() {
        if !kept[0].1.is_empty() {
            return Some(Finding::ok("cpu", "cpu-isolation", format!("isolated: {}", listed(&kept[0].1))));
        }
        let example = online.get(1..).filter(|cpus| !cpus.is_empty()).map(listed);
        let finding = Finding::note("cpu", "cpu-not-isolated", "no CPU is kept free of the kernel's other work");
        let finding =
            finding.why("A worker that has to share its CPU now and then stands still, and packets are lost.");
        return Some(match example {
            Some(cpus) => finding.mend(arguments_for(&cpus)),
            None => finding.mend("give the machine a second CPU"),
        });
    }
    // The same CPUs are usually missing in all three.
    let mut lacking: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, cpus) in &kept {
        let missing: Vec<u32> = patient.request.cpus.iter().copied().filter(|cpu| !cpus.contains(cpu)).collect();
        let missing = listed(&missing);
        match lacking.iter_mut().find(|(of, _)| *of == missing) {
            Some((_, names)) => names.push(name),
            None if missing.is_empty() => {}
            None => lacking.push((missing, vec![name])),
        }
    }
    let lacking: Vec<String> =
        lacking.into_iter().map(|(missing, names)| format!("{missing} is not in {}", names.join(", "))).collect();
    let mut cpus = patient.request.cpus.clone();
    if lacking.is_empty() {
        let cpus = listed(&cpus);
        return Some(Finding::ok("cpu", "cpu-isolation", format!("{cpus} isolated, without tick and RCU's callbacks")));
    }
    let what = format!("the kernel does other work on workers' CPUs: {}", lacking.join("; "));
    let finding = Finding::note("cpu", "cpu-not-isolated", what)
        .why("A worker that has to share its CPU now and then stands still, and packets are lost.");
    // The kernel needs one for itself, and that is the first.
    let has_first = cpus.contains(&0);
    cpus.retain(|cpu| *cpu != 0);
    Some(match (has_first, cpus.is_empty()) {
        (false, _) => finding.mend(arguments_for(&listed(&cpus))),
        (true, false) => finding.mend(format!("-l {0}, and {1}", listed(&cpus), arguments_for(&listed(&cpus)))),
        (true, true) => {
            finding.mend("-l with other CPUs than 0, which the kernel needs for itself, and isolcpus for them")
        }
    })
}

fn arguments_for(cpus: &str) -> String {
    format!("the kernel arguments isolcpus=managed_irq,domain,{cpus} nohz_full={cpus} rcu_nocbs={cpus}, then restart")
}

/// Whether CPUs run at full speed. Virtual machines usually have no say in it, and no files.
fn governor(patient: &Patient) -> Option<Finding> {
    let machine = &patient.machine;
    let online = || number_list(&machine.text("sys/devices/system/cpu/online").unwrap_or_default());
    let cpus = if patient.request.cpus.is_empty() { online() } else { patient.request.cpus.clone() };
    let of =
        |cpu: &u32| Some((*cpu, machine.text(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))?));
    let governors: Vec<(u32, String)> = cpus.iter().filter_map(of).collect();
    let slow: Vec<&(u32, String)> = governors.iter().filter(|(_, name)| name != "performance").collect();
    let Some((_, name)) = slow.first() else {
        return (!governors.is_empty()).then(|| Finding::ok("cpu", "cpu-frequency", "governor performance"));
    };
    let numbers: Vec<u32> = slow.iter().map(|(cpu, _)| *cpu).collect();
    Some(
        Finding::warning("cpu", "cpu-governor", format!("CPU {} has the frequency governor {name}", listed(&numbers)))
            .why("It may run below its speed, and needs time to get there: throughput and latency vary.")
            .mend("cpupower frequency-set -g performance")
            .mend("echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"),
    )
}

/// Parts in a hundred of the time that the hypervisor may take before it is worth a word.
const STEAL_PERCENT: u64 = 1;

/// How much of the CPUs' time the hypervisor gave to others, since the start of the machine.
fn steal(patient: &Patient) -> Option<Finding> {
    let stat = patient.machine.text("proc/stat")?;
    let times: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|time| time.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already (proc(5)).
    let (all, stolen) = (times.iter().take(8).sum::<u64>(), *times.get(7)?);
    let percent = stolen.checked_mul(100)?.checked_div(all)?;
    if percent < STEAL_PERCENT || !patient.machine.is_virtual() {
        return None;
    }
    Some(
        Finding::warning("cpu", "cpu-stolen", format!("the hypervisor kept {percent} % of the CPUs' time for others"))
            .why("A worker stands still meanwhile, and packets are lost; no setting in this machine helps.")
            .mend("pin the virtual CPUs to CPUs of their own, on the hypervisor (libvirt: <vcpupin>)"),
    )
}
