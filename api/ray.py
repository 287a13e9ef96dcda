"""Embedding on many machines, with Ray: an Encoder in each actor; an image that cannot be read is a row with an error.

    from byol_edge.ray import embed_partitions

    embed_partitions("bundles/photos", "partitions", "vectors")  # a folder of Parquet files to another

Ray's usage statistics are off where this is imported before Ray starts, unless RAY_USAGE_STATS_ENABLED says otherwise.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .runtime.cpus import available_cpus
from .runtime.encoder import Encoder
from .runtime.errors import ByolEdgeError, UsageError, brief
from .runtime.partitions import (
    Partition,
    embed_partition,
    embed_rows,
    is_embedded,
    list_partitions,
    name_image,
    plan_partitions,
    to_columns,
)
from .runtime.progress import Progress, report_progress
from .runtime.reading import BATCH_SIZE
from .runtime.text import count

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    import pyarrow
    import ray
    import ray.data
    from ray.exceptions import RayError
except ImportError as error:
    raise ImportError(f"byol_edge.ray needs {error.name}: pip install 'byol-edge[ray]'", name=error.name) from error

log = logging.getLogger(__name__)

__all__ = ["Embed", "Finished", "embed_partitions", "list_partitions"]

# A partition is given up when so many actors died of it: out of memory, or with a machine that was taken away.
MOST_DEATHS = 4


class Embed:
    """Embeds batches of a Ray data set: a class for `map_batches`, which makes one Encoder in each actor.

    `column` holds paths, encoded bytes, or Hugging Face's images `{bytes, path}`. `threads`: by default the actor's
    `num_cpus`. The column gives way to `source` (the path, null if there is none), `vector` (float32, a list of fixed
    size, null where the image cannot be read), `error` (why not, else null), `model` (the encoder's id) and `engine`;
    others are kept.

    Engines round differently: name the `variant` and the `backend` if not all machines have the same ones installed.
    """

    def __init__(
        self,
        bundle: str | Path,
        column: str = "image",
        variant: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._threads = threads or _own_cpus()
        self._encoder = Encoder(bundle, variant, backend, self._threads)
        self._column, self._batch_size = column, batch_size

    def __call__(self, batch: dict[str, Any]) -> pyarrow.Table:
        if self._column not in batch:
            raise UsageError(f"{{column}}: the data set has {', '.join(batch)}", column=self._column)
        kept = {name: _to_arrow(values) for name, values in batch.items() if name != self._column}
        encoder, images = self._encoder, map(name_image, batch[self._column])
        rows = list(embed_rows(encoder, images, self._batch_size, self._threads))
        made_by = {"model": [encoder.id] * len(rows), "engine": [encoder.engine] * len(rows)}
        return pyarrow.table(kept | to_columns(rows, encoder.embedding_size) | made_by)


def _to_arrow(values: Any) -> Any:
    return pyarrow.array(values if values.ndim == 1 else values.tolist())


def _own_cpus() -> int:
    """The CPUs that Ray has given to this actor."""
    assigned = ray.get_runtime_context().get_assigned_resources() if ray.is_initialized() else {}
    return max(1, int(assigned["CPU"])) if "CPU" in assigned else available_cpus()


@dataclass(frozen=True)
class Finished:
    """What a job did: partitions embedded now, and before; of the former, the images and how many are unreadable."""

    embedded: int
    before: int
    images: int
    unreadable: int


def embed_partitions(
    bundle: str | Path,
    partitions: str | Path | Sequence[str | Path],
    out: str | Path,
    column: str | None = None,
    variant: str = "auto",
    backend: str = "auto",
    actors: int | None = None,
    cpus: int = 1,
    batch_size: int = BATCH_SIZE,
) -> Finished:
    """Embeds Parquet files of images, or a folder of them, each into a file of the same name in the folder `out`.

    `list_partitions` makes such files of a folder of images. `column`: where the images are, as for Embed; by default
    `image` or `path`. `actors`: how many work at once, by default as many as the cluster has CPUs for; `cpus`: of each.
    All machines see the bundle, the images and `out` under the same paths, and run the variant and the engine that are
    chosen here.

    A file is written whole or not at all, with the same bytes whoever writes it: the columns `source`, `vector` and
    `error`, and in the metadata the model and the engine. Those that are there are left alone, so that the same call
    goes on where it was stopped. A partition whose actor dies is begun again, until MOST_DEATHS have died of it. Raises
    ByolEdgeError, when all others are done, if one cannot be embedded.
    """
    for name, value in (("actors", actors), ("cpus", cpus), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UsageError(f"{{{name}}}: has to be 1 or more", **{name: value})
    planned = plan_partitions(partitions, out)
    with Encoder(bundle, variant, backend, threads=1) as encoder:
        job = _Job(Path(bundle).absolute(), encoder.variant, encoder.engine, encoder.id, column, cpus, batch_size)
        waiting = [each for each in planned if not is_embedded(each, encoder.id, encoder.engine)]
    results = _run(job, waiting, actors) if waiting else []
    failed = sorted((result["source"], result["error"]) for result in results if result["error"])
    if failed:
        (source, reason), *_ = failed
        text = f"{count(len(failed), 'partition')} of {len(waiting)} could not be embedded; the same call tries again"
        raise ByolEdgeError(f"{source}: {reason.removeprefix(f'{source}: ')} ({text})")
    images, unreadable = (sum(int(result[name]) for result in results) for name in ("images", "unreadable"))
    return Finished(len(waiting), len(planned) - len(waiting), images, unreadable)


@dataclass(frozen=True)
class _Job:
    """What all actors do alike."""

    bundle: Path
    variant: str
    engine: str
    model: str
    column: str | None
    cpus: int
    batch_size: int


def _run(job: _Job, waiting: Sequence[Partition], actors: int | None) -> list[dict[str, Any]]:
    """What became of each partition: a row of _EmbedPartition."""
    for partition in waiting:
        partition.out.parent.mkdir(parents=True, exist_ok=True)
        _count_file(partition).unlink(missing_ok=True)
    if not ray.is_initialized():
        ray.init()
    most = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    if most < job.cpus:
        log.warning("an actor takes %d CPUs, and no machine has more than %d: waiting for one", job.cpus, most)
    actors = actors or max(1, int(ray.cluster_resources().get("CPU", 1)) // job.cpus)
    # Ray Data reads and writes blocks of its own, in no order. So its rows are partitions, each a block, and the actors
    # read and write.
    rows = [{"source": str(each.source), "out": str(each.out)} for each in waiting]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _EmbedPartition,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(rows)), max_tasks_in_flight_per_actor=1),
        num_cpus=job.cpus,
    )
    done.context.enable_progress_bars = False
    done.context.execution_no_progress_timeout_s = -1  # a partition may take hours
    results: list[dict[str, Any]] = []
    report_progress(Progress("embedding", 0, len(rows), "partitions"))
    try:
        for result in done.iter_rows():
            results.append(result)
            report_progress(Progress("embedding", len(results), len(rows), "partitions"))
    except RayError as error:  # such as an actor that cannot open the bundle; it ends in the reason
        raise ByolEdgeError(f"Ray stopped: {brief(Exception(str(error).strip().splitlines()[-1]))}") from error
    return results


class _EmbedPartition:
    """An actor: embeds one partition after another, and says what became of each. None of them ends the job."""

    def __init__(self, job: _Job) -> None:
        self._job, self._encoder = job, Encoder(job.bundle, job.variant, job.engine, job.cpus)
        if self._encoder.id != job.model:
            node = os.uname().nodename
            raise ByolEdgeError(f"{job.bundle} is {self._encoder.id} on {node}, and {job.model} where the job began")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        partition = Partition(*(Path(batch[name][0]) for name in ("source", "out")))
        images, unreadable, error = 0, 0, ""
        try:
            _count_begun(partition)
            job = self._job
            images, unreadable = embed_partition(self._encoder, partition, job.column, job.batch_size, job.cpus)
        except Exception as failure:  # also of pyarrow's own, or no memory
            error = brief(failure)
        _count_file(partition).unlink(missing_ok=True)
        row = {"source": str(partition.source), "images": images, "unreadable": unreadable, "error": error}
        return {name: np.array([value]) for name, value in row.items()}


def _count_begun(partition: Partition) -> None:
    """Counts how often a partition was begun, since Ray begins it again without end. Raises ByolEdgeError."""
    with _count_file(partition).open("ab") as file:
        if file.tell() == MOST_DEATHS:
            raise ByolEdgeError(f"{MOST_DEATHS} actors died of it, perhaps out of memory (Ray's log says more)")
        file.write(b".")


def _count_file(partition: Partition) -> Path:
    """Holds a byte for each time; it is there only until the partition has ended, one way or the other."""
    return partition.out.with_name(f".{partition.out.stem}.begun")
