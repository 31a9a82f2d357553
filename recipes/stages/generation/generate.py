"""Ask a served model for completions of every row's prompt, several of each if wanted, with or without Python at hand.

In:  rows with the keys their prompt names, such as {"id": "9c1e", "problem": "Ava has 7 pens. ...",
     "problem_source": "gsm8k"}; in a file of your own `id` and `problem_source` may be missing, and the problem may be
     called question or query, or what `columns` says
Out: one row per sample, the row's keys and {"generation": "3 * 4 = 12. ...", "sample_index": 0, "seed": 1790234,
     "finish_reason": "stop", "num_prompt_tokens": 97, "num_generated_tokens": 31}, in input order, each (id, sample_index)
     once; samples that shared a request also have "choice", their place in its reply; tool-integrated ones "trace"; with
     `strategies` the "strategy" they were asked under; with `chain` its steps' replies, each under the step's name
     of a row that has a solution already, a sample itself perhaps, what it says of that is under "earlier", as
     {"sample_index": 1, "seed": 77, "generation": "..."}
     completions.jsonl, what has been paid for, by the hash of model, prompt and sampling: a killed stage goes on from it
Dropped: missing_<key>, special_token (the row's text has one of the model's, which would make another prompt of it; not
     known of server=external with any_model), prompt_too_long, refused_by_server, given_up (after client.max_attempts),
     malformed_json; of a step of `chain` <step>_no_<parser>, <step>_truncated, <step>_refused_by_server and so on
"""

from pathlib import Path

from nemo_ext.prompts.prompt import prompt_hash
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import RowWriter, require_rows
from recipes.asking.ask import asked
from recipes.asking.replies import answer_columns, drop_reason
from recipes.asking.sampling import Samples, SamplingStage, check_prompts, work_of_samples
from recipes.asking.tool_use import tool_loop, tool_stage_processes

Config = SamplingStage
check = check_prompts
processes = tool_stage_processes
work = work_of_samples


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.sources import comes_meanwhile, data_files, data_patterns
    from nemo_ext.serving.completions.spending import Spending

    folder = Path(cfg.output_dir)
    files = data_files(cfg.input, cfg.split, folder)
    samples, spending, error = Samples(cfg, files), Spending(), ""
    with asked(
        cfg, samples.questions, "completions", total=samples.count(), may_drop=True,
        samples_per_request=cfg.samples_per_request, loop=(lambda _: tool_loop(cfg)) if cfg.use_tools else None,
        steps=samples.steps(), begin=samples.chain.begin,
    ) as replies, RowWriter(folder) as out:  # fmt: skip
        for row, question in samples.rows(dropped=out, arrived=spending.add):
            reply = replies.to(question)
            if reply.error is None:
                spending.add(reply)
                out.keep(row | answer_columns(reply))
            else:
                error = reply.error
                out.drop(row | {"error": error}, drop_reason(reply))
        require_rows(out.kept, cfg.name, out.dropped, error)
    return Facts(
        inputs=files,
        listed=data_patterns(cfg.input, cfg.split),
        inputs_came_meanwhile=comes_meanwhile(cfg.input),
        outputs=[folder / "output.jsonl"],
        prompts={prompt.name: prompt_hash(prompt) for prompt in cfg.prompts},
        seeds={"sampling": cfg.seed},
        tokens=spending.tokens,
        figures=spending.figures(cfg.client) | replies.outcome.figures,
        **out.counts,
        **replies.facts,
    )
