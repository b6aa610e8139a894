"""Which files a task is about, and what speaks for each."""

from __future__ import annotations

from fleet.knowledge.extract import extract
from fleet.knowledge.index import CodeIndex
from fleet.knowledge.languages import language_of
from fleet.knowledge.rank import MAX_QUESTION, RankedFile, ask, best_symbol, rank_files, sources_of_test


def index_of(files: dict[str, str]) -> CodeIndex:
    index = CodeIndex()
    read = extract([(language_of(path), text.encode()) for path, text in files.items()])
    for path, facts in zip(files, read, strict=True):
        index.put(path, facts)
    return index


SHOP = index_of(
    {
        "shop/cart.py": 'class Cart:\n    """Reservations."""\n\n    def add(self):\n        ...\n\n'
        "    def expire_items(self):\n        ...\n",
        "shop/money.py": "def round_price(price):\n    return price\n",
        "shop/tax.py": "from shop.money import round_price\n\ndef vat(price):\n    return round_price(price)\n",
        "shop/text.py": "def slug(title):\n    return title\n",
        "tests/test_cart.py": "from shop.cart import Cart\n\ndef test_abandoned_baskets_expire():\n    ...\n",
        "README.md": "# Shop\nCarts expire after an hour.\n",
    }
)


def paths_for(task: str, **options: object) -> list[str]:
    return [file.path for file in rank_files(SHOP, ask(task), limit=3, **options)]  # type: ignore[arg-type]


def test_words_of_the_task_find_the_source_with_its_most_fitting_definition() -> None:
    first = rank_files(SHOP, ask("Items in the cart should expire after an hour"), limit=1)[0]
    assert (first.path, first.line, first.symbol) == ("shop/cart.py", 7, "Cart.expire_items")
    assert "words" in first.reasons
    assert first.score_milli > 0


def test_named_path_comes_first_whatever_the_words_say() -> None:
    assert paths_for("carts expire: see shop/text.py")[0] == "shop/text.py"


def test_named_symbol_counts_more_than_its_words() -> None:
    found = rank_files(SHOP, ask("The price of the price is wrong, round_price does it"), limit=2)
    assert found[0].path == "shop/money.py"
    assert "defines round_price" in found[0].reasons


def test_name_that_is_asked_for_alone_finds_its_definition_in_however_long_a_file() -> None:
    others = "".join(f"def other_{n}(value):\n    return value\n" for n in range(400))
    words = "# items expire, expired items expire\n" * 40
    plain = {f"plain_{n}.py": "def nothing(): ...\n" for n in range(20)}
    index = index_of({"long.py": f"def expire_items(): ...\n{others}", "short.py": words, **plain})
    assert [file.path for file in rank_files(index, ask("items expire"), limit=1)] == ["short.py"]
    assert [file.path for file in rank_files(index, ask("expire_items"), limit=1)] == ["long.py"]
    assert [file.path for file in rank_files(index, ask("`expire_items()`"), limit=1)] == ["long.py"]


def test_ordinary_word_is_a_name_where_it_is_marked_as_code() -> None:
    assert ask("Cart.add of the cart").names == ("Cart.add",)
    assert ask("the ``Cart`` and :class:`~shop.cart.Cart`, slug() too").names == ("cart.Cart", "Cart", "slug")
    found = rank_files(SHOP, ask("Cart.add is slow"), limit=1)[0]
    assert (found.path, "defines Cart.add" in found.reasons) == ("shop/cart.py", True)


def test_file_that_a_fitting_test_is_named_after_is_found_without_a_word_of_its_own() -> None:
    (found,) = rank_files(SHOP, ask("abandoned baskets"), limit=3)
    assert found == RankedFile("shop/cart.py", 1, found.score_milli, ("tested by tests/test_cart.py",))


def test_roles_choose_between_sources_tests_and_documents() -> None:
    assert paths_for("abandoned baskets", roles=frozenset({"test"})) == ["tests/test_cart.py"]
    assert paths_for("hour", roles=frozenset({"document"})) == ["README.md"]


def test_import_of_a_fitting_file_is_a_reason() -> None:
    found = {file.path: file for file in rank_files(SHOP, ask("vat on the price"), limit=3)}
    assert found["shop/money.py"].reasons == ("words", "imported by shop/tax.py")


def test_question_that_nothing_answers_gives_nothing() -> None:
    assert paths_for("zebra") == []
    assert paths_for("") == []
    assert rank_files(CodeIndex(), ask("cart"), limit=5) == []


def test_question_is_read_up_to_its_bound() -> None:
    assert ask("a_b " + "x" * MAX_QUESTION + " late").terms == {"a_b": 1}
    assert len(ask(" ".join(f"name_{n}/x{n}.py" for n in range(900))).paths) == 50


def test_equal_files_are_in_order_of_path() -> None:
    index = index_of(dict.fromkeys(("b.py", "a.py", "c.py"), "def same_name(): ...\n"))
    assert [f.path for f in rank_files(index, ask("same name"), limit=3)] == ["a.py", "b.py", "c.py"]


def test_definition_without_a_shared_word_is_none() -> None:
    assert best_symbol(SHOP, ask("zebra"), "shop/cart.py") is None


def test_test_without_an_import_belongs_to_the_only_source_of_its_name() -> None:
    index = index_of({"a/cart.go": "", "b/money.go": "", "c/money.go": "", "b/cart_test.go": "", "b/money_test.go": ""})
    assert sources_of_test(index, "b/cart_test.go", []) == ["a/cart.go"]
    assert sources_of_test(index, "b/money_test.go", []) == [], "two files have that name"
