"""affect tune: searches with Optuna for the head settings that are best on validation, from cache.

The search is stored in a journal file. Several processes can share it, and an interrupted search continues from it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config, dump, load
from ...configs.search_space import Range, Space, overrides, read_space
from ..cluster import Shared, run_tasks, worker_count
from ..errors import AffectError, ConfigError, WorkError
from ..names import csv_text
from ..progress import Reporter
from ..records import StageReport, Work
from ..runs.fit import SCORE
from ..storage.atomic import write_text
from ..storage.fingerprint import fingerprint

if TYPE_CHECKING:
    import optuna
    from rich.table import Table

STAGE = "tune"
ENOUGH = 5
"""Minimum number of finished trials for the plot of importances."""
WARM = 3
"""Epochs of a trial, and number of trials, before any trial is stopped early."""


@dataclass(frozen=True)
class _Search:
    """The arguments of each process of a search."""

    folder: Path
    work: Path
    space: Space
    trials: int
    quiet: bool


def tune(
    config: Config,
    work: Work,
    reporter: Reporter,
    *,
    space: str = "head",
    name: str = "head",
    trials: int = 40,
    scheduler: str | None = None,
) -> StageReport:
    """Searches until `trials` are finished or stopped early, including those of earlier calls.

    Writes W/tune/<name>: best.yaml, trials.csv, importance.png and the journal. With several processes, each may finish
    one more trial. space: a shipped search space, or a YAML file. The score is the mean CCC of the best epoch on
    validation, without smoothing. Raises ConfigError, MissingStageError, and WorkError if the folder contains another
    search.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("tune needs Optuna, which is not installed", "Install it: pip install optuna") from error
    from ..runs.trial import load_features

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if scheduler:
        work = work.absolute()
    folder = work.root / "tune" / name
    base = folder / "base.yaml"
    if not base.is_file():
        write_text(base, dump(config))
    ranges = read_space(space, base)
    key = fingerprint(
        features=load_features(config, work).digest,
        settings=[config.clip, config.head, config.train, config.smooth, config.runtime.seed, config.runtime.precision],
        space={setting: repr(given) for setting, given in ranges.items()},
    )
    study = _open(folder, config.runtime.seed)
    if study.user_attrs.get("key", key) != key:
        raise WorkError(
            f"{folder} already contains a search with other settings, features or search space",
            "Choose another --name, or delete the folder.",
        )
    study.set_user_attr("key", key)
    write_text(base, dump(config))
    search = _Search(folder, work.root, ranges, trials, reporter.quiet)
    before = len(_done(study))
    if before < trials:
        workers = worker_count(config.runtime.workers)
        alone = scheduler is None and workers <= 1
        # On a cluster, a search for each trial: workers that join late find one to start. Those that start when all
        # trials are finished do nothing.
        searches = trials - before if scheduler else max(1, workers)
        run_tasks(
            _search, [search] * searches, workers=0 if alone else workers, scheduler=scheduler, threads=2,
            on_result=lambda _, __: None,
            shared=Shared(folder, sorted(work.features("").parent.glob("*.h5")), (), reporter.warning),
        )  # fmt: skip
    return _report(study, base, folder, before)


def table(report: StageReport, most: int = 12) -> "Table":
    """The best trials."""
    from rich.table import Table

    shown = Table(title=f"the best of {report.facts['trials']} trials", box=None, title_justify="left")
    for column in ("trial", "mean CCC", "epoch"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("settings")
    for row in report.facts["best_trials"][:most]:
        values = (f"{key}={f'{it:.3g}' if isinstance(it, float) else it}" for key, it in row["settings"].items())
        shown.add_row(str(row["trial"]), f"{row['ccc_mean']:.4f}", str(row["best_epoch"]), "  ".join(values))
    return shown


def _open(folder: Path, seed: int) -> "optuna.Study":
    """The study in a folder. Only the process that creates it samples with the seed; others would repeat its trials."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=WARM, n_warmup_steps=WARM)
    options: dict[str, Any] = {"study_name": STAGE, "storage": storage, "pruner": pruner}
    try:
        return optuna.create_study(**options, direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    except optuna.exceptions.DuplicatedStudyError:
        return optuna.load_study(**options, sampler=optuna.samplers.TPESampler())


def _done(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _finished(study: "optuna.Study") -> "list[optuna.trial.FrozenTrial]":
    """The finished trials, the best first."""
    found = [trial for trial in _done(study) if trial.state.name == "COMPLETE"]
    return sorted(found, key=lambda trial: (-(trial.value or 0.0), trial.number))


def _search(search: _Search) -> None:
    """The work of one process."""
    import optuna

    from ..runs.trial import load_features, try_head

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    reporter, quiet = Reporter(search.quiet), Reporter(quiet=True)
    config = load(str(search.folder / "base.yaml"))
    study = _open(search.folder, config.runtime.seed)
    if len(_done(study)) >= search.trials:
        return
    features = load_features(config, Work(search.work))

    def objective(trial: optuna.Trial) -> float:
        values = {key: _suggest(trial, key, given) for key, given in search.space.items()}
        trial.set_user_attr("settings", values)

        def on_epoch(line: dict[str, Any]) -> None:
            trial.report(line[SCORE], line["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            found = try_head(load(str(search.folder / "base.yaml"), overrides(values)), features, quiet, on_epoch)
        except AffectError as error:  # it diverged
            raise optuna.TrialPruned(error.problem) from error
        trial.set_user_attr("best_epoch", found.figures["epoch"])
        trial.set_user_attr("seconds", round(found.seconds, 2))
        return found.score

    def report_trial(study: optuna.Study, trial: "optuna.trial.FrozenTrial") -> None:
        count = len(_done(study))
        given_up = trial.state == optuna.trial.TrialState.PRUNED
        what = f"stopped early after epoch {trial.last_step or 0}" if given_up else f"mean CCC {trial.value:.4f}"
        best = f"  best {study.best_value:.4f}" if _finished(study) else ""
        reporter.info(f"{STAGE} {count}/{search.trials}  trial {trial.number}: {what}{best}")
        if count >= search.trials:
            study.stop()

    study.optimize(objective, callbacks=[report_trial])


def _suggest(trial: "optuna.Trial", key: str, given: tuple[Any, ...] | Range) -> Any:
    if not isinstance(given, Range):  # by index, because a journal cannot store lists
        return given[trial.suggest_categorical(key, list(range(len(given))))]
    if given.whole:
        return trial.suggest_int(key, int(given.low), int(given.high), log=given.log, step=int(given.step or 1))
    return trial.suggest_float(key, given.low, given.high, log=given.log, step=given.step)


def _report(study: "optuna.Study", base: Path, folder: Path, before: int) -> StageReport:
    trials = _finished(study)
    if not trials:
        raise WorkError(f"{folder}: no trial finished", "Increase --trials, or use a smaller search space.")
    best = trials[0]
    rows = [
        {
            "trial": trial.number,
            "ccc_mean": trial.value,
            "best_epoch": trial.user_attrs["best_epoch"],
            "seconds": trial.user_attrs["seconds"],
            "settings": trial.user_attrs["settings"],
        }
        for trial in trials
    ]
    write_text(folder / "trials.csv", _csv(rows))
    write_text(folder / "best.yaml", dump(load(str(base), overrides(best.user_attrs["settings"]))))
    importance = _importance(study) if len(trials) >= ENOUGH else {}
    if importance:
        _draw(folder / "importance.png", importance, len(trials))
    count = len(_done(study))
    facts = {
        "trials": count,
        "given_up": count - len(trials),
        "ccc_mean": best.value,
        "settings": best.user_attrs["settings"],
        "importance": importance,
        "best_trials": rows[:20],
    }
    name = ("best.yaml",)
    made, kept = (name, ()) if count > before else ((), name)
    return StageReport(STAGE, folder / "best.yaml", made, kept, facts=facts)


def _csv(rows: list[dict[str, Any]]) -> str:
    plain = ("trial", "ccc_mean", "best_epoch", "seconds")
    header = (*plain, *rows[0]["settings"])
    return csv_text(header, ([*(row[name] for name in plain), *row["settings"].values()] for row in rows))


def _importance(study: "optuna.Study") -> dict[str, float]:
    """The importance of each setting for good trials, the largest first (PED-ANOVA; Watanabe et al., 2023)."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in found.items()}


def _draw(path: Path, importance: dict[str, float], trials: int) -> None:
    from ..visualization.style import LIGHT, drawing, save

    with drawing(LIGHT, 7.0, 1.1 + 0.34 * len(importance)) as figure:
        axes = figure.add_subplot()
        names = list(importance)[::-1]
        bars = axes.barh(names, [importance[name] for name in names], color=LIGHT.mark, height=0.62)
        axes.bar_label(bars, fmt="%.2f", padding=4, fontsize=9, color=LIGHT.soft)
        axes.set_title(f"Importance of the settings in {trials} trials", loc="left")
        axes.set_xlabel("importance (PED-ANOVA)")
        axes.set_xlim(0, 1.12 * max(importance.values()))
        axes.grid(visible=False, axis="y")
        save(figure, path)
