"""Random tiny Llama checkpoints with real tokenizers, made offline in a second. Weights are random on purpose: their
next-token distributions are flat, so a wrong logit, cut or random number shows in the text."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]

DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# Llama 3.1's scaling with a context short enough to run far beyond: positions reach eight times the original.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _text(seed: int = 0, sentences: int = 2000) -> list[str]:
    draw = random.Random(seed)
    names, things = ["Ann", "Bo", "Zoë", "李雷", "Nadia"], ["apples", "coins", "metres of rope", "tickets", "Äpfel"]
    return [
        f"{draw.choice(names)} has {draw.randrange(100)} {draw.choice(things)} and buys {draw.randrange(100)} more. "
        f"How many now? The answer is \\boxed{{{draw.randrange(200)}}}."
        for _ in range(sentences)
    ]


def make_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts <|bos|> in front, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(), trainer)
    bos = tokenizer.token_to_id("<|bos|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", bos)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_checkpoint(
    folder: Path,
    *,
    rope: dict[str, object] = DEFAULT_ROPE,
    tied: bool = True,
    hidden_size: int = 32,
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 8,
    intermediate_size: int = 64,
    vocab_size: int = 400,
    context_length: int = 512,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Save model, tokenizer and chat template under `folder` and return it."""
    tokenizer = make_tokenizer(vocab_size)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            num_key_value_heads=num_kv_heads,
            head_dim=head_dim,
            max_position_embeddings=context_length,
            rope_parameters=rope,
            tie_word_embeddings=tied,
            initializer_range=0.3,  # large enough that the context changes the next token
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):  # ones would hide a norm applied in the wrong place
                parameter.uniform_(0.5, 1.5)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
