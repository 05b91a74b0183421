"""The scenarios of perf/load about body patterns: what matching costs in memory and time, and whom it delays.

Every figure is a difference between two runs that differ in the patterns alone (or in the large body alone): of
memory, of CPU, of lag. What matching should cost is computed from the bytes of the bodies and the speed that
`ringprobe pattern test` finds on the same text.
"""

import json
import pathlib
import statistics
import subprocess
import sys

from bench import GRACE_SECONDS, LAG_P99_US_MAX, Sqlite, account_for
from compare import REPOSITORY, free_port
from pages import PAGE_BYTES, page

FOUNDING = (REPOSITORY / "tests/data/patterns/founding.txt").read_text(encoding="utf-8").strip()
# Of each sort: half of the endpoints have the founding pattern, half an ordinary one of their own.
EACH = 5_000
INTERVAL_S = 60
ONE_SHARD = ["--cores", "1"]
RSS_GROWTH_MIB_MAX = 50
# Cost is compared between two runs of a minute, on a machine that has other things to do as well.
SHARE_POINTS_MAX = 10
# A page is over too soon to be timed.
SPEED_BYTES = 4_000_000
SPEED_RUNS = 7

# `.` may be a newline, so that no line of the body decides; and none of the text that is skipped to is far away.
BIG_PATTERN = "(?s)" + FOUNDING
NEIGHBOURS = 1_000
# Two runs of the same thing differ by as much.
LAG_MOVE_US_MAX = 200


# What people write. Each endpoint has one of these with a number of its own; the first, with a counted gap, has by far
# the largest table.
ORDINARY = ["item {:05}[^<]{{0,20}} in stock", "item {:05} now", r"item\s+{:05}\s+now", r"(?i)ITEM {:05}\b.*in stock",
            ": item {:05} [a-z ]+ stock"]


def pattern_of(index):
    """Half of them alike, half of their own."""
    return FOUNDING if index < EACH else ORDINARY[index % len(ORDINARY)].format(index)


def with_gap_of(index):
    """The same, but for the largest of the ordinary ones on all endpoints that have one."""
    return FOUNDING if index < EACH else ORDINARY[0].format(index)


# --- memory and time -------------------------------------------------------------------------------------------------


def patterns(report, bench):
    """10,000 endpoints with patterns on bodies of 100 KB, next to the same without."""
    seconds = bench.arguments.seconds
    port = free_port()
    bench.serve("pages", port, [sys.executable, str(pathlib.Path(__file__).with_name("pages.py")), str(port)])
    base, _ = pages_run(report, bench, port, "patterns-without", "no patterns", lambda _: "", seconds)
    summary, store = pages_run(report, bench, port, "patterns", f"{EACH:,} with the founding pattern, {EACH:,} with "
                               "one of their own", lambda index: f"body_match = ['{pattern_of(index)}']", seconds)
    matched = store.rows("SELECT count(*) FROM metrics WHERE body = 1")[0][0]
    report.equal("matched", summary["sampled"], matched)

    founding = test(bench, FOUNDING)
    own = [test(bench, ORDINARY[sort].format(EACH)) for sort in range(len(ORDINARY))]
    for name, found in [("founding", founding), *((f"ordinary {sort + 1}", each) for sort, each in enumerate(own))]:
        late = found["body_bytes"] - found["certain_after_bytes"] < 100
        report.check(f"{name} pattern: certain at the end only, after bytes", f"of {found['body_bytes']}",
                     found["certain_after_bytes"], late and found["verdict"] == "matched")
    memory(report, bench, port, base, summary, founding, own)
    share_of_matching(report, base, summary, store, founding, own)


def memory(report, bench, port, base, summary, founding, own):
    """What patterns take, and how much of that is not their tables."""
    def growth_mib(other):
        return round((other["rss_bytes"] - base["rss_bytes"]) / 2**20, 1)

    def short_run(name, field_of):
        file = pages_file(bench, port, name, field_of)
        return bench.run(file, Sqlite(bench.scratch / f"{name}.db"), 5, ONE_SHARD)[0]

    report.at_most("memory growth by patterns, MiB", RSS_GROWTH_MIB_MAX, growth_mib(summary))
    tables_bytes = founding["bytes"] + EACH * statistics.mean(each["bytes"] for each in own)
    report.note("of it tables, as computed, MiB", round(tables_bytes / 2**20, 1))
    # Options that differ make a profile each, whatever they are.
    profiles = short_run("profiles", lambda index: f'user_agent = "{max(index, EACH)}"')
    report.note(f"growth if {EACH:,} differ in another option instead, MiB", growth_mib(profiles))
    gaps = short_run("gaps", lambda index: f"body_match = ['{with_gap_of(index)}']")
    report.note(f"growth if all {EACH:,} have a counted gap ({own[0]['bytes']:,} bytes each), MiB", growth_mib(gaps))


def pages_file(bench, port, name, field_of):
    text = [f'[defaults]\ntimeout = "10s"\ninterval = "{INTERVAL_S}s"\n']
    for index in range(2 * EACH):
        sort = "founding" if index < EACH else "own"
        text.append(f'[[endpoint]]\nname = "{sort}{index}"\nurl = "http://127.0.0.1:{port}/?item={index}"\n'
                    f'{field_of(index)}\n')
    return bench.write(name, "\n".join(text))


def pages_run(report, bench, port, name, what, field_of, seconds):
    report.begin(name, f"10,000 endpoints at {INTERVAL_S} s, bodies of 100 KB, one shard, {seconds} s: {what}")
    store = Sqlite(bench.scratch / f"{name}.db")
    summary, status = bench.run(pages_file(bench, port, name, field_of), store, seconds, ONE_SHARD)
    account_for(report, summary, status, store)
    report.at_most("lag p99, µs (SQL)", LAG_P99_US_MAX, store.lag_p99_us())
    read = store.rows(f"SELECT count(*) FROM metrics WHERE bytes_in < {PAGE_BYTES}")[0][0]
    report.equal("bodies cut short", 0, read)
    return summary, store


def test(bench, pattern):
    """What `pattern test` says of a pattern on a long text like the pages, its speed being the median of a few."""
    text = bench.scratch / "page"
    text.write_bytes(page(EACH, SPEED_BYTES))
    found = []
    for _ in range(SPEED_RUNS):
        done = subprocess.run([bench.arguments.ringprobe, "pattern", "test", pattern, str(text), "--json"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True,
                              timeout=GRACE_SECONDS)
        found.append(json.loads(done.stdout))
    return found[0] | {"mb_per_s": statistics.median(each["mb_per_s"] for each in found)}


def share_of_matching(report, base, summary, store, founding, own):
    """Measured by what the process took more, and by what each sort's handling took; and computed."""
    measured_us = summary["cpu_us_per_probe"] - base["cpu_us_per_probe"]
    # Bytes per microsecond are megabytes per second.
    computed_us = {"founding": PAGE_BYTES / founding["mb_per_s"],
                   "own": statistics.mean(PAGE_BYTES / each["mb_per_s"] for each in own)}
    report.note("speed of the founding pattern, and of each ordinary one, MB/s",
                ", ".join(f"{found['mb_per_s']:.0f}" for found in [founding, *own]))
    report.note("CPU per probe, µs: without, with",
                f"{base['cpu_us_per_probe']:.0f}, {summary['cpu_us_per_probe']:.0f}")
    for sort, us in computed_us.items():
        handled = store.rows("SELECT avg(m.cpu_ns) / 1e3 FROM metrics m JOIN endpoints e USING (endpoint_id) "
                             f"WHERE m.outcome = 1 AND e.name LIKE '{sort}%'")[0][0]
        report.note(f"{sort}: matching as computed, and all handling of its bytes, µs per probe",
                    f"{us:.0f}, {handled:.0f}")
    each_us = statistics.mean(computed_us.values())
    report.note("matching, µs per probe: computed, measured", f"{each_us:.0f}, {measured_us:.0f}")
    computed = 100 * each_us / (base["cpu_us_per_probe"] + each_us)
    measured = 100 * measured_us / summary["cpu_us_per_probe"]
    report.check("share of matching in CPU, measured, %", f"{computed:.0f} ± {SHARE_POINTS_MAX} (computed)",
                 round(measured), abs(measured - computed) <= SHARE_POINTS_MAX)


# --- neighbours ------------------------------------------------------------------------------------------------------


def neighbour(report, bench):
    """One body of 100 MB with an unlucky pattern must not be felt by the shard's other endpoints."""
    seconds, big_bytes = bench.arguments.seconds, bench.arguments.big_bytes
    interval_s = 10 if 30 <= seconds else 2
    alone = neighbours_run(report, bench, "neighbours-alone", f"{NEIGHBOURS:,} endpoints at 5 s, one shard", "",
                           seconds)
    alone_us = alone.lag_p99_us()
    report.at_most("lag p99, µs (SQL)", LAG_P99_US_MAX, alone_us)
    big = (f'[[endpoint]]\nname = "big"\nurl = "http://127.0.0.1:{bench.port}/bytes/{big_bytes}"\n'
           f'interval = "{interval_s}s"\ntimeout = "{interval_s - 1}s"\nbody_limit = "200MiB"\n'
           f"body_forbid = ['{BIG_PATTERN}']\n")
    store = neighbours_run(report, bench, "neighbours", f"the same, and one at {interval_s} s with a body of "
                           f"{big_bytes / 1e6:.0f} MB and an unlucky pattern", big, seconds)
    its = "endpoint_id = (SELECT endpoint_id FROM endpoints WHERE name = 'big')"
    probes, short, total_ms = store.rows(
        f"SELECT count(*), sum(bytes_in < {big_bytes} OR body <> 1), avg(total_us) / 1e3 FROM metrics WHERE {its}")[0]
    report.check("large bodies, matched to their end", "> 0, all", f"{probes - (short or 0)} of {probes}",
                 probes and not short)
    report.note("one takes, ms", total_ms and round(total_ms))
    others_us = store.lag_p99_us(f"NOT {its}")
    report.at_most("lag p99 of the others, µs (SQL)", LAG_P99_US_MAX, others_us)
    report.check("the same next to no large body, µs", f"{others_us} ± {LAG_MOVE_US_MAX}", alone_us,
                 others_us - alone_us <= LAG_MOVE_US_MAX)
    during = (f"NOT {its} AND EXISTS (SELECT 1 FROM metrics b WHERE b.{its} AND metrics.ts BETWEEN b.ts AND "
              "b.ts + b.total_us)")
    report.at_most("lag p99 of the others while it comes, µs (SQL)", LAG_P99_US_MAX, store.lag_p99_us(during))
    count, most = store.rows(f"SELECT count(*), max(lag_us) FROM metrics WHERE {during}")[0]
    report.note("probes of others meanwhile, and their greatest lag, µs", f"{count}, {most}")


def neighbours_run(report, bench, name, what, more, seconds):
    report.begin(name, f"{what}, {seconds} s")
    text = ['[defaults]\ninterval = "5s"\ntimeout = "4s"\n', more]
    text += [f'[[endpoint]]\nname = "e{index}"\nurl = "http://127.0.0.1:{bench.port}/bytes/256?endpoint={index}"\n'
             for index in range(NEIGHBOURS)]
    store = Sqlite(bench.scratch / f"{name}.db")
    summary, status = bench.run(bench.write(name, "\n".join(text)), store, seconds, ONE_SHARD)
    account_for(report, summary, status, store)
    return store
