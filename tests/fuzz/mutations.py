"""How a good file becomes a hostile one: by its bytes, its values, its tables, its members."""

from __future__ import annotations

import copy
import io
import json
import random
import sqlite3
import struct
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

CANARY = "canary_of_the_fuzzer"  # a module in the current folder that leaves a mark when it is imported
MARK = "RAN"
TOKENS = [
    b"\x00",
    b"\xff\xfe",
    b"[" * 3000,
    b"{" * 3000,
    b"*a",
    b"&a ",
    b"<<: *a\n",
    b"!!python/object/apply:os.system [touch RAN]\n",
    b"1e400",
    b"NaN",
    b"-1",
    b"9" * 400,
    b"'",
    b'"',
    b"\n",
    b": ",
    b"- ",
    b"%",
    b"\x1b[2J",
    b"]]>",
    b"../" * 9,
    b"\xe2\x80\xae",
    b"cos\nsystem\n(S'touch RAN'\ntR.",
    f"{CANARY}.Net".encode(),
]
NUMBERS = [
    0,
    -1,
    1,
    2,
    3,
    7,
    10**4,
    10**6,
    10**7 + 1,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.0,
    -0.5,
    1e-300,
    1e300,
]
TEXTS = [
    "",
    "x",
    "x" * 5000,
    "\x1b[31mred",
    "a\nb",
    "a\u202eb",
    "=cmd()",
    "</script><script>alert(1)</script>",
    "../../../etc/passwd",
    "/etc/passwd",
    f"{CANARY}.Net",
    f"{CANARY}",
    "os.system",
    "torch.nn.Linear",
    "nn.Linear",
    "nn.functional.relu",
    "__import__('os').system('touch RAN')",
    "None",
    "true",
    "relu",
    "Conv",
    "nan",
    "1e400",
    "**/**/**",
    "\x00",
    "\ud7ff",
    "%s%s%n",
    "{0.__class__}",
    "classify",
    "detect",
    "translate",
    "language",
    "sequence",
]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def hostile(rng: random.Random) -> Any:
    """A value that nobody expects."""
    pool: list[Any] = [
        None,
        True,
        False,
        [],
        {},
        [[]],
        [None] * 3,
        {"a": 1},
        [1, 2, 3],
        [1e300, -1],
        list(range(2000)),
        deep(40),
        {"x": {"y": [1]}},
        float("inf"),
        float("nan"),
        ["a", "b"],
    ]
    return rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(pool)])


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, moved, or with a token put in."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place = rng.randrange(len(made) + 1)
        end = min(len(made), place + rng.choice((1, 2, 8, 64, 1000)))
        how = rng.randrange(7)
        if how == 0 and place < len(made):
            made[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            del made[place:]
        elif how == 2:
            made[place:place] = made[place:end] * rng.choice((1, 2, 200))
        elif how == 3:
            made[place:place] = rng.choice(TOKENS)
        elif how == 4:
            made[place:end] = bytes(rng.randrange(256) for _ in range(end - place))
        elif how == 5:
            del made[place:end]
        else:
            made[place:end] = rng.choice(TOKENS)
        if len(made) > 3_000_000:
            break
    return bytes(made)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value in a tree."""
    found = [path]
    if isinstance(value, dict):
        for key, entry in value.items():
            found += places(entry, (*path, key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            found += places(entry, (*path, index))
    return found


def change_tree(tree: Any, rng: random.Random) -> Any:
    """A tree with a value replaced, removed, renamed or doubled, once or a few times."""
    made = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        path = rng.choice(places(made))
        if not path:
            continue
        holder = made
        try:
            for key in path[:-1]:
                holder = holder[key]
            how = rng.randrange(6)
            if how == 0:
                del holder[path[-1]]
            elif how == 1 and isinstance(holder, dict):
                holder[str(hostile(rng))[:200]] = holder.pop(path[-1])
            elif how == 2 and isinstance(holder, list):
                holder[path[-1] : path[-1]] = [holder[path[-1]]] * rng.choice((1, 3, 300))
            else:
                holder[path[-1]] = hostile(rng)
        except (TypeError, KeyError, IndexError, AttributeError):
            continue
    return made


def bomb(rng: random.Random) -> str:
    """A YAML whose aliases would fill the machine."""
    count, wide = rng.choice(((9, 9), (30, 2), (200, 1), (12, 9)))
    rows = [f"a0: &a0 [{','.join('x' * wide)}]"]
    merged = rng.random() < 0.4
    rows = ["a0: &a0 {x: 1}"] if merged else rows
    for i in range(1, count):
        inner = ",".join([f"*a{i - 1}"] * wide)
        rows.append(f"a{i}: &a{i} {{<<: [{inner}]}}" if merged else f"a{i}: &a{i} [{inner}]")
    return "\n".join(rows) + "\n"


def change_tables(file: Path, rng: random.Random) -> None:
    """A run's file with values, tables or SQL of somebody else's."""
    values = [
        "NULL",
        "''",
        "'x'",
        "-1",
        "1e999",
        "9223372036854775807",
        "x'00ff'",
        "'[]'",
        "'{}'",
        "'[[[['",
        "'5'",
        "'null'",
        "'\"\x1b[31m\"'",
        "zeroblob(100000)",
        "'[{}]'",
        "'{\"a\": NaN}'",
        "'" + "[" * 2000 + "'",
    ]
    columns = {
        "meta": ["value", "key"],
        "sites": ["path", "kind", "role", "facts"],
        "steps": ["wall", "loss", "finite", "lr", "step"],
        "samples": ["cells", "step"],
        "findings": ["body", "severity", "step", "last", "code"],
        "profiles": ["state", "site", "step"],
    }
    with closing(sqlite3.connect(file)) as run:
        for _ in range(rng.choice((1, 1, 2, 4))):
            table = rng.choice(list(columns))
            column = rng.choice(columns[table])
            other, letter = rng.choice("x[]{}9"), rng.choice("aeiou[]{}:,0123")
            fact = rng.choice(("axes", "statistics", "model", "overhead", "looks"))
            statement = rng.choice(
                (
                    f"UPDATE {table} SET {column} = {rng.choice(values)}",
                    f"UPDATE {table} SET {column} = {rng.choice(values)} WHERE rowid = 1",
                    f"UPDATE {table} SET {column} = replace({column}, '{letter}', '{other}')",
                    f"DELETE FROM {table}",
                    f"DROP TABLE {table}",
                    f"ALTER TABLE {table} RENAME TO old; CREATE VIEW {table} AS SELECT * FROM old",
                    f"ALTER TABLE {table} ADD COLUMN more DEFAULT 1",
                    "CREATE TRIGGER t AFTER INSERT ON steps BEGIN DELETE FROM steps; END",
                    "PRAGMA user_version = 99",
                    "CREATE VIRTUAL TABLE v USING fts5(x)",
                    f"UPDATE meta SET value = {rng.choice(values)} WHERE key = '{fact}'",
                )
            )
            try:
                run.executescript(statement)
                run.commit()
            except sqlite3.Error:
                continue


def change_header(file: Path, rng: random.Random) -> None:
    """A safetensors file whose header or description says something else."""
    whole = file.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    rest = whole[8 + length :]
    about = json.loads(header["__metadata__"]["unvanish"])
    if rng.random() < 0.75:
        made: Any = change_tree(about, rng)
        text = rng.choice([json.dumps(made)] * 6 + ["[" * 20000, "{}", "null", "", json.dumps(made)[:-9]])
        header["__metadata__"]["unvanish"] = text
    else:
        header = change_tree(header, rng)
    raw = json.dumps(header).encode()
    size = rng.choice([len(raw)] * 9 + [2**63 - 1, len(raw) * 2, 0, 10**9])
    file.write_bytes(struct.pack("<Q", size) + raw + rest)


def make_archive(path: Path, files: dict[str, bytes], rng: random.Random) -> None:
    """A tar or zip of files, with members that lead elsewhere, repeat, or are far larger than they look."""
    names = [
        rng.choice(["../evil.txt", "/tmp/evil.txt", "a/../../evil", "a\x01b.txt", "x" * 300, "dir"])
        for _ in range(2)
    ]
    more = {name: b"evil" for name in names} if rng.random() < 0.6 else {}
    zeros = bytes(rng.choice((0, 0, 400_000_000)))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in {**files, **more}.items():
                made.writestr(name, content)
            if zeros:
                made.writestr("bomb.bin", zeros)
        return
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**files, **more}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"odd-{kind.decode('latin1')}")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        if zeros:
            info = tarfile.TarInfo("bomb.bin")
            info.size = len(zeros)
            tar.addfile(info, io.BytesIO(zeros))
