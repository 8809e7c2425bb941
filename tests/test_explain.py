from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import rlagents
from rlagents.agents.base import Policy, ValueKind
from rlagents.envs import find_env, make_vector_env
from rlagents.errors import UsageError
from rlagents.explain import METHODS, Explainer, Heat, overlay
from rlagents.networks import (
    CategoricalQNetwork,
    NetworkConfig,
    PolicyNetwork,
    PolicyValueNetwork,
    QNetwork,
    draw_noise,
    make_torso,
)
from rlagents.networks.pictures import PictureTorso
from rlagents.spaces import FrameStack
from rlagents.types import Array, FloatArray, IntArray

CPU = torch.device("cpu")
NUM_ACTIONS = 3

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _same_weights_and_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks are small
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield
    torch.set_num_threads(threads)


def pictures(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)


# --- Numbers worked out by hand -------------------------------------------------------------------


class Weighted(nn.Module):
    """Outputs are weighted sums of pixels: weights [A, C, H, W]."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(np.asarray(weights, dtype=np.float32)))
        self.asked: list[int] = []  # how many pictures came each time

    def forward(self, observation: Tensor) -> Tensor:
        self.asked.append(len(observation))
        return torch.einsum("bchw,achw->ba", observation, self.weights)


def explain(
    network: nn.Module,
    method: str,
    observations: Array,
    actions: list[int],
    *,
    kind: ValueKind = "action values",
    **options: Any,
) -> FloatArray:
    explainer = Explainer(Policy(network, kind, CPU), method, **options)
    return explainer.maps(observations, np.array(actions, dtype=np.int64))


def test_the_gradient_of_a_weighted_sum_is_its_largest_weight_over_the_channels() -> None:
    weights = [
        [[[1.0, -2.0]], [[-3.0, 0.5]]],  # action 0: two channels of 1 by 2 pixels
        [[[0.0, 4.0]], [[5.0, -6.0]]],
    ]
    maps = explain(Weighted(weights), "gradient", pictures(2, 2, 1, 2), [0, 1])
    assert maps.tolist() == [[[3.0, 2.0]], [[5.0, 6.0]]]


def test_an_advantage_is_above_the_mean_of_all_actions() -> None:
    # Means over actions: (2, 0); so the advantages' weights are (-1, -4) and (1, 4).
    weights = [[[[1.0, -4.0]]], [[[3.0, 4.0]]]]
    maps = explain(Weighted(weights), "gradient", pictures(2, 1, 1, 2), [0, 1], of="advantage")
    assert maps.tolist() == [[[1.0, 4.0]], [[1.0, 4.0]]]


def test_a_policy_is_explained_by_the_logarithm_of_a_probability() -> None:
    # d log pi_0 / d x = (1 - pi_0) (w_0 - w_1), with pi_0 = 1/2 in the dark. One bright pixel, of
    # ln 3: logits ln 3 and 0, so pi_0 = 3/4.
    network = Weighted([[[[np.log(3.0), 8.0]]], [[[0.0, 2.0]]]])
    observations = np.array([[[[0, 0]]], [[[1, 0]]]], dtype=np.uint8)
    maps = explain(network, "gradient", observations, [0, 0], kind="probabilities")
    np.testing.assert_allclose(maps[:, 0, 1], [6 / 2, 6 / 4], rtol=1e-6)


def filters(*, stride: int = 1) -> QNetwork:
    """Two filters, which take 255 times 1 and -1 of a pixel; features are the maps, one by one."""
    convolution = nn.Conv2d(1, 2, kernel_size=1, stride=stride)
    torso = PictureTorso(nn.Sequential(convolution, nn.ReLU(), nn.Flatten()), (1, 4, 4), [])
    network = QNetwork(torso, 2)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([255.0, -255.0]).view(2, 1, 1, 1))
        convolution.bias.copy_(torch.tensor([0.0, 10.0]))  # type: ignore[union-attr]
        network.head.weight.zero_()
    return network


def test_grad_cam_weighs_each_filters_map_by_the_mean_of_its_gradient() -> None:
    network = filters()
    observations = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    with torch.no_grad():
        network.head.weight[1, 5] = 32.0  # the first filter at one place: a mean of 2 over 16
        network.head.weight[1, 16:] = -1.0  # the second filter everywhere: a mean of -1
    # 2 x - max(10 - x, 0), where x is the pixel, and 0 where that is negative.
    pixels = np.arange(16.0).reshape(4, 4)
    expected = np.maximum(2 * pixels - np.maximum(10 - pixels, 0), 0)
    maps = explain(network, "grad-cam", observations, [1])
    np.testing.assert_allclose(maps[0], expected, rtol=1e-5)
    assert not explain(network, "grad-cam", observations, [0]).any()  # whose weights are all 0


def test_grad_cam_stretches_each_cell_over_its_share_of_the_picture() -> None:
    network = filters(stride=2)  # sees pixels 0 and 2 of each row and column
    observations = np.zeros((1, 1, 4, 4), dtype=np.uint8)
    observations[0, 0, 0, 2] = 64
    with torch.no_grad():
        network.head.weight[0, :4] = 1.0
    # Cells are two pixels wide: pixel centres lie at 1/4 and 3/4 of the way between cells' centres.
    along = np.array([0, 0.25, 0.75, 1])
    maps = explain(network, "grad-cam", observations, [0])
    np.testing.assert_allclose(maps[0], 64 * np.outer(1 - along, along), atol=1e-4)


def test_perturbation_is_half_the_square_of_what_a_blurred_pixel_changes() -> None:
    # The network reads one pixel, the only bright one. It lies at 42: cells are 5 wide at 80 by 80,
    # and 42 is the middle of the ninth (40 to 44), where the bump has its height of 1.
    weights = np.zeros((1, 1, 80, 80))
    weights[0, 0, 42, 42] = 1 / 255
    observations = np.zeros((1, 1, 80, 80), dtype=np.uint8)
    observations[0, 0, 42, 42] = 255
    network = Weighted(weights)
    maps = explain(network, "perturbation", observations, [0])
    # What a blur with sigma 3 leaves of one bright pixel, in two dimensions.
    left = (1 / np.exp(-(np.arange(-12, 13) ** 2) / (2 * 3**2)).sum()) ** 2
    np.testing.assert_allclose(maps[0, 42, 42], 0.5 * (1 - left) ** 2, rtol=1e-4)
    # One cell on, 5 pixels away, the bump with sigma 5 has a height of exp(-1/2).
    np.testing.assert_allclose(maps[0, 47, 42], maps[0, 42, 42] * np.exp(-0.5) ** 2, rtol=1e-4)
    np.testing.assert_allclose(maps[0, 42, 37], maps[0, 42, 42] * np.exp(-0.5) ** 2, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (84, 84), (48, 96)])
def test_perturbation_shines_where_the_network_reads_and_only_there(
    size: tuple[int, int],
) -> None:
    height, width = size
    weights = np.zeros((1, 2, height, width))
    weights[0, 1, 10:14, width - 14 : width - 10] = 1  # of the second frame
    # One picture, shifted to both frames alike, whose region is brighter than what surrounds it.
    observations = pictures(1, 2, height, width) // 2
    observations[:, :, 10:14, width - 14 : width - 10] += 100
    map_ = explain(Weighted(weights), "perturbation", observations, [0])[0]
    row, column = np.unravel_index(map_.argmax(), map_.shape)
    unit = min(size) / 80
    assert abs(row - 11.5) <= 5 * unit
    assert abs(column - (width - 11.5)) <= 5 * unit
    rows, columns = np.ogrid[:height, :width]
    away = np.hypot(rows - 11.5, columns - (width - 11.5)) > 25 * unit  # five sigmas
    assert away.mean() > 0.5
    assert map_[away].max() < 1e-4 * map_.max()


def test_few_disturbed_copies_are_asked_for_at_once() -> None:
    network = Weighted(np.ones((1, 1, 64, 64)))
    explain(network, "perturbation", pictures(5, 1, 64, 64), [0] * 5)
    assert network.asked == [5] + [64] * 20  # a grid of 16 by 16 for each of five pictures
    network = Weighted(np.ones((1, 1, 40, 80)))
    explain(network, "perturbation", pictures(1, 1, 40, 80), [0])
    assert network.asked == [1] + [64] * 8  # 16 by 32: cells follow the shorter side


# --- Every network --------------------------------------------------------------------------------


def size(torso: str = "nature-cnn", **_: Any) -> tuple[int, int]:
    return (36, 36) if torso == "nature-cnn" else (12, 12)


def make_policy(head: str, torso: str = "nature-cnn", **options: Any) -> Policy:
    """A small policy with weights that are far from even."""
    space = FrameStack(2, *size(torso))
    table = {"hidden_sizes": [16], "width": 0.25, "precision": "float32", **options}
    noisy = table.get("noisy", False)
    parts = make_torso(NetworkConfig.model_validate({"torso": torso, **table}), space)
    networks = {
        "values": lambda: QNetwork(parts, NUM_ACTIONS, noisy=noisy),
        "dueling": lambda: QNetwork(parts, NUM_ACTIONS, dueling=True, noisy=noisy),
        "categorical": lambda: CategoricalQNetwork(parts, NUM_ACTIONS, atoms=(5, -1.0, 1.0)),
        "policy": lambda: PolicyNetwork(parts, NUM_ACTIONS),
        "policy and value": lambda: PolicyValueNetwork(parts, NUM_ACTIONS),
    }
    network = networks[head]()
    if head.startswith("policy"):
        nn.init.normal_(network.head.weight, std=0.1)  # a new one's are nearly 0
    kind: ValueKind = "probabilities" if head.startswith("policy") else "action values"
    return Policy(network, kind, CPU)


HEADS = ("values", "dueling", "categorical", "policy", "policy and value")
CASES: list[tuple[str, dict[str, Any]]] = [
    *((head, {"torso": torso}) for head in HEADS for torso in ("nature-cnn", "impala-resnet")),
    ("values", {"center_pictures": True}),
    ("dueling", {"standardize_pictures": True, "torso": "impala-resnet"}),
    ("categorical", {"standardize_pictures": True}),
    ("policy", {"difference_frames": True, "standardize_pictures": True}),
    ("dueling", {"noisy": True}),
    ("values", {"layer_norm": True}),
]
every_network = pytest.mark.parametrize(("head", "options"), CASES)
SEEN = pictures(2, 2, *size())
CHOSEN = np.array([2, 0], dtype=np.int64)


@every_network
@every_method
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_network_is_explained_and_left_as_it_was(
    head: str, options: dict[str, Any], method: str, precision: str
) -> None:
    policy = make_policy(head, **options, precision=precision)
    network = policy.network
    observations = pictures(2, 2, *size(**options))
    seen = observations.copy()
    before, weights = policy.values(seen), copy.deepcopy(network.state_dict())
    maps = Explainer(policy, method).maps(seen, CHOSEN)
    assert maps.shape == (2, *size(**options))
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    assert method == "grad-cam" or maps.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(seen, observations)
    np.testing.assert_array_equal(policy.values(seen), before)
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(module.training for module in network.modules())
    np.testing.assert_array_equal(Explainer(policy, method).maps(seen, CHOSEN), maps)


@every_network
def test_the_gradient_is_that_of_finite_differences(head: str, options: dict[str, Any]) -> None:
    policy = make_policy(head, **options)
    observations = pictures(2, 2, *size(**options))
    maps = Explainer(policy, "gradient").maps(observations, CHOSEN)

    def score(observation: Tensor, action: int) -> float:
        outputs = policy.network(observation[None].clone())[0].double()
        if policy.kind == "probabilities":
            outputs = outputs.log_softmax(dim=0)
        return float(outputs[action].detach())

    step = 1 / 16  # of the 255 that a pixel may have
    for seen, action, map_ in zip(observations, CHOSEN.tolist(), maps, strict=True):
        for place in np.argsort(map_, axis=None)[-3:]:
            row, column = np.unravel_index(place, map_.shape)
            slopes = []
            for channel in range(2):
                higher = torch.from_numpy(seen).float()
                lower = higher.clone()
                higher[channel, row, column] += step
                lower[channel, row, column] -= step
                slopes.append((score(higher, action) - score(lower, action)) / (2 * step))
            expected = np.abs(slopes).max()
            np.testing.assert_allclose(map_[row, column], expected, rtol=0.05)


@every_method
def test_a_map_does_not_depend_on_the_other_pictures_of_a_batch(method: str) -> None:
    explainer = Explainer(make_policy("dueling", standardize_pictures=True), method)
    together = explainer.maps(SEEN, CHOSEN)
    alone = [explainer.maps(SEEN[i : i + 1], CHOSEN[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4 * together.max())


@every_method
@pytest.mark.parametrize("change", ["action", "of"])
def test_a_map_is_of_one_action_and_of_its_value_or_advantage(method: str, change: str) -> None:
    policy = make_policy("dueling")
    actions = (CHOSEN + 1) % NUM_ACTIONS if change == "action" else CHOSEN
    other = Explainer(policy, method, of="advantage" if change == "of" else "action")
    maps = Explainer(policy, method).maps(SEEN, CHOSEN)
    assert not np.allclose(maps, other.maps(SEEN, actions), rtol=0.01)


@every_method
def test_noise_that_was_drawn_means_nothing(method: str) -> None:
    policy = make_policy("dueling", noisy=True)
    maps = Explainer(policy, method).maps(SEEN, CHOSEN)
    draw_noise(policy.network, torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(Explainer(policy, method).maps(SEEN, CHOSEN), maps)


@every_method
def test_the_methods_work_where_gradients_are_switched_off(method: str) -> None:
    policy = make_policy("values")
    maps = Explainer(policy, method).maps(SEEN, CHOSEN)
    for parameter in policy.network.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        np.testing.assert_array_equal(Explainer(policy, method).maps(SEEN, CHOSEN), maps)


def test_hooks_go_even_when_the_network_fails() -> None:
    policy = make_policy("values")
    with pytest.raises(RuntimeError):
        Explainer(policy, "grad-cam").maps(pictures(1, 3, 36, 36), CHOSEN[:1])
    assert not any(module._forward_hooks for module in policy.network.modules())


# --- What is refused ------------------------------------------------------------------------------


def test_an_unknown_method_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"'gradcam'; did you mean 'grad-cam'\?.*perturbation"):
        Explainer(make_policy("values"), "gradcam")


def test_a_policy_has_no_advantages() -> None:
    with pytest.raises(UsageError, match="probabilities"):
        Explainer(make_policy("policy"), "gradient", of="advantage")


@every_method
def test_agents_that_see_no_pictures_are_refused(method: str) -> None:
    cartpole = rlagents.load_pretrained("cartpole").policy()
    with pytest.raises(UsageError, match=r"sees pictures, \[C, H, W\] uint8.*takes vectors"):
        Explainer(cartpole, method)
    own = Explainer(Policy(nn.Linear(4, 2), "action values", CPU), method)
    with pytest.raises(UsageError, match=r"pictures.*float32 of shape \[4\]"):
        own.maps(np.zeros((1, 4), dtype=np.float32), np.zeros(1, dtype=np.int64))


def test_grad_cam_refuses_a_network_without_convolutions() -> None:
    with pytest.raises(UsageError, match=r"convolutions.*gradient or perturbation"):
        explain(Weighted(np.ones((1, 1, 4, 4))), "grad-cam", pictures(1, 1, 4, 4), [0])


# --- Drawing --------------------------------------------------------------------------------------


def changed_box(before: Array, after: Array) -> tuple[int, int, int, int]:
    """First and last row, first and last column, of what is different."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


def even(value: float, size: int = 4) -> FloatArray:
    return np.full((size, size), value, dtype=np.float32)


FRAME = np.full((210, 160, 3), 60, dtype=np.uint8)


def test_a_hot_cell_lights_its_share_of_the_frame() -> None:
    heat = even(0, 10)
    heat[2, 7] = 1
    drawn = overlay(FRAME, heat, slice(None))
    # Cells are 21 rows by 16 columns, and light fades from the middle of a cell to the middles of
    # its neighbours: from (52, 119.5) to rows 31 and 73, columns 103.5 and 135.5.
    top, bottom, left, right = changed_box(FRAME, drawn)
    assert top in (32, 33)
    assert bottom in (71, 72)
    assert left in (104, 105)
    assert right in (134, 135)
    red = drawn[..., 0].astype(int) - drawn[..., 2]
    assert np.unravel_index(red.argmax(), red.shape) in [(52, 119), (52, 120)]


def test_heat_covers_the_rows_that_the_network_saw() -> None:
    heat = even(0, 16)
    heat[0, 0] = heat[15, 15] = 1
    drawn = overlay(FRAME, heat, slice(35, 195))  # cells of 10 by 10
    assert changed_box(FRAME, drawn) == (35, 194, 0, 159)
    np.testing.assert_array_equal(drawn[:35], FRAME[:35])
    np.testing.assert_array_equal(drawn[195:], FRAME[195:])
    np.testing.assert_array_equal(drawn[55:175], FRAME[55:175])
    hottest = drawn[35, 0]
    assert (drawn[35:40, :5] == hottest).all()  # up to the middle of the first cell
    assert (drawn[190:195, 155:] == hottest).all()  # and from that of the last one on


def test_the_frame_given_stays_as_it_is() -> None:
    frame = FRAME.copy()
    frame.flags.writeable = False
    drawn = overlay(frame, even(1), slice(10, 200))
    assert drawn.dtype == np.uint8
    assert drawn.shape == frame.shape
    assert (drawn[10:200] != frame[10:200]).any(axis=2).all()


def test_cold_places_are_transparent_and_the_hottest_are_not_opaque() -> None:
    np.testing.assert_array_equal(overlay(FRAME, even(0), slice(None)), FRAME)
    changes = [
        np.abs(overlay(FRAME, even(heat), slice(None)).astype(int) - FRAME).sum()
        for heat in (0.02, 0.1, 0.3)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]
    dark, bright = (
        overlay(np.full_like(FRAME, value), even(1), slice(None))[0, 0].astype(int)
        for value in (0, 250)
    )
    np.testing.assert_allclose(bright - dark, 0.4 * 250, atol=1)  # rounded twice


def bump(height: float) -> FloatArray:
    """A map of 100 by 100 whose brightest part is as high as `height`, over a ground of 5."""
    map_ = even(5, 100)
    map_[30:50, 30:50] += height
    return map_


def test_heat_is_the_root_of_what_stands_out() -> None:
    heat = Heat().update(bump(8))
    assert heat.dtype == np.float32
    assert heat.max() == 1
    np.testing.assert_array_equal(heat[60:, 60:], 0)  # the ground, whatever its height
    two = bump(16)
    two[60:80, 60:80] += 4
    np.testing.assert_allclose(Heat().update(two)[70, 70], (4 / 16) ** 0.5, rtol=1e-3)


def test_the_hottest_value_is_a_quantile_of_the_latest_peaks() -> None:
    def hottest(heat: Heat, heights: list[float]) -> list[float]:
        maps = [heat.update(bump(height)) for height in heights]
        return [float(map_[40, 40]) for map_ in maps]

    # Of peaks 1, 4, 9 the median is 1, then 2.5, then 4; then of 4, 9, 100 it is 9, then of 9, 100
    # and 4 it is 9 again. Heat is the root of a peak's part of it, and 1 at most.
    found = hottest(Heat(window=3, quantile=0.5), [1, 4, 9, 100, 4])
    np.testing.assert_allclose(found, [1, 1, 1, 1, 2 / 3], rtol=1e-3)
    found = hottest(Heat(window=3, quantile=1.0), [4, 1, 1, 1])
    np.testing.assert_allclose(found, [1, 0.5, 0.5, 1], rtol=1e-3)
    found = hottest(Heat(window=2, quantile=1.0), [4, 1, 1])
    np.testing.assert_allclose(found, [1, 0.5, 1], rtol=1e-3)


def test_a_map_in_which_nothing_stands_out_is_cold() -> None:
    for value in (0.0, 3.0):
        np.testing.assert_array_equal(Heat().update(even(value, 64)), even(0, 64))


# --- A sanity check: Adebayo et al., "Sanity Checks for Saliency Maps" (2018) ---------------------


def ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: npt.NDArray[np.float64] = counts.cumsum().astype(np.float64)
    return (last - (counts - 1) / 2)[inverse.reshape(-1)]


def spearman(first: FloatArray, second: FloatArray, part: float = 1.0) -> float:
    """Return the mean absolute rank correlation of maps [B, H, W]; of an even map it is 0.

    Only the `part` of places counts in which the first of two maps is highest.
    """
    found = []
    for one, other in zip(first, second, strict=True):
        counted = one >= np.quantile(one, 1 - part)
        a, b = ranks(one[counted]), ranks(other[counted])
        a, b = a - a.mean(), b - b.mean()
        length = np.sqrt((a @ a) * (b @ b))
        found.append(abs(a @ b) / length if length else 0.0)
    return float(np.mean(found))


def test_spearmans_correlation() -> None:
    # Ranks 1 2.5 2.5 4 against 1 3 2 4: covariance 4.5, variances 4.5 and 5.
    one = np.array([[[0, 7, 7, 9]]], dtype=np.float32)
    other = np.array([[[1, 30, 2, 400]]], dtype=np.float32)
    assert spearman(one, other) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert spearman(one, one) == pytest.approx(1)
    assert spearman(one, -one) == pytest.approx(1)
    assert spearman(one, np.ones_like(one)) == 0
    # The highest three: 1.5 1.5 3 against 2 1 3.
    assert spearman(one, other, part=0.75) == pytest.approx(1.5 / np.sqrt(1.5 * 2))


@pytest.fixture(scope="module")
def pong() -> tuple[Policy, Array, IntArray]:
    """The shipped agent, and what it saw and did in some steps of two games."""
    agent = rlagents.load_pretrained("pong")
    policy = agent.policy()
    env = make_vector_env(find_env(agent.config.env.id), agent.config.env, 2)
    observations, actions = [], []
    try:
        observation = env.reset(np.ones(2, dtype=np.bool_), [11, 12])
        for step in range(64):
            choice = policy.act(observation)
            if step >= 24 and step % 5 == 4:  # after the first serve
                observations.append(observation)
                actions.append(choice)
            env.send(choice)
            observation = env.recv().observation
    finally:
        env.close()
    return policy, np.concatenate(observations), np.concatenate(actions)


# The cascade, from the head down. Each part takes the one before it along.
CASCADE = {"head": "head", "fully connected": "head|fully_connected", "all": ""}

# Measured, the most of five shufflings at each step of the cascade: over all places 0.62 for the
# gradient, 0.51 for Grad-CAM, 0.97 for perturbation; over the highest tenth 0.16, 0.28 and 0.53.
# Over all places two perturbation maps are alike, since where Pong shows nothing a blur changes
# nothing, whoever looks, and the ranks of those places tell how far away the nearest object is.
LIMITS = {
    "gradient": {1.0: 0.75, 0.1: 0.3},
    "grad-cam": {1.0: 0.7, 0.1: 0.45},
    "perturbation": {0.1: 0.7},
}


def randomised(policy: Policy, layers: str, seed: int = 0) -> Policy:
    """A copy in which each weight and bias of the layers has its numbers shuffled."""
    network = copy.deepcopy(policy.network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if re.search(layers, name):
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return Policy(network, policy.kind, CPU)


def not_empty(maps: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell which maps show anything: in a quarter, Grad-CAM finds nothing that speaks for it."""
    return np.asarray(maps.any(axis=(1, 2)))


@every_method
def test_the_same_network_twice_gives_the_same_maps(
    method: str, pong: tuple[Policy, Array, IntArray]
) -> None:
    policy, observations, actions = pong
    maps = Explainer(policy, method).maps(observations, actions)
    again = Policy(copy.deepcopy(policy.network), policy.kind, CPU)
    other = Explainer(again, method).maps(observations, actions)
    np.testing.assert_array_equal(other, maps)
    shown = not_empty(maps)
    assert shown.sum() >= 10
    assert spearman(maps[shown], other[shown]) == pytest.approx(1)


@every_method
@pytest.mark.parametrize("step", CASCADE)
def test_a_randomised_network_looks_elsewhere(
    method: str, step: str, pong: tuple[Policy, Array, IntArray]
) -> None:
    policy, observations, actions = pong
    maps = Explainer(policy, method).maps(observations, actions)
    other = Explainer(randomised(policy, CASCADE[step]), method).maps(observations, actions)
    shown = not_empty(maps)
    for part, limit in LIMITS[method].items():
        assert spearman(maps[shown], other[shown], part) < limit
