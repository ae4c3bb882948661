# SPDX-License-Identifier: GPL-2.0
"""Which rows of which tests a run has, where there are too many for all of them: pytest's --share=K/RUNS/N[/TURNS], with kernels.

Of each test one row in N, and at least one, is dealt out to the runs, once in so many turns. The turn, which is the date if none is named,
moves on to other rows, and when all have been to other runs. Marks of a test (Documentation/testing.md):

    every_run      a row of it is in each share, another one in another run
    every_row      all of its rows are in each share
    whole          all of its rows are dealt out, none is left out
    kernels(since=(6, 1), before=(6, 12))
                   it is dealt to the runs on such kernels only
"""

import dataclasses
import hashlib
import os
import time

DAY_S = 86400


def today():
    """The turn: the day, or what XLB_TURN says, to have the rows of another day again."""
    return int(os.environ.get("XLB_TURN") or time.time() // DAY_S)


def release(text):
    """ "6.12" as (6, 12)"""
    return tuple(map(int, text.split(".")))


def digest(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclasses.dataclass
class Share:
    number: int = 0
    runs: int = 1
    count: int = 1
    turns: int = 1
    turn: int = 0
    kernels: tuple = ()     # of each run, or none if all are on one

    @classmethod
    def parse(cls, text):
        number, runs, count, *turns = map(int, text.split("/"))
        if not 0 <= number < runs or min(count, *turns, 1) < 1:
            raise ValueError(text)
        return cls(number, runs, count, *turns)

    def all_there_is(self):
        return (self.runs, self.count) == (1, 1)

    def able(self, since=(0,), before=(99,)):
        """The runs that a test is dealt to."""
        return [number for number in range(self.runs) if not self.kernels or since <= release(self.kernels[number]) < before]

    def rows(self, name, rows, marks):
        """Those of this run; `marks` by name, with their arguments. Which they are does not depend on where they stand, so that
        every value of a parameter gets around."""
        if self.all_there_is():
            return rows
        able = self.able(**marks.get("kernels", {}))
        if self.number not in able:
            return []
        number, rows = able.index(self.number), sorted(rows, key=digest)
        if "every_row" in marks:
            return rows
        if "every_run" in marks:
            return [rows[(number + self.turn) % len(rows)]]
        if "whole" in marks:
            return self.deal(name, rows, 1, self.turn, number, len(able))
        turn = self.turn + digest(name)
        return [] if turn % self.turns else self.deal(name, rows, self.count, turn // self.turns, number, len(able))

    @staticmethod
    def deal(name, rows, step, turn, number, runs):
        period = min(step, len(rows))
        # Who gets the first is another run for each test.
        return rows[turn % period::step][(number + digest(name) + turn // period) % runs::runs]
