"""Runs set-ups and says what came of them; see scripts/sriov-vm."""

import argparse
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import images
import setups
from lab import Lab, Skipped
from loop import Loop, TooLate
from machine import GuestError
from packets import Wrong

ATTEMPTS = 2
HEADS = ("set-up", "driver", "IOVA", "result", "first packet", "wall", "retries")
LAST_LINES = 35  # of each log of an attempt that has failed


def arguments():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--programs", type=Path)
    parser.add_argument("names", nargs="*")
    return parser.parse_args()


def chosen(options):
    """The set-ups that are asked for: all, the quick ones, or those named."""
    known = {setup.name: setup for setup in setups.SETUPS}
    for name in options.names:
        if name not in known:
            sys.exit(f"there is no set-up {name}: there are {', '.join(known)}")
    if options.names:
        return [known[name] for name in options.names]
    return [setup for setup in setups.SETUPS if setup.quick or not options.quick]


def attempt(setup, tools, made, options):
    """One attempt; what it made is gone afterwards. Its result, or the error with the guest's last words, or why it
    cannot be tried here."""
    with tempfile.TemporaryDirectory(prefix="sriov-vm-") as directory:
        lab = Lab(Loop(), tools, directory, made, options.programs, options.cache, setup.seconds)
        lab.loop.limit(setup.seconds)
        try:
            return setup.attempt(lab), None
        except Skipped as why:
            return None, why
        except (GuestError, TooLate, Wrong) as error:
            return None, f"{error}\n{last_words(directory)}"
        except OSError:
            return None, f"{traceback.format_exc()}\n{last_words(directory)}"


def last_words(directory):
    """What QEMU and the guests have said."""
    lines = []
    for log in sorted(Path(directory).glob("*.log")):
        lines += log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
    return "\n".join(f"    {line}" for line in lines)


def row(cells, widths):
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths)).rstrip()


def print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        print(row(cells, widths))


def try_setup(setup, tools, made, options):
    """A row of the table, how many retries it took, and whether it failed."""
    print(f"==> {setup.name}: {setup.about}", flush=True)
    began = time.monotonic()
    driver, iova, first, retries = "-", "-", "-", 0
    for retries in range(ATTEMPTS):
        result, error = attempt(setup, tools, made, options)
        if not isinstance(error, str):
            break
        print(f"    attempt {retries + 1} of {ATTEMPTS}: {error}", flush=True)
    wall = f"{time.monotonic() - began:.0f} s"
    if result:
        verdict, driver, iova = "ok", result.driver, result.iova
        first = f"{result.first:.1f} s" if result.first else "-"
    else:
        verdict = "failed" if isinstance(error, str) else "skipped"
    print(f"    {verdict} in {wall}" + (f": {error}" if verdict == "skipped" else ""), flush=True)
    return (setup.name, driver, iova, verdict, first, wall, str(retries)), retries, verdict == "failed"


def main():
    options = arguments()
    if options.list:
        for setup in setups.SETUPS:
            print(f"{setup.name:<16} {setup.about}" + (" (--quick)" if setup.quick else ""))
        return
    wanted = chosen(options)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sriov-vm-") as directory:
        tools, made = images.prepare(options, Path(directory))
        print(f"==> images built in {time.monotonic() - began:.0f} s", flush=True)
        outcomes = [try_setup(setup, tools, made, options) for setup in wanted * options.times]
    print()
    rows, retries, failures = zip(*outcomes)
    print_table([HEADS, *rows])
    seconds, failed = time.monotonic() - began, sum(failures)
    print(f"\nin all {seconds:.0f} s, {sum(retries)} retries in {len(rows)} runs, {failed} failed")
    sys.exit(failed > 0)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
