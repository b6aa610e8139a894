"""Functions on words."""

import re


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return re.findall(r"[A-Za-z0-9']+", text)


def count_words(text: str) -> int:
    """How many words a text has."""
    return len(words(text))


def title_case(text: str) -> str:
    """The text with a capital letter at the start of each word."""
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
