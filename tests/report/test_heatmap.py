"""The heat maps as pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from matplotlib import image

from tutelage import UserError
from tutelage.report import draw_layer_maps, write_picture
from tutelage.report.maps import LayerMaps
from tutelage.report.read_maps import read_study_maps

TEXT = "{http://www.w3.org/2000/svg}text"


@pytest.mark.parametrize("kind", ["run", "study", "comparison"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_every_folder_with_a_map_gives_a_picture(
    kind: str, suffix: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    picture = tmp_path / "new" / f"map.{suffix}"
    write_picture(request.getfixturevalue(kind), picture)
    assert [path.name for path in picture.parent.iterdir()] == [picture.name]
    if suffix == "png":
        height, width, _ = image.imread(picture).shape
        assert min(height, width) > 200
    else:
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_a_long_row_of_panels_wraps_and_titles_do_not_overlap(tmp_path: Path) -> None:
    names = [f"stage{i}" for i in range(6)]
    grid = [[0.5] * 6] * 6
    maps = {"before training": grid, **{f"method{i}": grid for i in range(7)}}
    source = tmp_path / "layer_maps.json"
    source.write_text(json.dumps({"rows": names, "columns": names, "samples": 8, "maps": maps}))
    draw_layer_maps(source, tmp_path / "map.png")
    height, width, _ = image.imread(tmp_path / "map.png").shape
    assert 0.5 < height / width < 2.0
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_layer_maps(source, tmp_path / "map.svg")
    texts = {
        text.text: _height(text) for text in ElementTree.parse(tmp_path / "map.svg").iter(TEXT)
    }
    heading = next(y for text, y in texts.items() if text and text.startswith("Layers of teacher"))
    assert texts["before training"] - heading > 14  # points: more than a line of the panel's title
    assert texts["method6"] > texts["method0"] + 100


def test_differences_have_a_scale_of_their_own(study: Path) -> None:
    layers = read_study_maps(study / "layer_maps.json")
    differences = layers.differences()
    assert differences is not None
    assert list(differences.maps) == ["baseline − before training", "kd − before training"]
    assert differences.maps["baseline − before training"][1][2] == pytest.approx(0.2)
    assert differences.maps["kd − before training"][0][0] is None  # it has no value
    assert differences.scale == pytest.approx(0.5, abs=0.011)
    assert [differences.number(value) for value in (0.2, -0.2, 0.001, None)] == [
        "+0.20",
        "−0.20",
        "0.00",
        "–",
    ]
    assert [differences.level(value) for value in (-1.0, 0.0, 1.0)] == [0, 25, 50]
    first = LayerMaps(layers.rows, layers.columns, 64, {"one": layers.maps["kd"]})
    assert first.differences() is None


def test_the_picture_names_every_layer_and_shows_what_changed(tmp_path: Path) -> None:
    import matplotlib

    names = [f"vit.encoder.layer.{i}.attention.attention.query" for i in range(12)]
    grid = [[0.5] * 12] * 12
    maps = {"before training": grid, "kd": grid}
    source = tmp_path / "layer_maps.json"
    source.write_text(json.dumps({"rows": names, "columns": names, "samples": 8, "maps": maps}))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_layer_maps(source, tmp_path / "map.svg")
    texts = [text.text for text in ElementTree.parse(tmp_path / "map.svg").iter(TEXT)]
    assert texts.count("…10.attention.attention.query") == 6  # rows and columns of three maps
    assert "kd − before training" in texts


def _height(text: ElementTree.Element) -> float:
    """Return the y of a text, from its attribute or its transform."""
    if "y" in text.attrib:
        return float(text.attrib["y"])
    return float(text.attrib["transform"].partition("translate(")[2].partition(")")[0].split()[1])


def test_a_folder_without_a_map(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no layer map"):
        write_picture(study / "kd/seed0", tmp_path / "map.png")
