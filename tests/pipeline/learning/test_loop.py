"""The training loop: it learns, keeps the best, stops and goes on, and does not let one bad step spoil the rest."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from affect.pipeline.errors import AffectError
from affect.pipeline.learning.loop import Callbacks, FitResult, FitSettings, ResumeFile, SimpleTask, fit
from affect.pipeline.learning.runtime import Compute
from affect.pipeline.progress import Reporter
from torch import Tensor, nn

CPU = Compute(torch.device("cpu"))
QUIET = Reporter(quiet=True)
SCHEDULES = ("cosine", "one-cycle", "plateau", "constant")


class Task:
    """A line to learn, with dropout and batch norm, so that random and running state matter."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.x = torch.randn(256, 6)
        self.y = self.x.sum(1, keepdim=True)
        self.lines: list[dict[str, Any]] = []
        self.spoil: Callable[[int, int], bool] = lambda epoch, step: False

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(256, generator=torch.Generator().manual_seed(epoch))
        for step, rows in enumerate(order.split(32)):
            factor = math.nan if self.spoil(epoch, step) else 1.0
            yield self.x[rows] * factor, self.y[rows]

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        error = self.net(batch[0]) - batch[1]
        return error.square().mean(), {"mae": error.abs().mean()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        assert not self.net.training
        return {"score": -float((self.net(self.x) - self.y).square().mean())}

    def fit(self, **options: Any) -> FitResult:
        groups = options.pop("groups", [{"params": self.net.parameters(), "lr": 0.02}])
        state, minutes = options.pop("state", None), options.pop("state_minutes", math.inf)
        resume = ResumeFile(state, options.pop("key", ""), minutes) if state else None
        reporter = options.pop("reporter", QUIET)
        calls = Callbacks(self.lines.append, options.pop("on_step", None))
        task = SimpleTask(self.net, self.batches, self.loss, self.validate, groups, steps=8)
        return fit(task, settings(**{"epochs": 6, **options}), CPU, reporter, "task", resume=resume, callbacks=calls)

    @property
    def state(self) -> dict[str, Tensor]:
        return self.net.state_dict()


def settings(**options: Any) -> FitSettings:
    usual = {
        "score": "score", "ema": 0.0, "warmup": 0.05, "weight_decay": 0.01, "gradient_clip": 1.0, "schedule": "cosine",
    }  # fmt: skip
    return FitSettings(**{**usual, **options})


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("ema", [0.0, 0.95])
def test_it_learns_with_every_schedule(schedule: Any, ema: float) -> None:
    task = Task()
    task.net.eval()
    before = task.validate()["score"]
    result = task.fit(schedule=schedule, ema=ema, epochs=12)
    assert result.best_score > before / 4
    assert {"epoch", "train_loss", "train_mae", "score", "learning_rate", "gradient_norm", "seconds"} <= set(
        task.lines[0]
    )
    assert task.lines == result.history


def test_the_best_weights_are_left_in_the_model() -> None:
    task = Task()
    result = task.fit(groups=[{"params": task.net.parameters(), "lr": 0.5}], epochs=8)
    scores = [line["score"] for line in result.history]
    assert result.best_score == max(scores) == scores[result.best_epoch - 1]
    assert task.validate()["score"] == pytest.approx(result.best_score)


def test_training_stops_after_patience_epochs() -> None:
    task = Task()
    result = task.fit(groups=[{"params": task.net.parameters(), "lr": 0.0}], patience=2, epochs=50)
    worse = len(result.history) - result.best_epoch
    assert worse == 2


@pytest.mark.parametrize(
    "options",
    [
        {}, {"ema": 0.9}, {"schedule": "plateau"}, {"schedule": "one-cycle", "patience": 3},
        {"validate_start": True, "accumulate": 3, "ema": 0.9},
    ],
)  # fmt: skip
@pytest.mark.parametrize("state_minutes", [math.inf, 0.0])
@pytest.mark.parametrize("stop", [(1, 0), (1, 6), (3, 0), (4, 5), (6, 7)])
def test_stopped_and_resumed_is_bit_for_bit_the_same(
    tmp_path: Path, options: dict[str, Any], state_minutes: float, stop: tuple[int, int]
) -> None:
    whole = Task()
    expected = whole.fit(**options)

    stopped = Task()

    def interrupt(epoch: int, step: int) -> bool:
        if (epoch, step) == stop:
            raise KeyboardInterrupt
        return False

    stopped.spoil = interrupt
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(**options, state=tmp_path / "state.pt", key="a", state_minutes=state_minutes)
    torch.manual_seed(12345)
    resumed = Task()
    result = resumed.fit(**options, state=tmp_path / "state.pt", key="a", state_minutes=state_minutes)
    assert equal(whole.state, resumed.state)
    assert (result.best_epoch, result.best_score) == (expected.best_epoch, expected.best_score)
    for name in ("train_loss", "train_mae", "score", "gradient_norm", "learning_rate"):
        assert [line.get(name) for line in result.history] == [line.get(name) for line in expected.history]
    assert equal(result.last, expected.last)
    again = 0 if options.get("validate_start") and not stopped.lines else stop[0]
    assert [line["epoch"] for line in resumed.lines] == list(range(again, 7))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_stop_within_an_epoch_loses_no_saved_step(tmp_path: Path) -> None:
    """The batches before are not computed again."""
    seen: list[int] = []
    for stop in (5, None):
        task, steps = Task(), iter(range(100))

        def interrupt(epoch: int, step: int, stop: int | None = stop, steps: Iterator[int] = steps) -> bool:
            if step == stop:
                raise KeyboardInterrupt
            return False

        task.spoil = interrupt
        loss = task.loss
        task.loss = lambda batch, loss=loss: (seen.append(1), loss(batch))[1]  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            task.fit(epochs=1, state=tmp_path / "state.pt", state_minutes=0)
    assert len(seen) == 8


def test_gradients_of_several_batches_are_those_of_one(tmp_path: Path) -> None:
    """Without batch norm and dropout, two batches of 32 step as one of 64 does, the odd one at the end as well."""
    found = []
    for size, accumulate in ((64, 1), (32, 2)):
        torch.manual_seed(0)
        net = nn.Linear(6, 1)
        x = torch.randn(192, 6)
        task = SimpleTask(
            net, lambda epoch, x=x, size=size: x.split(size),
            lambda rows, net=net: ((net(rows) - 1).square().mean(), {}), lambda: {"s": 0.0},
            [{"params": net.parameters(), "lr": 0.01}], steps=192 // size,
        )  # fmt: skip
        fit(task, settings(score="s", epochs=2, accumulate=accumulate), CPU, QUIET, "t")
        found.append(net.weight.detach())
    torch.testing.assert_close(*found)


def test_parts_are_trained_from_their_epoch_on() -> None:
    layers = {name: nn.Linear(4, 4) for name in ("at once", "later")}
    net, before, learned = nn.ModuleDict(layers), {}, []
    for name, layer in layers.items():
        before[name] = layer.weight.detach().clone()

    def validate() -> dict[str, float]:
        learned.append({name: not torch.equal(layer.weight, before[name]) for name, layer in layers.items()})
        return {"s": float(len(learned))}

    def loss(batch: Any) -> tuple[Tensor, dict[str, Any]]:
        return sum((layer(torch.ones(4)).sum() for layer in layers.values()), torch.zeros(())), {}

    groups = [{"params": layers["at once"].parameters(), "lr": 0.1}]
    groups.append({"params": layers["later"].parameters(), "lr": 0.1, "from_epoch": 3})
    task = SimpleTask(net, lambda epoch: [None] * 2, loss, validate, groups, steps=2)
    fit(task, settings(score="s", epochs=4, weight_decay=0.5), CPU, QUIET, "t")
    assert [line["at once"] for line in learned] == [True] * 4
    assert [line["later"] for line in learned] == [False, False, True, True]


def test_the_start_is_epoch_0_and_may_stay_the_best() -> None:
    task = Task()
    before = {name: value.clone() for name, value in task.state.items()}
    diverging = [{"params": task.net.parameters(), "lr": 50.0}]
    result = task.fit(validate_start=True, groups=diverging, epochs=3, gradient_clip=0.0, schedule="constant")
    assert [line["epoch"] for line in task.lines] == [0, 1, 2, 3]
    assert result.best_epoch == 0
    assert result.best_score == task.lines[0]["score"]
    assert equal(before, task.state)
    assert not equal(before, result.last)


def test_a_finished_training_is_not_continued(tmp_path: Path) -> None:
    first, again = Task(), Task()
    first.fit(state=tmp_path / "state.pt")
    again.fit(state=tmp_path / "state.pt")
    assert equal(first.state, again.state)
    assert not again.lines


@pytest.mark.parametrize("spoilt", ["other key", "cut", "rubbish", "empty"])
def test_an_unsuitable_training_state_is_ignored(
    tmp_path: Path, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.pt"
    Task().fit(state=path, key="a", epochs=2)
    if spoilt == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    if spoilt == "rubbish":
        path.write_bytes(b"rubbish" * 100)
    if spoilt == "empty":
        path.write_bytes(b"")
    task = Task()
    task.fit(state=path, key="b" if spoilt == "other key" else "a", epochs=2, reporter=Reporter())
    assert [line["epoch"] for line in task.lines] == [1, 2]
    assert ("damaged" in capsys.readouterr().err) == (spoilt != "other key")


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    task = Task()
    task.spoil = lambda epoch, step: epoch == 2 and step in (1, 4)
    result = task.fit()
    assert [line["skipped"] for line in result.history] == [0, 2, 0, 0, 0, 0]
    assert all(torch.isfinite(parameter).all() for parameter in task.net.parameters())
    assert all(math.isfinite(line["train_loss"]) for line in result.history)


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_loss_that_never_recovers_ends_in_an_error_with_a_remedy(epochs: int) -> None:
    task = Task()
    task.spoil = lambda epoch, step: True
    with pytest.raises(AffectError, match=r"not finite.*Reduce the learning rate"):
        task.fit(epochs=epochs)


def test_a_score_that_is_not_a_number_is_never_the_best() -> None:
    task = Task()
    scores = iter([math.nan, 0.3, math.nan, 0.2])
    task.validate = lambda: {"score": next(scores)}
    result = task.fit(epochs=4, groups=[{"params": task.net.parameters(), "lr": 0.01}])
    assert (result.best_epoch, result.best_score) == (2, 0.3)


def test_no_epochs_leave_the_model_alone() -> None:
    task = Task()
    before = {name: value.clone() for name, value in task.state.items()}
    result = task.fit(epochs=0)
    assert equal(before, task.state)
    assert (result.best_epoch, result.history) == (0, [])


def test_groups_have_their_own_rates_and_biases_do_not_decay() -> None:
    layers = {name: nn.Linear(4, 4) for name in ("slow", "fast", "frozen")}
    net = nn.ModuleDict(layers)
    layers["frozen"].requires_grad_(False)
    for layer in layers.values():
        nn.init.ones_(layer.bias)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rates = (("slow", 1e-3), ("fast", 1e-1), ("frozen", 1.0))
    task = SimpleTask(
        net, lambda epoch: [None], lambda batch: (sum((p.sum() * 0 for p in net.parameters()), torch.zeros(())), {}),
        lambda: {"s": 0.0}, [{"params": layers[name].parameters(), "lr": rate} for name, rate in rates], steps=1,
    )  # fmt: skip
    fit(task, settings(score="s", epochs=1, schedule="constant", warmup=0, weight_decay=0.5), CPU, QUIET, "t")
    after = net.state_dict()
    for name in ("slow", "fast", "frozen"):
        assert torch.equal(after[f"{name}.bias"], before[f"{name}.bias"])
    torch.testing.assert_close(after["slow.weight"], before["slow.weight"] * (1 - 1e-3 * 0.5))
    torch.testing.assert_close(after["fast.weight"], before["fast.weight"] * (1 - 1e-1 * 0.5))
    assert torch.equal(after["frozen.weight"], before["frozen.weight"])


def test_the_gradient_is_clipped() -> None:
    task = Task()
    result = task.fit(gradient_clip=1e-12, epochs=1, groups=[{"params": task.net.parameters(), "lr": 1e-9}])
    assert result.history[0]["gradient_norm"] > 0.1
    assert max(parameter.grad.norm() for parameter in task.net.parameters() if parameter.grad is not None) < 1e-11


def test_a_plateau_halves_the_rate() -> None:
    task = Task()
    scores = iter([0.5] + [0.1] * 9)
    task.validate = lambda: {"score": next(scores)}
    groups = [{"params": task.net.parameters(), "lr": 0.08}]
    result = task.fit(epochs=10, schedule="plateau", warmup=0.0, groups=groups)
    rates = [line["learning_rate"] for line in result.history]
    assert rates == pytest.approx([0.08] * 4 + [0.04] * 3 + [0.02] * 3)
