"""The command line: python -m textkit count TEXT."""

import sys

from textkit.words import count_words, title_case


def main(arguments: list[str]) -> int:
    match arguments:
        case ["count", text]:
            print(count_words(text))
        case ["title", text]:
            print(title_case(text))
        case _:
            print("usage: python -m textkit count|title TEXT", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
