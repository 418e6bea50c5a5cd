"""What the pages say, and how folders that are none of ours or incomplete are refused."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import HOSTILE
from tutelage import UserError
from tutelage.analysis.study import collect, summarize
from tutelage.cli import main
from tutelage.drawing.colors import contrast, text_color
from tutelage.io import write_json
from tutelage.report import write_report
from tutelage.report.colors import LEVELS, background
from tutelage.report.maps import LayerMaps, MapView


class Reader(HTMLParser):
    """Collects a page's text, its tags, and every attribute that could load something or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "style", "srcset", "data") or name.startswith("on"):
                self.loads.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(folder: Path, tmp_path: Path) -> Reader:
    write_report(folder, tmp_path / "page.html")
    return Reader((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_a_study_tells_its_spread_differences_and_costs(study: Path, tmp_path: Path) -> None:
    page = read(study, tmp_path)
    results = json.loads((study / "results.json").read_text())
    top1 = results["summary"]["kd"]["test"]["top1"]
    assert f"{100 * top1['mean']:.2f} ± {100 * top1['std']:.2f}" in page.text
    assert (
        f"{100 * results['summary']['kd']['difference']['mean']:+.2f} [".replace("-", "−")
        in page.text
    )
    assert f"{results['summary']['kd']['parameters']['student']:,}" in page.text
    headers = (
        "last epoch, top-1, %",
        "best epoch",
        "validation, top-1, %",
        "seconds",
        "ms per step",
        "KL to teacher",
    )
    for header in (*headers, "method’s parameters", "step / baseline", "more memory, MiB"):
        assert header in page.text
    for seed in ("0", "1"):
        assert f"{100 * results['runs']['baseline'][seed]['test']['top1']:.2f}" in page.text
    assert page.tags.count("pre") == 2  # a recipe a method
    assert "before training" in page.text


def test_what_was_run_and_quality_stand_before_cost(study: Path, tmp_path: Path) -> None:
    page = read(study, tmp_path)
    text = page.text[page.text.index("Outcome") :]
    order = ("data Digits", "labels 200", "on the same test data as the", "test top-1, %")
    order += ("[95 % confidence interval, paired by seed]", "KL to teacher", "validation, top-1, %")
    order += ("What training cost", "step / baseline", "seconds", "Seed by seed")
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def test_the_teacher_stands_on_the_same_part_where_it_is_known(study: Path, tmp_path: Path) -> None:
    results = json.loads((study / "results.json").read_text())
    for run in results["runs"]["kd"].values():
        run["teacher"]["test"]["top1"] = 0.98765
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = read(tmp_path, tmp_path)
    assert "teacher’s top-1, % 98.77 on the same test data as the students, 9" in page.text
    for run in results["runs"]["kd"].values():
        del run["teacher"]["test"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert "on validation data, not on the students’ test data" in read(tmp_path, tmp_path).text
    results["teachers"] = {"kd": {"top1": 0.87654}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = read(tmp_path, tmp_path)
    assert "teacher’s top-1, % 87.65 on the same test data as the students, 9" in page.text


def test_a_run_shows_the_teacher_on_the_same_part(study: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(study / "kd/seed0", run)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["teacher"]["test"]["top1"] = 0.98765
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = read(run, tmp_path).text
    assert "teacher’s top-1, % 98.77 on the same test data, 9" in text
    for part, own in metrics["teacher"].items():
        metrics["teacher"][part] = {f"large/{name}": value for name, value in own.items()}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "teacher large’s top-1, % 98.77 on the same test data" in read(run, tmp_path).text
    del metrics["teacher"]["test"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "on validation data, not on the test data" in read(run, tmp_path).text


def test_metrics_of_classes_are_folded_away_and_no_key_is_raw(study: Path, tmp_path: Path) -> None:
    results = json.loads((study / "results.json").read_text())
    for row in results["summary"].values():
        row["test"]["ap/big tree"] = {"mean": 0.25, "std": 0.01}
        row["test"]["mean_margin"] = {"mean": 0.5, "std": 0.1}
    for by_seed in results["runs"].values():
        for run in by_seed.values():
            run["peak_mib"] = 81.5
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = read(tmp_path, tmp_path)
    assert "AP big tree, % 25.00 ± 1.00 25.00 ± 1.00" in page.text
    assert "mean margin" in page.text
    assert "peak memory, MiB" in page.text
    assert "_m" not in page.text.split("Outcome")[1].split("Seed by seed")[0]


def test_a_seed_without_a_figure_is_left_out_of_the_pictures(study: Path, tmp_path: Path) -> None:
    runs = collect(study, ["baseline", "kd"], 2)
    runs["kd"][1]["test"]["top1"] = None
    results = {**json.loads((study / "results.json").read_text()), "runs": runs}
    write_json(tmp_path / "results.json", {**results, "summary": summarize(runs)})
    page = read(tmp_path, tmp_path)
    assert "nan" not in page.text.lower().split("seed by seed")[0].split("outcome")[1]


def test_a_cost_that_is_new_gets_a_column_of_its_own(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    results = json.loads((study / "results.json").read_text())
    results["runs"]["kd"]["0"]["memory_mb"] = 81.5
    results["summary"]["kd"]["cost"]["extra_peak_mib"] = {"mean": 317.0, "std": 1.0}
    (folder / "results.json").write_text(json.dumps(results))
    page = read(folder, tmp_path)  # without the runs beside it there are no curves and no recipes
    assert "memory mb" in page.text
    assert "81.50" in page.text
    assert "317" in page.text
    assert "Validation" not in page.text


def test_one_seed_has_no_spread_and_no_interval(study: Path, tmp_path: Path) -> None:
    results = json.loads((study / "results.json").read_text())
    runs = collect(study, ["baseline", "kd"], 1)
    folder = tmp_path / "study"
    folder.mkdir()
    summary = summarize(runs)
    write_json(folder / "results.json", {**results, "summary": summary, "runs": runs})
    page = read(folder, tmp_path)
    difference = f"{100 * summary['kd']['difference']['mean']:+.2f}".replace("-", "−")
    assert f">{difference}</td>" in (tmp_path / "page.html").read_text()
    assert "±" not in page.text.split("Every run")[0].split("Mean ±")[0]
    assert "nan" not in page.text.lower()


def test_a_run_tells_its_figures_terms_and_recipe(run: Path, tmp_path: Path) -> None:
    page = read(run, tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{100 * metrics['test']['top1']:.2f}" in page.text
    assert " ".join((run / "recipe.yaml").read_text().split()) in page.text
    for record in json.loads((run / "loss_scale.json").read_text()):
        assert record["term"] in page.text
    assert f"commit {json.loads((run / 'environment.json').read_text())['commit']}" in page.text
    assert "epoch 0 to epoch 2" in page.text


def test_a_run_without_a_teacher_has_a_page(study: Path, tmp_path: Path) -> None:
    page = read(study / "baseline/seed0", tmp_path)
    assert "shipped student" in page.text
    assert "of the teacher’s" not in page.text


def test_a_comparison_tells_the_closest_partners(comparison: Path, tmp_path: Path) -> None:
    page = read(comparison, tmp_path)
    assert "trust: 2" in page.text
    assert "do not trust: 1" in page.text
    assert "fc head 0.710 0.700 … 0.720 ≤ 0.010 trust 3" in page.text
    assert "3 Enough." in page.text


def test_one_reason_is_said_once(compared: dict[str, Any], tmp_path: Path) -> None:
    compared["reason"] = [["Enough."] * 2] * 3
    compared["permutations"] = 9
    (tmp_path / "compare.json").write_text(json.dumps(compared))
    page = read(tmp_path, tmp_path)
    visible = re.sub(r"<script.*?</script>", "", (tmp_path / "page.html").read_text(), flags=re.S)
    assert visible.count("Enough.") == 2  # below each of two tables
    assert "≤ 0.010" in page.text  # below what ten permutations allow, so it is no better known


def test_a_comparison_without_certainty_is_a_map_alone(
    compared: dict[str, Any], tmp_path: Path
) -> None:
    nothing = dict.fromkeys(("sd", "low", "high", "p_value", "verdict", "reason"))
    (tmp_path / "compare.json").write_text(json.dumps({**compared, **nothing}))
    page = read(tmp_path, tmp_path)
    assert "0.91" in page.text
    assert "trust:" not in page.text
    assert ">p-value</button>" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("kind", ["run", "study", "comparison"])
def test_a_page_holds_nothing_but_itself(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    page = read(request.getfixturevalue(kind), tmp_path)
    assert {load for load in page.loads if not load.startswith("#")} == {"data:,"}
    assert page.tags.count("style") == 1
    text = (tmp_path / "page.html").read_text()
    assert "@import" not in text
    assert not re.search(r"url\(", text)
    assert "default-src 'none'" in text


def test_every_text_is_escaped(compared: dict[str, Any], study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "compare.json").write_text(
        json.dumps({**compared, "left": HOSTILE, "estimator": HOSTILE})
    )
    page = read(folder, tmp_path)
    assert "img" not in page.tags
    assert page.tags.count("script") == 2  # the page's own, and the map's numbers
    run = tmp_path / "run"
    shutil.copytree(study / "kd/seed0", run)
    (run / "recipe.yaml").write_text(HOSTILE)
    page = read(run, tmp_path)
    assert "img" not in page.tags
    assert HOSTILE in page.text


def test_a_big_map_has_smaller_cells() -> None:
    sizes = {}
    for count in (6, 16, 40, 80):
        names = [f"layer{i}" for i in range(count)]
        values: list[list[float | None]] = [[0.5] * count for _ in names]
        sizes[count] = MapView(
            LayerMaps(names, names, 64, {"": values}), ("teacher", "student")
        ).size
    assert sizes == {6: "roomy", 16: "close", 40: "small", 80: "tiny"}


@pytest.mark.parametrize("at", range(LEVELS + 1))
def test_text_can_be_read_on_every_color(at: int) -> None:
    assert contrast(text_color(background(at)), background(at)) >= 4.5


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence with which the command refuses a folder."""
    before = sorted(folder.rglob("*")) if folder.is_dir() else []
    assert main(["report", str(folder)]) == 2
    assert (
        sorted(folder.rglob("*")) if folder.is_dir() else []
    ) == before  # nothing is left behind
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(folder) in message
    return message


def test_a_search_tells_its_trials_and_what_matters(search: Path, tmp_path: Path) -> None:
    page = read(search, tmp_path)
    assert page.tags.count("img") == 0
    assert f"81.25 trial 4, the best; {' '.join(HOSTILE.split())}: temperature 5" in page.text
    assert "without a method 68.75" in page.text
    assert "2 to their end, 1 ended early, 1 failed" in page.text
    assert "as it was 75.00 temperature 2, weight 0.5" in page.text
    assert "failed: the term 'kd' became nan" in page.text
    assert "temperature 0.88 1 8" in page.text  # its share of the differences, and its range
    assert "4 trials, scores after epoch 1" in page.text
    assert "best so far: top-1, %: from 75 at trial 1 to 81.25 at trial 4" in (
        (tmp_path / "page.html").read_text()
    )


def test_a_search_that_is_not_whole(
    search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((search / "tune.json").read_text())
    del content["trials"][0]["curve"]
    write_json(search / "tune.json", content)
    assert "has no 'curve'" in refused(search, capsys)
    (search / "tune.json").unlink()
    (search / "tune.db").touch()
    assert "a search that is not finished" in refused(search, capsys)


def test_a_folder_that_is_none_of_ours_or_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert "does not exist" in refused(tmp_path / "none", capsys)
    assert "is a file" in refused(tmp_path / "file", capsys)
    assert "no run, study, search or comparison" in refused(tmp_path / "empty", capsys)


def test_a_run_or_a_study_that_is_not_finished(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "study/results.json").unlink()
    assert "study that is not finished" in refused(tmp_path / "study", capsys)
    (tmp_path / "study/kd/seed0/metrics.json").unlink()
    assert "run that is not finished" in refused(tmp_path / "study/kd/seed0", capsys)


@pytest.mark.parametrize(
    "name", ["metrics.json", "loss_scale.json", "log.jsonl", "environment.json"]
)
@pytest.mark.parametrize("harm", ["cut", "emptied", "other", "gone"])
def test_a_file_of_a_run_is_broken(
    name: str, harm: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(study / "kd/seed0", folder)
    path = folder / name
    if harm == "gone":
        path.unlink()
    elif harm == "emptied" and name == "log.jsonl":
        path.write_text("\n[]\n")
    else:
        text = path.read_text()
        path.write_text({"cut": text[:-9] + "\n", "emptied": "[0]", "other": '{"epoch": {}}'}[harm])
    assert name in refused(folder, capsys) or (harm, name) == ("gone", "metrics.json")


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_log_that_was_cut_in_a_line(
    end: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    log = folder / "log.jsonl"
    cut = '{"epoch": 3, "step": 9, "terms": {"task": 2.0}'
    log.write_text(log.read_text() + cut + end)
    if not end:  # it is still being written
        assert main(["report", str(folder)]) == 0
    else:
        assert "in line 3 (" in refused(folder, capsys)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "3",
        "",
        "\x00\xff",
        '{"summary": {"../x": {}}, "runs": {"../x": {"0": {}}}, "monitor": "a", "provenance": {}}',
        '{"summary": {"kd": {}}, "runs": {"kd": {"one": {}}}, "monitor": "a", "provenance": {}}',
    ],
)
@pytest.mark.parametrize("name", ["results.json", "compare.json", "metrics.json"])
def test_a_foreign_file_is_one_sentence(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    for other in ("loss_scale.json", "environment.json", "log.jsonl"):
        (tmp_path / other).write_text("{}\n")
    message = refused(tmp_path, capsys)
    assert name in message
    assert "repeat the command that wrote the folder" in message


@pytest.mark.parametrize("key", ["rows", "value", "verdict", "low", "left", "provenance"])
@pytest.mark.parametrize("value", ["missing", [[0.5]], 3])
def test_a_comparison_is_broken(
    key: str,
    value: Any,
    compared: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = {**compared, key: value}
    if value == "missing":
        del content[key]
    elif key == "left":
        content[key], content["columns"] = "a", []
    (tmp_path / "compare.json").write_text(json.dumps(content))
    assert "compare.json" in refused(tmp_path, capsys)


def test_a_study_is_broken(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((study / "results.json").read_text())
    path = tmp_path / "results.json"
    for broken in (
        [],
        {**results, "summary": {}},
        {**results, "runs": {}},
        {"summary": results["summary"]},
    ):
        path.write_text(json.dumps(broken))
        assert "results.json" in refused(tmp_path, capsys)
    path.write_text(json.dumps(results))
    (tmp_path / "layer_maps.json").write_text(
        '{"rows": ["a"], "columns": ["b"], "samples": 3, "maps": {"x": [[1, 2]]}}'
    )
    assert "1 x 1" in refused(tmp_path, capsys)


def test_the_page_is_whole_or_as_it_was(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new/page.html"
    assert main(["report", str(study), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    before = out.read_text()
    assert main(["report", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert out.read_text() == before
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    assert main(["report", str(study), "--out", str(out.parent)]) == 2
    assert main(["report", str(study), "--out", str(out / "page.html")]) == 2
    assert main(["report", str(study), "--out", str(tmp_path / "page.pdf")]) == 2
    with pytest.raises(UserError, match="is a folder"):
        write_report(study, out.parent)
