"""Compares instruction counts with the baseline beside this file, or replaces it by them.

    compare.py COUNTS [--save] [--all] [--some]

COUNTS is what gungraun prints with `--output-format=json`: one JSON object for each benchmark and line.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess

BASELINE = pathlib.Path(__file__).with_name("instructions.json")
# Five times and more what two runs of the same build differ by.
MOVED_PERCENT = 2


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("counts", type=pathlib.Path)
    options.add_argument("--save", action="store_true", help="make these counts the baseline")
    options.add_argument("--all", action="store_true", help="print every benchmark, not only what moved")
    options.add_argument("--some", action="store_true", help="not every benchmark has run")
    options = options.parse_args()

    counts, machine = read_counts(options.counts), this_machine()
    if not counts:
        raise SystemExit("error: there are no counts: no benchmark has run")
    if options.save:
        BASELINE.write_text(json.dumps({"machine": machine, "instructions": counts}, indent=2) + "\n")
        print(f"{BASELINE.name}: {len(counts)} benchmarks")
        return
    if not BASELINE.exists():
        raise SystemExit(f"error: no baseline {BASELINE}\n  make one: benches/run --save-baseline")
    baseline = json.loads(BASELINE.read_text())
    for key, value in machine.items():
        if value != baseline["machine"].get(key):
            print(f"warning: {key} was `{baseline['machine'].get(key)}`, is `{value}`: counts may differ for that alone")
    moved = report(baseline["instructions"], counts, options.all)
    if not options.some:
        moved += report_gone(baseline["instructions"].keys() - counts.keys())
    print(f"{moved} moved by more than {MOVED_PERCENT} %, of {len(counts)}" if moved else "nothing moved")


def read_counts(path):
    """The instructions of one operation, by the name of the benchmark."""
    sizes = collections.defaultdict(dict)
    for line in path.read_text().splitlines():
        # Cargo's own lines may stand between.
        if not line.startswith("{"):
            continue
        benchmark = json.loads(line)
        name = f"{benchmark['group']}/{benchmark['function_name']}"
        times = re.fullmatch(r"times_(\d+)", benchmark["id"])
        if not times:
            name += f"/{benchmark['id']}"
        sizes[name][int(times[1]) if times else 1] = by_thread(benchmark)
    return {name: round(of_one(counted), 1) for name, counted in sizes.items()}


def by_thread(benchmark):
    """The counts of the threads, the greatest first: their numbers depend on who was started first."""
    parts = benchmark["profiles"][0]["data"]["parts"]
    # A thread that only the run before had has no new count.
    new = [part["metrics"]["Ir"]["values"]["new"] for part in parts if "new" in part["tool_run"]]
    return sorted(new, reverse=True)


def of_one(counted):
    if len(counted) == 1:
        ((times, threads),) = counted.items()
        return sum(threads) / times
    # What both have in common, start and end, is not in the difference. In the other threads the difference is chance:
    # one gathers entropy, which takes as long as it takes.
    (few, before), (many, after) = sorted(counted.items())
    return max(more - less for more, less in zip(after, before)) / (many - few)


def this_machine():
    release = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    models = re.findall(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    valgrind = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    return {"rustc": release, "valgrind": valgrind, "cpu": models[0] if models else "unknown"}


def report(baseline, counts, everything):
    moved = 0
    for name, count in counts.items():
        before = baseline.get(name)
        if before is None:
            print(f"{name:<40} {'new':>14} {count:>14,.0f}")
            moved += 1
            continue
        percent = 100 * (count - before) / before
        if abs(percent) > MOVED_PERCENT:
            moved += 1
        if abs(percent) > MOVED_PERCENT or everything:
            print(f"{name:<40} {before:>14,.0f} {count:>14,.0f} {percent:>+8.2f} %")
    return moved


def report_gone(names):
    for name in sorted(names):
        print(f"{name:<40} {'gone':>14}")
    return len(names)


main()
