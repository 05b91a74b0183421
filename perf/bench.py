"""What the scenarios of perf/load share: what is checked, where samples go, the origin, a run, the record of it all.

Runs `ringprobe run` as a user would, and then asks the store: what the program says of itself is compared with
what SQL counts, never trusted alone. Standard library only.
"""

import json
import pathlib
import re
import shlex
import sqlite3
import subprocess
import sys

from compare import REPOSITORY, await_port, free_port, last_object

LAG_P99_US_MAX = 2000
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

    def note(self, what, found):
        """A figure that is told, and not judged."""
        self.check(what, "–", found, True)

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
        self.origins = []
        self.serve("target", self.port, [arguments.ringprobe, "target", "--listen", f"127.0.0.1:{self.port}",
                                         *shlex.split(arguments.target_args)])

    def serve(self, name, port, command):
        """Starts what answers there, on the origin's CPU, until the end."""
        if self.arguments.target_cpu >= 0:
            command = ["taskset", "--cpu-list", str(self.arguments.target_cpu), *command]
        with open(self.scratch / f"{name}.log", "w", encoding="utf-8") as log:
            origin = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.origins.append(origin)
        await_port(port, origin)
        return origin

    def close(self):
        for origin in self.origins:
            origin.terminate()
        for origin in self.origins:
            try:
                origin.wait(timeout=10)
            except subprocess.TimeoutExpired:
                origin.kill()

    def write(self, name, text):
        path = self.scratch / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    def file(self, name, count, interval_s):
        """An endpoint file: `count` endpoints whose intervals are spread evenly over a range of seconds."""
        low, high = interval_s
        text = ['[defaults]\ntimeout = "4s"\n']
        for index in range(count):
            interval = low + index % (high - low + 1)
            text.append(f'[[endpoint]]\nname = "e{index}"\ninterval = "{interval}s"\n'
                        f'url = "http://127.0.0.1:{self.port}/bytes/256?endpoint={index}"\n')
        return self.write(name, "\n".join(text))

    def run(self, file, store, seconds, more=()):
        return self.finish(self.start(file, store, seconds, more), seconds)

    def start(self, file, store, seconds, more=()):
        command = [self.arguments.ringprobe, "run", str(file), "--store", store.url, "--duration", f"{seconds}s",
                   "--json", *more, *shlex.split(self.arguments.run_args)]
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
