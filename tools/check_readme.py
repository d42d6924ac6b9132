#!/usr/bin/env python3
"""Runs every command of README.md as it is printed, in order, from the repository's root, and says which fail.

    tools/check_readme.py [--skip scripts/test ...]

A server is ended with SIGTERM once it answers at /ready, and has to end well. Exit code 1 if a command failed.
"""
import argparse
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

READY = "http://127.0.0.1:8000/ready"
READY_SECONDS = 60


def commands(text):
    for block in re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield from (line for line in block.splitlines() if line.strip())


def ready():
    try:
        return urllib.request.urlopen(READY, timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def run_server(command):
    process = subprocess.Popen(["bash", "-c", "exec " + command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.05)
    was_ready = process.poll() is None and ready()
    process.send_signal(signal.SIGTERM)
    output = process.communicate()[0]
    return process.returncode if was_ready else process.returncode or 1, output


def run(command):
    if " serve " in command:
        return run_server(command)
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip", nargs="*", default=[], help="commands that are not run")
    skip = parser.parse_args().skip
    failed = 0
    for command in commands(pathlib.Path("README.md").read_text(encoding="utf-8")):
        if command in skip:
            print(f"skipped  {command}")
            continue
        begin = time.monotonic()
        code, output = run(command)
        print(f"{'ok' if code == 0 else f'exit {code}':8} {command}   ({time.monotonic() - begin:.1f} s)", flush=True)
        if code != 0:
            failed += 1
            print(output.decode(errors="replace")[-2000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
