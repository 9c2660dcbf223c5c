"""The command line: `tournament new|run|submit|plan|status|leaderboard|enter|withdraw|extend|evaluate|report|...`.

Heavy libraries are imported inside the commands that need them, so `--help` answers at once.
"""

import importlib.metadata
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from cluster.errors import UserError
from competitors.kinds import Recipe
from orchestrator.called import JOB_VARIABLE, command_name, ended, going_on
from orchestrator.config.loading import AUTO, load_config
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.run_directory import RunDirectory

if TYPE_CHECKING:
    from orchestrator.record.snapshot import Snapshot


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models by competition: many recipes, round after round, on your own Ray cluster.",
)
# A log has no width of its own: 120 keeps the tables whole.
console = Console() if sys.stdout.isatty() else Console(width=120)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("tournament-orchestrator"))
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="The tournament's YAML.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run directory.")]
LookArgument = Annotated[
    str, typer.Argument(metavar="RUN_DIR", help="The run directory, or where it lies in an object store: s3://….")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as budget.tokens=50000.")
]
AddressOption = Annotated[
    str | None, typer.Option(help="Ray address; without it RAY_ADDRESS, or a Ray of its own on this machine.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print data instead of tables.")]


@app.command()
def new(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A model's folder, or its name on the hub.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file or glob, hf://organisation/name, or builtin:…")],
    budget: Annotated[str, typer.Option(help="How long it may train in all, such as 2h or 90min.")] = "1h",
    out: Annotated[Path | None, typer.Option(help="The file to write; default BASE-DATA.yaml here.")] = None,
    address: AddressOption = None,
) -> None:
    """Write a config for people who have no recipes: looks at the data, the base and the machine; then plan it."""
    from orchestrator.planning.plan import make_plan
    from orchestrator.planning.printed import print_plan
    from orchestrator.starting.new import written_config

    with written_config(base, data, budget, out, address) as path:
        planned = make_plan(_load(path, None, address), path, address)
    console.print(f"wrote {path}; as it is, this would run:", soft_wrap=True, markup=False, highlight=False)
    print_plan(console, planned)
    console.print(f"run it with: {command_name()} run {shlex.quote(str(path))}", soft_wrap=True, highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors."""
    from orchestrator.config.schema import schema_text

    typer.echo(schema_text(), nl=False)


@app.command()
def run(
    config: ConfigArgument,
    run_dir: Annotated[Path | None, typer.Option(help="Where everything lies; default runs/NAME.")] = None,
    address: AddressOption = None,
    set_: SetOption = None,
) -> None:
    """Run a tournament, or go on with what is there."""
    from orchestrator.driver import run_tournament
    from orchestrator.record.snapshot import SnapshotReader
    from orchestrator.views.leaderboard import build
    from orchestrator.views.live import make_live
    from orchestrator.views.tables import print_leaderboard, print_outcome

    loaded = _load(config, set_, address, run_dir or default_run_dir)
    chosen = run_dir or default_run_dir(loaded)
    if JOB_VARIABLE in os.environ and not chosen.is_absolute() and loaded.cluster.bucket is None:
        raise UserError(f"--run-dir {chosen}: in a Ray job this would be a temporary folder; give an absolute path")
    run = RunDirectory(chosen)
    if run.config_file.is_file():
        run.check(loaded)
        loaded = run.with_changes(loaded)
        done = SnapshotReader(run).read().is_finished
        found = "finished already: nothing to do" if done else "going on with what is there"
        console.print(f"{run.root}: {found}", soft_wrap=True, markup=False, highlight=False)
    live = make_live(console, loaded.all_rounds)
    with going_on(), live.shown():
        result = run_tournament(loaded, config, run, address, [live])
    board = build(result, "finished")
    print_leaderboard(console, board)
    print_outcome(console, run, board, command_name())


@app.command()
def submit(
    config: ConfigArgument,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The head's dashboard, such as http://head:8265.")
    ],
    run_dir: Annotated[Path | None, typer.Option(help="Absolute, shared by all nodes; or cluster.storage.")] = None,
    set_: SetOption = None,
    submission_id: Annotated[str | None, typer.Option(help="The job's name; default one that is free.")] = None,
    entrypoint_num_cpus: Annotated[
        float, typer.Option(min=0, help="CPUs the driver holds; with 0 it stays on the head, else it may be anywhere.")
    ] = 0,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Do not send these files of the config's folder.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Show the job's log until it ends, and end as it did.")] = True,
) -> None:
    """Run a tournament as a job of a Ray cluster, or go on with it; Ctrl-C ends the following, not the job."""
    from orchestrator.submission import submit_tournament

    loaded = load_config(config, set_, lambda stand_in: stand_in.competitors)
    again = f"{command_name()} {shlex.join(sys.argv[1:])}"
    chosen = run_dir or default_run_dir(loaded)
    code = submit_tournament(
        loaded, config, chosen, address, again, console, set_ or [], submission_id, entrypoint_num_cpus, exclude or [],
        follow,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def plan(
    config: ConfigArgument,
    address: AddressOption = None,
    cluster: Annotated[
        Path | None, typer.Option(help="Plan on paper: a config for `ray up`, at its largest, or a node: 8xH100.")
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show what would run, what it needs, and whether the cluster can place it. Trains nothing."""
    from orchestrator.planning.plan import make_plan
    from orchestrator.planning.printed import print_plan

    if cluster is not None and address is not None:
        raise UserError("give --address or --cluster, not both")
    loaded = _load(config, set_, address, cluster=cluster)
    result = make_plan(loaded, config, address, cluster)
    if json:
        console.print_json(result.model_dump_json())
    else:
        print_plan(console, result)


@app.command()
def status(run_dir: LookArgument, json: JsonOption = False) -> None:
    """Show what each entry of the newest round is doing."""
    from orchestrator.views.leaderboard import build
    from orchestrator.views.tables import print_status

    snapshot = _snapshot(run_dir)
    board = build(snapshot, snapshot.state)
    if json:
        console.print_json(board.to_text())
    else:
        print_status(console, snapshot, board)


@app.command()
def leaderboard(run_dir: LookArgument, json: JsonOption = False) -> None:
    """Show every settled round: entries, winner, champion, and the verdict in words."""
    from orchestrator.views.leaderboard import build
    from orchestrator.views.tables import print_leaderboard

    snapshot = _snapshot(run_dir)
    board = build(snapshot, snapshot.state)
    if json:
        console.print_json(board.to_text())
    else:
        print_leaderboard(console, board)


@app.command()
def enter(
    run_dir: LookArgument,
    entry: Annotated[Path, typer.Argument(metavar="ENTRY", help="A YAML of one entry or a list.")],
) -> None:
    """Have one more recipe (or a series, or a clone) compete from the next round on."""
    from orchestrator.config.loading import load_entries
    from orchestrator.record import changes

    run = RunDirectory.to_change(run_dir)
    recipes = load_entries(entry, changes.current(changes.changeable(run), run))
    console.print(changes.told(run, changes.enter(run, recipes)), highlight=False, soft_wrap=True)


@app.command()
def withdraw(run_dir: LookArgument, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Have a competitor compete no longer from the next round on."""
    from orchestrator.record import changes

    run = RunDirectory.to_change(run_dir)
    console.print(changes.told(run, changes.withdraw(run, name)), highlight=False, soft_wrap=True)


@app.command()
def extend(run_dir: LookArgument, rounds: Annotated[int, typer.Option(min=1, help="How many rounds more.")]) -> None:
    """Run more rounds than the config says; a tournament that has ended goes on with the same run command."""
    from orchestrator.record import changes

    run = RunDirectory.to_change(run_dir)
    changes.extend(run, rounds)
    going = "" if run.is_running else "; go on with the command that started it"
    all_rounds = changes.changeable(run).all_rounds
    console.print(f"{run.where}: {all_rounds} rounds now{going}", highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    run_dir: LookArgument,
    model: Annotated[Path, typer.Argument(help="A model or adapter folder.")],
    base: Annotated[Path | None, typer.Option(help="The model an adapter stands on; default: what it names.")] = None,
    prompt: Annotated[str, typer.Option(help="plain, or chat for the model's own template.")] = "plain",
    json: JsonOption = False,
) -> None:
    """Score any model or adapter on the same held-out rows, paired against the champions."""
    from transformers.utils.logging import disable_progress_bar

    from orchestrator.views.evaluate import evaluate_model, print_evaluated

    disable_progress_bar()
    result = evaluate_model(_snapshot(run_dir), model, base, prompt)
    if json:
        console.print_json(result.model_dump_json())
    else:
        print_evaluated(console, result)


@app.command()
def report(run_dir: LookArgument) -> None:
    """Write report.html again from the record."""
    from orchestrator.views.report import write_report

    snapshot = _snapshot(run_dir)
    console.print(f"wrote {write_report(snapshot, snapshot.state)}", soft_wrap=True)


@app.command()
def export(
    run_dir: LookArgument,
    dest: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    lineage: Annotated[
        str | None, typer.Option(help="Which lineage's champion; needed where there are several.")
    ] = None,
) -> None:
    """Write the champion as a plain Hugging Face model folder with a model card."""
    from orchestrator.views.export import export_champion

    console.print(f"wrote {export_champion(_snapshot(run_dir), dest, lineage)}", soft_wrap=True)


@app.command()
def fetch(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where a run lies in an object store: s3://….")],
    dest: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
) -> None:
    """Bring a run from an object store, models and all, as a run directory like any other."""
    from cluster.bucket.working_copy import bring

    console.print(f"wrote {bring(url, dest)}", soft_wrap=True)


@app.command()
def ui(
    run_dir: RunArgument,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on this run's store."""
    from orchestrator.tracking.ledger import Ledger
    from orchestrator.tracking.location import chart_path, store_uri, ui_argv

    run = RunDirectory(run_dir)
    config = run.config
    argv = ui_argv(config, run, port)
    served_elsewhere = len(argv) == 1
    server = argv[0] if served_elsewhere else f"http://127.0.0.1:{port}"
    experiment = Ledger.of(run, store_uri(config, run)).experiment_id
    chart = "nothing of this run was sent there yet" if experiment is None else f"{server}/{chart_path(experiment)}"
    console.print(f"MLflow: {server}{'' if served_elsewhere else ' (Ctrl-C ends it)'}", soft_wrap=True)
    console.print(f"test loss over rounds: {chart}", soft_wrap=True, markup=False, highlight=False)
    if not served_elsewhere:
        os.execv(argv[0], argv)


def _load(
    config: Path,
    overrides: list[str] | None,
    address: str | None,
    run_dir: Path | Callable[[TournamentConfig], Path] | None = None,
    cluster: Path | None = None,
) -> TournamentConfig:
    """The config, with a field made for it where it leaves that to us: for the cluster at `address` or on paper, or
    this machine.

    A run directory that is there already has its field, which another machine would make otherwise: that one goes on.
    """

    def make(stand_in: TournamentConfig) -> list[Recipe]:
        from orchestrator.driver import on_record
        from orchestrator.planning.basis import make_field

        where = run_dir(stand_in) if callable(run_dir) else run_dir
        there = None if where is None else on_record(stand_in, where)
        if there is not None and there.competitors_by == AUTO:
            return there.competitors
        return make_field(stand_in, config.parent, address, cluster)

    return load_config(config, overrides, make)


def _snapshot(run_dir: str) -> "Snapshot":
    """What is on record in a run directory; UserError where it is none."""
    from orchestrator.record.snapshot import SnapshotReader

    return SnapshotReader(RunDirectory.at(run_dir)).read()


def default_run_dir(config: TournamentConfig) -> Path:
    """Where a run lies when nobody says: below cluster.storage, if that is a folder, or runs/ here."""
    folder = None if config.cluster.bucket else config.cluster.storage
    return Path(folder or "runs") / config.name


def main() -> NoReturn:
    """Entry point: our own errors become exit codes, each in one line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # `plan` and `new` count tokens here
    commands = [str(getattr(command.callback, "__name__", "")) for command in app.registered_commands]
    ended(lambda: app(standalone_mode=False) or 0, commands)  # what typer.Exit carries comes back so
