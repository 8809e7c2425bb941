"""The optimizers against the definitions they come from."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlagents.agents.dqn import DQNConfig
from rlagents.agents.optimizers import Adam, CenteredRMSprop


def rmsprop(gradients: list[float], *, lr: float, decay: float, epsilon: float) -> list[float]:
    """Return a weight that began at 1 after each step, as the code of Mnih et al. (2015) has it."""
    w, g, g2 = 1.0, 0.0, 0.0
    found = []
    for dw in gradients:
        g = decay * g + (1 - decay) * dw
        g2 = decay * g2 + (1 - decay) * dw * dw
        w -= lr * dw / (g2 - g * g + epsilon) ** 0.5
        found.append(w)
    return found


def steps_of(
    optimizer: type[torch.optim.Optimizer], gradients: list[float], **options: float
) -> list[float]:
    parameter = torch.nn.Parameter(torch.ones(3))
    stepper = optimizer([parameter], **options)  # type: ignore[arg-type]
    found = []
    for gradient in gradients:
        parameter.grad = torch.full((3,), gradient)
        stepper.step()
        assert len(set(parameter.tolist())) == 1
        found.append(float(parameter.detach()[0]))
    return found


def test_rmsprop_is_that_of_the_paper() -> None:
    gradients = [2.0, -1.0, 0.0, 0.01]
    options = {"lr": 0.1, "decay": 0.95, "epsilon": 0.01}
    found = steps_of(CenteredRMSprop, gradients, **options)
    # m = .1, v = .2, then m = .045, v = .24
    first = 1 - 0.1 * 2 / 0.2**0.5
    second = first + 0.1 / 0.247975**0.5
    assert found[:2] == pytest.approx([first, second], rel=1e-5)
    assert found == pytest.approx(rmsprop(gradients, **options), rel=1e-5)


def test_torchs_rmsprop_has_another_floor() -> None:
    # Adding 0.01 behind the root lets the smallest gradients make steps ten times as long.
    gradients = [1e-4] * 3
    ours = steps_of(CenteredRMSprop, gradients, lr=1.0, decay=0.95, epsilon=0.01)
    torchs = steps_of(torch.optim.RMSprop, gradients, lr=1.0, alpha=0.95, eps=0.01, centered=True)
    assert [1 - w for w in ours] == pytest.approx([1e-3, 2e-3, 3e-3], rel=1e-3)
    assert 1 - torchs[0] == pytest.approx(1e-4 / (0.0475**0.5 * 1e-4 + 0.01), rel=1e-3)
    assert (1 - torchs[0]) / (1 - ours[0]) == pytest.approx(10, rel=0.01)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_rmsprop_of_means_is_that_of_sums_with_a_smaller_epsilon(gradients: list[float]) -> None:
    sums = rmsprop([32 * g for g in gradients], lr=0.01, decay=0.95, epsilon=0.01)
    options = {"lr": 0.01, "decay": 0.95, "epsilon": DQNConfig().rmsprop_epsilon}
    assert rmsprop(gradients, **options) == pytest.approx(sums, rel=1e-6, abs=1e-9)
    found = steps_of(CenteredRMSprop, gradients, **options)
    assert found == pytest.approx(sums, rel=1e-3, abs=1e-3)


def test_rmsprop_survives_large_and_steady_gradients() -> None:
    found = steps_of(CenteredRMSprop, [1e5] * 400, lr=1e-9, decay=0.95, epsilon=1e-6)
    assert np.isfinite(found).all()


def test_what_has_no_gradient_stays() -> None:
    moved, still = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = CenteredRMSprop([moved, still], lr=0.1, decay=0.95, epsilon=0.01)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert not torch.equal(moved, torch.ones(2))
    assert torch.equal(still, torch.ones(2))
    assert still not in optimizer.state


def stepped(kind: type[torch.optim.Adam], steps: int, state: dict[str, Any] | None = None) -> Any:
    """Return the weights of a network after so many steps, the optimizer and its network."""
    network = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    optimizer = kind(network.parameters(), lr=0.03, eps=1e-4, fused=True)
    if state is not None:
        optimizer.load_state_dict(copy.deepcopy(state))  # or its tensors would be shared
    x = torch.arange(12.0).view(4, 3).sin()
    for step in range(steps):
        optimizer.zero_grad()
        assert all(parameter.grad is None for parameter in network.parameters())
        (network(x).square().sum() * (step + 1)).backward()
        optimizer.step()
    return torch.cat(
        [parameter.detach().flatten() for parameter in network.parameters()]
    ), optimizer


def test_adam_is_torchs_to_the_bit() -> None:
    ours, optimizer = stepped(Adam, 7)
    theirs, other = stepped(torch.optim.Adam, 7)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, stepped(Adam, 6)[0])
    state, same = optimizer.state_dict(), other.state_dict()
    assert state["param_groups"] == same["param_groups"]
    for index, values in same["state"].items():
        assert values.keys() == state["state"][index].keys()
        assert all(
            torch.equal(value, state["state"][index][name]) for name, value in values.items()
        )


@pytest.mark.parametrize(("first", "then"), [(Adam, torch.optim.Adam), (torch.optim.Adam, Adam)])
def test_either_adam_goes_on_from_the_others_state(
    first: type[torch.optim.Adam], then: type[torch.optim.Adam]
) -> None:
    state = stepped(first, 5)[1].state_dict()
    assert torch.equal(stepped(then, 3, state)[0], stepped(first, 3, state)[0])
    assert not torch.equal(stepped(then, 3, state)[0], stepped(then, 3)[0])


def test_adam_makes_no_step_where_infinity_was_found() -> None:
    before, optimizer = stepped(Adam, 2)
    parameter = optimizer.param_groups[0]["params"][0]
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(parameter.detach().flatten(), before[: parameter.numel()])
    optimizer.found_inf = torch.zeros(())
    optimizer.step()
    assert not torch.equal(parameter.detach().flatten(), before[: parameter.numel()])


@pytest.mark.parametrize(
    "make",
    ["Adam(p, lr=0.1, fused=True)", "CenteredRMSprop(p, lr=0.1, decay=0.9, epsilon=0.1)"],
)
def test_no_compiler_is_imported(make: str) -> None:
    program = f"""
import sys, torch
from rlagents.agents.guard import clip_gradients
from rlagents.agents.optimizers import Adam, CenteredRMSprop
p = [torch.nn.Parameter(torch.ones(3))]
optimizer = {make}
optimizer.zero_grad()
p[0].square().sum().backward()
clip_gradients(p, 1.0)
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
assert p[0][0] < 1
print("torch._dynamo" in sys.modules)
"""
    words = [sys.executable, "-c", program]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
