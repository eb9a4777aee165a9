"""Weights & Biases, beside the local record.

An error of wandb's never ends the run: it is shown once, and the local record goes on alone.
"""

from __future__ import annotations

import contextlib
import math
import netrc
import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any, Literal
from urllib.parse import urlsplit

from idl_cli.config.train_config import TrainConfig
from idl_cli.config.training_options import WandbConfig
from idl_cli.config.typed_settings import as_plain
from idl_cli.record.metrics_reader import read_rows
from idl_cli.record.run_directory import RunDirectory
from idl_core.training.callbacks import Callback, Metrics, Plan, Progress
from idl_core.training.tasks import HIGHER_IS_BETTER

REACH_SECONDS = 3.0
INIT_SECONDS = 15.0
FINISH_SECONDS = 60.0


class WandbLogger(Callback):
    """One wandb run: metrics as `<split>/<metric>` by step, its files in the run directory.

    Args:
        sweep: the folder of the sweep that the run is a job of: its jobs share a group.
        say: takes one line for the user.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDirectory,
        sweep: Path | None,
        say: Callable[[str], None],
    ) -> None:
        assert isinstance(config.logger, WandbConfig)
        self._say = say
        self._run: Any = None
        self._offline = False
        self._failed = False
        self._metrics, self._monitor = directory.metrics, config.trainer.monitor
        self._earlier = sorted(directory.path.glob("wandb/*run-*-*"))
        with self._surviving("did not start"):
            self._start(config, config.logger, directory, sweep)

    def on_start(self, plan: Plan) -> None:
        """Log again what an earlier process recorded, where the two may be uploaded one by one.

        An offline record is uploaded as a whole, and replaces what was there under its id.
        """
        recorded_offline = any(path.name.startswith("offline-") for path in self._earlier)
        if not self._earlier or not (self._offline or recorded_offline):
            return
        best = math.inf
        sign = -1.0 if self._monitor in HIGHER_IS_BETTER else 1.0
        for row in read_rows(self._metrics):
            step, epoch, split = int(row.pop("step")), row.pop("epoch", None), row.pop("split")
            progress = Progress(step=step, epoch=epoch or 0)
            monitored = sign * row.get(self._monitor, math.inf) if split == "val" else math.inf
            improved = monitored < best
            best = min(best, monitored)
            if split == "train":
                self.on_log(progress, row)
            else:
                self.on_evaluation(progress, split, row, improved)

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self._log(progress, "train", metrics)

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        self._log(progress, split, metrics)
        if self._run is not None and (best or split == "test"):
            with self._surviving("stopped"):
                prefix = "test" if split == "test" else f"best_{split}"
                self._run.summary.update({f"{prefix}/{name}": v for name, v in metrics.items()})

    def close(self) -> None:
        """End the wandb run; it may wait a limited time for the upload."""
        if self._failed:
            _end_service()
        if self._run is None:
            return
        with self._surviving("did not finish"):
            folder = Path(self._run.dir).parent
            self._run.finish()
            if self._offline:
                self._say(f"wandb recorded offline; to upload: wandb sync {quote(str(folder))}")
        self._run = None

    def _start(
        self,
        config: TrainConfig,
        logger: WandbConfig,
        directory: RunDirectory,
        sweep: Path | None,
    ) -> None:
        import wandb

        mode = _mode(logger.mode)
        if mode == "disabled":
            self._say("wandb: disabled by WANDB_MODE")
            return
        if mode == "online" and not logged_in():  # wandb would ask for a key and wait
            self._say("wandb: not logged in (wandb login): recording offline")
            mode = "offline"
        elif mode == "online" and not reachable():  # wandb itself would try for long
            self._say(f"wandb: {_url()} is not reachable from here: recording offline")
            mode = "offline"
        name = directory.path.name if sweep is None else f"{sweep.name}-{directory.path.name}"
        arguments: dict[str, Any] = {
            "project": logger.project,
            "entity": logger.entity,
            "group": logger.group or (sweep.name if sweep is not None else None),
            "tags": list(logger.tags),
            "name": name,
            "id": self._earlier[-1].name.rpartition("-")[2] if self._earlier else None,
            "resume": "allow",
            "dir": str(directory.path.absolute()),  # its service may have begun in another folder
            "config": as_plain(config),
            "reinit": "finish_previous",
        }
        try:
            self._run = wandb.init(mode=mode, settings=_settings(mode), **arguments)
        except Exception as error:
            if mode == "offline":
                raise
            self._say(f"wandb: no connection ({_one_line(error)}): recording offline")
            mode = "offline"
            self._run = wandb.init(mode=mode, settings=_settings(mode), **arguments)
        self._offline = mode == "offline"

    def _log(self, progress: Progress, split: str, metrics: Metrics) -> None:
        if self._run is None:
            return
        with self._surviving("stopped"):
            row = {f"{split}/{name}": value for name, value in metrics.items()}
            self._run.log({**row, "epoch": progress.pass_number}, step=progress.step)

    @contextlib.contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """Catch whatever wandb raises; after its first error nothing more is sent to it."""
        try:
            yield
        except Exception as error:
            self._run, self._failed = None, True
            self._say(f"wandb {what} ({_one_line(error)}): the local record goes on alone")


def _settings(mode: str) -> Any:
    """Settings for no output and limited waiting."""
    import wandb

    settings = wandb.Settings(silent=True, console="off")
    if mode == "online":  # else it waits for its own process, which a busy machine starts slowly
        settings.init_timeout = INIT_SECONDS
    if "finish_timeout" in type(settings).model_fields:  # the oldest wandb that will do lacks it
        settings.finish_timeout = FINISH_SECONDS
    return settings


def _end_service() -> None:
    """Shut down wandb's service process, which may be dead.

    At the exit of this process that would print a traceback; and the next job of a sweep needs a
    service that works.
    """
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def logged_in() -> bool:
    """Whether wandb has credentials: in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    url = _url()
    files = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for file in files:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(Path(file).expanduser()).hosts.get(urlsplit(url).netloc):
                return True
    return False


def reachable() -> bool:
    """Whether wandb's server takes connections; taken for granted behind a proxy."""
    if urllib.request.getproxies():
        return True
    url = urlsplit(_url())
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), REACH_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _url() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def _mode(wanted: Literal["auto", "online", "offline"]) -> Literal["online", "offline", "disabled"]:
    if wanted != "auto":
        return wanted
    if (chosen := os.environ.get("WANDB_MODE")) in ("offline", "disabled"):
        return chosen  # type: ignore[return-value]
    return "online" if logged_in() else "offline"


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
