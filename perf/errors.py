"""perf/accuracy's main scenario: the error of measured latency, load by load, and that of peers. Standard library only.
"""

import json
import math
import statistics
import subprocess
import sys

from compare import GRACE_SECONDS, Unusable
from peers import peers, seconds_of

LOADS = (10, 50, 70, 90, 120)
# At this load the peers are asked, and the error is judged,
PEERS_AT = 70
P99_US_MAX = 20
# and must be so many times smaller than theirs;
TIMES_SMALLER = 20
# and here, where the prober cannot keep up, errors are judged again.
OVERLOADED_AT = 120
OVERLOADED_P99_US_MAX = 50
MODE_TITLES = {"keepalive": "keep-alive", "fresh": "a new connection per probe"}


def errors(report, arguments):
    """Every mode and hold: rows as in loads.csv."""
    rows = []
    for mode in arguments.modes.split(","):
        for hold in arguments.holds.split(","):
            report.begin(f"{mode}-{hold}", f"Answers held for {hold}, {MODE_TITLES[mode]}")
            own = [row for _ in range(arguments.rounds) for row in ringprobe(arguments, mode, hold)]
            rows += own
            at = {load: [row for row in own if row["load_percent"] == load] for load in LOADS}
            rate = statistics.median(row["rate_per_s"] for row in at[PEERS_AT])
            judged = median(at[PEERS_AT], "error_p99_us")
            what = f"absolute error at p99, {PEERS_AT} % load, µs (median of {arguments.rounds})"
            report.at_most(what, P99_US_MAX, judged)
            report.note("the same without the kernel's stamps, µs", median(at[PEERS_AT], "user_error_p99_us"))
            for peer in peers():
                if not peer.works_in(mode):
                    continue
                found = [peer_row(peer, arguments, mode, hold, rate) for _ in range(arguments.rounds)]
                rows += found
                wrong = median(found, "error_p99_us")
                what = f"{peer.name} at {median(found, 'probes_per_s'):,.0f} probes/s: its error at p99 ÷ ours"
                times = f"{wrong / max(judged, 0.1):.1f} ({wrong:.0f} µs)"
                if peer.name == "blackbox":
                    report.note(what, times)
                else:
                    report.check(what, f"≥ {TIMES_SMALLER}", times, wrong >= TIMES_SMALLER * judged)
            report.at_most(f"absolute error at p99, {OVERLOADED_AT} % load, µs", OVERLOADED_P99_US_MAX,
                           median(at[OVERLOADED_AT], "error_p99_us"))
            verdicts = {row["verdict"] for row in at[OVERLOADED_AT]}
            report.equal(f"verdict at {OVERLOADED_AT} %", ["INVALID"], sorted(verdicts))
            report.note(f"lag at p99, µs, and slots missed at {OVERLOADED_AT} %",
                        f"{median(at[OVERLOADED_AT], 'lag_p99_us'):.0f}, {median(at[OVERLOADED_AT], 'missed'):.0f}")
    return rows


def median(rows, column):
    return round(statistics.median(row[column] for row in rows), 1)


def ringprobe(arguments, mode, hold):
    """One report of `bench --accuracy` as rows."""
    fresh = ["--fresh"] if mode == "fresh" else []
    command = [arguments.ringprobe, "bench", "--accuracy", "--hold", hold, *fresh, "--loads",
               ",".join(map(str, LOADS)), "--duration", f"{arguments.seconds}s", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                          timeout=len(LOADS) * (arguments.seconds + GRACE_SECONDS))
    if done.returncode:
        raise Unusable(f"bench --accuracy: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    rows = []
    for load in found["loads"]:
        if not load["abs_error_us"]:
            raise Unusable(f"nothing was compared at {load['load_percent']} %: {load['reasons']}")
        rows.append(row(mode, hold, "ringprobe", load["load_percent"], load["rate_per_s"], load["probes_per_s"],
                        load["true_us"], load["abs_error_us"]["p50"], load["abs_error_us"]["p99"])
                    | {"error_p999_us": load["abs_error_us"]["p999"], "error_max_us": load["abs_error_us"]["max"],
                       "user_error_p50_us": load["user_abs_error_us"]["p50"],
                       "user_error_p99_us": load["user_abs_error_us"]["p99"], "lag_p99_us": load["lag_us"]["p99"],
                       "missed": load["missed"], "verdict": load["verdict"]})
        print(f"   {hold:>6} {mode:<9} {load['load_percent']:>4} %: absolute error at p99 "
              f"{load['abs_error_us']['p99']:.1f} µs, without stamps {load['user_abs_error_us']['p99']:.1f} µs, "
              f"{load['verdict']}", file=sys.stderr)
    return rows


def peer_row(peer, arguments, mode, hold, rate):
    own, true, made = peer.measure(arguments, mode, hold, rate)
    return row(mode, hold, peer.name, PEERS_AT, rate, made, true, abs(own["p50"] - true["p50"]),
               abs(own["p99"] - true["p99"]))


def row(mode, hold, tool, load_percent, rate, made, true, error_p50, error_p99):
    empty = dict.fromkeys(("error_p999_us", "error_max_us", "user_error_p50_us", "user_error_p99_us", "lag_p99_us",
                           "missed", "verdict"))
    return {"mode": mode, "hold": hold, "tool": tool, "load_percent": load_percent, "rate_per_s": round(rate),
            "probes_per_s": round(made), "true_p50_us": true["p50"], "true_p99_us": true["p99"],
            "error_p50_us": round(error_p50, 1), "error_p99_us": round(error_p99, 1)} | empty


# --- showing ---------------------------------------------------------------------------------------------------------

COLOURS = {"ringprobe": "#c2410c", "without stamps": "#d97706", "wrk": "#1d4ed8", "oha": "#7c3aed",
           "blackbox": "#047857"}
LOW_US, DECADES = 1, 5  # The axis: 1 µs to 100 ms.


def table(rows):
    text = ["| held | load | tool | probes/s | error p50, µs | p99 | p99.9 | without stamps p99 | lag p99 | missed | |",
            "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for found in rows:
        cells = [found["hold"], f"{found['load_percent']} %", found["tool"], f"{found['probes_per_s']:,}",
                 found["error_p50_us"], found["error_p99_us"], found["error_p999_us"], found["user_error_p99_us"],
                 found["lag_p99_us"], found["missed"], found["verdict"]]
        text.append("| " + " | ".join("–" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(text)


def plot(rows):
    """One panel per mode and hold: error at p99, on a logarithmic axis, against load."""
    panels = list(dict.fromkeys((found["mode"], found["hold"]) for found in rows))
    parts, width, height = [], 300, 190
    for index, panel in enumerate(panels):
        left, top = 60 + index % 4 * (width + 50), 60 + index // 4 * (height + 70)
        own = [found for found in rows if (found["mode"], found["hold"]) == panel]
        parts += draw_panel(panel, own, left, top, width, height)
    legend = "".join(f'<tspan fill="{colour}" dx="14">● {name}</tspan>' for name, colour in COLOURS.items())
    columns, lines = min(max(len(panels), 2), 4), -(-len(panels) // 4)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {40 + columns * (width + 50)} '
            f'{50 + lines * (height + 70)}" font-family="system-ui, sans-serif" font-size="12">\n'
            '<style>.grid{stroke:#d1d5db}.tick{fill:#6b7280}.mode{font-weight:600}</style>\n'
            '<rect width="100%" height="100%" fill="#ffffff"/>\n'
            f'<text x="46" y="24">Absolute error at p99, µs, against load, % of capacity{legend}</text>\n'
            + "\n".join(parts) + "\n</svg>\n")


def draw_panel(panel, rows, left, top, width, height):
    mode, hold = panel

    def x(load):
        return left + width * load / 130

    def y(us):
        share = math.log10(max(us, LOW_US) / LOW_US) / DECADES
        return top + height * (1 - min(share, 1))

    parts = [f'<text x="{left}" y="{top - 10}" class="mode">{MODE_TITLES[mode]}, held {hold}</text>']
    for decade in range(DECADES + 1):
        at = y(LOW_US * 10**decade)
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" class="tick" text-anchor="end">{10**decade:,}</text>')
    for load in LOADS:
        parts.append(f'<text x="{x(load):.1f}" y="{top + height + 16}" class="tick" text-anchor="middle">{load}</text>')
    for name, column in (("ringprobe", "error_p99_us"), ("without stamps", "user_error_p99_us")):
        own = [found for found in rows if found["tool"] == "ringprobe"]
        line = [(load, statistics.median(found[column] for found in own if found["load_percent"] == load))
                for load in sorted({found["load_percent"] for found in own})]
        points = " ".join(f"{x(load):.1f},{y(us):.1f}" for load, us in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(load):.1f}" cy="{y(us):.1f}" r="3" fill="{COLOURS[name]}"/>' for load, us in line]
    for found in rows:
        if found["tool"] in COLOURS and found["tool"] != "ringprobe":
            parts.append(f'<circle cx="{x(found["load_percent"]):.1f}" cy="{y(found["error_p99_us"]):.1f}" r="4.5" '
                         f'fill="{COLOURS[found["tool"]]}"/>')
    return parts
