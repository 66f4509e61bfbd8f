"""Heads between an encoder and a self-supervised loss; they are not used after the training.

Written from the papers, and equal to those of lightly 1.6 weight by weight
(tests/unit/test_ssl_losses.py), whose import takes longer than a short training.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear, normalize

Tensor = torch.Tensor


def projector(dim: int, hidden: int) -> nn.Sequential:
    """SimSiam's projection MLP: three layers, batch norm after each, none bent at the end.

    arXiv:2011.10566, section 3, "baseline settings".
    """
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False),
        nn.BatchNorm1d(hidden, affine=False),
    )


def predictor(hidden: int) -> nn.Sequential:
    """SimSiam's prediction MLP: a bottleneck of a quarter, no batch norm at the end."""
    narrow = max(hidden // 4, 1)
    return nn.Sequential(
        nn.Linear(hidden, narrow, bias=False),
        nn.BatchNorm1d(narrow),
        nn.ReLU(),
        nn.Linear(narrow, hidden),
    )


def expander(dim: int, hidden: int) -> nn.Sequential:
    """VICReg's expander: three layers, batch norm and ReLU after the first two.

    arXiv:2105.04906, section 4.2.
    """
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
    )


class DinoHead(nn.Module):
    """DINO's projection: an MLP, a bottleneck of length one, prototypes of length one.

    arXiv:2104.14294, section 3.2 and appendix C: three layers with GELU, an l2
    normalisation, and a weight-normalised layer without bias. The magnitudes of the
    prototypes are fixed at 1, so that the outputs are cosines.

    Parameters
    ----------
    dim, hidden, bottleneck, outputs : int
        Lengths of the features, of the hidden layers, of the normalised vector, and
        the number K of prototypes.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(outputs, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, dim) to cosines with the prototypes, (B, outputs)."""
        return linear(normalize(self.layers(features), dim=-1), normalize(self.prototypes, dim=-1))
