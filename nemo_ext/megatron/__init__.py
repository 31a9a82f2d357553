"""Supervised fine-tuning on megatron-core: the same trainer on GPUs and, over gloo, on a CPU."""

import logging
import warnings

# Without Transformer Engine and Apex megatron-core warns once per optional kernel and reports on parts that are not used
# here; layers.py logs what is used instead. Set before any of its modules is imported.
warnings.filterwarnings("ignore", module=r"megatron\.core.*")
logging.getLogger("megatron.core").setLevel(logging.WARNING)
