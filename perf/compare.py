"""The measuring half of perf/compare, which builds what is measured and calls this.

Runs the tools in turn against one origin, round by round, each pinned to the same CPU and the origin to
another; takes each tool's CPU time from the kernel's account of the finished process (wait4), never from
the tool; prints medians, spreads and ratios, and records the run. Standard library only.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
MODES = ("keepalive", "fresh")
MODE_TITLES = {"keepalive": "keep-alive", "fresh": "a new connection per probe"}
# What a round may take beyond its measured seconds before it is given up.
GRACE_SECONDS = 20


class Unusable(Exception):
    """A round whose numbers cannot be used, and why."""


# --- the tools --------------------------------------------------------------------------------------------


class Tool:
    """One thing that makes probes: how to call it, and how to read how many it made."""

    def __init__(self, name, program):
        self.name = name
        self.program = program

    def version(self):
        return ""

    def works_in(self, mode):
        return True

    def speaks_tls(self):
        return True

    def measure(self, setup, mode, seconds):
        """One round: (probes, errors, user seconds, system seconds, wall seconds)."""
        status, output, usage, wall = run_pinned(self.command(setup, mode, seconds), setup.client_cpu, seconds)
        if status != 0:
            raise Unusable(f"{self.name}: exit status {status}: {output.strip()[-300:]}")
        probes, errors = self.parse(output)
        return probes, errors, usage.ru_utime, usage.ru_stime, wall

    def command(self, setup, mode, seconds):
        raise NotImplementedError

    def parse(self, output):
        raise NotImplementedError


class Ringprobe(Tool):
    def version(self):
        return first_line([self.program, "--version"])

    def command(self, setup, mode, seconds):
        fresh = ["--fresh"] if mode == "fresh" else []
        trust = ["env", f"SSL_CERT_FILE={setup.ca}"] if setup.ca else []
        return [*trust, self.program, "bench", setup.url, "--connections", str(setup.connections), *fresh,
                "--duration", f"{seconds}s", "--json"]

    def parse(self, output):
        summary = last_object(output)
        return summary["sampled"], summary.get("down", 0) + summary.get("dropped", 0)


class Floor(Tool):
    def command(self, setup, mode, seconds):
        if setup.ca:
            # A program of its own, which knows nothing but fresh connections.
            return [self.program, setup.address, "--ca", setup.ca, "--path", setup.path, "--connections",
                    str(setup.connections), "--duration", f"{seconds}s", "--cpu", str(setup.client_cpu), "--json"]
        fresh = ["--fresh"] if mode == "fresh" else []
        return [self.program, setup.address, "--path", setup.path, "--connections", str(setup.connections),
                *fresh, "--duration", f"{seconds}s", "--cpu", str(setup.client_cpu), "--json"]

    def parse(self, output):
        summary = last_object(output)
        return summary.get("exchanges", summary.get("probes")), summary.get("errors", 0)


class Wrk(Tool):
    def speaks_tls(self):
        # It does, but checks no certificate.
        return False

    def version(self):
        return first_line([self.program, "--version"]).split(" Copyright")[0]

    def command(self, setup, mode, seconds):
        close = ["-H", "Connection: close"] if mode == "fresh" else []
        return [self.program, "-t1", f"-c{setup.connections}", f"-d{seconds}s", *close, setup.url]

    def parse(self, output):
        made = re.search(r"(\d+) requests in ", output)
        if not made:
            raise Unusable(f"{self.name}: no count of requests in: {output[-300:]}")
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
        errors = int(refused.group(1)) if refused else 0
        errors += sum(map(int, broken.groups())) if broken else 0
        return int(made.group(1)), errors


class Oha(Tool):
    def version(self):
        return first_line([self.program, "--version"])

    def command(self, setup, mode, seconds):
        fresh = ["--disable-keepalive"] if mode == "fresh" else []
        # The name of the option changed in 1.9.
        json_option = ["--output-format", "json"]
        if "--output-format" not in output_of([self.program, "--help"]):
            json_option = ["--json"]
        trust = ["--cacert", setup.ca] if setup.ca else []
        return [self.program, "--no-tui", *json_option, "-z", f"{seconds}s", "-c", str(setup.connections),
                *fresh, *trust, setup.url]

    def parse(self, output):
        report = json.loads(output)
        by_status = report["statusCodeDistribution"]
        # Requests cut off by the end of the run are no fault of anybody's.
        errors = sum(n for text, n in report.get("errorDistribution", {}).items() if "deadline" not in text)
        errors += sum(n for status, n in by_status.items() if not status.startswith("2"))
        return sum(by_status.values()), errors


class Blackbox(Tool):
    """Driven over HTTP, as Prometheus drives it; the driver is wrk on the origin's CPU and is not counted.

    It opens a connection for every probe, so there is no keep-alive mode to measure.
    """

    def version(self):
        return first_line([self.program, "--version"])

    def works_in(self, mode):
        return mode == "fresh"

    def measure(self, setup, mode, seconds):
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory, "blackbox.yml")
            config.write_text("modules:\n  plain:\n    prober: http\n    http:\n"
                              "      preferred_ip_protocol: ip4\n      follow_redirects: false\n"
                              + (f"      tls_config:\n        ca_file: {setup.ca}\n" if setup.ca else ""))
            port = free_port()
            command = [self.program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
                       "--log.level=error"]
            started = time.monotonic()
            server = subprocess.Popen(pinned(command, setup.client_cpu), stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            try:
                await_port(port)
                url = f"http://127.0.0.1:{port}/probe?module=plain&target={setup.url}"
                driver = ["wrk", "-t1", f"-c{setup.connections}", f"-d{seconds}s", "--timeout", "10s", url]
                output = subprocess.run(pinned(driver, setup.origin_cpu), capture_output=True, text=True,
                                        timeout=seconds + GRACE_SECONDS, check=True).stdout
            finally:
                server.send_signal(signal.SIGTERM)
                _, _, usage = os.wait4(server.pid, 0)
                server.returncode = 0
            probes, errors = Wrk("wrk", "wrk").parse(output)
            return probes, errors, usage.ru_utime, usage.ru_stime, time.monotonic() - started


def tools_named(names, arguments):
    """The tools to compare. A name that stands twice is measured twice: `wrk`, `wrk#2`."""
    known = {
        "ringprobe": lambda: Ringprobe("ringprobe", arguments.ringprobe),
        "floor": lambda: Floor("floor", arguments.tls_floor if arguments.tls else arguments.floor),
        "wrk": lambda: Wrk("wrk", shutil.which("wrk")),
        "oha": lambda: Oha("oha", shutil.which("oha")),
        "blackbox": lambda: Blackbox("blackbox", shutil.which("blackbox_exporter")
                                     or shutil.which("prometheus-blackbox-exporter")),
    }
    tools = []
    for name in names:
        if name not in known:
            sys.exit(f"compare: no tool is called {name!r}: {', '.join(known)}")
        tool = known[name]()
        if not tool.program or not os.access(tool.program, os.X_OK):
            if arguments.tools:
                sys.exit(f"compare: {name} is not installed")
            continue
        if arguments.tls and not tool.speaks_tls():
            continue
        twins = sum(1 for other in tools if other.name.split("#")[0] == name)
        if twins:
            tool.name = f"{name}#{twins + 1}"
        tools.append(tool)
    return tools


# --- processes ---------------------------------------------------------------------------------------------


def pinned(command, cpu):
    return ["taskset", "--cpu-list", str(cpu), *command]


def run_pinned(command, cpu, seconds):
    """Runs a command on one CPU: its status, output, usage (all its threads, from its start) and time."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        child = subprocess.Popen(pinned(command, cpu), stdout=output, stderr=subprocess.STDOUT,
                                 stdin=subprocess.DEVNULL)
        try:
            usage = wait_for(child, started + seconds + GRACE_SECONDS)
        finally:
            if child.returncode is None:
                child.kill()
                os.wait4(child.pid, 0)
                child.returncode = -signal.SIGKILL
        wall = time.monotonic() - started
        output.seek(0)
        return child.returncode, output.read(), usage, wall


def wait_for(child, deadline):
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if deadline < time.monotonic():
            raise Unusable(f"{child.args[3]} did not end in time")
        time.sleep(0.02)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def await_port(port, process=None):
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"compare: nothing listens on 127.0.0.1:{port}")


def output_of(command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                          cwd=REPOSITORY)
    return done.stdout + done.stderr


def first_line(command):
    return (output_of(command).strip().splitlines() or [""])[0]


def last_object(output):
    """The JSON object that ends a tool's output."""
    start = output.find("{")
    if start < 0:
        raise Unusable(f"no JSON object in: {output[-300:]}")
    return json.loads(output[start:])


# --- measuring -----------------------------------------------------------------------------------------------


class Setup:
    """What is the same for every tool."""

    def __init__(self, arguments, port, ca=None):
        self.address = f"127.0.0.1:{port}"
        self.path = arguments.path
        # Over TLS, whom to trust.
        self.ca = ca
        self.url = f"https://localhost:{port}{self.path}" if ca else f"http://{self.address}{self.path}"
        self.connections = arguments.connections
        self.client_cpu = arguments.client_cpu
        self.origin_cpu = arguments.origin_cpu


def cpu_seconds(pid):
    """CPU time of a running process so far, all threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(tools, modes, setup, arguments, origin_pid):
    """Every round of every tool: a list of rows as in the CSV file."""
    rows = []
    for mode in modes:
        taking_part = [tool for tool in tools if tool.works_in(mode)]
        for tool in taking_part:
            # Not recorded: page cache, ports in TIME_WAIT and the origin's buffers come to their usual state.
            measure_once(tool, setup, mode, 1, origin_pid)
        for number in range(arguments.rounds):
            # Each round begins with another tool, so that none always follows the same other.
            shift = number % len(taking_part)
            for tool in taking_part[shift:] + taking_part[:shift]:
                row = {"mode": mode, "round": number + 1, "tool": tool.name}
                row |= measure_once(tool, setup, mode, arguments.seconds, origin_pid)
                rows.append(row)
                if not arguments.quiet:
                    print(f"{MODE_TITLES[mode]}, round {number + 1}/{arguments.rounds}: {tool.name:<12}"
                          f"{row['cpu_us_per_probe']:8.2f} µs {row['probes_per_s']:9.0f} probes/s",
                          file=sys.stderr)
    return rows


def measure_once(tool, setup, mode, seconds, origin_pid):
    origin_before = cpu_seconds(origin_pid) if origin_pid else 0
    probes, errors, user, system, wall = tool.measure(setup, mode, seconds)
    origin = (cpu_seconds(origin_pid) - origin_before) / wall if origin_pid else None
    if not probes:
        raise Unusable(f"{tool.name} made no probes")
    if probes // 1000 < errors:
        raise Unusable(f"{tool.name}: {errors} errors in {probes} probes")
    return {"probes": probes, "errors": errors, "seconds": round(wall, 4), "user_s": round(user, 6),
            "system_s": round(system, 6), "cpu_us_per_probe": round((user + system) / probes * 1e6, 4),
            "probes_per_s": round(probes / seconds, 1), "origin_cpu_share": None if origin is None else round(origin, 3)}


def summarise(rows, mode):
    """One line per tool, cheapest first: median, spread, and ratios paired round by round."""
    by_tool = {}
    for row in rows:
        if row["mode"] == mode:
            by_tool.setdefault(row["tool"], []).append(row)
    lines = []
    for tool, own in by_tool.items():
        costs = [row["cpu_us_per_probe"] for row in own]
        median = statistics.median(costs)
        lines.append({
            "tool": tool,
            "costs": costs,
            "median": median,
            "mad": statistics.median(abs(cost - median) for cost in costs),
            "min": min(costs),
            "max": max(costs),
            "probes_per_s": statistics.median(row["probes_per_s"] for row in own),
            "user_share": statistics.median(row["user_s"] / (row["user_s"] + row["system_s"]) for row in own),
            "origin": statistics.median(row["origin_cpu_share"] for row in own) if own[0]["origin_cpu_share"] else None,
            "to_wrk": paired_ratio(own, by_tool.get("wrk")),
            "to_floor": paired_ratio(own, by_tool.get("floor")),
        })
    return sorted(lines, key=lambda line: line["median"])


def paired_ratio(own, other):
    """Median of the ratios within each round: what drifts from round to round drops out."""
    if not other:
        return None
    return statistics.median(a["cpu_us_per_probe"] / b["cpu_us_per_probe"] for a, b in zip(own, other))


# --- showing ---------------------------------------------------------------------------------------------------


def table(lines):
    """A Markdown table, which is readable on a terminal too."""
    def ratio(value):
        return "–" if value is None else f"{value:.3f}"

    def share(value):
        return "–" if value is None else f"{value:.0%}"

    text = ["| tool | CPU µs per probe | MAD | min – max | user share | probes/s | origin's CPU | ÷ wrk | ÷ floor |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for line in lines:
        text.append(f"| {line['tool']} | {line['median']:.2f} | {line['mad']:.2f} | {line['min']:.2f} – "
                    f"{line['max']:.2f} | {line['user_share']:.0%} | {line['probes_per_s']:,.0f} | "
                    f"{share(line['origin'])} | {ratio(line['to_wrk'])} | {ratio(line['to_floor'])} |")
    return "\n".join(text)


COLOURS = {"ringprobe": "#c2410c", "floor": "#6b7280", "wrk": "#1d4ed8", "oha": "#7c3aed", "blackbox": "#047857"}


def plot(summaries, title):
    """Every round as a dot, medians as bars, on an axis from zero."""
    left, width, row_height, right = 110, 560, 34, 130
    parts, y = [], 56
    for mode, lines in summaries.items():
        # A tool a hundred times dearer would squeeze the others into one line: it is cut off, with its number.
        limit = min(max(line["max"] for line in lines), 3 * statistics.median(line["max"] for line in lines)) * 1.05
        scale = width / limit
        parts.append(f'<text x="{left}" y="{y}" class="mode">{MODE_TITLES[mode]}</text>')
        y += 14
        bottom = y + row_height * len(lines)
        for tick in ticks(limit):
            x = left + tick * scale
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{bottom}" class="grid"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" class="tick">{tick:g}</text>')
        for line in lines:
            middle = y + row_height / 2
            colour = COLOURS.get(line["tool"].split("#")[0], "#111827")
            bar = min(line["median"], limit) * scale
            parts.append(f'<text x="{left - 8}" y="{middle + 4}" class="tool">{line["tool"]}</text>')
            parts.append(f'<rect x="{left}" y="{middle - 9}" width="{bar:.1f}" height="18" fill="{colour}" '
                         'opacity="0.25"/>')
            parts.append(f'<line x1="{left + bar:.1f}" x2="{left + bar:.1f}" y1="{middle - 11}" '
                         f'y2="{middle + 11}" stroke="{colour}" stroke-width="2.5"/>')
            for index, cost in enumerate(line["costs"]):
                if cost <= limit:
                    offset = (index % 3 - 1) * 4
                    parts.append(f'<circle cx="{left + cost * scale:.1f}" cy="{middle + offset:.1f}" r="2.6" '
                                 f'fill="{colour}" opacity="0.8"/>')
            parts.append(f'<text x="{left + width + 8}" y="{middle + 4}" class="value">{line["median"]:.2f} '
                         f'± {line["mad"]:.2f}</text>')
            y += row_height
        y += 50
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + right} {y}" '
            'font-family="system-ui, sans-serif" font-size="12">\n<style>.mode{font-weight:600}'
            '.grid{stroke:#d1d5db}.tick{text-anchor:middle;fill:#6b7280}.tool{text-anchor:end}'
            '.title{font-size:15px;font-weight:600}</style>\n'
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n<text x="{left}" y="26" class="title">{title}</text>\n'
            + "\n".join(parts) + "\n</svg>\n")


def ticks(limit):
    step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
                if limit / step <= 8)
    return [index * step for index in range(int(limit / step) + 1)]


def machine():
    """What a reader needs to know to judge the numbers."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = re.search(r"MemTotal:\s*(\d+) kB", pathlib.Path("/proc/meminfo").read_text())
    virtual = first_line(["systemd-detect-virt"]) if shutil.which("systemd-detect-virt") else ""
    return {
        "machine": f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} CPUs, "
                   f"{int(memory.group(1)) / 2**20:.0f} GiB" + (f", {virtual}" if virtual not in ("", "none") else ""),
        "kernel": f"{platform.system()} {platform.release()}",
        "commit": first_line(["git", "describe", "--always", "--dirty", "--abbrev=12"]),
        "rustc": first_line(["rustc", "--version"]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def record(rows, summaries, tools, setup, arguments, facts):
    """Writes perf/runs/<date>-<name>/ and says where."""
    base = REPOSITORY / "perf" / "runs" / f"{facts['date'][:10]}-{arguments.name}"
    directory, number = base, 1
    while directory.exists():
        number += 1
        directory = base.with_name(f"{base.name}-{number}")
    directory.mkdir(parents=True)
    with open(directory / "rounds.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (directory / "plot.svg").write_text(plot(summaries, "CPU time per probe, µs (less is better)"), encoding="utf-8")
    given = shlex.join(arguments.given)
    text = [f"# CPU per probe, {facts['date'][:10]}", "",
            f"- command: `perf/compare{' ' + given if given else ''}`"]
    text += [f"- {key}: {value}" for key, value in facts.items()]
    versions = [f"{tool.name} ({tool.version()})" if tool.version() else tool.name for tool in tools]
    text += [f"- tools: {', '.join(versions)}",
             f"- origin: {'given by --origin' if arguments.origin else '`ringprobe target`'}, path `{setup.path}`, CPU "
             f"{setup.origin_cpu}{', over TLS' if setup.ca else ''}; clients on CPU {setup.client_cpu}, "
             f"{setup.connections} connections",
             f"- {arguments.rounds} rounds of {arguments.seconds} s per tool and mode, alternating; load average "
             f"at the start {arguments.load:.2f}", "",
             "Spread is the median absolute deviation over the rounds; ratios are medians of the ratios within a",
             "round. Method and caveats: `perf/README.md`. Every round: `rounds.csv`.", "", "![](plot.svg)", ""]
    for mode, lines in summaries.items():
        text += [f"## {MODE_TITLES[mode][0].upper()}{MODE_TITLES[mode][1:]}", "", table(lines), ""]
    (directory / "README.md").write_text("\n".join(text), encoding="utf-8")
    print(f"recorded: {directory.relative_to(REPOSITORY)}", file=sys.stderr)


# --- main ------------------------------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(prog="perf/compare", description="CPU time per probe of ringprobe and its peers.")
    parser.add_argument("--rounds", type=int, default=10, help="rounds per tool and mode (10)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds per round (5)")
    parser.add_argument("--connections", type=int, default=64, help="connections of each tool (64)")
    parser.add_argument("--modes", default=",".join(MODES), help="keepalive,fresh")
    parser.add_argument("--tls", action="store_true",
                        help="over TLS 1.3, a full handshake each; the floor is perf/tls-floor, and wrk takes no part")
    parser.add_argument("--tools", help="instead of every one that is installed: ringprobe,floor,wrk,oha,blackbox")
    parser.add_argument("--path", default="/bytes/128", help="what is asked for (/bytes/128)")
    parser.add_argument("--client-cpu", type=int, default=0, help="CPU of the tools (0)")
    parser.add_argument("--origin-cpu", type=int, default=1, help="CPU of the origin (1)")
    parser.add_argument("--origin", type=int, metavar="PORT", help="an origin that runs already, on 127.0.0.1")
    parser.add_argument("--name", default="compare", help="name of the recorded run (compare)")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--check", action="store_true", help="exit status 1 if ringprobe is dearer than wrk")
    parser.add_argument("--quiet", action="store_true", help="no line per round")
    parser.add_argument("--ringprobe", help=argparse.SUPPRESS)
    parser.add_argument("--floor", help=argparse.SUPPRESS)
    parser.add_argument("--tls-floor", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.given = without_hidden(sys.argv[1:])
    arguments.load = os.getloadavg()[0]
    if arguments.rounds < 1 or arguments.seconds < 1 or arguments.connections < 1:
        parser.error("rounds, seconds and connections are at least 1")
    if arguments.modes and not set(arguments.modes.split(",")) <= set(MODES):
        parser.error(f"modes are {', '.join(MODES)}")
    if arguments.tls:
        arguments.modes = "fresh"
        if arguments.origin:
            parser.error("--tls starts an origin of its own: leave --origin out")
    cpus = os.sched_getaffinity(0)
    if not {arguments.client_cpu, arguments.origin_cpu} <= cpus:
        parser.error(f"this process may use the CPUs {sorted(cpus)}: choose --client-cpu and --origin-cpu from them")
    return arguments


def without_hidden(words):
    """The arguments as the user gave them, without those that perf/compare adds in front."""
    kept = list(words)
    for hidden in ("--ringprobe", "--floor", "--tls-floor"):
        if hidden in kept:
            index = kept.index(hidden)
            del kept[index:index + 2]
    return kept


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        return compare(arguments, pathlib.Path(scratch))


def certificates(scratch):
    """An authority and a server certificate of its, ECDSA on P-256: the files (ca, cert, key)."""
    ca, ca_key, cert, key = (str(scratch / name) for name in ("ca.pem", "ca.key", "cert.pem", "key.pem"))
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"]
    for command in (
            ["req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-subj", "/CN=authority"],
            ["req", "-x509", *new_key, "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-CA", ca, "-CAkey",
             ca_key, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext",
             "basicConstraints=critical,CA:FALSE"]):
        done = subprocess.run(["openssl", *command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              check=False)
        if done.returncode:
            sys.exit(f"compare: openssl: {done.stderr.strip()[-300:]}")
    return ca, cert, key


def compare(arguments, scratch):
    tools = tools_named((arguments.tools or "ringprobe,floor,wrk,oha,blackbox").split(","), arguments)
    origin = None
    if arguments.origin:
        setup = Setup(arguments, arguments.origin)
    else:
        port = free_port()
        ca, cert, key = certificates(scratch) if arguments.tls else (None, None, None)
        setup = Setup(arguments, port, ca)
        command = [arguments.ringprobe, "target", "--listen", f"127.0.0.1:{port}"]
        if ca:
            command += ["--tls-cert", cert, "--tls-key", key]
        origin = subprocess.Popen(pinned(command, arguments.origin_cpu), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL)
    try:
        await_port(int(setup.address.rpartition(":")[2]), origin)
        modes = arguments.modes.split(",")
        rows = measure(tools, modes, setup, arguments, origin.pid if origin else None)
    finally:
        if origin:
            origin.terminate()
            try:
                origin.wait(timeout=10)
            except subprocess.TimeoutExpired:
                origin.kill()
    summaries = {mode: summarise(rows, mode) for mode in modes}
    facts = machine()
    for mode, lines in summaries.items():
        print(f"\n{MODE_TITLES[mode]}, {setup.connections} connections, {facts['kernel']}, {facts['machine']}\n")
        print(table(lines))
    if not arguments.no_record:
        record(rows, summaries, tools, setup, arguments, facts)
    dearer = [mode for mode, lines in summaries.items() for line in lines
              if line["tool"] == "ringprobe" and line["to_wrk"] is not None and 1.0 < line["to_wrk"]]
    for mode in dearer:
        print(f"ringprobe takes more CPU per probe than wrk: {MODE_TITLES[mode]}", file=sys.stderr)
    return 1 if dearer and arguments.check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unusable as reason:
        sys.exit(f"compare: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)
