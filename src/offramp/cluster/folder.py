"""Folders too large for one machine: Ray Data, a model in each of its actors, answers in Parquet."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import torch

from offramp.answers import answered, open_model
from offramp.answers.table import schema_of
from offramp.engine import open_runtime
from offramp.errors import DataError, UsageError
from offramp.model import EarlyExitModel
from offramp.policies import Policy, policy_to_json
from offramp.training.same_run import digest

try:
    import pyarrow as pa
    import ray
    import ray.data
    from pyarrow import fs, parquet
except ImportError as error:
    raise UsageError("many machines need more packages: pip install 'offramp[ray]'") from error

_LOG = logging.getLogger("offramp")
_ABOUT = "_about.json"
_BLOCK = 4
"""Batches in a file of answers: what an actor that is killed has to do again at most."""


@dataclass(frozen=True)
class Actors:
    """Who computes.

    Args:
        number: of actors, each with a model.
        runtime: a name from ``offramp list runtimes``.
        precision: ``fp32`` or ``bf16``.
        device: as torch has it, such as ``cuda``: then each actor has a GPU.
        threads: of an actor.
        batch: samples that it computes at once.
    """

    number: int = 1
    runtime: str = "torch"
    precision: str = "fp32"
    device: str = "cpu"
    threads: int = 1
    batch: int = 64


@dataclass(frozen=True)
class Done:
    """What has been answered.

    Args:
        before: files whose rows were there already.
        now: files that got one this time.
        errors: rows of all times for files that could not be read.
    """

    before: int
    now: int
    errors: int


def files_in(name: str, suffixes: Collection[str]) -> list[str]:
    """The files of a folder elsewhere, such as ``s3://bucket/photos``, at any depth; a file stays as it is.

    Raises:
        DataError: there is nothing, or it cannot be reached.
    """
    scheme = name.partition("://")[0]
    try:
        where, path = fs.FileSystem.from_uri(name)
        if where.get_file_info(path).type == fs.FileType.File:
            return [name]
        inside = where.get_file_info(fs.FileSelector(path, recursive=True))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{name} could not be read: {error}") from error
    found = sorted(file.path for file in inside if file.is_file and Path(file.path).suffix.lower() in suffixes)
    if not found:
        raise DataError(f"{name} holds nothing that the model reads")
    return [f"{scheme}://{quote(path)}" for path in found]


def answer_files(
    model: EarlyExitModel, policy: Policy, files: Sequence[str], out: str, actors: Actors | None = None
) -> Done:
    """Answer files on a Ray cluster, or on this machine where there is none, into a folder of Parquet files.

    What stands in the folder is not computed again: after an interruption, or with more files, the same call does what
    is missing. One call at a time writes to a folder. All machines of the cluster have Offramp, and reach the files and
    the folder.

    Args:
        model: the model; it is sent to the actors.
        policy: who leaves where.
        files: paths, or addresses such as ``s3://bucket/photo.jpg``.
        out: a folder, or the address of one; rows as ``offramp.answers`` gives them, in no order.
        actors: who computes; one if not given.

    Raises:
        UsageError: the folder holds answers of another model or policy, or something else; a runtime that is not
            there.
        DataError: the folder cannot be read or written.
    """
    actors = actors or Actors()
    schema = schema_of(open_model(model, policy, open_runtime(actors.runtime, actors.precision)))
    about = {"weights": digest(model.state_dict()), "policy": policy_to_json(policy)}
    try:
        where, folder = fs.FileSystem.from_uri(out if "://" in out else Path(out).absolute().as_uri())
        where.create_dir(folder)
        _check_about(where, folder, about, out)
        written = _written(where, folder)
        files = list(dict.fromkeys(files))
        left = [file for file in files if file not in written]
        if left:
            if not ray.is_initialized():
                ray.init(logging_level=logging.ERROR)
            _rows(model, policy, left, actors, schema).write_parquet(
                folder,
                filesystem=where,
                ray_remote_args={"num_cpus": 0},  # nothing would be written while actors hold all processors
            )
            written = _written(where, folder)
    except (OSError, pa.ArrowInvalid, json.JSONDecodeError) as error:
        raise DataError(f"{out} could not be read or written: {error}") from error
    return Done(len(files) - len(left), len(left), sum(written.values()))


class _Actor:
    """A model that answers batches of names."""

    def __init__(self, model: EarlyExitModel, policy: Policy, actors: Actors, schema: pa.Schema) -> None:
        torch.set_num_threads(actors.threads)
        runtime = open_runtime(actors.runtime, actors.precision, actors.threads)
        self.opened = open_model(model.to(actors.device), policy, runtime)
        self.schema = schema

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(answered(self.opened, batch["input"].to_pylist(), self._read), self.schema)

    def _read(self, name: str) -> Any:
        try:
            file = _reached(name)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{name} could not be read: {error}") from error
        return self.opened.input.read(file, name)


def _rows(model: EarlyExitModel, policy: Policy, files: Sequence[str], actors: Actors, schema: pa.Schema) -> Any:
    """A data set of Ray's: a row for each file."""
    blocks = max(math.ceil(len(files) / (_BLOCK * actors.batch)), min(actors.number, len(files)))
    named = ray.data.from_items([{"input": file} for file in files], override_num_blocks=blocks)
    return named.map_batches(
        _Actor,
        fn_constructor_args=(model.cpu(), policy, actors, schema),
        batch_size=actors.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors.number, initial_size=actors.number),
        num_cpus=actors.threads,
        num_gpus=int(actors.device.startswith("cuda")),
    )


def _reached(name: str) -> str | BinaryIO:
    """What a file is read from; one elsewhere is fetched whole."""
    if "://" not in name:
        return name
    where, path = fs.FileSystem.from_uri(name)
    with where.open_input_file(path) as file:
        return io.BytesIO(file.read())


def _check_about(where: fs.FileSystem, folder: str, about: Mapping[str, Any], out: str) -> None:
    """Refuse a folder of something else, or of others' answers; say whose they are in a new one."""
    path = f"{folder}/{_ABOUT}"
    inside = {Path(file.path).name for file in where.get_file_info(fs.FileSelector(folder))}
    if _ABOUT not in inside:
        if inside:
            raise UsageError(f"{out} holds something else than answers")
        with where.open_output_stream(path) as file:
            file.write(json.dumps(about).encode())
        return
    with where.open_input_stream(path) as file:
        kept = json.loads(file.read())
    if differs := sorted(key for key in about if kept.get(key) != json.loads(json.dumps(about[key]))):
        raise UsageError(f"{out} holds answers of another model: {' and '.join(differs)} differ; choose a new folder")


def _written(where: fs.FileSystem, folder: str) -> dict[str, bool]:
    """The files that have a row, and whether it is an error. What was not written to its end is deleted."""
    found: dict[str, bool] = {}
    for file in where.get_file_info(fs.FileSelector(folder)):
        if not file.path.endswith(".parquet"):
            continue
        try:
            table = parquet.read_table(file.path, filesystem=where, columns=["input", "error"], partitioning=None)
        except pa.ArrowInvalid:
            _LOG.warning("%s was not written to its end: its files are answered again", file.path)
            where.delete_file(file.path)
            continue
        found.update(zip(table["input"].to_pylist(), table["error"].is_valid().to_pylist(), strict=True))
    return found
