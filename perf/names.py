"""The scenario of perf/load about names: 10,000 of them, a real resolver, and the resolver gone for a while.

dnsmasq serves names whose times to live lie between a second and an hour, evenly on a logarithmic scale; all lead to
the test origin. It is stopped with SIGSTOP: its port stays open, and nothing comes back.
"""

import shutil
import signal
import time

from bench import LAG_P99_US_MAX, Sqlite, account_for
from compare import free_port

NAMES = 10_000
TTL_S_MAX = 3_600
INTERVAL_S = 10
# Flags of a sample: docs/store.md.
STALE, ASKED = 64, 128
# After the resolver is back: a query that was lost is given up after 5 s, and asked again 4 s after that at the latest.
SETTLE_S = 10
# Below this there is no time for all of it; a resolver's timeouts are not a tenth as long in a quick run.
SECONDS_MIN = 45
LONG_AWAY_S = 60


def ttl_s(index):
    return round(TTL_S_MAX ** (index / (NAMES - 1)))


class Resolver:
    """dnsmasq, with the names, on a port of its own."""

    def __init__(self, bench):
        program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        self.port = free_port()
        lines = [f"port={self.port}", "listen-address=127.0.0.1", "bind-interfaces", "no-resolv", "no-hosts",
                 "local=/test/", "log-facility=-", "pid-file="]
        lines += [f"host-record=n{index:04}.test,127.0.0.1,{ttl_s(index)}" for index in range(NAMES)]
        config = bench.write("dnsmasq", "\n".join(lines) + "\n")
        command = [program, "--keep-in-foreground", f"--conf-file={config}"]
        self.process = bench.serve("dnsmasq", self.port, command)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


def names(report, bench):
    """No probe waits for DNS once every name was asked for, whatever becomes of the resolver."""
    arguments = bench.arguments
    seconds = max(arguments.seconds, SECONDS_MIN)
    away_s = seconds / 3
    pause_at_s = INTERVAL_S + seconds / 6
    if arguments.long:
        seconds, away_s = seconds + LONG_AWAY_S - round(away_s), LONG_AWAY_S
    family = f", family {arguments.family}" if arguments.family != "any" else ""
    report.begin("names", f"{NAMES:,} names at {INTERVAL_S} s with TTLs from 1 s to 1 h{family}, dnsmasq, SQLite, "
                 f"{seconds} s; dnsmasq stopped for {away_s:.0f} s")
    store = Sqlite(bench.scratch / "names.db")
    resolver = Resolver(bench)
    child = bench.start(names_file(bench), store, seconds, ["--dns", f"127.0.0.1:{resolver.port}"])
    time.sleep(pause_at_s)
    resolver.pause()
    paused_us = now_us()
    try:
        time.sleep(away_s)
    finally:
        resolver.go_on()
    back_us = now_us()
    summary, status = bench.finish(child, seconds)
    account_for(report, summary, status, store)
    warm_us = store.rows("SELECT min(ts) FROM metrics")[0][0] + INTERVAL_S * 1_000_000
    judge(report, store, warm_us, paused_us, back_us)


def judge(report, store, warm_us, paused_us, back_us):
    settled_us = back_us + SETTLE_S * 1_000_000
    asked = flagged(store, ASKED, f"ts < {warm_us}")
    report.note("probes that waited for DNS in the first interval", asked)
    spans = {"before": f"ts >= {warm_us} AND ts < {paused_us}", "stopped": f"ts >= {paused_us} AND ts < {back_us}",
             "after": f"ts >= {back_us}"}
    for span, where in spans.items():
        probes, down, resolve_us = store.rows("SELECT count(*), sum(outcome = 2), max(resolve_us) FROM metrics "
                                              f"WHERE {where}")[0]
        report.check(f"{span}: probes", "> 0", probes, probes)
        report.equal(f"{span}: waited for DNS", 0, flagged(store, ASKED, where))
        report.equal(f"{span}: longest resolve phase, µs", 0, resolve_us)
        report.equal(f"{span}: down", 0, down)
        report.at_most(f"{span}: lag p99, µs (SQL)", LAG_P99_US_MAX, store.lag_p99_us(where))
    report.equal("before: stale answers", 0, flagged(store, STALE, spans["before"]))
    stale = flagged(store, STALE, spans["stopped"])
    report.check("stopped: stale answers", "> 0", stale, stale)
    last = store.rows(f"SELECT max(ts) FROM metrics WHERE flags & {STALE}")[0][0]
    report.note("after: last stale answer, s", last and round((last - back_us) / 1e6, 1))
    report.equal(f"after: stale answers {SETTLE_S} s later", 0, flagged(store, STALE, f"ts >= {settled_us}"))
    for failure, count in store.rows("SELECT f.name, count(*) FROM metrics m JOIN failure_classes f ON "
                                     "f.code = m.failure WHERE m.outcome = 2 GROUP BY 1"):
        report.note(f"down with {failure}", count)


def flagged(store, flag, where):
    return store.rows(f"SELECT count(*) FROM metrics WHERE flags & {flag} AND {where}")[0][0]


def names_file(bench):
    text = [f'[defaults]\ninterval = "{INTERVAL_S}s"\ntimeout = "4s"\nfamily = "{bench.arguments.family}"\n']
    text += [f'[[endpoint]]\nname = "n{index}"\n'
             f'url = "http://n{index:04}.test:{bench.port}/bytes/256?endpoint={index}"\n' for index in range(NAMES)]
    return bench.write("names", "\n".join(text))


def now_us():
    return time.time_ns() // 1_000
