"""Linear-time mixers beside what a user could run instead, at lengths 1k to 64k: time, memory, decoding, growth.

    python -m benchmarks.mixers

Every row runs in a process of its own for each length, ours and the peers in turns, forward and then forward with
backward. A slow contender runs fewer rounds (at least one), and a peer is not asked for a length at which it would take
longer than anyone waits. What fails is written down, and the others go on. Floors are what the arithmetic alone costs
at the rates that this machine reaches in large products, in copying and in exponentials, measured in the same run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import mixers_report
from benchmarks.common import Clocks, Contender, Timing, alternate, arguments, command, in_fresh_process, peak_rss
from benchmarks.mixers_report import (
    BACKWARD,
    CLAIMS,
    COMPUTE_BOUND,
    DIRECTIONS,
    FORWARD,
    LENGTHS,
    LINOCUT,
    QUOTED,
    seconds,
)
from benchmarks.our_mixers import GIVEN_BFLOAT16, OURS, OURS_BFLOAT16
from benchmarks.our_mixers import decode as our_decode
from benchmarks.peers.mixers.rows import DECODE, ROWS
from benchmarks.report import Report, machine, write

# A contender whose rounds would take longer than this in all runs fewer of them.
PATIENCE_S = 4.0
# A peer that would take longer than this for one run is left out, unless a claim is about it.
LONGEST_S = 12.0
# A first run at this length loads what a library loads late.
SHORT = 512
# Its first run at a length compiles for that length, for so long that it is asked at the quoted length alone.
COMPILED = "torch.compile"
TOKENS = 200
BFLOAT16 = f"{LINOCUT}, bfloat16"

Skip = dict[str, list[str]]


def contenders(row: str, length: int, direction: str, *, peers_only: bool = False) -> dict[str, Callable[..., Tensor]]:
    """Ours first, then the peers that can be asked for this length."""
    limits = {p.name: p.longest_backward if direction == BACKWARD else p.longest for p in ROWS[row].peers}
    found = {
        peer.name: peer.run
        for peer in ROWS[row].peers
        if length <= limits[peer.name] and (peer.name != COMPILED or length == QUOTED)
    }
    ours = {LINOCUT: OURS.get(row), BFLOAT16: OURS_BFLOAT16.get(row)}
    return {**({} if peers_only else {name: run for name, run in ours.items() if run is not None}), **found}


def given(inputs: dict[str, Tensor], row: str, name: str) -> dict[str, Tensor]:
    """What a contender gets of a row's inputs: all of them, rounded to bfloat16 if that is ours to be measured in."""
    if name == BFLOAT16 and row in GIVEN_BFLOAT16:
        return {key: tensor.bfloat16() for key, tensor in inputs.items()}
    return inputs


def left_out(row: dict[str, Any], name: str, length: int, direction: str) -> bool:
    """Whether a peer would take too long, judged by the two lengths before; each is four times the one before.

    Args:
        row: what was measured of the row so far, by length.
        name: the peer's.
        length: the one to come.
        direction: forward, or with backward.
    """
    before = [seconds({"rows": {"": row}}, "", n, direction, name) for n in LENGTHS if n < length]
    known = [second for second in before if second is not None]
    if not known:
        return False
    growth = known[-1] / known[-2] if len(known) > 1 else 4.0
    return known[-1] * max(growth, 4.0) > LONGEST_S


def runner(run: Callable[..., Tensor], inputs: dict[str, Tensor], direction: str) -> Callable[[], object]:
    """A call without arguments; with backward, it also works out the gradient of every input."""
    if direction == FORWARD:

        def forward() -> Tensor:
            with torch.no_grad():
                return run(**inputs)

        return forward
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}

    def both() -> object:
        out = run(**leaves)
        return torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out), allow_unused=True)

    return both


def measure(row: str, length: int, rounds: int, skip: Skip) -> dict[str, Any]:
    """The timings of a row at one length, by direction and contender, and why contenders failed."""
    inputs = ROWS[row].inputs(length)
    result: dict[str, Any] = {"failed": {}}
    for direction in DIRECTIONS:
        entries: list[Contender] = []
        timings: dict[str, Timing] = {}
        for name, run in contenders(row, length, direction).items():
            if name in skip[direction]:
                continue
            call = runner(run, given(inputs, row, name), direction)
            try:
                _load(name, row, run, call)
                start = Clocks.read()
                call()
                spent = Clocks.read() - start
            except Exception as error:  # one peer's failure, of whatever kind, is not the row's
                result["failed"][name] = f"{type(error).__name__}: {str(error)[:300]}"
                continue
            limit = int(PATIENCE_S / max(spent.cpu, 1e-9))
            if limit < 2:
                timings[name] = Timing.of(name, [spent])
            else:
                entries.append(Contender(name, call, limit=min(rounds, limit), warmup=False))
        timings |= alternate(entries, rounds=rounds)
        result[direction] = {name: timing.to_json() for name, timing in timings.items()}
    return result


def _load(name: str, row: str, run: Callable[..., Tensor], call: Callable[[], object]) -> None:
    """Run once untimed."""
    if name == COMPILED:
        call()
        return
    with suppress(Exception), torch.no_grad():  # where it cannot be asked for a short input, it has loaded all the same
        run(**given(ROWS[row].inputs(SHORT), row, name))


def memory(row: str, length: int, name: str) -> dict[str, Any]:
    """Bytes that one training step adds to the peak of a fresh process."""
    inputs = given(ROWS[row].inputs(length), row, name)
    run = contenders(row, length, BACKWARD)[name]
    with suppress(Exception):  # what libraries load at their first call is not the step's
        runner(run, given(ROWS[row].inputs(SHORT), row, name), BACKWARD)()
    before = peak_rss()
    runner(run, inputs, BACKWARD)()
    return {"bytes": peak_rss() - before}


def decode(rounds: int, peers_only: bool) -> dict[str, Any]:
    """Seconds a token for one layer of Mamba, over runs of 200 tokens."""
    x = torch.randn(1, 256, generator=torch.Generator().manual_seed(0))

    def tokens(step: Callable[[Tensor], Tensor]) -> None:
        for _ in range(TOKENS):
            step(x)

    makers = {**({} if peers_only else {LINOCUT: our_decode}), **DECODE}
    timings = alternate([Contender(name, partial(tokens, make())) for name, make in makers.items()], rounds=rounds)
    return {name: [spent / TOKENS for spent in timing.cpu] for name, timing in timings.items()}


def threads(row: str, rounds: int) -> dict[str, Any]:
    """Wall seconds of ours with the threads that this process was given."""
    call = runner(OURS[row], ROWS[row].inputs(QUOTED), FORWARD)
    return {"wall": list(alternate([Contender(row, call)], rounds=rounds)[row].wall)}


def rates() -> dict[str, float]:
    """What this machine does in a second, one thread: operations of a product, bytes copied, exponentials.

    Exponentials are torch's, on arrays that stay in a cache; to base e or 2, since a factor makes one from the other.
    The fastest counts.
    """
    square, line = torch.randn(1024, 1024), torch.randn(2**26)
    product, target = torch.empty_like(square), torch.empty_like(line)

    def best(run: Callable[[], object], repeat: int) -> float:
        spent = []
        for _ in range(9):
            start = time.process_time()
            for _ in range(repeat):
                run()
            spent.append((time.process_time() - start) / repeat)
        return min(spent)

    exps = []
    for size in (2**power for power in range(12, 18)):
        small, powers = torch.randn(size), torch.empty(size)
        exps += [size / best(partial(f, small, out=powers), 2**22 // size) for f in (torch.exp, torch.exp2)]
    return {
        "flops": 2 * 1024**3 / best(lambda: torch.mm(square, square, out=product), 2),
        "bytes": 2 * 4 * 2**26 / best(lambda: target.copy_(line), 1),
        "exps": max(exps),
    }


def child(words: Sequence[str]) -> dict[str, Any]:
    """What a fresh process was started for."""
    kind, rounds, thread_count, *rest = words
    torch.set_num_threads(int(thread_count))
    if kind == "decode":
        return decode(int(rounds), peers_only=rest == ["peers"])
    if kind == "rates":
        return rates()
    if kind == "threads":
        return threads(rest[0], int(rounds))
    if kind == "memory":
        return memory(rest[0], int(rest[1]), rest[2])
    return measure(rest[0], int(rest[1]), int(rounds), json.loads(rest[2]))


def main() -> None:
    """Measure, then write mixers.json, mixers.md and mixers.png."""
    parser = arguments(__doc__ or "", rounds=7)
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=list(ROWS), default=list(ROWS), help="rows to run")
    parser.add_argument("--child", nargs="+", help="run one part and print it as JSON")
    options = parser.parse_args()
    if options.child:
        sys.stdout.write(json.dumps(child(options.child)) + "\n")
        return
    description = machine(options.threads)
    ask = partial(_ask, options.rounds, options.threads)
    found: dict[str, Any] = {"rates": ask("rates"), "rows": {}, "memory": {}, "threads": {}}
    found["decode"] = ask("decode", *(["peers"] if options.only_peers else []))
    for row in options.only:
        found["rows"][row] = _lengths(ask, row, peers_only=options.only_peers)
        names = found["rows"][row][str(QUOTED)].get(BACKWARD, {})
        found["memory"][row] = _sizes(ask, row, names)
        if row in COMPUTE_BOUND and row in OURS and not options.only_peers:
            found["threads"][row] = _one_and_two(options.rounds, row)
    report = Report(
        name="mixers",
        title="Linear-time mixers on a CPU",
        command=command("benchmarks.mixers", sys.argv[1:]),
        timings=(),
        goals=mixers_report.goals(found),
        notes=_NOTES,
        extra=found,
        sections=mixers_report.sections(found),
    )
    write(report, options.out, description)
    mixers_report.plot(found, options.out / "mixers.png")


def _lengths(ask: Callable[..., dict[str, Any]], row: str, *, peers_only: bool) -> dict[str, Any]:
    """A row at every length."""
    done: dict[str, Any] = {}
    for length in LENGTHS:
        skip: Skip = {}
        for direction in DIRECTIONS:
            claimed = {c.peer for c in CLAIMS if (c.row, c.direction, QUOTED) == (row, direction, length)}
            names = contenders(row, length, direction)
            ours = [] if not peers_only else sorted(names.keys() - contenders(row, length, direction, peers_only=True))
            slow = [name for name in names if name not in claimed and left_out(done, name, length, direction)]
            skip[direction] = [*ours, *slow]
        done[str(length)] = ask("measure", row, str(length), json.dumps(skip))
    return done


def _sizes(ask: Callable[..., dict[str, Any]], row: str, names: Iterable[str]) -> dict[str, float]:
    """What a training step of each takes, where it ran."""
    answers = {name: ask("memory", row, str(QUOTED), name) for name in names}
    return {name: answer["bytes"] for name, answer in answers.items() if "bytes" in answer}


def _one_and_two(rounds: int, row: str) -> dict[str, list[float]]:
    """Wall seconds with one thread and with two, in processes that take turns: a change of the number costs a run."""
    runs: dict[str, list[float]] = {}
    for count in (1, 2, 2, 1):
        answer = _ask(rounds, count, "threads", row)
        runs.setdefault(str(count), []).extend(answer.get("wall", []))
    return runs if all(runs.values()) else {}


def _ask(rounds: int, thread_count: int, kind: str, *rest: str) -> dict[str, Any]:
    """One part, in a process of its own; one that dies leaves its error."""
    sys.stderr.write(f"{kind} {' '.join(rest)}\n")
    try:
        return in_fresh_process("benchmarks.mixers", "--child", kind, str(rounds), str(thread_count), *rest)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return {"failed": {"all": str(error)[-500:]}}


_NOTES = (
    "Medians of process CPU time; in each process ours and the peers take turns. A contender that needs more than "
    f"{PATIENCE_S:.0f} s for all rounds runs fewer, down to one. A peer is left out of a length at which, by its "
    f"growth, one run would take more than {LONGEST_S:.0f} s, unless a goal is about it. {COMPILED} is compiled for "
    f"the quoted length, {QUOTED}, alone.",
    "Forward runs without gradients. Backward works out the gradients of all inputs; layers' weights have none.",
    "A floor is the largest of a row's operations, bytes and exponentials over what this machine reached in a 1024² "
    "product, a copy of 256 MB and torch's exponentials in cache, to base 2 where these are faster; it holds no term "
    "for anything else. Linformer's counts the layer as its formula is written, and the same result takes fewer "
    "operations in another order.",
    "The exponent of growth is that of the time outside the operating system, which hands out fresh pages for arrays "
    "of 32 MB and more, while smaller ones reuse pages: a step between 16k and 64k that is the allocator's.",
    "With MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ set (the last line tells), glibc keeps large arrays' pages "
    "too, for ours and the peers alike.",
    "In bfloat16 rows ours is given bfloat16; SSD and the gated delta rule are given float32 and round it inside, as "
    "their bfloat16 peers do.",
    "Memory is what a step adds to the peak that its process had after a step of 512 tokens.",
    "Two threads were timed on the wall, each count in processes of its own, in turns.",
)


if __name__ == "__main__":
    main()
