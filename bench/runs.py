"""Run a bench several times, and print what it prints with a range in the place of each number.

    python -m bench.runs 3 bench.heads --rounds 1

Numbers differ from run to run and from machine to machine, so that one alone says little. Lines that are not in every run are
left out. The first lines say what it ran on, when, and how.
"""

import argparse
import datetime
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def machine() -> str:
    """The processor, its cores, and the units that decide how quick a base is on it."""
    told = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if line.count(":") == 1)
    info = {name.strip(): value.strip() for name, value in told.items()}
    units = [flag for flag in FLAGS if flag in info.get("flags", "").split()]
    return f"{info.get('model name', 'unknown processor')}, {os.cpu_count()} cores, {', '.join(units)}"


def merged(outputs: list[list[str]]) -> list[str]:
    """Lines that are the same in every output but for their numbers, in the order of the first; numbers as ranges."""
    found = []
    by_shape = [_by_shape(lines) for lines in outputs]
    for shape, line in by_shape[0].items():
        if all(shape in other for other in by_shape):
            columns = zip(*(NUMBER.findall(other[shape]) for other in by_shape), strict=True)
            ranges = iter([_range(list(column)) for column in columns])
            found.append(NUMBER.sub(lambda _, ranges=ranges: next(ranges), line))  # type: ignore[misc]
    return found


def _by_shape(lines: list[str]) -> dict[tuple[str, int], str]:
    """Lines by what they are without their numbers, and which of several such lines they are.

    Columns are as wide as their numbers, so that spaces tell nothing.
    """
    found: dict[tuple[str, int], str] = {}
    for line in lines:
        shape, place = " ".join(NUMBER.sub("#", line).split()), 0
        while (shape, place) in found:
            place += 1
        found[shape, place] = line
    return found


def _range(values: list[str]) -> str:
    ordered = sorted(values, key=lambda value: float(value.replace(",", "")))
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, help="how many")
    parser.add_argument("bench", nargs=argparse.REMAINDER, help="the module, such as bench.heads, and its arguments")
    arguments = parser.parse_args()
    print(
        f"{machine()}; {datetime.date.today()}; {arguments.runs} runs of python -m {shlex.join(arguments.bench)}",
        flush=True,
    )
    outputs = []
    for _ in range(arguments.runs):
        done = subprocess.run([sys.executable, "-m", *arguments.bench], stdout=subprocess.PIPE, text=True, check=True)
        outputs.append(done.stdout.splitlines())
    print("\n".join(merged(outputs)))


if __name__ == "__main__":
    main()
