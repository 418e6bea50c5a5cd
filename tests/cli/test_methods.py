from __future__ import annotations

from tests.cli.conftest import Run


def test_it_lists_every_method_with_what_it_needs_and_where_it_lost(run: Run) -> None:
    answer = run("methods")
    assert (answer.code, answer.err) == (0, "")
    by_name = {
        block.split("  —  ")[0]: " ".join(block.split())
        for block in answer.out.replace("\n    ", " ").splitlines()
    }
    assert {"KD", "RCKA", "PCKA", "CombinedMethod"} & set(by_name) >= {"KD", "RCKA", "PCKA"}
    assert "arXiv 2203.08679" in by_name["DKD"]
    assert "caution beta 8" in by_name["DKD"]
    assert "caution" not in by_name["KD"]
