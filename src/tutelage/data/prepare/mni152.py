"""Slices of the averaged brain that the package nilearn ships, with grey and white matter as masks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from tutelage.data.prepare.folder import build, package_folder
from tutelage.data.prepare.mask_files import write_list, write_masked
from tutelage.errors import UserError

NAME = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
SIZE, NOISE, TISSUE = (96, 112), 0.08, 0.05  # pixels; standard deviation; least share of grey and white matter
TRAIN, GAP, VALIDATION = 93, 6, 17  # slices from below, and what is left out between parts
ADVICE = "pip install --no-deps nilearn && pip install nibabel"


def prepare_mni152(root: str | Path, seed: int = 0) -> Path:
    """Cut the MNI152 template into axial slices, in the layout of PASCAL VOC; return the folder.

    The image is T1 with Gaussian noise of 0.08 of the range, without which a threshold would nearly do; the classes are
    background, grey matter and white matter (each where its probability is above one half). Of the 133 slices with
    tissue, the lower ones are trained on, a block above them is for validation, the upper ones are tested on; between
    parts 6 slices are left out, since neighbours are nearly equal. It is one averaged brain, not a population.
    V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 2011; files of the
    package nilearn, the template under terms of its own.

    Args:
        root: the folder to make.
        seed: of the noise.

    Raises:
        UserError: a package is not installed.
    """
    source = package_folder("nilearn", ADVICE)
    package_folder("nibabel", ADVICE)

    def write(folder: Path) -> None:
        brain, grey, white = (_volume(source / NAME.format(name)) for name in ("t1", "gm", "wm"))
        tissue = ((grey > 0.5) | (white > 0.5)).float().mean((1, 2)) > TISSUE
        levels = tissue.nonzero().flatten().tolist()
        parts = {
            "train": levels[: TRAIN - VALIDATION - GAP],
            "val": levels[TRAIN - VALIDATION : TRAIN],
            "test": levels[TRAIN + GAP :],
        }
        generator = torch.Generator().manual_seed(seed)
        for part, slices in parts.items():
            names = [f"{part}_{level:03d}" for level in slices]
            for name, level in zip(tqdm(names, desc=part, unit="slice"), slices, strict=True):
                image, one, two = (_small(volume[level]) for volume in (brain, grey, white))
                noisy = image + NOISE * torch.randn(image.shape, generator=generator)
                mask = (one > 0.5).byte() + 2 * (two > 0.5).byte()
                write_masked(folder, name, (noisy.clamp(0, 1) * 255).round().byte(), mask)
            write_list(folder, part, names)

    return build(Path(root), write)


def _volume(path: Path) -> Tensor:
    """Return a volume in [0, 1], its axial slices first."""
    import numpy as np
    from nibabel import Nifti1Image
    from nibabel.filebasedimages import ImageFileError

    try:
        voxels = np.asarray(Nifti1Image.from_filename(path).dataobj, dtype=np.float32)
    except (OSError, ImageFileError) as error:
        raise UserError(f"{path} cannot be read ({error}); install nilearn anew: {ADVICE}") from error
    return torch.from_numpy(voxels).permute(2, 0, 1).contiguous() / float(voxels.max())


def _small(plane: Tensor) -> Tensor:
    small: Tensor = F.interpolate(plane[None, None], SIZE, mode="bilinear", antialias=True)[0, 0]
    return small
