"""Damaged and invented files raise the documented errors only; scripts/fuzz.py reads many more."""

from __future__ import annotations

import pytest

import fuzz
from rlagents.errors import RLAgentsError


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.Reader]:
    return fuzz.make_readers(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize(
    ("name", "number"),
    [("config", 25), ("checkpoint", 30), ("replay", 60), ("run", 25), ("sidecar", 50)],
)
def test_only_the_documented_errors_come(
    readers: dict[str, fuzz.Reader], name: str, number: int
) -> None:
    reader = readers[name]
    reader.read()  # what is valid is read
    fuzz.fuzz(reader, number, seed=1)
    assert 0 < reader.refused <= reader.inputs


def test_what_is_not_documented_is_found(readers: dict[str, fuzz.Reader]) -> None:
    reader = readers["sidecar"]
    blind = fuzz.Reader(reader.folder, reader.read, (), reader.names, reader.words)
    with pytest.raises(RLAgentsError, match=r"video\.json"):
        fuzz.fuzz(blind, 100, seed=1)


@pytest.mark.parametrize("words", [[], ["--inputs", "5", "--reader", "config"]])
def test_options(words: list[str]) -> None:
    options = fuzz.parse(words)
    assert options.inputs == (5 if words else 100_000)
    assert options.reader == (["config"] if words else None)
