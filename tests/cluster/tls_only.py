#!/usr/bin/env python3
"""Judges a capture (pcap, on standard input) of a meshed pod's network: is all of it TLS?

    tls_only.py MARKER

Prints what it saw, and ends with 1 if there was any TCP payload other than TLS records to or from the peers' and the
controller's ports, or MARKER anywhere, or nothing to judge. The proxy's own answers to the kubelet and to Prometheus (port
15020) do not count: they are plaintext by design and carry nothing of an application.
"""

import ipaddress
import struct
import sys

TLS_PORTS = {15008, 15012}
OBSERVED_PORT = 15020
ETHERNET = 1
# RFC 8446 section 5.1 and 5.2: change_cipher_spec to application_data, and what an encrypted record may carry.
RECORD_TYPES = range(20, 24)
RECORD_MAX = 16384 + 256


def packets(capture: bytes):
    """The TCP segments of a capture: addresses and ports, sequence number, whether it opens, payload."""
    magic, link = struct.unpack("<I16xI", capture[:24])
    if magic != 0xA1B2C3D4 or link != ETHERNET:
        sys.exit("not a little-endian pcap of Ethernet")
    at = 24
    while at + 16 <= len(capture):
        length = struct.unpack("<I", capture[at + 8 : at + 12])[0]
        frame = capture[at + 16 : at + 16 + length]
        at += 16 + length
        kind = frame[12:14]
        if kind == b"\x08\x00" and frame[23] == 6:
            header = 14 + (frame[14] & 15) * 4
            end = 14 + struct.unpack(">H", frame[16:18])[0]
            addresses = frame[26:30], frame[30:34]
        elif kind == b"\x86\xdd" and frame[20] == 6:
            header, end = 54, 54 + struct.unpack(">H", frame[18:20])[0]
            addresses = frame[22:38], frame[38:54]
        else:
            continue
        source_port, target_port, sequence = struct.unpack(">HHI", frame[header : header + 8])
        data = header + (frame[header + 12] >> 4) * 4
        opens = frame[header + 13] & 2 != 0
        yield (addresses[0], source_port, addresses[1], target_port), sequence, opens, frame[data:end]


class Direction:
    """One direction of a connection, put in order; it began, or was idle, when the capture did."""

    def __init__(self):
        self.next = None
        self.early = {}
        self.bytes = bytearray()

    def take(self, sequence: int, opens: bool, payload: bytes) -> None:
        if opens:
            self.next = (sequence + 1) % 2**32
        if not payload:
            return
        if self.next is None:
            self.next = sequence
        self.early[sequence] = max(self.early.get(sequence, b""), payload, key=len)
        while self.next in self.early:
            piece = self.early.pop(self.next)
            self.bytes += piece
            self.next = (self.next + len(piece)) % 2**32

    def records(self) -> int | None:
        """How many records there are; none if something is no record. The last may be cut off by the capture's end."""
        at, count = 0, 0
        while at + 5 <= len(self.bytes):
            kind, major, length = struct.unpack(">BBxH", self.bytes[at : at + 5])
            if kind not in RECORD_TYPES or major != 3 or length > RECORD_MAX:
                return None
            at += 5 + length
            count += 1
        return count


def main() -> None:
    marker = sys.argv[1].encode()
    capture = sys.stdin.buffer.read()
    directions = {}
    for flow, sequence, opens, payload in packets(capture):
        if OBSERVED_PORT not in (flow[1], flow[3]):
            directions.setdefault(flow, Direction()).take(sequence, opens, payload)
    records, total, wrong = 0, 0, []
    for (source, source_port, target, target_port), direction in directions.items():
        if not direction.bytes:
            continue
        count = direction.records() if TLS_PORTS & {source_port, target_port} else None
        if count is None:
            ends = f"{ipaddress.ip_address(source)}:{source_port} -> {ipaddress.ip_address(target)}:{target_port}"
            wrong.append(f"{ends}: {len(direction.bytes)} bytes that are not TLS")
        else:
            records += count
            total += len(direction.bytes)
    seen = marker in capture
    print(f"{total} bytes in {records} TLS records; {len(wrong)} flows of anything else; marker seen: {seen}")
    for line in wrong[:5]:
        print(line)
    sys.exit(bool(wrong) or seen or records == 0)


main()
