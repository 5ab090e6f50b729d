"""What `--idle sleep` costs and saves beside `--idle spin`: see scripts/idle."""
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time

PROGRAM, CPU, ROUNDS, SECONDS, PACKETS = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
CONFIG = 'forwarding = "wire"\nchain = []\n[ports]\ninside = "net_tap0"\noutside = "net_tap1"\n'
TICKS = os.sysconf("SC_CLK_TCK")
# An ordinary UDP packet; only its number differs.
FRAME = bytes.fromhex("ffffffffffff0200000000010800" "4500002c00000000401100000a0000010a000002" "100010010018" "0000")


def start(directory, idle):
    """Starts the program, and waits until its interfaces are up."""
    config = os.path.join(directory, "idle.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG)
    command = [PROGRAM, "--lcores", f"0@{CPU}", "--no-huge", "--no-shconf", "-m", "128", "--no-pci", "--no-telemetry"]
    command += ["--vdev=net_tap0", "--vdev=net_tap1", "--", "--config", config, "--idle", idle]
    environment = dict(os.environ, RUNTIME_DIRECTORY=directory)
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    said = ""
    while "runs on" not in said:
        line = program.stderr.readline()
        if not line:
            sys.exit(f"the program does not start:\n{said}")
        said += line
    # Nobody else has anything to say on them.
    for interface in ("dtap0", "dtap1"):
        subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1"], check=False)
        subprocess.run(["ip", "link", "set", interface, "up"], check=True)
    return program


def cpu_time(process):
    """Seconds on a CPU of each of its threads."""
    times = {}
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/schedstat", encoding="ascii") as file:
            times[thread] = int(file.read().split()[0]) / 1e9
    return times


def share(process):
    """Of a CPU that the worker takes, and that all other threads take together."""
    before, begun = cpu_time(process), time.monotonic()
    time.sleep(SECONDS)
    after, elapsed = cpu_time(process), time.monotonic() - begun
    used = {thread: (after[thread] - before.get(thread, 0)) / elapsed for thread in after}
    worker = used.pop(str(process))
    return worker, sum(used.values())


def delays():
    """Microseconds that packets take, each sent when nothing had come for 50 ms."""
    to, back = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) for _ in range(2))
    to.bind(("dtap0", 0x0800))
    back.bind(("dtap1", 0x0800))
    # It looks all the time too: what its own CPU takes to wake up is not the worker's.
    back.setblocking(False)
    taken = []
    for number in range(PACKETS):
        # Not in step with anything of the worker's.
        time.sleep(0.05 + (number * 37 % 100) / 100_000)
        frame = FRAME + number.to_bytes(16, "big")
        begun = time.perf_counter_ns()
        to.send(frame)
        while True:
            try:
                if back.recv(2000) == frame:
                    break
            except BlockingIOError:
                if time.perf_counter_ns() - begun > 10**9:
                    sys.exit("a packet was lost")
        taken.append((time.perf_counter_ns() - begun) / 1000)
    return taken


def main():
    """Prints medians over rounds in which both ways take turns."""
    directory = os.environ["IDLE_SCRATCH"]
    os.sched_setaffinity(0, set(os.sched_getaffinity(0)) - {int(CPU)} or {int(CPU)})
    found = {"spin": [], "sleep": []}
    for _ in range(ROUNDS):
        for idle, rows in found.items():
            program = start(directory, idle)
            threading.Thread(target=program.stderr.read, daemon=True).start()
            worker, others = share(program.pid)
            taken = sorted(delays())
            program.terminate()
            program.wait()
            rows.append((worker, others, statistics.median(taken), taken[len(taken) * 99 // 100]))
            print(f"{idle:5}  worker {worker:6.1%}  others {others:5.1%}  delay {rows[-1][2]:6.0f} us at the median, "
                  f"{rows[-1][3]:6.0f} us for 99 of 100", flush=True)
    median = {idle: [statistics.median(column) for column in zip(*rows)] for idle, rows in found.items()}
    later = median["sleep"][2] - median["spin"][2]
    print(json.dumps({idle: [round(value, 4) for value in row] for idle, row in median.items()}))
    print(f"medians of {ROUNDS} rounds: an idle worker that sleeps takes {median['sleep'][0]:.1%} of a CPU, and the first "
          f"packet comes {later:.0f} us later than where it spins")


main()
