"""Tests call a product over a pipe: what honest code does works, and what a liar returns does not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, read_json, write_files

run_tests: Any = load("run_tests")

HONEST = """
import asyncio, collections, contextlib, dataclasses, decimal, enum, logging, os, warnings
from datetime import datetime, timezone

class Trouble(ValueError):
    def __init__(self, code):
        super().__init__(f"trouble {code}")
        self.code = code

class Deep(Trouble): pass

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
    @property
    def far(self): return abs(self.x) + abs(self.y)
    @classmethod
    def origin(cls): return cls(0, 0)

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

class Level(enum.IntEnum):
    LOW = 1

class Slug(str):
    @property
    def parts(self): return self.split("-")

Pair = collections.namedtuple("Pair", "left right")

class Shelf:
    def __init__(self, items=()): self.items = list(items)
    def put(self, item): self.items.append(item)
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, at): return self.items[at]
    def __contains__(self, item): return item in self.items
    def __enter__(self): return self
    def __exit__(self, *_): self.items.clear()
    def each(self, f): return [f(i) for i in self.items]

def fail(code): raise Trouble(code)
def deep(): raise Deep(9)
def count(n):
    for i in range(n): yield i
def sort_it(items): items.sort()
def nest(d): d["a"].append(1); return d
def say(text): print(text)
def warn(): warnings.warn("old", DeprecationWarning)
def log(): logging.getLogger("shop").warning("low %s", 1)
def env(): return os.environ.get("SHOP")
def here(): return os.getcwd()
async def later(x): return x + 1
def when(): return datetime(2020, 1, 2, tzinfo=timezone.utc)
def price(): return decimal.Decimal("1.10")
def raises_key(): return {}["k"]
@contextlib.contextmanager
def opened():
    yield 5
LIMIT = 3
"""

USES = """
import pytest
from decimal import Decimal
from datetime import datetime, timezone
import shop
from shop import *
from shop import Point, Shelf, Trouble, Deep, Colour, Level, Pair, Slug

def test_values():
    assert shop.LIMIT == 3 and shop.price() == Decimal("1.10")
    assert shop.when() == datetime(2020, 1, 2, tzinfo=timezone.utc)
def test_dataclass():
    p = Point(1, 2)
    assert p == Point(1, 2) and p != Point(1, 3) and p + Point(1) == Point(2, 2)
    assert (p.x, p.far, Point.origin().x) == (1, 3, 0)
    assert repr(p) == "Point(x=1, y=2)" and isinstance(p, Point) and type(p) is Point and len({p, Point(1, 2)}) == 1
    with pytest.raises(AttributeError):
        p.x = 5
def test_enum():
    assert Colour.RED is Colour.RED and Colour(1) is Colour.RED and Colour["BLUE"].value == 2
    assert [c.name for c in Colour] == ["RED", "BLUE"] and Level.LOW == 1 and Level.LOW < 2
def test_value_classes():
    s = Slug("a-b")
    assert s == "a-b" and s.parts == ["a", "b"] and s.upper() == "A-B" and isinstance(s, str) and isinstance(s, Slug)
    p = Pair(1, 2)
    left, right = p
    assert p == (1, 2) and p.left == 1 and (left, right) == (1, 2) and p._replace(left=3) == (3, 2)
def test_errors():
    with pytest.raises(Trouble, match="trouble 7") as found:
        shop.fail(7)
    assert found.value.code == 7 and isinstance(found.value, ValueError)
    with pytest.raises(Trouble):
        shop.deep()
    with pytest.raises(ValueError):
        shop.deep()
    with pytest.raises(KeyError, match="k"):
        shop.raises_key()
    assert issubclass(Deep, Trouble)
def test_container():
    shelf = Shelf([1, 2])
    shelf.put(3)
    assert len(shelf) == 3 and list(shelf) == [1, 2, 3] and shelf[-1] == 3 and 2 in shelf and 9 not in shelf
    assert shelf.items == [1, 2, 3] and shelf.each(lambda i: i * 2) == [2, 4, 6]
    with shelf as same:
        assert same is shelf
    assert not shelf
def test_generator():
    assert list(shop.count(3)) == [0, 1, 2] and next(shop.count(2)) == 0 and sum(shop.count(4)) == 6
def test_in_place():
    items = [3, 1]
    shop.sort_it(items)
    inner = []
    d = {"a": inner}
    shop.nest(d)
    assert items == [1, 3] and inner == [1]
def test_prints(capsys):
    shop.say("hello")
    assert capsys.readouterr().out == "hello\\n"
def test_warns():
    with pytest.warns(DeprecationWarning, match="old"):
        shop.warn()
def test_logs(caplog):
    shop.log()
    assert caplog.messages == ["low 1"] and caplog.records[0].name == "shop"
def test_folder(tmp_path):
    import os
    os.environ["SHOP"] = "x"
    os.chdir(tmp_path)
    assert shop.env() == "x" and shop.here() == str(tmp_path)
def test_object_beside_a_plain_value():
    assert Point(1) != 5 and (Point(1) == (1, 0)) is False and Shelf([1]) != [1]
def test_manager():
    with shop.opened() as five:
        assert five == 5
def test_approx():
    assert shop.LIMIT == pytest.approx(3.0)
def test_iterator_of_a_test_is_used():
    assert Shelf(i for i in (1, 2)).items == [1, 2]
@pytest.mark.parametrize("n", [shop.LIMIT, 4])
def test_each(n): assert n > 2
"""

LIARS = {
    "equal": (
        "class Any(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef one(): return Any(2)\n"
    ),
    "object": "class Any:\n    def __eq__(self, o): return True\ndef one(): return Any()\n",
    "ends": "import os\ndef one(): os._exit(0)\n",
    "ends_at_import": "import os\nos._exit(0)\n",
    "skips": "import unittest\ndef one(): raise unittest.SkipTest('no')\n",
    "skips_by_pytest": "import pytest\ndef one(): pytest.skip('no')\n",
    "interrupts": "def one(): raise KeyboardInterrupt\n",
    "patches_pytest": "import _pytest.python as p\np.Function.runtest = lambda self: None\ndef one(): return 2\n",
    "only_with_pytest": "import sys\ndef one(): return 1 if 'pytest' in sys.modules else 2\n",
    "writes_the_record": (
        "import os, json, atexit\ndef one():\n    os.makedirs('out', exist_ok=True)\n"
        "    json.dump({'files': []}, open('out/tests.json', 'w'))\n    return 2\n"
    ),
    "kills_its_parent": "import os, signal\ndef one(): os.kill(os.getppid(), signal.SIGKILL)\n",
    "opens_the_parents_descriptors": (
        "import os\ndef one():\n    here = f'/proc/{os.getppid()}/fd'\n    for n in os.listdir(here):\n"
        "        os.write(os.open(f'{here}/{n}', os.O_WRONLY), b'{}')\n    return 1\n"
    ),
    "pretends_a_class": "one = type('T', (), {'__call__': lambda s: s, '__eq__': lambda s, o: True})()\n",
    "looks_into_a_callback": "def one(f=None):\n    return f.__globals__['__builtins__'] and 1\n",
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return write_files(tmp_path / "ws", {"README.md": ""})


def outcomes(workspace: Path, files: dict[str, str], test: str) -> dict[str, tuple[str, str]]:
    write_files(workspace, files)
    inputs = write_files(workspace.parent / "inputs", {"test_given.py": test})
    run_tests.main(["--workspace", str(workspace), "--inputs", str(inputs), "--test-limit", "3"])
    (file,) = read_json(workspace / "out" / "tests.json")["files"]
    return {t["id"]: (t["outcome"], t["message"] + t["excerpt"]) for t in file["tests"]}


@pytest.mark.rule("RC-80")
def test_honest_product_of_many_kinds_passes_over_the_pipe(workspace: Path) -> None:
    found = outcomes(workspace, {"shop.py": HONEST}, USES)
    assert {name: row for name, row in found.items() if row[0] != "passed"} == {}
    assert len(found) == 18


@pytest.mark.rule("RC-80")
@pytest.mark.parametrize("way", sorted(LIARS))
def test_product_that_lies_does_not_pass(workspace: Path, way: str) -> None:
    call = "one(lambda: 1)" if way == "looks_into_a_callback" else "one()"
    test = f"from liar import one\n\n\ndef test_one():\n    assert {call} == 1\n"
    found = outcomes(workspace, {"liar.py": LIARS[way]}, test)
    assert found["test_one"][0] not in ("passed", "skipped"), found


def test_test_that_patches_the_product_runs_beside_it_and_a_forged_record_does_not_count(workspace: Path) -> None:
    test = "import shop\n\n\ndef test_it(monkeypatch):\n    monkeypatch.setattr(shop, 'rate', lambda: 2)\n"
    test += "    assert shop.total() == 4\n"
    honest = "def rate(): return 1\ndef total(): return 2 * rate()\n"
    assert outcomes(workspace, {"shop.py": honest}, test)["test_it"][0] == "passed"
    forged = "import _pytest.python as p\np.Function.runtest = lambda self: None\n" + honest.replace("2 * ", "3 * ")
    assert outcomes(workspace, {"shop.py": forged}, test)["test_it"][0] == "error"
