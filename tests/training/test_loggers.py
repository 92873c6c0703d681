"""Services see a training only where the user asked for it and has a key."""

from __future__ import annotations

import sys
import types

import pytest

from pipeline.training import loggers
from pipeline.training.loop import RuntimeSettings

ROW = {"step": 10, "loss": 0.5}


class Service(types.ModuleType):
    """Stands in for wandb and comet_ml, and notes what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = types.SimpleNamespace(name=name)
        self.told: list = []

    def init(self, **facts):
        self.told.append(("init", facts["project"], facts["name"]))
        return self

    def Experiment(self, project_name):
        self.told.append(("init", project_name))
        return self

    def set_name(self, name):
        self.told.append(("name", name))

    def log(self, values, step):
        self.told.append((step, values))

    log_metrics = log

    def finish(self):
        self.told.append("end")

    end = finish


@pytest.fixture
def service(monkeypatch):
    def install(name: str) -> Service:
        module = Service(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    return install


def show(tmp_path, leads=True, **runtime) -> None:
    settings = RuntimeSettings(**{"tensorboard": False, **runtime})
    with loggers.writer(tmp_path / "onet" / "tensorboard", settings, 0, leads) as write:
        write(ROW)


def test_nothing_is_sent_unless_asked_for_even_with_a_key(service, tmp_path, monkeypatch):
    wandb, comet = service("wandb"), service("comet_ml")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("COMET_API_KEY", "k")
    show(tmp_path)
    assert wandb.told == comet.told == []


def test_rows_go_to_weights_and_biases(service, tmp_path, monkeypatch):
    wandb = service("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    show(tmp_path, wandb="shapes")
    assert wandb.told == [("init", "shapes", "onet"), (10, {"loss": 0.5}), "end"]


def test_rows_go_to_comet(service, tmp_path, monkeypatch):
    comet = service("comet_ml")
    monkeypatch.setenv("COMET_API_KEY", "k")
    show(tmp_path, comet="shapes")
    assert comet.told == [("init", "shapes"), ("name", "onet"), (10, {"loss": 0.5}), "end"]


@pytest.mark.parametrize(("setting", "key"), [("wandb", "WANDB_API_KEY"), ("comet", "COMET_API_KEY")])
def test_without_a_key_or_the_package_the_message_says_what_to_do(service, tmp_path, monkeypatch, setting, key):
    with pytest.raises(ValueError, match=f"runtime.{setting} is set, but {key} is not"):
        show(tmp_path, **{setting: "shapes"})
    monkeypatch.setenv(key, "k")
    for package in ("wandb", "comet_ml"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ValueError, match="pip install"):
        show(tmp_path, **{setting: "shapes"})


def test_processes_that_follow_send_nothing(service, tmp_path, monkeypatch):
    wandb = service("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    show(tmp_path, leads=False, wandb="shapes")
    assert wandb.told == []
