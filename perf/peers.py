"""What peers report as latency, for perf/accuracy: a quantile of theirs against the origin's of the same run.

Their output is a distribution without its requests, so nothing can be matched: the error is the difference of two
quantiles, which flatters whoever is wrong in both directions. Each tool says its own figures; what it counts from and
to is in perf/README.md. Standard library only.
"""

import concurrent.futures
import http.client
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

from compare import GRACE_SECONDS, Unusable, await_port, first_line, free_port, last_object, output_of, pinned

WRK_SCRIPT = """done = function(summary, latency, requests)
  io.write(string.format('{"p50": %.1f, "p99": %.1f, "requests": %d, "us": %d}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration))
end
"""
# blackbox_exporter is asked for one probe after the other, by so many at a time.
BLACKBOX_DRIVERS = 4


def quantile(values, part):
    """The least value that so many are not above; None of none."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * round(part * 1000) // 1000) - 1, 0)] if ordered else None


def seconds_of(hold):
    """`0`, `10ms` or `1s` in seconds."""
    number, unit = re.fullmatch(r"(\d+)(us|ms|s|)", hold).groups()
    return int(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "": 0}[unit]


class HoldingOrigin:
    """`ringprobe target --hold`, from its first to its last word."""

    def __init__(self, arguments, hold="1ms", more=()):
        self.port = free_port()
        command = [arguments.ringprobe, "target", "--listen", f"127.0.0.1:{self.port}", "--hold", hold, "--json", *more]
        self.process = subprocess.Popen(pinned(command, arguments.origin_cpu), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, text=True)
        await_port(self.port, self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def url(self, path="/1"):
        return f"http://127.0.0.1:{self.port}{path}"

    def truth(self):
        """Ends it: what it says of itself."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=GRACE_SECONDS)
        found = json.loads(output.strip().splitlines()[-1])
        if not found["true_us"]:
            raise Unusable("the origin was asked nothing")
        return found


class Peer:
    """Asked for a load, it says p50 and p99 in µs, and how many probes per second it made."""

    def __init__(self, name, program):
        self.name = name
        self.program = program

    def version(self):
        return first_line([self.program, "--version"]).split(" Copyright")[0]

    def works_in(self, _mode):
        return True

    def measure(self, arguments, mode, hold, rate):
        """(what it reports, what is true), both with p50 and p99 in µs, and probes per second."""
        with HoldingOrigin(arguments, hold) as origin:
            own, rate = self.ask(arguments, origin, mode, seconds_of(hold), rate)
            return own, origin.truth()["true_us"], rate

    def ask(self, arguments, origin, mode, hold_s, rate):
        raise NotImplementedError

    def run(self, command, arguments, seconds):
        done = subprocess.run(pinned(command, arguments.client_cpu), capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=seconds + GRACE_SECONDS)
        if done.returncode:
            raise Unusable(f"{self.name}: exit status {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
        return done.stdout


class Wrk(Peer):
    """It knows no rate: the load is made by as many connections as keep it up, each waiting for its answer."""

    def measure(self, arguments, mode, hold, rate):
        connections, best = max(1, round(rate * seconds_of(hold))), None
        while True:
            with HoldingOrigin(arguments, hold) as origin:
                own, made = self.at(arguments, origin, mode, connections)
                found = own, origin.truth()["true_us"], made
            if made >= 0.95 * rate:
                return found
            if best and made < 1.05 * best[2]:
                # It makes no more: what it says with fewer of them is nearer to the truth.
                return best
            best, connections = found, connections * 3 // 2 + 1

    def at(self, arguments, origin, mode, connections):
        script = pathlib.Path(arguments.scratch, "wrk.lua")
        script.write_text(WRK_SCRIPT, encoding="ascii")
        close = ["-H", "Connection: close"] if mode == "fresh" else []
        output = self.run([self.program, "-t1", f"-c{connections}", f"-d{arguments.seconds}s", *close, "-s", script,
                           origin.url()], arguments, arguments.seconds)
        found = last_object(output[output.rindex("{"):])
        return found, found["requests"] * 1e6 / found["us"]

    def ask(self, arguments, origin, mode, hold_s, rate):
        raise NotImplementedError("it needs an origin for each try")


class Oha(Peer):
    def ask(self, arguments, origin, mode, hold_s, rate):
        fresh = ["--disable-keepalive"] if mode == "fresh" else []
        json_option = ["--output-format", "json"]
        if "--output-format" not in output_of([self.program, "--help"]):
            json_option = ["--json"]
        connections = 256 + round(1.5 * rate * hold_s)
        output = self.run([self.program, "--no-tui", *json_option, "-z", f"{arguments.seconds}s", "-c",
                           str(connections), "-q", str(round(rate)), *fresh, origin.url()], arguments,
                          arguments.seconds)
        found = json.loads(output)
        points = found["latencyPercentiles"]
        return {"p50": points["p50"] * 1e6, "p99": points["p99"] * 1e6}, found["summary"]["requestsPerSec"]


class Blackbox(Peer):
    """Its own rate, which is far below anybody's load; processing is what it calls the wait for the first byte."""

    def works_in(self, mode):
        return mode == "fresh"

    def ask(self, arguments, origin, mode, hold_s, rate):
        config = pathlib.Path(arguments.scratch, "blackbox.yml")
        config.write_text("modules:\n  plain:\n    prober: http\n    http:\n      preferred_ip_protocol: ip4\n",
                          encoding="ascii")
        port = free_port()
        command = [self.program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
                   "--log.level=error"]
        server = subprocess.Popen(pinned(command, arguments.client_cpu), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await_port(port, server)
            until = time.monotonic() + arguments.seconds
            with concurrent.futures.ThreadPoolExecutor(BLACKBOX_DRIVERS) as pool:
                parts = [pool.submit(self.drive, port, origin.url(), until) for _ in range(BLACKBOX_DRIVERS)]
                found = [us for part in parts for us in part.result()]
        finally:
            server.terminate()
            server.wait(timeout=GRACE_SECONDS)
        return {"p50": quantile(found, 0.5), "p99": quantile(found, 0.99)}, len(found) / arguments.seconds

    def drive(self, port, url, until):
        found = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GRACE_SECONDS)
        while time.monotonic() < until:
            connection.request("GET", f"/probe?module=plain&target={url}")
            text = connection.getresponse().read().decode()
            said = re.search(r'probe_http_duration_seconds{phase="processing"} (\S+)', text)
            if not said:
                raise Unusable(f"{self.name}: no phase called processing in: {text[-300:]}")
            found.append(float(said.group(1)) * 1e6)
        return found


def peers():
    """Those that are installed."""
    known = [Wrk("wrk", shutil.which("wrk")), Oha("oha", shutil.which("oha")),
             Blackbox("blackbox", shutil.which("blackbox_exporter") or shutil.which("prometheus-blackbox-exporter"))]
    return [peer for peer in known if peer.program]
