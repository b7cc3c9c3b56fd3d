"""What each choice is worth: one changed at a time, some seeds each, judged on the validation split of a work folder.

    python benchmarks/ablation/ablation.py --data demo --work work

Writes WORK/ablation/results.json after every training, from which a second call goes on, and the table into
docs/ablation.md. Heads are trained in memory; what needs other features gets a work folder of its own below
WORK/ablation, with the frames linked. The variants stand in variants.yaml. Exit code 3 where some could not be tried.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from affect.configs import schema
from affect.configs.schema import Config
from affect.pipeline.errors import AffectError, ConfigError
from affect.pipeline.learning.metrics import pooled
from affect.pipeline.progress import Talk
from affect.pipeline.records import Work
from affect.pipeline.stages.adapt import adapt
from affect.pipeline.stages.cache_features import cache_features
from affect.pipeline.stages.runs import read_run, write_text
from affect.pipeline.stages.train import train
from affect.pipeline.stages.trial import Features, load_features, try_head
from affect.pipeline.storage.fingerprint import fingerprint

HERE = Path(__file__).parent
BEGIN, END = "<!-- the table: made by make ablation -->", "<!-- end of the table -->"
COLUMNS = ("ccc_valence", "ccc_arousal", "ccc_mean")
HUSH = Talk(quiet=True)
BASELINE = "the work folder's settings"


@dataclass(frozen=True)
class Variant:
    """One way to choose. features: the name of features of their own, empty: those of the work folder."""

    choice: str
    name: str
    settings: tuple[str, ...] = ()
    features: str = ""
    how: str = "head"
    seeds: int | None = None

    @property
    def title(self) -> str:
        return f"{self.choice}: {self.name}" if self.name else self.choice


@dataclass
class Bench:
    """What all trials share. results: by variant and seed. held: the features read last."""

    data: Path
    work: Work
    spec: dict[str, Any]
    talk: Talk
    results: dict[str, dict[str, dict[str, Any]]]
    held: tuple[str, Features] | None = None

    def config(self, variant: Variant, seed: int) -> Config:
        own = self.spec["features"][variant.features]["set"] if variant.features else []
        return schema.load(str(self.work.config), [*own, *variant.settings, f"runtime.seed={seed}"])

    def features(self, name: str) -> Features:
        """Those in memory, or read, or made. Stages that make them have the seed of the work folder's config."""
        if self.held is None or self.held[0] != name:
            self.held = None
            config = self.config(Variant("", "", features=name), schema.load(str(self.work.config)).runtime.seed)
            work = self.work if not name else self.prepare(name, config)
            self.held = name, load_features(config, work)
        return self.held[1]

    def folder(self, name: str, *, linked: tuple[str, ...]) -> Work:
        """A work folder below this one's, with what is linked."""
        place = Work(self.work.root / "ablation" / name)
        place.root.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.work.audit, place.audit)
        for item in linked:
            link, source = place.root / item, self.work.root / item
            link.parent.mkdir(parents=True, exist_ok=True)
            if source.exists() and not link.exists():
                link.symlink_to(source.resolve(), target_is_directory=source.is_dir())
        return place

    def prepare(self, name: str, config: Config) -> Work:
        stages = self.spec["features"][name]["stages"]
        weights = ["stn", "backbone", *([] if "adapt" in stages else ["adapted"])]
        work = self.folder(name, linked=("frames", *(f"weights/{weight}.safetensors" for weight in weights)))
        for stage in stages:
            self.talk.say(f"{name}: {stage}")
            (adapt if stage == "adapt" else cache_features)(config, self.data, work, self.talk)
        return work


def read_variants(spec: dict[str, Any]) -> list[Variant]:
    found = []
    for choice, variants in spec["choices"].items():
        for name, given in variants.items():
            more: dict[str, Any] = {"set": given} if isinstance(given, list) else dict(given)
            first = _settings_of(more.pop("from")) if "from" in more else []
            found.append(Variant(str(choice), str(name), (*first, *more.pop("set", [])), **more))
    return found


def _settings_of(name: str) -> list[str]:
    """What a shipped config says, as overrides; what it leaves out stays as it is."""
    values = yaml.safe_load((schema.HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    sections = {section: own for section, own in values.items() if isinstance(own, dict)}
    return [f"{section}.{key}={json.dumps(it)}" for section, own in sections.items() for key, it in own.items()]


def measure(bench: Bench, variant: Variant, seed: int) -> dict[str, Any]:
    """The figures of one variant with one seed, as `affect evaluate` would print them."""
    config = bench.config(variant, seed)
    features = bench.features(variant.features)
    key = fingerprint(config=config.model_dump(mode="json", exclude={"name"}), how=variant.how, of=features.digest)
    for own in bench.results.values():  # another variant may come to the same
        for known in own.values():
            if known["key"] == key:
                return known
    started = time.perf_counter()
    if variant.how == "constant":
        figures = _constant(features)
    elif variant.how == "end_to_end":
        figures = _end_to_end(bench, config)
    else:
        figures = try_head(config, features, HUSH).smoothing
    return {"key": key, **{name: figures[name] for name in COLUMNS}, "seconds": time.perf_counter() - started}


def _constant(features: Features) -> dict[str, Any]:
    labels = np.concatenate([track.target[track.valid] for track in features.learned.tracks])
    target = np.concatenate([track.target for track in features.judged.tracks])
    valid = np.concatenate([track.valid for track in features.judged.tracks])
    return pooled(np.broadcast_to(labels.mean(0), target.shape), target, valid)


def _end_to_end(bench: Bench, config: Config) -> dict[str, Any]:
    """The cached head first, then everything from it. The runs are removed: each holds a whole network."""
    names = ("stn", "backbone", "adapted")
    work = bench.folder("road", linked=("frames", "features", *(f"weights/{name}.safetensors" for name in names)))
    epochs = schema.load(str(bench.work.config)).train.epochs
    first = config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})
    train(first, bench.data, work, HUSH, run="cached")
    train(config, bench.data, work, bench.talk, run="whole", end_to_end=True, start="cached")
    figures = read_run(work.run("whole"))["smoothing"]
    shutil.rmtree(work.root / "train")
    return figures


def summed(results: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Of each column its mean and standard deviation over the seeds, None where there is one seed."""
    found = {}
    for column in COLUMNS:
        values = [own[column] for own in results.values()]
        found[column] = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None
    return found


def table(variants: list[Variant], results: dict[str, dict[str, dict[str, Any]]], failed: dict[str, str]) -> str:
    """Markdown: a row for each variant, and how its mean CCC differs from that of the settings as they are."""
    rows = ["| choice | variant | valence | arousal | mean CCC | difference | seeds |", "|---|---|---|---|---|---|---|"]
    base = summed(results[BASELINE])
    cells = [_cell(*base[column]) for column in COLUMNS]
    rows.append(f"| **as it is** | | {' | '.join(cells)} | | {len(results[BASELINE])} |")
    choice = ""
    for variant in variants:
        shown, choice = "" if variant.choice == choice else variant.choice, variant.choice
        if variant.title not in results:
            why = f"not tried: {failed[variant.title]}" if variant.title in failed else "not run yet"
            rows.append(f"| {shown} | {variant.name} | | | {why} | | |")
            continue
        found = summed(results[variant.title])
        cells = [_cell(*found[column]) for column in COLUMNS]
        gain = found["ccc_mean"][0] - base["ccc_mean"][0]
        rows.append(f"| {shown} | {variant.name} | {' | '.join(cells)} | {gain:+.3f} | {len(results[variant.title])} |")
    return "\n".join(rows)


def _cell(mean: float, spread: float | None) -> str:
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"


def write_page(path: Path, text: str) -> None:
    """Puts the table between its marks; what stands around it stays."""
    page = path.read_text(encoding="utf-8") if path.is_file() else f"# What each choice is worth\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    write_text(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def main() -> int:
    parser = argparse.ArgumentParser(description="What each choice is worth, one changed at a time.")
    parser.add_argument("--data", type=Path, default=Path("demo"))
    parser.add_argument("--work", type=Path, default=Path("work"), help="where `affect all` has been")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="CHOICE", help="repeatable; the others stay as they were")
    parser.add_argument("--variants", type=Path, default=HERE / "variants.yaml")
    parser.add_argument("--out", type=Path, default=HERE.parent.parent / "docs" / "ablation.md")
    asked = parser.parse_args()
    spec = yaml.safe_load(asked.variants.read_text(encoding="utf-8"))
    stored = asked.work / "ablation" / "results.json"
    results = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    bench = Bench(asked.data, Work(asked.work), spec, Talk(), results)
    variants = read_variants(spec)
    # Those on the same features one after the other, so that these are read once; the work folder's own first.
    order = [*dict.fromkeys(variant.features for variant in variants)]
    wanted = [it for it in variants if not asked.only or it.choice in asked.only]
    wanted.sort(key=lambda it: (order.index(it.features) if it.features else -1, it.how == "end_to_end"))
    failed: dict[str, str] = {}
    baseline = Variant(BASELINE, "")
    for variant in (baseline, *wanted):
        title = variant.title
        seeds = 1 if variant.how == "constant" else min(asked.seeds, variant.seeds or asked.seeds)
        try:
            own = {}
            for seed in range(seeds):
                own[str(seed)] = measure(bench, variant, seed)
                results[title] = {**results.get(title, {}), **own}
                write_text(stored, json.dumps(results, indent=1) + "\n")
            results[title] = own
        except AffectError as error:
            failed[title] = "no such setting" if isinstance(error, ConfigError) else error.problem
            results.pop(title, None)
            bench.talk.warn(f"{title}: {error}")
            if variant is baseline:
                return 1
            write_page(asked.out, table(variants, results, failed))
            continue
        mean, spread = summed(own)["ccc_mean"]
        seconds = sum(it["seconds"] for it in own.values())
        bench.talk.say(f"{title}: mean CCC {_cell(mean, spread)}  ({seconds:.0f} s)")
        write_text(stored, json.dumps(results, indent=1) + "\n")
        write_page(asked.out, table(variants, results, failed))
    print(asked.out)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
