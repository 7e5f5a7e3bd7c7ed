"""A SavedModel as `tfhuber.export` writes it, made in seconds: real decoding, a network of one layer."""

import json

import numpy as np

NAMES = ["left", "right", "nose"]
SIZE = 8


def save_tiny_model(directory, *, seed=0, tta=True):
    """Writes the model, with its metadata, to a new directory; landmarks depend on pixels and box."""
    import tensorflow as tf

    module = tf.Module()
    random = np.random.default_rng(seed)
    weights = random.normal(scale=0.02, size=(SIZE * SIZE * 3, len(NAMES) * 2))
    module.weights = tf.Variable(weights, dtype=tf.float32)
    signatures = {"serving_default": _signature(module.weights, mirrored=False)}
    if tta:
        signatures["tta"] = _signature(module.weights, mirrored=True)
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(directory), signatures=signatures)
    metadata = {
        "landmark_set": {"names": NAMES, "edges": []},
        **{"family": "huber", "delta": 1.0, "square": "diagonal", "tta": tta},
    }
    (directory / "assets.extra").mkdir()
    (directory / "assets.extra/model.json").write_text(json.dumps(metadata))
    return directory


def _signature(weights, mirrored):
    import tensorflow as tf

    from tfhuber.drawing.ellipses import kappa
    from tfhuber.saved_model import decoding

    def crop(row):
        image, decoded = decoding.decode(row[0])
        region, to_crop, inside = decoding.network_crop(image, row[1], SIZE, "diagonal")
        return region, to_crop, decoded & inside

    specs = [
        tf.TensorSpec([None], tf.string, name="image_bytes"),
        tf.TensorSpec([None, 4], tf.float32, name="box"),
    ]
    kinds = (
        tf.TensorSpec([SIZE, SIZE, 3], tf.float32),
        tf.TensorSpec([3, 3], tf.float32),
        tf.TensorSpec([], tf.bool),
    )

    @tf.function(input_signature=specs)
    def predict(image_bytes, box):
        crops, to_crop, valid = tf.map_fn(crop, (image_bytes, box), fn_output_signature=kinds)
        if mirrored:
            crops = crops[:, :, ::-1]
        points = tf.reshape(crops, [-1, SIZE * SIZE * 3]) @ weights
        points = tf.reshape(points, [-1, len(NAMES), 2])
        scale = to_crop[:, 0, 0][:, tf.newaxis, tf.newaxis]
        landmarks = (points - to_crop[:, tf.newaxis, :2, 2]) / scale
        factor = tf.constant([[2.0, 0.5], [0.5, 1.0]]) * scale[..., tf.newaxis]
        factor = tf.tile(factor, [1, len(NAMES), 1, 1])
        outputs = {
            "landmarks": landmarks,
            "covariance": kappa("huber", 1.0) * tf.linalg.inv(factor @ factor),
            "precision_factor": factor,
        }
        kept = {
            name: tf.where(tf.reshape(valid, [-1] + [1] * (value.shape.rank - 1)), value, 0.0)
            for name, value in outputs.items()
        }
        return {**kept, "valid": valid}

    return predict
