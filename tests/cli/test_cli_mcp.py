"""`unvanish mcp` with the SDK's own client, over stdio, as an agent talks to it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import nn

import unvanish
from unvanish.reports.documents import find_documents

pytest.importorskip("mcp.server.mcpserver")
mcp = pytest.importorskip("mcp")
pytestmark = pytest.mark.filterwarnings("default")

NETS = """
import os, sys, time
import torch
from torch import nn
print("an import that prints")
os.write(1, b"below Python, too\\n")

def sick():
    print("a function that prints")
    return nn.Sequential(*[p for _ in range(14) for p in (nn.Linear(6, 6), nn.Sigmoid())], nn.Linear(6, 3))

def data():
    return torch.randn(64, 6), torch.randint(3, (64,))

def broken():
    raise KeyError("as it is\\nin two lines")

def endless():
    if os.fork() == 0:
        time.sleep(60)
    time.sleep(60)

def ends():
    os._exit(3)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("root")
    (place / "nets.py").write_text(NETS)
    (place.parent / "outside.py").write_text("open('outside.ran', 'w')\ndef net(): pass\n")
    (place / "link.py").symlink_to(place.parent / "outside.py")
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, run=place / "run", on_finding="silent"):
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    return place


def talk(root, calls, *options):
    """The answers to these calls, each a tool and its arguments, of one server; and its tools."""

    async def converse():
        words = ["-m", "unvanish", "mcp", "--root", str(root), *options]
        server = mcp.StdioServerParameters(command=sys.executable, args=words, env={**os.environ})
        async with mcp.Client(server) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            return [await client.call_tool(name, given) for name, given in calls], tools

    return asyncio.run(asyncio.wait_for(converse(), 110))


def read(answer):
    """The document of an answer, as text and as structure, checked against the schema of its name."""
    assert not answer.is_error, answer.content
    document = answer.structured_content
    assert json.loads(answer.content[0].text) == document
    schemas = {d.NAME: d.SCHEMA for d in find_documents().values()}
    Draft202012Validator(schemas[document["schema"]]).validate(document)
    return document


def test_an_agent_finds_cures_and_reads(root):
    net = {"model": "nets.py:sick", "data": "nets.py:data", "loss": "cross_entropy"}
    answers, tools = talk(root, [("check", net), ("explain", {"name": "ACT002"}), ("show", {"run": "run"})])
    assert set(tools) == {"check", "forecast", "cure", "explain", "rules", "show"}
    assert all(tool.description and "Returns unvanish." in tool.description for tool in tools.values())
    found, page, run = map(read, answers)
    assert found["findings"][0]["cause"] and not found["sites"] and "sites" in found["left_out"]
    assert page["code"] == "ACT002" and page["page"]
    assert run["steps"]["count"] == 8 and run["left_out"] == ["history"]


@pytest.mark.slow
def test_cure_and_forecast_and_details(root):
    net = {"model": "nets.py:sick", "data": "nets.py:data", "loss": "cross_entropy", "seconds": 20}
    told, full = {"model": "nets.py:sick", "input": ["6"]}, {"run": "run", "details": True}
    answers, _ = talk(root, [("cure", net), ("forecast", told), ("show", full), ("rules", {})])
    cured, predicted, run, rules = map(read, answers)
    assert len(rules["entries"]) > 30
    assert cured["code"] and cured["remedies"] and predicted["findings"]
    assert len(run["history"]["step"]) == 8 and "left_out" not in run


REFUSED = [
    ("check", {"model": "../outside.py:net"}, "outside of"),
    ("check", {"model": "link.py:net"}, "outside of"),
    ("check", {"model": "os:getcwd"}, "it is FILE.py:callable or NAME.yaml"),
    ("check", {"model": "hf:gpt2"}, "it is FILE.py:callable"),
    ("check", {"model": "--help"}, "it is FILE.py:callable"),
    ("check", {"model": "none.py:net"}, "there is no file none.py"),
    ("check", {"model": "nets.py:sick", "data": "cifar10.yaml"}, "it is FILE.py:callable or FILE.pt"),
    ("check", {"model": "nets.py:sick", "loss": "--html=x"}, "a name such as cross_entropy"),
    ("check", {"model": "nets.py:sick", "input": ["6 --html x"]}, "a shape without the batch"),
    ("check", {"model": "nets\0.py:sick"}, "is no path"),
    ("show", {"run": "/etc"}, "outside of"),
    ("show", {"run": "nothing"}, "there is no folder"),
    ("explain", {"name": "--json"}, "it is a code such as"),
]
FAILING = [
    ("check", {"model": "nets.py:broken", "input": ["6"]}, "KeyError"),
    ("check", {"model": "nets.py:sikc", "input": ["6"]}, "did you mean 'sick'"),
    ("check", {"model": "nets.py:ends", "input": ["6"]}, "ended with code 3"),
    ("explain", {"name": "ACT999"}, "no rule, cure or symptom 'ACT999'"),
]


def refuse(root, calls):
    answers, _ = talk(root, [(name, given) for name, given, _ in calls])
    for answer, (_, given, told) in zip(answers, calls, strict=True):
        text = answer.content[0].text
        assert answer.is_error and told in text, (given, text)
        assert "\n" not in text and "Traceback" not in text and len(text) < 1500
    assert not list(root.rglob("outside.ran")) and not list(root.parent.glob("outside.ran"))


def test_what_may_not_be_named_is_one_line(root):
    refuse(root, REFUSED)


@pytest.mark.slow
def test_what_fails_is_one_line(root):
    refuse(root, FAILING)


@pytest.mark.slow
def test_a_model_that_never_ends_is_ended_with_its_children(root):
    answers, _ = talk(root, [("check", {"model": "nets.py:endless", "input": ["6"]})], "--time-limit", "8")
    assert answers[0].is_error and "stopped after 8 s, the time limit" in answers[0].content[0].text
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"nets.py:endless" in read_quietly(p)]
    assert left == []


def read_quietly(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_stdout_is_the_protocols_alone(root):
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
        },
    }  # fmt: skip
    call = {"name": "check", "arguments": {"model": "nets.py:sick", "input": ["6"]}}
    lines = [
        hello,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    words = [sys.executable, "-m", "unvanish", "mcp", "--root", str(root)]
    with subprocess.Popen(words, stdin=-1, stdout=-1, stderr=-1, text=True) as server:
        server.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
        server.stdin.flush()
        read = [json.loads(server.stdout.readline()) for _ in range(2)]
        server.stdin.close()
        rest = server.stdout.read()
    assert [answer["id"] for answer in read] == [1, 2] and rest == "" and not read[1]["result"]["isError"]
