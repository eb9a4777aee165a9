"""Sweeps that are gone on with: whose jobs they are, and what a job that fails meanwhile leaves."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..conftest import Idl


def test_a_job_that_fails_while_its_sweep_is_resumed_can_be_resumed_again(
    idl: Idl, tiny: list[str], arrays: Path, tmp_path: Path
) -> None:
    data = tmp_path / "mine.npz"
    words = ["train", "-m", *tiny, f"data.path={data}", "seed=1,2", "sweep.resume=sweep"]
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").write_text("{}")  # stopped before its first job
    failing = idl(*words)
    assert failing.code == 2
    assert "sweep.resume" not in failing.out.splitlines()[0]
    for job in ("0", "1"):
        typed = yaml.safe_load((tmp_path / "sweep" / job / "overrides.yaml").read_text())
        assert not [word for word in typed if "resume" in word]
        config = yaml.safe_load((tmp_path / "sweep" / job / "config.yaml").read_text())
        assert config["sweep"]["resume"] is config["trainer"]["resume"] is None
    data.write_bytes(arrays.read_bytes())
    answer = idl(*words)
    assert answer.code == 0, answer.err


def test_jobs_in_folders_named_by_what_was_typed_are_found_again(
    idl: Idl, tiny: list[str], arrays: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.npz").write_bytes(arrays.read_bytes())  # no slash: one folder a job
    words = ["train", "-m", *tiny, "data.path=mine.npz", "trainer.max_epochs=1", "seed=1,2"]
    first = idl(
        *words, "hydra.sweep.dir=sweep", "hydra.sweep.subdir='${hydra.job.override_dirname}'"
    )
    assert first.code == 0, first.err
    folders = sorted((tmp_path / "sweep").iterdir())
    assert sum("seed=" in folder.name for folder in folders) == 2
    again = idl(*words, "sweep.resume=sweep")
    assert again.code == 0, again.err
    assert again.err.count("was complete") == 2
    assert sorted((tmp_path / "sweep").iterdir()) == folders
    config = yaml.safe_load((tmp_path / "sweep" / "multirun.yaml").read_text())
    assert config["hydra"]["sweep"]["subdir"] == "${hydra.job.override_dirname}"  # the next time
