"""The measuring half of perf/load, which builds the program, starts PostgreSQL, and calls this.

The scenarios that are run unless others are named, and the choice among all of them. Standard library only.
"""

import argparse
import datetime
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time

from bench import GRACE_SECONDS, LAG_P99_US_MAX, Bench, Postgres, Report, Sqlite, account_for, markdown, record
from compare import free_port, machine
from names import names
from patterns import neighbour, patterns

BYTES_PER_ENDPOINT_MAX = 512


def steady(report, bench, name, store, count, interval_s, seconds):
    """A plain run, nothing in its way."""
    file = bench.file(name, count, interval_s)
    summary, status = bench.finish(bench.start(file, store, seconds), seconds)
    account_for(report, summary, status, store)
    low, high = interval_s
    rate = sum(1 / (low + index % (high - low + 1)) for index in range(count))
    report.check("due is what the intervals ask for", f"{rate * seconds:.0f} ± 2 %", summary["due"],
                 abs(summary["due"] / (rate * seconds) - 1) < 0.02)
    report.at_most("lag p99, µs (SQL)", LAG_P99_US_MAX, store.lag_p99_us())
    report.at_most("lag p99, µs (summary)", LAG_P99_US_MAX, summary["lag_us"]["p99"])
    report.equal("verdict", "valid", str(summary["verdict"]).lower())
    return summary


# --- the scenarios ---------------------------------------------------------------------------------------------------


def small_sqlite(report, bench):
    report.begin("small-sqlite", f"20,000 endpoints at 5–30 s, SQLite, {bench.arguments.seconds} s")
    steady(report, bench, "small", Sqlite(bench.scratch / "small.db"), 20_000, (5, 30), bench.arguments.seconds)


def small_postgres(report, bench):
    report.begin("small-postgres", f"20,000 endpoints at 5–30 s, PostgreSQL, {bench.arguments.seconds} s")
    store = Postgres(bench.arguments.postgres, "small")
    steady(report, bench, "small", store, 20_000, (5, 30), bench.arguments.seconds)


def large_sqlite(report, bench):
    report.begin("large-sqlite", f"100,000 endpoints at 10 s, SQLite, {bench.arguments.seconds} s")
    store = Sqlite(bench.scratch / "large.db")
    large = steady(report, bench, "large", store, 100_000, (10, 10), bench.arguments.seconds)
    memory(report, bench, large)


def large_postgres(report, bench):
    report.begin("large-postgres", f"100,000 endpoints at 10 s, PostgreSQL, {bench.arguments.seconds} s")
    store = Postgres(bench.arguments.postgres, "large")
    steady(report, bench, "large", store, 100_000, (10, 10), bench.arguments.seconds)


def memory(report, bench, large):
    """Against a process that watches one endpoint: rings, buffers and histograms are there for one as well."""
    file = bench.file("one", 1, (1, 1))
    one, _ = bench.finish(bench.start(file, Sqlite(bench.scratch / "one.db"), 5), 5)
    each = (large["rss_bytes"] - one["rss_bytes"]) / 100_000
    print(f"   {one['rss_bytes'] / 2**20:.1f} MiB with 1 endpoint, {large['rss_bytes'] / 2**20:.1f} MiB with 100,000",
          file=sys.stderr)
    report.at_most("memory per endpoint, bytes", BYTES_PER_ENDPOINT_MAX, round(each, 1))


def outage(report, bench):
    """PostgreSQL goes away and comes back; probing must not notice, and no row may be lost or doubled."""
    seconds = bench.arguments.seconds
    away = seconds // 3
    report.begin("outage", f"20,000 endpoints at 5–30 s, PostgreSQL stopped for {away} s of {seconds} s")
    store = Postgres(bench.arguments.postgres, "outage")
    child = bench.start(bench.file("small", 20_000, (5, 30)), store, seconds)
    time.sleep(seconds / 3)
    pg_ctl = shlex.split(bench.arguments.pg_ctl)
    down_at = datetime.datetime.now(datetime.timezone.utc)
    subprocess.run([*pg_ctl, "--mode=fast", "--wait", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        time.sleep(away)
    finally:
        subprocess.run([*pg_ctl, "--wait", "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    up_at = datetime.datetime.now(datetime.timezone.utc)
    summary, status = bench.finish(child, seconds)
    account_for(report, summary, status, store)
    during = f"ts BETWEEN '{down_at.isoformat()}' AND '{up_at.isoformat()}'"
    rows = store.rows(f"SELECT count(*) FROM metrics WHERE {during}")[0][0]
    report.check("rows from the outage itself", "> 0", rows, 0 < rows)
    report.at_most("lag p99 during it, µs (SQL)", LAG_P99_US_MAX, store.lag_p99_us(during))
    report.at_most("lag p99 otherwise, µs (SQL)", LAG_P99_US_MAX, store.lag_p99_us(f"NOT ({during})"))


def interrupt(report, bench):
    """Ctrl-C in the middle: what is in flight ends, what was sampled is stored."""
    report.begin("interrupt", "20,000 endpoints at 5–30 s, SQLite, SIGINT in the middle")
    store = Sqlite(bench.scratch / "interrupt.db")
    seconds = bench.arguments.seconds
    child = bench.start(bench.file("small", 20_000, (5, 30)), store, seconds)
    time.sleep(seconds / 3)
    child.send_signal(signal.SIGINT)
    asked = time.monotonic()
    summary, status = bench.finish(child, 0)
    took = time.monotonic() - asked
    account_for(report, summary, status, store)
    # The timeout of the endpoints is 4 s, and a batch is at most 250 ms old.
    report.at_most("seconds from SIGINT to the end", 6, round(took, 2))


def endpoint(lines):
    return "[[endpoint]]\n" + "\n".join(lines) + "\n"


# What is right in the file stands in front of what is wrong, and must not be stored either.
GOOD = endpoint(['name = "good"', 'url = "http://127.0.0.1/"']) + "\n"
BAD_INPUT = {
    # name: (text of the file after GOOD, which has four lines; line; words that must be named)
    "unknown key": (endpoint(['name = "a"', 'url = "http://127.0.0.1/"', "intervall = 5"]), 8, ["intervall"]),
    "bad URL": (endpoint(['name = "a"', 'url = "http//127.0.0.1/"']), 7, ['"a"', "url"]),
    "other scheme": (endpoint(['name = "a"', 'url = "ftp://127.0.0.1/"']), 7, ['"a"', "url"]),
    "interval 0": (endpoint(['name = "a"', 'url = "http://127.0.0.1/"', 'interval = "0s"']), 8, ['"a"', "interval"]),
    "duplicate name": (endpoint(['name = "a"', 'url = "http://127.0.0.1/"']) * 2, 9, ['"a"', "name"]),
    "not TOML": ("[[endpoint\n", 5, []),
}


def bad_input(report, bench):
    """One clear line, exit status 2, and nothing half-done."""
    report.begin("bad-input", "bad input: one line that names file, line and field; exit status 2; nothing done")
    good = bench.file("good", 1, (5, 5))
    for name, (text, line, words) in BAD_INPUT.items():
        file = bench.scratch / "bad.toml"
        file.write_text(GOOD + text, encoding="utf-8")
        refused(report, bench, name, [str(file)], [f"bad.toml:{line}:", *words])
    refused(report, bench, "no such file", [str(bench.scratch / "absent.toml")], ["absent.toml"])
    refused(report, bench, "a directory as file", [str(bench.scratch)], [bench.scratch.name])
    refused(report, bench, "store of an unknown scheme", [str(good), "--store", "mysql://127.0.0.1/x"], ["store"])
    refused(report, bench, "store at a port where nobody listens",
            [str(good), "--store", f"postgres://127.0.0.1:{free_port()}/x"], ["127.0.0.1"])
    refused(report, bench, "store in a directory that is not there",
            [str(good), "--store", f"sqlite:{bench.scratch}/absent/a.db"], ["absent"])
    refused(report, bench, "duration that is none", [str(good), "--duration", "soon"], ["duration"], lines_max=6)


def refused(report, bench, name, words_of_command, words, lines_max=1):
    database = bench.scratch / "refused.db"
    for leftover in bench.scratch.glob("refused.db*"):
        leftover.unlink()
    command = [bench.arguments.ringprobe, "run", *words_of_command]
    if "--store" not in words_of_command:
        command += ["--store", f"sqlite:{database}"]
    if "--duration" not in words_of_command:
        command += ["--duration", "2s"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                          timeout=GRACE_SECONDS)
    said = done.stderr.strip()
    lines = said.count("\n") + 1
    absent = [word for word in words if word not in said]
    stored = 0
    if database.exists():
        try:
            stored = Sqlite(database).rows("SELECT count(*) FROM endpoints")[0][0]
        except sqlite3.Error:
            stored = 0
    holds = done.returncode == 2 and lines <= lines_max and not absent and not stored
    found = f"exit {done.returncode}, {said[:200]!r}"
    if stored:
        found += f", and {stored} endpoints were stored"
    report.check(name, f"exit 2, one line with {', '.join(words)}", found.replace(str(bench.scratch), "…"), holds)


SCENARIOS = {"small-sqlite": small_sqlite, "small-postgres": small_postgres, "large-sqlite": large_sqlite,
             "large-postgres": large_postgres, "outage": outage, "interrupt": interrupt, "bad-input": bad_input}
# Those that run only when they are named: minutes each, and about one subject.
MORE_SCENARIOS = {"patterns": patterns, "neighbour": neighbour, "names": names}


def main():
    parser = argparse.ArgumentParser(prog="perf/load", description="The README's promises, shown on this machine.")
    parser.add_argument("--only", help=f"some of: {', '.join(SCENARIOS)}; or of those that are not "
                        f"run unless they stand here: {', '.join(MORE_SCENARIOS)}")
    parser.add_argument("--seconds", type=int, default=60, help="length of each run (60)")
    parser.add_argument("--quick", action="store_true", help="runs of 6 s, not recorded")
    parser.add_argument("--run-args", default="", help="more arguments for `ringprobe run`, such as '--cores 1'")
    cpu = max(os.sched_getaffinity(0))
    parser.add_argument("--target-cpu", type=int, default=cpu, help=f"the origin's CPU ({cpu}); -1 pins it nowhere")
    parser.add_argument("--target-args", default="--rest 500us",
                        help="more arguments for `ringprobe target` (--rest 500us)")
    parser.add_argument("--name", default="load", help="name of the recorded run (load)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--big-bytes", type=int, default=100_000_000, help="neighbour: the large body (100000000)")
    parser.add_argument("--long", action="store_true", help="names: the resolver is gone for a minute, not for 20 s")
    parser.add_argument("--family", default="any", help="names: `family` of the endpoints (any)")
    for hidden in ("--ringprobe", "--scratch", "--postgres", "--pg-ctl"):
        parser.add_argument(hidden, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    given = sys.argv[1:]
    for hidden in ("--ringprobe", "--scratch", "--postgres", "--pg-ctl"):
        index = given.index(hidden)
        del given[index:index + 2]
    if arguments.quick:
        arguments.seconds, arguments.no_record = 6, True
    chosen = (arguments.only or ",".join(SCENARIOS)).split(",")
    scenarios = SCENARIOS | MORE_SCENARIOS
    unknown = [name for name in chosen if name not in scenarios]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    report = Report()
    bench = Bench(arguments)
    try:
        for name in chosen:
            scenarios[name](report, bench)
    finally:
        bench.close()
    facts = machine()
    shell_words = shlex.join(given)
    print(markdown(report, facts, shell_words))
    if not arguments.no_record:
        record(report, facts, shell_words, arguments.name)
    for failure in report.failures():
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if report.failures() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
