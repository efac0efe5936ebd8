"""Prompt-only methods to draw from a distribution, for `diffuse sample --ask`: the request of each, and what its replies say.

Every method states the question of the prompt, and all options with their probabilities. The wordings are our own; the methods are from the
papers named at each. Raise `version` when a wording or a parser changes, so that older samples remain distinguishable. Knows texts only;
`asking.py` sends the requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusecli.prompts.stated_options import StatedOptions, as_percent
from diffusecli.sampling.replies import Stated, one_answer, stated_answers

ANSWERS_PER_REPLY = 5
"""Answers that `verbalized` asks for, or as many as there are options."""

_FORM = '{} with one line, whatever form of the answer is named above: the word "Answer:" and then the answer drawn.'


@dataclass(frozen=True)
class Asked:
    """What one request is about."""

    question: str
    options: StatedOptions
    seed: str = ""  # a random string, for methods with `seeded`
    proposal: int = -1  # an option, for methods with `proposes`


@dataclass(frozen=True)
class Method:
    """A prompt-only method."""

    name: str
    version: int
    tokens: int  # default limit of a reply, in addition to the longest option
    instructions: Callable[[Asked], str]
    answers: Callable[[StatedOptions, str, bool], Stated | None]  # of a reply, and whether it was cut; None: it does not parse
    seeded: bool = False  # each request has a random string of its own
    proposes: bool = False  # a request proposes an option; replies are `ACCEPT` and `REJECT`

    def text(self, asked: Asked) -> str:
        """The request."""
        return f"{asked.question}\n\nThe possible answers and their probabilities:\n{asked.options.listing}\n\n{self.instructions(asked)}"


METHODS: dict[str, Method] = {}
ACCEPT, REJECT = 0, 1


def _method(
    name: str, *, version: int, tokens: int, answers: Callable[[StatedOptions, str, bool], Stated | None], **kind: bool
) -> Callable[[Callable[[Asked], str]], Callable[[Asked], str]]:
    """Register a method by the function that writes its instructions."""

    def register(instructions: Callable[[Asked], str]) -> Callable[[Asked], str]:
        METHODS[name] = Method(name, version, tokens, instructions, answers, **kind)
        return instructions

    return register


def _single(options: StatedOptions, reply: str, cut: bool) -> Stated | None:
    """The one answer of a reply."""
    answer = one_answer(reply, options.find, cut=cut)
    return None if answer is None else {answer: 1.0}


def _several(options: StatedOptions, reply: str, cut: bool) -> Stated | None:
    """The answers of a reply with their probabilities."""
    return stated_answers(reply, options.find, min(ANSWERS_PER_REPLY, len(options.stated)), cut=cut)


_VERDICTS = {"accept": ACCEPT, "accepted": ACCEPT, "reject": REJECT, "rejected": REJECT}


def _verdict(_options: StatedOptions, reply: str, cut: bool) -> Stated | None:
    """`ACCEPT` or `REJECT`."""
    verdict = one_answer(reply, lambda text: _VERDICTS.get(text.strip(" *_\"'`.,!()[]").casefold()), cut=cut)
    return None if verdict is None else {verdict: 1.0}


@_method("direct", version=1, tokens=32, answers=_single)
def direct(_asked: Asked) -> str:
    """One answer per reply."""
    return f"Draw one of these answers at random, each with its probability. {_FORM.format('Reply')}"


@_method("verbalized", version=1, tokens=400, answers=_several)
def verbalized(asked: Asked) -> str:
    """Several answers with probabilities per reply: verbalized sampling (Zhang et al. 2025, arXiv 2510.01171)."""
    count = min(ANSWERS_PER_REPLY, len(asked.options.stated))
    return (
        f"Do not give a single answer. Give {count} different ones, sampled at random from all possible answers, each with the probability of "
        "giving it. Write one line for each, whatever form of the answer is named above: the answer, a colon and its probability in percent."
    )


@_method("string-seed", version=1, tokens=400, answers=_single)
def string_seed(_asked: Asked) -> str:
    """The model writes a random string and derives its answer from it: string seed of thought (Misaki and Akiba 2025, arXiv 2510.21150)."""
    return (
        "Draw one of these answers at random, each with its probability. First make up a random string of letters and digits, without a "
        'pattern, on a line that begins with "String:". Then use this string as the source of randomness: compute a number from its '
        "characters, and let this number decide which answer is drawn. Show the computation in a few lines. "
        f"{_FORM.format('End')}"
    )


@_method("seeded", version=1, tokens=300, answers=_single, seeded=True)
def seeded(asked: Asked) -> str:
    """The request has a random string, and the model derives its answer from it. A variant of `string-seed` with our own random string."""
    return (
        f"Draw one of these answers at random, each with its probability. Random seed: {asked.seed}\n"
        "Use this seed as the only source of randomness: compute a number from its characters, and let this number decide which answer is drawn. "
        f"Show the computation in a few lines. {_FORM.format('End')}"
    )


@_method("rejection", version=1, tokens=32, answers=_verdict, proposes=True)
def rejection(asked: Asked) -> str:
    """The model accepts or rejects a proposal: verbalized rejection sampling (Xiao et al. 2025, arXiv 2506.09998).

    The paper samples from Bernoulli distributions. Here a proposal is drawn uniformly from any list of options.
    """
    options, proposal = asked.options, asked.proposal
    return (
        "These probabilities are the target distribution. Answers are drawn by rejection sampling: each of them is proposed with the same "
        f"probability, {as_percent(1 / len(options.stated))} (the proposal distribution), and a proposal is then accepted or rejected at random, so that "
        "the accepted ones follow the target distribution.\n"
        f"Proposal: {options.names[proposal]} (target probability {options.percent(proposal)})\n"
        'Accept or reject this proposal. Reply with one line, whatever form of the answer is named above: the word "Answer:" and then accept or reject.'
    )
