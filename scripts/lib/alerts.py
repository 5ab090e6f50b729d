"""What scripts/check-alerts asks: `dashboard` writes the expressions of the dashboard as rules, for promtool to read;
`live PROGRAM DIRECTORY` runs programs and a Prometheus, and looks whether it finds in them what the rules are about."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

DEPLOY = os.path.join(os.path.dirname(__file__), "..", "..", "deploy")
# What Grafana puts in their place.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$function": ".*"}
# Panels about what these programs do not do: reload, and show values of their own.
NOT_HERE = {"annotation Reloads", "Values"}
PATIENCE = 30  # seconds until something that must happen has

PROGRAM = """
forwarding = "router"
packets = 8191
{chain}
[admin]
socket = "{socket}"
listen = "{port}"

[ports]
inside = "net_ring0"
outside = "net_ring1"

[router.interfaces.lan]
side = "inside"
addresses = ["10.0.0.1/24"]

[router.interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24"]
{tables}
"""

FIREWALL_AND_NAT = """
[firewall]
connections = 1024
connections_v6 = 1024

[[firewall.rules]]
name = "out"
from = "inside"
action = "accept"

[nat]
sessions = 1024
subscribers = 256

[[nat.pools]]
addresses = ["198.51.100.8"]
"""

# Nobody has the backend's address.
BALANCER = """
[load-balancer]
connections = 1024
connections_ipv6 = 1024
probe_addresses = ["10.0.0.3"]

[[load-balancer.services]]
name = "web"
address = "203.0.113.80"
protocol = "tcp"
port = 80
mode = "dsr"

[load-balancer.services.health]
kind = "tcp"
interval = 0.5
timeout = 0.5
fall = 1

[[load-balancer.services.backends]]
address = "10.0.0.11"
"""


def read(*path):
    with open(os.path.join(DEPLOY, *path), encoding="utf-8") as file:
        return file.read()


def expressions():
    """Of the dashboard: where each is, and what it is with its variables filled in."""
    dashboard = json.loads(read("grafana", "nf.json"))
    found = [(f"annotation {of['name']}", of["expr"]) for of in dashboard["annotations"]["list"]]
    for panel in dashboard["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", [])]
    for name, value in VARIABLES.items():
        found = [(where, expression.replace(name, value)) for where, expression in found]
    for where, expression in found:
        if "$" in expression:
            sys.exit(f"{where}: a variable that is not known in {expression}")
    return found


def dashboard():
    rules = [{"record": f"dashboard:{n}", "expr": expression} for n, (_, expression) in enumerate(expressions())]
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


class NotYet(Exception):
    """Why a condition does not hold."""


def until(what, condition):
    """Waits until a condition holds; what it returned then."""
    give_up = time.monotonic() + PATIENCE
    why = ""
    while time.monotonic() < give_up:
        try:
            found = condition()
            if found:
                return found
        except (NotYet, OSError) as error:
            why = f" ({error})"
        time.sleep(0.1)
    sys.exit(f"not so after {PATIENCE} s: {what}{why}")


class Live:
    def __init__(self, program, scratch):
        self.program, self.scratch, self.processes = program, scratch, {}

    def path(self, name):
        return os.path.join(self.scratch, name)

    def start(self, name, command):
        with open(self.path(name + ".log"), "w", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.scratch)
        self.processes[name] = process
        return process

    def start_program(self, name, chain, tables):
        port = free_port()
        text = PROGRAM.format(chain=f"chain = {json.dumps(chain)}", socket=self.path(name + ".sock"), port=port, tables=tables)
        with open(self.path(name + ".toml"), "w", encoding="utf-8") as file:
            file.write(text)
        eal = ["--no-pci", "--no-huge", "--no-shconf", "-m", "256", "--vdev=net_ring0", "--vdev=net_ring1"]
        cpu = max(os.sched_getaffinity(0))
        options = ["--config", self.path(name + ".toml"), "--idle", "sleep"]
        self.start(name, [self.program, f"--lcores=0@{cpu}", *eal, "--", *options])
        until(f"{name} is ready", lambda: self.lives(name) and fetch(f"http://127.0.0.1:{port}/readyz"))
        return f"127.0.0.1:{port}"

    def reload(self, name, more):
        """With this behind what the program began with."""
        with open(self.path(name + ".toml"), encoding="utf-8") as file:
            text = file.read()
        with open(self.path(name + ".toml"), "w", encoding="utf-8") as file:
            file.write(text.partition("# more\n")[0] + "# more\n" + more)
        self.processes[name].send_signal(signal.SIGHUP)

    def start_prometheus(self, targets):
        """With the configuration and the rules of deploy/, but everything happens at once."""
        rules = re.sub(r"^( +for:) .*$", r"\1 1s", read("prometheus", "nf.rules.yml"), flags=re.M)
        config = read("prometheus", "prometheus.yml")
        config = re.sub(r"(_interval|_timeout): \d+s", r"\1: 1s", config)
        config = config.replace("- 127.0.0.1:9464 # nat", f"- {targets[0]}\n          - {targets[1]}")
        for name, text in [("nf.rules.yml", rules), ("prometheus.yml", config)]:
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(text)
        self.api = f"http://127.0.0.1:{free_port()}"
        storage = [f"--storage.tsdb.path={self.path('data')}", "--storage.tsdb.retention.time=1h"]
        listen = f"--web.listen-address={self.api.removeprefix('http://')}"
        self.start("prometheus", ["prometheus", f"--config.file={self.path('prometheus.yml')}", *storage, listen])
        until("Prometheus is ready", lambda: self.lives("prometheus") and fetch(f"{self.api}/-/ready"))

    def lives(self, name):
        if self.processes[name].poll() is not None:
            with open(self.path(name + ".log"), encoding="utf-8") as log:
                sys.exit(f"{name} has ended:\n{log.read()[-2000:]}")
        return True

    def ask(self, path, **parameters):
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        return json.loads(fetch(f"{self.api}/api/v1/{path}{query}"))["data"]

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def firing(self):
        alerts = [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(alert["labels"]["alertname"], alert["labels"]["instance"]) for alert in alerts}

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def named_in_rules():
    """Metrics that the rules name, and the values of labels that they look for, as series."""
    text = read("prometheus", "nf.rules.yml")
    code = "\n".join(line for line in text.splitlines() if not line.strip().startswith("#"))
    metrics = set(re.findall(r"\bnf_[a-z_]+", code))
    for label, values in re.findall(r'\{(reason|name)=~?"([^"]+)"', code):
        metric = "nf_dropped_packets_total" if label == "reason" else "nf_function_own_total"
        for value in values.split("|"):
            metrics.add(f'{metric}{{{label}="{value}"}}')
    return metrics


def live(program, scratch):
    run = Live(program, scratch)
    try:
        office = run.start_program("office", ["firewall", "nat"], FIREWALL_AND_NAT)
        balancer = run.start_program("balancer", ["load-balancer"], BALANCER)
        for target in [office, balancer]:
            metrics = fetch(f"http://{target}/metrics")
            subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True, check=True)
        print("promtool finds nothing wrong with the metrics of both")
        run.start_prometheus([office, balancer])

        def up():
            found = {of["labels"]["instance"]: of["health"] for of in run.ask("targets", state="active")["activeTargets"]}
            return found == {office: "up", balancer: "up"}

        until("both targets are up", up)
        print("both targets are up")

        def rules():
            groups = run.ask("rules")["groups"]
            found = [rule for group in groups for rule in group["rules"]]
            for rule in found:
                if rule["health"] == "err":
                    sys.exit(f"rule {rule['name']}: {rule['lastError']}")
            return found if found and all(rule["health"] == "ok" for rule in found) else None

        there = len(until("all rules have been evaluated", rules))
        written = len(re.findall(r"^ +- (?:alert|record): ", read("prometheus", "nf.rules.yml"), flags=re.M))
        if there != written:
            sys.exit(f"{written} rules are written, and {there} are loaded")
        print(f"all {there} rules are loaded, and evaluated without an error")

        names = named_in_rules()
        missing = {name for name in names if not run.query(f"last_over_time({name}[1m])")}
        if missing:
            sys.exit(f"the rules name what neither program has: {', '.join(sorted(missing))}")
        print(f"the programs have all {len(names)} metrics, reasons and counters that the rules name")

        def answered():
            """A rate takes a moment."""
            empty = {where for where, expression in expressions() if not run.query(expression)} - NOT_HERE
            if empty:
                raise NotYet(", ".join(sorted(empty)))
            return True

        until("each expression of the dashboard has series", answered)
        print(f"all {len(expressions())} expressions of the dashboard are answered, but for {', '.join(sorted(NOT_HERE))}")

        dead = ("NfBackendDown", balancer)
        until("the backend that nobody is has an alert", lambda: dead in run.firing())
        if run.firing() != {dead}:
            sys.exit(f"alerts about nothing: {run.firing() - {dead}}")
        print("NfBackendDown fires for the backend that nobody is, and nothing else does")

        refused = ("NfReloadRefused", office)
        run.reload("office", "[no-such-function]\n")
        until("the reload that was refused has an alert", lambda: refused in run.firing())
        run.reload("office", "")
        until("the alert goes with a reload that is not", lambda: refused not in run.firing())
        print("NfReloadRefused fires for a file that is wrong, and no longer when that is put right")

        run.processes["office"].send_signal(signal.SIGKILL)
        start = time.monotonic()
        until("the program that was killed has an alert", lambda: ("NfDown", office) in run.firing())
        print(f"NfDown fires {time.monotonic() - start:.1f} s after the program was killed")
        if run.firing() - {dead} != {("NfDown", office)}:
            sys.exit(f"alerts about nothing: {run.firing()}")
    finally:
        run.stop()


if __name__ == "__main__":
    if sys.argv[1:] == ["dashboard"]:
        dashboard()
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        live(*sys.argv[2:])
