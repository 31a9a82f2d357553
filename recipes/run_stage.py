"""Run one stage: `python -m recipes.run_stage <run>/<stage>/config.yaml`. What every task's main process is.

Exit codes: 0 done, 1 failed (error.json says why), 85 stopped by SIGTERM or SIGUSR1 after saving its state.
"""

import errno
import fcntl
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ext.machine.process import die_with_parent
from nemo_ext.records import image_versions, manifest
from nemo_ext.records.files import disk_time_ns, sha256_json, write_json_atomic
from recipes.field_marks import changed
from recipes.find_stage import stage_module
from recipes.stage import Stage, asked_servers

LOCK_WAIT_S = 20
logger = logging.getLogger("recipes.run_stage")


def deciding(content: dict[str, Any]) -> dict[str, Any]:
    """The keys of a stage's config that decide its result; the others, whose fields are marked {"decides": False}, say
    where and with what limits it runs, and may change while it is half done."""
    kept = changed(content, _schema(content.get("uses")), keep=lambda marks: marks.get("decides", True))
    return {str(key): value for key, value in kept.items()}


def _schema(uses: str | None) -> type[Stage]:
    """The Config of a stage's file; what every stage has, where there is no such file."""
    try:
        return _config_of(str(uses))
    except ValueError:
        return Stage


@cache
def _config_of(uses: str) -> type[Stage]:
    config: type[Stage] = stage_module(uses).Config
    return config


def config_hash(content: dict[str, Any]) -> str:
    """Hash of all that decides a stage's result: everything but where and with what limits it runs; but also where, if that
    is what says which model answers."""
    addresses = asked_servers(content)
    return sha256_json(deciding(content) | ({"asked_servers": addresses} if addresses else {}))


def load(path: Path) -> tuple[Any, Any]:
    """The stage's module and its typed config.

    Raises:
        ValueError: the file does not fit the stage's Config.
    """
    loaded = OmegaConf.load(path)
    assert isinstance(loaded, DictConfig), f"{path} is a mapping"
    module = stage_module(loaded.uses)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(module.Config), loaded))
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {error}") from error
    return module, config


@contextmanager
def task_lock(folder: Path, rank: int) -> Iterator[None]:
    """Only one main process writes a task's folder, even when a killed launcher left one behind.

    Raises:
        ValueError: another process still holds it after LOCK_WAIT_S.
    """
    if rank != 0:
        yield
        return
    with (folder / ".lock").open("w") as handle:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ValueError(f"{folder}: another process is writing here. Stop it, or wait for it.") from None
                time.sleep(0.2)
        yield


def run(path: Path) -> None:
    """Load, run, and (on rank 0) write the manifest and _DONE."""
    rank = int(os.environ.get("RANK", "0"))
    module, config = load(path)
    folder = Path(config.output_dir)
    with task_lock(folder, rank):
        image = image_versions.check(os.environ)
        started, began_ns = time.monotonic(), disk_time_ns(folder)
        facts = module.run(config)
        if rank == 0:
            content = OmegaConf.to_container(OmegaConf.load(path))
            assert isinstance(content, dict), f"{path} is a mapping"
            digest = config_hash({str(key): value for key, value in content.items()})
            seconds = time.monotonic() - started
            manifest.write(folder, config.name, config.uses, digest, facts, seconds, image, began_ns)
            for scratch in facts.scratch:
                shutil.rmtree(scratch, ignore_errors=True)


def _record(path: Path, error: Exception) -> None:
    """error.json for the launcher; where even that can't be written, the log has it."""
    message = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message += ". The disk is full: free some space and give the same command again; what was finished is kept"
    try:
        write_json_atomic(path, {"error": message, "type": type(error).__name__})
    except OSError as failure:
        logger.error("%s; and %s could not be written: %s", message, path, failure)


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        raise SystemExit("usage: python -m recipes.run_stage <run>/<stage>/config.yaml")
    die_with_parent(signal.SIGTERM)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    path = Path(argv[1])
    error_path = path.parent / "error.json"
    error_path.unlink(missing_ok=True)
    try:
        run(path)
    except (ValueError, OSError, RuntimeError) as error:
        # a bad value, a full disk, a dead server: the message is for the user, the traceback for the log
        logger.exception("%s failed", path.parent.name)
        _record(error_path, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
