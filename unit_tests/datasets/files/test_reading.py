"""Files are read whole and within bounds; what an error repeats of them is short and printable."""

import pytest

from datasets.files.reading import clean_text


@pytest.mark.parametrize("text", ["", "film", "naïve \U0001f600 \u2028", "\ufffd\ufeff\x00"])
def test_text_without_lone_surrogates_stays(text):
    assert clean_text(text) is text


def test_lone_surrogates_become_the_replacement_character():
    assert clean_text("a\ud83db\udc00\udfff") == "a\ufffdb\ufffd\ufffd"
    assert clean_text("\ud83d\ude00") == "\ufffd\ufffd"  # two halves, but no pair of JSON's
