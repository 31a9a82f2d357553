"""What SGLang's own parser and request classes make of command lines and bodies, one JSON object in and one out.

    {"commands": [[...]], "bodies": [["CompletionRequest", {...}]]}
    {"parsed": [{...}], "requests": [{...}], "unknown": [[...]]}

A process of its own: what SGLang imports and is not here (images, Triton) becomes a mock.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from tests.contract.wheels import unpacked

ABSENT = {"torchvision", "IPython", "triton", "certifi", "sniffio", "partial_json_parser", "xgrammar"}


class _Mocks(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module: Any = MagicMock(name=spec.name, __path__=[], __spec__=spec, __file__=None)
        module.__name__ = spec.name
        module.StructuralTag = dict  # xgrammar's, the type of a request's field
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def main() -> None:
    asked = json.load(sys.stdin)
    sys.path.append(str(unpacked("sglang")))
    sys.meta_path.append(_Mocks())
    parser = argparse.ArgumentParser()
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    protocol = importlib.import_module("sglang.srt.entrypoints.openai.protocol")
    requests, unknown = [], []
    for name, body in asked["bodies"]:
        request = getattr(protocol, name)(**body)
        requests.append({key: getattr(request, key) for key in body if key in type(request).model_fields})
        unknown.append(sorted(set(body) - set(type(request).model_fields)))
    parsed = [vars(parser.parse_args(command)) for command in asked["commands"]]
    print(json.dumps({"parsed": parsed, "requests": requests, "unknown": unknown}, default=str))


if __name__ == "__main__":
    main()
