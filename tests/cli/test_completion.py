# SPDX-License-Identifier: GPL-2.0
"""Completion, as the shells ask for it."""
import os
import shutil
import subprocess

import pytest

from cli_world import LBCTL, ROOT

COMPLETION = ROOT / "scripts/completion"
BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=(lbctl)
_lbctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def environment():
    return {**os.environ, "PATH": f"{os.path.dirname(LBCTL)}:{os.environ['PATH']}"}


def bash(line, prefix=(), wordbreaks=None):
    script = f"COMP_WORDBREAKS='{wordbreaks}'\n{BASH}" if wordbreaks is not None else BASH
    done = subprocess.run([*prefix, "bash", "-c", script, "bash", COMPLETION / "lbctl.bash", line],
                          capture_output=True, text=True, check=True, env=environment())
    assert done.stderr == ""
    return done.stdout.split()


def fish(line, prefix=()):
    done = subprocess.run([*prefix, "fish", "--no-config", "-c", f"source {COMPLETION}/lbctl.fish; "
                           f"complete -C '{line}'"], capture_output=True, text=True, check=True,
                          env=environment())
    assert done.stderr == ""
    return [word.split("\t")[0] for word in done.stdout.splitlines()]


@pytest.fixture(name="ask", params=[bash, fish], ids=["bash", "fish"])
def fixture_ask(request):
    if not shutil.which(request.param.__name__):
        pytest.skip(f"{request.param.__name__} is not installed")
    return request.param


ANSWERS = [
    ("lbctl ", "attach backends detach help services status trace version"),
    ("lbctl s", "services status"),
    ("lbctl services ", "add del list set show"),
    ("lbctl services s", "set show"),
    ("lbctl backends ", "add del drain list set show sync"),
    ("lbctl frob ", ""),
    ("lbctl trace --", "--device --flags --help --output --packet --pin-dir"),
    ("lbctl trace --device l", "lo"),
    ("lbctl status ", ""),
    ("lbctl status --o", "--output"),
    ("lbctl attach --max-", "--max-backends --max-flows --max-services"),
    ("lbctl attach --mode ", "auto generic native"),
    ("lbctl attach -m n", "native"),
    ("lbctl attach --priority ", ""),
    ("lbctl -o ", "json text"),
    ("lbctl services list -o j", "json"),
    ("lbctl services add --scheduler ", "lc maglev random rr source"),
    ("lbctl services add --forward ", "dnat gue ipip l2 nat"),
    ("lbctl services set --echo ", "off on"),
    ("lbctl services set --e", "--echo --encap-source"),
    ("lbctl backends sync --scheduler r", "random rr"),
    ("lbctl services add 192.0.2.1:80/tcp --forward d", "dnat"),
    ("lbctl --pin-dir /nowhere services l", "list"),
    ("lbctl attach l", "lo"),
    ("lbctl attach --mode native l", "lo"),
    ("lbctl detach l", "lo"),
]


@pytest.mark.parametrize("line, answer", ANSWERS, ids=[row[0] for row in ANSWERS])
def test_words(ask, line, answer):
    assert sorted(ask(line)) == answer.split()


def test_word_of_an_option(ask):
    # bash replaces what follows the equals sign, fish the whole word.
    assert ask("lbctl attach --mode=n") in (["native"], ["--mode=native"])


def test_help_of_bash():
    assert bash("lbctl help se") == ["services"]
    assert sorted(bash("lbctl help services s")) == ["set", "show"]


def test_silent_where_nothing_is_attached(ask):
    nowhere = "/nowhere/xlb"
    for line in ("services show ", "backends list ", "backends del 192.0.2.1:80/tcp "):
        assert ask(f"lbctl --pin-dir {nowhere} {line}") == []


def test_services_and_backends(attached, ask):
    services = ["192.0.2.10:53/udp", "192.0.2.10:80/tcp", "[2001:db8::10]:80/tcp"]
    assert sorted(ask("lbctl services show ", prefix=attached.enter)) == services
    assert ask("lbctl services add ", prefix=attached.enter) == []
    assert sorted(ask("lbctl backends set 192.0.2.10:80/tcp ", prefix=attached.enter)) == \
        ["198.51.100.5:8080", "198.51.100.6:80"]
    assert ask("lbctl backends add 192.0.2.10:80/tcp ", prefix=attached.enter) == []
    assert sorted(ask("lbctl attach veth", prefix=attached.enter)) == ["veth0", "veth1"]


def test_colons_of_bash(attached):
    """bash cuts words at colons, unless it is told not to: then it wants the whole word."""
    line = "lbctl services show 192.0.2.10:8"
    assert bash(line, attached.enter) == ["80/tcp"]
    assert bash(line, attached.enter, wordbreaks=" ") == ["192.0.2.10:80/tcp"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_syntax(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", COMPLETION / f"lbctl.{shell}"], check=True)
