from __future__ import annotations

from ctrldecode.cli._corpora import read_texts


def test_lines_end_at_line_ends_and_nowhere_else(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("one\u2028line\r\ntwo\x0bparts\rthree\x85ends\n\n".encode())
    assert read_texts(path) == ["one\u2028line", "two\x0bparts", "three\x85ends"]
