"""What a command printed, in the form that is the same on another machine, day and load."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.engineering.normal import normal_lines

HERE = """\
drwxr-xr-x 2 ada  staff 4096 Nov 25 02:50 src
-rw-r--r-- 1 ada  staff  120 Nov 25 02:50 setup.py
total 8
uid=1000(ada) gid=1000(staff)
2026-11-25 02:50:01,123 INFO listening on 127.0.0.1:40123
Wed Nov 25 02:57:31 UTC 2026
wrote /tmp/tmpab12cd34/out.txt and /tmp/tmpab12cd34
worker pid 4711 at 0x7f00aa11
bash: line 3:   812 Killed                  python loop.py
[1] 991
real\t0m0.412s
ok  \tcodec\t0.004s
--- PASS: TestEncode (0.01s)
# duration_ms 31.82
3 passed in 0.12s"""
THERE = """\
drwxr-xr-x 3 root root 60 Jan  3  2027 src
-rw-r--r-- 1 root root  120 Jan  3  2027 setup.py
total 24
uid=0(root) gid=0(root)
2027-01-03 11:12:13,999 INFO listening on 127.0.0.1:51999
Sun Jan  3 11:12:13 UTC 2027
wrote /srv/scratch/tmpzz99yy88/out.txt and /srv/scratch/tmpzz99yy88
worker pid 22 at 0x55aa0001
bash: line 3:    17 Killed                  python loop.py
[1] 12
real\t1m9.000s
ok  \tcodec\t1.250s
--- PASS: TestEncode (3.00s)
# duration_ms 4.1
3 passed in 71.04s (0:01:11)"""


def test_two_machines_on_two_days_show_the_same() -> None:
    one, other = normal_lines(HERE), normal_lines(THERE)
    # A folder has another size on every disk; that of a file is what was written.
    assert one[1:] == other[1:]
    assert one[1] == "-rw-r--r-- 120 setup.py"
    assert one[-1] == "3 passed in <time>"


@pytest.mark.parametrize(
    "evidence",
    [
        "E       AssertionError: assert 0.25 == 0.5",
        "E       assert datetime(2024, 2, 29) == '2024-02-29 00:00:00'",
        "connect to localhost:8080 refused",
        "the server uses port 5432",
        "5 of 12 files, 3 s of silence",
        "sqlparse/filters/literals.py:12:1: F401",
    ],
)
def test_what_may_be_evidence_stays(evidence: str) -> None:
    assert normal_lines(evidence) == [evidence]


def test_lines_of_a_file_that_the_command_names_are_the_files() -> None:
    known = frozenset({'PATH = "/tmp/cache/index"', "    wait(3.5)  # took 12 ms"})
    shown = ['PATH = "/tmp/cache/index"', "     2\t    wait(3.5)  # took 12 ms", '+PATH = "/tmp/cache/index"']
    text = "\n".join([*shown, "made /tmp/cache/index"])
    assert normal_lines(text, known=known) == [*shown, "made <path>/index"]


def test_lists_in_no_order_are_put_in_one_and_all_others_are_left() -> None:
    lines = ["./b/two.py", "./a/one.py", "./a/ten.py"]
    assert normal_lines("\n".join(lines), command="find . -name '*.py'") == sorted(lines)
    hits = ["src/b.py:10:x", "src/b.py:9:x", "src/a.py:1:x"]
    assert normal_lines("\n".join(hits), command="grep -rn x src") == ["src/a.py:1:x", "src/b.py:9:x", "src/b.py:10:x"]
    for command in ("find . | sort -r", "cat order.txt", "git log --format=%s"):
        assert normal_lines("\n".join(lines), command=command) == lines


@given(st.lists(st.from_regex(r"\A\./[a-c]{1,3}(/[a-c]{1,3}){0,2}\Z"), max_size=30), st.randoms())
def test_the_order_of_a_disk_changes_nothing(paths: list[str], chance: random.Random) -> None:
    other = list(paths)
    chance.shuffle(other)
    assert normal_lines("\n".join(paths), command="find .") == normal_lines("\n".join(other), command="find .")


@given(st.text(alphabet=st.sampled_from("ab/.:0123456789 -\n[]()s<>"), max_size=300))
def test_the_form_of_a_form_is_the_same(text: str) -> None:
    once = normal_lines(text)
    assert normal_lines("\n".join(once)) == once
