"""The measuring half of perf/load, which builds the program, starts PostgreSQL, and calls this.

Runs `ringprobe run` as a user would, and then asks the store: what the program says of itself is compared with
what SQL counts, never trusted alone. Standard library only.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time

from compare import REPOSITORY, await_port, first_line, free_port, last_object, machine

LAG_P99_US_MAX = 2000
BYTES_PER_ENDPOINT_MAX = 512
# A run ends by itself; this is how much longer than it should take before it is killed and the check failed.
GRACE_SECONDS = 60
MISSED = 3  # The stable code of the outcome.


class Report:
    """What was checked, and what came of it."""

    def __init__(self):
        self.scenarios = []

    def begin(self, name, title):
        self.scenarios.append({"name": name, "title": title, "checks": [], "summary": None})
        print(f"== {title}", file=sys.stderr)

    def check(self, what, wanted, found, holds):
        self.scenarios[-1]["checks"].append(
            {"what": what, "wanted": wanted, "found": found, "holds": bool(holds)})
        print(f"   {'ok  ' if holds else 'FAIL'} {what}: {found} (wanted: {wanted})", file=sys.stderr)

    def equal(self, what, wanted, found):
        self.check(what, wanted, found, wanted == found)

    def at_most(self, what, wanted, found):
        self.check(what, f"≤ {wanted}", found, found is not None and found <= wanted)

    def summary(self, summary):
        self.scenarios[-1]["summary"] = summary

    def failures(self):
        return [f"{scenario['name']}: {check['what']}" for scenario in self.scenarios
                for check in scenario["checks"] if not check["holds"]]


# --- stores ------------------------------------------------------------------------------------------------------


class Sqlite:
    def __init__(self, path):
        self.path = path
        self.url = f"sqlite:{path}"

    def rows(self, sql):
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def lag_p99_us(self, where="1 = 1"):
        measured = self.rows(f"SELECT count(*) FROM metrics WHERE outcome <> {MISSED} AND {where}")[0][0]
        if not measured:
            return None
        rank = max(-(-measured * 99 // 100) - 1, 0)
        return self.rows(f"SELECT lag_us FROM metrics WHERE outcome <> {MISSED} AND {where} "
                         f"ORDER BY lag_us LIMIT 1 OFFSET {rank}")[0][0]


class Postgres:
    """A database of its own for each run, in the throwaway cluster."""

    def __init__(self, dsn, name):
        self.admin = dsn
        self.url = re.sub(r"/[^/]*$", f"/{name}", dsn)
        psql(dsn, f"DROP DATABASE IF EXISTS {name}")
        psql(dsn, f"CREATE DATABASE {name}")

    def rows(self, sql):
        return [tuple(int(cell) if re.fullmatch(r"-?\d+", cell) else cell for cell in line.split("|"))
                for line in psql(self.url, sql).splitlines()]

    def lag_p99_us(self, where="true"):
        found = self.rows("SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY lag_us) FROM metrics "
                          f"WHERE outcome <> {MISSED} AND {where}")
        return found[0][0] if found and found[0][0] != "" else None


def psql(dsn, sql):
    done = subprocess.run(["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname", dsn,
                           "--command", sql], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"load: psql: {done.stderr.strip()}")
    return done.stdout.strip()


# --- running -------------------------------------------------------------------------------------------------------


def cpu_ticks():
    """Stolen and all ticks of all CPUs since the machine started (proc(5), /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return ticks[7], sum(ticks)


class Bench:
    """The origin, and where things are."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.scratch = pathlib.Path(arguments.scratch)
        self.port = free_port()
        command = [arguments.ringprobe, "target", "--listen", f"127.0.0.1:{self.port}",
                   *shlex.split(arguments.target_args)]
        if arguments.target_cpu >= 0:
            command = ["taskset", "--cpu-list", str(arguments.target_cpu), *command]
        with open(self.scratch / "target.log", "w", encoding="utf-8") as log:
            self.origin = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        await_port(self.port, self.origin)

    def close(self):
        self.origin.terminate()
        try:
            self.origin.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.origin.kill()

    def file(self, name, count, interval_s):
        """An endpoint file: `count` endpoints whose intervals are spread evenly over a range of seconds."""
        low, high = interval_s
        path = self.scratch / f"{name}.toml"
        with open(path, "w", encoding="utf-8") as file:
            file.write('[defaults]\ntimeout = "4s"\n')
            for index in range(count):
                interval = low + index % (high - low + 1)
                file.write(f'\n[[endpoint]]\nname = "e{index}"\ninterval = "{interval}s"\n'
                           f'url = "http://127.0.0.1:{self.port}/bytes/256?endpoint={index}"\n')
        return path

    def start(self, file, store, seconds):
        command = [self.arguments.ringprobe, "run", str(file), "--store", store.url, "--duration", f"{seconds}s",
                   "--json", *shlex.split(self.arguments.run_args)]
        with open(self.scratch / "run.err", "w", encoding="utf-8") as errors:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                    text=True)

    def finish(self, child, seconds):
        """Its summary and its exit status; the summary with the share of the time that another guest had."""
        before = cpu_ticks()
        summary, status = self.finish_child(child, seconds)
        stolen, ticks = (after - earlier for after, earlier in zip(cpu_ticks(), before))
        summary["stolen_percent"] = round(100 * stolen / max(ticks, 1), 2)
        return summary, status

    def finish_child(self, child, seconds):
        try:
            output, _ = child.communicate(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            sys.exit(f"load: the run did not end; its last words: {self.last_words()}")
        if not output.strip():
            sys.exit(f"load: no summary, exit status {child.returncode}: {self.last_words()}")
        return last_object(output), child.returncode

    def last_words(self):
        return (self.scratch / "run.err").read_text(encoding="utf-8").strip()[-400:]


def account_for(report, summary, status, store):
    """The checks that every run must pass."""
    report.summary(summary)
    counted = store.rows(f"SELECT count(*), coalesce(sum(CASE WHEN outcome = {MISSED} THEN 1 ELSE 0 END), 0) "
                         "FROM metrics")[0]
    distinct = store.rows("SELECT count(*) FROM (SELECT DISTINCT endpoint_id, ts FROM metrics) AS slots")[0][0]
    report.equal("exit status", 0, status)
    report.equal("rows = due", summary["due"], counted[0])
    report.equal("no row twice", counted[0], distinct)
    report.equal("due = sampled + missed", summary["due"], summary["sampled"] + summary["missed"])
    report.equal("missed", 0, max(summary["missed"], counted[1]))
    report.equal("dropped", 0, summary["dropped"])
    report.equal("down", 0, summary["down"])


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


# --- the record ------------------------------------------------------------------------------------------------------


def markdown(report, facts, given):
    failures = report.failures()
    text = [f"# Load, {facts['date'][:10]}: {'everything held' if not failures else f'{len(failures)} checks failed'}",
            "", f"- command: `perf/load{' ' + given if given else ''}`"]
    text += [f"- {key}: {value}" for key, value in facts.items()] + [""]
    for scenario in report.scenarios:
        text += [f"## {scenario['title']}", "", "| check | wanted | found | |", "|---|---|---|---|"]
        text += [f"| {check['what']} | {check['wanted']} | {str(check['found']).replace('|', '/')} | "
                 f"{'ok' if check['holds'] else '**no**'} |" for check in scenario["checks"]]
        summary = scenario["summary"]
        if summary:
            lag, ttfb = summary["lag_us"], summary["ttfb_us"]
            text += ["", f"{summary['probes_per_s']:,.0f} probes/s at {summary['cpu_us_per_probe']:.1f} µs of CPU; lag "
                     f"p50 {lag['p50']}, p99 {lag['p99']}, p99.9 {lag['p999']}, max {lag['max']} µs; TTFB p50 "
                     f"{ttfb['p50']}, p99 {ttfb['p99']} µs; {summary['rss_bytes'] / 2**20:.1f} MiB resident. Another "
                     f"guest had {summary['stolen_percent']} % of the CPUs' time."]
        text.append("")
    return "\n".join(text)


def record(report, facts, given, name):
    base = REPOSITORY / "perf" / "runs" / f"{facts['date'][:10]}-{name}"
    directory, number = base, 1
    while directory.exists():
        number += 1
        directory = base.with_name(f"{base.name}-{number}")
    directory.mkdir(parents=True)
    (directory / "README.md").write_text(markdown(report, facts, given), encoding="utf-8")
    with open(directory / "results.json", "w", encoding="utf-8") as file:
        json.dump({"facts": facts, "scenarios": report.scenarios}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(f"recorded: {directory.relative_to(REPOSITORY)}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(prog="perf/load", description="The README's promises, shown on this machine.")
    parser.add_argument("--only", help=f"some of: {', '.join(SCENARIOS)}")
    parser.add_argument("--seconds", type=int, default=60, help="length of each run (60)")
    parser.add_argument("--quick", action="store_true", help="runs of 6 s, not recorded")
    parser.add_argument("--run-args", default="", help="more arguments for `ringprobe run`, such as '--cores 1'")
    cpu = max(os.sched_getaffinity(0))
    parser.add_argument("--target-cpu", type=int, default=cpu, help=f"the origin's CPU ({cpu}); -1 pins it nowhere")
    parser.add_argument("--target-args", default="", help="more arguments for `ringprobe target`")
    parser.add_argument("--name", default="load", help="name of the recorded run (load)")
    parser.add_argument("--no-record", action="store_true", help="print only")
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
    unknown = [name for name in chosen if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    report = Report()
    bench = Bench(arguments)
    try:
        for name in chosen:
            SCENARIOS[name](report, bench)
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
