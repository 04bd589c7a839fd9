"""The command for closed loops: a real rig, or a neuron that is simulated."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from phosphene.cli import progress
from phosphene.cli.options import given_settings
from phosphene.cli.shell import (
    AsJson,
    Device,
    Precision,
    Threads,
    choose_machine,
    err,
    out,
    print_json,
    print_table,
)
from phosphene.errors import BadRequest

if TYPE_CHECKING:
    from phosphene.loops import Interleaved, Loop, Noise
    from phosphene.loops.simulated import Neuron
    from phosphene.screen import Screen
    from phosphene.subjects import Subject
    from phosphene.units import Target


AsSubject = Annotated[
    str, typer.Argument(help="A network whose units are simulated neurons.", show_default=False)
]
Units = Annotated[list[str] | None, typer.Argument(help="As for synthesize.", show_default=False)]
BlackBox = Annotated[
    str,
    typer.Option(
        help="python:module:function, onnx:FILE or 'command:PROGRAM': a simulated neuron of which "
        "only responses are known."
    ),
]
TimeLimit = Annotated[
    float,
    typer.Option(help="Seconds that command:PROGRAM has for the pictures of a block.", min=0.1),
]
RigFolder = Annotated[
    Path | None, typer.Option("--folder", help="Serve a rig through this folder.")
]
Port = Annotated[
    int | None,
    typer.Option(
        help="Serve a rig through this port of 127.0.0.1; 0 takes a free one.", min=0, max=65535
    ),
]
ZeroMq = Annotated[
    bool, typer.Option("--zeromq", help="The port is ZeroMQ's: a REP socket for the rig's REQ.")
]
Readouts = Annotated[
    list[str] | None,
    typer.Option(
        "--readout",
        help="channel:0, or a sum: 'channel:A - 0.5*channel:B'. Of a rig it may be given again: "
        "each is a search of its own, and all are shown in one block.",
        show_default="channel:0",
    ),
]
Pattern = Annotated[
    bool,
    typer.Option(
        "--pattern",
        help="Climb the cosine between the channels' responses and the readout's weights.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the log and of the picture.")]
References = Annotated[
    Path | None, typer.Option(help="Folder of photographs that each generation shows again.")
]
Blanks = Annotated[int, typer.Option(help="Grey pictures in each generation.", min=0, max=1000)]
Repeats = Annotated[int, typer.Option(help="Presentations of each picture.", min=1, max=100)]
Drift = Annotated[str, typer.Option(help="none, or correct by the references: gain, offset.")]
Tries = Annotated[
    int, typer.Option(help="Blocks in which a picture without a response is shown.", min=1, max=100)
]
Plateau = Annotated[
    int,
    typer.Option(
        help="Stop when the score has not risen for so many generations, from 4 on.", min=0
    ),
]
Seed = Annotated[int, typer.Option(help="Of all that is random.", min=0)]
Multiplicative = Annotated[
    float, typer.Option("--noise", help="Trials differ by so much of the response.", min=0)
]
Fano = Annotated[
    float, typer.Option(help="Trials are counts of spikes of this variance over the mean.", min=0)
]
Trials = Annotated[
    Path | None,
    typer.Option(
        "--trials", help="A .npy array (…, pictures, trials): trials differ as these do, as counts."
    ),
]
Prior = Annotated[str, typer.Option(help="As for synthesize.", rich_help_panel="Climb")]
NamedClimb = Annotated[str, typer.Option(help="evolution.", rich_help_panel="Climb")]
Assigned = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="NAME=VALUE: an option of a part of your own.", rich_help_panel="Climb"
    ),
]
PANEL = "Screen"
Resolution = Annotated[
    str,
    typer.Option(
        "--screen",
        help="Pixels of the screen, as 1920x1080: pictures then have the size that they have on "
        "it, and a rig is told where they lie.",
        rich_help_panel=PANEL,
    ),
]
ScreenWidth = Annotated[
    float, typer.Option(help="Width of the screen in cm.", min=0, rich_help_panel=PANEL)
]
Distance = Annotated[
    float,
    typer.Option(help="Distance of the eye from the screen in cm.", min=0, rich_help_panel=PANEL),
]
Size = Annotated[
    str, typer.Option(help="Width of the picture: 4 (degrees) or 144px.", rich_help_panel=PANEL)
]
Position = Annotated[
    str,
    typer.Option(
        help="The picture's middle from the screen's, to the right and up: 2,-3 (degrees) or "
        "72px,-108px.",
        rich_help_panel=PANEL,
    ),
]
Whole = Annotated[
    bool, typer.Option("--whole", help="Write the whole screen.", rich_help_panel=PANEL)
]
Arrays = Annotated[
    bool,
    typer.Option("--arrays", help="Write arrays for PsychoPy as well.", rich_help_panel=PANEL),
]


def evolve(
    context: typer.Context,
    subject: AsSubject = "",
    units: Units = None,
    neuron: BlackBox = "",
    time_limit: TimeLimit = 600.0,
    folder: RigFolder = None,
    port: Port = None,
    zeromq: ZeroMq = False,
    readout: Readouts = None,
    pattern: Pattern = False,
    out_folder: Out = Path("evolved"),
    repeats: Repeats = 1,
    references: References = None,
    blanks: Blanks = 0,
    drift: Drift = "none",
    tries: Tries = 3,
    plateau: Plateau = 0,
    seed: Seed = 0,
    noise: Multiplicative = 0.0,
    fano: Fano = 0.0,
    trials: Trials = None,
    prior: Prior = "objects-fc6",
    climb: NamedClimb = "evolution",
    assigned: Assigned = None,
    screen: Resolution = "",
    screen_width: ScreenWidth = 0.0,
    distance: Distance = 0.0,
    size: Size = "",
    position: Position = "0,0",
    whole: Whole = False,
    arrays: Arrays = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Search without gradients for what a neuron prefers: a closed loop.

    The neuron is a real one behind a rig (--folder or --port), a network's unit, or a black box.
    The search goes on from its log after any stop: give the same command again.
    """
    ways = [bool(subject), bool(neuron), folder is not None, port is not None]
    if sum(ways) != 1:
        raise BadRequest(
            "give one of: a subject and its units, --neuron, --folder or --port; for example: "
            "phosphene evolve caffenet-objects class:lion --noise 0.2"
        )
    _check_zeromq(zeromq, port)
    if bool(units) != bool(subject):
        raise BadRequest("units are of a subject: phosphene evolve SUBJECT UNIT…")
    machine = choose_machine(device, precision, threads)
    how: dict[str, Any] = {
        "seed": seed,
        "repeats": repeats,
        "blanks": blanks,
        "drift": drift,
        "tries": tries,
        "plateau": plateau,
        "precision": machine["precision"],
        "screen": _screen(screen, screen_width, distance, size, position, whole, arrays),
    }
    given = given_settings(context, assigned or [])
    readouts = readout or ["channel:0"]
    maker = _Loops(prior, climb, given, references, pattern, str(machine["device"]), how)
    if folder is not None or port is not None:
        _serve(maker.interleaved(out_folder, readouts), folder, port, zeromq, as_json)
        return
    where = (str(machine["device"]), machine["precision"])
    neurons = _neurons(subject, units or [], neuron, time_limit, *where)
    if len(readouts) > 1:
        raise BadRequest("a simulated neuron has one readout; give several units instead")
    _simulate(maker, neurons, readouts[0], _noise(noise, fano, trials), out_folder, as_json)


def _check_zeromq(zeromq: bool, port: int | None) -> None:
    if zeromq and port is None:
        raise BadRequest("--zeromq says what --port is; give both: --zeromq --port 7777")


def _screen(
    pixels: str,
    width: float,
    distance: float,
    size: str,
    position: str,
    whole: bool,
    arrays: bool,
) -> Screen | None:
    """Return the screen that the options mean; none where none is given."""
    from phosphene.screen import Screen

    if pixels:
        return Screen(pixels, width, distance, size, position, whole, arrays)
    if width or distance or size or position != "0,0" or whole or arrays:
        raise BadRequest(
            "the place of a picture is on a screen: --screen 1920x1080 --screen-width 53 "
            "--distance 57 --size 4"
        )
    return None


def _noise(multiplicative: float, fano: float, trials: Path | None) -> Noise:
    """Return the noise that the options mean; that of trials is learned from their file."""
    from phosphene.loops import Noise, read_trials

    if trials is None:
        return Noise(multiplicative=multiplicative, fano=fano)
    if fano or multiplicative:
        raise BadRequest("--trials says what the noise is; leave out --noise and --fano")
    return Noise.of_trials(read_trials(trials))


class _Loops:
    """Make loops of the same settings."""

    def __init__(
        self,
        prior: str,
        climb: str,
        given: dict[str, Any],
        references: Path | None,
        pattern: bool,
        device: str,
        how: dict[str, Any],
    ):
        self.prior = prior
        self.climb = climb
        self.given = given
        self.references = references
        self.pattern = pattern
        self.device = device
        self.how = how

    def interleaved(self, folder: Path, readouts: list[str]) -> Loop | Interleaved:
        """Return a loop, or one for each readout, each with a folder of its readout's name."""
        from phosphene.loops import Interleaved

        if len(readouts) == 1:
            return self.loop(folder, readouts[0], None)
        names = [re.sub(r"[^A-Za-z0-9]+", "_", each).strip("_") for each in readouts]
        pairs = zip(names, readouts, strict=True)
        loops = [self.loop(folder / name, each, None, name) for name, each in pairs]
        return Interleaved(loops, self.how["seed"])

    def loop(
        self,
        folder: Path,
        readout: str,
        subject: Any,
        name: str = "",
        neuron: Neuron | None = None,
    ) -> Loop:
        """Return a loop whose log lies in a folder, for a subject or a neuron that is simulated."""
        from phosphene.loops import Loop, Readout, read_references
        from phosphene.loops.run import check_channels
        from phosphene.pictures import taken_options
        from phosphene.priors import load_prior, prior_options
        from phosphene.synthesis import settings

        changes = dict(self.given)
        options = taken_options(self.prior, prior_options(self.prior), changes)
        prior = load_prior(self.prior, subject, options).to(self.device)
        shown = read_references(self.references, prior) if self.references else None
        climb = settings(self.climb, prior, **changes)
        how = {**self.how, "references": shown, "subject": subject, "name": name}
        wanted = replace(Readout.of(readout), pattern=self.pattern)
        if neuron is not None:
            check_channels(neuron, wanted, prior)
        return Loop(prior, climb, folder, wanted, **how)


def _neurons(
    subject: str,
    units: list[str],
    black_box: str,
    seconds: float,
    device: str,
    precision: str,
) -> list[tuple[str, Neuron, Any]]:
    """Return the simulated neurons: a name, a function, and the subject where there is one."""
    from phosphene.loops.simulated import load_neuron, neuron_of

    if black_box:
        return [(black_box, load_neuron(black_box, seconds), None)]
    network, targets = _units(subject, units, device)
    return [(str(target), neuron_of(network, [target], precision), network) for target in targets]


def _units(subject: str, units: list[str], device: str) -> tuple[Subject, list[Target]]:
    """Return a network and those of its units that texts name."""
    from phosphene.subjects import load_subject

    network = load_subject(subject)
    network = replace(network, network=network.network.to(device))
    return network, [target for text in units for target in network.targets(text)]


def _simulate(
    maker: _Loops,
    neurons: list[tuple[str, Neuron, Any]],
    readout: str,
    noise: Noise,
    folder: Path,
    as_json: bool,
) -> None:
    from phosphene.loops.run import simulate, write_preferred
    from phosphene.texts import slug

    rows = []
    for name, neuron, subject in neurons:
        place = folder / slug(name) if subject is not None else folder
        loop = maker.loop(place, readout, subject, neuron=neuron)
        left = loop.climb.steps - loop.number
        with progress.bar(left, f"evolving {name}", "generations") as advance:
            outcome = simulate(loop, neuron, noise, advance)
        rows.append({"unit": name, **vars(outcome), "picture": str(write_preferred(loop))})
    if as_json:
        print_json(rows)
        return
    table = Table("unit", "first generation", "best shown", "handed over", "pictures", "picture")
    for row in rows:
        figures = [f"{row[key]:.2f}" for key in ("first", "best", "preferred")]
        table.add_row(str(row["unit"]), *figures, f"{row['pictures']:,}", str(row["picture"]))
    print_table(table)


def _serve(
    loop: Loop | Interleaved, folder: Path | None, port: int | None, zeromq: bool, as_json: bool
) -> None:
    from phosphene.loops.folder import serve_folder
    from phosphene.loops.run import write_preferred
    from phosphene.loops.server import HOST, LoopServer
    from phosphene.loops.zeromq import ZeroServer

    if folder is not None:
        for generation in serve_folder(loop, folder):
            err.print(
                f"phosphene: generation {generation.number}: {len(generation.order)} presentations",
                soft_wrap=True,
            )
    else:
        with (ZeroServer if zeromq else LoopServer)(loop, port or 0) as server:
            err.print(f"phosphene: {HOST}:{server.port}, token {server.token}", soft_wrap=True)
            server.serve()
    rows = [
        {"name": each.name, "generations": each.number, "picture": str(write_preferred(each))}
        for each in loop.loops
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        out.print(f"{row['picture']}: after {row['generations']} generations", soft_wrap=True)


def rig(
    subject: Annotated[str, typer.Argument(help="As for evolve.", show_default=False)] = "",
    units: Units = None,
    neuron: BlackBox = "",
    time_limit: TimeLimit = 600.0,
    folder: RigFolder = None,
    port: Annotated[
        int | None, typer.Option(help="The port of `phosphene evolve --port`.", min=1, max=65535)
    ] = None,
    token: Annotated[str, typer.Option(help="What `phosphene evolve --port` printed.")] = "",
    zeromq: ZeroMq = False,
    noise: Multiplicative = 0.0,
    fano: Fano = 0.0,
    trials: Trials = None,
    delay: Annotated[float, typer.Option(help="Seconds that a block takes.", min=0)] = 0.0,
    missing: Annotated[float, typer.Option(help="Chance of no response.", min=0, max=1)] = 0.0,
    failed: Annotated[float, typer.Option(help="Chance of NaN.", min=0, max=1)] = 0.0,
    repeated: Annotated[float, typer.Option(help="Chance of a second answer.", min=0, max=1)] = 0.0,
    crashed: Annotated[
        float, typer.Option(help="Chance that the rig ends amid a block.", min=0, max=1)
    ] = 0.0,
    fading: Annotated[
        float, typer.Option(help="Share of its response lost in a generation.", min=0, max=1)
    ] = 0.0,
    dead: Annotated[
        int, typer.Option(help="Generation from which the last channel is NaN; 0: never.", min=0)
    ] = 0,
    blocks: Annotated[int, typer.Option(help="Stop after so many; 0: never.", min=0)] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Simulate a rig: answer a closed loop through a folder or a port, with a rig's mishaps.

    Each unit is a channel, numbered from 0. It is for trying `phosphene evolve` before the
    experiment, and an example of the protocol.
    """
    if (
        bool(subject) == bool(neuron)
        or bool(units) != bool(subject)
        or (folder is None) == (port is None)
    ):
        raise BadRequest(
            "give a subject and its units, or --neuron; and --folder or --port; for example: "
            "phosphene rig caffenet-objects class:lion --folder exchange"
        )
    _check_zeromq(zeromq, port)
    from phosphene.loops.rig import Mishaps, Rig, answer_folder, answer_socket, answer_zeromq
    from phosphene.loops.simulated import load_neuron, neuron_of

    machine = choose_machine(device, precision, threads)
    if neuron:
        shown = load_neuron(neuron, time_limit)
    else:
        network, targets = _units(subject, units or [], str(machine["device"]))
        shown = neuron_of(network, targets, machine["precision"])
    mishaps = Mishaps(delay, missing, failed, repeated, crashed, fading, dead)
    simulated = Rig(shown, _noise(noise, fano, trials), mishaps, seed)
    if folder is not None:
        answered = answer_folder(simulated, folder)
    else:
        answered = (answer_zeromq if zeromq else answer_socket)(simulated, port or 0, token)
    for number, name in enumerate(answered, 1):
        err.print(f"phosphene: answered block {name}", soft_wrap=True)
        if number == blocks:
            return


def stimuli(
    context: typer.Context,
    pictures: Annotated[
        list[Path], typer.Argument(help="Folders made by synthesize, photographs, or files.")
    ],
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")] = Path(
        "stimuli"
    ),
    screen: Resolution = "1920x1080",
    screen_width: ScreenWidth = 0.0,
    distance: Distance = 0.0,
    size: Size = "",
    position: Position = "0,0",
    whole: Whole = False,
    arrays: Arrays = False,
    as_json: AsJson = False,
) -> None:
    """Write pictures for a screen: climbed ones and photographs under the same constraints.

    The folder is like a block of a closed loop: files, and a manifest with their place.
    """
    from phosphene.loops.stimuli import pictures_of, write_stimuli
    from phosphene.stimulus import Stimulus

    where = _screen(screen, screen_width, distance, size, position, whole, arrays)
    if where is None:
        raise BadRequest("give the screen's pixels: --screen 1920x1080")
    stimulus = Stimulus(**given_settings(context))
    rows = [
        vars(each) for each in write_stimuli(pictures_of(pictures), stimulus, where, out_folder)
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("picture", "norm", "contrast", "luminance", "missed")
    for row in rows:
        figures = [f"{row[key]:.3f}" for key in ("norm", "contrast", "luminance")]
        table.add_row(str(row["picture"]), *figures, ", ".join(row["missed"]))
    print_table(table)
