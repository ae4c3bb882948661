# SPDX-License-Identifier: GPL-2.0
"""That not one packet is lost, counted: a stream of numbered datagrams around what is done meanwhile."""

import json
import os
import signal

import traffic

# A second. An emulated machine could do 200, and then has no time for what is to happen meanwhile: an upgrade took ten times as long.
RATE = 25 if "XLB_VM" in os.environ else 1000
LIMIT_S = 300


class Stream:
    """From a host to an address where a traffic.serve answers, from the beginning to the end of a block. Each has to come back, once;
    for the last ones the end waits until nothing more comes."""

    def __init__(self, host, address, port, rate=RATE):
        self.host, self.address, self.port, self.rate, self.child = host, address, port, rate, None

    def __enter__(self):
        self.child = self.host.fork(traffic.stream, self.address, self.port, self.rate, timeout=LIMIT_S)
        assert self.child.stdout.readline() == "flowing\n"
        return self

    def __exit__(self, failed, *_):
        os.kill(self.child.pid, signal.SIGTERM)
        said = self.child.output()
        if failed:
            return
        seen = json.loads(said)
        print(f"{self.address}: {said}")
        assert seen["sent"] > 20 and (seen["lost"], seen["twice"]) == (0, 0), said
