"""The heat maps as pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from matplotlib import image

from tutelage import UserError
from tutelage.report import draw_layer_maps, write_picture

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


def _height(text: ElementTree.Element) -> float:
    """Return the y of a text, from its attribute or its transform."""
    if "y" in text.attrib:
        return float(text.attrib["y"])
    return float(text.attrib["transform"].partition("translate(")[2].partition(")")[0].split()[1])


def test_a_folder_without_a_map(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no layer map"):
        write_picture(study / "kd/seed0", tmp_path / "map.png")
