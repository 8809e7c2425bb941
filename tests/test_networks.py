from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlagents.errors import UsageError
from rlagents.networks import (
    NetworkConfig,
    PolicyNetwork,
    PolicyValueNetwork,
    QNetwork,
    make_torso,
    resolve_precision,
)
from rlagents.networks.torsos import MLP, NatureCNN
from rlagents.spaces import FrameStack

SCREEN = FrameStack(4, 84, 84)
VECTOR = gym.spaces.Box(-np.inf, np.inf, (6,), np.float32)


def config(torso: str = "nature-cnn", **options: Any) -> NetworkConfig:
    if torso == "nature-cnn":  # 512 orthogonal units take half a second to make
        options = {"hidden_sizes": [32], **options}
    return NetworkConfig.model_validate({"torso": torso, "precision": "float32", **options})


def pictures(count: int = 2, shape: tuple[int, ...] = SCREEN.shape, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(256, size=(count, *shape), dtype=np.uint8))


def vectors(count: int = 2, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(size=(count, *VECTOR.shape)).astype(np.float32))


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(autouse=True)
def _same_weights_and_one_thread() -> Iterator[None]:
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_nature_network_has_the_papers_number_of_parameters() -> None:
    # 84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9 -> 9 - 3 + 1 = 7; 64 * 7 * 7 = 3136
    convolutions = (4 * 8 * 8 * 32 + 32) + (32 * 4 * 4 * 64 + 64) + (64 * 3 * 3 * 64 + 64)
    expected = convolutions + (3136 * 512 + 512) + (512 * 6 + 6)
    assert expected == 1_687_206
    network = QNetwork(make_torso(config(hidden_sizes=None), SCREEN), 6)
    assert num_parameters(network) == expected


def test_the_convolutions_are_the_papers() -> None:
    torso = make_torso(config(), SCREEN)
    assert isinstance(torso, NatureCNN)
    layers = [layer for layer in torso.convolutions if isinstance(layer, nn.Conv2d)]
    found = [(layer.out_channels, layer.kernel_size[0], layer.stride[0]) for layer in layers]
    assert found == [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    assert sum(isinstance(layer, nn.ReLU) for layer in torso.convolutions) == 3


def test_a_perceptron_has_the_parameters_counted_by_hand() -> None:
    network = QNetwork(make_torso(config("mlp", hidden_sizes=[10, 3]), VECTOR), 2)
    assert num_parameters(network) == (6 * 10 + 10) + (10 * 3 + 3) + (3 * 2 + 2)
    default = QNetwork(make_torso(config("mlp"), VECTOR), 2)
    assert num_parameters(default) == (6 * 128 + 128) + (128 * 128 + 128) + (128 * 2 + 2)


def test_a_perceptron_computes_what_its_weights_say() -> None:
    torso = make_torso(config("mlp", hidden_sizes=[5, 4]), VECTOR)
    assert isinstance(torso, MLP)
    expected = vectors(3).numpy()
    for layer in torso.layers:
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            expected = np.maximum(expected @ weight.T + bias, 0)
    assert expected.any()
    np.testing.assert_allclose(torso(vectors(3)).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 5])
def test_shapes_and_types(size: int) -> None:
    for torso, observations in (
        (make_torso(config(), SCREEN), pictures(size)),
        (make_torso(config("mlp"), VECTOR), vectors(size)),
    ):
        assert torso(observations).shape == (size, torso.out_features)
        values = QNetwork(torso, 3)(observations)
        assert (values.shape, values.dtype) == ((size, 3), torch.float32)
        assert PolicyNetwork(torso, 3)(observations).shape == (size, 3)
        both = PolicyValueNetwork(torso, 3)
        logits, value = both.logits_and_value(observations)
        assert (logits.shape, value.shape) == ((size, 3), (size,))
        assert (logits.dtype, value.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(both(observations), logits)


def test_dueling_values_by_hand() -> None:
    network = QNetwork(make_torso(config("mlp", hidden_sizes=[]), VECTOR), 3, dueling=True)
    assert num_parameters(network) == (6 * 3 + 3) + (6 + 1)
    assert network.value_head is not None
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.head.bias.copy_(torch.tensor([1.0, 2.0, 6.0]))  # 3 in the mean
        network.value_head.bias.fill_(10.0)
        network.value_head.weight[0, 0] = 1.0
    x = torch.zeros(2, 6)
    x[1, 0] = 0.5
    expected = torch.tensor([[8.0, 9.0, 13.0], [8.5, 9.5, 13.5]])
    torch.testing.assert_close(network(x), expected)


def test_dueling_values_have_the_state_value_for_their_mean() -> None:
    network = QNetwork(make_torso(config(), SCREEN), 6, dueling=True)
    assert network.value_head is not None
    seen = pictures(3)
    value = network.value_head(network.torso(seen)).squeeze(1)
    torch.testing.assert_close(network(seen).mean(dim=1), value, rtol=1e-4, atol=1e-4)
    plain = QNetwork(make_torso(config(), SCREEN), 6)
    assert num_parameters(network) - num_parameters(plain) == 33


def test_every_picture_of_a_batch_is_seen_for_itself() -> None:
    network = QNetwork(make_torso(config(), SCREEN), 4)
    batch = pictures(3)
    alone = torch.cat([network(batch[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(batch), alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-4)


def test_a_new_policy_is_close_to_uniform_whatever_it_sees() -> None:
    for torso, observations in (
        (make_torso(config(), SCREEN), pictures(4)),
        (make_torso(config("mlp"), VECTOR), 100 * vectors(4)),
    ):
        probabilities = PolicyNetwork(torso, 5)(observations).softmax(dim=1)
        assert 0 < float((probabilities.detach() - 0.2).abs().max()) < 0.1


def test_pixels_are_scaled_inside() -> None:
    torso = make_torso(config(), SCREEN)
    assert isinstance(torso, NatureCNN)
    white = torch.full((1, *SCREEN.shape), 255, dtype=torch.uint8)
    ones = torso.convolutions(torch.ones(1, *SCREEN.shape))
    torch.testing.assert_close(torso(white), torso.fully_connected(ones))
    seen = pictures(2)
    scaled = torso.convolutions(seen.float() / 255)
    torch.testing.assert_close(torso(seen), torso.fully_connected(scaled))
    black = torso.convolutions(torch.zeros(1, *SCREEN.shape))
    torch.testing.assert_close(torso(torch.zeros_like(white)), torso.fully_connected(black))


def test_difference_frames_subtract_each_frame_from_the_next() -> None:
    torso = make_torso(config(difference_frames=True), SCREEN)
    assert isinstance(torso, NatureCNN)
    first = torso.convolutions[0]
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == 3
    seen = pictures(2)
    numbers = seen.numpy().astype(np.float32)  # so that 3 - 5 is -2, not 254
    differences = torch.from_numpy((numbers[:, 1:] - numbers[:, :-1]) / 255)
    expected = torso.fully_connected(torso.convolutions(differences))
    torch.testing.assert_close(torso(seen), expected)


def test_difference_frames_do_not_see_what_stands_still() -> None:
    torso = make_torso(config(difference_frames=True), SCREEN)
    still = pictures(1)[:, :1].expand(-1, 4, -1, -1)
    torch.testing.assert_close(torso(still), torso(torch.zeros(1, *SCREEN.shape).byte()))
    plain = make_torso(config(), SCREEN)
    assert not torch.allclose(plain(still), plain(torch.zeros(1, *SCREEN.shape).byte()))


@pytest.mark.parametrize("difference_frames", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_centred_pictures_have_no_brightness(difference_frames: bool, precision: str) -> None:
    options: dict[str, Any] = {"difference_frames": difference_frames, "precision": precision}
    torso = make_torso(config(center_pictures=True, **options), SCREEN)
    assert isinstance(torso, NatureCNN)
    given: list[Tensor] = []
    torso.convolutions.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    seen = pictures(2)
    seen[1, 2:] //= 4  # frames of a stack are centred one by one
    torso(seen)
    expected = seen.float() / 255
    if difference_frames:
        expected = expected[:, 1:] - expected[:, :-1]
    expected = expected - expected.mean(dim=(2, 3), keepdim=True)
    tolerance = 1e-5 if precision == "float32" else 0.01
    torch.testing.assert_close(given[0].float(), expected, rtol=tolerance, atol=tolerance)


def test_centred_pictures_do_not_show_a_bright_background() -> None:
    seen = pictures(1) // 2
    centred = make_torso(config(center_pictures=True), SCREEN)
    torch.testing.assert_close(centred(seen), centred(seen + 100), rtol=1e-3, atol=1e-4)
    plain = make_torso(config(), SCREEN)
    assert not torch.allclose(plain(seen), plain(seen + 100), rtol=1e-2, atol=1e-2)


def test_layers_begin_orthogonal_and_keep_the_variance() -> None:
    torso = make_torso(config("mlp", hidden_sizes=[200] * 10), gym.spaces.Box(-1, 1, (200,)))
    assert isinstance(torso, MLP)
    for layer in torso.layers:
        if isinstance(layer, nn.Linear):
            product = layer.weight @ layer.weight.T
            torch.testing.assert_close(product, 2 * torch.eye(200), atol=1e-4, rtol=0)
            assert not layer.bias.any()
    x = torch.randn(50, 200)
    assert 0.5 < float((torso(x) ** 2).mean().detach() / (x**2).mean()) < 2
    pictures_too = make_torso(config(), SCREEN)
    assert isinstance(pictures_too, NatureCNN)
    for layer in pictures_too.convolutions:
        if isinstance(layer, nn.Conv2d):
            flat = layer.weight.flatten(1)
            expected = 2 * torch.eye(len(flat))
            torch.testing.assert_close(flat @ flat.T, expected, atol=1e-4, rtol=0)
            assert layer.bias is not None
            assert not layer.bias.any()


def test_width_multiplies_the_channels() -> None:
    torso = make_torso(config(width=0.5), SCREEN)
    assert isinstance(torso, NatureCNN)
    layers = [layer for layer in torso.convolutions if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [16, 32, 32]
    assert torso(pictures(2)).shape == (2, 32)
    wide = make_torso(config(width=2.0), SCREEN)
    assert isinstance(wide, NatureCNN)
    assert wide.convolutions(torch.zeros(1, *SCREEN.shape)).shape == (1, 128 * 7 * 7)


def test_hidden_sizes_set_the_layers() -> None:
    one = make_torso(config(hidden_sizes=[32]), SCREEN)
    two = make_torso(config(hidden_sizes=[64, 16]), SCREEN)
    assert (one.out_features, two.out_features) == (32, 16)
    assert num_parameters(one) == 77_984 + 3136 * 32 + 32
    assert num_parameters(two) == 77_984 + 3136 * 64 + 64 + 64 * 16 + 16
    assert make_torso(config("mlp", hidden_sizes=[9]), VECTOR).out_features == 9


def test_no_hidden_sizes_mean_a_linear_network() -> None:
    torso = make_torso(config("mlp", hidden_sizes=[]), VECTOR)
    assert torso.out_features == 6
    x = vectors(3)
    torch.testing.assert_close(torso(x), x)


def test_the_smallest_picture_is_36_by_36() -> None:
    space = FrameStack(2, 36, 36)
    assert make_torso(config(), space)(pictures(1, space.shape)).shape == (1, 32)
    with pytest.raises(UsageError, match="36 by 36 or more, got 35 by 84"):
        make_torso(config(), FrameStack(2, 35, 84))
    with pytest.raises(UsageError, match="got 84 by 20"):
        make_torso(config(), FrameStack(2, 84, 20))


def test_colour_pictures_that_are_no_stack_are_taken_too() -> None:
    space = gym.spaces.Box(0, 255, (3, 40, 50), np.uint8)
    assert make_torso(config(), space)(pictures(2, space.shape)).shape == (2, 32)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (SCREEN, {"torso": "mlp"}, 'set torso = "nature-cnn"'),
        (VECTOR, {"torso": "nature-cnn"}, 'set torso = "mlp"'),
        (gym.spaces.Box(0, 1, (3, 84, 84), np.float32), {"torso": "nature-cnn"}, "nature-cnn"),
        (VECTOR, {"torso": "mlp", "difference_frames": True}, "difference_frames"),
        (VECTOR, {"torso": "mlp", "center_pictures": True}, "center_pictures"),
        (VECTOR, {"torso": "mlp", "width": 2.0}, "width"),
        (VECTOR, {"torso": "mlp", "precision": "bfloat16"}, "precision"),
        (FrameStack(1, 84, 84), {"difference_frames": True}, "frame_stack = 2"),
    ],
)
def test_torsos_that_do_not_fit_are_refused(
    space: gym.spaces.Box, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_torso(config(**options), space)


def test_unsigned_bytes_that_are_no_picture_are_refused_with_advice_that_works() -> None:
    memory = gym.spaces.Box(0, 255, (128,), np.uint8)  # as Atari's RAM observations
    with pytest.raises(UsageError) as by_mlp:
        make_torso(config("mlp"), memory)
    with pytest.raises(UsageError) as by_cnn:
        make_torso(config(), memory)
    sent_to_the_other = 'set torso = "nature-cnn"' in str(by_mlp.value)
    sent_back = 'set torso = "mlp"' in str(by_cnn.value)
    assert not (sent_to_the_other and sent_back), "each of the two sends the user to the other"


@pytest.mark.parametrize("difference_frames", [False, True])
def test_bfloat16_is_close_to_float32_and_leaves_float32(difference_frames: bool) -> None:
    options: dict[str, Any] = {"difference_frames": difference_frames}
    exact = QNetwork(make_torso(config(**options), SCREEN), 6)
    rough = QNetwork(make_torso(config(precision="bfloat16", **options), SCREEN), 6)
    rough.load_state_dict(exact.state_dict())
    seen = pictures(8)
    values, near = exact(seen), rough(seen)
    assert near.dtype == torch.float32
    assert rough.torso(seen).dtype == torch.float32
    assert not torch.equal(values, near)
    torch.testing.assert_close(values, near, rtol=0.05, atol=0.01)
    near.sum().backward()
    assert all(parameter.dtype == torch.float32 for parameter in rough.parameters())
    assert all(
        parameter.grad is not None and parameter.grad.dtype == torch.float32
        for parameter in rough.parameters()
    )


@pytest.mark.parametrize("difference_frames", [False, True])
def test_pixels_are_rounded_once_in_bfloat16(difference_frames: bool) -> None:
    options: dict[str, Any] = {"precision": "bfloat16", "difference_frames": difference_frames}
    torso = make_torso(config(**options), SCREEN)
    assert isinstance(torso, NatureCNN)
    given: list[Tensor] = []
    torso.convolutions.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    seen = pictures(2)
    torso(seen)
    exact = seen.float()
    if difference_frames:
        exact = exact[:, 1:] - exact[:, :-1]
    torch.testing.assert_close(given[0].float(), exact / 255, rtol=2**-8, atol=0)


def test_only_the_convolutions_are_computed_in_bfloat16() -> None:
    torso = make_torso(config(precision="bfloat16"), SCREEN)
    assert isinstance(torso, NatureCNN)
    seen: list[torch.dtype] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.dtype)

    torso.convolutions.register_forward_hook(note)
    torso.fully_connected.register_forward_hook(note)
    torso(pictures(1))
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("torso", ["mlp", "nature-cnn"])
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), None])
def test_a_resolved_precision_is_never_auto(
    monkeypatch: pytest.MonkeyPatch, torso: str, capability: tuple[int, int] | None
) -> None:
    if capability is not None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    device = "cpu" if capability is None else "cuda"
    resolved = resolve_precision(config(torso, precision="auto"), device)
    assert resolved.precision in ("float32", "bfloat16")
    if torso == "mlp":
        assert resolved.precision == "float32"
    elif capability is not None:
        expected = "bfloat16" if capability >= (8, 0) else "float32"
        assert resolved.precision == expected
    for given in ("float32", "bfloat16"):
        assert resolve_precision(config(torso, precision=given), device).precision == given


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "float32"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
    ],
)
def test_precision_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision(config(precision="auto"), "cpu").precision == expected


def test_an_older_torch_that_does_not_tell_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision(config(precision="auto"), "cpu").precision == "float32"


def test_resolving_keeps_every_other_setting() -> None:
    given = config(precision="auto", width=0.5, hidden_sizes=[7], difference_frames=True)
    resolved = resolve_precision(given, "cpu")
    assert resolved.model_dump(exclude={"precision"}) == given.model_dump(exclude={"precision"})
