"""``roundhouse bench NAME``: Roundhouse against its baselines, in one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from roundhouse.cli.errors import CliError


def _progress(text: str) -> None:
    click.echo(text, err=True)


def _print(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name.replace('_', ' ')}: {text}")


@click.group(help="Measure Roundhouse against its baselines.")
def command() -> None:
    """The benchmarks."""


@command.command(
    help="What Roundhouse adds to LiteLLM: latency, processor time, requests and streamed tokens a second."
)
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def overhead(as_json: bool) -> None:
    """Run ``bench overhead``."""
    from roundhouse.bench import overhead as bench

    try:
        _print(bench.run(_progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error


@command.command(help="Our own share of a switch, with an engine of known start time.")
@click.option("--rounds", default=20, show_default=True, help="How many switches.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def switch(rounds: int, as_json: bool) -> None:
    """Run ``bench switch``."""
    from roundhouse.bench import switch as bench

    try:
        _print(bench.run(max(2, rounds), _progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error


@command.command(help="A cold engine's way to its first answer: stock, and forked from the engine host.")
@click.option("--pairs", default=5, show_default=True, help="How many starts of each kind, for each model.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def start(pairs: int, as_json: bool) -> None:
    """Run ``bench start``."""
    from roundhouse.bench import start as bench

    try:
        _print(bench.run(max(1, pairs), _progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error


@command.command(help="Many short texts made into vectors, against the engine asked directly, by texts a request.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def embeddings(as_json: bool) -> None:
    """Run ``bench embeddings``."""
    from roundhouse.bench import embeddings as bench

    try:
        _print(bench.run(_progress), as_json)
    except RuntimeError as error:
        raise CliError(str(error)) from error


@command.command(help="Our scheduler and other routers' on the same workloads, in virtual time (nothing is started).")
@click.option(
    "--workload",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A workload file or a folder of them; may be repeated. By default those that are shipped.",
)
@click.option(
    "--journal",
    "journals",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Play a day of yours again: a journal that residency wrote (residency.journal in the YAML). May be repeated.",
)
@click.option(
    "--policy",
    "names",
    multiple=True,
    help="A comma list, may be repeated: ours, llama-swap, llama-swap-unlimited, ollama, ollama-8, llmux, llmsnap, "
    "optimum (exact where the workload is small, else a proven lower bound).",
)
@click.option(
    "--max-wait", "max_wait_s", type=click.FloatRange(min=0, min_open=True), help="Another bound, in seconds."
)
@click.option("--set", "settings", multiple=True, help="Another constant of our policy, for example QUANTUM=1.")
@click.option("--warm", is_flag=True, help="Ours remembers the callers of a run before.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw a timeline of each policy (SVG).")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def switching(
    paths: tuple[Path, ...],
    journals: tuple[Path, ...],
    names: tuple[str, ...],
    max_wait_s: float | None,
    settings: tuple[str, ...],
    warm: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run ``bench switching``."""
    from roundhouse.bench import switching as bench
    from roundhouse.bench import timeline
    from roundhouse.bench.workload import WorkloadError

    try:
        chosen = bench.journals(journals) + (bench.workloads(paths) if paths or not journals else [])
        with bench.constants(settings):
            results = bench.run(chosen, bench.policies(names), warm=warm, max_wait_s=max_wait_s, report=_progress)
        if plot is not None:
            panels = [(f"{r.figures['workload']}, {r.figures['policy']}", r.run) for r in results if r.run is not None]
            plot.write_text(timeline.svg(panels), encoding="utf-8")
    except WorkloadError as error:
        raise CliError(str(error), code=2) from error
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}") from error
    figures = [result.figures for result in results]
    if as_json:
        click.echo(json.dumps(figures))
    else:
        _table(figures)


COLUMNS = (
    ("loads", "loads"),
    ("switching s", "switch_s"),
    ("mean wait s", "wait_mean_s"),
    ("p95", "wait_p95_s"),
    ("longest", "wait_max_s"),
    ("done at s", "makespan_s"),
    ("serving", "serving_share"),
    ("refused", "refused"),
    ("left", "left"),
)


def _table(figures: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("workload", "policy"):
        table.add_column(name, no_wrap=True)
    for name, _ in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in figures:
        cells = ["" if row[key] is None else f"{row[key]:g}" for _, key in COLUMNS]
        label = f" ({row['label']})" if "label" in row else ""
        table.add_row("" if row["workload"] == before else row["workload"], row["policy"] + label, *cells)
        before = row["workload"]
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)
