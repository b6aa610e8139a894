from textkit.words import count_words, title_case, words


def test_words_keeps_order():
    assert words("one, two; three") == ["one", "two", "three"]


def test_count_words_of_empty_text_is_zero():
    assert count_words("") == 0


def test_title_case_leaves_other_letters():
    assert title_case("the iPhone case") == "The IPhone Case"
