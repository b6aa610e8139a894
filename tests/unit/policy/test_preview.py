"""What a repository declares in .fleet/workspace.toml, and how a wrong declaration is refused."""

from __future__ import annotations

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.policy.workspace_file import MAX_WORKSPACE_FILE, parse_workspace_file

HEAD = '[preview]\ncommand = ["python", "app.py"]\nport = 8000\n'
PAGE = '[[preview.pages]]\npath = "/"\n'


@pytest.mark.rule("RC-75")
def test_declaration_is_read_with_its_defaults() -> None:
    more = '[[preview.pages]]\npath = "/login?next=%2F"\nstatus = 404\ntext = ["Sign in"]\n'
    more += 'selectors = ["form"]\nwidth = 390\n'
    preview = parse_workspace_file((HEAD + PAGE + more).encode()).preview

    assert preview is not None
    assert (preview.ready, preview.ready_s, preview.page_s) == ("/", 30, 20)
    assert [page.name for page in preview.pages] == ["/", "/login?next=%2F at 390 px"]
    first, second = preview.pages
    assert (first.status, first.text, first.selectors, first.width, first.allow_errors) == (200, (), (), None, False)
    assert (second.status, second.text, second.selectors) == (404, ("Sign in",), ("form",))
    asked = preview.request()
    assert asked["pages"][1]["name"] == "/login?next=%2F at 390 px"  # type: ignore[index]


def test_file_without_a_preview_declares_none() -> None:
    assert parse_workspace_file(b"# nothing yet\n").preview is None


@pytest.mark.rule("RC-75")
@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (HEAD, "preview.pages", "required"),
        (HEAD + PAGE.replace('"/"', '"//example.com/"'), "preview.pages[0].path", "path of the preview"),
        (HEAD + PAGE.replace('"/"', '"http://example.com/"'), "preview.pages[0].path", "path of the preview"),
        (HEAD + PAGE.replace('"/"', '"/a b"'), "preview.pages[0].path", "no spaces"),
        (HEAD + PAGE + "status = 99\n", "preview.pages[0].status", "200"),
        (HEAD + PAGE + "status = true\n", "preview.pages[0].status", "integer"),
        (HEAD + PAGE + "width = 12\n", "preview.pages[0].width", "240"),
        (HEAD + PAGE + 'text = "Hello"\n', "preview.pages[0].text", "tuple"),
        (HEAD + PAGE + 'text = [""]\n', "preview.pages[0].text[0]", "1 character"),
        (HEAD + PAGE + 'text = ["\\u0000"]\n', "preview.pages[0].text[0]", "control"),
        (HEAD + PAGE + f"text = {['a'] * 11}\n", "preview.pages[0].text", "10 items"),
        (HEAD + PAGE + 'titel = "x"\n', "preview.pages[0].titel", "no such key"),
        (HEAD + PAGE * 2, "preview", "twice"),
        (HEAD + "".join(PAGE.replace('"/"', f'"/{n}"') for n in range(21)), "preview.pages", "20 items"),
        (HEAD.replace("8000", "80") + PAGE, "preview.port", "1024"),
        (HEAD.replace("8000", '"8000"') + PAGE, "preview.port", "integer"),
        (HEAD.replace('["python", "app.py"]', '"python app.py"') + PAGE, "preview.command", "tuple"),
        (HEAD.replace('["python", "app.py"]', "[]") + PAGE, "preview.command", "1 item"),
        (HEAD.replace('["python", "app.py"]', '[""]') + PAGE, "preview", "name of a program"),
        (HEAD + "ready_s = 301\n" + PAGE, "preview.ready_s", "300"),
        ('[other]\nx = "y"\n', "other", "no such key"),
    ],
)
def test_wrong_declaration_is_refused_by_field(text: str, field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_workspace_file(text.encode())

    problem = refused.value.details["problems"][0]
    assert problem["field"] == field
    assert words in problem["message"]
    assert f": {field}: " in refused.value.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[preview\n", "line 1"),
        (b"\xff", "UTF-8"),
        (b"a = " + b"[" * 20_000, "TOML"),
        (b"a = " + b"9" * 20_000, "TOML"),
        (b"#" * (MAX_WORKSPACE_FILE + 1), "bytes"),
    ],
)
def test_what_is_no_readable_file_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_workspace_file(data)
