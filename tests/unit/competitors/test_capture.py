"""Prints and log records of an entry."""

import logging
import sys
from pathlib import Path

from competitors.capture import captured_output


def test_what_is_printed_and_logged_goes_to_the_file_while_the_block_lasts(tmp_path: Path):
    level = logging.getLogger().level
    with captured_output(tmp_path / "log.txt"):
        print("printed")
        print("complained", file=sys.stderr)
        logging.getLogger("mine").info("logged")
    logging.getLogger("mine").warning("afterwards")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[:2] == ["printed", "complained"]
    assert lines[2].endswith("INFO mine: logged")
    assert len(lines) == 3
    assert logging.getLogger().level == level
