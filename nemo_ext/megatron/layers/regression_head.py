"""A head of a few numbers per token, whole on every tensor parallel rank."""

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig


class RegressionHead(MegatronModule):
    """transformers' `score`: a linear layer without bias, in the model's dtype.

    Every tensor parallel rank computes the same numbers from the same input, so that the gradients of its weight and of
    its input are whole on each: nothing is summed over them, and the weight counts once in the gradient norm. That is why
    its input is gathered under sequence parallelism, where each rank would otherwise see its own tokens alone.
    """

    def __init__(self, config: TransformerConfig, outputs: int, device: torch.device) -> None:
        super().__init__(config)
        weight = torch.empty(outputs, config.hidden_size, dtype=config.params_dtype, device=device)
        self.weight = torch.nn.Parameter(weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[tokens, 1, hidden], with sequence parallelism this rank's share of the tokens -> [1, tokens, outputs]."""
        if self.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        return F.linear(hidden, self.weight).transpose(0, 1)
