"""Gray and white matter of one averaged brain: a small segmentation set, installed with pip."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from tutelage.data.image_data import RawSplits
from tutelage.data.masks import MaskFormat
from tutelage.data.sets._prepare import (
    PreparedData,
    build_folder,
    package_folder,
    write_image_and_mask,
    write_part_list,
)
from tutelage.data.sets.voc import read_mask_part
from tutelage.errors import UserError

FILE = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
SIZE = (96, 112)  # height and width in pixels
NOISE = 0.08  # standard deviation, where 1 is the range of the image
MIN_TISSUE = 0.05  # smallest share of gray and white matter in a slice
NUM_TRAIN = 93  # slices from below, for training and validation
NUM_VALIDATION = 17
GAP = 6  # slices left out between parts
ADVICE = "pip install --no-deps nilearn && pip install nibabel"


class MNI152(PreparedData):
    """Axial slices of the MNI152 template in the package nilearn, 96 × 112 pixels, with noise.

    `pip install --no-deps nilearn && pip install nibabel` installs the template. The slices are
    made when they are first asked for, see `prepare_mni152`, and stay on disk.

    Args:
        root: the folder in which a folder for these settings is made.
        noise_seed: of the noise, which is drawn once, when the slices are made.
        augment: True mirrors left and right, since a brain is nearly symmetric.
    """

    name = "mni152"
    mean = (0.23, 0.23, 0.23)
    std = (0.31, 0.31, 0.31)

    def __init__(
        self, root: str = "runs/data", noise_seed: int = 0, augment: bool | nn.Module = False
    ) -> None:
        self.root = root
        self.noise_seed = noise_seed
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Background, gray matter and white matter."""
        return ["background", "gray matter", "white matter"]

    @property
    def settings(self) -> int:
        """The seed of the noise."""
        return self.noise_seed

    def prepare(self, folder: Path) -> Path:
        """Cut the slices."""
        return prepare_mni152(folder, seed=self.noise_seed)

    def raw_splits(self) -> RawSplits:
        """Return the slices."""
        folder = self.prepare(self.folder)
        mask_format = MaskFormat(len(self.classes))
        return (
            read_mask_part(folder, "train", mask_format),
            read_mask_part(folder, "val", mask_format),
            read_mask_part(folder, "test", mask_format),
        )

    def standard_augmentation(self) -> nn.Module:
        """Mirror."""
        from torchvision.transforms import v2

        flip: nn.Module = v2.RandomVerticalFlip()  # left and right of the head lie along the height
        return flip


def prepare_mni152(root: str | Path, *, seed: int = 0) -> Path:
    """Cut the MNI152 template into axial slices, in the layout of PASCAL VOC.

    The image is T1 with Gaussian noise of 0.08 of its range; without noise a threshold would nearly
    solve the task. The classes are background, gray matter and white matter (each where its
    probability is above one half). Of the 133 slices with tissue, the lower ones are for training,
    a block above them is for validation, the upper ones are for testing; 6 slices are left out
    between parts, since neighbors are nearly equal. It is one averaged brain, not a population.
    V. Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage
    2011; files of the package nilearn, the template under terms of its own.

    Args:
        root: the folder to make.
        seed: of the noise.

    Returns:
        The folder.

    Raises:
        UserError: If a package is not installed, or the folder holds something else, such as the
            slices of another seed.
    """
    source = package_folder("nilearn", ADVICE)
    package_folder("nibabel", ADVICE)

    def write(folder: Path) -> None:
        brain = _volume(source / FILE.format("t1"))
        gray = _volume(source / FILE.format("gm"))
        white = _volume(source / FILE.format("wm"))
        tissue = ((gray > 0.5) | (white > 0.5)).float().mean((1, 2))
        levels = (tissue > MIN_TISSUE).nonzero().flatten().tolist()
        parts = {
            "train": levels[: NUM_TRAIN - NUM_VALIDATION - GAP],
            "val": levels[NUM_TRAIN - NUM_VALIDATION : NUM_TRAIN],
            "test": levels[NUM_TRAIN + GAP :],
        }
        generator = torch.Generator().manual_seed(seed)
        for part, part_levels in parts.items():
            names = []
            for level in tqdm(part_levels, desc=part, unit="slice"):
                image = _small(brain[level])
                noise = NOISE * torch.randn(image.shape, generator=generator)
                pixels = ((image + noise).clamp(0, 1) * 255).round().byte()
                is_gray = _small(gray[level]) > 0.5
                is_white = _small(white[level]) > 0.5
                mask = is_gray.byte() + 2 * is_white.byte()
                names.append(f"{part}_{level:03d}")
                write_image_and_mask(folder, names[-1], pixels, mask)
            write_part_list(folder, part, names)

    return build_folder(Path(root), {"source": "mni152", "seed": seed}, write)


def _volume(path: Path) -> Tensor:
    """Return a volume in [0, 1], its axial slices first."""
    import numpy as np
    from nibabel import Nifti1Image
    from nibabel.filebasedimages import ImageFileError

    try:
        voxels = np.asarray(Nifti1Image.from_filename(path).dataobj, dtype=np.float32)
    except (OSError, ImageFileError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); install nilearn anew: {ADVICE}"
        ) from error
    return torch.from_numpy(voxels).permute(2, 0, 1).contiguous() / float(voxels.max())


def _small(plane: Tensor) -> Tensor:
    """Return a slice (H, W) in the size of the data set."""
    small: Tensor = F.interpolate(plane[None, None], SIZE, mode="bilinear", antialias=True)[0, 0]
    return small
