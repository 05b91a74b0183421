"""An origin for perf/load's patterns: pages of one long line each, which no pattern may judge before their end.

`ringprobe target` fills bodies with short lines, on the first of which the founding pattern is certain already.
`/?item=N` is 100 KB on one line, in which text and numbers look like the beginning of a match again and again; the
match itself is in its last hundred bytes, as is the one of `item N`. Standard library only.
"""

import asyncio
import re
import sys

PAGE_BYTES = 102_400
# As in benches/matcher.rs: letters that the lookaheads' tables wait for stand too close for skipping to pay.
LINE = (b"few of you know how we wonder if wolves were fit for halls of wood two feet wide, or if we fly off on "
        b"Friday; ")


def page(item, size_bytes=PAGE_BYTES):
    """The body that is served for an item."""
    tail = b"you are welcome: item %05d now in stock. Meet here today 42 at 10:30 AM" % item
    line_bytes = size_bytes - len(tail)
    return (LINE * (line_bytes // len(LINE) + 1))[:line_bytes] + tail


class Origin(asyncio.Protocol):
    """One connection: requests without bodies, answered as they come."""

    def connection_made(self, transport):
        self.transport, self.received = transport, b""

    def data_received(self, data):
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            item = re.search(rb"[?&]item=(\d{1,5})", head)
            body = page(int(item.group(1)) if item else 0)
            close = re.search(rb"(?i)\r\nconnection: *close", head)
            fields = b"Content-Length: %d\r\n%s" % (len(body), b"Connection: close\r\n" if close else b"")
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + fields + b"\r\n" + body)
            if close:
                self.transport.close()
                return


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
