"""One paper, one file: pure functions that need torch only, and a thin `Method` around them."""

from __future__ import annotations

from tutelage.methods.afd import AFD, afd_loss
from tutelage.methods.alone import Alone
from tutelage.methods.budget import Budget
from tutelage.methods.ckd import CKD
from tutelage.methods.contrast import ckd_agreement, ckd_cosines, ckd_loss
from tutelage.methods.dist import DIST, dist_loss
from tutelage.methods.dkd import DKD, dkd_loss
from tutelage.methods.kd import KD, kd_hard_loss, kd_loss
from tutelage.methods.mimic import Mimic, mimic_loss
from tutelage.methods.ofa import OFA, ofa_loss
from tutelage.methods.patches import Patches
from tutelage.methods.pcka import PCKA, pcka_loss
from tutelage.methods.ranges import Ranges
from tutelage.methods.rcka import RCKA, rcka_feature_loss, rcka_loss
from tutelage.methods.residual import ResidualKD
from tutelage.methods.residual_loss import residual_kd_loss
from tutelage.methods.residual_scheme import Scheme
from tutelage.methods.rtk import RTK, rtk_loss
from tutelage.methods.srd import SRD
from tutelage.methods.srd_losses import srd_feature_loss, srd_loss
from tutelage.methods.ssim import SSIM, ssim_loss
from tutelage.methods.structure import Structure

__all__ = [
    "AFD",
    "CKD",
    "DIST",
    "DKD",
    "KD",
    "OFA",
    "PCKA",
    "RCKA",
    "RTK",
    "SRD",
    "SSIM",
    "Alone",
    "Budget",
    "Mimic",
    "Patches",
    "Ranges",
    "ResidualKD",
    "Scheme",
    "Structure",
    "afd_loss",
    "ckd_agreement",
    "ckd_cosines",
    "ckd_loss",
    "dist_loss",
    "dkd_loss",
    "kd_hard_loss",
    "kd_loss",
    "mimic_loss",
    "ofa_loss",
    "pcka_loss",
    "rcka_feature_loss",
    "rcka_loss",
    "residual_kd_loss",
    "rtk_loss",
    "srd_feature_loss",
    "srd_loss",
    "ssim_loss",
]
