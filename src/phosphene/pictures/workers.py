"""Climb on other processes and machines: Dask's scheduler gives them the batches of a run.

A batch goes to a worker as JSON: names, settings, members. It comes back as whole files, which the
process of the command alone writes. So a run has one writer, workers need no common folder, and a
worker that is killed leaves nothing behind: the scheduler gives its batch to another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from phosphene import __version__
from phosphene.errors import BadRequest, Notice, Unavailable, one_line
from phosphene.forms import Record
from phosphene.pictures.estimate import Estimate, estimated
from phosphene.pictures.folder import climb, file_name, made, weights_of
from phosphene.pictures.request import Request, read_start
from phosphene.pictures.run import Plan
from phosphene.priors import Prior
from phosphene.runtime import chosen
from phosphene.subjects import Subject
from phosphene.synthesis import Member
from phosphene.units import Target

MOST = 1024
"""Workers that one machine may start."""
PATIENCE = "10 s"
"""How long an address may take to answer."""
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 10,  # workers that one batch may outlive
    "distributed.worker.preload": [__name__],
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,  # torch frees much, often
}
"""Of Dask, for workers of this machine."""

_turn = threading.Lock()
"""Held by the batch that climbs: a worker with several threads would share one network."""


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the command, which ends its workers; Dask calls this in each new one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, eq=False)
class Workers:
    """Hold the processes that climb: `client` is Dask's, `where` is what the user named."""

    client: Any
    where: str

    @property
    def count(self) -> int:
        """Return how many there are now, at least one."""
        return max(1, len(self.client.ncores()))

    def machine(self, device: str, precision: str, threads: int) -> dict[str, Any]:
        """Return where and how workers compute, as one of them chooses for "auto"."""
        if not self.client.ncores():
            warnings.warn(Notice(f"no worker at {self.where} yet; waiting"), stacklevel=2)
        return self._asked(_machine, device, precision, threads)

    def estimated(self, request: Request, members: Sequence[Member], batch: int) -> Estimate:
        """Return what a run takes of one worker, by the steps that one has timed."""
        return self._asked(_estimate, _order(request, members), batch)

    def climbed(
        self, plan: Plan, report: Callable[[int], None]
    ) -> Iterator[tuple[list[int], list[Record]]]:
        """Yield the places of each batch and its records, as workers finish."""
        from distributed import as_completed

        if plan.folder is None:
            raise BadRequest("workers climb into a folder; give one as out")
        orders = [
            {
                **_order(plan.request, plan.chunk(places)),
                "hashes": plan.hashes,
                "every_frame": plan.every_frame,
                "arrays": plan.arrays,
            }
            for places in plan.batches
        ]
        futures = self.client.map(climbed_files, orders, pure=False)
        pairs = zip(futures, plan.batches, strict=True)
        places_of = {future.key: places for future, places in pairs}
        waiting = as_completed(futures, loop=self.client.loop)
        del futures, orders  # a result is freed on its worker once it is written here
        for future in waiting:
            places = places_of[future.key]
            files = self._result(future)
            names = [file_name(member) for member in plan.chunk(places)]
            plan.folder.put(dict(zip(names, files, strict=True)))
            records = [Record.read(plan.folder.path / f"{name}.json") for name in names]
            report(len(places) * plan.request.climb.steps)
            yield places, records

    def _asked(self, function: Callable[..., Any], *given: Any) -> Any:
        return self._result(self.client.submit(function, *given, pure=False, priority=1))

    def _result(self, future: Any) -> Any:
        """Return what a worker made; what Dask has to say of failures is one line."""
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            return future.result()
        except KilledWorker:
            raise Unavailable(
                f"a batch outlived too many workers at {self.where}, perhaps for want of memory; "
                "what is finished is kept; give a smaller --batch, or the same command again"
            ) from None
        except (asyncio.CancelledError, CommClosedError, TimeoutError) as error:
            raise Unavailable(
                f"the scheduler at {self.where} has gone ({one_line(error)}); "
                "what is finished is kept; give the same command again"
            ) from None
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"a worker at {self.where} lacks the module {error.name!r}; "
                "install the same packages on every machine"
            ) from None


@contextmanager
def started(where: str) -> Iterator[Workers]:
    """Lend workers: a number of processes of this machine, or those of a running scheduler.

    `where` is a number, an address such as tcp://host:8786, or the scheduler's file. `Unavailable`
    where no scheduler answers.
    """
    number = int(where) if where.isdecimal() else 0
    file = not number and where.endswith(".json")
    if not (1 <= number <= MOST or file or re.fullmatch(r"[a-z]+://\S+:\d+", where)):
        raise BadRequest(
            f"--workers takes a number in 1 … {MOST:,}, an address such as tcp://host:8786, or a "
            f"scheduler's file; got {where!r}"
        )
    if file and not Path(where).exists():
        raise BadRequest(f"--workers {where}: there is no such file; dask scheduler writes it")
    try:
        import dask
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{error.name} is not installed; pip install 'phosphene[workers]'"
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        how: dict[str, Any] = {"scheduler_file": where} if file else {"address": where}
        if number:
            stack.enter_context(dask.config.set(SETTINGS))
            cluster = LocalCluster(
                n_workers=number,
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=":0",
                silence_logs=logging.CRITICAL,
                env={"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // number))},
            )
            how = {"address": stack.enter_context(cluster)}
        try:
            client = Client(**how, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"no scheduler answers at {where} ({one_line(error)}); "
                "start one with: dask scheduler"
            ) from None
        yield Workers(stack.enter_context(client), where)


def _order(request: Request, members: Sequence[Member]) -> dict[str, Any]:
    """Return what a worker must know of a batch."""
    return {
        "request": request.as_json(),
        "members": [[member.target.as_json(), member.seed] for member in members],
        "versions": {"phosphene": __version__, "torch": str(torch.__version__)},
    }


def climbed_files(order: Mapping[str, Any]) -> list[dict[str, bytes]]:
    """Climb one batch on a worker; return the files of each picture, by what their names end in."""
    with _turn:
        request, subject, prior, members = _opened(order)
        hashes = weights_of(subject, prior, request.climb)
        for part, was in order["hashes"].items():
            if hashes.get(part) != was:
                raise BadRequest(
                    f"{getattr(request, part, part)} is another {part} on worker {_name()} than "
                    "where the command was given; give all machines the same files and packages"
                )
        result = climb(
            request,
            subject,
            prior,
            members,
            read_start(request.start, subject, prior),
            order["every_frame"],
            order["arrays"],
            lambda steps: None,
            device=_device(request.device, _name()),
        )
        files = []
        for i in range(len(members)):
            record, contents = made(result, i, request.for_member(members, i), hashes)
            files.append(contents.files(record))
        return files


def _opened(order: Mapping[str, Any]) -> tuple[Request, Subject, Prior, list[Member]]:
    """Return what a worker climbs with, and give torch its threads."""
    here = {"phosphene": __version__, "torch": str(torch.__version__)}
    for name, was in order["versions"].items():
        if here[name] != was:
            raise BadRequest(
                f"worker {_name()} has {name} {here[name]}, and the command {name} {was}; "
                "install the same version on every machine"
            )
    request = Request.from_json(order["request"])
    torch.set_num_threads(request.threads)
    subject, prior = _loaded(json.dumps({**order["request"], "climb": {}, "start": ""}))
    members = [Member(Target.from_json(target), seed) for target, seed in order["members"]]
    return request, subject, prior, members


@lru_cache(maxsize=1)
def _loaded(request: str) -> tuple[Subject, Prior]:
    return Request.from_json(json.loads(request)).loaded()


def _machine(device: str, precision: str, threads: int) -> dict[str, Any]:
    device, precision = chosen(device, precision)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.partition(":")[0], True):
        raise BadRequest(f"--device {device}: worker {_name()} has none; use auto or cpu")
    own = int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads()
    return {"device": device, "precision": precision, "threads": threads or own}


def _estimate(order: Mapping[str, Any], batch: int) -> Estimate:
    with _turn:
        request, subject, prior, members = _opened(order)
        start = read_start(request.start, subject, prior)
        device = _device(request.device, _name())
        return estimated(request, subject, prior, members, start, batch, device)


def _name() -> Any:
    """Return what Dask calls this worker."""
    from distributed import get_worker

    try:
        return get_worker().name
    except ValueError:  # this is none
        return ""


def _device(device: str, name: object) -> str:
    """Return which GPU a worker takes where it sees several: the one of its number."""
    number = re.search(r"(?:^|-)(\d+)$", str(name))
    count = torch.cuda.device_count() if device == "cuda" and number else 0
    return f"cuda:{int(number[1]) % count}" if number and count > 1 else device
