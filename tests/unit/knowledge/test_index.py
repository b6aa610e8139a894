"""The index follows the files: what it answers after any changes is what a new index of the result answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.knowledge.extract import extract
from fleet.knowledge.facts import FileFacts
from fleet.knowledge.index import CodeIndex
from fleet.knowledge.languages import language_of
from fleet.knowledge.rank import ask, rank_files

TEXTS = (
    "class Cart:\n    def reserve(self): ...\n",
    "from shop.cart import Cart\n\ndef total(cart): ...\n",
    "from . import cart\nimport shop.money\n",
    "# reserving money\n",
    "",
)
PATHS = ("shop/cart.py", "shop/money.py", "shop/__init__.py", "lib/cart.py", "docs/cart.md", "a.png")


def facts_of(path: str, text: str) -> FileFacts:
    return extract([(language_of(path), text.encode())])[0]


def index_of(files: dict[str, str]) -> CodeIndex:
    index = CodeIndex()
    for path, text in files.items():
        index.put(path, facts_of(path, text))
    return index


CHANGES = st.lists(st.tuples(st.sampled_from(PATHS), st.one_of(st.none(), st.sampled_from(TEXTS))), max_size=12)


@settings(max_examples=40)
@given(CHANGES)
def test_index_after_changes_answers_as_a_new_one(changes: list[tuple[str, str | None]]) -> None:
    files: dict[str, str] = {}
    index = CodeIndex()
    for path, text in changes:
        if text is None:
            files.pop(path, None)
            index.drop(path)
        else:
            files[path] = text
            index.put(path, facts_of(path, text))
    fresh = index_of(files)
    everything = frozenset({"source", "test", "document", "other"})
    for question in ("reserve the Cart", "money", "shop/cart.py", "shop.cart"):
        asked = ask(question)
        assert rank_files(index, asked, limit=9, roles=everything) == rank_files(
            fresh, asked, limit=9, roles=everything
        )
    for path in files:
        assert list(index.imported_by(path)) == list(fresh.imported_by(path))
    assert abs(index.mean_length - fresh.mean_length) < 1e-6


def test_dropping_what_is_not_there_changes_nothing() -> None:
    index = index_of({"a.py": TEXTS[0]})
    index.drop("b.py")
    assert list(index.files) == ["a.py"]


def test_imports_lead_to_files_of_the_tree_alone() -> None:
    files = {
        "shop/cart.py": "",
        "shop/items/__init__.py": "",
        "shop/items/price.py": "from . import cart\nfrom .. import cart\nfrom ..cart import Cart\nimport os\n",
        "other/cart.py": "",
        "shop/main.py": "from shop.items.price import euro\nfrom shop.items import price\nimport shop.items\n",
        "web/a.ts": "import { b } from './lib/b.js'\nimport c from '../web'\n",
        "web/lib/b.ts": "",
        "web/index.ts": "",
        "src/a.rs": "use crate::money;\n",
        "src/money.rs": "",
    }
    index = index_of(files)
    assert list(index.imported_by("shop/items/price.py")) == ["shop/items/__init__.py", "shop/cart.py"]
    assert list(index.imported_by("shop/main.py")) == ["shop/items/price.py", "shop/items/__init__.py"]
    assert list(index.imported_by("web/a.ts")) == ["web/lib/b.ts", "web/index.ts"]
    assert list(index.imported_by("src/a.rs")) == ["src/money.rs"]


def test_path_in_a_question_names_a_file_or_those_that_end_so() -> None:
    index = index_of(dict.fromkeys(("shop/cart.py", "lib/shop/cart.py", "b.py"), ""))
    assert list(index.at("shop/cart.py")) == ["shop/cart.py"]
    assert list(index.at("/cart.py")) == ["shop/cart.py", "lib/shop/cart.py"]
    assert list(index.at("nowhere/cart.py")) == []
