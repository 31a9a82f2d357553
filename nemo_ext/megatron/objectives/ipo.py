"""Identity preference optimisation: the difference of the log-ratios is to be 1 / (2 beta), and no more.

(d - 1 / (2 beta))^2, d being the difference of the log-ratios *per token*, as TRL has it on its authors' word,
because else the loss would grow with the answers' length (Azar et al. 2023, arXiv 2310.12036, equation 17; beta is
its tau).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.preferences import PairObjective, Pairs

if TYPE_CHECKING:
    import torch

    from nemo_ext.megatron.runtime.pack_output import PackOutput


@dataclass(kw_only=True)
class Config(PairObjective):
    def pair_losses(self, pairs: Pairs, output: "PackOutput") -> "tuple[torch.Tensor, torch.Tensor, dict[str, Any]]":
        per_token = pairs.logratios / pairs.num_tokens
        distance = per_token[:, 0] - per_token[:, 1] - 1 / (2 * self.beta)
        return distance**2, self.beta * pairs.logratios, {}
