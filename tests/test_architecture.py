"""The arrows of the design, read from the imports: who may know whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Where each package's sources lie; two of them stand at the top of the repository.
PLACES = {"rlagents": ROOT / "rlagents", "rlagents.envs": ROOT / "envs"}
PLACES["rlagents.configs"] = ROOT / "configs"


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in PLACES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def imports(module: str) -> set[str]:
    """Every module that a module imports, wherever in its text; `from a import b` is also a.b."""
    path = MODULES[module]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - (path.name == "__init__.py")
                above = parts[: len(parts) - up]
                base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "import_module"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return found


def knows(module: str, other: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for name in imports(module))


def members(package: str) -> list[str]:
    return [name for name in MODULES if name == package or name.startswith(f"{package}.")]


# Low to high: a layer knows nothing of those that come after it.
HIGHER = [
    *("rlagents.evaluate", "rlagents.events", "rlagents.run", "rlagents.checkpoint"),
    *("rlagents.takes", "rlagents.explain", "rlagents.overlays", "rlagents.caption"),
    *("rlagents.tiles", "rlagents.film", "rlagents.naming", "rlagents.recording"),
    *("rlagents.runner", "rlagents.observers", "rlagents.training"),
    *("rlagents.history", "rlagents.plots", "rlagents.compare", "rlagents.report"),
    *("rlagents.trained", "rlagents.api", "rlagents.doctor", "rlagents.watch", "rlagents.cli"),
]
FORBIDDEN = {
    "rlagents.envs": [
        *("torch", "rlagents.agents", "rlagents.networks", "rlagents.replay", "rlagents.config"),
        *HIGHER,
    ],
    "rlagents.agents": ["rlagents.envs", "rlagents.config", *HIGHER],
    "rlagents.networks": ["rlagents.agents", "rlagents.envs", "rlagents.replay", *HIGHER],
    "rlagents.replay": [
        *("torch", "rlagents.agents", "rlagents.envs", "rlagents.networks"),
        *HIGHER,
    ],
    "rlagents.observers": ["rlagents.runner", "rlagents.training", "rlagents.api", "rlagents.cli"],
    "rlagents.runner": [
        *("rlagents.observers", "rlagents.run", "rlagents.checkpoint", "rlagents.training"),
        *("rlagents.api", "rlagents.cli", "torch"),
    ],
    "rlagents.config": HIGHER,
    "rlagents.pretrained": [
        *("torch", "rlagents.agents", "rlagents.envs", "rlagents.networks", "rlagents.config"),
        *HIGHER,
    ],
    "rlagents.api": ["rlagents.watch", "rlagents.cli"],
    "rlagents.logs": [
        *("torch", "rlagents.agents", "rlagents.envs", "rlagents.networks", "rlagents.config"),
        *("rlagents.trained", "rlagents.api", "rlagents.watch", "rlagents.cli"),
    ],
    "rlagents.watch": [
        *("torch", "gymnasium", "rlagents.agents", "rlagents.envs", "rlagents.networks"),
        *("rlagents.replay", "rlagents.config", "rlagents.training", "rlagents.recording"),
        *("rlagents.trained", "rlagents.cli"),
    ],
    "rlagents.curves": HIGHER,
    "rlagents.history": ["rlagents.plots", "rlagents.compare", "rlagents.report", "rlagents.api"],
    "rlagents.compare": ["rlagents.report", "rlagents.api", "rlagents.cli"],
    "rlagents.report": ["rlagents.compare", "rlagents.api", "rlagents.cli"],
    "rlagents.types": ["rlagents", "torch"],
    "rlagents.errors": ["rlagents", "torch"],
    "rlagents.tables": ["rlagents.config", "rlagents.agents", "rlagents.envs", "torch"],
}


# Imported by nobody but who asks for it by an option, and then in a function.
EXCEPT = {("rlagents.replay", "torch"): {"rlagents.replay.device_items"}}


def test_the_sources_were_found() -> None:
    assert {"rlagents.cli", "rlagents.envs.atari", "rlagents.agents.dqn"} <= set(MODULES)
    assert knows("rlagents.envs.registry", "gymnasium")
    assert knows("rlagents.runner", "rlagents.agents.base")
    assert not knows("rlagents.runner", "rlagents.agents.dqn")
    assert knows("rlagents.cli", "rlagents.training")  # inside a function
    assert all(members(package) for package in FORBIDDEN)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [(package, other) for package, others in FORBIDDEN.items() for other in others],
)
def test_an_arrow_that_must_not_be(package: str, forbidden: str) -> None:
    guilty = {module for module in members(package) if knows(module, forbidden)}
    assert guilty <= EXCEPT.get((package, forbidden), set())


def test_only_the_program_imports_the_command_line() -> None:
    assert [module for module in MODULES if knows(module, "rlagents.cli")] == ["rlagents.__main__"]


def test_only_the_program_that_rebuilds_episodes_opens_runs() -> None:
    watch = members("rlagents.watch")
    assert [name for name in watch if knows(name, "rlagents.api")] == ["rlagents.watch.rebuild"]


def test_only_one_module_draws() -> None:
    assert [module for module in MODULES if knows(module, "matplotlib")] == ["rlagents.plots"]
    assert not knows("rlagents.plots", "matplotlib.pyplot")  # a state of its own, and windows


def test_no_agent_knows_another() -> None:
    agents = [name for name in members("rlagents.agents") if name.count(".") == 2]
    names = ("base", "graphs", "guard", "storage", "optimizers", "rewards", "weights")
    shared = {f"rlagents.agents.{name}" for name in names}
    for agent in set(agents) - shared:
        for other in set(agents) - shared - {agent}:
            assert not knows(agent, other), (agent, other)


def test_nobody_imports_the_second_copies() -> None:
    for module in MODULES:
        assert not knows(module, "envs"), module
        assert not knows(module, "configs"), module


@pytest.mark.parametrize(
    "module",
    [
        *("rlagents.envs", "rlagents.replay.uniform", "rlagents.config", "rlagents.pretrained"),
        *("rlagents.logs", "rlagents.watch.app"),
        *("rlagents.compare", "rlagents.plots", "rlagents.report"),
    ],
)
def test_what_must_not_need_torch_does_not_load_it(module: str) -> None:
    program = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_reads_or_writes_pickle() -> None:
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.save", "torch.load", "allow_pickle=True"):
            assert word not in text, (module, word)
        assert text.count("np.load(") == text.count("allow_pickle=False"), module


def test_the_packages_of_pyproject_are_those_of_the_tree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = project["tool"]["setuptools"]
    found = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert setuptools["packages"] == sorted(found)
    folders = {path.parent for path in MODULES.values()}
    assert folders == {MODULES[name].parent for name in found}  # no folder without __init__.py
    assert setuptools["package-dir"] == {
        name: str(folder.relative_to(ROOT)) for name, folder in PLACES.items() if name != "rlagents"
    }
    data = setuptools["package-data"]
    for name, folder in PLACES.items():
        kinds = {path.name for path in folder.iterdir() if path.is_file()}
        others = {n for n in kinds if not n.endswith((".py", ".pyc"))}
        patterns = data.get(name, [])
        for other in others:
            assert any(Path(other).match(pattern) for pattern in patterns), (name, other)
