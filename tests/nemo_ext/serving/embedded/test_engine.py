"""The engine without HTTP: shared prompts, slot reuse, failing steps."""

import asyncio
from pathlib import Path

import pytest
import torch

from nemo_ext.models.model import Model
from nemo_ext.serving.embedded.config import Config
from nemo_ext.serving.embedded.engine import Engine, EngineError, choice_key
from nemo_ext.serving.embedded.run import load_engine
from nemo_ext.serving.embedded.sequence import SamplingParameters, Sequence


def _engine(folder: Path, **config: object) -> Engine:
    return load_engine(Config(**config), Model(name="tiny", hf_path=str(folder), context_length=512))  # type: ignore[arg-type]


def _sequence(prompt: tuple[int, ...], seed: int = 0, choice: int = 0, max_tokens: int = 20) -> Sequence:
    parameters = SamplingParameters(max_tokens, 1.0, 0.95, 0, seed, (), True, None)
    done = asyncio.get_running_loop().create_future()
    return Sequence(choice, prompt, parameters, choice_key(seed, choice), None, None, done)


def _run(engine: Engine, sequences: list[Sequence]) -> list[str]:
    engine.submit(sequences)
    for _ in range(1000):
        if all(sequence.done.done() for sequence in sequences):
            return [sequence.text for sequence in sequences]
        engine.step()
    raise AssertionError("the engine did not finish")


def test_equal_prompts_are_computed_once_and_choices_differ(tiny_checkpoint: Path) -> None:
    async def main() -> None:
        engine = _engine(tiny_checkpoint)
        texts = _run(engine, [_sequence((5, 6, 7), choice=choice) for choice in range(6)])
        assert engine.counters.prompt_tokens == 3
        assert len(set(texts)) == 6
        alone = [_run(_engine(tiny_checkpoint), [_sequence((5, 6, 7), seed=choice)])[0] for choice in range(6)]
        assert alone == texts  # choice i of seed 0 is choice 0 of seed i

    asyncio.run(main())


def test_more_sequences_than_slots_with_slots_moving(tiny_checkpoint: Path) -> None:
    """Lengths differ, so slots free in every order and the last one moves into the hole."""

    async def main() -> None:
        prompts = [tuple(range(10, 11 + 7 * i % 40)) for i in range(30)]
        lengths = [1 + (i * 13) % 37 for i in range(30)]
        wide, narrow = _engine(tiny_checkpoint, max_batch_size=64), _engine(tiny_checkpoint, max_batch_size=3)
        expected = _run(wide, [_sequence(p, i, max_tokens=n) for i, (p, n) in enumerate(zip(prompts, lengths))])
        got = _run(narrow, [_sequence(p, i, max_tokens=n) for i, (p, n) in enumerate(zip(prompts, lengths))])
        assert got == expected
        assert len(narrow.slots) == len(wide.slots) == 0
        assert narrow.model.pages.num_used == wide.model.pages.num_used == 0

    asyncio.run(main())


@pytest.mark.parametrize("method", ["prefill", "decode"])
def test_a_failing_step_fails_its_batch_and_the_engine_lives_on(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async def main() -> None:
        engine = _engine(tiny_checkpoint)
        expected = _run(engine, [_sequence((5, 6, 7), seed=9)])

        def broken(*args: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no memory")

        with monkeypatch.context() as patch:
            patch.setattr(engine.model, method, broken)
            failed = [_sequence((1, 2)), _sequence((3,))]
            _run(engine, failed)
        for sequence in failed:
            with pytest.raises(EngineError, match="RuntimeError: no memory"):
                sequence.done.result()
        assert len(engine.slots) == engine.model.pages.num_used == 0
        assert engine.counters.failed_steps == 1
        assert _run(engine, [_sequence((5, 6, 7), seed=9)]) == expected

    asyncio.run(main())


def test_a_failing_prefill_leaves_running_sequences_alone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        engine = _engine(tiny_checkpoint)
        expected = _run(engine, [_sequence((5, 6, 7), seed=9)])
        running, doomed = _sequence((5, 6, 7), seed=9), _sequence((1, 2))
        engine.submit([running])
        engine.step()
        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "prefill", lambda *args: 1 / 0)
            engine.submit([doomed])
            engine.step()
        assert isinstance(doomed.done.exception(), EngineError)
        assert _run(engine, [running]) == expected or running.text == expected[0]

    asyncio.run(main())


def test_where_float32_depends_on_the_batch_the_engine_takes_float64(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        assert _engine(tiny_checkpoint).model.embedding.dtype == torch.float32
        check = "nemo_ext.serving.embedded.forward.model.rows_keep_their_bits"
        monkeypatch.setattr(check, lambda matrix, way: matrix.dtype == torch.float64)
        assert _engine(tiny_checkpoint).model.embedding.dtype == torch.float64
        assert "no way of batching keeps the bits of float32" in caplog.text and "by itself" not in caplog.text
        monkeypatch.setattr(check, lambda matrix, way: False)
        engine = _engine(tiny_checkpoint)
        assert engine.model.way.alone and engine.model.embedding.dtype == torch.float32
        assert "each sequence is computed by itself" in caplog.text

    asyncio.run(main())


def test_generation_stops_at_the_context(tiny_checkpoint: Path) -> None:
    async def main() -> None:
        engine = _engine(tiny_checkpoint, context_length=32, compute_dtype="float64")
        assert engine.model.embedding.dtype == torch.float64
        sequence = _sequence(tuple(range(10, 40)), max_tokens=100)
        _run(engine, [sequence])
        assert (sequence.num_generated, sequence.finish_reason) == (2, "length")

    asyncio.run(main())
