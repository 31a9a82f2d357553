"""Look at conf/user before Hydra reads it: aliases that are multiplied out would keep the launcher busy for hours."""

from pathlib import Path

import yaml

MAX_NODES = 100_000


def check(folder: Path) -> None:
    """Raises ValueError for a file whose aliases stand for more values than any configuration has, or that is no YAML."""
    for path in sorted(folder.glob("*.yaml")):
        try:
            root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if root is not None and (count := _expanded(root, {})) > MAX_NODES:
            raise ValueError(f"{path}: its aliases (*name) stand for {count:,} values; at most {MAX_NODES:,} are read")


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node with every alias written out; each node is looked at once."""
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # what contains itself has no end
        below = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = below if isinstance(node, yaml.CollectionNode) else []
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]
