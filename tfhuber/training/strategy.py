"""One training program on one device, on several, or on several machines, with the same numbers.

Three things make them the same: every replica gets its own consecutive part of each global batch, batch
normalisation takes its statistics over all replicas, and gradients are sums over the global batch.
"""

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

__all__ = [
    "SharedFlags",
    "any_process",
    "barrier",
    "distribute",
    "from_chief",
    "is_chief",
    "lost_workers_named",
    "strategy_for",
    "synchronise",
]

# A preempted machine has 30 seconds as a rule; an exchange costs about a millisecond.
_EXCHANGE_SECONDS = 1.0


def strategy_for(distribution: str) -> tf.distribute.Strategy:
    """Return the `tf.distribute` strategy of a configuration's `train.distribution`.

    That of several workers must be made before TensorFlow has run anything.

    Raises:
      ValueError: if it is `multi_worker`, and the environment's TF_CONFIG does not say which.
    """
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    if distribution == "multi_worker":
        _check_tf_config(os.environ.get("TF_CONFIG"))
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process is the one, of those that train together, that writes files."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == ("chief" if has_chief else "worker") and resolver.task_id == 0


def synchronise(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Make batch normalisation take its statistics over the global batch, not each replica's part."""
    if strategy.num_replicas_in_sync > 1:
        for layer in _layers(model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model and of the models in it."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def distribute(
    make_batches: Callable[[slice], tf.data.Dataset],
    batch_size: int,
    strategy: tf.distribute.Strategy,
) -> tf.distribute.DistributedDataset:
    """Return the dataset that gives each replica its own part of every batch, and each example to one.

    Parts follow each other in the order of replicas; where the batch does not divide, the first parts
    are one example larger.

    Args:
      make_batches: makes the dataset of a part of every global batch; slice(None) is the whole.
      batch_size: of the global batch.
      strategy: whose replicas share it.

    Raises:
      ValueError: if a replica would get nothing.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise ValueError(
            f"train.batch_size = {batch_size} is less than one example for each of {replicas} devices"
        )
    smallest, larger = divmod(batch_size, replicas)
    sizes = [smallest + (replica < larger) for replica in range(replicas)]

    def parts_here(context: tf.distribute.InputContext) -> tf.data.Dataset:
        if replicas == 1:
            return make_batches(slice(None))
        here = replicas // context.num_input_pipelines
        first = here * context.input_pipeline_id
        start, own = sum(sizes[:first]), sizes[first : first + here]
        end = start + sum(own)
        part = make_batches(slice(start, end))
        return part if here == 1 else part.rebatch(own)

    return strategy.distribute_datasets_from_function(parts_here)


def from_chief(value: int, strategy: tf.distribute.Strategy) -> int:
    """Return the chief's value in every process, once all processes have come here."""
    if _processes(strategy) == 1:
        return value
    return _totals([value], strategy, of_first=True)[0]


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Wait until all processes have come here."""
    from_chief(0, strategy)


def any_process(flags: list[bool], strategy: tf.distribute.Strategy) -> list[bool]:
    """Return for each flag whether a process has it set, once all processes have come here."""
    if _processes(strategy) == 1:
        return flags
    return [total > 0 for total in _totals(list(map(int, flags)), strategy, of_first=False)]


class SharedFlags:
    """Flags that any process may set, known to all of them after the same step.

    That takes a collective, so processes exchange them about once a second, after a number of steps
    that the chief finds by its clock; a single process knows its own at once.
    """

    def __init__(self, strategy: tf.distribute.Strategy, step: int):
        self._strategy = strategy
        self._last, self._next, self._time = step, step + 1, time.monotonic()

    def any_set(self, step: int, flags: list[bool]) -> list[bool]:
        """Return for each flag whether a process sets it; all False after steps without an exchange."""
        if _processes(self._strategy) == 1:
            return flags
        if step < self._next:
            return [False] * len(flags)
        now = time.monotonic()
        steps = int(_EXCHANGE_SECONDS * (step - self._last) / (now - self._time))
        self._last, self._time = step, now
        self._next = step + from_chief(max(1, steps), self._strategy)
        return any_process(flags, self._strategy)


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
    """Raise ConnectionError, in one line, where TensorFlow fails because another worker is gone.

    The workers that remain can only end, and all start again.
    """
    try:
        yield
    except (tf.errors.AbortedError, tf.errors.UnavailableError) as error:
        raise ConnectionError(
            "another worker of this training was lost; start all of them again with the same command, "
            "and they go on from the last checkpoint"
        ) from error


def _processes(strategy: tf.distribute.Strategy) -> int:
    """Return how many processes train together."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1
    return sum(len(addresses) for addresses in resolver.cluster_spec().as_dict().values())


def _totals(values: list[int], strategy: tf.distribute.Strategy, of_first: bool) -> list[int]:
    """Return the sums of the values over all replicas, or the values of the first replica."""
    with lost_workers_named():
        result = _summing(strategy, of_first)(tf.constant(values, tf.int64))
    return strategy.experimental_local_results(result)[0].numpy().tolist()


@functools.lru_cache(maxsize=2)  # tracing takes longer than the sum itself
def _summing(
    strategy: tf.distribute.Strategy, of_first: bool
) -> Callable[[tf.Tensor], tf.distribute.DistributedValues]:
    def of_replica(values: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        counts = context.replica_id_in_sync_group == 0 if of_first else True
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values * tf.cast(counts, tf.int64))

    return tf.function(lambda values: strategy.run(of_replica, args=(values,)), autograph=False)


def _check_tf_config(text: str | None) -> None:
    """Raise ValueError, with an example, if the text is no TF_CONFIG of a cluster of workers."""
    wanted = (
        'train.distribution = "multi_worker" needs the environment variable TF_CONFIG, such as '
        '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
    )
    got = f"got {(text or 'none')[:200]!r}"
    try:
        values = json.loads(text or "")
        cluster, task = values["cluster"], values["task"]
        jobs, ours, index = list(cluster.values()), cluster[task["type"]], int(task["index"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}; {got}") from error
    if not all(isinstance(job, list) and all(map(_is_address, job)) for job in jobs):
        raise ValueError(f"{wanted}: each job is a list of host:port; {got}")
    addresses = [address for job in jobs for address in job]
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"{wanted}: no address may come twice; {got}")
    if not set(cluster) <= {"chief", "worker"}:
        raise ValueError(f"{wanted}: jobs may be chief and worker; {got}")
    if len(cluster.get("chief", [""])) != 1:
        raise ValueError(f"{wanted}: there is one chief; {got}")
    if not 0 <= index < len(ours):
        raise ValueError(f"{wanted}: task.index counts from 0; {got}")


def _is_address(text: object) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isdecimal()
