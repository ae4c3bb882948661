# SPDX-License-Identifier: GPL-2.0
"""Traffic through real sockets. As a program, one end of it, for a host to run:

    traffic.py serve NAME PORT                      answers: who it is and who asked, then echoes
    traffic.py tcp ADDRESS PORT COUNT BYTES         COUNT connections, one after the other; a JSON line for each
    traffic.py udp ADDRESS PORT COUNT               as many datagrams, each from a port of its own

stream() sends numbered datagrams and counts those that come back; it is forked (tests/lib/streams.py).
"""

import hashlib
import json
import os
import select
import signal
import socket
import socketserver
import struct
import sys
import threading
import time


class Echo(socketserver.BaseRequestHandler):
    """Reads 8 bytes of length and as many more, answers with a line, and sends them back."""

    def handle(self):
        length = int.from_bytes(self.receive(8), "big")
        data = self.receive(length)
        line = json.dumps({"name": self.server.host_name, "client": self.client_address[0]})
        self.request.sendall(line.encode() + b"\n" + data)

    def receive(self, length):
        parts = bytearray()
        while len(parts) < length:
            part = self.request.recv(min(1 << 16, length - len(parts)))
            if not part:
                break
            parts += part
        return bytes(parts)


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512


NUMBERED = b"#"
ROOM = 32 << 20         # of a socket, for what comes while its process waits for the CPU
QUIET_S = 5             # nothing more comes after so long


def with_room(family):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, 33, ROOM)     # SO_RCVBUFFORCE
    return one


def serve_udp(name, port):
    server = with_room(socket.AF_INET6)
    server.bind(("::", port))
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    while True:
        data, asked, _, client = server.recvmsg(65536, 100)
        # As large as the question, and from the address that was asked.
        answer = data
        if not data.startswith(NUMBERED):
            answer = json.dumps({"name": name, "client": client[0]}).encode().ljust(len(data))
        server.sendmsg([answer], [(level, kind, value[:16] + bytes(4)) for level, kind, value in asked], 0, client)


def serve(name, port):
    threading.Thread(target=serve_udp, args=(name, port), daemon=True).start()
    server = Server(("::", port), Echo)
    server.host_name = name
    print("ready", flush=True)
    server.serve_forever()


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ask_tcp(address, port, size):
    data = os.urandom(size)
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.settimeout(20)
        sender = threading.Thread(target=connection.sendall,
                                  args=(size.to_bytes(8, "big") + data,), daemon=True)
        sender.start()
        with connection.makefile("rb") as stream:
            answer = json.loads(stream.readline())
            echoed = hashlib.sha256(stream.read(size)).digest()
        sender.join()
    answer["intact"] = echoed == hashlib.sha256(data).digest()
    return answer


def ask_udp(address, port):
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as asking:
        asking.settimeout(3)
        asking.connect((address, port))
        asking.send(b"who are you?")
        return json.loads(asking.recv(65536))


class Stream:
    """Numbered datagrams from one port, as evenly as this machine can. Those below 0 are sent until the first answer comes."""

    def __init__(self, address, port):
        self.socket = with_room(family_of(address))
        self.socket.connect((address, port))
        self.came, self.twice, self.stopped = set(), 0, False
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.stopped = True

    def send(self, number):
        self.socket.send(NUMBERED + struct.pack("!q", number))

    def take(self, seconds):
        """All that came, after waiting so long for the first. False: nothing did."""
        select.select([self.socket], [], [], max(seconds, 0))
        before = len(self.came)
        try:
            while True:
                number, = struct.unpack("!q", self.socket.recv(100, socket.MSG_DONTWAIT)[1:])
                self.twice += number >= 0 and number in self.came
                self.came.add(number)
        except OSError:
            return len(self.came) > before

    def run(self, rate):
        times = []
        while not self.came:
            self.send(-1)
            self.take(0.1)
        print("flowing", flush=True)
        start = due = time.monotonic()
        while not self.stopped:
            self.send(len(times))
            times.append(time.monotonic())
            # Who had to wait for the CPU does not catch up in a burst.
            due = max(due + 1 / rate, time.monotonic() - 1 / rate)
            self.take(0)
            while (left := due - time.monotonic()) > 0:
                self.take(left)
        seconds = time.monotonic() - start
        while set(range(len(times))) - self.came and self.take(QUIET_S):
            pass
        lost = sorted(set(range(len(times))) - self.came)
        print(json.dumps({"sent": len(times), "seconds": round(seconds, 2), "lost": len(lost), "twice": self.twice,
                          "lost after": [round(times[number] - start, 3) for number in lost[:9]]}))


def stream(address, port, rate):
    Stream(address, port).run(rate)


def ask(count, question):
    for _ in range(count):
        start = time.monotonic()
        try:
            answer = question()
        except OSError as error:
            answer = {"error": type(error).__name__}
        answer["ms"] = round((time.monotonic() - start) * 1000, 1)
        print(json.dumps(answer), flush=True)


def main(what, *rest):
    if what == "serve":
        serve(rest[0], int(rest[1]))
    elif what == "tcp":
        ask(int(rest[2]), lambda: ask_tcp(rest[0], int(rest[1]), int(rest[3])))
    else:
        ask(int(rest[2]), lambda: ask_udp(rest[0], int(rest[1])))


if __name__ == "__main__":
    main(*sys.argv[1:])
