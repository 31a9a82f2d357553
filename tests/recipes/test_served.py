"""Which processes a stage with servers has, and where they are put."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.models.model import Model
from recipes.asking.served import ServedStage, address_files, describe_server, server_processes
from recipes.stage import Process, Resources

MODEL = Model(name="m", hf_path="/models/m", context_length=4096)


def stage(server: dict[str, Any], nodes: int = 1, gpus: int = 0, folder: str = "/run/solve") -> ServedStage:
    return ServedStage(
        uses="generate", name="solve", output_dir=folder, model=MODEL, server=server, resources=Resources(nodes=nodes, gpus=gpus)
    )  # fmt: skip


def services(server: dict[str, Any], nodes: int = 1, gpus: int = 0) -> list[Process]:
    *found, main = server_processes(stage(server, nodes, gpus), "c.yaml")
    assert not main.service and all(process.service for process in found)
    assert [process.ready_file for process in found] == [str(path) for path in address_files(stage(server))]
    return found


def after(process: Process, flag: str) -> str | None:
    return process.argv[process.argv.index(flag) + 1] if flag in process.argv else None


def test_two_replicas_over_two_nodes_each() -> None:
    found = services({"kind": "trtllm", "tp_size": 8, "pp_size": 2, "nodes": 2, "replicas": 2}, nodes=4, gpus=8)
    assert [(p.first_node, p.nodes, p.ranks, p.mpi) for p in found] == [(0, 2, 16, "pmix"), (2, 2, 16, "pmix")]
    assert {after(p, "--host") for p in found} == {"0.0.0.0"} and after(found[0], "--gpus") is None


def test_sglang_over_two_nodes_is_a_rank_on_each_and_no_mpi() -> None:
    (found,) = services({"kind": "sglang", "tp_size": 8, "pp_size": 2, "nodes": 2}, nodes=2, gpus=8)
    assert (found.nodes, found.ranks, found.mpi) == (2, 2, None)


def test_replicas_share_a_node_and_no_gpu() -> None:
    found = services({"kind": "trtllm", "tp_size": 2, "replicas": 4}, nodes=2, gpus=4)
    assert [(p.first_node, after(p, "--gpus")) for p in found] == [(0, "0,1"), (0, "2,3"), (1, "0,1"), (1, "2,3")]
    assert all((p.ranks, p.nodes, p.mpi) == (1, 1, None) for p in found)
    (alone,) = services({"kind": "trtllm", "tp_size": 4}, gpus=4)
    assert after(alone, "--gpus") is None and after(alone, "--host") is None, "nobody else can reach it"


def test_embedded_servers_take_turns_and_external_ones_are_not_started() -> None:
    assert [p.first_node for p in services({"kind": "embedded", "replicas": 3}, nodes=2)] == [0, 1, 0]
    assert len(server_processes(stage({"kind": "external", "urls": ["http://h:1/v1"]}, gpus=8), "c.yaml")) == 1


@pytest.mark.parametrize(
    ("server", "nodes", "gpus", "fits"),
    [
        ({"tp_size": 8, "pp_size": 2, "nodes": 2}, 1, 8, "nodes=2 stages.solve.resources.gpus=8"),
        ({"tp_size": 8, "pp_size": 2, "nodes": 2}, 2, 4, "nodes=2 stages.solve.resources.gpus=8"),
        ({"tp_size": 8, "pp_size": 2, "nodes": 2, "replicas": 2}, 2, 8, "nodes=4 stages.solve.resources.gpus=8"),
        ({"tp_size": 1}, 1, 8, "nodes=1 stages.solve.resources.gpus=1"),
        ({"tp_size": 8}, 1, 0, "nodes=1 stages.solve.resources.gpus=8"),
        ({"tp_size": 8}, 2, 4, "nodes=1 stages.solve.resources.gpus=8"),
        ({"tp_size": 3, "replicas": 2}, 1, 8, "nodes=1 stages.solve.resources.gpus=6"),
        ({"tp_size": 3, "replicas": 8}, 3, 8, "nodes=4 stages.solve.resources.gpus=6"),
    ],
)
def test_other_resources_than_the_servers_take_are_refused(
    server: dict[str, Any], nodes: int, gpus: int, fits: str
) -> None:
    with pytest.raises(ValueError, match=rf"resources has nodes={nodes} x gpus={gpus}\. They fit .*{fits}"):
        services({"kind": "trtllm", **server}, nodes, gpus)


@pytest.mark.parametrize(
    ("server", "folder", "message"),
    [
        (
            {"tp_size": 8, "pp_size": 2, "nodes": 2},
            "/a run/solve",
            "stages.solve: trtllm: '/a run/solve/server-0.options",
        ),
        ({"tp_size": 8, "pp_size": 2, "nodes": 2, "max_seq_len": 8192}, "/run", "model.context_length=4096"),
    ],
)
def test_what_the_program_would_refuse_is_refused_before(server: dict[str, Any], folder: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        server_processes(stage({"kind": "trtllm", **server}, 2, 8, folder), "c.yaml")


def test_a_manifest_says_what_really_served(tmp_path: Path) -> None:
    cfg = stage({"kind": "trtllm", "replicas": 3}, folder=str(tmp_path))
    assert describe_server(cfg) == {"kind": "trtllm", "version": "unknown"}
    for index, version in enumerate(("1.2.1", None, "1.2.1")):
        (tmp_path / f"server-{index}.served.json").write_text(json.dumps({"kind": "trtllm", "version": version}))
    assert describe_server(cfg) == {"kind": "trtllm", "version": "1.2.1"}
    assert describe_server(stage({"kind": "embedded"}))["version"].startswith("torch ")
    assert describe_server(stage({"kind": "external", "urls": ["http://h:1"]})) == {
        "kind": "external",
        "version": "unknown",
    }
