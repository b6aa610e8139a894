import subprocess
import sys

import pytest


@pytest.mark.e2e
def test_count_prints_the_number_of_words():
    done = subprocess.run(
        [sys.executable, "-m", "textkit", "count", "two words"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"
