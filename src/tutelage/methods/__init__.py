"""Distillation methods: pure loss functions on tensors, and a thin `Method` around each of them.

Every paper is one module or one folder of its name, such as `tutelage.methods.pcka`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage._lazy import lazy_names

if TYPE_CHECKING:
    from tutelage.methods._unlabeled import UnlabeledData
    from tutelage.methods.afd import AFD, afd_loss
    from tutelage.methods.baseline import Baseline
    from tutelage.methods.cd import CD, cd_loss
    from tutelage.methods.ckd import CKD, ckd_agreement, ckd_loss
    from tutelage.methods.dist import DIST, dist_loss
    from tutelage.methods.dkd import DKD, dkd_loss
    from tutelage.methods.embed_distill import (
        EmbedDistill,
        embed_matching_loss,
        margin_mse_loss,
        score_distillation_loss,
    )
    from tutelage.methods.fitnet import FitNet, fitnet_loss
    from tutelage.methods.fpd import FPD, fpd_loss
    from tutelage.methods.kd import KD, kd_hard_loss, kd_loss
    from tutelage.methods.ofa import OFA, ofa_loss
    from tutelage.methods.okdhp import OKDHP, okdhp_loss
    from tutelage.methods.pcka import PCKA, pcka_loss
    from tutelage.methods.rcka import RCKA, rcka_feature_loss, rcka_loss
    from tutelage.methods.rd import RD, rd_loss
    from tutelage.methods.residual_kd import ResidualKD, residual_kd_loss
    from tutelage.methods.rrd import RRD, rrd_loss
    from tutelage.methods.rtk import RTK, rtk_loss
    from tutelage.methods.srd import SRD, srd_feature_loss, srd_loss
    from tutelage.methods.ssim import SSIM, ssim_loss
    from tutelage.methods.unkd import UnKD, unkd_loss
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AFD",
    "CD",
    "CKD",
    "DIST",
    "DKD",
    "FPD",
    "KD",
    "OFA",
    "OKDHP",
    "PCKA",
    "RCKA",
    "RD",
    "RRD",
    "RTK",
    "SRD",
    "SSIM",
    "Baseline",
    "EmbedDistill",
    "FitNet",
    "ResidualKD",
    "UnKD",
    "UnlabeledData",
    "afd_loss",
    "cd_loss",
    "ckd_agreement",
    "ckd_loss",
    "dist_loss",
    "dkd_loss",
    "embed_matching_loss",
    "fitnet_loss",
    "fpd_loss",
    "kd_hard_loss",
    "kd_loss",
    "margin_mse_loss",
    "ofa_loss",
    "okdhp_loss",
    "pcka_loss",
    "rcka_feature_loss",
    "rcka_loss",
    "rd_loss",
    "residual_kd_loss",
    "rrd_loss",
    "rtk_loss",
    "score_distillation_loss",
    "srd_feature_loss",
    "srd_loss",
    "ssim_loss",
    "unkd_loss",
]
