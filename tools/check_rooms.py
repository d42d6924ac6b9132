#!/usr/bin/env python3
"""Checks the tree's house rules: one-way room dependencies (by #include), the 800-line cap, header guards, and that no
two headers define a type of the same name, whose members the linker would take for the same.

    tools/check_rooms.py            exits 1 and lists every breach
"""
import pathlib
import re
import subprocess
import sys

# Room -> rooms whose headers it may include (itself is always allowed). ARCHITECTURE.md explains the order.
MAY_USE = {
    "base": set(),
    "checkpoint": {"base"},
    "text": {"base"},
    "kernels": {"base"},
    "cache": {"base"},
    "model": {"base", "checkpoint", "kernels", "cache"},
    "engine": {"base", "checkpoint", "text", "kernels", "cache", "model"},
    "distill": {"base", "checkpoint", "text", "kernels", "cache", "model"},
}
MAY_USE["grammar"] = {"base", "checkpoint", "text", "engine"}
EVERYTHING = set(MAY_USE) | {"server", "eval", "bench", "cli"}
MAY_USE |= {room: set(MAY_USE) - {"distill"} for room in ("server", "eval", "bench")}
MAY_USE["cli"] = EVERYTHING

MAX_LINES = 800
SOURCE_SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".py"}


def tracked_sources(root):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    paths = [pathlib.Path(line) for line in listed.stdout.splitlines()]
    return [path for path in paths if path.suffix in SOURCE_SUFFIXES and (root / path).is_file()]


def breaches(root, path):
    lines = (root / path).read_text(encoding="utf-8").splitlines()
    if len(lines) > MAX_LINES:
        yield f"{path}: {len(lines)} lines, the cap is {MAX_LINES}"
    if path.parts[0] != "src" or len(path.parts) < 3:
        return
    room = path.parts[1]
    if room not in MAY_USE:
        yield f"{path}: unknown room '{room}': add it to tools/check_rooms.py and ARCHITECTURE.md"
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'#include "(\w+)/', line)
        if match and match[1] in EVERYTHING and match[1] != room and match[1] not in MAY_USE[room]:
            yield f"{path}:{number}: room '{room}' may not use room '{match[1]}'"
    if path.suffix == ".h" and not path.name.endswith("-inl.h"):
        guard = "SWIFTKV_" + re.sub(r"\W", "_", "/".join(path.parts[1:])).upper() + "_"
        if f"#ifndef {guard}" not in "\n".join(lines):
            yield f"{path}: header guard should be {guard}"


def namesakes(root, paths):
    """Of types in namespaces that have a name, declarations aside. -inl.h files have a namespace for each instruction set."""
    places = {}
    for path in paths:
        if path.suffix != ".h" or path.parts[0] != "src" or path.name.endswith("-inl.h"):
            continue
        namespace = ""
        for line in (root / path).read_text(encoding="utf-8").splitlines():
            opened = re.match(r"namespace ([\w:]+) {$", line)
            namespace = opened[1] if opened else namespace
            match = re.match(r"(?:class|struct|enum class) (\w+)(?: final)?(?: :.*)? {", line)
            if match:
                places.setdefault(f"{namespace}::{match[1]}", []).append(str(path))
    return [f"{name} is defined in {' and '.join(found)}" for name, found in places.items() if len(found) > 1]


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    paths = tracked_sources(root)
    found = [breach for path in paths for breach in breaches(root, path)] + namesakes(root, paths)
    print("\n".join(found) if found else "rooms, line cap, header guards and names of types: ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
