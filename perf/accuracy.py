"""The measuring half of perf/accuracy, which builds the program and calls this.

Which scenarios there are, and the record of them. Standard library only.
"""

import argparse
import csv
import json
import os
import shlex
import sys

from bench import Report
from compare import REPOSITORY, Unusable, first_line, machine
from errors import MODE_TITLES, errors, plot, table
from peers import peers
from truth import cost, frozen, quota, schedule, spin

MORE_SCENARIOS = {"quota": quota, "schedule": schedule, "cost": cost, "frozen": frozen, "spin": spin}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="perf/accuracy", description="How wrong measured latency is.")
    parser.add_argument("--only", default="errors", help=f"errors (default), {', '.join(MORE_SCENARIOS)}")
    parser.add_argument("--holds", default="0,1ms,10ms,100ms", help="for how long answers are held (0,1ms,10ms,100ms)")
    parser.add_argument("--modes", default=",".join(MODE_TITLES), help="keepalive,fresh")
    parser.add_argument("--seconds", type=int, default=5, help="at each load (5)")
    parser.add_argument("--rounds", type=int, default=3, help="of every tool, whose medians are judged (3)")
    parser.add_argument("--client-cpu", type=int, default=0, help="CPU of the peers (0); `bench` takes its first")
    parser.add_argument("--origin-cpu", type=int, default=1, help="CPU of the peers' origin (1)")
    parser.add_argument("--name", default="accuracy", help="name of the recorded run (accuracy)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    for hidden in ("--ringprobe", "--scratch"):
        parser.add_argument(hidden, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.given = sys.argv[1:]
    for hidden in ("--ringprobe", "--scratch"):
        index = arguments.given.index(hidden)
        del arguments.given[index:index + 2]
    chosen = arguments.only.split(",")
    if not set(chosen) <= {"errors", *MORE_SCENARIOS}:
        parser.error(f"scenarios are errors, {', '.join(MORE_SCENARIOS)}")
    if not set(arguments.modes.split(",")) <= set(MODE_TITLES):
        parser.error(f"modes are {', '.join(MODE_TITLES)}")
    return arguments, chosen


def markdown(report, rows, facts, given):
    failures = report.failures()
    text = [f"# Accuracy, {facts['date'][:10]}: "
            f"{'everything held' if not failures else f'{len(failures)} checks failed'}", "",
            f"- command: `perf/accuracy{' ' + given if given else ''}`"]
    text += [f"- {key}: {value}" for key, value in facts.items()]
    text += ["", "What the error is, and what peers' figures are compared with: `perf/README.md`.", ""]
    if rows:
        text += ["![](plot.svg)", ""]
    for scenario in report.scenarios:
        text += [f"## {scenario['title']}", "", "| check | wanted | found | |", "|---|---|---|---|"]
        text += [f"| {check['what']} | {check['wanted']} | {str(check['found']).replace('|', '/')} | "
                 f"{'ok' if check['holds'] else '**no**'} |" for check in scenario["checks"]]
        own = [row for row in rows if f"{row['mode']}-{row['hold']}" == scenario["name"]]
        text += ["", table(own), ""] if own else [""]
    return "\n".join(text)


def record(report, rows, facts, arguments):
    """Writes perf/runs/<date>-<name>/ and says where."""
    base = REPOSITORY / "perf" / "runs" / f"{facts['date'][:10]}-{arguments.name}"
    directory, number = base, 1
    while directory.exists():
        number += 1
        directory = base.with_name(f"{base.name}-{number}")
    directory.mkdir(parents=True)
    text = markdown(report, rows, facts, shlex.join(arguments.given))
    (directory / "README.md").write_text(text, encoding="utf-8")
    if rows:
        (directory / "plot.svg").write_text(plot(rows), encoding="utf-8")
        with open(directory / "loads.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with open(directory / "results.json", "w", encoding="utf-8") as file:
        json.dump({"facts": facts, "scenarios": report.scenarios}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(f"recorded: {directory.relative_to(REPOSITORY)}", file=sys.stderr)


def main():
    arguments, chosen = parse_arguments()
    report, rows = Report(), []
    facts = machine() | {"load average at the start": f"{os.getloadavg()[0]:.2f}"}
    facts["ringprobe"] = first_line([arguments.ringprobe, "--version"])
    facts["peers"] = ", ".join(f"{peer.name} ({peer.version()})" for peer in peers())
    for name in chosen:
        if name == "errors":
            rows += errors(report, arguments)
        else:
            MORE_SCENARIOS[name](report, arguments)
    print(markdown(report, rows, facts, shlex.join(arguments.given)))
    if not arguments.no_record:
        record(report, rows, facts, arguments)
    for failure in report.failures():
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if report.failures() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as reason:
        sys.exit(f"accuracy: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)
