"""A YAML file read strictly: bounded, each key once, and errors that name file, line and key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import yaml

from mecexporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

Keys: TypeAlias = "Sequence[str | int]"
"""The way to a value: keys of mappings, places in lists."""

MAX_BYTES = 1 << 20


class YamlFile:
    """The content of a file; an empty one is an empty mapping.

    Attributes:
        data: as ``yaml.safe_load`` makes it.

    Raises:
        ConfigError: it can't be read, is too long, no UTF-8, no YAML, or has a key twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise ConfigError(f"{path}: longer than {MAX_BYTES} bytes")
            text = content.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text: byte {error.start}") from None
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        try:
            self._node = yaml.compose(text, Loader=yaml.SafeLoader)
            self._refuse_twins(self._node, (), set())
            data = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{path}{f':{mark.line + 1}:{mark.column + 1}' if mark else ''}"
            raise ConfigError(f"{where}: {error.problem}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
        self.data: Any = {} if data is None else data

    def convert(self, into: type[T], dec_hook: Callable[[type, Any], Any] | None = None) -> T:
        """The content as a struct.

        Raises:
            ConfigError: a key is unknown or a value is not of its type.
        """
        try:
            return msgspec.convert(self.data, into, dec_hook=dec_hook)
        except msgspec.ValidationError as error:
            raise self.wrong(*_explain(str(error))) from None

    def wrong(self, keys: Keys, why: str) -> ConfigError:
        """The error that names a key and its line."""
        name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
        line = self._line(keys)
        return ConfigError(f"{self._path}{f':{line}' if line else ''}: {name or 'the file'}: {why}")

    def _line(self, keys: Keys) -> int | None:
        """Where a key stands; as far in as it can be followed."""
        line, node = None, self._node
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == key), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return line

    def _refuse_twins(self, node: yaml.Node | None, within: tuple[str, ...], looked_at: set[int]) -> None:
        """YAML's loader takes the last of two equal keys and says nothing.

        Args:
            node: a value in the file, which aliases may show in many places.
            within: the keys that lead to it.
            looked_at: nodes (by ``id``) that need no second look.
        """
        if isinstance(node, yaml.MappingNode) and id(node) not in looked_at:
            looked_at.add(id(node))
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    name = ".".join((*within, key.value))
                    raise ConfigError(f"{self._path}:{key.start_mark.line + 1}: {name}: the key is there twice")
                seen.add(str(key.value))
                self._refuse_twins(value, (*within, str(key.value)), looked_at)


def _explain(message: str) -> tuple[list[str | int], str]:
    """Take msgspec's words apart: (keys, what is wrong)."""
    why, _, where = message.partition(" - at `")
    if where.startswith("key"):
        why, where = "a key must be text", where.partition("` in `")[2]
    where = where.replace("[...]", "")  # some entry of a mapping
    keys: list[str | int] = [
        int(index) if index else key for key, index in re.findall(r"\.([^.\[`]+)|\[(\d+)\]", where)
    ]
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", why):
        return [*keys, found[1]], "no such key"
    return keys, why[:1].lower() + why[1:]
