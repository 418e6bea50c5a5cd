"""One module a data set, with what makes it from installed packages or archives."""

from __future__ import annotations

from tutelage.data.sets.deepforest import prepare_deepforest
from tutelage.data.sets.mni152 import prepare_mni152
from tutelage.data.sets.tuxpaint import prepare_tuxpaint
from tutelage.data.sets.voc_boxes import prepare_voc

__all__ = ["prepare_deepforest", "prepare_mni152", "prepare_tuxpaint", "prepare_voc"]
