"""Make an empty tiny model: a Llama config and a byte-level BPE tokenizer, without weights.

In:  rows with `text`, `messages` or `input`/`output`, to train the tokenizer on
Out: hf/config.json, hf/tokenizer.json, hf/generation_config.json
     `train_sft` with `init: random` fills it, `export_hf` copies these files beside the weights.

As with published base models, its files have no chat template and name one end token, the end of text.
"""

import glob
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

SPECIAL_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
]
TEXT_WEIGHT = 50  # else the few words of the toy world outvote all others


@dataclass(kw_only=True)
class Config(Stage):
    inputs: list[str] = field(default_factory=list, metadata={"path": True})
    """Folders of rows."""
    texts: list[str] = field(default_factory=list, metadata={"path": True})
    """Folders of YAML files whose words the tokenizer should know as well."""
    vocab_size: int = MISSING
    hidden_size: int = MISSING
    num_layers: int = MISSING
    num_attention_heads: int = MISSING
    num_query_groups: int = MISSING
    """Key-value heads."""
    ffn_hidden_size: int = MISSING
    context_length: int = MISSING


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.row import input_files, input_patterns

    files = [file for folder in cfg.inputs for file in input_files(folder)]
    extra = [file for text in cfg.texts for file in sorted(Path(text).glob("*.yaml"))]
    folder = Path(cfg.output_dir) / "hf"
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(cfg, _texts(files, extra), folder)
    _write_config(cfg, folder)
    listed = [pattern for source in cfg.inputs for pattern in input_patterns(source)]
    listed += [f"{glob.escape(text)}/*.yaml" for text in cfg.texts]
    return Facts(inputs=[*files, *extra], listed=listed, outputs=sorted(folder.iterdir()))


def _texts(files: list[Path], extra: list[Path]) -> Iterator[str]:
    from nemo_ext.rows.row import read_rows

    for file in extra:
        yield from [file.read_text()] * TEXT_WEIGHT
    for file in files:
        for row in read_rows(file):
            if "text" in row:
                yield row["text"]
            elif "input" in row:
                yield row["input"] + row["output"]
            else:
                yield from (message["content"] for message in row["messages"])


def _write_tokenizer(cfg: Config, texts: Iterator[str], folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from nemo_ext.models.hub_folder import name_portable_class

    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    # digits one by one, so that arithmetic is the same at every length; newlines by runs, as prompts part blocks with them
    pattern = Regex(r" ?\p{L}+|\p{N}|\n+| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=cfg.vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte, so that no text is unrepresentable
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, 0)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token="<|end_of_text|>",
        pad_token="<|finetune_right_pad_id|>",
        model_max_length=cfg.context_length,
    )
    wrapped.save_pretrained(folder)
    name_portable_class(folder)


def _write_config(cfg: Config, folder: Path) -> None:
    from nemo_ext.records.files import write_json_atomic

    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>")
    begin, end, pad = (SPECIAL_TOKENS.index(name) for name in names)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.hidden_size,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_attention_heads,
        "num_key_value_heads": cfg.num_query_groups,
        "head_dim": cfg.hidden_size // cfg.num_attention_heads,
        "intermediate_size": cfg.ffn_hidden_size,
        "max_position_embeddings": cfg.context_length,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
        # the scaling of Llama 3.1, so that tiny runs pass through the same code
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 2.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": cfg.context_length // 2,
        },
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
    }
    write_json_atomic(folder / "config.json", config)
    generation = {
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
        "do_sample": True,
        "temperature": 1.0,
    }
    write_json_atomic(folder / "generation_config.json", generation)
