"""perf/accuracy's further scenarios: each asks one question of which the answer is known beforehand.

What the prober says of itself is compared with the origin's own stamps, or with arithmetic. Standard library only.
"""

import contextlib
import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from bench import GRACE_SECONDS, MISSED, Sqlite
from compare import Unusable, await_port, free_port, last_object, pinned
from peers import HoldingOrigin, quantile

UP = 1  # The stable code of the outcome.


def ringprobe(arguments, command, seconds, setup=None):
    """Runs the program: its JSON object."""
    done = subprocess.run([arguments.ringprobe, *command, "--json"], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=seconds + 2 * GRACE_SECONDS, preexec_fn=setup)
    if done.returncode:
        raise Unusable(f"ringprobe {command[0]}: {done.stderr.strip()[-300:]}")
    return last_object(done.stdout)


# --- quota -----------------------------------------------------------------------------------------------------------

QUOTA = 0.5  # Of one CPU, for the prober and its origin together.
# With a quota the load must be what is too much for it, or it would never be felt.
QUOTA_LOADS = (50, 100)


def quota(report, arguments):
    """What disturbs the prober must move the user-space figure, and not the kernel's."""
    report.begin("quota", "Answers held for 1 ms: alone, beside a busy process, under a CPU quota")
    alone = disturbed(report, arguments, "alone")
    busy = subprocess.Popen(pinned([sys.executable, "-c", "while True: pass"], arguments.client_cpu))
    try:
        beside = disturbed(report, arguments, "beside a busy process on its CPU")
    finally:
        busy.kill()
        busy.wait()
    judge(report, "beside a busy process", 50, alone, beside)
    with cgroup(QUOTA) as (setup, how):
        report.note("CPU quota", how)
        if setup:
            judge(report, "under the quota", 100, alone, disturbed(report, arguments, "under the quota", setup))


def disturbed(report, arguments, name, setup=None):
    """Errors at p99 by load: (the kernel's stamps, without), µs."""
    seconds = 2 * arguments.seconds
    found = ringprobe(arguments, ["bench", "--accuracy", "--hold", "1ms", "--connections", "256", "--loads",
                                  ",".join(map(str, QUOTA_LOADS)), "--duration", f"{seconds}s"], 4 * seconds, setup)
    for load in found["loads"]:
        what = f"{name}, {load['load_percent']} % of {found['capacity_per_s']:,.0f} probes/s"
        for of, whose in (("error_us", "the kernel's stamps"), ("user_error_us", "the program's own")):
            report.note(f"{what}: TTFB by {whose} less the truth, p50 and p99, µs",
                        f"{load[of]['p50']:.0f}, {load[of]['p99']:.0f}")
        report.note(f"{what}: lag at p99, µs; slots missed",
                    f"{load['lag_us']['p99']:.0f}; {load['missed']} of {load['due']}")
    return {load["load_percent"]: (load["error_us"]["p99"], load["user_error_us"]["p99"]) for load in found["loads"]}


def judge(report, name, load, alone, found):
    (kernel, user), (kernel_alone, user_alone) = found[load], alone[QUOTA_LOADS[0]]
    report.at_most(f"{name}: the kernel's p99 moves by, µs", 50, round(abs(kernel - kernel_alone), 1))
    report.note(f"{name}: the user-space p99 moves by, µs", round(user - user_alone))
    report.check(f"{name}: the user-space p99 ÷ the kernel's", "≥ 20", round(user / kernel, 1), user >= 20 * kernel)


@contextlib.contextmanager
def cgroup(share):
    """What puts a process under a quota of so much of a CPU, and how that is done; (None, why not)."""
    two, one = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/sys/fs/cgroup/cpu")
    directory = None
    try:
        controllers = two / "cgroup.controllers"
        if controllers.exists() and "cpu" in controllers.read_text().split():
            directory = two / f"ringprobe-{os.getpid()}"
            directory.mkdir()
            (directory / "cpu.max").write_text(f"{round(share * 100_000)} 100000")
        elif one.is_dir():
            directory = one / f"ringprobe-{os.getpid()}"
            directory.mkdir()
            (directory / "cpu.cfs_period_us").write_text("100000")
            (directory / "cpu.cfs_quota_us").write_text(str(round(share * 100_000)))
        else:
            yield None, "not shown: there is no CPU controller here"
            return
    except OSError as error:
        if directory and directory.is_dir():
            directory.rmdir()
        yield None, f"not shown: {error}"
        return
    procs = directory / "cgroup.procs"
    try:
        yield lambda: procs.write_text(str(os.getpid())), f"{share:.0%} of a CPU by {directory.parent}"
    finally:
        directory.rmdir()


# --- schedule --------------------------------------------------------------------------------------------------------

ENDPOINTS, INTERVAL_S, SCHEDULE_SECONDS = 100_000, 20, 45


def schedule(report, arguments):
    """When a request reached the origin, by the kernel's stamp there, less when it was due, by the row."""
    report.begin("schedule", f"{ENDPOINTS:,} endpoints at {INTERVAL_S} s on one shard, {SCHEDULE_SECONDS} s")
    scratch = pathlib.Path(arguments.scratch)
    store, holds, file = Sqlite(scratch / "schedule.db"), scratch / "holds.csv", scratch / "schedule.toml"
    with HoldingOrigin(arguments, "0", ["--holds", str(holds)]) as origin:
        with open(file, "w", encoding="ascii") as text:
            text.write(f'[defaults]\ninterval = "{INTERVAL_S}s"\n')
            for index in range(1, ENDPOINTS + 1):
                text.write(f'[[endpoint]]\nname = "{index}"\nurl = "{origin.url(f"/{index}")}"\n')
        summary = ringprobe(arguments, ["run", str(file), "--store", store.url, "--cores", "1", "--duration",
                                        f"{SCHEDULE_SECONDS}s"], SCHEDULE_SECONDS)
        truth = origin.truth()
    arrived = {}
    with open(holds, encoding="ascii") as text:
        for row in csv.DictReader(text):
            arrived.setdefault(int(row["endpoint"]), []).append(int(row["arrived_us"]))
    due = {}
    for name, ts, lag in store.rows("SELECT name, ts, lag_us FROM metrics JOIN endpoints USING (endpoint_id) "
                                    f"WHERE outcome <> {MISSED} ORDER BY ts"):
        due.setdefault(int(name), []).append((ts, lag))
    late, own = [], []
    for number, slots in due.items():
        if len(slots) == len(arrived.get(number, ())):
            late += [at - ts for at, (ts, _) in zip(arrived[number], slots)]
            own += [lag for _, lag in slots]
    report.equal("requests without a stamp, or not noted", 0, truth["unstamped"] + truth["unnoted"])
    report.equal("slots matched with requests", summary["due"], len(late))
    report.at_most("arrival at the origin less slot, p99, µs", 200, quantile(late, 0.99))
    report.note("p50, p99.9, max, µs", ", ".join(str(quantile(late, part)) for part in (0.5, 0.999, 1)))
    report.note("lag by the rows, p50, p99, µs", ", ".join(str(quantile(own, part)) for part in (0.5, 0.99)))
    report.summary(summary | {"stolen_percent": 0})


# --- cost ------------------------------------------------------------------------------------------------------------

COST_MAX = 1.05


def cost(report, arguments):
    """CPU per probe with the kernel's stamps and without, in turn, keep-alive."""
    report.begin("cost", "CPU per probe with and without the kernel's stamps, keep-alive, 64 connections")
    port = free_port()
    target = subprocess.Popen(pinned([arguments.ringprobe, "target", "--listen", f"127.0.0.1:{port}"],
                                     arguments.origin_cpu), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = 12 * arguments.seconds
    try:
        await_port(port, target)
        found = ringprobe(arguments, ["bench", f"http://127.0.0.1:{port}/bytes/128", "--ab", "--connections 64",
                                      "--connections 64 --no-stamps", "--rounds", "20", "--duration", f"{seconds}s"],
                          3 * seconds)
    finally:
        target.terminate()
        target.wait(timeout=GRACE_SECONDS)
    for figure in found["differences"]:
        report.note(f"{figure['figure']}: with, without, difference",
                    f"{figure['a']:.2f}, {figure['b']:.2f}, {figure['difference']:+.3f} in [{figure['low']:+.3f}, "
                    f"{figure['high']:+.3f}]")
    cpu = next(figure for figure in found["differences"] if figure["figure"] == "cpu_us_per_probe")
    report.at_most("CPU per probe, with ÷ without", COST_MAX, round(cpu["a"] / cpu["b"], 4))


# --- frozen ----------------------------------------------------------------------------------------------------------

FROZEN_S, FROZEN_INTERVAL_S, FROZEN_TIMEOUT_S, FROZEN_ENDPOINTS = 45, 5, 4.5, 200


def frozen(report, arguments):
    """An origin that stands still: no slot may be lost, and every latency is known by arithmetic."""
    report.begin("frozen", f"The origin frozen for {FROZEN_S} s: {FROZEN_ENDPOINTS} endpoints at "
                           f"{FROZEN_INTERVAL_S} s, timeout {FROZEN_TIMEOUT_S} s")
    scratch = pathlib.Path(arguments.scratch)
    store, file, holds = Sqlite(scratch / "frozen.db"), scratch / "frozen.toml", scratch / "frozen.csv"
    with HoldingOrigin(arguments, more=["--holds", str(holds)]) as origin:
        lines = [f'[defaults]\ninterval = "{FROZEN_INTERVAL_S}s"\ntimeout = "{FROZEN_TIMEOUT_S * 1000:.0f}ms"']
        lines += [f'[[endpoint]]\nname = "{index}"\nurl = "{origin.url(f"/{index}")}"'
                  for index in range(1, FROZEN_ENDPOINTS + 1)]
        file.write_text("\n".join(lines), encoding="ascii")
        seconds = FROZEN_S + 4 * FROZEN_INTERVAL_S
        child = subprocess.Popen([arguments.ringprobe, "run", str(file), "--store", store.url, "--cores", "1",
                                  "--duration", f"{seconds}s", "--json"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            time.sleep(2 * FROZEN_INTERVAL_S)
            origin.process.send_signal(signal.SIGSTOP)
            stopped_us = time.time_ns() // 1000
            time.sleep(FROZEN_S)
            origin.process.send_signal(signal.SIGCONT)
            output, _ = child.communicate(timeout=seconds + GRACE_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
        origin.truth()
    summary = json.loads(output)
    # A request is its probe's if it came in the time that the probe had; when it was answered, the origin says.
    asked = {}
    with open(holds, encoding="ascii") as text:
        for row in csv.DictReader(text):
            asked.setdefault(row["endpoint"], []).append((int(row["arrived_us"]), int(row["departed_us"])))
    timeout_us = FROZEN_TIMEOUT_S * 1e6

    def truth_us(name, started_us):
        answers = [departed for arrived, departed in asked.get(name, ())
                   if started_us <= arrived < started_us + timeout_us]
        return min([timeout_us, *(departed - started_us for departed in answers)])

    report.equal("missed, dropped", [{}, 0], [summary["misses"], summary["dropped"]])
    window = f"ts >= {stopped_us} AND ts < {stopped_us + FROZEN_S * 1_000_000}"
    counts = store.rows(f"SELECT count(*) FROM metrics WHERE {window} GROUP BY endpoint_id")
    report.equal("slots of each endpoint meanwhile", [FROZEN_S // FROZEN_INTERVAL_S], sorted({n for n, in counts}))
    report.equal("endpoints", FROZEN_ENDPOINTS, len(counts))
    rows = store.rows("SELECT name, ts + lag_us, total_us, outcome FROM metrics JOIN endpoints USING (endpoint_id) "
                      f"WHERE {window}")
    known = [truth_us(name, started) for name, started, _, _ in rows]
    wrong = [total for (_, _, total, _), true in zip(rows, known) if abs(total - true) > 0.005 * true + 1_000]
    report.equal("slots with neither a timeout nor their true latency", 0, len(wrong))
    timed_out = sum(1 for *_, outcome in rows if outcome != UP)
    report.note("of them timeouts, answered late", f"{timed_out}, {len(rows) - timed_out}")
    for part in (0.05, 0.1, 0.5, 0.9, 0.99):
        found, true = quantile([total for _, _, total, _ in rows], part), quantile(known, part)
        report.check(f"p{part * 100:.0f}, ms", f"{true / 1e3:.1f} ± 0.5 %", f"{found / 1e3:.1f}",
                     abs(found - true) <= 0.005 * true)


# --- spin ------------------------------------------------------------------------------------------------------------

SPIN_MS, SPINS, SPIN_ENDPOINTS, SPIN_INTERVAL_MS, SPIN_HOLD_MS, SPIN_SECONDS = 50, 10, 200, 500, 20, 8
TAINTED = 1 << 9
# Spins when nobody can take the CPU away, and says from when to when; the kernel's clock for rows is the wall clock.
SPINNER = f"""
import os, sys, time
os.sched_setaffinity(0, {{int(sys.argv[1])}})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
for _ in range({SPINS}):
    began = time.time_ns()
    while time.time_ns() - began < {SPIN_MS * 1_000_000}: pass
    print(began // 1000, time.time_ns() // 1000, flush=True)
    time.sleep({5 * SPIN_MS / 1000})
"""


def spin(report, arguments):
    """A real-time task takes the shard's CPU: lag and agent delay must say so, and no phase."""
    report.begin("spin", f"A task spins for {SPIN_MS} ms on the shard's CPU, {SPINS} times, at real-time priority")
    scratch = pathlib.Path(arguments.scratch)
    store, file, holds = Sqlite(scratch / "spin.db"), scratch / "spin.toml", scratch / "spin.csv"
    with HoldingOrigin(arguments, f"{SPIN_HOLD_MS}ms", ["--holds", str(holds)]) as origin:
        lines = [f'[defaults]\ninterval = "{SPIN_INTERVAL_MS}ms"']
        lines += [f'[[endpoint]]\nname = "{index}"\nurl = "{origin.url(f"/{index}")}"'
                  for index in range(1, SPIN_ENDPOINTS + 1)]
        file.write_text("\n".join(lines), encoding="ascii")
        child = subprocess.Popen(pinned([arguments.ringprobe, "run", str(file), "--store", store.url, "--cores", "1",
                                         "--duration", f"{SPIN_SECONDS}s", "--json"], arguments.client_cpu),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            time.sleep(2)
            spinner = subprocess.run([sys.executable, "-c", SPINNER, str(arguments.client_cpu)], capture_output=True,
                                     text=True, check=False, timeout=SPIN_SECONDS)
            if spinner.returncode:
                report.note("not shown", f"this needs the right to real-time priority: {spinner.stderr.strip()[-80:]}")
                return
            output, _ = child.communicate(timeout=SPIN_SECONDS + GRACE_SECONDS)
        finally:
            if child.poll() is None:
                child.kill()
        origin.truth()
    spins = [tuple(map(int, line.split())) for line in spinner.stdout.splitlines()]
    summary = json.loads(output)
    held = {}
    with open(holds, encoding="ascii") as text:
        for row in csv.DictReader(text):
            held.setdefault(row["endpoint"], []).append((int(row["arrived_us"]), int(row["departed_us"])))
    rows = store.rows("SELECT name, ts, lag_us, agent_us, processing_us, total_us, flags FROM metrics "
                      f"JOIN endpoints USING (endpoint_id) WHERE outcome = {UP}")
    touched, others, errors = [], [], {True: [], False: []}
    for name, ts, lag, agent, processing, total, flags in rows:
        during = any(ts < end and began < ts + lag + total + agent for began, end in spins)
        (touched if during else others).append((lag, agent, total, flags))
        known = [departed - arrived for arrived, departed in held.get(name, ())
                 if ts + lag <= arrived < ts + lag + total]
        if len(known) == 1:
            errors[during].append(abs(processing - known[0]))
    late = [row for row in touched if max(row[0], row[1]) >= SPIN_MS * 500]
    report.equal("slots due, less sampled and missed", 0, summary["due"] - summary["sampled"] - summary["missed"])
    report.note("probes in all, touched by a spin, compared with the origin's stamps",
                f"{len(rows)}, {len(touched)}, {sum(map(len, errors.values()))}")
    report.check("slots started or answered 25 ms late or more", f"≥ {SPINS}", len(late), len(late) >= SPINS)
    for what, index in (("lag", 0), ("agent delay", 1)):
        worst = max(row[index] for row in touched)
        report.check(f"largest {what}, ms", f"≥ {0.9 * SPIN_MS:.0f}", round(worst / 1e3, 1),
                     worst >= 900 * SPIN_MS)
    report.equal("of the late ones, not flagged tainted", 0, sum(1 for row in late if not row[3] & TAINTED))
    for part in (0.5, 0.99):
        report.note(f"processing less the truth, p{part * 100:.0f}, µs: touched, others",
                    f"{quantile(errors[True], part)}, {quantile(errors[False], part)}")
    moved = quantile(errors[True], 0.99) - quantile(errors[False], 0.99)
    report.at_most("a spin moves the p99 of that by, µs", 50, moved)
    report.equal("verdict", "INVALID", summary["verdict"])
