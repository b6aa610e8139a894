"""Files, names, patches and outputs are shown without secrets, and keep their lines (CX-60)."""

from __future__ import annotations

import difflib
import json

import pytest

from fleet.desk.shown_text import shown_bytes, shown_lines, shown_patch
from fleet.desk.tree_view import file_at, tree_changes
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest
from fleet.redaction.redact import redact
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.secrets import NAMED, SAMPLES, PlantedSecret, planted

EACH = pytest.mark.parametrize("planted", (SAMPLES | NAMED).values(), ids=(SAMPLES | NAMED).keys())
CODE = [f"value_{n} = {n}" for n in range(30)]


def shows(sample: PlantedSecret, text: str) -> bool:
    """Whether a text holds the secret, or one of its lines where it has several that are long."""
    parts = [sample.secret, *(line for line in sample.secret.split("\n") if len(line) > 30)]
    return any(part in text for part in parts if not part.startswith("-----"))


async def tree(blobs: MemoryBlobStore, files: dict[str, str]) -> Digest:
    entries = {path: FileEntry("100644", await blobs.put(text.encode())) for path, text in files.items()}
    return await blobs.put(encode_tree(entries))


@pytest.mark.rule("CX-60")
@EACH
async def test_file_and_difference_of_trees_show_no_secret(planted: PlantedSecret) -> None:
    blobs = MemoryBlobStore()
    plain, secret = "\n".join(CODE) + "\n", "\n".join([*CODE[:15], planted.text, *CODE[15:]]) + "\n"
    clean = await tree(blobs, {"a.py": plain, "gone.py": secret})
    dirty = await tree(blobs, {"a.py": secret, "new.py": secret})
    shown = await file_at(blobs, dirty, "a.py")
    assert shown.text == redact(secret).text
    assert shown.size_bytes == len(secret.encode())
    for old, new in ((clean, dirty), (dirty, clean)):
        found = (await tree_changes(blobs, old, new)).files
        patches = {change.path: change.patch or "" for change in found}
        assert set(patches) == {"a.py", "gone.py", "new.py"}
        assert not any(shows(planted, patch) for patch in patches.values())
        assert all("[REDACTED:" in patch for patch in patches.values())
        (one,) = [change for change in found if change.path == "a.py"]
        assert one.added + one.removed == len(planted.text.splitlines())


@pytest.mark.rule("CX-60")
async def test_line_inside_of_a_key_shows_nothing_where_only_a_part_of_it_is_compared() -> None:
    key = SAMPLES["rsa"].text.split("\n")
    changed = [*key[:4], "c2hvcnQ", *key[5:]]
    blobs = MemoryBlobStore()
    old, new = [await tree(blobs, {"key.pem": "\n".join(lines) + "\n"}) for lines in (key, changed)]
    patch = (await tree_changes(blobs, old, new)).files[0].patch or ""
    body = [line[1:] for line in patch.split("\n")[3:]]
    assert len(body) == 8
    assert set(body) == {"[REDACTED:PRIVATE_KEY]"}


@pytest.mark.rule("CX-60")
async def test_secret_that_was_exchanged_is_seen_to_be_another_line_and_not_which() -> None:
    blobs = MemoryBlobStore()
    texts = [f"a = 1\nPASSWORD = '{word}'\nb = 2\n" for word in ("b1ue-horse", "r3d-horse")]
    old, new = [await tree(blobs, {"s.py": text}) for text in texts]
    (change,) = (await tree_changes(blobs, old, new)).files
    assert (change.added, change.removed) == (1, 1)
    lines = (change.patch or "").split("\n")[3:]
    assert lines == [" a = 1", "-PASSWORD = '[REDACTED:KEY_VALUE]'", "+PASSWORD = '[REDACTED:KEY_VALUE]'", " b = 2"]


@pytest.mark.rule("CX-60")
async def test_file_whose_name_is_a_secret_is_found_by_the_name_that_is_shown() -> None:
    token = SAMPLES["github"].secret
    blobs = MemoryBlobStore()
    old, new = await tree(blobs, {}), await tree(blobs, {f"keys/{token}.txt": "hello\n", "plain.txt": "x\n"})
    shown = [change.path for change in (await tree_changes(blobs, old, new)).files]
    assert shown == ["keys/[REDACTED:GITHUB].txt", "plain.txt"]
    found = await file_at(blobs, new, shown[0])
    assert (found.path, found.text) == (shown[0], "hello\n")
    (change,) = (await tree_changes(blobs, old, new, path=shown[0])).files
    assert token not in (change.patch or "")
    with pytest.raises(ArtifactNotFound):
        await file_at(blobs, new, "keys/[REDACTED:AWS].txt")


@pytest.mark.rule("CX-60")
def test_every_line_stays_where_it_is() -> None:
    for name, sample, text in planted():
        whole = f"one\n{text}\r\nlast"
        lines = shown_lines(whole)
        assert len(lines) == len(whole.splitlines()), name
        assert (lines[0], lines[-1]) == ("one", "last"), name
        assert not shows(sample, "\n".join(lines)), name
    assert shown_lines("") == []
    assert shown_lines("no secret\n\nhere\n") == ["no secret", "", "here"]


def test_patch_without_secrets_is_that_of_the_texts() -> None:
    a = CODE
    for b in ([*CODE[:3], "x", *CODE[9:]], [], ["@@ -1 +1 @@", *CODE, "--- a"], CODE[5:]):
        for old, new in ((a, b), (b, a)):
            plain = list(difflib.unified_diff(old, new, "a/f", "b/f", lineterm="", n=3))
            assert list(shown_patch(plain, old, new)) == plain


@pytest.mark.rule("CX-60", "CX-74")
def test_text_is_taken_away_without_secrets_and_bytes_that_are_no_text_as_they_are() -> None:
    token = SAMPLES["github"].secret
    assert shown_bytes(json.dumps({"t": token}).encode()) == (b'{"t": "[REDACTED:GITHUB]"}', {"GITHUB": 1})
    damaged = b"\xff\xfe is no UTF-8: " + token.encode() + b"\n\xe9"
    assert shown_bytes(damaged) == (b"\xff\xfe is no UTF-8: [REDACTED:GITHUB]\n\xe9", {"GITHUB": 1})
    image = b"\x89PNG\0\0" + token.encode()
    assert shown_bytes(image) == (image, {})
    assert shown_bytes(b"plain \xe9") == (b"plain \xe9", {})
