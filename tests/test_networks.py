from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
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
from rlagents.networks.convolutions import FirstConv2d
from rlagents.networks.impala import ImpalaResNet, ResidualBlock
from rlagents.networks.nature import NatureCNN
from rlagents.networks.noisy import NoisyLinear, draw_noise, has_noise
from rlagents.networks.pictures import PictureTorso
from rlagents.networks.torsos import MLP
from rlagents.spaces import FrameStack

Numbers = npt.NDArray[np.float64]
SCREEN = FrameStack(4, 84, 84)
VECTOR = gym.spaces.Box(-np.inf, np.inf, (6,), np.float32)


def config(torso: str = "nature-cnn", **options: Any) -> NetworkConfig:
    if torso != "mlp":  # 512 orthogonal units take half a second to make
        options = {"hidden_sizes": [32], **options}
    return NetworkConfig.model_validate({"torso": torso, "precision": "float32", **options})


def pictures(count: int = 2, shape: tuple[int, ...] = SCREEN.shape, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(256, size=(count, *shape), dtype=np.uint8))


def vectors(count: int = 2, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(size=(count, *VECTOR.shape)).astype(np.float32))


for_pictures = pytest.mark.parametrize("name", ["nature-cnn", "impala-resnet"])


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(7)


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


def test_the_residual_network_has_the_papers_number_of_parameters() -> None:
    # A convolution of 3 by 3; each pooling halves the sides, rounded up: 84 -> 42 -> 21 -> 11.
    def section(channels: int, out: int) -> int:
        return (9 * channels * out + out) + 4 * (9 * out * out + out)

    convolutions = section(4, 16) + section(16, 32) + section(32, 32)
    assert convolutions == 97_744
    expected = convolutions + (32 * 11 * 11 * 256 + 256) + (256 * 6 + 6)
    network = QNetwork(make_torso(config("impala-resnet", hidden_sizes=None), SCREEN), 6)
    assert num_parameters(network) == expected
    # The paper's has 1.6 million on colour pictures of 72 by 96, which the poolings make 9 by 12.
    # Behind the 256 features come the last reward, 9 actions and 64 numbers of an instruction, an
    # LSTM of 256 with four gates, and the heads; the instruction's network is left out here.
    torso = make_torso(
        config("impala-resnet", hidden_sizes=None), gym.spaces.Box(0, 255, (3, 72, 96), np.uint8)
    )
    assert num_parameters(torso) == convolutions - 9 * 16 + 32 * 9 * 12 * 256 + 256 == 982_592
    core = 4 * 256 * ((256 + 1 + 9 + 64) + 256 + 1)
    assert round((982_592 + core + 257 * (9 + 1)) / 1e6, 1) == 1.6


def test_the_residual_network_has_fifteen_convolutions() -> None:
    torso = make_torso(config("impala-resnet"), SCREEN)
    assert isinstance(torso, ImpalaResNet)
    layers = [layer for layer in torso.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [16] * 5 + [32] * 10
    assert {(layer.kernel_size, layer.stride, layer.padding) for layer in layers} == {
        ((3, 3), (1, 1), (1, 1))
    }


def convolve(x: Numbers, layer: nn.Module) -> Numbers:
    """A convolution of 3 by 3 with zeros around, as slow and plain as can be."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, i : i + 3, j : j + 3]
            out[:, i, j] = (weight * window).sum(axis=(1, 2, 3)) + bias
    return out


def pool(x: Numbers) -> Numbers:
    """The largest of each 3 by 3, every second row and column."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows, columns = range(0, x.shape[1], 2), range(0, x.shape[2], 2)
    return np.array(
        [[c[i : i + 3, j : j + 3].max() for i in rows for j in columns] for c in padded]
    ).reshape(len(x), len(rows), len(columns))


def test_the_residual_network_computes_what_the_paper_draws() -> None:
    space = FrameStack(2, 16, 17)
    torso = make_torso(config("impala-resnet", width=0.125, hidden_sizes=[5]), space)
    assert isinstance(torso, ImpalaResNet)
    for parameter in torso.parameters():
        nn.init.normal_(parameter, std=0.5)  # or the blocks would be the identity
    seen = pictures(1, space.shape)
    x = seen[0].numpy() / 255
    layers = list(torso.convolutions)
    for section in range(3):
        convolution, _, *blocks = layers[4 * section : 4 * section + 4]
        x = pool(convolve(x, convolution))
        for block in blocks:
            assert isinstance(block, ResidualBlock)
            x = x + convolve(np.maximum(convolve(np.maximum(x, 0), block.first), 0), block.last)
    assert x.shape == (4, 2, 3)
    last = torso.fully_connected.layers[0]
    assert isinstance(last, nn.Linear)
    weight, bias = last.weight.detach().numpy(), last.bias.detach().numpy()
    expected = np.maximum(weight @ np.maximum(x, 0).ravel() + bias, 0)
    assert expected.any()
    np.testing.assert_allclose(torso(seen)[0].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_new_residual_block_lets_everything_through() -> None:
    torso = make_torso(config("impala-resnet"), SCREEN)
    blocks = [module for module in torso.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 6
    for block in blocks:
        x = torch.randn(2, block.first.in_channels, 5, 5)
        assert torch.equal(block(x), x)
        block(x).square().sum().backward()
        assert block.last.weight.grad is not None
        assert block.last.weight.grad.any()  # and it can become more than that


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


def test_layer_norm_by_hand() -> None:
    torso = make_torso(config("mlp", hidden_sizes=[4], layer_norm=True), VECTOR)
    assert isinstance(torso, MLP)
    linear, norm, _ = torso.layers
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([1.0, 3.0, 5.0, 11.0]))  # 5 in the mean, variance 14
        norm.weight.copy_(torch.tensor([1.0, 1.0, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.5]))
    scale = 14**-0.5
    expected = [[0, 1 - 2 * scale, 0, 2 * 6 * scale + 0.5]]
    torch.testing.assert_close(torso(vectors(1)), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "nature-cnn", "impala-resnet"])
def test_layer_norm_stands_between_each_fully_connected_layer_and_its_relu(name: str) -> None:
    space, seen = (VECTOR, vectors(3)) if name == "mlp" else (SCREEN, pictures(3))
    torso = make_torso(config(name, hidden_sizes=[16, 8], layer_norm=True), space)
    inner = torso if isinstance(torso, MLP) else torso.fully_connected
    kinds = [type(layer) for layer in inner.layers]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.ReLU] * 2
    assert sum(isinstance(layer, nn.LayerNorm) for layer in torso.modules()) == 2
    plain = make_torso(config(name, hidden_sizes=[16, 8]), space)
    assert num_parameters(torso) - num_parameters(plain) == 2 * (16 + 8)
    given: list[Tensor] = []
    inner.layers[-1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    torso(seen)
    torch.testing.assert_close(given[0].mean(dim=1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(given[0].std(dim=1, correction=0), torch.ones(3), rtol=0, atol=0.01)


# --- noisy layers ----------------------------------------


def drawn(layer: NoisyLinear, times: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return f(e) of the inputs [times, p] and of the outputs [times, q], draw by draw."""
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(times):
        layer.draw_noise(generator)
        draws.append((layer.noise_in.clone(), layer.noise_out.clone()))
    ins, outs = zip(*draws, strict=True)
    return torch.stack(ins), torch.stack(outs)


def test_a_noisy_layer_by_hand() -> None:
    layer = NoisyLinear(2, 2)
    assert num_parameters(layer) == 2 * (2 * 2 + 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
        layer.weight_sigma.copy_(torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
        layer.bias_sigma.copy_(torch.tensor([1.0, 2.0]))
    x = torch.tensor([[1.0, -1.0]])
    means = torch.tensor([[1 - 2 + 0.5, 3 - 4 - 0.5]])
    torch.testing.assert_close(layer(x), means)  # nothing has been drawn yet
    layer.noise_in = torch.tensor([2.0, -1.0])
    layer.noise_out = torch.tensor([3.0, -0.5])
    # w = [[1 + .1 * 3 * 2, 2 - .2 * 3], [3 - .3 * .5 * 2, 4 + .4 * .5]], b = [.5 + 3, -.5 - 1]
    noisy = torch.tensor([[1.6 - 1.4 + 3.5, 2.7 - 4.2 - 1.5]])
    torch.testing.assert_close(layer(x), noisy)
    torch.testing.assert_close(layer.eval()(x), means)
    torch.testing.assert_close(layer.train()(x), noisy)


def test_noise_is_a_normal_number_with_its_root_taken() -> None:
    ins, outs = drawn(NoisyLinear(500, 300), 200)
    for noise in (ins, outs):
        normal = noise.sign() * noise.square()  # the way back
        assert abs(float(normal.mean())) < 0.02
        assert float(normal.std()) == pytest.approx(1, abs=0.02)
        assert float((normal.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)
        # E|e| of a normal number is sqrt(2 / pi), and that is E f(e)^2
        assert float(noise.square().mean()) == pytest.approx((2 / np.pi) ** 0.5, abs=0.01)
        assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < 0.25
    assert abs(float((ins[:, :300] * outs).mean())) < 0.02  # inputs and outputs have their own


def test_noise_is_drawn_from_the_generator_it_is_given() -> None:
    state = torch.get_rng_state()
    one, same, other = (drawn(NoisyLinear(20, 30), 3, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    torch.manual_seed(7)
    NoisyLinear(20, 30)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    drawn(NoisyLinear(20, 30), 3)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(state, after)  # initial weights do come from the global generator


@pytest.mark.parametrize("name", ["mlp", "nature-cnn", "impala-resnet"])
@pytest.mark.parametrize("dueling", [False, True])
def test_every_fully_connected_layer_and_head_is_noisy(name: str, dueling: bool) -> None:
    space, seen = (VECTOR, vectors(3)) if name == "mlp" else (SCREEN, pictures(3))
    networks = []
    for noisy in (False, True):
        torch.manual_seed(3)
        torso = make_torso(config(name, hidden_sizes=[16, 8], noisy=noisy), space)
        networks.append(QNetwork(torso, 4, dueling=dueling, noisy=noisy))
    plain, network = networks
    assert has_noise(network)
    assert not has_noise(plain)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == 3 + dueling
    for layer in layers:
        assert isinstance(layer, NoisyLinear)
        sigma = 0.5 / layer.in_features**0.5
        for parameter in (layer.weight_sigma, layer.bias_sigma):
            torch.testing.assert_close(parameter, torch.full_like(parameter, sigma))
    bound = 8**-0.5  # of the paper's means, in the heads
    assert 0.8 * bound < float(network.head.weight.detach().abs().max()) <= bound
    fully_connected = sum(layer.weight.numel() + layer.bias.numel() for layer in layers)
    assert num_parameters(network) - num_parameters(plain) == fully_connected
    # The means are those of the same network without noise, and all that evaluation sees.
    values = plain(seen)
    assert torch.equal(network(seen), values)
    generator = torch.Generator().manual_seed(0)
    draw_noise(network, generator)
    first = network(seen)
    assert torch.equal(network(seen), first)
    draw_noise(network, generator)
    assert not torch.allclose(network(seen), first, atol=1e-3)
    assert torch.equal(network.eval()(seen), values)
    network.train()(seen)[:, 0].sum().backward()
    for layer in layers:
        assert isinstance(layer, NoisyLinear)
        for parameter in (layer.weight_sigma, layer.bias_sigma):
            assert parameter.grad is not None
            assert parameter.grad.any()


def test_noise_is_no_part_of_the_state() -> None:
    network = QNetwork(make_torso(config("mlp", noisy=True), VECTOR), 4, noisy=True)
    names = set(network.state_dict())
    assert names == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("size", [1, 5])
def test_shapes_and_types(size: int) -> None:
    for torso, observations in (
        (make_torso(config(), SCREEN), pictures(size)),
        (make_torso(config("impala-resnet"), SCREEN), pictures(size)),
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


@for_pictures
def test_dueling_values_have_the_state_value_for_their_mean(name: str) -> None:
    network = QNetwork(make_torso(config(name), SCREEN), 6, dueling=True)
    assert network.value_head is not None
    seen = pictures(3)
    value = network.value_head(network.torso(seen)).squeeze(1)
    torch.testing.assert_close(network(seen).mean(dim=1), value, rtol=1e-4, atol=1e-4)
    plain = QNetwork(make_torso(config(name), SCREEN), 6)
    assert num_parameters(network) - num_parameters(plain) == 33


@for_pictures
def test_every_picture_of_a_batch_is_seen_for_itself(name: str) -> None:
    network = QNetwork(make_torso(config(name), SCREEN), 4)
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


@for_pictures
def test_pixels_are_scaled_inside(name: str) -> None:
    torso = make_torso(config(name), SCREEN)
    assert isinstance(torso, PictureTorso)
    white = torch.full((1, *SCREEN.shape), 255, dtype=torch.uint8)
    ones = torso.convolutions(torch.ones(1, *SCREEN.shape))
    torch.testing.assert_close(torso(white), torso.fully_connected(ones))
    seen = pictures(2)
    scaled = torso.convolutions(seen.float() / 255)
    torch.testing.assert_close(torso(seen), torso.fully_connected(scaled))
    black = torso.convolutions(torch.zeros(1, *SCREEN.shape))
    torch.testing.assert_close(torso(torch.zeros_like(white)), torso.fully_connected(black))


@for_pictures
def test_difference_frames_subtract_each_frame_from_the_next(name: str) -> None:
    torso = make_torso(config(name, difference_frames=True), SCREEN)
    assert isinstance(torso, PictureTorso)
    first = torso.convolutions[0]
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == 3
    seen = pictures(2)
    numbers = seen.numpy().astype(np.float32)  # so that 3 - 5 is -2, not 254
    differences = torch.from_numpy((numbers[:, 1:] - numbers[:, :-1]) / 255)
    expected = torso.fully_connected(torso.convolutions(differences))
    torch.testing.assert_close(torso(seen), expected)


@for_pictures
def test_difference_frames_do_not_see_what_stands_still(name: str) -> None:
    torso = make_torso(config(name, difference_frames=True), SCREEN)
    still = pictures(1)[:, :1].expand(-1, 4, -1, -1)
    torch.testing.assert_close(torso(still), torso(torch.zeros(1, *SCREEN.shape).byte()))
    plain = make_torso(config(name), SCREEN)
    assert not torch.allclose(plain(still), plain(torch.zeros(1, *SCREEN.shape).byte()))


def given_to_convolutions(torso: nn.Module, seen: Tensor) -> Tensor:
    """Return what reaches the first convolution."""
    assert isinstance(torso, PictureTorso)
    given: list[Tensor] = []
    handle = torso.convolutions.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    torso(seen)
    handle.remove()
    return given[0]


@for_pictures
@pytest.mark.parametrize("difference_frames", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_centred_pictures_have_no_brightness(
    name: str, difference_frames: bool, precision: str
) -> None:
    options: dict[str, Any] = {"difference_frames": difference_frames, "precision": precision}
    torso = make_torso(config(name, center_pictures=True, **options), SCREEN)
    seen = pictures(2)
    seen[1, 2:] //= 4  # frames of a stack are centred one by one
    given = given_to_convolutions(torso, seen)
    expected = seen.float() / 255
    if difference_frames:
        expected = expected[:, 1:] - expected[:, :-1]
    expected = expected - expected.mean(dim=(2, 3), keepdim=True)
    tolerance = 1e-5 if precision == "float32" else 0.01
    torch.testing.assert_close(given.float(), expected, rtol=tolerance, atol=tolerance)


@for_pictures
def test_centred_pictures_do_not_show_a_bright_background(name: str) -> None:
    seen = pictures(1) // 2
    centred = make_torso(config(name, center_pictures=True), SCREEN)
    torch.testing.assert_close(centred(seen), centred(seen + 100), rtol=1e-3, atol=1e-4)
    plain = make_torso(config(name), SCREEN)
    assert not torch.allclose(plain(seen), plain(seen + 100), rtol=1e-2, atol=1e-2)


@for_pictures
@pytest.mark.parametrize("difference_frames", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_standardized_pictures_have_a_deviation_of_one(
    name: str, difference_frames: bool, precision: str
) -> None:
    options: dict[str, Any] = {"difference_frames": difference_frames, "precision": precision}
    torso = make_torso(config(name, standardize_pictures=True, **options), SCREEN)
    seen = pictures(2)
    seen[1, 2:] //= 4  # frames of a stack are scaled one by one
    given = given_to_convolutions(torso, seen)
    expected = seen.double() / 255
    if difference_frames:
        expected = expected[:, 1:] - expected[:, :-1]
    expected -= expected.mean(dim=(2, 3), keepdim=True)
    expected /= expected.std(dim=(2, 3), keepdim=True, correction=0)
    tolerance = 1e-4 if precision == "float32" else 0.03
    torch.testing.assert_close(given.double(), expected, rtol=tolerance, atol=tolerance)


@for_pictures
def test_an_empty_picture_is_standardized_to_zeros(name: str) -> None:
    torso = make_torso(config(name, standardize_pictures=True), SCREEN)
    given = given_to_convolutions(torso, torch.full((1, *SCREEN.shape), 87, dtype=torch.uint8))
    torch.testing.assert_close(given, torch.zeros_like(given), atol=1e-4, rtol=0)


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
    residual = make_torso(config("impala-resnet", width=0.5), SCREEN)
    found = [layer.out_channels for layer in residual.modules() if isinstance(layer, nn.Conv2d)]
    assert found == [8] * 5 + [16] * 10
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
    small = FrameStack(2, 16, 16)  # the residual network takes any that the environments may show
    assert make_torso(config("impala-resnet"), small)(pictures(1, small.shape)).shape == (1, 32)


@for_pictures
def test_colour_pictures_that_are_no_stack_are_taken_too(name: str) -> None:
    space = gym.spaces.Box(0, 255, (3, 40, 50), np.uint8)
    assert make_torso(config(name), space)(pictures(2, space.shape)).shape == (2, 32)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (SCREEN, {"torso": "mlp"}, 'set torso = "nature-cnn"'),
        (VECTOR, {"torso": "nature-cnn"}, 'set torso = "mlp"'),
        (SCREEN, {"torso": "mlp"}, 'or "impala-resnet"'),
        (VECTOR, {"torso": "impala-resnet"}, '"impala-resnet" takes pictures.* set torso = "mlp"'),
        (gym.spaces.Box(0, 1, (3, 84, 84), np.float32), {"torso": "nature-cnn"}, "nature-cnn"),
        (VECTOR, {"torso": "mlp", "difference_frames": True}, "difference_frames"),
        (VECTOR, {"torso": "mlp", "center_pictures": True}, "center_pictures"),
        (VECTOR, {"torso": "mlp", "standardize_pictures": True}, "standardize_pictures"),
        (SCREEN, {"center_pictures": True, "standardize_pictures": True}, "leave center_pictures"),
        (VECTOR, {"torso": "mlp", "width": 2.0}, "width"),
        (VECTOR, {"torso": "mlp", "precision": "bfloat16"}, "precision"),
        (VECTOR, {"torso": "mlp", "layer_norm": True, "hidden_sizes": []}, "layer_norm"),
        (SCREEN, {"layer_norm": True, "hidden_sizes": []}, "set hidden_sizes"),
        (FrameStack(1, 84, 84), {"difference_frames": True}, "frame_stack = 2"),
        (
            FrameStack(1, 84, 84),
            {"torso": "impala-resnet", "difference_frames": True},
            "frame_stack = 2",
        ),
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


@for_pictures
@pytest.mark.parametrize("difference_frames", [False, True])
def test_bfloat16_is_close_to_float32_and_leaves_float32(
    name: str, difference_frames: bool
) -> None:
    options: dict[str, Any] = {"difference_frames": difference_frames}
    exact = QNetwork(make_torso(config(name, **options), SCREEN), 6)
    rough = QNetwork(make_torso(config(name, precision="bfloat16", **options), SCREEN), 6)
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


@for_pictures
@pytest.mark.parametrize("difference_frames", [False, True])
def test_pixels_are_rounded_once_in_bfloat16(name: str, difference_frames: bool) -> None:
    options: dict[str, Any] = {"precision": "bfloat16", "difference_frames": difference_frames}
    torso = make_torso(config(name, **options), SCREEN)
    seen = pictures(2)
    given = given_to_convolutions(torso, seen)
    exact = seen.float()
    if difference_frames:
        exact = exact[:, 1:] - exact[:, :-1]
    torch.testing.assert_close(given.float(), exact / 255, rtol=2**-8, atol=0)


@for_pictures
def test_only_the_convolutions_are_computed_in_bfloat16(name: str) -> None:
    torso = make_torso(config(name, precision="bfloat16"), SCREEN)
    assert isinstance(torso, PictureTorso)
    seen: list[torch.dtype] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.dtype)

    torso.convolutions.register_forward_hook(note)
    torso.fully_connected.register_forward_hook(note)
    torso(pictures(1))
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("torso", ["mlp", "nature-cnn", "impala-resnet"])
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


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_first_convolution_has_the_gradients_of_any_other(channels: int) -> None:
    torch.manual_seed(channels)
    first = FirstConv2d(channels, 5, kernel_size=(4, 3), stride=(2, 1))
    plain = nn.Conv2d(channels, 5, kernel_size=(4, 3), stride=(2, 1))
    plain.load_state_dict(first.state_dict())
    seen = torch.rand(3, channels, 11, 12)
    scale = torch.rand(3, 5, 4, 10)
    for layer in (first, plain):
        (layer(seen) * scale).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(first(seen), plain(seen), rtol=0, atol=0)
    assert first.weight.grad is not None
    assert first.bias is not None
    torch.testing.assert_close(first.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    assert plain.bias is not None
    torch.testing.assert_close(first.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "faster"), [(1, True), (2, True), (3, False), (4, False)])
def test_the_first_convolution_pads_where_that_is_faster(channels: int, faster: bool) -> None:
    torso = NatureCNN((channels, 84, 84))
    first = torso.convolutions[0]
    assert isinstance(first, FirstConv2d)
    seen = torch.rand(2, channels, 84, 84)

    def padded(pictures: Tensor) -> bool:
        function = first(pictures).grad_fn
        assert function is not None
        return function.name() == "_ConvolveBackward"

    assert padded(seen) == faster
    assert not padded(seen.clone().requires_grad_())  # whose own gradient somebody wants
    with torch.autocast("cpu", torch.bfloat16):
        assert not padded(seen)
        assert first(seen).dtype == torch.bfloat16
    with torch.no_grad():
        assert first(seen).grad_fn is None


def test_the_noise_of_an_empty_picture_stays_small() -> None:
    torso = NatureCNN((4, 84, 84), standardize_pictures=True)
    seen = torch.full((1, *SCREEN.shape), 87, dtype=torch.uint8)
    seen[0, 0, 5, 5] = 88
    given = given_to_convolutions(torso, seen)
    assert given.max().item() == pytest.approx(1 / 255 / 0.01, rel=0.01)
