"""A change of a repository in one reply: how its blocks are read, and the files that they make."""

from __future__ import annotations

import pytest

from fleet.engineering.one_reply import make_files
from fleet.kernel.errors import ReplyMalformed
from fleet.models.replies.change_reply import change_of, edits_in

GO = 'package tax\n\nfunc Rate(region string) int {\n\treturn 19\n}\n\nfunc Name() string { return "tax" }\n'
REPLY = """Here is the change.

file: tax/rate.go
```go
<<<<<<< SEARCH
func Rate(region string) int {
	return 19
}
=======
func Rate(region string) int {
	return rates[region]
}
>>>>>>> REPLACE
<<<<<<< SEARCH
package tax
=======
package tax

var rates = map[string]int{"de": 19}
>>>>>>> REPLACE
```

file: Makefile
```make
test:
	go test ./...
```

`README.md`:
````markdown
# Tax

```sh
make test
```
````

Run it with:
```sh
make test
```
"""


def test_reply_changes_files_of_any_language_and_makes_new_ones():
    edits = edits_in(change_of(REPLY))
    assert [(edit.path, edit.mode) for edit in edits] == [
        ("tax/rate.go", "replace"),
        ("Makefile", "file"),
        ("README.md", "file"),
    ]
    made = make_files(edits, {"tax/rate.go": GO})
    assert made.problems == ()
    assert made.texts["tax/rate.go"] == (
        'package tax\n\nvar rates = map[string]int{"de": 19}\n\nfunc Rate(region string) int {\n'
        "\treturn rates[region]\n}"
        '\n\nfunc Name() string { return "tax" }\n'
    )
    assert made.texts["Makefile"] == "test:\n\tgo test ./...\n"
    assert made.texts["README.md"] == "# Tax\n\n```sh\nmake test\n```\n"


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("I would change rate.go.", "the reply holds no code block: put the code between ``` and ```"),
        ("```go\nx\n```", "a block names no file: write `file: PATH` on the line before it"),
        ("file: ../up.go\n```go\nx\n```", "../up.go is no path inside the repository"),
        ("file: .git/config\n```\nx\n```", ".git/config is no path inside the repository"),
        (
            "file: a.go\n```go\nx\n```\nfile: a.go\n```go\ny\n```",
            "two blocks are for a.go: put everything for a file into one block",
        ),
    ],
)
def test_reply_that_is_no_change_is_told(reply: str, problem: str):
    with pytest.raises(ReplyMalformed) as caught:
        change_of(reply)
    assert caught.value.details["problems"] == [problem]


def test_parts_for_one_file_may_stand_in_several_blocks():
    part = "file: a.txt\n```\n<<<<<<< SEARCH\n{0}\n=======\n{0}{0}\n>>>>>>> REPLACE\n```\n"
    made = make_files(edits_in(change_of(part.format("x") + part.format("y"))), {"a.txt": "x\ny\n"})
    assert made.texts == {"a.txt": "xx\nyy\n"}


LONG = "".join(f"line {number}\n" for number in range(60))


@pytest.mark.parametrize(
    ("block", "present", "problem"),
    [
        ("<<<<<<< SEARCH\nnot there\n=======\nx\n>>>>>>> REPLACE", "one\n", "`old` is not in a.txt"),
        ("<<<<<<< SEARCH\none\n=======\nx\n>>>>>>> REPLACE", None, "a.txt does not exist"),
        ("<<<<<<< SEARCH\none\n=======\nx\n", "one\n", "is not of the form"),
        ("<<<<<<< SEARCH\none\n=======\ntwo\n>>>>>>> REPLACE\n>>>>>>> REPLACE", "one\n", "is not of the form"),
        ("one", "one\n", "change nothing"),
        ("line 0\n# ... rest of the file", LONG, "line 2 leaves a part of it out"),
        ("line 0\n// ... existing code ...", LONG, "line 2 leaves a part of it out"),
        ("line 0\n...", LONG, "line 2 leaves a part of it out"),
    ],
)
def test_blocks_that_do_not_fit_change_nothing_and_say_why(block: str, present: str | None, problem: str):
    edits = edits_in(change_of(f"file: a.txt\n```\n{block}\n```\n\nfile: b.txt\n```\nnew\n```"))
    if problem == "change nothing":
        edits = edits[:1]
    made = make_files(edits, {"a.txt": present} if present is not None else {})
    assert made.texts == {}
    assert len(made.problems) == 1
    assert problem in made.problems[0]


def test_nothing_to_search_for_makes_a_file_that_is_not_there():
    edits = edits_in(change_of("file: a.txt\n```\n<<<<<<< SEARCH\n=======\nnew\n>>>>>>> REPLACE\n```"))
    assert make_files(edits, {}).texts == {"a.txt": "new\n"}
    assert "`old` is empty" in make_files(edits, {"a.txt": "old\n"}).problems[0]


def test_ellipsis_that_was_there_is_no_placeholder():
    edits = edits_in(change_of("file: a.py\n```python\ndef stub():\n    ...\n```"))
    assert make_files(edits, {"a.py": f"def stub():\n    ...\n{LONG}"}).problems == ()


def test_line_ends_of_the_file_stay():
    edits = edits_in(change_of("file: a.txt\n```\none\ntwo\n```"))
    assert make_files(edits, {"a.txt": "one\r\n"}).texts == {"a.txt": "one\r\ntwo\r\n"}
