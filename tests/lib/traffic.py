# SPDX-License-Identifier: GPL-2.0
"""Traffic through real sockets. As a program, one end of it, for a host to run:

    traffic.py serve NAME PORT                      answers: who it is and who asked, then echoes
    traffic.py tcp ADDRESS PORT COUNT BYTES         COUNT connections, one after the other; a JSON line for each
    traffic.py udp ADDRESS PORT COUNT               as many datagrams, each from a port of its own
"""

import hashlib
import json
import os
import socket
import socketserver
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


def serve_udp(name, port):
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.bind(("::", port))
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    while True:
        data, asked, _, client = server.recvmsg(65536, 100)
        line = json.dumps({"name": name, "client": client[0]}).encode()
        # As large as the question, and from the address that was asked.
        server.sendmsg([line.ljust(len(data))], [(level, kind, value[:16] + bytes(4)) for level, kind, value in asked], 0, client)


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
