"""A small byte-level tokenizer with Llama-3's special tokens, made offline by the stage that makes the tiny models."""

import shutil
from pathlib import Path

from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.toy.sources import solved
from recipes.stages.toy import tiny_model


def make_tokenizer(folder: Path) -> Model:
    """Config, tokenizer and chat template in `folder`/hf, without weights."""
    from nemo_ext.rows.row import RowWriter

    with RowWriter(folder / "corpus") as out:
        for row, _ in zip(solved(), range(200), strict=False):
            out.keep({"text": f"{row['problem']} {row.get('generated_solution') or row.get('solution') or ''}"})
    cfg = tiny_model.Config(
        name="tiny_model", uses="tiny_model", output_dir=str(folder), inputs=[str(folder / "corpus")], vocab_size=400,
        hidden_size=32, num_layers=1, num_attention_heads=4, num_query_groups=2, ffn_hidden_size=64, context_length=512,
    )  # fmt: skip
    tiny_model.run(cfg)
    template = chat_template_path(Model(chat_template="llama3.jinja"))
    assert template is not None
    shutil.copyfile(template, folder / "hf" / "chat_template.jinja")
    return Model(name="tiny", hf_path=str(folder / "hf"), context_length=512)
