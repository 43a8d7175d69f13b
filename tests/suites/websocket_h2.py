"""WebSocket over HTTP/2 (RFC 8441): `serve PORT`, or `ask HOST:PORT`, which prints a line for each case that held.

Frames of HTTP/2 by the h2 package, those of WebSocket by websockets: each without a socket of its own.
"""

import os
import socket
import sys
import threading

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, RequestReceived, ResponseReceived, StreamEnded
from h2.settings import SettingCodes, Settings
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

CONNECT_PROTOCOL = SettingCodes.ENABLE_CONNECT_PROTOCOL
SECONDS_MAX = 20


class Peer:
    """One HTTP/2 connection, and one WebSocket on a stream of it."""

    def __init__(self, stream, side):
        self.stream = stream
        self.stream.settimeout(SECONDS_MAX)
        self.http = H2Connection(H2Configuration(client_side=side is CLIENT, header_encoding="utf-8"))
        if side is SERVER:
            self.http.local_settings = Settings(client=False, initial_values={CONNECT_PROTOCOL: 1})
        self.http.initiate_connection()
        self.socket = Protocol(side, max_size=4 << 20)
        self.id = None
        self.is_over = False
        self.pending = b""
        self.flush()

    def flush(self):
        """Sends as much as the stream's window lets pass."""
        parts = self.socket.data_to_send() if self.id else []
        self.pending += b"".join(parts)
        while self.pending:
            room = min(self.http.local_flow_control_window(self.id), self.http.max_outbound_frame_size)
            if room == 0:
                break
            self.http.send_data(self.id, self.pending[:room])
            self.pending = self.pending[room:]
        # WebSocket's word for the end of its connection.
        if b"" in parts:
            self.http.end_stream(self.id)
        self.stream.sendall(self.http.data_to_send())

    def read(self):
        """What the other side says next on HTTP/2; WebSocket's part of it is passed on."""
        data = self.stream.recv(65_536)
        if not data:
            raise EOFError
        events = self.http.receive_data(data)
        for event in events:
            if isinstance(event, DataReceived):
                self.socket.receive_data(event.data)
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.socket.receive_eof()
                self.is_over = True
        self.flush()
        return events

    def await_event(self, kind):
        while True:
            for event in self.read():
                if isinstance(event, kind):
                    return event

    def frames(self):
        """WebSocket's frames, as they come; at the end both sides have ended the stream."""
        while True:
            for frame in self.socket.events_received():
                yield frame
                self.flush()
            if self.is_over:
                return
            self.read()


def answer(stream):
    peer = Peer(stream, SERVER)
    request = peer.await_event(RequestReceived)
    fields = dict(request.headers)
    assert fields[":method"] == "CONNECT" and fields[":protocol"] == "websocket", fields
    assert fields[":path"] == "/echo" and fields["sec-websocket-version"] == "13", fields
    peer.id = request.stream_id
    peer.http.send_headers(peer.id, [(":status", "200")])
    peer.flush()
    for frame in peer.frames():
        if frame.opcode is Opcode.TEXT:
            peer.socket.send_text(frame.data)
        elif frame.opcode is Opcode.BINARY:
            peer.socket.send_binary(frame.data)


def serve(port):
    listener = socket.create_server(("0.0.0.0", port))
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def ask(host, port):
    peer = Peer(socket.create_connection((host, port)), CLIENT)
    peer.await_event(RemoteSettingsChanged)
    assert peer.http.remote_settings.enable_connect_protocol == 1, peer.http.remote_settings
    identity = 1
    fields = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":authority": host, ":path": "/echo"}
    peer.http.send_headers(identity, [*fields.items(), ("sec-websocket-version", "13")])
    peer.flush()
    response = peer.await_event(ResponseReceived)
    assert dict(response.headers)[":status"] == "200", response.headers
    peer.id = identity
    frames = peer.frames()
    for text in ("plaintext-marker-7f3a", "é" * 1000):
        peer.socket.send_text(text.encode())
        peer.flush()
        assert next(frames).data == text.encode()
        print("held: a text of", len(text))
    for length in (0, 125, 126, 65_535, 65_536, 1 << 20):
        data = os.urandom(length)
        peer.socket.send_binary(data)
        peer.flush()
        assert next(frames).data == data
        print("held: bytes,", length)
    peer.socket.send_ping(b"are you there")
    peer.flush()
    assert next(frames).opcode is Opcode.PONG
    print("held: a ping")
    peer.socket.send_close(4002, "mine")
    peer.flush()
    assert next(frames).opcode is Opcode.CLOSE
    assert not list(frames)
    assert peer.socket.close_code == 4002, peer.socket.close_code
    print("held: a close")


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    host, port = sys.argv[2].split(":")
    ask(host, int(port))
