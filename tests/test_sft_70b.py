"""The 70B recipe: the released command, and the same at tiny scale."""

from nemo_ext.megatron.settings import world_size
from tests.composing import resolve_recipe


def config(stage: str, *words: str):
    return resolve_recipe("sft_70b", *words)[stage].tasks[0].typed()


def test_published_settings() -> None:
    train = config("train")
    assert (train.lr, train.train_iters, train.keep_interval) == (1e-5, 20000, 3330)
    assert (train.global_batch_size, train.seq_length, train.weight_decay) == (512, 4096, 0.01)
    assert (train.lr_decay_style, train.lr_warmup_iters, train.clip_grad) == ("constant", 0, 0.0)
    topology = (train.tensor_model_parallel_size, train.pipeline_model_parallel_size, train.data_parallel_size)
    assert topology == (8, 2, 16) and world_size(train) == 256 == train.resources.nodes * train.resources.gpus
    assert train.sequence_parallel and train.use_distributed_optimizer
    assert train.model.hf_path.endswith("Llama-3.1-70B")


def test_the_six_published_checkpoints_are_averaged() -> None:
    assert config("average").steps == [3330, 6660, 9990, 13320, 16650, 20000]


def test_its_student_is_served_by_eight_gpus() -> None:
    evaluate = config("evaluate")
    assert evaluate.server["replicas"] * evaluate.server["tp_size"] == 8 == evaluate.resources.gpus


def test_paper_values_are_met() -> None:
    stages = resolve_recipe("sft_70b")
    train = stages["train"].tasks[0].content
    for published in stages["report"].tasks[0].typed().paper:
        stage, _, key = published.key.partition(".")
        assert stage == "train" and train[key] == published.value, published.key


def test_tiny_keeps_the_pipeline_and_derives_the_rest() -> None:
    train = config("train", "+scale=tiny")
    assert (train.train_iters, train.keep_interval, train.model.name) == (240, 40, "tiny_base")
    assert config("average", "+scale=tiny").steps == [40, 80, 120, 160, 200, 240]
    assert world_size(train) == 4 and train.pipeline_model_parallel_size == 2 and train.sequence_parallel
